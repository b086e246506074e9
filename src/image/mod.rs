//! Virtual disks seen through a format: raw, VHD, VHDX.

mod child;
mod create;
#[cfg(feature = "imago")]
mod foreign;
mod gate;
#[cfg(feature = "qemu")]
pub mod nbd;
mod options;
mod probe;
mod raw;
mod resized;
pub mod vhd;
pub mod vhdx;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};
use crate::storage::{HostFile, HostKind, SourceOptions, Storage, open_source};
use crate::units::{Extent, ExtentKind};

pub(crate) use child::NewChild;
pub use create::{CreateFormat, CreateOptions, create};
pub use gate::{Closed, FileGate, ImageId, ParentGate, ParentRequest};
pub use options::ImageOptions;
pub use probe::{RawUse, refuse_container, refuse_container_name};
pub use raw::Raw;
pub(crate) use resized::Resized;
pub use vhd::SizePolicy;

/// The read side of a virtual disk. Many threads may read at once.
///
/// Offsets and lengths are guest bytes. Nothing here ever writes to the storage below.
pub trait Image: Send + Sync {
    /// Guest-visible length in bytes.
    fn disk_len(&self) -> u64;

    /// Fills `buf` with the guest bytes from `offset` on; ranges that are not allocated read as
    /// zeros, or as the parent's bytes in a differencing image.
    ///
    /// # Errors
    /// `Io`, also for a range beyond [`disk_len`](Image::disk_len); `Malformed` where a structure
    /// met on the way breaks the format.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()>;

    /// The extent that begins at `offset` and reaches as far as its kind is known without reading
    /// data; `None` at or past the end of the disk. Two neighbours may be of one kind. The cost
    /// follows what is allocated, not the length of the disk: long unallocated stretches come as
    /// one extent.
    ///
    /// # Errors
    /// `Io`, `Malformed`.
    fn next_extent(&self, offset: u64) -> Result<Option<Extent>>;

    /// How many guest bytes this image itself holds, a parent's not counted.
    ///
    /// # Errors
    /// As [`next_extent`](Image::next_extent).
    fn allocated_bytes(&self) -> Result<u64> {
        let mut bytes = 0;
        let mut at = 0;
        while let Some(extent) = self.next_extent(at)? {
            if extent.kind == ExtentKind::Data {
                bytes += extent.len;
            }
            at = extent.end();
        }
        Ok(bytes)
    }

    /// What the image is, for people and reports.
    fn info(&self) -> ImageInfo;

    /// The files and block devices of this host that are read: the image's own, those of its
    /// parents, and the extents that it names.
    ///
    /// # Errors
    /// `Io`.
    fn files(&self) -> Result<Vec<HostFile>> {
        Ok(Vec::new())
    }

    /// Drops cached pages that hold these guest bytes. A hint.
    fn drop_cache(&self, _range: Range<u64>) {}

    /// Tells that these guest bytes are about to be read. A hint.
    fn will_read(&self, _range: Range<u64>) {}

    /// Whether what is read now mostly lies in memory already, so that short reads, which stay in
    /// a near cache, are better than long ones. A hint.
    fn reads_from_memory(&self) -> bool {
        false
    }
}

/// Fills `buf` with the guest bytes from `offset` on, and with zeros beyond the end of the disk.
///
/// # Errors
/// `Io`, `Malformed`.
pub(crate) fn read_padded_at(image: &dyn Image, buf: &mut [u8], offset: u64) -> Result<()> {
    let there = usize::try_from(image.disk_len().saturating_sub(offset)).unwrap_or(usize::MAX);
    let (inside, beyond) = buf.split_at_mut(there.min(buf.len()));
    beyond.fill(0);
    if inside.is_empty() {
        Ok(())
    } else {
        image.read_exact_at(inside, offset)
    }
}

/// The write side of a virtual disk. Many threads may write disjoint ranges at once.
///
/// There are two ways to write. *Plain*: call `write_all_at`, `write_zeroes_at`, `set_disk_len`
/// and then `sync`; the format's own rules for ordering are kept. *Prepared*: call
/// [`prepare`](ImageMut::prepare) first, put the patches it returns where a crash cannot lose
/// them, apply them to the storage, and write the data; then the image's tables can be mended
/// whatever happens.
pub trait ImageMut: Image {
    /// Writes guest bytes. Durable after the next `sync`.
    ///
    /// # Errors
    /// `Io`, `NoSpace`; `InvalidInput` for a range beyond the disk.
    fn write_all_at(&self, buf: &[u8], offset: u64) -> Result<()>;

