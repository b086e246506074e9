//! Reading: from guest bytes to bytes of the file.

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};

use super::format::{BatEntry, BlockState, ENTRIES_PER_PAGE, PAGE, Page, bat_entry};
use super::image::{Tables, Vhdx};
use crate::error::{Error, ErrorKind, Result};
use crate::image::Layout;
use crate::image::{Format, Image, ImageInfo};
use crate::storage::{HostFile, next_data};
use crate::units::{Extent, ExtentKind};

/// Where a stretch of guest bytes comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Backing {
    /// The file, from this byte on.
    File(u64),
    /// Nowhere: zeros.
    Zero,
    /// The parent, at the same guest offset.
    Parent,
}

/// Entries looked at before a stretch is cut short, so that asking for what lies at an offset
/// stays cheap whatever the table holds.
const MOST_ENTRIES: usize = 1 << 16;

/// Neighbours that are merged into one extent.
const MOST_MERGED: usize = 64;

/// How much farther is looked after a window that held nothing but the extent.
const WINDOW_GROWTH: u64 = 8;

impl Image for Vhdx {
    fn disk_len(&self) -> u64 {
        self.disk_len.load(Ordering::SeqCst)
    }

    fn read_exact_at(&self, mut buf: &mut [u8], mut offset: u64) -> Result<()> {
        self.inside(offset, buf.len() as u64, ErrorKind::Io)?;
        while !buf.is_empty() {
            let (place, len) = self.stretch(offset, buf.len() as u64)?;
            // No longer than `buf`, so it fits a usize.
            let (part, rest) = buf.split_at_mut(len as usize);
            match place {
                Backing::File(at) => self.storage.read_exact_at(part, at)?,
                Backing::Zero => part.fill(0),
                Backing::Parent => self.read_parent(part, offset)?,
            }
            buf = rest;
            offset += len;
        }
        Ok(())
    }

    fn next_extent(&self, offset: u64) -> Result<Option<Extent>> {
        let disk_len = self.disk_len();
        if offset >= disk_len {
            return Ok(None);
        }
        // Windows grow with what was found: no image of a chain looks far beyond the place where
        // another one ends the extent.
        let block_end = (offset / self.block_bytes() + 1) * self.block_bytes();
        let mut window = block_end - offset;
        let mut extent = self.extent(offset, window)?;
        let mut last_len = extent.len;
        for _ in 0..MOST_MERGED {
            if extent.end() >= disk_len {
                break;
            }
            window = match last_len < window {
                true => self.block_bytes(),
                false => window.saturating_mul(WINDOW_GROWTH),
            };
            let next = self.extent(extent.end(), window)?;
            if next.kind != extent.kind {
                break;
            }
            extent.len += next.len;
            last_len = next.len;
        }
        Ok(Some(extent))
    }

    fn allocated_bytes(&self) -> Result<u64> {
        Ok(self.lock_tables().present_count * self.block_bytes())
    }

    fn info(&self) -> ImageInfo {
        let facts = &self.facts;
        let mut list = vec![
            ("block_bytes", self.block_bytes().to_string()),
            ("logical_sector_bytes", self.sector_bytes().to_string()),
            (
                "physical_sector_bytes",
                self.metadata.physical_sector_bytes.to_string(),
            ),
            ("disk_id", self.disk_id().to_string()),
            ("data_write_guid", facts.data_write.to_string()),
            (
                "log",
                match facts.replayed {
                    0 => "empty".to_owned(),
                    count => format!("{count} entries replayed in memory"),
                },
            ),
        ];
        if !facts.creator.is_empty() {
            list.push(("creator", facts.creator.clone()));
        }
        if let Some(locator) = self.parent_locator() {
            list.push(("parent_linkage", locator.linkage.to_string()));
            let paths = locator.paths().map(|path| ("parent_path", path.to_owned()));
            list.extend(paths);
        }
        let parents = self.parent.as_ref();
        let parents = parents.map(|it| it.image.info().into_chain(&it.path));
        ImageInfo {
            format: Format::Vhdx,
            layout: match self.metadata.parent {
                Some(_) => Layout::Differencing,
                None if self.metadata.fixed => Layout::Fixed,
                None => Layout::Dynamic,
            },
            disk_bytes: self.disk_len(),
            sector_bytes: Some(self.sector_bytes()),
            block_bytes: Some(self.block_bytes()),
            parents: parents.unwrap_or_default(),
            facts: list,
            warnings: facts.warnings.clone(),
        }
    }

    fn files(&self) -> Result<Vec<HostFile>> {
        let mut files: Vec<HostFile> = self.storage.host_file()?.into_iter().collect();
        if let Some(parent) = &self.parent {
            files.extend(parent.image.files()?);
        }
        Ok(files)
    }

