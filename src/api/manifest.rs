//! Manifests by their paths.

use std::path::Path;

use crate::error::Result;
use crate::hash::Hash;
use crate::limits::Limits;
use crate::manifest::Manifest;

/// What a manifest states of one block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Block {
    /// All its bytes are zeros.
    Zero,
    /// The hash of its bytes.
    Hash(Hash),
    /// The disk ends before it.
    PastEnd,
}

impl Manifest {
    /// Opens the manifest file at `path`. What is read of it is checked as it is read.
    ///
    /// # Errors
    /// `NotFound`, `Malformed`, `LimitExceeded`, `Unsupported`, `Io`.
    pub fn open(path: impl AsRef<Path>) -> Result<Manifest> {
        Self::open_with(path, &Limits::default())
    }

    /// What it states of block `index`, counted from 0.
    ///
    /// # Errors
    /// `Malformed`, `Io`.
    pub fn block(&self, index: u64) -> Result<Block> {
        if index >= self.block_size().count(self.disk_len()) {
            return Ok(Block::PastEnd);
        }
        Ok(self.hash(index)?.map_or(Block::Zero, Block::Hash))
    }
}
