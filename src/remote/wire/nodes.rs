//! The messages of a comparison of two trees.

use super::codec::{Put, Take, wrong};
use super::format::{NODE_HASH_LEN, NODE_LEVEL_END, NODES_MOST};
use crate::error::Result;

/// The first bytes of a keyed hash of a node's child.
pub type NodeHash = [u8; NODE_HASH_LEN];

/// The root of the target's manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tree {
    /// The length that the source's disk is to be seen with.
    pub disk_len: u64,
    /// The root.
    pub root: [u8; 32],
}

/// Nodes of one level of a tree, in which blocks are level 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nodes {
    /// The level, at least 2.
    pub level: u8,
    /// Their numbers on the level, ascending.
    pub indices: Vec<u64>,
}

/// The children of the nodes that were asked about, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodesAre(pub Vec<Vec<(u8, NodeHash)>>);

impl Tree {
    pub(in crate::remote) fn put(&self, out: &mut Put) {
        out.number(self.disk_len);
        out.raw(&self.root);
    }

    pub(in crate::remote) fn take(from: &mut Take<'_>) -> Result<Self> {
        Ok(Tree {
            disk_len: from.number()?,
            root: from.array()?,
        })
    }
}

impl Nodes {
    /// The level, and each number as how far it lies behind the one before.
    pub(in crate::remote) fn put(&self, out: &mut Put) {
        out.byte(self.level);
        out.number(self.indices.len() as u64);
        let mut next = 0;
        for index in &self.indices {
            out.number(index - next);
            next = index + 1;
        }
    }

    pub(in crate::remote) fn take(from: &mut Take<'_>) -> Result<Self> {
        let level = from.byte()?;
        if u32::from(level) >= NODE_LEVEL_END {
            return Err(wrong("a level that no tree has"));
        }
        let count = from.count(NODES_MOST)?;
        let mut indices = Vec::with_capacity(count);
        let mut next = 0u64;
        for _ in 0..count {
            let index = next.checked_add(from.number()?);
            let index = index.filter(|index| *index < u64::MAX);
            let index = index.ok_or_else(|| wrong("nodes behind the last one"))?;
            indices.push(index);
            next = index + 1;
        }
        Ok(Nodes { level, indices })
    }
}

impl NodesAre {
    /// For each node a bit for each child that is not zero, and the hashes of these.
    pub(in crate::remote) fn put(&self, out: &mut Put) {
        out.number(self.0.len() as u64);
        for children in &self.0 {
            let mut mask = [0u8; 32];
            for (slot, _) in children {
                mask[usize::from(slot / 8)] |= 1 << (slot % 8);
            }
            out.raw(&mask);
            children.iter().for_each(|(_, hash)| out.raw(hash));
        }
    }

    pub(in crate::remote) fn take(from: &mut Take<'_>) -> Result<Self> {
        let count = from.count(NODES_MOST)?;
        let mut nodes = Vec::with_capacity(count);
        for _ in 0..count {
            let mask: [u8; 32] = from.array()?;
            let is_there = |slot: &u8| mask[usize::from(slot / 8)] >> (slot % 8) & 1 == 1;
            let slots = (0..=u8::MAX).filter(is_there);
            let children = slots.map(|slot| Ok((slot, from.array()?)));
            nodes.push(children.collect::<Result<Vec<_>>>()?);
        }
        Ok(NodesAre(nodes))
    }
}
