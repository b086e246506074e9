//! Sparse VMDK files: whole disks (`monolithicSparse`, `streamOptimized`), and the sparse extents
//! of a disk that a descriptor makes of several.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, ErrorKind, Result};
use crate::image::Layout;
use crate::image::{Format, Image, ImageInfo, ImageOptions};
use crate::storage::{HostFile, Storage, past_end};
use crate::units::Extent;

use super::descriptor::{Descriptor, part_of_a_disk};
use super::format::{
    DEFLATE, DIRECTORY_IN_FOOTER, FOOTER_BACK, GRAIN_MARKER_BYTES, HAS_ZERO_GRAINS, IS_PACKED,
    SECTOR, SPARSE_SIGNATURE, SparseHeader, grain_marker, sparse_entries,
};

/// A sparse VMDK, open for reading.
pub(super) struct Sparse {
    storage: Arc<dyn Storage>,
    file_len: u64,
    header: SparseHeader,
    /// Where the grain tables lie, in sectors; 0 where there is none.
    directory: Vec<u32>,
    tables: Mutex<HashMap<usize, Arc<[u32]>>>,
    most_tables: usize,
}

/// Where a grain lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grain {
    Zero,
    /// Its first byte in the file.
    At(u64),
}

impl Sparse {
    /// Whether a file begins like one.
    ///
    /// # Errors
    /// `Io`.
    pub(super) fn is_one(storage: &dyn Storage) -> Result<bool> {
        let mut bytes = [0; SPARSE_SIGNATURE.len()];
        if storage.len()? < bytes.len() as u64 {
            return Ok(false);
        }
        storage.read_exact_at(&mut bytes, 0)?;
        Ok(bytes == *SPARSE_SIGNATURE)
    }

    /// Reads header and directory.
    ///
    /// # Errors
    /// `Malformed`, `Unsupported` (also for one that needs a parent), `LimitExceeded`, `Io`.
    pub(super) fn open(storage: Arc<dyn Storage>, options: &ImageOptions) -> Result<Self> {
        let path = storage.path().to_owned();
        Self::read(storage, options).map_err(|e| e.at_path(path))
    }

    /// Opens an extent of `len` bytes, one of `count` of a disk that another file describes.
    ///
    /// # Errors
    /// As [`open`](Sparse::open); `Malformed` for one that is shorter.
    pub(super) fn open_extent(
        storage: Arc<dyn Storage>,
        len: u64,
        options: &ImageOptions,
        count: usize,
    ) -> Result<Self> {
        let path = storage.path().to_owned();
        let mut extent = Self::read_part(storage, len, options).map_err(|e| e.at_path(path))?;
        extent.most_tables = (MOST_TABLES / count.max(1)).max(1);
        Ok(extent)
    }

    fn read_part(storage: Arc<dyn Storage>, len: u64, options: &ImageOptions) -> Result<Self> {
        let file_len = storage.len()?;
        let header = read_header(&*storage, 0, file_len)?;
        let extent = Self::read_extent(storage, file_len, header, options)?;
        if extent.disk_len() < len {
            let what = "the extent is shorter than its descriptor says";
            return Err(Error::malformed(what).in_field("capacity"));
        }
        Ok(extent)
    }

    /// Bytes of memory that are held as long as it is open.
    pub(super) fn directory_bytes(&self) -> u64 {
        self.directory.len() as u64 * 4
    }

    fn read(storage: Arc<dyn Storage>, options: &ImageOptions) -> Result<Self> {
        let file_len = storage.len()?;
        let header = read_header(&*storage, 0, file_len)?;
        let descriptor = descriptor_of(&*storage, &header, file_len)?;
        descriptor.refuse_child()?;
        if descriptor.extents.len() > 1 {
            let what = "a VMDK of several extents with the descriptor in one of them";
            return Err(Error::new(ErrorKind::Unsupported, what)
                .advise("make one file of it with its own tools"));
        }
        Self::read_extent(storage, file_len, header, options)
    }

