//! Where new bytes go: blocks, sector bitmaps, and the entries that name them.

use std::ops::Range;

use super::format::{
    BITMAP_BYTES, BatEntry, BlockState, ENTRIES_PER_PAGE, PAGE, Page, set_bat_entry,
};
use super::geometry::Role;
use super::image::Tables;
use super::read::{Backing, bit_run};
use super::survey::named_range;
use super::writer::{VhdxMut, Writer};
use crate::error::Result;
use crate::image::Image;

/// When space that is taken becomes zeros.
#[derive(Debug)]
pub(super) enum Erase<'a> {
    /// At once.
    Now,
    /// Later, by the caller, who gets these ranges of the file; nothing is written.
    Later(&'a mut Vec<Range<u64>>),
}

/// A place in the file for bytes inside one block.
#[derive(Debug)]
pub(super) struct Room {
    /// Where the first of the bytes lies.
    pub at: u64,
    block: u64,
    old: BatEntry,
    new: BatEntry,
    bitmap: Option<u64>,
    is_new: bool,
}

/// Old bytes of a sector of which only a part is about to be written.
#[derive(Debug)]
pub(super) struct Edge {
    /// First guest byte.
    pub offset: u64,
    pub bytes: Vec<u8>,
}

impl VhdxMut {
    /// Finds a place in the file for `range`, inside one block. It is not visible before it is
    /// [published](VhdxMut::publish).
    pub(super) fn find_room(
        &self,
        writer: &mut Writer,
        range: &Range<u64>,
        erase: &mut Erase<'_>,
    ) -> Result<Room> {
        let image = &self.image;
        let block = range.start / image.block_bytes();
        let whole = self.is_whole_block(range);
        let mut tables = image.lock_tables();
        let old = image.entry(&mut tables, block)?;
        let old_state = image.state(old)?;
        let state = match old_state {
            BlockState::Partial | BlockState::Absent if image.geometry.differencing && !whole => {
                BlockState::Partial
            }
            _ => BlockState::Present,
        };
        let bitmap = match state {
            BlockState::Partial => Some(self.bitmap(writer, &mut tables, block, erase)?),
            _ => None,
        };
        let is_new = !matches!(old_state, BlockState::Present | BlockState::Partial);
        let start = match is_new {
            true => self.allocate(writer, image.block_bytes(), erase)?,
            false => old.offset(),
        };
        Ok(Room {
            block,
            old,
            new: BatEntry::at(state, start),
            bitmap,
            is_new,
            at: start + range.start % image.block_bytes(),
        })
    }

    /// Lets the tables in memory say that the bytes of `range` are in their room. Bytes around
    /// them read as before, but for the rest of the sectors at both ends (see
    /// [`edges`](VhdxMut::edges)).
    pub(super) fn publish(
        &self,
        writer: &mut Writer,
        range: &Range<u64>,
        room: &Room,
    ) -> Result<()> {
        let image = &self.image;
        let mut tables = image.lock_tables();
        if let Some(bitmap) = room.bitmap {
            let first = image.geometry.first_bit(room.block);
            let start = room.block * image.block_bytes();
            let sector = image.sector_bytes();
            if room.is_new {
                let bits = first..first + image.geometry.block_sectors();
                fill_bits(&mut tables, bitmap, bits, false)?;
            }
            let from = first + (range.start - start) / sector;
            let to = first + (range.end - start).div_ceil(sector);
            fill_bits(&mut tables, bitmap, from..to, true)?;
        }
        if room.new != room.old {
            let index = image.geometry.payload_entry(room.block);
            self.set_entry(&mut tables, index, room.new)?;
        }
        if room.is_new
            && let Some(range) = named_range(room.old, image.block_bytes())
        {
            writer.space.unname(range);
        }
        Ok(())
    }

    /// What has to be copied into the file so that sectors which `range` covers in part, and
    /// which come from the parent, keep their other bytes.
    pub(super) fn edges(&self, range: &Range<u64>) -> Result<Vec<Edge>> {
        let sector = self.image.sector_bytes();
        let head = range.start / sector * sector..range.start;
        let tail = range.end..range.end.next_multiple_of(sector);
        let mut edges = Vec::new();
        for part in [head, tail] {
            if part.is_empty() || self.image.stretch(part.start, 1)?.0 != Backing::Parent {
                continue;
            }
            // Less than a sector.
            let mut bytes = vec![0; (part.end - part.start) as usize];
            self.image.read_exact_at(&mut bytes, part.start)?;
            edges.push(Edge {
                offset: part.start,
                bytes,
            });
        }
        Ok(edges)
    }

