//! Fixed files: the disk's bytes, then the footer.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};
use crate::image::{Change, Format, Image, ImageInfo, ImageMut, Patch, flat_extent};
use crate::storage::{HostFile, Storage, past_end};
use crate::units::Extent;

use super::facts::footer_facts;
use super::format::{DiskKind, FOOTER_BYTES, Footer, SECTOR_BYTES};
use super::locate::Located;
use super::prepare::{check_extents, uncovered};
use super::resize::{check_len, resized};

/// A fixed VHD.
pub(super) struct Fixed {
    storage: Arc<dyn Storage>,
    disk_len: AtomicU64,
    footer: Mutex<Footer>,
    warnings: Vec<String>,
}

impl Fixed {
    pub(super) fn new(storage: Arc<dyn Storage>, located: Located) -> Self {
        Fixed {
            storage,
            disk_len: AtomicU64::new(located.disk_len),
            footer: Mutex::new(located.footer),
            warnings: located.warnings,
        }
    }

    fn inside(&self, range: Range<u64>) -> Result<()> {
        if range.start <= range.end && range.end <= self.disk_len() {
            return Ok(());
        }
        Err(beyond_disk(&*self.storage, range.end))
    }
}

impl Image for Fixed {
    fn disk_len(&self) -> u64 {
        self.disk_len.load(Ordering::SeqCst)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let disk_len = self.disk_len();
        // The footer lies right behind the disk and must not be read as part of it.
        match offset.checked_add(buf.len() as u64) {
            Some(end) if end <= disk_len => self.storage.read_exact_at(buf, offset),
            end => Err(past_end(
                self.storage.path(),
                end.unwrap_or(u64::MAX),
                disk_len,
            )),
        }
    }

    fn next_extent(&self, offset: u64) -> Result<Option<Extent>> {
        flat_extent(&*self.storage, self.disk_len(), offset)
    }

    fn info(&self) -> ImageInfo {
        let footer = self.footer.lock().unwrap_or_else(PoisonError::into_inner);
        ImageInfo {
            format: Format::Vhd,
            layout: footer.kind.layout(),
            disk_bytes: self.disk_len(),
            sector_bytes: Some(SECTOR_BYTES),
            block_bytes: None,
            parents: Vec::new(),
            facts: footer_facts(&footer),
            warnings: self.warnings.clone(),
        }
    }

    fn files(&self) -> Result<Vec<HostFile>> {
        Ok(self.storage.host_file()?.into_iter().collect())
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

impl ImageMut for Fixed {
    fn write_all_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.inside(offset..offset.saturating_add(buf.len() as u64))?;
        self.storage.write_all_at(buf, offset)
    }

    fn write_zeroes_at(&self, range: Range<u64>) -> Result<()> {
        self.inside(range.clone())?;
        self.storage.punch_hole(range)
    }

    /// Shrinking keeps a footer at the end at every moment. Growing cannot: the only place where
    /// a fixed file has one moves, so a crash may leave a file that needs its footer again.
    fn set_disk_len(&self, len: u64) -> Result<()> {
        check_len(&*self.storage, DiskKind::Fixed, len)?;
        let mut footer = self.footer.lock().unwrap_or_else(PoisonError::into_inner);
        let old_len = self.disk_len();
        if len == old_len {
            return Ok(());
        }
        let new = resized(&footer, len);
        let file_len = len + FOOTER_BYTES as u64;
        // The old footer, and whatever else is between the old disk and the new end.
        let clear = || match len > old_len {
            true => self.storage.punch_hole(old_len..len),
            false => Ok(()),
        };
        if file_len > self.storage.len()? {
            self.storage.set_len(file_len)?;
            self.storage.write_all_at(&new.encode(), len)?;
            self.storage.sync()?;
            clear()?;
        } else {
            clear()?;
            self.storage.write_all_at(&new.encode(), len)?;
            self.storage.sync()?;
            self.storage.set_len(file_len)?;
        }
        *footer = new;
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
        check_len(&*self.storage, DiskKind::Fixed, change.disk_len)?;
        check_extents(change)?;
        let mut footer = self.footer.lock().unwrap_or_else(PoisonError::into_inner);
        let old_len = self.disk_len();
        let new_len = change.disk_len;
        if new_len == old_len {
            return Ok(Vec::new());
        }
        let new = resized(&footer, new_len);
        let mut patches = vec![Patch::SetLen(new_len + FOOTER_BYTES as u64)];
        if new_len > old_len {
            // New space may hold garbage after a crash, and the old footer in any case.
            let gaps = uncovered(old_len..new_len, change.extents);
            patches.extend(gaps.into_iter().map(Patch::Zero));
        }
        patches.push(Patch::Write {
            offset: new_len,
            bytes: Bytes::copy_from_slice(&new.encode()),
            last: true,
        });
        *footer = new;
        self.disk_len.store(new_len, Ordering::SeqCst);
        Ok(patches)
    }
}

/// The error for a write that ends beyond the disk.
pub(super) fn beyond_disk(storage: &dyn Storage, end: u64) -> Error {
    Error::new(
        ErrorKind::InvalidInput,
        "a write ends beyond the end of the disk",
    )
    .at_path(storage.path())
    .at_offset(end)
}
