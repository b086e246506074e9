//! A full copy: all that the source holds, emitted without a look at the target.
//!
//! It is a descent whose target is blank. What is not zero comes, because a blank disk does not
//! have it; what is zero is emitted here, because the disk that the copy goes to may hold
//! anything.

use std::ops::Range;

use super::target_worker::{Emitted, Visit};
use crate::diff::{Content, Difference};
use crate::error::{Error, ErrorKind, Result};
use crate::hash::Hash;
use crate::image::{Image, ImageInfo};
use crate::manifest::{ManifestWriter, Sink};
use crate::remote::wire::format::BLOCK;
use crate::units::{BlockSize, Extent};

/// A disk of so many zeros.
pub(in crate::remote) struct Blank(pub u64);

impl Image for Blank {
    fn disk_len(&self) -> u64 {
        self.0
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let end = offset.checked_add(buf.len() as u64);
        if end.is_none_or(|end| end > self.0) {
            let what = "a read past the end of the disk";
            return Err(Error::new(ErrorKind::Io, what).at_offset(offset));
        }
        buf.fill(0);
        Ok(())
    }

    fn next_extent(&self, offset: u64) -> Result<Option<Extent>> {
        Ok((offset < self.0).then(|| Extent::zero(offset..self.0)))
    }

    fn info(&self) -> ImageInfo {
        ImageInfo::raw(self.0)
    }
}

/// Emits the blocks that are zero, and finds the root of all.
pub(in crate::remote) struct Zeros<'a> {
    visit: &'a Visit<'a>,
    disk_len: u64,
    root: ManifestWriter,
    emitted: Emitted,
}

impl<'a> Zeros<'a> {
    /// Of a disk of `disk_len` bytes.
    ///
    /// # Errors
    /// `InvalidInput` never in practice: a manifest may have such blocks.
    pub(crate) fn new(disk_len: u64, visit: &'a Visit<'a>) -> Result<Self> {
        Ok(Zeros {
            visit,
            disk_len,
            root: ManifestWriter::root_only(disk_len, BlockSize::new(BLOCK)?),
            emitted: Emitted::default(),
        })
    }

    /// What was emitted, and the root.
    ///
    /// # Errors
    /// Those of [`ManifestWriter::finish`].
    pub(crate) fn finish(self) -> Result<(Emitted, Hash)> {
        Ok((self.emitted, self.root.finish()?))
    }

    fn emit(&mut self, blocks: Range<u64>) -> Result<()> {
        let start = blocks.start.saturating_mul(BLOCK);
        let end = blocks.end.saturating_mul(BLOCK).min(self.disk_len);
        if start >= end {
            return Ok(());
        }
        let zeros = Content::Zeros(end - start);
        self.emitted.changed_bytes += end - start;
        self.emitted.zeroed_bytes += end - start;
        (self.visit)(Difference {
            offset: start,
            new: zeros,
            old: zeros,
        })
    }
}

impl Sink for Zeros<'_> {
    fn data(&mut self, first_block: u64, hashes: &[Option<Hash>]) -> Result<()> {
        let mut at = first_block;
        for run in hashes.chunk_by(|one, next| one.is_some() == next.is_some()) {
            let end = at + run.len() as u64;
            if run.first().is_some_and(Option::is_none) {
                self.emit(at..end)?;
            }
            at = end;
        }
        self.root.data(first_block, hashes)
    }

    fn zeros(&mut self, blocks: Range<u64>) -> Result<()> {
        self.emit(blocks.clone())?;
        self.root.zeros(blocks)
    }
}
