//! Opening a VHDX: its structures are read and checked, its log replayed, its parents found.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use super::format::{CREATOR, MAX_FILE_BYTES, utf16_text};
use super::geometry::Geometry;
use super::header::Headers;
use super::image::{Facts, Parent, Tables, Vhdx};
use super::log::{ActiveLog, log_region};
use super::metadata::Metadata;
use super::pages::Pages;
use super::parent;
use super::region::{Regions, check_disjoint};
use super::replay::Replayed;
use super::space::Space;
use super::structure::{check_signature, read_vec};
use super::survey::Survey;
use crate::error::{Error, ErrorKind, Result};
use crate::image::ImageOptions;
use crate::image::gate::Chain;
use crate::storage::Storage;

/// What an open image knows beyond what a reader needs.
pub(super) struct Opened {
    pub(super) image: Vhdx,
    pub(super) headers: Headers,
    pub(super) space: Space,
    /// Where the last of log and regions ends.
    pub(super) layout_end: u64,
}

impl Vhdx {
    /// Opens `storage` for reading. Nothing is written, whatever state the file is in: a log that
    /// is not empty is replayed into memory.
    ///
    /// # Errors
    /// `Malformed` where the file breaks the format; `Unsupported` for required features that
    /// are not known here; `LimitExceeded`; `Parent` for a differencing image whose parent the
    /// options' gate does not offer, or offers as another disk; `Io`.
    pub fn open(storage: Arc<dyn Storage>, options: &ImageOptions) -> Result<Self> {
        Self::open_in(storage, options, &Chain::default())
    }

    fn open_in(storage: Arc<dyn Storage>, options: &ImageOptions, chain: &Chain) -> Result<Self> {
        let path = storage.path().to_owned();
        Opened::read_only(storage, options, chain)
            .map(|opened| opened.image)
            .map_err(|e| e.at_path(path))
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
    pub(super) fn replayed(
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
        layout.extend(log_region(headers.current()));
        check_disjoint(&layout)?;
        let layout_end = layout.iter().map(|range| range.end).max().unwrap_or(0);
        for range in layout {
            // What claims to lie beyond the end of the file cannot collide with a block.
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
        let parent = parent::open(
            &*storage,
            &headers,
            &metadata,
            &for_parent,
            chain,
            Vhdx::open_in,
        )?;
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

fn creator(storage: &dyn Storage) -> Result<String> {
    let (offset, len) = CREATOR;
    Ok(utf16_text(&read_vec(storage, offset, len, "creator")?))
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
    if log_region(headers.current()).is_none_or(|region| region.is_empty()) {
        warnings.push("there is no place for a log".to_owned());
    }
    let parent = parent.map(|it| &it.image);
    if let Some(parent) = parent.filter(|it| it.disk_id() != metadata.disk_id) {
        warnings.push(format!(
            "the parent has the disk id {}, this image {}",
            parent.disk_id(),
            metadata.disk_id
        ));
    }
    if let Some(parent) = parent
        && parent.metadata.disk_bytes != metadata.disk_bytes
    {
        warnings.push(format!(
            "the parent has {} bytes, this image {}",
            parent.metadata.disk_bytes, metadata.disk_bytes
        ));
    }
    warnings
}
