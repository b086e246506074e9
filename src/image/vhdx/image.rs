//! A VHDX that is open: its structures, and what was found in them.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use super::geometry::Geometry;
use super::guid::Guid;
use super::locator::ParentLocator;
use super::metadata::Metadata;
use super::pages::Pages;
use super::space::Bits;
use crate::storage::Storage;

/// A VHDX, open for reading.
pub struct Vhdx {
    /// The file, with the log replayed.
    pub(super) storage: Arc<dyn Storage>,
    pub(super) geometry: Geometry,
    pub(super) disk_len: AtomicU64,
    pub(super) tables: Mutex<Tables>,
    pub(super) parent: Option<Parent>,
    pub(super) metadata: Metadata,
    pub(super) facts: Facts,
}

opaque!(Vhdx);

impl Vhdx {
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

/// The tables in memory; one lock guards them, held for lookups only.
pub(super) struct Tables {
    pub(super) pages: Pages,
    /// Pages of the block table with an entry that a reader has to look at.
    pub(super) busy: Bits,
    /// How many payload blocks lie in the file, as a whole or in part.
    pub(super) present_count: u64,
}

/// What was found on opening.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) creator: String,
    pub(super) data_write: Guid,
    /// How many log entries were replayed.
    pub(super) replayed: usize,
    pub(super) warnings: Vec<String>,
}

/// A parent, open, and where it lies.
pub(super) struct Parent {
    /// The image.
    pub image: Arc<Vhdx>,
    /// The file's path.
    pub path: String,
}
