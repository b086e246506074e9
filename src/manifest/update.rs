//! A new manifest out of an old one and what changed.

use std::ops::Range;

use crate::hash::Hash;

use super::read::{Manifest, blocks_of};
use super::write::{ManifestWriter, Sink};
use crate::error::{Error, ErrorKind, Result};
use crate::units::BlockSize;

/// Writes a manifest that takes from an old one every block that the caller does not give.
///
/// Memory does not grow with the disk: the old rows are copied as the new ones are written. Where
/// the two disks differ in length, blocks from the last whole one that both have in full onward
/// are not taken from the old manifest: the caller gives them, or they are zero.
pub struct ManifestUpdater<'a> {
    old: &'a Manifest,
    new: ManifestWriter,
    /// All blocks below are given.
    next_block: u64,
    /// Blocks from here on are not the old manifest's.
    shared_blocks: u64,
}

opaque!(ManifestUpdater<'_>);

impl<'a> ManifestUpdater<'a> {
    /// Writes into `new`, which must be fresh and of the old manifest's block size.
    ///
    /// # Errors
    /// `InvalidInput` where the block sizes differ.
    pub fn new(old: &'a Manifest, new: ManifestWriter) -> Result<Self> {
        let shape = new.shape();
        same_block_size(old.block_size(), shape.block_size)?;
        let shared_blocks = if old.disk_len() == shape.disk_len {
            shape.block_count()
        } else {
            old.disk_len().min(shape.disk_len) / shape.block_size.bytes()
        };
        Ok(ManifestUpdater {
            old,
            new,
            next_block: 0,
            shared_blocks,
        })
    }

    /// The bytes that the caller must give whatever changed: where the two disks differ in
    /// length, the block in which the shorter one ends is not the same block on the longer one.
    pub fn unshared(&self) -> Option<Range<u64>> {
        let shape = self.new.shape();
        let shared = self.shared_blocks.saturating_mul(shape.block_size.bytes());
        (shared < shape.disk_len && self.old.disk_len() != shape.disk_len)
            .then_some(shared..shape.disk_len)
    }

    /// Copies what is left of the old manifest and passes the writer back.
    ///
    /// # Errors
    /// `Malformed` where the old manifest is damaged; `Io`, `NoSpace`.
    pub fn into_writer(mut self) -> Result<ManifestWriter> {
        self.copy_until(u64::MAX)?;
        Ok(self.new)
    }

    /// Takes the old manifest's blocks up to `end`.
    fn copy_until(&mut self, end: u64) -> Result<()> {
        let wanted = self.next_block..end.min(self.shared_blocks);
        self.next_block = self.next_block.max(end);
        if wanted.is_empty() {
            return Ok(());
        }
        let block_count = self.new.shape().block_count();
        for group in self.old.groups(wanted.clone()) {
            let group = group?;
            let blocks = group.blocks();
            // The last group of a shorter disk holds more blocks on a longer one.
            let end = blocks_of(1, group.index()).end.min(block_count);
            if wanted.start <= blocks.start && blocks.end <= wanted.end && blocks.end == end {
                self.new.push_group(&group)?;
                continue;
            }
            for (block, hash) in group.entries() {
                if wanted.contains(&block) {
                    self.new.push(block, &hash)?;
                }
            }
        }
        Ok(())
    }
}

impl Sink for ManifestUpdater<'_> {
    fn data(&mut self, first_block: u64, hashes: &[Option<Hash>]) -> Result<()> {
        self.copy_until(first_block)?;
        self.new.data(first_block, hashes)?;
        self.next_block = first_block.saturating_add(hashes.len() as u64);
        Ok(())
    }

    fn zeros(&mut self, blocks: Range<u64>) -> Result<()> {
        self.copy_until(blocks.start)?;
        self.new.zeros(blocks.clone())?;
        self.next_block = self.next_block.max(blocks.end);
        Ok(())
    }
}

/// # Errors
/// `InvalidInput`, saying both sizes.
pub(crate) fn same_block_size(a: BlockSize, b: BlockSize) -> Result<()> {
    if a == b {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidInput,
        format!("manifests with blocks of {a} and of {b} cannot be put together"),
    )
    .in_field("block_size")
    .advise("build both with the same block size"))
}
