//! qcow2 and VMDK as sources (feature `imago`).
//!
//! The crate imago finds where the guest bytes of a qcow2 are, and unpacks compressed clusters.
//! What it would read without a word, although it is not what the file means, is refused first.
//! VMDKs are read here: imago knows no sparse ones, and refuses descriptors with keys of VMware.
//! Files that an image names are opened through the caller's gate, by the same rules as the
//! parents of other formats, and all bytes of the guest are read through this crate's storage.

mod descriptor;
mod format;
mod image;
mod parent;
mod qcow2;
mod sparse;
mod vmdk;

use std::sync::Arc;

use super::gate::Chain;
use super::{Image, ImageOptions};
use crate::error::Result;
use crate::storage::Storage;

use qcow2::OpenOther;

/// Opens a qcow2 for reading, with its backing files; those of other formats are opened by
/// `open_other`.
///
/// # Errors
/// `Malformed`, `Unsupported`, `LimitExceeded`, `Parent`, `Io`.
pub(super) fn open_qcow2(
    storage: Arc<dyn Storage>,
    options: &ImageOptions,
    open_other: OpenOther,
) -> Result<Arc<dyn Image>> {
    qcow2::open(storage, options, &Chain::default(), open_other)
}

/// Opens a VMDK for reading.
///
/// # Errors
/// As [`open_qcow2`].
pub(super) fn open_vmdk(
    storage: Arc<dyn Storage>,
    options: &ImageOptions,
) -> Result<Arc<dyn Image>> {
    match sparse::Sparse::is_one(&*storage)? {
        true => Ok(Arc::new(sparse::Sparse::open(storage, options)?)),
        false => Ok(Arc::new(vmdk::Vmdk::open(storage, options)?)),
    }
}
