//! A qcow2 whose places imago knows, read through this crate's storage.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use imago::ShallowMapping;
use imago::file::File;
use imago::format::drivers::FormatDriverInstance;

use crate::error::{Error, ErrorKind, Result};
use crate::image::Layout;
use crate::image::{Format, Image, ImageInfo, read_padded_at};
use crate::storage::{HostFile, Storage, next_data, past_end};
use crate::units::{Extent, ExtentKind};

use super::parent::Parent;

type Driver = Box<dyn FormatDriverInstance<Storage = File>>;

/// A qcow2 whose places imago knows.
pub(super) struct Foreign {
    pub(super) driver: Driver,
    pub(super) file: Arc<dyn Storage>,
    pub(super) disk_len: u64,
    pub(super) parent: Option<Parent>,
    pub(super) facts: Vec<(&'static str, String)>,
    pub(super) cluster_bytes: u64,
}

/// Where a stretch of guest bytes comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Backing {
    /// The file, from this byte on.
    File(u64),
    /// Packed clusters, which only the driver reads.
    Packed,
    Zero,
    Parent,
}

impl Foreign {
    /// Where the bytes from `offset` on come from and for how many bytes, at most `most`, that
    /// goes on; not 0 inside the disk.
    fn stretch(&self, offset: u64, most: u64) -> Result<(Backing, u64)> {
        let most = most.min(self.disk_len.saturating_sub(offset));
        let (mapping, len) = self
            .driver
            .get_mapping(offset, most)
            .map_err(|cause| self.failed(cause))?;
        let place = match mapping {
            ShallowMapping::Raw { offset, .. } => Backing::File(offset),
            ShallowMapping::Zero { explicit: true, .. } => Backing::Zero,
            ShallowMapping::Zero { .. } if self.parent.is_some() => Backing::Parent,
            ShallowMapping::Zero { .. } => Backing::Zero,
            ShallowMapping::Special { .. } => Backing::Packed,
            _ => return Err(self.wrong("a part of the disk is mapped to nothing", offset)),
        };
        match len.min(most) {
            0 if most > 0 => Err(self.wrong("a part of the disk is mapped to nothing", offset)),
            len => Ok((place, len)),
        }
    }

    /// Reads bytes of the file, which may end inside the last cluster that it holds.
    fn read_file(&self, buf: &mut [u8], at: u64) -> Result<()> {
        let there = self.file.len()?.saturating_sub(at);
        if there == 0 {
            return Err(self.wrong("a part of the disk is beyond the end of its file", at));
        }
        let there = usize::try_from(there).unwrap_or(usize::MAX).min(buf.len());
        let (inside, behind) = buf.split_at_mut(there);
        behind.fill(0);
        self.file.read_exact_at(inside, at)
    }

    fn read_packed(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let rest = self
            .driver
            .try_readv_special(buf.into(), offset)
            .map_err(|cause| self.failed(cause))?;
        match rest {
            None => Ok(()),
            Some(_) => Err(self.wrong("a compressed cluster is invalid", offset)),
        }
    }

    /// The extent at `offset`, inside the disk, not merged with its neighbours.
    fn extent(&self, offset: u64) -> Result<Extent> {
        let (place, len) = self.stretch(offset, u64::MAX)?;
        let range = offset..offset + len;
        Ok(match place {
            Backing::Packed => Extent::data(range),
            Backing::Zero => Extent::zero(range),
            Backing::File(at) => {
                let (kind, len) = stored_extent(&*self.file, at, len)?;
                Extent { offset, len, kind }
            }
            Backing::Parent => match &self.parent {
                Some(parent) => match parent.image.next_extent(offset)? {
                    Some(below) => Extent {
                        len: below.len.min(len),
                        ..below
                    },
                    None => Extent::zero(range),
                },
                None => Extent::zero(range),
            },
        })
    }

    fn hint(&self, range: Range<u64>, tell: impl Fn(&dyn Storage, Range<u64>)) {
        let mut at = range.start;
        let end = range.end.min(self.disk_len);
        while at < end {
            let Ok((place, len)) = self.stretch(at, end - at) else {
                return;
            };
            if let Backing::File(from) = place {
                tell(&*self.file, from..from.saturating_add(len));
            }
            at += len;
        }
    }

    fn failed(&self, cause: io::Error) -> Error {
        from_imago(cause).at_path(self.file.path())
    }

    fn wrong(&self, what: &'static str, offset: u64) -> Error {
        Error::malformed(what)
            .at_offset(offset)
            .at_path(self.file.path())
    }
}