    /// Reads the directory of a file of `file_len` bytes that begins with `header`.
    fn read_extent(
        storage: Arc<dyn Storage>,
        file_len: u64,
        mut header: SparseHeader,
        options: &ImageOptions,
    ) -> Result<Self> {
        if header.directory == DIRECTORY_IN_FOOTER {
            let at = file_len.saturating_sub(FOOTER_BACK);
            header = read_header(&*storage, at, file_len)?;
        }
        check(&header, options)?;
        // By the checks at most 2^63 sectors in grains of at least one.
        let grains = header.capacity.div_ceil(header.grain);
        let tables = grains.div_ceil(u64::from(header.entries_a_table));
        if tables * 4 > options.limits.table_bytes {
            return Err(too_much("a grain directory"));
        }
        let at = sectors(header.directory, "gd_offset")?;
        // By the limit on tables it fits.
        let mut bytes = vec![0; (tables * 4) as usize];
        read_inside(&*storage, file_len, &mut bytes, at)?;
        Ok(Sparse {
            file_len,
            header,
            directory: sparse_entries(&bytes).collect(),
            tables: Mutex::default(),
            most_tables: MOST_TABLES,
            storage,
        })
    }

    fn grain_bytes(&self) -> u64 {
        self.header.grain * SECTOR as u64
    }

    fn is_packed(&self) -> bool {
        self.header.flags & IS_PACKED != 0
    }

    /// One grain table; `None` where there is none.
    fn table(&self, index: usize) -> Result<Option<Arc<[u32]>>> {
        let Some(at) = self.directory.get(index).copied().filter(|at| *at != 0) else {
            return Ok(None);
        };
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(table) = tables.get(&index) {
            return Ok(Some(table.clone()));
        }
        if tables.len() >= self.most_tables {
            tables.clear();
        }
        let mut bytes = vec![0; self.header.entries_a_table as usize * 4];
        let at = u64::from(at) * SECTOR as u64;
        read_inside(&*self.storage, self.file_len, &mut bytes, at)
            .map_err(|e| e.at_path(self.storage.path()))?;
        let table: Arc<[u32]> = sparse_entries(&bytes).collect();
        tables.insert(index, table.clone());
        Ok(Some(table))
    }

    /// Where the grain that holds guest byte `offset` lies, and where what is like it ends: a
    /// grain, or all grains of a table that is not there.
    fn place(&self, offset: u64) -> Result<(Grain, u64)> {
        let grain = offset / self.grain_bytes();
        let entries = u64::from(self.header.entries_a_table);
        // The directory is in memory, so its indexes fit.
        let index = (grain / entries) as usize;
        let Some(table) = self.table(index)? else {
            let end = (grain / entries + 1).saturating_mul(entries);
            return Ok((Grain::Zero, end.saturating_mul(self.grain_bytes())));
        };
        let end = (grain + 1).saturating_mul(self.grain_bytes());
        let entry = table.get((grain % entries) as usize).copied();
        let zeros = self.header.flags & HAS_ZERO_GRAINS != 0;
        Ok(match entry.unwrap_or(0) {
            0 => (Grain::Zero, end),
            1 if zeros => (Grain::Zero, end),
            entry => (Grain::At(u64::from(entry) * SECTOR as u64), end),
        })
    }

