//! The windows of a disk that are compared, and the hashes of blocks in them.

use std::ops::Range;

use crate::error::{Error, ErrorKind, Result};
use crate::hash::Hash;
use crate::remote::wire::codec::wrong;
use crate::remote::wire::format::{BLOCK, WINDOWS_MOST};

/// A hash for each block of a batch or a piece; `None` where it is zero.
pub type BlockHashes = Vec<Option<Hash>>;

/// Ranges of a disk, one behind the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Windows {
    /// Where each begins in the view, and on the disk.
    starts: Vec<(u64, u64)>,
    len: u64,
}

impl Windows {
    /// All of a disk of `disk_len` bytes.
    pub fn whole(disk_len: u64) -> Windows {
        Windows {
            starts: vec![(0, 0)],
            len: disk_len,
        }
    }

    /// These ranges, which ascend and are not empty.
    ///
    /// # Errors
    /// `Malformed` where one ends behind `disk_len`; `LimitExceeded` for too many.
    pub fn of(ranges: &[Range<u64>], disk_len: u64) -> Result<Windows> {
        if ranges.len() > WINDOWS_MOST {
            return Err(too_many());
        }
        let mut windows = Windows {
            starts: Vec::with_capacity(ranges.len()),
            len: 0,
        };
        let mut at = 0;
        for range in ranges {
            if range.start < at || range.end <= range.start || range.end > disk_len {
                return Err(wrong("an invalid window"));
            }
            windows.starts.push((windows.len, range.start));
            windows.len += range.end - range.start;
            at = range.end;
        }
        Ok(windows)
    }

    /// Length of the view in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is nothing to see.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether each block of the view is one of a disk of `disk_len` bytes.
    pub(super) fn are_blocks(&self, disk_len: u64) -> bool {
        let starts = self.starts.iter();
        let on_grid = starts
            .clone()
            .all(|(at, real)| at.is_multiple_of(BLOCK) && real.is_multiple_of(BLOCK));
        let last = starts.last().map_or(0, |(at, real)| real + (self.len - at));
        on_grid && (last.is_multiple_of(BLOCK) || last == disk_len)
    }

    /// The pieces of the disk that `range` of the view shows, each with its offset in the view.
    pub fn pieces(&self, range: Range<u64>) -> impl Iterator<Item = (u64, Range<u64>)> {
        let first = self.starts.partition_point(|(at, _)| *at <= range.start);
        let mut index = first.saturating_sub(1);
        let mut at = range.start;
        let end = range.end.min(self.len);
        std::iter::from_fn(move || {
            let (start, real) = *self.starts.get(index)?;
            if at >= end {
                return None;
            }
            index += 1;
            let stop = self
                .starts
                .get(index)
                .map_or(end, |(next, _)| end.min(*next));
            let piece = (at, real + (at - start)..real + (stop - start));
            at = stop;
            Some(piece)
        })
    }
}

pub(in crate::remote) fn too_many() -> Error {
    Error::new(ErrorKind::LimitExceeded, "too many ranges to compare")
}
