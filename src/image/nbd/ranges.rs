//! Ranges that may have changed, in bounded memory.

use std::ops::Range;

/// Ascending ranges that cover all that was added; where there would be too many, near ones are
/// joined, so that they cover more than that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranges {
    ranges: Vec<Range<u64>>,
    /// Gaps up to this length are closed.
    gap: u64,
    max: usize,
}

impl Default for Ranges {
    fn default() -> Self {
        Ranges::with_max(MAX)
    }
}

impl Ranges {
    /// At most `max` ranges, and at least one.
    pub fn with_max(max: usize) -> Self {
        Ranges {
            ranges: Vec::new(),
            gap: 0,
            max: max.max(1),
        }
    }

    /// Adds a range that begins where the last one begins, or after it.
    pub fn add(&mut self, range: Range<u64>) {
        match self.ranges.last_mut() {
            Some(last) if range.start.saturating_sub(last.end) <= self.gap => {
                last.end = last.end.max(range.end);
            }
            _ => self.ranges.push(range),
        }
        while self.ranges.len() > self.max {
            self.gap = (self.gap * 2).max(4096);
            let wide = std::mem::take(&mut self.ranges);
            for range in wide {
                match self.ranges.last_mut() {
                    Some(last) if range.start.saturating_sub(last.end) <= self.gap => {
                        last.end = last.end.max(range.end);
                    }
                    _ => self.ranges.push(range),
                }
            }
        }
    }

    /// All that either list covers.
    pub fn joined(one: &[Range<u64>], other: &[Range<u64>]) -> Vec<Range<u64>> {
        let mut all: Vec<_> = one.iter().chain(other).cloned().collect();
        all.sort_unstable_by_key(|range| range.start);
        let mut joined = Ranges::default();
        for range in all {
            joined.add(range);
        }
        joined.finish()
    }

    /// The ranges: ascending, disjoint.
    pub fn finish(self) -> Vec<Range<u64>> {
        self.ranges
    }
}

/// 16 MiB of memory.
const MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_ranges_are_joined_and_none_is_lost() {
        let mut ranges = Ranges::with_max(10);
        for n in 0..1000 {
            ranges.add(n * 65536..n * 65536 + 512);
        }
        let ranges = ranges.finish();
        assert!(ranges.len() <= 10, "{}", ranges.len());
        for n in 0..1000 {
            assert!(ranges.iter().any(|it| it.contains(&(n * 65536))));
        }
    }

    #[test]
    fn joined_lists_cover_both_and_are_disjoint() {
        let joined = Ranges::joined(&[0..10, 30..40], &[5..20, 35..36, 50..60]);
        assert_eq!(joined, [0..20, 30..40, 50..60]);
    }
}
