//! Single nodes of a manifest's tree, for callers that descend it together with another one.

use super::read::{Manifest, Node};
use super::tree::{Digest, Shape, blocks_under};
use crate::error::Result;

impl Manifest {
    /// How many nodes `level` has; blocks are level 0. Nothing is above the top.
    pub(crate) fn node_count(&self, level: u32) -> u64 {
        match level <= self.height() {
            true => Shape::new(self.disk_len(), self.block_size()).count(level),
            false => 0,
        }
    }

    /// The children of a node that are not zero, with their hashes; none where the node is zero,
    /// or not there.
    ///
    /// # Errors
    /// `Malformed` where a row on the way is damaged; `Io`.
    pub(crate) fn children(&self, level: u32, index: u64) -> Result<Vec<(u8, Digest)>> {
        let mut node = self.top();
        while let Some(above) = node.filter(|node| node.level > level) {
            let slot = (index / blocks_under(above.level - 1 - level)).to_le_bytes()[0];
            node = self.row(&above)?.child(slot);
        }
        let is_it = |node: &Node| node.level == level && node.index == index;
        let Some(node) = node.filter(is_it) else {
            return Ok(Vec::new());
        };
        let row = self.row(&node)?;
        let children = node.occupancy.slots();
        Ok(children
            .filter_map(|slot| Some((slot, row.hash(slot)?)))
            .collect())
    }
}
