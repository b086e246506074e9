//! The hash tree: which nodes a disk has, and what each of them hashes.

use crate::hash::Hash;
use crate::units::BlockSize;

/// The root above the tree's top node; `None` where every block of the disk is zero.
pub(crate) fn root_above(shape: &Shape, top: Option<&Digest>) -> Hash {
    let mut hasher = blake3::Hasher::new_derive_key(ROOT_CONTEXT);
    hasher.update(&shape.disk_len.to_le_bytes());
    hasher.update(&shape.block_size.bytes().to_le_bytes());
    if let Some(top) = top {
        hasher.update(top);
    }
    Hash::finish(&hasher)
}

/// 32 bytes of BLAKE3.
pub(crate) type Digest = [u8; 32];

/// The number of children a node has at most, as a power of two.
const FANOUT_BITS: u32 = 8;

/// The hash of a node: its occupancy, then its non-zero children's hashes in ascending order.
pub(crate) fn node_hash(occupancy: &Occupancy, child_hashes: &[u8]) -> Digest {
    let mut hasher = blake3::Hasher::new_derive_key(NODE_CONTEXT);
    hasher.update(&occupancy.to_bytes());
    hasher.update(child_hashes);
    hasher.finalize().into()
}

/// What a disk's tree looks like: levels count from the blocks (0) up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub disk_len: u64,
    pub block_size: BlockSize,
    /// The level of the top node; 0 when the disk has no block.
    pub height: u32,
}

impl Shape {
    pub(super) fn new(disk_len: u64, block_size: BlockSize) -> Self {
        let mut shape = Shape {
            disk_len,
            block_size,
            height: 0,
        };
        if disk_len > 0 {
            // A block has at least 2^12 bytes, so 7 levels (2^56 blocks) are always enough.
            shape.height = 1;
            while shape.count(shape.height) > 1 {
                shape.height += 1;
            }
        }
        shape
    }

    /// How many blocks the disk has.
    pub(super) fn block_count(&self) -> u64 {
        self.block_size.count(self.disk_len)
    }

    /// How many nodes (blocks on level 0) a level has.
    pub(super) fn count(&self, level: u32) -> u64 {
        self.block_count().div_ceil(blocks_under(level))
    }
}

/// How many blocks a full node of `level` covers.
pub(crate) fn blocks_under(level: u32) -> u64 {
    1 << (FANOUT_BITS * level)
}

/// The index of the parent of node `index`.
pub(crate) fn parent_of(index: u64) -> u64 {
    index >> FANOUT_BITS
}

/// Which child of its parent node `index` is.
pub(crate) fn slot_of(index: u64) -> u8 {
    index.to_le_bytes()[0]
}

/// The index of child `slot` of node `index`.
pub(crate) fn child_of(index: u64, slot: u8) -> u64 {
    (index << FANOUT_BITS) | u64::from(slot)
}

/// Which of a node's 256 children are not zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Occupancy([u64; 4]);

impl Occupancy {
    /// Bit `slot % 8` of byte `slot / 8` says whether child `slot` is there.
    pub(crate) fn from_bytes(bytes: &[u8; 32]) -> Self {
        let mut words = [0; 4];
        for (word, part) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*part);
        }
        Occupancy(words)
    }

    pub(crate) fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (part, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(self.0) {
            *part = word.to_le_bytes();
        }
        bytes
    }

    pub(crate) fn contains(&self, slot: u8) -> bool {
        self.0[usize::from(slot / 64)] >> (slot % 64) & 1 == 1
    }

    pub(crate) fn insert(&mut self, slot: u8) {
        self.0[usize::from(slot / 64)] |= 1 << (slot % 64);
    }

    pub(crate) fn count(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// How many children come before `slot`.
    pub(crate) fn rank(&self, slot: u8) -> usize {
        let word = usize::from(slot / 64);
        let whole: u32 = self.0[..word].iter().map(|word| word.count_ones()).sum();
        let below = self.0[word] & ((1 << (slot % 64)) - 1);
        (whole + below.count_ones()) as usize
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0 == [0; 4]
    }

    /// The highest child that is there.
    pub(crate) fn last(&self) -> Option<u8> {
        (0..=u8::MAX).rev().find(|slot| self.contains(*slot))
    }

    /// The children that are there, ascending.
    pub(crate) fn slots(self) -> impl Iterator<Item = u8> {
        (0..=u8::MAX).filter(move |slot| self.contains(*slot))
    }
}

const NODE_CONTEXT: &str = "diskdelta 2025-11-22 manifest tree node, version 1";
const ROOT_CONTEXT: &str = "diskdelta 2025-11-22 manifest root, version 1";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_top_is_the_first_level_with_one_node() {
        let block = BlockSize::MIN.bytes();
        for (blocks, height) in [
            (0, 0),
            (1, 1),
            (256, 1),
            (257, 2),
            (1 << 16, 2),
            ((1 << 16) + 1, 3),
            (1 << 24, 3),
            (1 << 34, 5),
        ] {
            let shape = Shape::new(blocks * block, BlockSize::MIN);
            assert_eq!(shape.height, height, "{blocks}");
            assert_eq!(shape.block_count(), blocks);
        }
        assert_eq!(Shape::new(u64::MAX, BlockSize::MIN).height, 7);
        assert_eq!(Shape::new(1, BlockSize::MAX).height, 1);
    }

    #[test]
    fn occupancy_counts_and_ranks_as_its_bits_say() {
        let mut occupancy = Occupancy::default();
        assert!(occupancy.is_empty());
        assert_eq!(occupancy.last(), None);
        let slots = [0, 1, 7, 8, 63, 64, 127, 128, 200, 255];
        for (rank, slot) in slots.into_iter().enumerate() {
            assert_eq!(occupancy.rank(slot), rank);
            occupancy.insert(slot);
            assert_eq!(occupancy.last(), Some(slot));
        }
        assert_eq!(occupancy.count(), slots.len());
        assert_eq!(occupancy.slots().collect::<Vec<_>>(), slots);
        assert_eq!(occupancy.to_bytes()[25], 1, "slot 200 is bit 0 of byte 25");
        assert_eq!(Occupancy::from_bytes(&occupancy.to_bytes()), occupancy);
    }

    #[test]
    fn a_root_reads_back_from_its_text() {
        let root = root_above(&Shape::new(5, BlockSize::MIN), None);
        assert_eq!(root.to_string().parse::<Hash>().unwrap(), root);
        assert!("abc".parse::<Hash>().is_err());
    }
}
