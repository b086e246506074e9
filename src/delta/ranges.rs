//! Ranges that do not overlap.

use std::collections::BTreeMap;
use std::ops::Range;

/// A growing set of ranges that are apart, of which memory bounds the number.
#[derive(Debug)]
pub(crate) struct Ranges {
    /// Ends, by start; neighbours are joined.
    ranges: BTreeMap<u64, u64>,
    most: usize,
}

impl Ranges {
    /// A set that may take about `bytes` of memory.
    pub(crate) fn new(bytes: u64) -> Self {
        Ranges {
            ranges: BTreeMap::new(),
            most: usize::try_from(bytes / ENTRY_BYTES).unwrap_or(usize::MAX),
        }
    }

    /// Adds a range that is not empty; `false` where it overlaps one that is there, or none fits
    /// any more.
    pub(crate) fn claim(&mut self, range: Range<u64>) -> bool {
        let before = self.ranges.range(..range.end).next_back();
        let before = before.map(|(start, end)| *start..*end);
        if before.as_ref().is_some_and(|it| it.end > range.start) {
            return false;
        }
        let before = before.filter(|it| it.end == range.start);
        let after = self.ranges.get(&range.end).copied();
        if before.is_none() && after.is_none() && self.ranges.len() >= self.most {
            return false;
        }
        if after.is_some() {
            self.ranges.remove(&range.end);
        }
        let start = before.map_or(range.start, |it| it.start);
        self.ranges.insert(start, after.unwrap_or(range.end));
        true
    }

    /// The parts of `within` that no range covers, ascending.
    pub(crate) fn gaps(self, within: Range<u64>) -> Vec<Range<u64>> {
        let mut gaps = Vec::new();
        let mut at = within.start;
        for (start, end) in self.ranges {
            let (start, end) = (start.min(within.end), end.min(within.end));
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
}

/// About what an entry takes.
const ENTRY_BYTES: u64 = 40;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn gaps_are_what_is_not_covered() {
        let gaps = |within| {
            let mut ranges = Ranges::new(1 << 20);
            assert!(ranges.claim(8..12) && ranges.claim(2..4));
            ranges.gaps(within)
        };
        assert_eq!(gaps(0..10), vec![0..2, 4..8]);
        assert_eq!(gaps(0..20), vec![0..2, 4..8, 12..20]);
        assert_eq!(gaps(2..12), vec![4..8]);
    }

    #[test]
    fn no_more_are_taken_than_fit_but_neighbours() {
        let mut ranges = Ranges::new(2 * ENTRY_BYTES);
        assert!(ranges.claim(8..12) && ranges.claim(20..24));
        assert!(!ranges.claim(2..4));
        assert!(ranges.claim(12..16) && ranges.claim(6..8) && ranges.claim(16..20));
        assert!(ranges.claim(2..4));
        assert_eq!(ranges.gaps(0..30), vec![0..2, 4..6, 24..30]);
    }

    proptest! {
        #[test]
        fn what_was_claimed_is_claimed_once(
            ranges in prop::collection::vec((0u64..200, 1u64..12), 0..60),
        ) {
            let mut set = Ranges::new(1 << 20);
            let mut claimed = vec![false; 220];
            for (start, len) in ranges {
                let range = start as usize..(start + len) as usize;
                let free = !claimed[range.clone()].contains(&true);
                prop_assert_eq!(set.claim(start..start + len), free);
                if free {
                    claimed[range].fill(true);
                }
            }
            let gaps = set.gaps(0..220);
            for (at, claimed) in (0u64..).zip(claimed) {
                let in_gap = gaps.iter().any(|gap| gap.contains(&at));
                prop_assert_eq!(in_gap, !claimed, "{}", at);
            }
        }
    }
}