    /// Makes guest bytes read as zeros, with as little allocated as the format and the storage's
    /// allocation choice allow. Durable after the next `sync`.
    ///
    /// # Errors
    /// As [`write_all_at`](ImageMut::write_all_at).
    fn write_zeroes_at(&self, range: Range<u64>) -> Result<()>;

    /// Changes the guest-visible length; new bytes read as zeros. Durable after the next `sync`.
    ///
    /// # Errors
    /// `Unsupported` where the format or the storage cannot; `Io`, `NoSpace`.
    fn set_disk_len(&self, len: u64) -> Result<()>;

    /// Makes everything written so far durable.
    ///
    /// # Errors
    /// `Io`, `NoSpace`.
    fn sync(&self) -> Result<()>;

    /// Visits the ranges of the storage that hold these guest bytes, as far as the tables in
    /// memory give them a place.
    ///
    /// # Errors
    /// `Io`, `Malformed`, and those of `visit`.
    fn places(
        &self,
        range: Range<u64>,
        visit: &mut dyn FnMut(Range<u64>) -> Result<()>,
    ) -> Result<()>;

    /// Decides, in memory only, where the bytes of `change` will lie.
    ///
    /// Afterwards `write_all_at` and `write_zeroes_at` inside the change's extents touch nothing
    /// but payload, and the caller applies the returned patches to the storage, in their order,
    /// those that are [`last`](Patch::Write::last) after the payload. The tables in memory are as
    /// after the patches. May be called again for a further change.
    ///
    /// # Errors
    /// `Unsupported` (a length the file cannot take), `LimitExceeded`, `Io`, `Malformed`.
    fn prepare(&self, change: &Change<'_>) -> Result<Vec<Patch>>;
}

/// What is about to be written to an image.
#[derive(Debug, Clone, Copy)]
pub struct Change<'a> {
    /// The new guest-visible length.
    pub disk_len: u64,
    /// The extents about to be written (`Data`) or zeroed (`Zero`), ascending and disjoint.
    pub extents: &'a [Extent],
}

/// One change to an image's own structures, in bytes of the storage.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Patch {
    /// New bytes of a table, a bitmap or a header.
    Write {
        /// First byte, on the storage.
        offset: u64,
        /// The full new contents of the range.
        bytes: Bytes,
        /// Whether this makes the file whole again and so comes after everything else (footers).
        last: bool,
    },
    /// The storage takes this length.
    SetLen(u64),
    /// These bytes of the storage read as zeros: space that the change takes but does not write.
    /// After a crash it may hold anything, even where a length change has only just added it.
    Zero(Range<u64>),
}

/// The formats this crate reads and writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// Guest bytes and nothing else.
    Raw,
    /// Virtual PC's format: fixed, dynamic and differencing.
    Vhd,
    /// Hyper-V's format.
    Vhdx,
    /// QEMU's format. Only read, and only with the feature `imago`.
    Qcow2,
    /// VMware's format. Only read, and only with the feature `imago`.
    Vmdk,
}

/// What an image is.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ImageInfo {
    /// The format.
    pub format: Format,
    /// `fixed`, `dynamic`, `differencing`; empty where the format has no kinds.
    pub subformat: &'static str,
    /// Guest-visible length.
    pub disk_bytes: u64,
    /// Bytes a logical sector that a guest sees, where the format or the device says.
    pub sector_bytes: Option<u64>,
    /// Guest bytes a block of the format, where it has blocks.
    pub block_bytes: Option<u64>,
    /// Further facts as key and value, in the order a person would want them.
    pub facts: Vec<(&'static str, String)>,
    /// Oddities worth telling.
    pub warnings: Vec<String>,
}

impl ImageInfo {
    /// Guest bytes of so many, as they are.
    pub(crate) fn raw(disk_bytes: u64) -> Self {
        ImageInfo {
            format: Format::Raw,
            subformat: "",
            disk_bytes,
            sector_bytes: None,
            block_bytes: None,
            facts: Vec::new(),
            warnings: Vec::new(),
        }
    }
}