    fn drop_cache(&self, range: Range<u64>) {
        self.hint(range, &|image, part| match part {
            Hinted::File(file) => image.storage.drop_cache(file),
            Hinted::Parent(parent, range) => parent.drop_cache(range),
        });
    }

    fn will_read(&self, range: Range<u64>) {
        self.hint(range, &|image, part| match part {
            Hinted::File(file) => image.storage.will_read(file),
            Hinted::Parent(parent, range) => parent.will_read(range),
        });
    }

    fn look_ahead_bytes(&self) -> u64 {
        self.storage.look_ahead_bytes()
    }

    fn reads_from_memory(&self) -> bool {
        self.storage.reads_from_memory()
    }
}

impl Vhdx {
    /// Where the guest bytes from `offset` (inside the disk) on come from, and for how many bytes
    /// that goes on in one row; at most `most`, which is not 0.
    pub(super) fn stretch(&self, offset: u64, most: u64) -> Result<(Backing, u64)> {
        let stop = offset.saturating_add(most).min(self.disk_len());
        let mut tables = self.lock_tables();
        let mut table_page: Option<(u64, Arc<Page>)> = None;
        let mut whole: Option<Backing> = None;
        let mut at = offset;
        for _ in 0..MOST_ENTRIES {
            if at >= stop {
                break;
            }
            let (place, end) = self.step(&mut tables, &mut table_page, at, stop)?;
            let goes_on = match (whole, place) {
                (None, _) => true,
                (Some(Backing::File(start)), Backing::File(next)) => start + (at - offset) == next,
                (Some(before), now) => before == now,
            };
            if !goes_on {
                break;
            }
            whole.get_or_insert(place);
            at = end;
        }
        Ok((whole.unwrap_or(Backing::Zero), at - offset))
    }

    /// As [`stretch`](Vhdx::stretch), for one block, a part of one, or many absent ones.
    fn step(
        &self,
        tables: &mut Tables,
        table_page: &mut Option<(u64, Arc<Page>)>,
        at: u64,
        stop: u64,
    ) -> Result<(Backing, u64)> {
        let geometry = &self.geometry;
        let block = at / geometry.block_bytes;
        let index = geometry.payload_entry(block);
        let number = index / ENTRIES_PER_PAGE;
        let page = match table_page {
            Some((held, page)) if *held == number => page.clone(),
            _ => {
                if !tables.busy.any(number..number + 1) {
                    let end = match tables.busy.next(number) {
                        Some(busy) => geometry
                            .first_block_from(busy * ENTRIES_PER_PAGE)
                            .saturating_mul(geometry.block_bytes),
                        None => stop,
                    };
                    return Ok((self.absent(), end.min(stop)));
                }
                let page = tables.pages.page(geometry.entry_page(index))?;
                *table_page = Some((number, page.clone()));
                page
            }
        };
        let entry = bat_entry(&page, index);
        let start = block * geometry.block_bytes;
        let end = (start + geometry.block_bytes).min(stop);
        match self.state(entry)? {
            BlockState::Absent => Ok((self.absent(), end)),
            BlockState::Undefined | BlockState::Zero | BlockState::Unmapped => {
                Ok((Backing::Zero, end))
            }
            BlockState::Present => Ok((Backing::File(entry.offset() + (at - start)), end)),
            BlockState::Partial => {
                let bitmap = self.bitmap_offset(tables, block)?;
                let first = geometry.first_bit(block);
                let sector = (at - start) / geometry.sector_bytes;
                let (here, count) = bit_run(
                    tables,
                    bitmap,
                    first + sector..first + geometry.block_sectors(),
                )?;
                let run_end = start + (sector + count) * geometry.sector_bytes;
                let place = if here {
                    Backing::File(entry.offset() + (at - start))
                } else {
                    Backing::Parent
                };
                Ok((place, run_end.min(end)))
            }
        }
    }

    /// The entry of a payload block.
    pub(super) fn entry(&self, tables: &mut Tables, block: u64) -> Result<BatEntry> {
        self.entry_at(tables, self.geometry.payload_entry(block))
    }

    /// Where the sector bitmap that covers `block` begins in the file.
    pub(super) fn bitmap_offset(&self, tables: &mut Tables, block: u64) -> Result<u64> {
        let entry = self.entry_at(tables, self.geometry.bitmap_entry(block))?;
        match self.state(entry)? {
            BlockState::Present => Ok(entry.offset()),
            _ => Err(self.wrong("a block is partial, but has no sector bitmap")),
        }
    }

    /// What an entry says, which the survey has checked on opening.
    pub(super) fn state(&self, entry: BatEntry) -> Result<BlockState> {
        entry
            .state()
            .ok_or_else(|| self.wrong("an entry has a state that means nothing"))
    }

