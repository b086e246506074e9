//! Which parts of a sparse file have space.

use std::io;
use std::ops::Range;

use windows_sys::Win32::Foundation::{
    ERROR_CALL_NOT_IMPLEMENTED, ERROR_INVALID_FUNCTION, ERROR_NOT_SUPPORTED,
};

/// The first part of `range` that has space; `None` where none has. What the system knows nothing
/// of counts as having space. `ask` answers as `calls::allocated_ranges` does.
pub(super) fn first_allocated(
    range: Range<u64>,
    mut ask: impl FnMut(&Range<u64>) -> io::Result<(Vec<Range<u64>>, bool)>,
) -> io::Result<Option<Range<u64>>> {
    let mut found: Option<Range<u64>> = None;
    let mut left = range.clone();
    while left.start < left.end {
        let (ranges, more) = match ask(&left) {
            Ok(answer) => answer,
            Err(cause) if is_missing(&cause) => return Ok(Some(range)),
            Err(cause) => return Err(cause),
        };
        for next in &ranges {
            let next = next.start.max(left.start)..next.end.min(range.end);
            match &mut found {
                _ if next.is_empty() => {}
                None => found = Some(next),
                // The system may tell of neighbours one by one.
                Some(found) if found.end == next.start => found.end = next.end,
                Some(_) => return Ok(found),
            }
        }
        match ranges.last() {
            Some(last) if more && last.end > left.start => left.start = last.end,
            _ => break,
        }
    }
    Ok(found)
}

/// Whether the file system does not know of the call.
pub(super) fn is_missing(cause: &io::Error) -> bool {
    let code = cause.raw_os_error().map(i32::cast_unsigned);
    let missing = [
        ERROR_INVALID_FUNCTION,
        ERROR_NOT_SUPPORTED,
        ERROR_CALL_NOT_IMPLEMENTED,
    ];
    code.is_some_and(|code| missing.contains(&code))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers as NTFS does, of a file with these parts, at most `most` at a time.
    fn first(range: Range<u64>, parts: &[Range<u64>], most: usize) -> Option<Range<u64>> {
        let ask = |asked: &Range<u64>| {
            let of_it = parts.iter().filter(|it| it.end > asked.start);
            let of_it = of_it.map(|it| it.start.max(asked.start)..it.end);
            let all: Vec<Range<u64>> = of_it.filter(|it| it.start < asked.end).collect();
            let some = all.iter().take(most).cloned().collect();
            Ok((some, all.len() > most))
        };
        first_allocated(range, ask).unwrap()
    }

    #[test]
    fn parts_are_found_in_order_and_neighbours_are_one() {
        let parts = [0x1_0000..0x2_0000, 0x2_0000..0x4_0000, 0x8_0000..0x9_0000];
        for most in [1, 2, 64] {
            assert_eq!(first(0..0x10_0000, &parts, most), Some(0x1_0000..0x4_0000));
            assert_eq!(
                first(0x3_0000..0x10_0000, &parts, most),
                Some(0x3_0000..0x4_0000)
            );
            assert_eq!(
                first(0x5_0000..0x8_8000, &parts, most),
                Some(0x8_0000..0x8_8000)
            );
            assert_eq!(first(0xa_0000..0x10_0000, &parts, most), None);
        }
        assert_eq!(first(5..5, &parts, 64), None);
    }

    #[test]
    fn a_file_system_without_the_call_has_data_everywhere() {
        let answer = |code: u32| {
            first_allocated(0..9, |_| {
                Err(io::Error::from_raw_os_error(code.cast_signed()))
            })
        };
        assert_eq!(answer(ERROR_NOT_SUPPORTED).unwrap(), Some(0..9));
        assert_eq!(answer(ERROR_INVALID_FUNCTION).unwrap(), Some(0..9));
        assert!(answer(5).is_err());
    }
}
