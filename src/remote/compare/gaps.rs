//! Pages of a source that cannot be read: both ends see zeros in their place, and move nothing.

use std::ops::Range;
use std::sync::{PoisonError, RwLock};

use crate::error::{Error, ErrorKind, Result};

/// Ranges of a view that are not looked at, ascending, none touching another.
#[derive(Debug, Default)]
pub(in crate::remote) struct Gaps(RwLock<Vec<Range<u64>>>);

impl Gaps {
    /// Adds a range.
    ///
    /// # Errors
    /// `LimitExceeded` for too many.
    pub(crate) fn add(&self, range: Range<u64>) -> Result<()> {
        let mut gaps = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let first = gaps.partition_point(|gap| gap.end < range.start);
        let touched = first..gaps.partition_point(|gap| gap.start <= range.end);
        if gaps.len() >= GAPS_MOST && touched.is_empty() {
            let what = "too many ranges of the source cannot be read";
            return Err(Error::new(ErrorKind::LimitExceeded, what));
        }
        let some = gaps.get(touched.clone()).unwrap_or_default();
        let start = some
            .first()
            .map_or(range.start, |gap| gap.start.min(range.start));
        let end = some.last().map_or(range.end, |gap| gap.end.max(range.end));
        drop(gaps.splice(touched, std::iter::once(start..end)));
        Ok(())
    }

    /// The parts of them in `range`.
    pub(crate) fn inside(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let gaps = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let first = gaps.partition_point(|gap| gap.end <= range.start);
        gaps.iter()
            .skip(first)
            .take_while(|gap| gap.start < range.end)
            .map(|gap| gap.start.max(range.start)..gap.end.min(range.end))
            .collect()
    }

    /// Puts zeros where they are into `bytes`, which begin at `start`.
    pub(crate) fn blank(&self, start: u64, bytes: &mut [u8]) {
        let index = |at: u64| usize::try_from(at - start).unwrap_or(usize::MAX);
        for gap in self.inside(start..start.saturating_add(bytes.len() as u64)) {
            if let Some(bytes) = bytes.get_mut(index(gap.start)..index(gap.end)) {
                bytes.fill(0);
            }
        }
    }
}

const GAPS_MOST: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_that_touch_are_one_and_read_as_zeros() {
        let gaps = Gaps::default();
        for range in [8..12, 0..4, 4..8, 20..24, 16..20, 30..31] {
            gaps.add(range).unwrap();
        }
        assert_eq!(gaps.inside(0..100), [0..12, 16..24, 30..31]);
        assert_eq!(gaps.inside(10..17), [10..12, 16..17]);
        assert!(gaps.inside(12..16).is_empty());
        let mut bytes = [7; 8];
        gaps.blank(10, &mut bytes);
        assert_eq!(bytes, [0, 0, 7, 7, 7, 7, 0, 0]);
    }
}
