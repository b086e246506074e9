//! Dynamic and differencing files: blocks found through a table.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::error::{Error, Result};
use crate::image::gate::Chain;
use crate::image::{Format, Image, ImageInfo, ImageOptions, read_padded_at};
use crate::storage::{HostFile, Storage, next_data, past_end};
use crate::units::Extent;

use super::bitmap::{Bitmaps, Bits, runs};
use super::facts::footer_facts;
use super::format::{DynamicHeader, SECTOR_BYTES, UNALLOCATED};
use super::layout::{Shape, Table};
use super::locate::Located;
use super::meta::Meta;

/// A parent, open.
pub(super) struct Parent {
    pub image: Arc<dyn Image>,
    /// The same, where it has blocks.
    pub dynamic: Option<Arc<Dynamic>>,
    pub path: String,
}

/// A dynamic or differencing VHD.
pub(super) struct Dynamic {
    pub storage: Arc<dyn Storage>,
    pub options: ImageOptions,
    pub header: DynamicHeader,
    pub header_at: u64,
    pub shape: Shape,
    pub disk_len: AtomicU64,
    /// One entry for each block of the disk. Held only to look and to change, never during I/O.
    table: RwLock<Vec<u32>>,
    pub bitmaps: Bitmaps,
    /// Held to change anything but payload.
    meta: Mutex<Meta>,
    parent: Option<Parent>,
    warnings: Vec<String>,
}

impl Dynamic {
    /// A file with this layout, above `parent`.
    pub(super) fn new(
        storage: Arc<dyn Storage>,
        located: Located,
        layout: Table,
        parent: Option<Parent>,
        options: &ImageOptions,
        chain: &Chain,
    ) -> Self {
        Dynamic {
            options: options.clone(),
            header: layout.header,
            header_at: located.footer.data_offset,
            shape: layout.shape,
            disk_len: AtomicU64::new(located.disk_len),
            table: RwLock::new(layout.table),
            bitmaps: Bitmaps::new(chain),
            parent,
            warnings: located.warnings.clone(),
            meta: Mutex::new(Meta::new(located)),
            storage,
        }
    }

    /// The table's entry of block `index`, if it names a place.
    pub(super) fn entry(&self, index: u64) -> Option<u32> {
        let table = self.read_lock();
        let entry = usize::try_from(index).ok().and_then(|it| table.get(it));
        entry.copied().filter(|entry| *entry != UNALLOCATED)
    }

    /// Block `index`'s bitmap.
    ///
    /// # Errors
    /// `Io`.
    pub(super) fn bits(&self, index: u64, entry: u32) -> Result<Bits> {
        let sectors = self.shape.block_bytes / SECTOR_BYTES;
        self.bitmaps.of_block(index, sectors, || {
            // At most 64 KiB, for the largest block.
            let mut bytes = vec![0; self.shape.bitmap_bytes as usize];
            self.storage
                .read_exact_at(&mut bytes, self.shape.bitmap_at(entry))?;
            Ok(bytes)
        })
    }

    /// Who changes anything but payload calls this first.
    pub(super) fn lock_meta(&self) -> MutexGuard<'_, Meta> {
        self.meta.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The table, to look at. Changes only under [`lock_meta`](Self::lock_meta).
    pub(super) fn read_lock(&self) -> RwLockReadGuard<'_, Vec<u32>> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The table, to change.
    pub(super) fn write_lock(&self) -> RwLockWriteGuard<'_, Vec<u32>> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The error for bytes under a cleared bit of a dynamic file's bitmap.
    pub(super) fn hidden_bytes(&self, offset: u64) -> Error {
        Error::malformed("the bitmap says that a sector was never written, but it is not zero")
            .in_field("sector bitmap")
            .at_offset(offset)
            .at_path(self.storage.path())
            .advise("programs differ on what the disk holds there; read it leniently for zeros")
    }

    /// Splits guest bytes at blocks: the block's index, where in it, and how many bytes.
    pub(super) fn pieces(
        &self,
        range: Range<u64>,
    ) -> impl Iterator<Item = (u64, u64, u64)> + use<> {
        let block = self.shape.block_bytes;
        let mut at = range.start;
        std::iter::from_fn(move || {
            let len = (block - at % block).min(range.end.checked_sub(at)?);
            let piece = (at / block, at % block, len);
            at += len;
            (len > 0).then_some(piece)
        })
    }

