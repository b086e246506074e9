//! Other lengths.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use crate::advice::Advice;
use crate::error::{Error, ErrorKind, Result};
use crate::image::Image;
use crate::storage::Storage;
use crate::units::format_size;

use super::dynamic::Dynamic;
use super::format::{
    DiskKind, ENTRIES_A_SECTOR, ENTRY_BYTES, FOOTER_BYTES, Footer, Geometry, HEADER_BYTES,
    SECTOR_BYTES, UNALLOCATED,
};
use super::layout::{check_table_limit, read_table, table_range};
use super::size_policy::{CREATOR, goes_by_geometry};
use super::space::Space;

/// # Errors
/// `Unsupported` for a length that a VHD cannot have.
pub(super) fn check_len(storage: &dyn Storage, kind: DiskKind, len: u64) -> Result<()> {
    check_disk_len(kind, len).map_err(|e| e.at_path(storage.path()))
}

/// As [`check_len`], for a file that is not there yet.
///
/// # Errors
/// `Unsupported`.
pub(super) fn check_disk_len(kind: DiskKind, len: u64) -> Result<()> {
    let most = kind.max_disk_bytes();
    if len.is_multiple_of(SECTOR_BYTES) && len <= most {
        return Ok(());
    }
    let (name, most) = (kind.layout().name(), format_size(most));
    Err(Error::new(
        ErrorKind::Unsupported,
        format!("a {name} VHD cannot be {len} bytes long: only whole sectors up to {most}"),
    )
    .advise("use a raw disk, a VHDX, or a fixed VHD, which can be up to 64T long"))
}

/// The footer of the same disk at another length.
pub(super) fn resized(footer: &Footer, len: u64) -> Footer {
    let mut new = footer.clone();
    new.current_bytes = len;
    new.geometry = Geometry::for_disk(len);
    // QEMU would take the rounded geometry for the length otherwise.
    if goes_by_geometry(new.creator) {
        new.creator = CREATOR;
    }
    new
}

impl Dynamic {
    /// Changes the length, durably.
    ///
    /// # Errors
    /// `Unsupported` where the table has no room; `Malformed`, `LimitExceeded`, `Io`, `NoSpace`.
    pub(super) fn resize(&self, len: u64) -> Result<()> {
        check_len(&*self.storage, DiskKind::Dynamic, len)?;
        let mut meta = self.lock_meta();
        let old_len = self.disk_len();
        if len == old_len {
            return Ok(());
        }
        if meta.is_ahead() {
            self.storage.sync()?;
            self.flush(&mut meta)?;
        }
        let stale = self.stale_sectors(&meta.space, len)?;
        let footer = resized(&meta.footer, len);
        if len > old_len {
            // Durable before anybody can look there.
            self.clear_table(&stale)?;
            self.clear_last_block(old_len, len)?;
            self.storage.sync()?;
        }
        self.mend_head(&mut meta)?;
        let tail = match meta.space.tail_at {
            Some(tail) => tail,
            None => {
                let tail = meta.space.tight_tail();
                self.storage.set_len(tail + FOOTER_BYTES as u64)?;
                tail
            }
        };
        // One footer is whole while the other changes.
        let bytes = footer.encode();
        self.storage.write_all_at(&bytes, tail)?;
        self.storage.sync()?;
        self.storage.write_all_at(&bytes, 0)?;
        meta.space.trimmed_to(tail);
        meta.footer = footer;
        self.take_len(len);
        if len < old_len {
            // Blocks behind the end are not read any more, so their loss is not seen.
            self.clear_table(&stale)?;
        }
        self.storage.sync()
    }

    /// Sectors of the table in the file that name blocks which a disk of `len` bytes does not
    /// have yet or any more.
    ///
    /// # Errors
    /// `Unsupported` where the file's table has no room for it; `LimitExceeded`, `Io`.
    pub(super) fn stale_sectors(&self, space: &Space, len: u64) -> Result<BTreeSet<u64>> {
        let count = self.shape.count(len);
        let table = self.read_lock();
        let old_count = table.len() as u64;
        if count <= old_count {
            let cut = table.get(count as usize..).unwrap_or_default();
            return Ok(sectors_in_use(count, cut).collect());
        }
        self.check_room(space, &table, count)?;
        drop(table);
        check_table_limit(count, &self.options)?;
        let at = self.header.table_offset + old_count * ENTRY_BYTES as u64;
        let unused = read_table(&*self.storage, at, count - old_count)?;
        Ok(sectors_in_use(old_count, &unused).collect())
    }

    /// Has the tables in memory be those of a disk of `len` bytes.
    pub(super) fn take_len(&self, len: u64) {
        let count = self.shape.count(len);
        let mut table = self.write_lock();
        if count < table.len() as u64 {
            self.bitmaps.cut(count);
        }
        // Checked against the limit, or shorter than what is in memory.
        table.resize(count as usize, UNALLOCATED);
        self.disk_len.store(len, Ordering::SeqCst);
    }

    /// Whether the table can have `count` entries without running into anything.
    fn check_room(&self, space: &Space, table: &[u32], count: u64) -> Result<()> {
        let no_room = || {
            let bytes = u64::from(self.header.max_table_entries) * self.shape.block_bytes;
            Error::new(
                ErrorKind::Unsupported,
                format!("the table of this VHD has room for a disk of {bytes} bytes at most"),
            )
            .in_field("max table entries")
            .at_path(self.storage.path())
            .advise(Advice::FullMode)
        };
        if count > u64::from(self.header.max_table_entries) {
            return Err(no_room());
        }
        let range = table_range(&self.header, count, space.tight_tail()).map_err(|_| no_room())?;
        // Read from there when the file was opened, so it does not end beyond 2^64.
        let header = self.header_at..self.header_at + HEADER_BYTES as u64;
        let hit_block = table.iter().any(|entry| {
            *entry != UNALLOCATED
                && self.shape.bitmap_at(*entry) < range.end
                && self.shape.end(*entry) > range.start
        });
        if hit_block || (header.start < range.end && header.end > range.start) {
            return Err(no_room());
        }
        Ok(())
    }

    /// Writes "no place" into sectors of the table that lie behind the disk's blocks.
    fn clear_table(&self, stale: &BTreeSet<u64>) -> Result<()> {
        for (at, bytes) in self.table_sectors(stale) {
            self.storage.write_all_at(&bytes, at)?;
        }
        Ok(())
    }

    /// The end of the last block was not part of the disk and may hold anything.
    fn clear_last_block(&self, old_len: u64, len: u64) -> Result<()> {
        let last = old_len / self.shape.block_bytes;
        let start = last * self.shape.block_bytes;
        let end = len.min(start + self.shape.block_bytes);
        match self.entry(last) {
            Some(entry) if start < old_len => {
                let payload = self.shape.payload_at(entry);
                self.storage
                    .punch_hole(payload + (old_len - start)..payload + (end - start))
            }
            _ => Ok(()),
        }
    }
}

/// The sectors of a table in which `entries`, the first of them number `first`, name places.
fn sectors_in_use(first: u64, entries: &[u32]) -> impl Iterator<Item = u64> + '_ {
    (first..)
        .zip(entries)
        .filter(|(_, entry)| **entry != UNALLOCATED)
        .map(|(index, _)| index / ENTRIES_A_SECTOR as u64)
}
