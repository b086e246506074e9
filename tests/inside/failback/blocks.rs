//! Ranges as blocks of a disk on another host, from inside.

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
