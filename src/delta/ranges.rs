//! Ranges that must not overlap.

use std::ops::Range;

use crate::error::{Error, ErrorKind, Result};

/// A growing set of ranges, kept small while they come in ascending order.
#[derive(Debug)]
pub(crate) struct Ranges {
    sorted: bool,
    ranges: Vec<Range<u64>>,
    overlap: Option<u64>,
    most: usize,
}

impl Ranges {
    /// A set that may take about `table_bytes` bytes of memory.
    pub fn new(table_bytes: u64) -> Self {
        let most = table_bytes / std::mem::size_of::<Range<u64>>() as u64;
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        Ranges {
            sorted: true,
            ranges: Vec::new(),
            overlap: None,
            most,
        }
    }

    /// Adds a range that is not empty.
    ///
    /// # Errors
    /// `LimitExceeded`.
    pub fn insert(&mut self, range: Range<u64>) -> Result<()> {
        if let Some(last) = self.ranges.last_mut() {
            if range.start < last.end && range.end > last.start {
                self.overlap.get_or_insert(range.start.max(last.start));
            }
            if last.end == range.start {
                last.end = range.end;
                return Ok(());
            }
            self.sorted &= last.end <= range.start;
        }
        if self.ranges.len() >= self.most {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                "too many scattered frames to check that none overlap",
            )
            .advise("raise the limit for tables"));
        }
        self.ranges.push(range);
        Ok(())
    }

    /// Where two ranges overlap first, if they do.
    pub fn first_overlap(&mut self) -> Option<u64> {
        self.sort();
        self.overlap.or_else(|| {
            let overlaps = |pair: &&[Range<u64>]| pair[0].end > pair[1].start;
            self.ranges
                .windows(2)
                .find(overlaps)
                .map(|pair| pair[1].start)
        })
    }

    /// The parts of `within` that no range covers, ascending.
    pub fn gaps(&mut self, within: Range<u64>) -> Vec<Range<u64>> {
        self.sort();
        let mut gaps = Vec::new();
        let mut at = within.start;
        for range in &self.ranges {
            let (start, end) = (range.start.min(within.end), range.end.min(within.end));
            if start > at {
                gaps.push(at..start);
            }
            at = at.max(end);
        }
        if at < within.end {
            gaps.push(at..within.end);
        }
        gaps
    }

    /// All ranges, ascending.
    pub fn all(&mut self) -> Vec<Range<u64>> {
        self.sort();
        self.ranges.clone()
    }

    fn sort(&mut self) {
        if !self.sorted {
            self.ranges.sort_unstable_by_key(|range| range.start);
            self.sorted = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlaps_are_found_in_any_order() {
        let mut apart = Ranges::new(1 << 20);
        for range in [8..12, 0..4, 4..8] {
            apart.insert(range).unwrap();
        }
        assert_eq!(apart.first_overlap(), None);
        let mut crossing = Ranges::new(1 << 20);
        for range in [8..12, 0..4, 3..5] {
            crossing.insert(range).unwrap();
        }
        assert_eq!(crossing.first_overlap(), Some(3));
        assert!(Ranges::new(0).insert(0..1).is_err());
    }

    #[test]
    fn gaps_are_what_is_not_covered() {
        let mut ranges = Ranges::new(1 << 20);
        for range in [8..12, 2..4] {
            ranges.insert(range).unwrap();
        }
        assert_eq!(ranges.gaps(0..10), vec![0..2, 4..8]);
        assert_eq!(ranges.gaps(0..20), vec![0..2, 4..8, 12..20]);
        assert_eq!(ranges.gaps(2..12), vec![4..8]);
    }

    #[test]
    fn all_ranges_come_in_ascending_order() {
        let mut ranges = Ranges::new(1 << 20);
        for range in [8..12, 2..4, 12..14] {
            ranges.insert(range).unwrap();
        }
        assert_eq!(ranges.all(), vec![2..4, 8..12, 12..14]);
    }
}
