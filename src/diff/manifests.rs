//! Manifest against manifest: by tree, equal subtrees skipped.

use std::collections::VecDeque;
use std::ops::Range;

use crate::error::Result;
use crate::manifest::{
    Manifest, Node, RangeSet, Row, TargetManifest, blocks_of, child_of, same_block_size,
};
use crate::units::{Extent, ExtentKind};

/// The extents in which the disk of `new` differs from that of `old`, whole blocks, ascending.
///
/// An extent is `Zero` where the new disk's blocks are zero, else `Data`; neighbours of one kind
/// come as one. Where the disks differ in length, the old one counts as cut off at the new one's
/// end, or as followed by zeros up to it, as a file is whose length is set: the old disk's tail is
/// not reported, the new one's only where it holds data. A block that is short on one side only
/// counts as different unless both are zero, or the hashes say that the bytes are the same.
///
/// # Errors
/// `InvalidInput` where the block sizes differ. The iterator gives `Malformed` or `Io`, once, when
/// a manifest turns out to be damaged; what came before it holds.
pub fn manifests<'a>(old: &'a Manifest, new: &'a Manifest) -> Result<ManifestDiff<'a>> {
    ManifestDiff::new(old, new, RangeSet::default())
}

/// As [`manifests`]; blocks that `old` has in doubt count as different whatever their hash.
///
/// # Errors
/// As [`manifests`].
pub fn target_manifest<'a>(old: &'a TargetManifest, new: &'a Manifest) -> Result<ManifestDiff<'a>> {
    let in_doubt = old.intent_blocks(new.disk_len());
    ManifestDiff::new(old.manifest(), new, in_doubt)
}

/// Iterator over the extents in which two manifests differ; holds one path of the tree.
pub struct ManifestDiff<'a> {
    old: &'a Manifest,
    new: &'a Manifest,
    /// Blocks that count as different.
    in_doubt: RangeSet,
    /// Pairs still to compare, the next one last.
    stack: Vec<Pair>,
    /// The extent that may still grow, in blocks.
    growing: Option<(Range<u64>, ExtentKind)>,
    ready: VecDeque<Extent>,
}

opaque!(ManifestDiff<'_>);

/// The nodes of both sides at one place of the tree.
#[derive(Clone, Copy)]
struct Pair {
    level: u32,
    index: u64,
    old: Option<Node>,
    new: Option<Node>,
}

impl<'a> ManifestDiff<'a> {
    fn new(old: &'a Manifest, new: &'a Manifest, in_doubt: RangeSet) -> Result<Self> {
        same_block_size(old.block_size(), new.block_size())?;
        let level = old.height().max(new.height());
        let top = Pair {
            level,
            index: 0,
            old: old.top(),
            new: new.top(),
        };
        Ok(ManifestDiff {
            old,
            new,
            in_doubt,
            stack: if level > 0 { vec![top] } else { Vec::new() },
            growing: None,
            ready: VecDeque::new(),
        })
    }

    fn compare(&mut self, pair: Pair) -> Result<()> {
        let end = self.new.block_size().count(self.new.disk_len());
        let covered = blocks_of(pair.level, pair.index);
        let covered = covered.start..covered.end.min(end);
        if covered.is_empty() || (pair.is_same() && !self.in_doubt.touches(covered.clone())) {
            return Ok(());
        }
        if pair.old.is_none() && pair.new.is_none() {
            let in_doubt: Vec<_> = self.in_doubt.inside(covered).collect();
            for blocks in in_doubt {
                self.emit(blocks, ExtentKind::Zero);
            }
            return Ok(());
        }
        let old = pair.row_of(pair.old, self.old)?;
        let new = pair.row_of(pair.new, self.new)?;
        if pair.level == 1 {
            self.compare_blocks(covered, old.as_ref(), new.as_ref());
            return Ok(());
        }
        let from = self.stack.len();
        for slot in 0..=u8::MAX {
            let child = Pair {
                level: pair.level - 1,
                index: child_of(pair.index, slot),
                old: pair.child_of(pair.old, old.as_ref(), slot),
                new: pair.child_of(pair.new, new.as_ref(), slot),
            };
            let in_doubt = || self.in_doubt.touches(blocks_of(child.level, child.index));
            if !child.is_same() || in_doubt() {
                self.stack.push(child);
            }
        }
        self.stack[from..].reverse();
        Ok(())
    }

    /// Compares the hashes of one group; `blocks` are at most 256.
    fn compare_blocks(&mut self, blocks: Range<u64>, old: Option<&Row<'_>>, new: Option<&Row<'_>>) {
        for (slot, block) in (0..=u8::MAX).zip(blocks) {
            let old_hash = old.and_then(|row| row.hash(slot));
            let new_hash = new.and_then(|row| row.hash(slot));
            let only = block..block + 1;
            if old_hash != new_hash || self.in_doubt.touches(only.clone()) {
                let kind = match new_hash {
                    Some(_) => ExtentKind::Data,
                    None => ExtentKind::Zero,
                };
                self.emit(only, kind);
            }
        }
    }

    fn emit(&mut self, blocks: Range<u64>, kind: ExtentKind) {
        match &mut self.growing {
            Some((growing, same)) if *same == kind && growing.end == blocks.start => {
                growing.end = blocks.end;
            }
            _ => {
                self.flush();
                self.growing = Some((blocks, kind));
            }
        }
    }

    fn flush(&mut self) {
        let Some((blocks, kind)) = self.growing.take() else {
            return;
        };
        let range = |block| self.new.block_size().range(block, self.new.disk_len());
        let offset = range(blocks.start).start;
        self.ready.push_back(Extent {
            offset,
            len: range(blocks.end - 1).end - offset,
            kind,
        });
    }
}

impl Iterator for ManifestDiff<'_> {
    type Item = Result<Extent>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(extent) = self.ready.pop_front() {
                return Some(Ok(extent));
            }
            let Some(pair) = self.stack.pop() else {
                self.flush();
                return self.ready.pop_front().map(Ok);
            };
            if let Err(error) = self.compare(pair) {
                self.stack.clear();
                self.growing = None;
                return Some(Err(error));
            }
        }
    }
}

impl Pair {
    /// Whether nothing below differs.
    fn is_same(&self) -> bool {
        match (&self.old, &self.new) {
            (None, None) => true,
            (Some(old), Some(new)) => old.level == new.level && old.hash == new.hash,
            _ => false,
        }
    }

    /// The row of one side's node. A shorter disk has a lower top: there is nothing to read yet.
    fn row_of<'m>(&self, node: Option<Node>, manifest: &'m Manifest) -> Result<Option<Row<'m>>> {
        match node {
            Some(node) if node.level == self.level => manifest.row(&node).map(Some),
            _ => Ok(None),
        }
    }

    /// One side's child `slot`; a lower top hangs at the left edge until its level is reached.
    fn child_of(&self, node: Option<Node>, row: Option<&Row<'_>>, slot: u8) -> Option<Node> {
        match node {
            Some(top) if top.level < self.level => (slot == 0).then_some(top),
            _ => row.and_then(|row| row.child(slot)),
        }
    }
}
