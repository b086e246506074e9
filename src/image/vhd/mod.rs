//! VHD: Virtual PC's format, also Azure's and Hyper-V's first (specification 1.0).
//!
//! Fixed, dynamic and differencing files are read, fixed and dynamic ones written. What the crate
//! believes of a file: the footer at its end if that has the right checksum, otherwise the copy
//! at the head; the footer's kind alone says how the rest is read. Header and table are believed
//! as far as checks of every place, length and overlap go. Sector bitmaps are believed in
//! differencing files; in dynamic ones they may only repeat what the bytes say.

mod bitmap;
mod child;
mod create;
mod dynamic;
mod fixed;
pub mod format;
mod layout;
mod locate;
mod parent;
mod prepare;
mod resize;
mod space;
mod write;

use std::sync::Arc;

use super::gate::{Chain, ImageId};
use super::{Image, ImageMut, ImageOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::Storage;
use crate::units::{format_size, format_utc};

pub(super) use child::NewChild;
pub(super) use create::{check_dynamic, check_fixed, create_dynamic, create_fixed};
use dynamic::Dynamic;
use fixed::Fixed;
use format::{DiskKind, EPOCH_SECONDS, Footer};
use locate::{Located, locate};

/// Which of the lengths that a VHD states is the disk's.
///
/// The footer has the length in bytes and as cylinders, heads and sectors. The second is rounded
/// to what such a geometry can say, mostly down. Virtual PC itself goes by the geometry; everything
/// newer goes by the bytes, and bytes past the geometry's end are there in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SizePolicy {
    /// The length in bytes.
    #[default]
    CurrentSize,
    /// What QEMU does: the geometry for files made by Virtual PC and by QEMU's own older mode,
    /// unless it says no more than "at least 127.5 GiB"; otherwise the length in bytes.
    QemuCompat,
    /// The geometry, unless it says no more than "at least 127.5 GiB".
    Chs,
}

impl SizePolicy {
    fn disk_len(self, footer: &Footer) -> u64 {
        let by_geometry = match self {
            SizePolicy::CurrentSize => false,
            SizePolicy::QemuCompat => goes_by_geometry(footer.creator),
            SizePolicy::Chs => true,
        };
        if by_geometry && !footer.geometry.is_saturated() {
            footer.geometry.disk_bytes()
        } else {
            footer.current_bytes
        }
    }
}

/// Opens a VHD for reading, with its parents.
///
/// # Errors
/// `Malformed`, `Unsupported`, `LimitExceeded`, `Parent`, `Io`.
pub(super) fn open(storage: Arc<dyn Storage>, options: &ImageOptions) -> Result<Arc<dyn Image>> {
    let located = locate(&*storage, options)?;
    open_located(storage, located, options)
}

/// Opens a VHD for reading and writing.
///
/// # Errors
/// As [`open`]; `Unsupported` for what must not or cannot be written.
pub(super) fn open_mut(
    storage: Arc<dyn Storage>,
    options: &ImageOptions,
) -> Result<Arc<dyn ImageMut>> {
    // What is only readable with an eye closed must not be made worse.
    let options = options.clone().with_lenient(false);
    let located = locate(&*storage, &options)?;
    let footer = &located.footer;
    let refuse = |message: &'static str, advice: &'static str| {
        Err(Error::new(ErrorKind::Unsupported, message)
            .at_path(storage.path())
            .advise(advice))
    };
    if footer.saved_state != 0 {
        return refuse(
            "a suspended machine is going to resume on this disk",
            "resume it and shut it down first",
        );
    }
    if located.disk_len != footer.current_bytes {
        return refuse(
            "a VHD is written only at the length that its footer has in bytes",
            "open it with the default size policy",
        );
    }
    match footer.kind {
        DiskKind::Fixed => Ok(Arc::new(Fixed::new(storage, located))),
        DiskKind::Dynamic => Ok(Arc::new(Dynamic::open(
            storage,
            located,
            &options,
            &Chain::default(),
        )?)),
        DiskKind::Differencing => refuse(
            "a differencing VHD cannot be written",
            "write to a dynamic VHD instead, or merge the chain first",
        ),
    }
}

fn open_located(
    storage: Arc<dyn Storage>,
    located: Located,
    options: &ImageOptions,
) -> Result<Arc<dyn Image>> {
    Ok(match located.footer.kind {
        DiskKind::Fixed => Arc::new(Fixed::new(storage, located)),
        DiskKind::Dynamic | DiskKind::Differencing => {
            let chain = Chain::default();
            Arc::new(Dynamic::open(storage, located, options, &chain)?)
        }
    })
}

/// Whether QEMU takes the geometry for the length in files of this creator.
fn goes_by_geometry(creator: [u8; 4]) -> bool {
    matches!(&creator, b"vpc " | b"qemu")
}

/// A name in a field that is filled up with spaces or NULs.
fn without_padding(mut name: &[u8]) -> &[u8] {
    while let [rest @ .., 0 | b' '] = name {
        name = rest;
    }
    name
}

/// What a person may want to know of a footer.
fn footer_facts(footer: &Footer) -> Vec<(&'static str, String)> {
    let chs = footer.geometry;
    vec![
        ("unique id", ImageId(footer.unique_id).to_string()),
        (
            "creator",
            format!(
                "{} {}.{}",
                without_padding(&footer.creator).escape_ascii(),
                footer.creator_version >> 16,
                footer.creator_version & 0xffff
            ),
        ),
        (
            "created",
            format_utc(EPOCH_SECONDS + u64::from(footer.timestamp)),
        ),
        (
            "original size",
            format!(
                "{} ({} bytes)",
                format_size(footer.original_bytes),
                footer.original_bytes
            ),
        ),
        (
            "geometry",
            format!(
                "{}/{}/{} ({} bytes)",
                chs.cylinders,
                chs.heads,
                chs.sectors,
                chs.disk_bytes()
            ),
        ),
    ]
}

/// The creator that files and resized footers of this crate carry: the one QEMU writes when its
/// length in bytes counts, which every version of QEMU since 2.0 honours.
const CREATOR: [u8; 4] = *b"qem2";