    /// Reads `piece`, which lies `within` bytes into block `index`, placed by `entry`.
    fn read_block(&self, index: u64, entry: u32, within: u64, piece: &mut [u8]) -> Result<()> {
        let at = self.shape.payload_at(entry) + within;
        let range = within..within + piece.len() as u64;
        let bits = match self.bits(index, entry)? {
            Bits::Full => return self.storage.read_exact_at(piece, at),
            Bits::Some(bits) => bits,
        };
        if self.parent.is_none() {
            self.storage.read_exact_at(piece, at)?;
        }
        let mut rest = piece;
        for (run, set) in runs(&bits, range) {
            // Part of `piece`, so it fits.
            let (here, behind) = rest.split_at_mut((run.end - run.start) as usize);
            rest = behind;
            let at = self.shape.payload_at(entry) + run.start;
            if self.parent.is_some() {
                if set {
                    self.storage.read_exact_at(here, at)?;
                } else {
                    self.read_parent(here, index * self.shape.block_bytes + run.start)?;
                }
            } else if !set && here.iter().any(|byte| *byte != 0) {
                if !self.options.lenient {
                    return Err(self.hidden_bytes(at));
                }
                here.fill(0);
            }
        }
        Ok(())
    }

    /// Reads what shows through where this file holds nothing.
    fn read_parent(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        match &self.parent {
            // It may be shorter.
            Some(parent) => read_padded_at(&*parent.image, buf, offset),
            None => {
                buf.fill(0);
                Ok(())
            }
        }
    }

    /// The extent at `range.start`, not merged with its neighbours and inside `range`; `known` is
    /// a stretch of the file that is known to hold data. The work follows the range, once for
    /// each image of a chain.
    fn extent_within(&self, range: Range<u64>, known: &mut Range<u64>) -> Result<Extent> {
        let block = self.shape.block_bytes;
        let index = range.start / block;
        let extent = match self.entry(index) {
            Some(entry) => self.block_extent(index, entry, range.start % block, known)?,
            None => {
                let end = self.next_placed(index..range.end.div_ceil(block));
                self.parent_extent(range.start..end.saturating_mul(block).min(range.end))?
            }
        };
        Ok(Extent {
            len: extent.len.min(range.end - range.start),
            ..extent
        })
    }

    /// The extent that shows through from `range.start` on.
    fn parent_extent(&self, range: Range<u64>) -> Result<Extent> {
        let below = match &self.parent {
            Some(parent) => match &parent.dynamic {
                // A block may reach beyond the disk's end, and the parent may be shorter.
                Some(dynamic) if range.start < dynamic.disk_len() => {
                    let inside = range.start..range.end.min(dynamic.disk_len());
                    Some(dynamic.extent_within(inside, &mut (0..0))?)
                }
                Some(_) => None,
                None => parent.image.next_extent(range.start)?,
            },
            None => None,
        };
        Ok(match below {
            Some(extent) => Extent {
                len: extent.len.min(range.end - range.start),
                ..extent
            },
            None => Extent::zero(range),
        })
    }

    /// The first block among `blocks`, or the one behind them, that has a place or lies behind
    /// the disk's end.
    fn next_placed(&self, blocks: Range<u64>) -> u64 {
        let table = self.read_lock();
        let index = |block| usize::try_from(block).unwrap_or(usize::MAX);
        let end = index(blocks.end).min(table.len());
        let rest = table.get(index(blocks.start)..end).unwrap_or_default();
        let skipped = rest.iter().position(|entry| *entry != UNALLOCATED);
        blocks.start + skipped.unwrap_or(rest.len()) as u64
    }

    /// The extent from `within` bytes into block `index` on, inside the block; `known` is a
    /// stretch of the file that is known to hold data.
    fn block_extent(
        &self,
        index: u64,
        entry: u32,
        within: u64,
        known: &mut Range<u64>,
    ) -> Result<Extent> {
        let start = index * self.shape.block_bytes;
        let (at, end) = (start + within, start + self.shape.block_bytes);
        if self.parent.is_some() {
            let Bits::Some(bits) = self.bits(index, entry)? else {
                return Ok(Extent::data(at..end));
            };
            return match runs(&bits, within..self.shape.block_bytes).next() {
                Some((run, true)) => Ok(Extent::data(start + run.start..start + run.end)),
                Some((run, false)) => self.parent_extent(start + run.start..start + run.end),
                None => Ok(Extent::data(at..end)),
            };
        }
        let place = self.shape.payload_at(entry) + within;
        let place_end = self.shape.end(entry);
        if !known.contains(&place) {
            *known = match next_data(&*self.storage, place)? {
                Some(data) => data,
                None => u64::MAX..u64::MAX,
            };
        }
        if known.start > place {
            let hole_end = known.start.min(place_end);
            return Ok(Extent::zero(at..at + (hole_end - place)));
        }
        Ok(Extent::data(at..at + (known.end.min(place_end) - place)))
    }

