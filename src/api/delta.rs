//! Delta files by their paths.

use std::path::Path;
use std::sync::Mutex;

use crate::delta::{self, Delta, DeltaOptions, FrameKind, Purpose};
use crate::error::Result;
use crate::hash::Hash;
use crate::limits::Limits;
use crate::progress::Work;
use crate::storage::{FileRef, FileStorage};
use crate::units::{BlockSize, Extent};

/// What a delta file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct DeltaInfo {
    /// What the file is for.
    pub purpose: Purpose,
    /// Length of the disk that it leads away from, in bytes.
    #[cfg_attr(feature = "serde", serde(rename = "base_disk_bytes"))]
    pub base_len: u64,
    /// Length of the disk that it leads to, in bytes.
    #[cfg_attr(feature = "serde", serde(rename = "disk_bytes"))]
    pub disk_len: u64,
    /// Block size of the two roots.
    #[cfg_attr(feature = "serde", serde(rename = "block_bytes"))]
    pub block_size: BlockSize,
    /// Number of frames: changed ranges as they are stored.
    #[cfg_attr(feature = "serde", serde(rename = "frames"))]
    pub frame_count: u64,
    /// Bytes of the disk that it replaces with data.
    pub data_bytes: u64,
    /// Bytes of the disk that it replaces with zeros.
    #[cfg_attr(feature = "serde", serde(rename = "zeroed_bytes"))]
    pub zero_bytes: u64,
    /// Length of the file in bytes.
    pub file_bytes: u64,
    /// Root of the disk that it leads away from, where it is known.
    pub base_root: Option<Hash>,
    /// Root of the disk that it leads to, where it is known.
    pub root: Option<Hash>,
}

impl Delta {
    /// Opens the delta file at `path`. Its frames are checked where they are used.
    ///
    /// # Errors
    /// `NotFound`; `Malformed` also for a delta that was not written to its end; `LimitExceeded`,
    /// `Io`.
    pub fn open(path: impl AsRef<Path>) -> Result<Delta> {
        let file = FileStorage::open_read(path.as_ref())?;
        Self::from_storage(std::sync::Arc::new(file), &Limits::default())
    }

    /// What the file states of itself.
    ///
    /// # Errors
    /// `Io`.
    pub fn info(&self) -> Result<DeltaInfo> {
        let (header, trailer) = (self.header(), self.trailer());
        Ok(DeltaInfo {
            purpose: header.purpose,
            base_len: header.base_len,
            disk_len: header.result_len,
            block_size: header.block_size,
            frame_count: trailer.frame_count,
            data_bytes: trailer.data_bytes,
            zero_bytes: trailer.zero_bytes,
            file_bytes: self.storage().len()?,
            base_root: trailer.base_root,
            root: trailer.result_root,
        })
    }

    /// The ranges of the disk that it replaces, ascending. Every frame is read and checked.
    ///
    /// # Errors
    /// `Malformed`, `Io`, `Cancelled`.
    pub fn extents(&self, work: &Work) -> Result<Vec<Extent>> {
        let found = Mutex::new(Vec::new());
        self.verify(work, &|frame| {
            let extent = match frame.header().kind {
                FrameKind::Data => Extent::data(frame.range()),
                FrameKind::Zero => Extent::zero(frame.range()),
                _ => return Ok(()),
            };
            found
                .lock()
                .unwrap_or_else(|it| it.into_inner())
                .push(extent);
            Ok(())
        })?;
        let mut found = found.into_inner().unwrap_or_else(|it| it.into_inner());
        found.sort_unstable_by_key(|extent| extent.offset);
        Ok(found)
    }

    /// Writes one delta with the effect of `deltas`, which follow each other, into a new file at
    /// `to`. The file is complete and durable when it is there at all.
    ///
    /// # Errors
    /// `BaseMismatch` where one does not follow the one before it; `AlreadyExists`, `NoSpace`,
    /// `Malformed`, `Io`, `Cancelled`.
    pub fn merge(deltas: &[Delta], to: impl AsRef<Path>, work: &Work) -> Result<DeltaInfo> {
        let to = FileRef::to_write(to)?;
        let level = DeltaOptions::default().level;
        delta::merge_to(deltas, &to, &Limits::default(), level, work)?;
        Delta::open(to.path()).and_then(|delta| delta.info())
    }
}
