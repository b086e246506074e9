//! What every virtual disk can do, and what it says of itself.

use std::ops::Range;

use bytes::Bytes;

use super::Format;
use super::layout::Layout;
use crate::error::Result;
use crate::storage::{HostFile, Storage, next_data};
use crate::units::{Extent, ExtentKind};

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

    /// The store whose bytes are the guest's, all of them and nothing else, where there is one.
    fn flat_storage(&self) -> Option<&dyn Storage> {
        None
    }

    /// Drops cached pages that hold these guest bytes. A hint.
    fn drop_cache(&self, _range: Range<u64>) {}

    /// Tells that these guest bytes are about to be read. A hint.
    fn will_read(&self, _range: Range<u64>) {}

    /// How far ahead of its reads a range is worth [announcing](Image::will_read), in bytes; 0
    /// where nothing is gained by more than the next few. A hint.
    fn look_ahead_bytes(&self) -> u64 {
        0
    }

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

/// The extent at `offset` of a disk that is the first `disk_len` bytes of `storage`; `None` at or
/// past its end.
///
/// # Errors
/// `Io`, `Poisoned`.
pub(crate) fn flat_extent(
    storage: &dyn Storage,
    disk_len: u64,
    offset: u64,
) -> Result<Option<Extent>> {
    if offset >= disk_len {
        return Ok(None);
    }
    Ok(Some(match next_data(storage, offset)? {
        Some(data) if data.start > offset => Extent::zero(offset..data.start.min(disk_len)),
        Some(data) => Extent::data(offset..data.end.min(disk_len)),
        None => Extent::zero(offset..disk_len),
    }))
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

/// What an image is.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ImageInfo {
    /// The format.
    pub format: Format,
    /// How it stores its bytes.
    pub layout: Layout,
    /// Guest-visible length.
    pub disk_bytes: u64,
    /// Bytes a logical sector that a guest sees, where the format or the device says.
    pub sector_bytes: Option<u64>,
    /// Guest bytes a block of the format, where it has blocks.
    pub block_bytes: Option<u64>,
    /// The images below it, its parent first, as their storages name themselves.
    pub parents: Vec<String>,
    /// Further facts as key and value, in the order a person would want them.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serialize::facts"))]
    pub facts: Vec<(&'static str, String)>,
    /// Oddities worth telling.
    pub warnings: Vec<String>,
}

impl ImageInfo {
    /// The chain of a child of this image: `path`, its own, and those of its parents.
    pub(super) fn into_chain(self, path: &str) -> Vec<String> {
        [vec![path.to_owned()], self.parents].concat()
    }

    /// A raw image of `disk_bytes` guest bytes; start from it in an [`Image`] of your own.
    pub fn raw(disk_bytes: u64) -> Self {
        ImageInfo {
            format: Format::Raw,
            layout: Layout::Flat,
            disk_bytes,
            sector_bytes: None,
            block_bytes: None,
            parents: Vec::new(),
            facts: Vec::new(),
            warnings: Vec::new(),
        }
    }
}
