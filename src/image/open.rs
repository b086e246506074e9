//! Opening files and storages as images.

use std::path::Path;
use std::sync::Arc;

#[cfg(feature = "imago")]
use super::foreign;
use super::probe::{RawUse, refuse_container, refuse_container_name};
use super::raw::Raw;
use super::{Format, Image, ImageMut, ImageOptions, vhd, vhdx};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::{HostKind, SourceOptions, Storage, open_source};

/// Opens a file for reading as an image.
///
/// A block device is raw unless the options name its format. What would be worth a warning, such
/// as a file system without locks, is reported by [`HostSource`](crate::sync::HostSource) only.
///
/// # Errors
/// `NotFound`, `InUse`, `Io`, `Malformed`, `Unsupported`, `LimitExceeded`, `Parent`;
/// `InvalidInput` for what would be raw only by default and has a container's signature
/// ([`refuse_container`]).
pub fn open(path: impl AsRef<Path>, options: &ImageOptions) -> Result<Arc<dyn Image>> {
    let path = path.as_ref();
    let opened = open_source(path, &SourceOptions::default())?;
    let is_file = opened.host.kind() == HostKind::File;
    let format = match options.format {
        Some(format) => format,
        None if is_file => Format::from_path(path),
        None => Format::Raw,
    };
    if options.format.is_none() && format == Format::Raw {
        if is_file {
            refuse_container_name(path, RawUse::Read)?;
        }
        refuse_container(&*opened.storage, is_file, RawUse::Read)?;
    }
    open_storage(opened.storage, format, options)
}

/// Opens storage for reading as an image of `format`.
///
/// # Errors
/// `Io`, `Malformed`, `Unsupported`, `LimitExceeded`, `Parent`.
pub fn open_storage(
    storage: Arc<dyn Storage>,
    format: Format,
    options: &ImageOptions,
) -> Result<Arc<dyn Image>> {
    if options.read_holes {
        let (storage, options) = options.dense(storage);
        return open_storage(storage, format, &options);
    }
    let opened: Result<Arc<dyn Image>> = match format {
        Format::Raw => Raw::open(storage).map(|raw| Arc::new(raw) as _),
        Format::Vhd => vhd::open(storage, options),
        Format::Vhdx => vhdx::open(storage, options),
        #[cfg(feature = "imago")]
        Format::Qcow2 => foreign::open_qcow2(storage, options, open_storage),
        #[cfg(feature = "imago")]
        Format::Vmdk => foreign::open_vmdk(storage, options),
        #[cfg(not(feature = "imago"))]
        Format::Qcow2 | Format::Vmdk => Err(Error::new(
            ErrorKind::Unsupported,
            format!("a {format}, which this build cannot read"),
        )
        .at_path(storage.path())
        .advise("build with the feature `imago`, or convert it with qemu-img")),
    };
    opened.map_err(|error| error.during_work("open"))
}

/// Opens storage for reading and writing as an image of `format`.
///
/// # Errors
/// As [`open_storage`]; `Unsupported` for a format that is only read.
pub fn open_storage_mut(
    storage: Arc<dyn Storage>,
    format: Format,
    options: &ImageOptions,
) -> Result<Arc<dyn ImageMut>> {
    if options.read_holes {
        let (storage, options) = options.dense(storage);
        return open_storage_mut(storage, format, &options);
    }
    let opened: Result<Arc<dyn ImageMut>> = match format {
        Format::Raw => Raw::open(storage).map(|raw| Arc::new(raw) as _),
        Format::Vhd => vhd::open_mut(storage, options),
        Format::Vhdx => vhdx::open_mut(storage, options),
        Format::Qcow2 | Format::Vmdk => Err(only_read(format).at_path(storage.path())),
    };
    opened.map_err(|error| error.during_work("open"))
}

/// The error for writing to a format that cannot be.
pub(crate) fn only_read(format: Format) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!("a {format} can only be read"),
    )
    .advise("write to a raw disk, a VHD or a VHDX")
}
