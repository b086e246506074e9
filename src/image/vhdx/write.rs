//! Writing: payload in place, changes to the tables in memory until the next sync commits them.

use std::ops::Range;
use std::sync::MutexGuard;
use std::sync::atomic::Ordering;

use super::format::BlockState;
use super::guid::Guid;
use super::read::Backing;
use super::room::Erase;
use super::writer::{VhdxMut, Writer};
use crate::error::{ErrorKind, Result};
use crate::image::{Change, Image, ImageInfo, ImageMut, Patch};
use crate::storage::HostFile;
use crate::units::Extent;

impl Image for VhdxMut {
    fn disk_len(&self) -> u64 {
        self.image.disk_len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.image.read_exact_at(buf, offset)
    }

    fn next_extent(&self, offset: u64) -> Result<Option<Extent>> {
        self.image.next_extent(offset)
    }

    fn allocated_bytes(&self) -> Result<u64> {
        self.image.allocated_bytes()
    }

    fn info(&self) -> ImageInfo {
        self.image.info()
    }

    fn files(&self) -> Result<Vec<HostFile>> {
        self.image.files()
    }

    fn drop_cache(&self, range: Range<u64>) {
        self.image.drop_cache(range);
    }

    fn will_read(&self, range: Range<u64>) {
        self.image.will_read(range);
    }

    fn look_ahead_bytes(&self) -> u64 {
        self.image.look_ahead_bytes()
    }

    fn reads_from_memory(&self) -> bool {
        self.image.reads_from_memory()
    }
}

impl ImageMut for VhdxMut {
    fn write_all_at(&self, mut buf: &[u8], mut offset: u64) -> Result<()> {
        self.image
            .inside(offset, buf.len() as u64, ErrorKind::InvalidInput)?;
        self.begin()?;
        while !buf.is_empty() {
            let (place, len) = self.image.stretch(offset, buf.len() as u64)?;
            let len = match place {
                Backing::File(at) => {
                    // No longer than `buf`, so it fits a usize.
                    let part = &buf[..len as usize];
                    self.image.storage.write_all_at(part, at)?;
                    len
                }
                Backing::Zero | Backing::Parent => {
                    let end = self.block_end(offset).min(offset + buf.len() as u64);
                    self.write_new(&buf[..(end - offset) as usize], offset)?;
                    end - offset
                }
            };
            buf = &buf[len as usize..];
            offset += len;
        }
        Ok(())
    }

    fn write_zeroes_at(&self, range: Range<u64>) -> Result<()> {
        let len = range.end.saturating_sub(range.start);
        self.image
            .inside(range.start, len, ErrorKind::InvalidInput)?;
        self.begin()?;
        let mut at = range.start;
        while at < range.end {
            let (place, len) = self.image.stretch(at, range.end - at)?;
            if place == Backing::Zero {
                at += len;
                continue;
            }
            let end = self.block_end(at).min(range.end);
            self.zero_in_block(at..end)?;
            at = end;
        }
        Ok(())
    }

    fn set_disk_len(&self, len: u64) -> Result<()> {
        if len == self.disk_len() {
            return Ok(());
        }
        self.begin()?;
        let mut writer = self.usable_writer()?;
        self.check_resize(&writer, len)?;
        writer.torn = true;
        self.resize(&mut writer, len, &mut Erase::Now)?;
        writer.torn = false;
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        let mut writer = self.usable_writer()?;
        self.commit(&mut writer)
    }

    fn places(
        &self,
        range: Range<u64>,
        visit: &mut dyn FnMut(Range<u64>) -> Result<()>,
    ) -> Result<()> {
        let mut at = range.start;
        while at < range.end {
            let (place, len) = self.image.stretch(at, range.end - at)?;
            if len == 0 {
                break;
            }
            if let Backing::File(file) = place {
                visit(file..file + len)?;
            }
            at += len;
        }
        Ok(())
    }

    fn prepare(&self, change: &Change<'_>) -> Result<Vec<Patch>> {
        self.prepare_patches(change)
            .map_err(|e| e.at_path(self.image.storage.path()))
    }
}

