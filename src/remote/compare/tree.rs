//! The trees of two manifests, gone down together: what is alike is never spoken of.

use std::collections::VecDeque;
use std::ops::Range;

use super::keys::Keys;
use crate::error::Result;
use crate::manifest::{Manifest, child_of};
use crate::remote::wire::codec::wrong;
use crate::remote::wire::format::{BLOCK, NODE_LEVEL_LEAST, NODES_MOST};
use crate::remote::wire::message::Message;
use crate::remote::wire::nodes::{NodeHash, Nodes, NodesAre};

/// The end with the target on the way down from a root that is not the source's.
pub struct TreePeer<'a> {
    manifest: &'a Manifest,
    keys: Keys,
    level: u32,
    /// Nodes of this level that are still to be asked about.
    ask: VecDeque<Vec<u64>>,
    /// Those that were, and were not answered.
    asked: VecDeque<Vec<u64>>,
    /// Nodes of the next level that differ.
    next: Vec<u64>,
    differing: Vec<Range<u64>>,
}

opaque!(TreePeer<'_>);

impl<'a> TreePeer<'a> {
    /// Goes down `manifest`, of blocks of 64 KiB.
    pub fn new(manifest: &'a Manifest, keys: Keys) -> Self {
        let level = manifest.height();
        let is_low = level < NODE_LEVEL_LEAST;
        let whole = 0..manifest.disk_len();
        TreePeer {
            manifest,
            keys,
            level,
            ask: (!is_low).then(|| vec![0]).into_iter().collect(),
            asked: VecDeque::new(),
            next: Vec::new(),
            differing: is_low.then_some(whole).into_iter().collect(),
        }
    }

    /// Whether another question may be sent before one is answered: their answers are long, and
    /// those that are under way have room on a line.
    pub fn has_room(&self) -> bool {
        self.asked.len() < QUESTIONS_AHEAD
    }

    /// The next question, if there is one now.
    pub fn next_output(&mut self) -> Option<Message> {
        if self.ask.is_empty() && self.asked.is_empty() && !self.next.is_empty() {
            self.level -= 1;
            let next = std::mem::take(&mut self.next);
            self.ask
                .extend(next.chunks(NODES_MOST).map(<[u64]>::to_vec));
        }
        let indices = self.ask.pop_front()?;
        self.asked.push_back(indices.clone());
        let level = u8::try_from(self.level).unwrap_or(u8::MAX);
        Some(Message::Nodes(Nodes { level, indices }))
    }

    /// Takes an answer.
    ///
    /// # Errors
    /// `Malformed` for one that was not asked for, or for children that cannot be there; what
    /// reading the manifest fails with.
    pub fn receive(&mut self, message: Message) -> Result<()> {
        let (Message::NodesAre(NodesAre(nodes)), Some(asked)) = (message, self.asked.pop_front())
        else {
            return Err(wrong(
                "a message that has no place in a comparison of trees",
            ));
        };
        if asked.len() != nodes.len() {
            return Err(wrong("other nodes than those asked about"));
        }
        for (index, theirs) in asked.into_iter().zip(nodes) {
            self.compare(index, &theirs)?;
        }
        Ok(())
    }

    /// Whether nothing is left to ask or to wait for.
    pub fn is_finished(&self) -> bool {
        self.ask.is_empty() && self.asked.is_empty() && self.next.is_empty()
    }

    /// Where the two disks may differ, ascending on each level, in bytes.
    pub fn into_differing(self) -> Vec<Range<u64>> {
        self.differing
    }

    fn compare(&mut self, index: u64, theirs: &[(u8, NodeHash)]) -> Result<()> {
        let ours = self.manifest.children(self.level, index)?;
        let below = self.level - 1;
        let count = self.manifest.node_count(below);
        let mut ours = ours.iter().peekable();
        let mut theirs = theirs.iter().peekable();
        for slot in 0..=u8::MAX {
            let ours = ours.next_if(|(at, _)| *at == slot);
            let theirs = theirs.next_if(|(at, _)| *at == slot);
            let child = child_of(index, slot);
            if theirs.is_some() && child >= count {
                return Err(wrong("a node beyond the end of the disk"));
            }
            match (ours, theirs) {
                (None, None) => {}
                (Some((_, ours)), Some((_, theirs))) if self.keys.node(ours) == *theirs => {}
                (Some(_), Some(_)) if below >= NODE_LEVEL_LEAST => self.next.push(child),
                _ => self.differing.push(self.bytes(below, child)),
            }
        }
        Ok(())
    }

    fn bytes(&self, level: u32, index: u64) -> Range<u64> {
        let len = BLOCK.saturating_mul(1 << (8 * level).min(56));
        let start = index.saturating_mul(len);
        start..start.saturating_add(len).min(self.manifest.disk_len())
    }
}

/// Answers of 264 KiB at most.
const QUESTIONS_AHEAD: usize = 16;

/// What the source's end answers.
///
/// # Errors
/// `Malformed` for nodes that the tree cannot have; what reading the manifest fails with.
pub fn children_of(manifest: &Manifest, keys: &Keys, nodes: &Nodes) -> Result<NodesAre> {
    let level = u32::from(nodes.level);
    let end = manifest.node_count(level);
    if level < NODE_LEVEL_LEAST || nodes.indices.iter().any(|index| *index >= end) {
        return Err(wrong("nodes that the disk does not have"));
    }
    let of_node = |index: &u64| {
        let children = manifest.children(level, *index)?.into_iter();
        Ok(children
            .map(|(slot, hash)| (slot, keys.node(&hash)))
            .collect())
    };
    Ok(NodesAre(
        nodes.indices.iter().map(of_node).collect::<Result<_>>()?,
    ))
}