    /// All bytes of the grain at `at` that holds guest byte `offset`, unpacked.
    fn unpacked(&self, at: u64, offset: u64) -> Result<Vec<u8>> {
        let wrong = |what: &'static str| {
            Error::malformed(what)
                .at_offset(at)
                .at_path(self.storage.path())
        };
        let named = |e: Error| e.at_path(self.storage.path());
        let mut marker = [0; GRAIN_MARKER_BYTES];
        read_inside(&*self.storage, self.file_len, &mut marker, at).map_err(named)?;
        let (sector, len) = grain_marker(&marker);
        if sector != offset / self.grain_bytes() * self.header.grain {
            return Err(wrong("a packed grain says that it is another one"));
        }
        let grain = self.grain_bytes();
        if u64::from(len) > 2 * grain + SECTOR as u64 {
            return Err(wrong("a packed grain is longer than an unpacked one"));
        }
        let mut packed = vec![0; len as usize];
        let from = at + GRAIN_MARKER_BYTES as u64;
        read_inside(&*self.storage, self.file_len, &mut packed, from).map_err(named)?;
        // At most 2 MiB, and no more is ever unpacked.
        let limit = grain as usize;
        let mut bytes = miniz_oxide::inflate::decompress_to_vec_zlib_with_limit(&packed, limit)
            .map_err(|_| wrong("a packed grain does not unpack"))?;
        let seen = (self.disk_len() - offset / grain * grain).min(grain);
        if (bytes.len() as u64) < seen {
            return Err(wrong("a packed grain ends too early"));
        }
        bytes.resize(limit, 0);
        Ok(bytes)
    }
}

impl Image for Sparse {
    fn disk_len(&self) -> u64 {
        self.header.capacity * SECTOR as u64
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let end = offset.saturating_add(buf.len() as u64);
        if end > self.disk_len() {
            return Err(past_end(self.storage.path(), end, self.disk_len()));
        }
        let (mut buf, mut at) = (buf, offset);
        while !buf.is_empty() {
            let (grain, stop) = self.place(at)?;
            // No longer than `buf`, so it fits.
            let len = (stop - at).min(buf.len() as u64) as usize;
            let (part, rest) = buf.split_at_mut(len);
            let within = at % self.grain_bytes();
            match grain {
                Grain::Zero => part.fill(0),
                Grain::At(place) if self.is_packed() => {
                    let bytes = self.unpacked(place, at)?;
                    let from = within as usize;
                    part.copy_from_slice(bytes.get(from..from + len).unwrap_or_default());
                }
                Grain::At(place) => {
                    read_inside(&*self.storage, self.file_len, part, place + within)
                        .map_err(|e| e.at_path(self.storage.path()))?;
                }
            }
            buf = rest;
            at += len as u64;
        }
        Ok(())
    }

    fn next_extent(&self, offset: u64) -> Result<Option<Extent>> {
        let disk_len = self.disk_len();
        if offset >= disk_len {
            return Ok(None);
        }
        let (first, mut end) = self.place(offset)?;
        for _ in 0..MOST_MERGED {
            if end >= disk_len {
                break;
            }
            let (next, stop) = self.place(end)?;
            if (next == Grain::Zero) != (first == Grain::Zero) {
                break;
            }
            end = stop;
        }
        let range = offset..end.min(disk_len);
        Ok(Some(match first {
            Grain::Zero => Extent::zero(range),
            Grain::At(_) => Extent::data(range),
        }))
    }

    fn info(&self) -> ImageInfo {
        ImageInfo {
            format: Format::Vmdk,
            layout: match self.is_packed() {
                true => Layout::StreamOptimized,
                false => Layout::MonolithicSparse,
            },
            disk_bytes: self.disk_len(),
            sector_bytes: Some(SECTOR as u64),
            block_bytes: Some(self.grain_bytes()),
            parents: Vec::new(),
            facts: Vec::new(),
            warnings: Vec::new(),
        }
    }

    fn files(&self) -> Result<Vec<HostFile>> {
        Ok(self.storage.host_file()?.into_iter().collect())
    }

    fn drop_cache(&self, range: Range<u64>) {
        let mut at = range.start;
        while at < range.end.min(self.disk_len()) {
            let Ok((grain, end)) = self.place(at) else {
                return;
            };
            if let Grain::At(place) = grain {
                self.storage.drop_cache(place..place + self.grain_bytes());
            }
            at = end;
        }
    }
}

