//! Raw: guest bytes and nothing else.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Change, Image, ImageInfo, ImageMut, Patch, flat_extent};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::{HostFile, Storage};
use crate::units::Extent;

/// A raw image: the storage's bytes are the guest's.
pub struct Raw {
    storage: Arc<dyn Storage>,
    disk_len: AtomicU64,
}

opaque!(Raw);

impl Raw {
    /// Takes the storage's length as the disk's.
    ///
    /// # Errors
    /// `Io`.
    pub fn open(storage: Arc<dyn Storage>) -> Result<Self> {
        let disk_len = AtomicU64::new(storage.len()?);
        Ok(Raw { storage, disk_len })
    }

    fn inside(&self, range: Range<u64>) -> Result<()> {
        if range.start <= range.end && range.end <= self.disk_len() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::InvalidInput,
            "a write ends beyond the end of the disk",
        )
        .at_path(self.storage.path())
        .at_offset(range.end))
    }
}

impl Image for Raw {
    fn disk_len(&self) -> u64 {
        self.disk_len.load(Ordering::SeqCst)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.storage.read_exact_at(buf, offset)
    }

    fn next_extent(&self, offset: u64) -> Result<Option<Extent>> {
        flat_extent(&*self.storage, self.disk_len(), offset)
    }

    fn info(&self) -> ImageInfo {
        ImageInfo {
            sector_bytes: self.storage.sector_bytes(),
            ..ImageInfo::raw(self.disk_len())
        }
    }

    fn files(&self) -> Result<Vec<HostFile>> {
        Ok(self.storage.host_file()?.into_iter().collect())
    }

    fn flat_storage(&self) -> Option<&dyn Storage> {
        Some(&*self.storage)
    }

    fn drop_cache(&self, range: Range<u64>) {
        self.storage.drop_cache(range);
    }

    fn will_read(&self, range: Range<u64>) {
        self.storage.will_read(range);
    }

    fn look_ahead_bytes(&self) -> u64 {
        self.storage.look_ahead_bytes()
    }

    fn reads_from_memory(&self) -> bool {
        self.storage.reads_from_memory()
    }
}

impl ImageMut for Raw {
    fn write_all_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.inside(offset..offset.saturating_add(buf.len() as u64))?;
        self.storage.write_all_at(buf, offset)
    }

    fn write_zeroes_at(&self, range: Range<u64>) -> Result<()> {
        self.inside(range.clone())?;
        self.storage.punch_hole(range)
    }

    fn set_disk_len(&self, len: u64) -> Result<()> {
        self.storage.set_len(len)?;
        self.disk_len.store(len, Ordering::SeqCst);
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        self.storage.sync()
    }

    fn places(
        &self,
        range: Range<u64>,
        visit: &mut dyn FnMut(Range<u64>) -> Result<()>,
    ) -> Result<()> {
        visit(range)
    }

    fn prepare(&self, change: &Change<'_>) -> Result<Vec<Patch>> {
        if change.disk_len == self.disk_len() {
            return Ok(Vec::new());
        }
        self.disk_len.store(change.disk_len, Ordering::SeqCst);
        Ok(vec![Patch::SetLen(change.disk_len)])
    }
}