    pub(super) fn lock_tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails with `kind` for a range that is not inside the disk.
    pub(super) fn inside(&self, offset: u64, len: u64, kind: ErrorKind) -> Result<()> {
        match offset.checked_add(len) {
            Some(end) if end <= self.disk_len() => Ok(()),
            _ => Err(Error::new(kind, "a range ends beyond the end of the disk")
                .at_path(self.storage.path())
                .at_offset(offset)),
        }
    }

    pub(super) fn entry_at(&self, tables: &mut Tables, index: u64) -> Result<BatEntry> {
        let page = tables.pages.page(self.geometry.entry_page(index))?;
        Ok(bat_entry(&page, index))
    }

    fn absent(&self) -> Backing {
        match self.parent {
            Some(_) => Backing::Parent,
            None => Backing::Zero,
        }
    }

    fn read_parent(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        // A parent may be shorter; behind its end are zeros.
        let (parent, len) = match &self.parent {
            Some(parent) => (
                &parent.image,
                parent.image.disk_len().saturating_sub(offset),
            ),
            None => return Err(self.wrong("a block needs a parent, and there is none")),
        };
        let there = len.min(buf.len() as u64) as usize;
        let (from_parent, behind) = buf.split_at_mut(there);
        behind.fill(0);
        if from_parent.is_empty() {
            return Ok(());
        }
        parent.read_exact_at(from_parent, offset)
    }

    /// The extent at `offset`, which is inside the disk, not yet merged with its neighbours and at
    /// most `most` bytes long. The work follows `most`, once for each image of a chain.
    fn extent(&self, offset: u64, most: u64) -> Result<Extent> {
        let block_end = (offset / self.block_bytes() + 1) * self.block_bytes();
        let (place, _) = self.stretch(offset, most.min(block_end - offset))?;
        match place {
            Backing::Zero => {
                let (_, len) = self.stretch(offset, most)?;
                Ok(Extent::zero(offset..offset + len))
            }
            Backing::File(at) => {
                // First where the data ends, then how far the blocks lie in one row up to there.
                let (kind, end) = match next_data(&*self.storage, at)? {
                    Some(data) if data.start <= at => (ExtentKind::Data, data.end),
                    Some(data) => (ExtentKind::Zero, data.start),
                    None => (ExtentKind::Zero, u64::MAX),
                };
                let (_, len) = self.stretch(offset, most.min(end - at))?;
                Ok(Extent { offset, len, kind })
            }
            Backing::Parent => {
                let (_, len) = self.stretch(offset, most)?;
                match &self.parent {
                    Some(parent) if offset < parent.image.disk_len() => {
                        parent.image.extent(offset, len)
                    }
                    _ => Ok(Extent::zero(offset..offset + len)),
                }
            }
        }
    }

    fn hint(&self, range: Range<u64>, tell: &dyn Fn(&Vhdx, Hinted<'_>)) {
        let mut at = range.start;
        let end = range.end.min(self.disk_len());
        while at < end {
            let Ok((place, len)) = self.stretch(at, end - at) else {
                return;
            };
            match (place, &self.parent) {
                (Backing::File(file), _) => tell(self, Hinted::File(file..file + len)),
                (Backing::Parent, Some(parent)) => {
                    tell(self, Hinted::Parent(&parent.image, at..at + len));
                }
                _ => {}
            }
            at += len;
        }
    }

    fn wrong(&self, message: &'static str) -> Error {
        Error::malformed(message)
            .in_field("bat_entry")
            .at_path(self.storage.path())
    }
}

enum Hinted<'a> {
    File(Range<u64>),
    Parent(&'a Vhdx, Range<u64>),
}

/// The first bit of `bits` in the sector bitmap at `bitmap`, and how many like it follow in one
/// row, itself included; the row may be cut at the end of a page.
pub(super) fn bit_run(tables: &mut Tables, bitmap: u64, bits: Range<u64>) -> Result<(bool, u64)> {
    const PAGE_BITS: u64 = PAGE * 8;
    let page = tables.pages.page(bitmap + bits.start / PAGE_BITS * PAGE)?;
    let from = bits.start % PAGE_BITS;
    let to = (from + (bits.end - bits.start)).min(PAGE_BITS);
    let (words, _) = page.as_chunks::<8>();
    let mut value = None;
    let mut at = from;
    for word in words.iter().skip((from / 64) as usize) {
        // Bit 0 of byte 0 is the first sector; little-endian words keep that order.
        let word = u64::from_le_bytes(*word);
        let value = *value.get_or_insert(word >> (at % 64) & 1 == 1);
        let different = if value { !word } else { word } & (u64::MAX << (at % 64));
        let word_start = at / 64 * 64;
        if different != 0 {
            at = word_start + u64::from(different.trailing_zeros());
            break;
        }
        at = word_start + 64;
        if at >= to {
            break;
        }
    }
    Ok((value.unwrap_or(false), at.min(to) - from))
}
