//! New differencing files.
//!
//! A child is written once, from its first byte to its last, under a name that is never opened: so
//! its structures come when everything else is there, and no order is kept before.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, ErrorKind, Result};
use crate::image::{Image, ImageOptions};
use crate::storage::Storage;

use super::create::{TABLE_OFFSET, new_footer};
use super::fixed::beyond_disk;
use super::format::{
    DiskKind, DynamicHeader, ENTRY_BYTES, FOOTER_BYTES, Footer, Locator, NOWHERE, SECTOR_BYTES,
    UNALLOCATED, bit, bitmap_bytes, encode_entries, encode_parent_name, encode_relative, set_bits,
};
use super::layout::Shape;
use super::locate::locate;
use super::open::open_located;
use super::space::Space;

/// A differencing file that is being made. What is not written shows the parent.
pub(in crate::image) struct NewChild {
    storage: Arc<dyn Storage>,
    parent: Arc<dyn Image>,
    footer: Footer,
    header: DynamicHeader,
    path_payload: Vec<u8>,
    shape: Shape,
    blocks: Mutex<Blocks>,
}

struct Blocks {
    table: Vec<u32>,
    space: Space,
}

impl NewChild {
    /// Begins a child of `parent`, which it names `parent_path` from its own directory, in empty
    /// storage.
    ///
    /// # Errors
    /// Those of opening the parent; `Unsupported` for a parent that is suspended or that is not
    /// taken at its length in bytes; `InvalidInput` for a path that is too long; `Io`.
    pub(crate) fn create(
        storage: Arc<dyn Storage>,
        parent: Arc<dyn Storage>,
        parent_path: &str,
        options: &ImageOptions,
    ) -> Result<Self> {
        let located = locate(&*parent, options)?;
        let above = located.footer.clone();
        if above.saved_state != 0 || located.disk_len != above.current_bytes {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "a suspended disk, or one whose length is a matter of opinion, gets no child",
            )
            .at_path(parent.path()));
        }
        let shape = Shape {
            block_bytes: u64::from(BLOCK_BYTES),
            bitmap_bytes: bitmap_bytes(BLOCK_BYTES),
        };
        let count = shape.count(located.disk_len).max(1);
        let table_end = TABLE_OFFSET + (count * ENTRY_BYTES as u64).next_multiple_of(SECTOR_BYTES);
        let (locator, path_payload) = encode_relative(parent_path, table_end);
        if path_payload.len() > MAX_PATH_BYTES {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "the parent's path is too long to be named in a child",
            )
            .at_path(parent.path()));
        }
        let name = parent_path.rsplit('\\').next().unwrap_or(parent_path);
        let mut locators = [Locator::default(); 8];
        locators[0] = locator;
        let header = DynamicHeader {
            next_offset: NOWHERE,
            table_offset: TABLE_OFFSET,
            // At most 2040 GiB in blocks of 2 MiB.
            max_table_entries: count as u32,
            block_bytes: BLOCK_BYTES,
            parent_id: above.unique_id,
            parent_timestamp: 0,
            reserved: 0,
            parent_name: encode_parent_name(name),
            locators,
            reserved_end: [0; 256],
        };
        let mut footer = new_footer(DiskKind::Differencing, located.disk_len)?;
        footer.geometry = above.geometry;
        let data_start = table_end + u64::from(locator.space);
        Ok(NewChild {
            storage,
            parent: open_located(parent, located, options)?,
            footer,
            header,
            path_payload,
            shape,
            blocks: Mutex::new(Blocks {
                // At most 2^20 entries.
                table: vec![UNALLOCATED; count as usize],
                space: Space::new(None, data_start),
            }),
        })
    }

    /// Writes guest bytes.
    ///
    /// # Errors
    /// `Io`, `NoSpace`; `InvalidInput` for a range beyond the disk.
    pub(crate) fn write_all_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.for_pieces(
            offset..offset.saturating_add(buf.len() as u64),
            |at, done| {
                // A piece of the buffer.
                let (from, to) = (done.start as usize, done.end as usize);
                let piece = buf.get(from..to).unwrap_or_default();
                self.storage.write_all_at(piece, at)
            },
        )
    }

    /// Makes guest bytes zeros, whatever the parent holds there.
    ///
    /// # Errors
    /// As [`write_all_at`](Self::write_all_at).
    pub(crate) fn write_zeroes_at(&self, range: Range<u64>) -> Result<()> {
        self.for_pieces(range, |at, done| {
            self.storage.punch_hole(at..at + (done.end - done.start))
        })
    }

    /// Completes the file. Durable when it returns.
    ///
    /// # Errors
    /// `Io`, `NoSpace`.
    pub(crate) fn finish(&self) -> Result<()> {
        let blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        let tail = blocks.space.tight_tail();
        let footer = self.footer.encode();
        let storage = &*self.storage;
        storage.write_all_at(&encode_entries(&blocks.table), TABLE_OFFSET)?;
        storage.write_all_at(&self.path_payload, self.header.locators[0].offset)?;
        storage.write_all_at(&self.header.encode(), FOOTER_BYTES as u64)?;
        storage.write_all_at(&footer, 0)?;
        storage.set_len(tail + FOOTER_BYTES as u64)?;
        storage.write_all_at(&footer, tail)?;
        storage.sync()
    }

    /// Calls `write` for each block's part of `range` with its place in the file and its place in
    /// `range`, after which its sectors count as this file's.
    fn for_pieces(
        &self,
        range: Range<u64>,
        write: impl Fn(u64, Range<u64>) -> Result<()>,
    ) -> Result<()> {
        if range.end > self.footer.current_bytes {
            return Err(beyond_disk(&*self.storage, range.end));
        }
        let block_bytes = self.shape.block_bytes;
        let mut at = range.start;
        while at < range.end {
            let end = (at / block_bytes + 1).saturating_mul(block_bytes);
            let piece = at..end.min(range.end);
            // One at a time: two pieces may share a sector, and a bitmap.
            let mut blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
            let entry = self.place(&mut blocks, at / block_bytes)?;
            let payload = self.shape.payload_at(entry);
            let bitmap = self.claim(entry, &piece)?;
            let done = piece.start - range.start..piece.end - range.start;
            write(payload + at % block_bytes, done)?;
            self.storage
                .write_all_at(&bitmap, self.shape.bitmap_at(entry))?;
            at = piece.end;
        }
        Ok(())
    }

    /// The place of a block, a new one where it has none.
    fn place(&self, blocks: &mut Blocks, index: u64) -> Result<u32> {
        let slot = usize::try_from(index)
            .ok()
            .and_then(|index| blocks.table.get_mut(index))
            .ok_or_else(|| beyond_disk(&*self.storage, index))?;
        if *slot == UNALLOCATED {
            let entry = blocks.space.place(self.shape)?;
            // New space reads as zeros: no bit of the bitmap is set.
            self.storage.set_len(self.shape.end(entry))?;
            blocks.space.take(entry, self.shape);
            *slot = entry;
        }
        Ok(*slot)
    }

    /// The bitmap of a block with the sectors of `piece` in it. Of sectors that `piece` covers in
    /// part and that were the parent's, the parent's bytes are copied.
    fn claim(&self, entry: u32, piece: &Range<u64>) -> Result<Vec<u8>> {
        // 512 bytes, for blocks of 2 MiB.
        let mut bitmap = vec![0; self.shape.bitmap_bytes as usize];
        self.storage
            .read_exact_at(&mut bitmap, self.shape.bitmap_at(entry))?;
        let start = piece.start / self.shape.block_bytes * self.shape.block_bytes;
        let sectors =
            (piece.start - start) / SECTOR_BYTES..(piece.end - start).div_ceil(SECTOR_BYTES);
        let cut_head = !piece.start.is_multiple_of(SECTOR_BYTES);
        let cut_tail = !piece.end.is_multiple_of(SECTOR_BYTES);
        let edges = [
            (cut_head, sectors.start),
            (cut_tail, sectors.end.saturating_sub(1)),
        ];
        for (cut, sector) in edges {
            if cut && !bit(&bitmap, sector) {
                let mut bytes = [0; SECTOR_BYTES as usize];
                let within = sector * SECTOR_BYTES;
                self.parent.read_exact_at(&mut bytes, start + within)?;
                let place = self.shape.payload_at(entry) + within;
                self.storage.write_all_at(&bytes, place)?;
            }
        }
        set_bits(&mut bitmap, sectors);
        Ok(bitmap)
    }
}

/// What every program takes.
const BLOCK_BYTES: u32 = 2 << 20;
/// More than any path has.
const MAX_PATH_BYTES: usize = 32 << 10;
