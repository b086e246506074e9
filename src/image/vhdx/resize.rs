//! Changing the guest-visible length.

use std::ops::Range;
use std::sync::atomic::Ordering;

use super::format::{BatEntry, BlockState, ENTRIES_PER_PAGE, PAGE, bat_entry};
use super::geometry::Role;
use super::metadata::check_disk_bytes;
use super::room::Erase;
use super::writer::{VhdxMut, Writer};
use crate::error::{Error, ErrorKind, Result};
use crate::image::Image;

impl VhdxMut {
    /// Whether the disk can take a new length.
    ///
    /// # Errors
    /// `Unsupported`, `LimitExceeded`, `Malformed` (a length outside the format).
    pub(super) fn check_resize(&self, writer: &Writer, new_len: u64) -> Result<()> {
        let geometry = &self.image.geometry;
        let refuse = |message: &'static str| {
            Err(Error::new(ErrorKind::Unsupported, message)
                .in_field("virtual_disk_size")
                .at_path(self.image.storage.path()))
        };
        if geometry.differencing {
            return refuse("the length of a differencing image cannot be changed");
        }
        if !new_len.is_multiple_of(geometry.sector_bytes) {
            return refuse("the new length is not a whole number of sectors");
        }
        check_disk_bytes(new_len, geometry.sector_bytes, &writer.limits)?;
        if geometry.entry_count(new_len) > geometry.entry_room() {
            return refuse("the block table has no room for the new length");
        }
        Ok(())
    }

    /// Takes a new length that was checked, in memory; payload that becomes visible becomes
    /// zeros.
    pub(super) fn resize(
        &self,
        writer: &mut Writer,
        new_len: u64,
        erase: &mut Erase<'_>,
    ) -> Result<()> {
        let image = &self.image;
        let geometry = &image.geometry;
        let old_len = self.disk_len();
        if new_len > old_len {
            self.erase_tail(old_len, erase)?;
        }
        // Entries between the two counts: those of blocks that go, or leftovers of earlier ones.
        let (few, many) = (old_len.min(new_len), old_len.max(new_len));
        let gone = geometry.entry_count(few)..geometry.entry_count(many);
        self.clear_entries(writer, gone, new_len < old_len)?;
        if new_len > old_len && image.metadata.fixed {
            let blocks = geometry.block_count(old_len)..geometry.block_count(new_len);
            for block in blocks {
                let at = self.allocate(writer, geometry.block_bytes, erase)?;
                let entry = BatEntry::at(BlockState::Present, at);
                self.set_entry(
                    &mut image.lock_tables(),
                    geometry.payload_entry(block),
                    entry,
                )?;
            }
        }
        self.write_len(new_len)?;
        image.disk_len.store(new_len, Ordering::SeqCst);
        Ok(())
    }

    /// Erases what the last block holds beyond the end of the disk.
    fn erase_tail(&self, old_len: u64, erase: &mut Erase<'_>) -> Result<()> {
        let image = &self.image;
        let within = old_len % image.block_bytes();
        if within == 0 || self.block_state(old_len)? != BlockState::Present {
            return Ok(());
        }
        let block = old_len / image.block_bytes();
        let entry = image.entry(&mut image.lock_tables(), block)?;
        let end = entry.offset() + image.block_bytes();
        let file_end = image.storage.len()?;
        let tail = entry.offset() + within..end.min(file_end);
        if tail.is_empty() {
            return Ok(());
        }
        self.erase(tail, erase)
    }

    fn clear_entries(&self, writer: &mut Writer, entries: Range<u64>, free: bool) -> Result<()> {
        let image = &self.image;
        let mut index = entries.start;
        while index < entries.end {
            let stop = (index / ENTRIES_PER_PAGE + 1) * ENTRIES_PER_PAGE;
            let mut tables = image.lock_tables();
            let at = image.geometry.entry_page(index);
            let page = tables.pages.page(at)?;
            debug_assert!(at.is_multiple_of(PAGE));
            for index in index..stop.min(entries.end) {
                let entry = bat_entry(&page, index);
                if entry == BatEntry::ABSENT {
                    continue;
                }
                let here = matches!(image.geometry.role(index), Role::Payload(_))
                    && entry.state() == Some(BlockState::Present);
                if free && here {
                    let start = entry.offset();
                    writer.freed.push(start..start + image.block_bytes());
                }
                self.set_entry(&mut tables, index, BatEntry::ABSENT)?;
            }
            index = stop;
        }
        Ok(())
    }

    /// Changes the length in the metadata, which may lie across two pages.
    fn write_len(&self, new_len: u64) -> Result<()> {
        let mut tables = self.image.lock_tables();
        for (at, byte) in (self.image.metadata.disk_bytes_at..).zip(new_len.to_le_bytes()) {
            tables.pages.change(at / PAGE * PAGE, |page| {
                if let Some(to) = page.get_mut((at % PAGE) as usize) {
                    *to = byte;
                }
            })?;
        }
        Ok(())
    }
}