fn read_header(storage: &dyn Storage, at: u64, file_len: u64) -> Result<SparseHeader> {
    let mut bytes = [0; SECTOR];
    read_inside(storage, file_len, &mut bytes, at)?;
    SparseHeader::decode(&bytes).ok_or_else(|| {
        Error::malformed("there is no header")
            .in_field("magic")
            .at_offset(at)
    })
}

fn check(header: &SparseHeader, options: &ImageOptions) -> Result<()> {
    let wrong = |what: &'static str, field| Error::malformed(what).in_field(field);
    if !(1..=3).contains(&header.version) {
        let what = format!("version {} of the format", header.version);
        return Err(Error::new(ErrorKind::Unsupported, what).in_field("version"));
    }
    if header.capacity == 0 {
        return Err(wrong("a disk of 0 bytes", "capacity"));
    }
    let disk_len = header.capacity.checked_mul(SECTOR as u64);
    if disk_len.is_none_or(|len| len > options.limits.disk_bytes) {
        return Err(too_much("the disk").in_field("capacity"));
    }
    if !header.grain.is_power_of_two() || !GRAIN_SECTORS.contains(&header.grain) {
        return Err(wrong(
            "a grain is no power of two from 4K to 2M",
            "grain_size",
        ));
    }
    if !TABLE_ENTRIES.contains(&header.entries_a_table) {
        return Err(wrong(
            "a grain table has an invalid length",
            "num_gtes_per_gt",
        ));
    }
    if header.flags & IS_PACKED != 0 && header.compression != DEFLATE {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "grains are packed in an unknown way",
        )
        .in_field("compress_algorithm"));
    }
    Ok(())
}

/// The descriptor inside the file.
///
/// # Errors
/// `Unsupported` for an extent without one, which is a part of a disk; `Malformed`, `Io`.
fn descriptor_of(
    storage: &dyn Storage,
    header: &SparseHeader,
    file_len: u64,
) -> Result<Descriptor> {
    let part = || {
        let what = "an extent without a descriptor: a part of a disk that another file describes";
        part_of_a_disk(what, storage.path()).in_field("desc_offset")
    };
    if header.descriptor == 0 {
        return Err(part());
    }
    let at = sectors(header.descriptor, "desc_offset")?;
    let len = header.descriptor_len.saturating_mul(SECTOR as u64);
    let mut text = vec![0; usize::try_from(len.min(DESCRIPTOR_BYTES)).unwrap_or_default()];
    read_inside(storage, file_len, &mut text, at).map_err(|e| e.in_field("desc_offset"))?;
    let end = text.iter().position(|byte| *byte == 0);
    text.truncate(end.unwrap_or(text.len()));
    if text.trim_ascii().is_empty() {
        return Err(part());
    }
    Descriptor::parse(&String::from_utf8_lossy(&text))
}

fn sectors(count: u64, field: &'static str) -> Result<u64> {
    count
        .checked_mul(SECTOR as u64)
        .ok_or_else(|| Error::malformed("a place beyond the end of the file").in_field(field))
}

fn read_inside(storage: &dyn Storage, file_len: u64, buf: &mut [u8], at: u64) -> Result<()> {
    let end = at.checked_add(buf.len() as u64);
    if end.is_none_or(|end| end > file_len) {
        return Err(Error::malformed("a structure is beyond the end of the file").at_offset(at));
    }
    storage.read_exact_at(buf, at)
}

fn too_much(what: &str) -> Error {
    Error::new(
        ErrorKind::LimitExceeded,
        format!("{what} exceeds the limit"),
    )
}

const GRAIN_SECTORS: std::ops::RangeInclusive<u64> = 8..=4096;
const TABLE_ENTRIES: std::ops::RangeInclusive<u32> = 1..=4096;
/// Descriptors of one file are much shorter.
const DESCRIPTOR_BYTES: u64 = 1 << 20;
/// Tables kept in memory: 16 KiB each at most.
const MOST_TABLES: usize = 1024;
/// Stretches that are merged into one extent.
const MOST_MERGED: usize = 512;