impl Format {
    /// The formats that can be read, by what this was built with.
    pub const ALL: &[Format] = &[
        Format::Raw,
        Format::Vhd,
        Format::Vhdx,
        #[cfg(feature = "imago")]
        Format::Qcow2,
        #[cfg(feature = "imago")]
        Format::Vmdk,
    ];

    /// The format that a path's extension chooses, also where this build cannot read it; anything
    /// unknown is raw.
    pub fn from_path(path: &Path) -> Format {
        let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
        match extension.to_str() {
            Some("vhd" | "avhd") => Format::Vhd,
            Some("vhdx" | "avhdx") => Format::Vhdx,
            Some("qcow2") => Format::Qcow2,
            Some("vmdk") => Format::Vmdk,
            _ => Format::Raw,
        }
    }

    /// Whether images of it can be written and created.
    pub fn is_writable(self) -> bool {
        matches!(self, Format::Raw | Format::Vhd | Format::Vhdx)
    }

    /// Reads the name of one of [`ALL`](Format::ALL).
    ///
    /// # Errors
    /// `InvalidInput` for anything else.
    pub fn parse(text: &str) -> Result<Format> {
        let found = Format::ALL.iter().find(|format| format.name() == text);
        found.copied().ok_or_else(|| {
            let names: Vec<_> = Format::ALL.iter().map(|format| format.name()).collect();
            Error::new(
                ErrorKind::InvalidInput,
                format!("`{text}` is not a format; there are {}", names.join(", ")),
            )
        })
    }

    /// The name that [`parse`](Format::parse) reads.
    pub fn name(self) -> &'static str {
        match self {
            Format::Raw => "raw",
            Format::Vhd => "vhd",
            Format::Vhdx => "vhdx",
            Format::Qcow2 => "qcow2",
            Format::Vmdk => "vmdk",
        }
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Opens a file for reading as an image.
///
/// A block device is raw unless the options name its format. What would be worth a warning, such
/// as a file system without locks, is told by [`HostSource`](crate::sync::HostSource) only.
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
    match format {
        Format::Raw => Ok(Arc::new(Raw::open(storage)?)),
        Format::Vhd => vhd::open(storage, options),
        Format::Vhdx => vhdx::open(storage, options),
        #[cfg(feature = "imago")]
        Format::Qcow2 => foreign::open_qcow2(storage, options),
        #[cfg(feature = "imago")]
        Format::Vmdk => foreign::open_vmdk(storage, options),
        #[cfg(not(feature = "imago"))]
        Format::Qcow2 | Format::Vmdk => Err(Error::new(
            ErrorKind::Unsupported,
            format!("a {format}, which this build cannot read"),
        )
        .at_path(storage.path())
        .advise("build with the feature `imago`, or convert it with qemu-img")),
    }
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
    match format {
        Format::Raw => Ok(Arc::new(Raw::open(storage)?)),
        Format::Vhd => vhd::open_mut(storage, options),
        Format::Vhdx => vhdx::open_mut(storage, options),
        Format::Qcow2 | Format::Vmdk => Err(only_read(format).at_path(storage.path())),
    }
}

/// The error for writing to a format that cannot be.
pub(crate) fn only_read(format: Format) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!("a {format} can only be read"),
    )
    .advise("write to a raw disk, a VHD or a VHDX")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extension_chooses_the_format_and_anything_unknown_is_raw() {
        for (path, format) in [
            ("a.vhd", Format::Vhd),
            ("a.AVHD", Format::Vhd),
            ("a.vhdx", Format::Vhdx),
            ("a.b.avhdx", Format::Vhdx),
            ("a.qcow", Format::Raw),
            ("a.qcow2", Format::Qcow2),
            ("a.VMDK", Format::Vmdk),
            ("vhd", Format::Raw),
            ("/dev/sda", Format::Raw),
        ] {
            assert_eq!(Format::from_path(Path::new(path)), format, "{path}");
        }
        assert_eq!(Format::parse("vhdx").unwrap(), Format::Vhdx);
        assert!(Format::parse("VHD").is_err());
    }
}
