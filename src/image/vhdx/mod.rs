//! VHDX, the format of Hyper-V ([MS-VHDX]): read, replayed, written, created.
//!
//! An image whose log is not empty is never read as if it were: opening for reading replays the
//! log into memory and leaves the file alone, opening for writing replays it into the file,
//! durably, first.

mod create;
mod format;
mod geometry;
mod guid;
mod header;
mod journal;
mod locator;
mod log;
mod metadata;
mod pages;
mod parent;
mod prepare;
mod read;
mod region;
mod replay;
mod resize;
mod room;
mod space;
mod survey;
mod write;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use super::gate::Chain;
use super::{Image, ImageMut, ImageOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::Storage;

use format::{CREATOR, FILE_SIGNATURE, MAX_FILE_BYTES};
use geometry::Geometry;
use header::Headers;
use log::ActiveLog;
use metadata::Metadata;
use pages::Pages;
use parent::Parent;
use region::Regions;
use replay::Replayed;
use space::{Bits, Space};
use survey::Survey;

pub use create::{Layout, create};
pub use guid::Guid;
pub use locator::ParentLocator;
pub use write::VhdxMut;

/// A VHDX, open for reading.
pub struct Vhdx {
    /// The file, with the log replayed.
    storage: Arc<dyn Storage>,
    geometry: Geometry,
    disk_len: AtomicU64,
    tables: Mutex<Tables>,
    parent: Option<Parent>,
    metadata: Metadata,
    facts: Facts,
}

/// The tables in memory; one lock guards them, held for lookups only.
struct Tables {
    pages: Pages,
    /// Pages of the block table with an entry that a reader has to look at.
    busy: Bits,
    /// How many payload blocks lie in the file, as a whole or in part.
    present_count: u64,
}

/// Opens a VHDX for reading, with its parents.
///
/// # Errors
/// As [`Vhdx::open`].
pub(super) fn open(storage: Arc<dyn Storage>, options: &ImageOptions) -> Result<Arc<dyn Image>> {
    Ok(Arc::new(Vhdx::open(storage, options)?))
}

/// Opens a VHDX for reading and writing.
///
/// # Errors
/// As [`VhdxMut::open`].
pub(super) fn open_mut(
    storage: Arc<dyn Storage>,
    options: &ImageOptions,
) -> Result<Arc<dyn ImageMut>> {
    Ok(Arc::new(VhdxMut::open(storage, options)?))
}

/// What was found on opening.
#[derive(Debug)]
struct Facts {
    creator: String,
    data_write: Guid,
    /// How many log entries were replayed.
    replayed: usize,
    warnings: Vec<String>,
}

/// What an open image knows beyond what a reader needs.
struct Opened {
    image: Vhdx,
    headers: Headers,
    space: Space,
    /// Where the last of log and regions ends.
    layout_end: u64,
}

impl Vhdx {
    /// Opens `storage` for reading. Nothing is written, whatever state the file is in: a log that
    /// is not empty is replayed into memory.
    ///
    /// # Errors
    /// `Malformed` where the file breaks the format; `Unsupported` for required features that
    /// nobody here knows; `LimitExceeded`; `Parent` for a differencing image whose parent the
    /// options' gate does not offer, or offers as another disk; `Io`.
    pub fn open(storage: Arc<dyn Storage>, options: &ImageOptions) -> Result<Self> {
        Self::open_in(storage, options, &Chain::default())
    }

    /// Opens `storage` for reading and writing; see [`VhdxMut::open`].
    ///
    /// # Errors
    /// As [`VhdxMut::open`].
    pub fn open_mut(storage: Arc<dyn Storage>, options: &ImageOptions) -> Result<VhdxMut> {
        VhdxMut::open(storage, options)
    }

    fn open_in(storage: Arc<dyn Storage>, options: &ImageOptions, chain: &Chain) -> Result<Self> {
        let path = storage.path().to_owned();
        Opened::read_only(storage, options, chain)
            .map(|opened| opened.image)
            .map_err(|e| e.at_path(path))
    }

    /// The GUID by which children know this image; it changes whenever contents change.
    pub fn data_write_guid(&self) -> Guid {
        self.facts.data_write
    }

    /// The virtual disk's own GUID, the same in parent and child.
    pub fn disk_id(&self) -> Guid {
        self.metadata.disk_id
    }

    /// Bytes a payload block.
    pub fn block_bytes(&self) -> u64 {
        self.geometry.block_bytes
    }

    /// Bytes a logical sector: 512 or 4096.
    pub fn sector_bytes(&self) -> u64 {
        self.geometry.sector_bytes
    }

    /// Where a differencing image says its parent is.
    pub fn parent_locator(&self) -> Option<&ParentLocator> {
        self.metadata.parent.as_ref()
    }
}

impl Opened {
    fn read_only(storage: Arc<dyn Storage>, options: &ImageOptions, chain: &Chain) -> Result<Self> {
        check_signature(&*storage)?;
        let headers = Headers::read(&*storage)?;
        match ActiveLog::find(&*storage, headers.current(), &options.limits)? {
            None => Self::replayed(storage, headers, 0, options, chain),
            Some(log) => {
                let count = log.len();
                let region = log.region();
                let storage = Arc::new(Replayed::new(storage, &log)?);
                // What it took is taken from the logs of the parents.
                let mut options = options.clone();
                let left = &mut options.limits.log_bytes;
                *left = left.saturating_sub(region.end - region.start);
                Self::replayed(storage, headers, count, &options, chain)
            }
        }
    }

    /// Opens a file whose log is empty, or was replayed.
    fn replayed(
        storage: Arc<dyn Storage>,
        headers: Headers,
        replayed: usize,
        options: &ImageOptions,
        chain: &Chain,
    ) -> Result<Self> {
        let regions = Regions::read(&*storage)?;
        let metadata = Metadata::read(&*storage, &regions.metadata, &options.limits)?;
        let geometry = Geometry {
            block_bytes: metadata.block_bytes,
            sector_bytes: metadata.sector_bytes,
            bat: regions.bat.clone(),
            differencing: metadata.parent.is_some(),
        };
        let file_len = storage.len()?;
        let table_len = geometry.entry_count(metadata.disk_bytes) * 8;
        if table_len > geometry.bat.end - geometry.bat.start
            || geometry.bat.start.saturating_add(table_len) > file_len
        {
            return Err(Error::malformed(format!(
                "the block table of this disk needs {table_len} bytes, which are not there"
            ))
            .in_field("bat")
            .at_offset(geometry.bat.start));
        }
        let mut space = Space::new(file_len.min(MAX_FILE_BYTES));
        let mut layout = regions.all.clone();
        layout.extend(log::log_region(headers.current()));
        region::check_disjoint(&layout)?;
        let layout_end = layout.iter().map(|range| range.end).max().unwrap_or(0);
        for range in layout {
            // What claims to lie behind the end of the file cannot collide with a block.
            let end = range.end.min(file_len).min(MAX_FILE_BYTES);
            if range.start < end {
                space.claim(range.start..end)?;
            }
        }
        let survey = Survey::of(&*storage, &geometry, metadata.disk_bytes, &mut space)?;
        let held_bytes = space.bytes() + survey.busy.bytes();
        if held_bytes > options.limits.table_bytes {
            let what = "what is known of the blocks exceeds the limit on tables";
            return Err(Error::new(ErrorKind::LimitExceeded, what).in_field("bat"));
        }
        let for_parent = options.for_parent(held_bytes);
        let parent = parent::open(&*storage, &headers, &metadata, &for_parent, chain)?;
        let facts = Facts {
            creator: creator(&*storage)?,
            data_write: headers.current().data_write,
            replayed,
            warnings: warnings(&headers, &regions, &metadata, parent.as_ref()),
        };
        let image = Vhdx {
            disk_len: AtomicU64::new(metadata.disk_bytes),
            tables: Mutex::new(Tables {
                pages: Pages::new(storage.clone(), options.limits.table_bytes, chain),
                busy: survey.busy,
                present_count: survey.present_count,
            }),
            storage,
            geometry,
            parent,
            metadata,
            facts,
        };
        Ok(Opened {
            image,
            headers,
            space,
            layout_end,
        })
    }
}

fn check_signature(storage: &dyn Storage) -> Result<()> {
    if *read_array(storage, 0, "signature")? == FILE_SIGNATURE {
        return Ok(());
    }
    Err(
        Error::malformed("this is not a VHDX: the file does not begin with `vhdxfile`")
            .in_field("signature")
            .at_offset(0),
    )
}

fn creator(storage: &dyn Storage) -> Result<String> {
    let (offset, len) = CREATOR;
    Ok(format::utf16_text(&read_vec(
        storage, offset, len, "creator",
    )?))
}

fn warnings(
    headers: &Headers,
    regions: &Regions,
    metadata: &Metadata,
    parent: Option<&Parent>,
) -> Vec<String> {
    let mut warnings = Vec::new();
    if headers.is_damaged() {
        warnings.push("one of the two headers is damaged".to_owned());
    }
    if regions.damaged {
        warnings.push("one of the two region tables is damaged".to_owned());
    }
    if log::log_region(headers.current()).is_none_or(|region| region.is_empty()) {
        warnings.push("there is no place for a log".to_owned());
    }
    if let Some(parent) = parent
        && parent.image.metadata.disk_bytes != metadata.disk_bytes
    {
        warnings.push(format!(
            "the parent has {} bytes, this image {}",
            parent.image.metadata.disk_bytes, metadata.disk_bytes
        ));
    }
    warnings
}

/// Reads a structure of `N` bytes; a file that ends before it breaks the format.
fn read_array<const N: usize>(
    storage: &dyn Storage,
    offset: u64,
    field: &'static str,
) -> Result<Box<[u8; N]>> {
    let bytes = read_vec(storage, offset, N, field)?.into_boxed_slice();
    match <Box<[u8; N]>>::try_from(bytes) {
        Ok(array) => Ok(array),
        Err(_) => Err(too_short(offset, field)),
    }
}

/// Reads `len` bytes, which the caller has bounded.
fn read_vec(
    storage: &dyn Storage,
    offset: u64,
    len: usize,
    field: &'static str,
) -> Result<Vec<u8>> {
    let end = offset.checked_add(len as u64);
    if end.is_none_or(|end| storage.len().is_ok_and(|there| end > there)) {
        return Err(too_short(offset, field));
    }
    let mut bytes = vec![0; len];
    storage.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

fn too_short(offset: u64, field: &'static str) -> Error {
    Error::malformed("the file ends before this structure does")
        .in_field(field)
        .at_offset(offset)
}
