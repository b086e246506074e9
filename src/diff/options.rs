//! What a caller may choose about a comparison.

use std::ops::Range;

use super::work_queue::pages_up;
use crate::error::Result;
use crate::units::{PAGE_BYTES, check_change_map};

/// How two images are compared.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CompareOptions {
    /// Only these guest bytes are looked at, widened to whole 4 KiB pages; in any order, may
    /// overlap. A range that ends before it begins, or behind the end of the source, is an error of
    /// kind `InvalidInput`. `None` (the default) means all.
    pub change_map: Option<Vec<Range<u64>>>,
    /// Whether pages of the source that cannot be read are listed and left alone instead of
    /// ending the work.
    pub skip_unreadable: bool,
    /// Longest difference emitted at once, in bytes; rounded down to whole pages, at least
    /// one. 1 MiB by default; never more than 512 KiB are found at once anyway.
    pub max_difference_bytes: u64,
}

impl CompareOptions {
    /// Replaces [`CompareOptions::change_map`].
    #[must_use]
    pub fn with_change_map(mut self, change_map: impl Into<Option<Vec<Range<u64>>>>) -> Self {
        self.change_map = change_map.into();
        self
    }

    /// Replaces [`CompareOptions::skip_unreadable`].
    #[must_use]
    pub fn with_skip_unreadable(mut self, skip: bool) -> Self {
        self.skip_unreadable = skip;
        self
    }

    /// Replaces [`CompareOptions::max_difference_bytes`].
    #[must_use]
    pub fn with_max_difference_bytes(mut self, bytes: u64) -> Self {
        self.max_difference_bytes = bytes;
        self
    }

    /// # Errors
    /// `InvalidInput` for a range that is not one of a source of `disk_len` bytes.
    pub(crate) fn check(&self, disk_len: u64) -> Result<()> {
        self.change_map
            .as_ref()
            .map_or(Ok(()), |map| check_change_map(map, disk_len))
    }

    /// The ranges to look at on a disk of `disk_len` bytes: whole pages, ascending, disjoint.
    pub(crate) fn windows(&self, disk_len: u64) -> Vec<Range<u64>> {
        let Some(map) = &self.change_map else {
            return Vec::from_iter((disk_len > 0).then_some(0..disk_len));
        };
        let mut windows: Vec<Range<u64>> = map
            .iter()
            .map(|range| {
                let start = range.start - range.start % PAGE_BYTES;
                start..pages_up(range.end).min(disk_len)
            })
            .zip(map)
            .filter(|(window, range)| !range.is_empty() && !window.is_empty())
            .map(|(window, _)| window)
            .collect();
        windows.sort_unstable_by_key(|window| window.start);
        windows.dedup_by(|next, last| {
            let touches = next.start <= last.end;
            if touches {
                last.end = last.end.max(next.end);
            }
            touches
        });
        windows
    }
}

impl Default for CompareOptions {
    fn default() -> Self {
        CompareOptions {
            change_map: None,
            skip_unreadable: false,
            max_difference_bytes: 1 << 20,
        }
    }
}