    /// Calls `hint` for the places of the guest bytes in the file.
    fn hint(&self, range: Range<u64>, hint: impl Fn(Range<u64>)) {
        let range = range.start..range.end.min(self.disk_len());
        for (index, within, len) in self.pieces(range) {
            if let Some(entry) = self.entry(index) {
                let at = self.shape.payload_at(entry) + within;
                hint(at..at + len);
            }
        }
    }
}

impl Image for Dynamic {
    fn disk_len(&self) -> u64 {
        self.disk_len.load(Ordering::SeqCst)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let disk_len = self.disk_len();
        let end = match offset.checked_add(buf.len() as u64) {
            Some(end) if end <= disk_len => end,
            end => {
                let end = end.unwrap_or(u64::MAX);
                return Err(past_end(self.storage.path(), end, disk_len));
            }
        };
        let mut rest = buf;
        for (index, within, len) in self.pieces(offset..end) {
            // The pieces add up to the buffer.
            let (piece, behind) = rest.split_at_mut(len as usize);
            rest = behind;
            match self.entry(index) {
                Some(entry) => self.read_block(index, entry, within, piece)?,
                None => self.read_parent(piece, index * self.shape.block_bytes + within)?,
            }
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
        let block = self.shape.block_bytes;
        let mut window = block - offset % block;
        let mut known = 0..0;
        let end = offset.saturating_add(window).min(disk_len);
        let mut extent = self.extent_within(offset..end, &mut known)?;
        let mut last_len = extent.len;
        for _ in 0..MOST_MERGED {
            if extent.end() >= disk_len {
                break;
            }
            window = match last_len < window {
                true => block - extent.end() % block,
                false => window.saturating_mul(WINDOW_GROWTH),
            };
            let end = extent.end().saturating_add(window).min(disk_len);
            let next = self.extent_within(extent.end()..end, &mut known)?;
            if next.kind != extent.kind {
                break;
            }
            extent.len += next.len;
            last_len = next.len;
        }
        Ok(Some(extent))
    }

    fn info(&self) -> ImageInfo {
        let footer = self.lock_meta().footer.clone();
        let mut facts = footer_facts(&footer);
        facts.push(("block size", self.shape.block_bytes.to_string()));
        let blocks = self.shape.count(self.disk_len());
        facts.push(("blocks", format!("{} of {blocks}", self.placed_count())));
        let parents = self.parent.as_ref();
        let parents = parents.map(|it| it.image.info().into_chain(&it.path));
        ImageInfo {
            format: Format::Vhd,
            layout: footer.kind.layout(),
            disk_bytes: self.disk_len(),
            sector_bytes: Some(SECTOR_BYTES),
            block_bytes: Some(self.shape.block_bytes),
            parents: parents.unwrap_or_default(),
            facts,
            warnings: self.warnings.clone(),
        }
    }

    fn allocated_bytes(&self) -> Result<u64> {
        Ok(self.placed_count() * self.shape.block_bytes)
    }

    fn files(&self) -> Result<Vec<HostFile>> {
        let mut files: Vec<HostFile> = self.storage.host_file()?.into_iter().collect();
        if let Some(parent) = &self.parent {
            files.extend(parent.image.files()?);
        }
        Ok(files)
    }

    fn drop_cache(&self, range: Range<u64>) {
        self.hint(range.clone(), |place| self.storage.drop_cache(place));
        if let Some(parent) = &self.parent {
            parent.image.drop_cache(range);
        }
    }

    fn will_read(&self, range: Range<u64>) {
        self.hint(range.clone(), |place| self.storage.will_read(place));
        if let Some(parent) = &self.parent {
            parent.image.will_read(range);
        }
    }

    fn look_ahead_bytes(&self) -> u64 {
        self.storage.look_ahead_bytes()
    }

    fn reads_from_memory(&self) -> bool {
        self.storage.reads_from_memory()
    }
}

impl Dynamic {
    fn placed_count(&self) -> u64 {
        let table = self.read_lock();
        table.iter().filter(|entry| **entry != UNALLOCATED).count() as u64
    }
}

/// How many neighbours are merged into one extent, so that asking again and again stays cheap.
const MOST_MERGED: usize = 512;
/// How much farther is looked after a window that held nothing but the extent.
const WINDOW_GROWTH: u64 = 8;
