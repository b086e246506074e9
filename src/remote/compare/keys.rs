//! The short hashes of a comparison, which nobody outside it can aim at.

use super::tree::NodeHash;
use super::view::LeafHashes;
use crate::remote::wire::comparison::{Children, Short};
use crate::remote::wire::format::{BLOCK_LEAVES, NODE_HASH_LEN};
use crate::units::is_zero;

/// The keys of one comparison, one for each round, and how long its hashes are on the line.
#[derive(Clone)]
pub struct Keys {
    blocks: [u8; 32],
    leaves: [u8; 32],
    bytes: [u8; 32],
    nodes: [u8; 32],
    hash_len: usize,
}

impl Keys {
    /// The keys of comparison `number` in a session with this key.
    pub fn new(session: &[u8; 32], number: u64, hash_len: usize) -> Keys {
        let key = |context| {
            let mut hasher = blake3::Hasher::new_derive_key(context);
            hasher.update(session);
            hasher.update(&number.to_le_bytes());
            hasher.finalize().into()
        };
        Keys {
            blocks: key("diskdelta remote 2026: blocks"),
            leaves: key("diskdelta remote 2026: leaves"),
            bytes: key("diskdelta remote 2026: parts and pages"),
            nodes: key("diskdelta remote 2026: nodes of manifests"),
            hash_len,
        }
    }

    /// Bytes of a hash on the line.
    pub fn hash_len(&self) -> usize {
        self.hash_len
    }

    /// The blocks of a batch.
    pub(in crate::remote) fn blocks(&self, leaves: &LeafHashes) -> Children {
        let mut children = Children::default();
        for (index, block) in (0..).zip(leaves.chunks(BLOCK_LEAVES as usize)) {
            if block.iter().all(Option::is_none) {
                continue;
            }
            let mut hasher = blake3::Hasher::new_keyed(&self.blocks);
            for leaf in block {
                match leaf {
                    Some(hash) => hasher.update(&[1]).update(hash.as_bytes()),
                    None => hasher.update(&[0]),
                };
            }
            children.push(index, Short::of(hasher.finalize(), self.hash_len));
        }
        children
    }

    /// The leaves of one block of a batch.
    pub(in crate::remote) fn leaves(&self, leaves: &LeafHashes, block: u32) -> Children {
        let first = (block * BLOCK_LEAVES) as usize;
        let of_block = leaves.iter().skip(first).take(BLOCK_LEAVES as usize);
        let mut children = Children::default();
        for (index, leaf) in (0..).zip(of_block) {
            if let Some(hash) = leaf {
                let keyed = blake3::keyed_hash(&self.leaves, hash.as_bytes());
                children.push(index, Short::of(keyed, self.hash_len));
            }
        }
        children
    }

    /// The pieces, of `piece_len` bytes each, of a leaf.
    pub(in crate::remote) fn pieces(&self, leaf: &[u8], piece_len: u64) -> Children {
        let mut children = Children::default();
        for (index, piece) in (0..).zip(leaf.chunks(piece_len as usize)) {
            if !is_zero(piece) {
                children.push(index, self.bytes(piece));
            }
        }
        children
    }

    /// A child of a node of a manifest's tree.
    pub(in crate::remote) fn node(&self, hash: &[u8; 32]) -> NodeHash {
        let keyed = blake3::keyed_hash(&self.nodes, hash);
        let mut short = NodeHash::default();
        short.copy_from_slice(&keyed.as_bytes()[..NODE_HASH_LEN]);
        short
    }

    /// Some bytes.
    pub(in crate::remote) fn bytes(&self, bytes: &[u8]) -> Short {
        Short::of(blake3::keyed_hash(&self.bytes, bytes), self.hash_len)
    }
}
