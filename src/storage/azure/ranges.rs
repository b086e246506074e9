//! Byte ranges of a blob.

use std::collections::BTreeMap;
use std::ops::Range;

/// Ranges that change, disjoint and joined.
#[derive(Debug, Default)]
pub(super) struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    /// Of a sorted list of disjoint ranges.
    pub(super) fn of(sorted: &[Range<u64>]) -> Self {
        Ranges(sorted.iter().map(|it| (it.start, it.end)).collect())
    }

    /// The first that ends behind `offset`.
    pub(super) fn next(&self, offset: u64) -> Option<Range<u64>> {
        let before = self.0.range(..=offset).next_back();
        let before = before.filter(|(_, end)| **end > offset);
        let next = before.or_else(|| self.0.range(offset..).next());
        next.map(|(start, end)| *start..*end)
    }

    /// Adds a range.
    pub(super) fn insert(&mut self, range: Range<u64>) {
        let (mut start, mut end) = (range.start, range.end);
        while let Some((before, its_end)) = self.0.range(..=end).next_back() {
            let (before, its_end) = (*before, *its_end);
            if its_end < start {
                break;
            }
            (start, end) = (start.min(before), end.max(its_end));
            self.0.remove(&before);
        }
        if start < end {
            self.0.insert(start, end);
        }
    }

    /// Takes a range away.
    pub(super) fn remove(&mut self, range: &Range<u64>) {
        if range.is_empty() {
            return;
        }
        while let Some(found) = self.next(range.start).filter(|it| it.start < range.end) {
            self.0.remove(&found.start);
            if found.start < range.start {
                self.0.insert(found.start, range.start);
            }
            if found.end > range.end {
                self.0.insert(range.end, found.end);
            }
        }
    }
}

/// Sorted, and joined where they touch or overlap.
pub(super) fn joined(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.retain(|range| !range.is_empty());
    ranges.sort_unstable_by_key(|range| range.start);
    let mut joined: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

/// What is in one of two joined lists and not in the other.
pub(super) fn in_one_only(one: &[Range<u64>], other: &[Range<u64>]) -> Vec<Range<u64>> {
    let ends = |ranges: &[Range<u64>]| -> Vec<u64> {
        ranges
            .iter()
            .flat_map(|range| [range.start, range.end])
            .collect()
    };
    let mut edges = [ends(one), ends(other)].concat();
    edges.sort_unstable();
    // Each edge turns one list on or off; two at one place cancel each other out.
    let mut found = Vec::new();
    let mut begun = None;
    for edge in edges {
        match begun.take() {
            None => begun = Some(edge),
            Some(start) => found.push(start..edge),
        }
    }
    joined(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn ranges_are_added_and_taken_away_bit_for_bit(
            steps in proptest::collection::vec((proptest::bool::ANY, 0_u64..60, 0_u64..9), 0..20),
        ) {
            let (mut ranges, mut model) = (Ranges::default(), [false; 80]);
            for (is_added, start, len) in steps {
                match is_added {
                    true => ranges.insert(start..start + len),
                    false => ranges.remove(&(start..start + len)),
                }
                for at in start..start + len {
                    model[usize::try_from(at).unwrap()] = is_added;
                }
            }
            let mut at = 0;
            let mut last_end = None;
            while let Some(range) = ranges.next(at) {
                proptest::prop_assert!(Some(range.start) != last_end && !range.is_empty());
                last_end = Some(range.end);
                at = range.end;
            }
            for at in 0..80_u64 {
                let is_in = ranges.next(at).is_some_and(|it| it.contains(&at));
                proptest::prop_assert_eq!(is_in, model[usize::try_from(at).unwrap()]);
            }
        }

        #[test]
        fn what_is_in_one_list_only_is_found_bit_for_bit(
            one in proptest::collection::vec((0_u64..60, 0_u64..9), 0..9),
            other in proptest::collection::vec((0_u64..60, 0_u64..9), 0..9),
        ) {
            let lists = [one, other].map(|list| {
                joined(list.into_iter().map(|(start, len)| start..start + len).collect())
            });
            let found = in_one_only(&lists[0], &lists[1]);
            for at in 0..80 {
                let is_in = |list: &[Range<u64>]| list.iter().any(|range| range.contains(&at));
                proptest::prop_assert_eq!(is_in(&found), is_in(&lists[0]) != is_in(&lists[1]));
            }
        }
    }
}
