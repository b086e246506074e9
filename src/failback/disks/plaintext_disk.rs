//! The disk itself beside its replica: there while its VM is to run from it, and before the first
//! pass.
//!
//! A file is there or not. A block device always is, so it is emptied: zeros are written over it,
//! under the marker that it carries all that time, and that this was done is noted.

use std::sync::Arc;

use super::disk_path::{DiskPath, exists, remove};
use super::disk_state::{DiskState, nothing};
use super::source_disk::open_to_write;
use crate::error::Result;
use crate::image::CreateOptions;
use crate::progress::Work;
use crate::replica::Replica;
use crate::storage::FileRef;
use crate::sync::{Mode, Safety, Source, SyncOptions, Verify, sync};

/// A disk that is kept elsewhere, and may be here, too.
pub(super) struct PlaintextDisk<'a> {
    pub disk_path: &'a DiskPath,
    pub state: &'a DiskState,
}

impl PlaintextDisk<'_> {
    /// Whether it may hold anything.
    pub(super) fn is_there(&self) -> Result<bool> {
        match self.disk_path.is_device {
            true => Ok(!self.state.is_noted(EMPTY)?),
            false => exists(&self.disk_path.blocked),
        }
    }

    /// Takes all away that it holds, of `disk_len` bytes. Durable when it returns.
    pub(super) fn empty(&self, disk_len: u64, work: &Work) -> Result<()> {
        if !self.disk_path.is_device {
            remove(&self.disk_path.blocked)?;
            return self.disk_path.sync_directory();
        }
        if self.is_there()? {
            self.write(&Source::new(nothing(disk_len)?), work)?;
            self.state.note(EMPTY)?;
        }
        Ok(())
    }

    /// Takes note that something other than the replica is being written to it.
    pub(super) fn note_filled(&self) -> Result<()> {
        match self.disk_path.is_device {
            true => self.state.unnote(EMPTY),
            false => Ok(()),
        }
    }

    /// Writes out what the replica holds. Durable when it returns, and not read back.
    pub(super) fn fill(
        &self,
        replica: &Replica,
        create: &CreateOptions,
        work: &Work,
    ) -> Result<()> {
        if !self.disk_path.is_device {
            let blocked = FileRef::host(&self.disk_path.blocked)?;
            return replica.restore(&blocked, create, work);
        }
        self.note_filled()?;
        let image = Arc::new(replica.image(work)?);
        self.write(&Source::new(image), work)
    }

    /// What is zero on both sides already is not written again.
    fn write(&self, source: &Source, work: &Work) -> Result<()> {
        let target = open_to_write(&self.disk_path.own, self.disk_path.format)?;
        let options = SyncOptions::default()
            .with_mode(Mode::Delta)
            .with_safety(Safety::InPlace)
            .with_hold(true)
            .with_allow_larger(true)
            .with_verify(Verify::None);
        sync(source, target.target(), &options, work).map(drop)
    }
}

/// The note that a device was emptied.
const EMPTY: &str = "empty";
