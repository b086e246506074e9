//! Which blocks a sample looks at, from inside.

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