    /// Makes the block at `offset` read as zeros and gives its place in the file back, to be used
    /// after the next commit.
    pub(super) fn give_back(&self, writer: &mut Writer, offset: u64) -> Result<()> {
        let image = &self.image;
        let block = offset / image.block_bytes();
        let mut tables = image.lock_tables();
        let entry = image.entry(&mut tables, block)?;
        match image.state(entry)? {
            BlockState::Present | BlockState::Partial => {
                let start = entry.offset();
                writer.freed.push(start..start + image.block_bytes());
            }
            BlockState::Absent if image.geometry.differencing => {}
            _ => return Ok(()),
        }
        let index = image.geometry.payload_entry(block);
        self.set_entry(&mut tables, index, BatEntry::ZERO)
    }

    /// Takes `len` bytes of the file, whole MiB, for a block that reads as zeros.
    pub(super) fn allocate(
        &self,
        writer: &mut Writer,
        len: u64,
        erase: &mut Erase<'_>,
    ) -> Result<u64> {
        let old_end = writer.space.end();
        let at = writer.space.allocate(len)?;
        if let Erase::Later(ranges) = erase {
            ranges.push(at..at + len);
            return Ok(at);
        }
        if writer.file_len < writer.space.end() {
            self.image.storage.set_len(writer.space.end())?;
            writer.file_len = writer.space.end();
        }
        if at < old_end {
            self.erase(at..at + len, erase)?;
        }
        Ok(at)
    }

    /// Makes a range of the file zeros, now or later.
    pub(super) fn erase(&self, range: Range<u64>, erase: &mut Erase<'_>) -> Result<()> {
        match erase {
            Erase::Now => self.image.storage.punch_hole(range),
            Erase::Later(ranges) => {
                ranges.push(range);
                Ok(())
            }
        }
    }

    pub(super) fn set_entry(&self, tables: &mut Tables, index: u64, entry: BatEntry) -> Result<()> {
        let geometry = &self.image.geometry;
        if let Role::Payload(_) = geometry.role(index) {
            let old = self.image.entry_at(tables, index)?;
            tables.present_count -= u64::from(is_here(old));
            tables.present_count += u64::from(is_here(entry));
        }
        let page = geometry.entry_page(index);
        tables
            .pages
            .change(page, |page| set_bat_entry(page, index, entry))?;
        if entry != BatEntry::ABSENT {
            let number = index / ENTRIES_PER_PAGE;
            tables.busy.set(number..number + 1);
        }
        Ok(())
    }

    /// Where the sector bitmap for `block` lies; a new one, all zeros, where there is none.
    fn bitmap(
        &self,
        writer: &mut Writer,
        tables: &mut Tables,
        block: u64,
        erase: &mut Erase<'_>,
    ) -> Result<u64> {
        let index = self.image.geometry.bitmap_entry(block);
        let entry = self.image.entry_at(tables, index)?;
        if self.image.state(entry)? == BlockState::Present {
            return Ok(entry.offset());
        }
        let at = self.allocate(writer, BITMAP_BYTES, erase)?;
        self.set_entry(tables, index, BatEntry::at(BlockState::Present, at))?;
        Ok(at)
    }
}

fn is_here(entry: BatEntry) -> bool {
    matches!(
        entry.state(),
        Some(BlockState::Present | BlockState::Partial)
    )
}

/// Sets or clears bits of the sector bitmap at `bitmap`; pages that hold them already as wanted
/// are left alone.
fn fill_bits(tables: &mut Tables, bitmap: u64, bits: Range<u64>, value: bool) -> Result<()> {
    const PAGE_BITS: u64 = PAGE * 8;
    let mut at = bits.start;
    while at < bits.end {
        let end = (at / PAGE_BITS + 1).saturating_mul(PAGE_BITS).min(bits.end);
        if bit_run(tables, bitmap, at..end)? != (value, end - at) {
            let within = at % PAGE_BITS..at % PAGE_BITS + (end - at);
            tables
                .pages
                .change(bitmap + at / PAGE_BITS * PAGE, |page| {
                    fill_page_bits(page, within, value);
                })?;
        }
        at = end;
    }
    Ok(())
}

fn fill_page_bits(page: &mut Page, bits: Range<u64>, value: bool) {
    let bytes = bits.start / 8..bits.end.div_ceil(8);
    for (byte, to) in (bytes.start..bytes.end).zip(page.iter_mut().skip(bytes.start as usize)) {
        let from_bit = bits.start.max(byte * 8) - byte * 8;
        let to_bit = bits.end.min(byte * 8 + 8) - byte * 8;
        // 1 to 8 bits from the low end on.
        let mask = (0xFFu8 >> (8 - (to_bit - from_bit))) << from_bit;
        match value {
            true => *to |= mask,
            false => *to &= !mask,
        }
    }
}
