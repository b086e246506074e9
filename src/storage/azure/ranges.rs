//! Byte ranges of a blob.

use std::ops::Range;

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
