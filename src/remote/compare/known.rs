//! A manifest in place of a disk.

use std::ops::Range;

use super::windows::{BlockHashes, Windows};
use crate::error::Result;
use crate::hash::Hash;
use crate::manifest::{Manifest, RangeSet, Sink, TargetManifest};
use crate::remote::wire::format::BLOCK;

/// What stands for reading a disk: its manifest, but for blocks that may have changed since.
#[derive(Clone)]
pub struct Known {
    manifest: Manifest,
    unsure: RangeSet,
}

opaque!(Known);

impl Known {
    /// All of `manifest`, where its blocks are of 64 KiB and its disk has `disk_len` bytes.
    pub fn whole(manifest: &Manifest, disk_len: u64) -> Option<Known> {
        let fits = manifest.block_size().bytes() == BLOCK && manifest.disk_len() == disk_len;
        fits.then(|| Known {
            manifest: manifest.clone(),
            unsure: RangeSet::default(),
        })
    }

    /// What `kept` has no intents for, under the same conditions.
    pub fn of_target(kept: &TargetManifest, disk_len: u64) -> Option<Known> {
        let known = Known::whole(kept.manifest(), disk_len)?;
        let unsure = kept.intent_blocks(disk_len);
        let all = 0..disk_len.div_ceil(BLOCK);
        let is_nothing = unsure.as_slice().first() == Some(&all);
        (!is_nothing).then_some(Known { unsure, ..known })
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The ranges of the disk that have to be read, in bytes.
    pub(in crate::remote) fn unsure(&self) -> impl Iterator<Item = Range<u64>> {
        let end = self.manifest.disk_len();
        let blocks = self.unsure.as_slice().iter();
        blocks.map(move |blocks| blocks.start * BLOCK..(blocks.end * BLOCK).min(end))
    }

    /// Puts the hashes of `blocks` into `hashes`, and has `read` say those that it does not know.
    ///
    /// # Errors
    /// `Malformed` where the manifest is damaged; `Io`; those of `read`.
    pub(in crate::remote) fn blocks(
        &self,
        blocks: Range<u64>,
        hashes: &mut [Option<Hash>],
        read: &dyn Fn(u64) -> Result<Option<Hash>>,
    ) -> Result<()> {
        let mut put = |block: u64, hash| {
            let index = usize::try_from(block - blocks.start).unwrap_or(usize::MAX);
            if let Some(slot) = hashes.get_mut(index) {
                *slot = hash;
            }
        };
        for group in self.manifest.groups(blocks.clone()) {
            for (block, hash) in group?.entries() {
                if blocks.contains(&block) {
                    put(block, Some(hash));
                }
            }
        }
        for block in self.unsure.inside(blocks.clone()).flatten() {
            put(block, read(block)?);
        }
        Ok(())
    }
}

/// Passes the blocks of a view on to what takes the blocks of the disk.
pub(in crate::remote) struct OntoDisk<'a> {
    windows: &'a Windows,
    next: u64,
}

impl<'a> OntoDisk<'a> {
    pub(crate) fn new(windows: &'a Windows) -> Self {
        OntoDisk { windows, next: 0 }
    }

    /// Blocks from number `first` on; those since the last ones are zero.
    pub(crate) fn data(
        &mut self,
        sink: &mut dyn Sink,
        first: u64,
        blocks: &BlockHashes,
    ) -> Result<()> {
        self.zeros(sink, first)?;
        let mut rest = &blocks[..];
        self.next = first.saturating_add(blocks.len() as u64);
        for (_, piece) in self.windows.pieces(first * BLOCK..self.next * BLOCK) {
            let count = usize::try_from((piece.end - piece.start).div_ceil(BLOCK));
            let (now, after) = rest.split_at(count.unwrap_or(usize::MAX).min(rest.len()));
            sink.data(piece.start / BLOCK, now)?;
            rest = after;
        }
        Ok(())
    }

    /// All that is left is zero.
    pub(crate) fn finish(mut self, sink: &mut dyn Sink) -> Result<()> {
        let end = self.windows.len().div_ceil(BLOCK);
        self.zeros(sink, end)
    }

    fn zeros(&mut self, sink: &mut dyn Sink, end: u64) -> Result<()> {
        let end_bytes = end.saturating_mul(BLOCK);
        for (_, piece) in self.windows.pieces(self.next * BLOCK..end_bytes) {
            sink.zeros(piece.start / BLOCK..piece.end.div_ceil(BLOCK))?;
        }
        self.next = self.next.max(end);
        Ok(())
    }
}
