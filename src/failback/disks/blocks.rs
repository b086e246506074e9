//! Blocks of a disk on another host: what is compared across a line at least.

use std::ops::Range;

use crate::manifest::RangeSet;
use crate::sync::REMOTE_BLOCK_BYTES;

/// The blocks of a disk in which ranges lie, or more where there are very many: what is compared
/// across a line at least.
pub(super) fn blocks_of(ranges: &[Range<u64>]) -> Vec<Range<u64>> {
    let block = |range: &Range<u64>| {
        let start = range.start - range.start % REMOTE_BLOCK_BYTES;
        start
            ..range
                .end
                .div_ceil(REMOTE_BLOCK_BYTES)
                .saturating_mul(REMOTE_BLOCK_BYTES)
    };
    let filled = ranges.iter().filter(|range| !range.is_empty());
    let blocks = RangeSet::of(filled.map(block));
    blocks.coarsened_to(RANGES_MOST).into_vec()
}

/// At most 256 blocks, spread evenly.
pub(super) fn spread(disk_len: u64) -> Vec<Range<u64>> {
    let step = disk_len
        .div_ceil(SAMPLES)
        .next_multiple_of(REMOTE_BLOCK_BYTES);
    let starts = (0..SAMPLES).map(|index| index.saturating_mul(step));
    starts
        .take_while(|start| *start < disk_len)
        .map(|start| start..(start + REMOTE_BLOCK_BYTES).min(disk_len))
        .collect()
}

const SAMPLES: u64 = 256;
/// A quarter of what a comparison takes.
const RANGES_MOST: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_of_blocks_of_the_disk_and_of_few() {
        const BLOCK: u64 = REMOTE_BLOCK_BYTES;
        assert_eq!(spread(0), []);
        let ends = |len| {
            spread(len)
                .iter()
                .map(|it| (it.start, it.end))
                .collect::<Vec<_>>()
        };
        assert_eq!(ends(5), [(0, 5)]);
        assert_eq!(ends(BLOCK + 1), [(0, BLOCK), (BLOCK, BLOCK + 1)]);
        let many = spread((1 << 40) + 7);
        assert!(many.len() <= 256 && many.iter().all(|it| it.end - it.start <= BLOCK));
        assert!(many.last().unwrap().end > (1 << 40) - (8 << 30));
    }

    #[test]
    fn tracked_ranges_are_rounded_out_to_blocks() {
        let block = REMOTE_BLOCK_BYTES;
        let ranges = [5..6, 7..7, block - 1..block + 1, u64::MAX - 1..u64::MAX];
        let rounded = blocks_of(&ranges);
        assert_eq!(rounded[0], 0..2 * block);
        assert_eq!((rounded.len(), rounded[1].end), (2, u64::MAX));
    }
}
