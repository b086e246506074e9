//! Writing dynamic files.
//!
//! Payload goes straight to its place. A new block is made in this order: the file grows, many
//! blocks at a time, and gets a footer at its new end; the block's bitmap and payload are written;
//! and only `sync` enters blocks in the table, after all of that is durable. So at every moment
//! the copy of the footer at the head is whole, what the table names is written, and the end of
//! the file is a footer or empty, never payload. Space that a crash leaves unused is not used
//! again.
//!
//! A sector of the table that a crash tears is beyond help here: the format has no journal.
//! Callers who need more prepare changes and keep the patches.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::error::Result;
use crate::image::{Change, Image, ImageMut, Patch};

use super::bitmap::{Bits, runs};
use super::dynamic::Dynamic;
use super::fixed::beyond_disk;
use super::format::UNALLOCATED;
use super::format::{ENTRIES_A_SECTOR, FOOTER_BYTES, SECTOR_BYTES, encode_entries};
use super::meta::{MIN_GROW_BYTES, Meta};

impl ImageMut for Dynamic {
    fn write_all_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let end = self.end_inside(offset, buf.len() as u64)?;
        let mut rest = buf;
        for (index, within, len) in self.pieces(offset..end) {
            // The pieces add up to the buffer.
            let (piece, behind) = rest.split_at(len as usize);
            rest = behind;
            let entry = self.entry_for_writing(index)?;
            self.storage
                .write_all_at(piece, self.shape.payload_at(entry) + within)?;
        }
        Ok(())
    }

    fn write_zeroes_at(&self, range: Range<u64>) -> Result<()> {
        self.end_inside(range.start, range.end.saturating_sub(range.start))?;
        for (index, within, len) in self.pieces(range) {
            // A block without a place reads as zeros already.
            if let Some(entry) = self.entry(index) {
                let at = self.shape.payload_at(entry) + within;
                self.storage.punch_hole(at..at + len)?;
            }
        }
        Ok(())
    }

    /// The new length is durable when this returns. A crash inside may leave a footer that
    /// disagrees with its copy; opening leniently then takes the one at the end.
    fn set_disk_len(&self, len: u64) -> Result<()> {
        self.resize(len)
    }

    fn sync(&self) -> Result<()> {
        let mut meta = self.lock_meta();
        // Payload first: whatever the table names next is written.
        self.storage.sync()?;
        self.flush(&mut meta)
    }

    fn places(
        &self,
        range: Range<u64>,
        visit: &mut dyn FnMut(Range<u64>) -> Result<()>,
    ) -> Result<()> {
        for (index, within, len) in self.pieces(range) {
            if let Some(entry) = self.entry(index) {
                let at = self.shape.payload_at(entry) + within;
                visit(at..at + len)?;
            }
        }
        Ok(())
    }

    fn prepare(&self, change: &Change<'_>) -> Result<Vec<Patch>> {
        self.prepare_change(change)
    }
}

impl Dynamic {
    /// Writes the table's changed sectors and gives back file space that was made ready and not
    /// used. The caller has made the payload durable.
    ///
    /// # Errors
    /// `Io`, `NoSpace`.
    pub(super) fn flush(&self, meta: &mut Meta) -> Result<()> {
        if !meta.is_ahead() {
            return Ok(());
        }
        for (at, bytes) in self.table_sectors(&meta.dirty) {
            self.storage.write_all_at(&bytes, at)?;
        }
        let trim = meta.space.has_slack().then(|| meta.space.tight_tail());
        if let Some(tail) = trim {
            // Where this goes there is nothing but zeros, so a cut that lands without it leaves
            // no footer at the end, but never a wrong one.
            self.storage.write_all_at(&meta.footer.encode(), tail)?;
            self.storage.set_len(tail + FOOTER_BYTES as u64)?;
        }
        self.storage.sync()?;
        meta.dirty.clear();
        if let Some(tail) = trim {
            meta.space.trimmed_to(tail);
            meta.grow_bytes = MIN_GROW_BYTES;
        }
        Ok(())
    }

    /// The given sectors of the table as they are in memory, neighbours joined: place and bytes.
    pub(super) fn table_sectors(&self, sectors: &BTreeSet<u64>) -> Vec<(u64, Vec<u8>)> {
        let table = self.read_lock();
        let mut pieces: Vec<(u64, Vec<u8>)> = Vec::new();
        for sector in sectors {
            let at = self.header.table_offset + sector * SECTOR_BYTES;
            // Sectors of a table in memory; behind its end nothing has a place.
            let first = *sector as usize * ENTRIES_A_SECTOR;
            let last = (first + ENTRIES_A_SECTOR).min(table.len());
            let mut bytes = encode_entries(table.get(first..last).unwrap_or_default());
            bytes.resize(SECTOR_BYTES as usize, 0xff);
            match pieces.last_mut() {
                Some((start, joined)) if *start + joined.len() as u64 == at => {
                    joined.append(&mut bytes);
                }
                _ => pieces.push((at, bytes)),
            }
        }
        pieces
    }

