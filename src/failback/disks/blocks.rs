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
#[path = "../../../tests/inside/failback/blocks.rs"]
mod tests;
