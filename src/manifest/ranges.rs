//! Sets of byte ranges.

use std::ops::Range;

use crate::units::BlockSize;

/// Ranges in ascending order that neither overlap nor touch, none of them empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct RangeSet(Vec<Range<u64>>);

impl RangeSet {
    /// The union of `ranges`, in whatever order they come; empty and backward ones are left out.
    pub(crate) fn of(ranges: impl IntoIterator<Item = Range<u64>>) -> Self {
        let mut ranges: Vec<_> = ranges.into_iter().filter(|r| r.start < r.end).collect();
        ranges.sort_unstable_by_key(|range| range.start);
        ranges.dedup_by(|next, range| {
            let touches = next.start <= range.end;
            if touches {
                range.end = range.end.max(next.end);
            }
            touches
        });
        RangeSet(ranges)
    }

    /// Every byte there may be.
    pub(crate) fn everything() -> Self {
        Self::of(std::iter::once(0..u64::MAX))
    }

    /// These and `others`.
    pub(crate) fn union(self, others: &RangeSet) -> Self {
        Self::of(self.0.into_iter().chain(others.0.iter().cloned()))
    }

    /// The same bytes and perhaps more, in at most `count` ranges (which is not 0).
    pub(crate) fn coarsened_to(mut self, count: usize) -> Self {
        let mut step: u64 = 1 << 16;
        while self.0.len() > count {
            self = self.rounded_to(step);
            step = step.saturating_mul(2);
        }
        self
    }

    /// The same bytes and perhaps more, in whole steps of `step` bytes (which is not 0).
    pub(crate) fn rounded_to(self, step: u64) -> Self {
        Self::of(self.0.into_iter().map(|range| {
            let end = range.end.checked_next_multiple_of(step);
            range.start / step * step..end.unwrap_or(u64::MAX)
        }))
    }

    /// The numbers of the blocks that these bytes touch, on a disk of `disk_len` bytes.
    pub(crate) fn to_blocks(&self, block_size: BlockSize, disk_len: u64) -> Self {
        let inside = self.0.iter().filter(|range| range.start < disk_len);
        Self::of(inside.map(|range| {
            let end = range.end.min(disk_len).div_ceil(block_size.bytes());
            range.start / block_size.bytes()..end
        }))
    }

    /// The parts that lie inside `window`, ascending.
    pub(crate) fn inside(&self, window: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let first = self.0.partition_point(|range| range.end <= window.start);
        let rest = self.0.get(first..).unwrap_or_default();
        rest.iter()
            .take_while(move |range| range.start < window.end)
            .map(move |range| range.start.max(window.start)..range.end.min(window.end))
            .filter(|part| !part.is_empty())
    }

    /// What these do not have of `window`, ascending.
    pub(crate) fn gaps(&self, window: Range<u64>) -> Vec<Range<u64>> {
        let (mut at, mut gaps) = (window.start, Vec::new());
        for part in self.inside(window.clone()) {
            gaps.push(at..part.start);
            at = part.end;
        }
        gaps.push(at..window.end);
        gaps.retain(|gap| !gap.is_empty());
        gaps
    }

    /// Whether any of `window` is in the set.
    pub(crate) fn touches(&self, window: Range<u64>) -> bool {
        self.inside(window).next().is_some()
    }

    pub(crate) fn into_vec(self) -> Vec<Range<u64>> {
        self.0
    }

    pub(crate) fn as_slice(&self) -> &[Range<u64>] {
        &self.0
    }
}

/// Ranges gathered in any order, rounded out once there are more than memory may hold.
#[derive(Debug)]
pub(crate) struct Gathered {
    ranges: Vec<Range<u64>>,
    most: usize,
}

impl Gathered {
    /// Takes about `bytes` of memory.
    pub(crate) fn new(bytes: u64) -> Self {
        let most = bytes / size_of::<Range<u64>>() as u64;
        Gathered {
            ranges: Vec::new(),
            most: usize::try_from(most).unwrap_or(usize::MAX).max(2),
        }
    }

    /// Adds a range.
    pub(crate) fn insert(&mut self, range: Range<u64>) {
        if let Some(last) = self.ranges.last_mut()
            && last.end == range.start
        {
            last.end = range.end;
            return;
        }
        if self.ranges.len() >= self.most {
            let all = RangeSet::of(std::mem::take(&mut self.ranges));
            // Half of it, so that sorting stays a constant share of the work.
            self.ranges = all.coarsened_to(self.most / 2).into_vec();
        }
        self.ranges.push(range);
    }

    /// All that was added, and perhaps more.
    pub(crate) fn into_set(self) -> RangeSet {
        RangeSet::of(self.ranges)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_sorted_merged_and_never_empty() {
        let set = RangeSet::of([9..12, 0..4, 4..5, 7..7, 10..11]);
        assert_eq!(set.as_slice(), [0..5, 9..12]);
        assert_eq!(set.inside(4..10).collect::<Vec<_>>(), [4..5, 9..10]);
        assert!(!set.touches(5..9));
        assert_eq!(set.inside(6..6).count(), 0);
    }

    #[test]
    fn coarsening_keeps_every_byte() {
        let many: Vec<_> = (0..1000u64).map(|n| n << 20..(n << 20) + 1).collect();
        let set = RangeSet::of(many.clone());
        let coarse = set.coarsened_to(10);
        assert!(coarse.as_slice().len() <= 10);
        for range in many {
            assert!(coarse.touches(range));
        }
    }

    #[test]
    fn ranges_are_rounded_out_to_steps() {
        let step = 1 << 16;
        let ranges = [5..6, 7..7, step - 1..step + 1, u64::MAX - 1..u64::MAX];
        let rounded = RangeSet::of(ranges).rounded_to(step).into_vec();
        assert_eq!(rounded[0], 0..2 * step);
        assert_eq!((rounded.len(), rounded[1].end), (2, u64::MAX));
    }

    #[test]
    fn what_is_gathered_keeps_every_byte_in_bounded_memory() {
        let mut exact = Gathered::new(1 << 20);
        let mut coarse = Gathered::new(64 * 16);
        for n in (0..10_000u64).map(|n| n * 7919 % 10_000) {
            for gathered in [&mut exact, &mut coarse] {
                gathered.insert(n << 13..(n << 13) + 4096);
                assert!(gathered.ranges.len() <= gathered.most);
            }
        }
        let (exact, coarse) = (exact.into_set(), coarse.into_set());
        assert_eq!(exact.as_slice().len(), 10_000);
        assert!(coarse.as_slice().len() <= 64);
        for range in exact.into_vec() {
            assert_eq!(coarse.inside(range.clone()).collect::<Vec<_>>(), [range]);
        }
    }

    #[test]
    fn blocks_are_those_that_a_range_touches() {
        let set = RangeSet::of([4095..4097, 20000..90000]);
        let blocks = set.to_blocks(BlockSize::MIN, 20481);
        assert_eq!(blocks.as_slice(), [0..2, 4..6]);
        assert_eq!(
            RangeSet::everything()
                .to_blocks(BlockSize::MIN, 1)
                .as_slice(),
            [Range { start: 0, end: 1 }]
        );
    }
}
