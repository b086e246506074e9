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
mod image;
mod journal;
mod locator;
mod log;
mod metadata;
mod open;
mod pages;
mod parent;
mod prepare;
mod read;
mod region;
mod replay;
mod resize;
mod room;
mod space;
mod structure;
mod survey;
mod write;
mod writer;

use std::sync::Arc;

use super::{Image, ImageMut, ImageOptions};
use crate::error::Result;
use crate::storage::Storage;

pub use create::{NewDisk, create};
pub use guid::Guid;
pub use image::Vhdx;
pub use locator::ParentLocator;
pub use writer::VhdxMut;

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