impl VhdxMut {
    /// The writer, unless headers or log are in an unknown state.
    pub(super) fn usable_writer(&self) -> Result<MutexGuard<'_, Writer>> {
        let writer = self.lock_writer();
        if writer.torn {
            return Err(crate::storage::poisoned(self.image.storage.path()));
        }
        Ok(writer)
    }

    /// Before the first change since the file was opened, its contents get a new name.
    fn begin(&self) -> Result<()> {
        if self.begun.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut writer = self.usable_writer()?;
        if self.begun.load(Ordering::Acquire) {
            return Ok(());
        }
        let (file_write, data_write) = (Guid::random()?, Guid::random()?);
        writer.torn = true;
        writer.headers.update_both(&*self.image.storage, |header| {
            header.file_write = file_write;
            header.data_write = data_write;
        })?;
        writer.torn = false;
        self.begun.store(true, Ordering::Release);
        Ok(())
    }

    /// Notes that the contents have a new name, or says that they had one already.
    pub(super) fn begun_before(&self) -> bool {
        self.begun.swap(true, Ordering::AcqRel)
    }

    pub(super) fn block_end(&self, offset: u64) -> u64 {
        let block = offset / self.image.block_bytes();
        self.image.geometry.block_range(block, self.disk_len()).end
    }

    /// Whether `range`, inside one block, is all that the guest sees of the block.
    pub(super) fn is_whole_block(&self, range: &Range<u64>) -> bool {
        range.start.is_multiple_of(self.image.block_bytes())
            && range.end == self.block_end(range.start)
    }

    /// Writes inside one block of which not all is in the file.
    fn write_new(&self, buf: &[u8], offset: u64) -> Result<()> {
        let range = offset..offset + buf.len() as u64;
        let mut writer = self.usable_writer()?;
        self.make_space_in_memory(&mut writer)?;
        let room = self.find_room(&mut writer, &range, &mut Erase::Now)?;
        if !self.image.geometry.differencing {
            // The new block reads as zeros until the bytes are there, as it did before.
            self.publish(&mut writer, &range, &room)?;
            drop(writer);
            return self.image.storage.write_all_at(buf, room.at);
        }
        // Sectors that were the parent's are seen, by others and by a commit, when all is there.
        for edge in self.edges(&range)? {
            let place = room.at + edge.offset - offset;
            self.image.storage.write_all_at(&edge.bytes, place)?;
        }
        self.image.storage.write_all_at(buf, room.at)?;
        self.publish(&mut writer, &range, &room)
    }

    /// Zeroes a range inside one block that does not read as zeros as a whole.
    fn zero_in_block(&self, range: Range<u64>) -> Result<()> {
        let mut writer = self.usable_writer()?;
        self.make_space_in_memory(&mut writer)?;
        if self.is_whole_block(&range) && !self.image.metadata.fixed && !writer.prepared {
            return self.give_back(&mut writer, range.start);
        }
        let mut at = range.start;
        while at < range.end {
            let (place, len) = self.image.stretch(at, range.end - at)?;
            match place {
                Backing::File(file) => self.image.storage.punch_hole(file..file + len)?,
                Backing::Zero => {}
                Backing::Parent => {
                    let part = at..at + len;
                    let room = self.find_room(&mut writer, &part, &mut Erase::Now)?;
                    self.image.storage.punch_hole(room.at..room.at + len)?;
                    for edge in self.edges(&part)? {
                        let place = room.at + edge.offset - at;
                        self.image.storage.write_all_at(&edge.bytes, place)?;
                    }
                    self.publish(&mut writer, &part, &room)?;
                }
            }
            at += len;
        }
        Ok(())
    }

    /// Commits early when the changed pages take too much memory.
    fn make_space_in_memory(&self, writer: &mut Writer) -> Result<()> {
        if self.image.lock_tables().pages.is_crowded() {
            return self.commit(writer);
        }
        Ok(())
    }

    /// The state of the block that holds `offset`.
    pub(super) fn block_state(&self, offset: u64) -> Result<BlockState> {
        let block = offset / self.image.block_bytes();
        let entry = self.image.entry(&mut self.image.lock_tables(), block)?;
        self.image.state(entry)
    }
}