impl Image for Foreign {
    fn disk_len(&self) -> u64 {
        self.disk_len
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let end = offset.saturating_add(buf.len() as u64);
        if end > self.disk_len {
            return Err(past_end(self.file.path(), end, self.disk_len));
        }
        let (mut buf, mut at) = (buf, offset);
        while !buf.is_empty() {
            let (place, len) = self.stretch(at, buf.len() as u64)?;
            // No longer than `buf`, so it fits a usize.
            let (part, rest) = buf.split_at_mut(len as usize);
            match (place, &self.parent) {
                (Backing::File(from), _) => self.read_file(part, from)?,
                (Backing::Packed, _) => self.read_packed(part, at)?,
                (Backing::Parent, Some(parent)) => read_padded_at(&*parent.image, part, at)?,
                (Backing::Parent | Backing::Zero, _) => part.fill(0),
            }
            buf = rest;
            at += len;
        }
        Ok(())
    }

    fn next_extent(&self, offset: u64) -> Result<Option<Extent>> {
        if offset >= self.disk_len {
            return Ok(None);
        }
        let mut extent = self.extent(offset)?;
        for _ in 0..MOST_MERGED {
            if extent.end() >= self.disk_len {
                break;
            }
            let next = self.extent(extent.end())?;
            if next.kind != extent.kind {
                break;
            }
            extent.len += next.len;
        }
        Ok(Some(extent))
    }

    fn allocated_bytes(&self) -> Result<u64> {
        let (mut bytes, mut at) = (0, 0);
        while at < self.disk_len {
            let (place, len) = self.stretch(at, u64::MAX)?;
            if matches!(place, Backing::File(..) | Backing::Packed) {
                bytes += len;
            }
            at += len;
        }
        Ok(bytes)
    }

    fn info(&self) -> ImageInfo {
        let facts = self.facts.clone();
        let mut warnings = Vec::new();
        if let Some(parent) = &self.parent {
            warnings.extend(parent.image.info().warnings);
        }
        let parents = self.parent.as_ref();
        let parents = parents.map(|it| it.image.info().into_chain(&it.path));
        ImageInfo {
            format: Format::Qcow2,
            layout: Layout::Flat,
            disk_bytes: self.disk_len,
            sector_bytes: None,
            block_bytes: Some(self.cluster_bytes),
            parents: parents.unwrap_or_default(),
            facts,
            warnings,
        }
    }

    fn files(&self) -> Result<Vec<HostFile>> {
        let mut files: Vec<_> = self.file.host_file()?.into_iter().collect();
        if let Some(parent) = &self.parent {
            files.extend(parent.image.files()?);
        }
        Ok(files)
    }

    fn drop_cache(&self, range: Range<u64>) {
        self.hint(range.clone(), |file, range| file.drop_cache(range));
        if let Some(parent) = &self.parent {
            parent.image.drop_cache(range);
        }
    }

    fn will_read(&self, range: Range<u64>) {
        self.hint(range, |file, range| file.will_read(range));
    }
}

/// What is stored at `at` of a file, and for how many of `len` bytes that goes on. The end of the
/// disk may be behind that of the file: reading says what is wrong.
pub(super) fn stored_extent(file: &dyn Storage, at: u64, len: u64) -> Result<(ExtentKind, u64)> {
    Ok(match next_data(file, at)? {
        None => (ExtentKind::Data, len),
        Some(data) if data.start <= at => (ExtentKind::Data, len.min(data.end - at)),
        Some(data) => (ExtentKind::Zero, len.min(data.start - at)),
    })
}

/// What imago says of a file as an error of this crate.
pub(super) fn from_imago(cause: io::Error) -> Error {
    let kind = match cause.kind() {
        io::ErrorKind::Unsupported => ErrorKind::Unsupported,
        _ if cause.raw_os_error().is_some() => ErrorKind::Io,
        _ => ErrorKind::Malformed,
    };
    Error::new(kind, "the image cannot be read").caused_by(cause)
}

/// A second handle on the file that `storage` reads, for imago to find its way in.
///
/// # Errors
/// `Unsupported` for what is no file; `SourceChanged` when its path leads elsewhere by now; `Io`.
pub(super) fn second_handle(storage: &dyn Storage) -> Result<File> {
    let file = crate::storage::reopened(storage)?;
    let options = imago::StorageOpenOptions::new().filename(storage.path());
    File::from_open_file(file, options).map_err(|e| from_imago(e).at_path(storage.path()))
}

/// Neighbours that are merged into one extent.
const MOST_MERGED: usize = 64;
