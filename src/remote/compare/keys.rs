//! The short hashes of a comparison, which cannot be aimed at from outside.

use super::windows::BlockHashes;
use crate::remote::wire::comparison::{Children, TruncatedHash};
use crate::remote::wire::format::{NODE_HASH_LEN, SEGMENT_BLOCKS};
use crate::remote::wire::nodes::NodeHash;
use crate::units::is_zero;

/// The keys of one comparison, one for each kind of message, and how long its hashes are on the
/// line.
#[derive(Clone)]
pub struct Keys {
    segments: [u8; 32],
    blocks: [u8; 32],
    bytes: [u8; 32],
    nodes: [u8; 32],
    hash_len: usize,
}

opaque!(Keys);

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
            segments: key("diskdelta remote 2026: segments"),
            blocks: key("diskdelta remote 2026: blocks"),
            bytes: key("diskdelta remote 2026: parts and pages"),
            nodes: key("diskdelta remote 2026: nodes of manifests"),
            hash_len,
        }
    }

    /// Bytes of a hash on the line.
    pub fn hash_len(&self) -> usize {
        self.hash_len
    }

    /// The segments of a batch.
    pub(in crate::remote) fn segments(&self, blocks: &BlockHashes) -> Children {
        let mut children = Children::default();
        for (index, segment) in (0..).zip(blocks.chunks(SEGMENT_BLOCKS as usize)) {
            if segment.iter().all(Option::is_none) {
                continue;
            }
            let mut hasher = blake3::Hasher::new_keyed(&self.segments);
            for block in segment {
                match block {
                    Some(hash) => hasher.update(&[1]).update(hash.as_bytes()),
                    None => hasher.update(&[0]),
                };
            }
            children.push(
                index,
                TruncatedHash::of(hasher.finalize().as_bytes(), self.hash_len),
            );
        }
        children
    }

    /// The blocks of one segment of a batch.
    pub(in crate::remote) fn blocks(&self, blocks: &BlockHashes, segment: u32) -> Children {
        let first = (segment * SEGMENT_BLOCKS) as usize;
        let of_segment = blocks.iter().skip(first).take(SEGMENT_BLOCKS as usize);
        let mut children = Children::default();
        for (index, block) in (0..).zip(of_segment) {
            if let Some(hash) = block {
                let keyed = blake3::keyed_hash(&self.blocks, hash.as_bytes());
                children.push(index, TruncatedHash::of(keyed.as_bytes(), self.hash_len));
            }
        }
        children
    }

    /// The pieces, of `piece_len` bytes each, of a block.
    pub(in crate::remote) fn pieces(&self, block: &[u8], piece_len: u64) -> Children {
        let mut children = Children::default();
        for (index, piece) in (0..).zip(block.chunks(piece_len as usize)) {
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
    pub(in crate::remote) fn bytes(&self, bytes: &[u8]) -> TruncatedHash {
        TruncatedHash::of(
            blake3::keyed_hash(&self.bytes, bytes).as_bytes(),
            self.hash_len,
        )
    }
}