    /// Makes sure that a block whose bitmap has cleared bits holds zeros under them, so that
    /// setting them all changes nothing for anybody.
    ///
    /// # Errors
    /// `Malformed` where it does not; `Io`.
    pub(super) fn check_cleared(&self, entry: u32, bits: &[u8]) -> Result<()> {
        let payload = self.shape.payload_at(entry);
        let mut bytes = Vec::new();
        for (run, set) in runs(bits, 0..self.shape.block_bytes) {
            let mut at = run.start;
            while !set && at < run.end {
                let len = (run.end - at).min(CHECK_BYTES);
                // At most CHECK_BYTES.
                bytes.resize(len as usize, 0);
                self.storage.read_exact_at(&mut bytes, payload + at)?;
                if bytes.iter().any(|byte| *byte != 0) {
                    return Err(self.hidden_bytes(payload + at));
                }
                at += len;
            }
        }
        Ok(())
    }

    fn end_inside(&self, offset: u64, len: u64) -> Result<u64> {
        match offset.checked_add(len) {
            Some(end) if end <= self.disk_len() => Ok(end),
            end => Err(beyond_disk(&*self.storage, end.unwrap_or(u64::MAX))),
        }
    }

    /// The place of a block that is about to be written, all bits of its bitmap set.
    fn entry_for_writing(&self, index: u64) -> Result<u32> {
        let Some(entry) = self.entry(index) else {
            return self.add_block(index);
        };
        if let Bits::Some(_) = self.bits(index, entry)? {
            // One at a time: no thread may write payload that another still checks for zeros.
            let _meta = self.lock_meta();
            if let Bits::Some(bits) = self.bits(index, entry)? {
                self.check_cleared(entry, &bits)?;
                self.storage
                    .write_all_at(&self.full_bitmap(), self.shape.bitmap_at(entry))?;
                self.bitmaps.set_full(index);
            }
        }
        Ok(entry)
    }

    fn add_block(&self, index: u64) -> Result<u32> {
        let mut meta = self.lock_meta();
        if let Some(entry) = self.entry(index) {
            return Ok(entry);
        }
        let entry = meta.space.place(self.shape)?;
        if !meta.space.is_ready(entry, self.shape) {
            self.grow(&mut meta)?;
        }
        self.storage
            .write_all_at(&self.full_bitmap(), self.shape.bitmap_at(entry))?;
        meta.space.take(entry, self.shape);
        meta.dirty.insert(index / ENTRIES_A_SECTOR as u64);
        self.set_entry(index, entry);
        Ok(entry)
    }

    /// Enters a new block, whose bitmap has all bits set, in the table in memory.
    pub(super) fn set_entry(&self, index: u64, entry: u32) {
        self.bitmaps.set_full(index);
        // The table is in memory, so its indexes fit.
        if let Some(slot) = self.write_lock().get_mut(index as usize) {
            debug_assert_eq!(*slot, UNALLOCATED);
            *slot = entry;
        }
    }

    /// Makes the file longer and gives it its footer there.
    fn grow(&self, meta: &mut Meta) -> Result<()> {
        self.mend_head(meta)?;
        let tail = meta.space.grown_tail(meta.grow_bytes, self.shape);
        self.storage.set_len(tail + FOOTER_BYTES as u64)?;
        self.storage.write_all_at(&meta.footer.encode(), tail)?;
        meta.space.grown_to(tail);
        meta.grow_bytes = (meta.grow_bytes * 2).min(MAX_GROW_BYTES);
        Ok(())
    }

    /// Makes the copy at the head whole, durably, before the footer at the end is touched.
    ///
    /// # Errors
    /// `Io`, `NoSpace`.
    pub(super) fn mend_head(&self, meta: &mut Meta) -> Result<()> {
        if !meta.head_good {
            self.storage.write_all_at(&meta.footer.encode(), 0)?;
            self.storage.sync()?;
            meta.head_good = true;
        }
        Ok(())
    }

    /// A block's bitmap with all bits set.
    pub(super) fn full_bitmap(&self) -> Vec<u8> {
        // At most 64 KiB, for the largest block.
        vec![0xff; self.shape.bitmap_bytes as usize]
    }
}

/// How much room a file gets at most at once.
const MAX_GROW_BYTES: u64 = 256 << 20;
const CHECK_BYTES: u64 = 64 << 10;
