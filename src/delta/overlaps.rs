//! Whether ranges overlap.

use std::ops::Range;
use std::path::PathBuf;

use super::sorter::Sorter;
use crate::error::Result;

/// Finds out, exactly and in bounded memory, whether any of the ranges that it is shown overlap.
pub(super) struct Overlaps {
    ranges: Sorter<2>,
    /// The first byte that two ranges are known to share.
    first: Option<u64>,
}

impl Overlaps {
    /// Takes about `bytes` of memory; what does not fit goes to an unnamed file next to `near`.
    pub(super) fn new(bytes: u64, near: PathBuf) -> Self {
        Overlaps {
            ranges: Sorter::new(bytes, near),
            first: None,
        }
    }

    /// Adds a range that is not empty.
    ///
    /// # Errors
    /// `NoSpace`, `Io`.
    pub(super) fn insert(&mut self, range: Range<u64>) -> Result<()> {
        if let Some([start, end]) = self.ranges.rows().last_mut() {
            if *end == range.start {
                *end = range.end;
                return Ok(());
            }
            if range.end == *start {
                *start = range.start;
                return Ok(());
            }
        }
        if self.ranges.is_full() {
            let before = self.ranges.rows().len();
            self.join();
            // Sorting again costs a constant share of the work where many were joined.
            if self.ranges.rows().len() > before / 2 {
                self.ranges.spill()?;
            }
        }
        self.ranges.push([range.start, range.end])
    }

    /// The first byte that two ranges share, if any do.
    ///
    /// # Errors
    /// `NoSpace`, `Io`.
    pub(super) fn first(mut self) -> Result<Option<u64>> {
        self.join();
        let mut first = self.first;
        let mut sorted = self.ranges.finish()?;
        let mut covered = 0;
        while let Some([start, end]) = sorted.next()? {
            if start < covered {
                first = Some(first.map_or(start, |it| it.min(start)));
                break;
            }
            covered = end;
        }
        Ok(first)
    }

    /// Sorts the ranges in memory and joins those that touch; overlaps are noted before they are
    /// hidden by it.
    fn join(&mut self) {
        let rows = self.ranges.rows();
        rows.sort_unstable();
        let first = &mut self.first;
        rows.dedup_by(|[start, end], [_, covered]| {
            if *start < *covered {
                *first = Some(first.map_or(*start, |it| it.min(*start)));
            }
            let touches = *start <= *covered;
            if touches {
                *covered = (*covered).max(*end);
            }
            touches
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn first(ranges: &[Range<u64>], bytes: u64) -> Option<u64> {
        let mut overlaps = Overlaps::new(bytes, PathBuf::from("none"));
        for range in ranges {
            overlaps.insert(range.clone()).unwrap();
        }
        overlaps.first().unwrap()
    }

    #[test]
    fn overlaps_are_found_in_any_order() {
        assert_eq!(first(&[8..12, 0..4, 4..8], 1 << 20), None);
        assert_eq!(first(&[8..12, 0..4, 3..5], 1 << 20), Some(3));
        assert_eq!(first(&[0..4, 0..4], 1 << 20), Some(0));
    }

    proptest! {
        #[test]
        fn the_first_shared_byte_is_found_however_few_ranges_fit_in_memory(
            ranges in prop::collection::vec((0u64..2000, 1u64..12), 0..400),
            bytes in 0u64..2000,
            is_apart in any::<bool>(),
        ) {
            let mut ranges: Vec<_> = ranges.iter().map(|(at, len)| *at..at + len).collect();
            if is_apart {
                // The same in an order of their own, moved apart.
                let mut at = 0;
                for range in &mut ranges {
                    let (gap, len) = (range.start % 2, range.end - range.start);
                    *range = at + gap..at + gap + len;
                    at = range.end;
                }
                ranges.sort_unstable_by_key(|it| it.start.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            }
            let mut counts = vec![0; 8000];
            for range in &ranges {
                (range.start..range.end).for_each(|at| counts[at as usize] += 1);
            }
            let expected = counts.iter().position(|count| *count > 1);
            prop_assert_eq!(first(&ranges, bytes), expected.map(|at| at as u64));
        }
    }
}
