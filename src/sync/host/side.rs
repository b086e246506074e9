//! One of two disks that are compared: an image, or the manifest of one.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::source::HostSource;
use crate::advice::Advice;
use crate::delta::Base;
use crate::diff::{self, CompareOptions, Newer};
use crate::error::{Error, ErrorKind, Result};
use crate::image::{Format, Image, ImageOptions};
use crate::limits::Limits;
use crate::manifest::Manifest;
use crate::progress::Work;
use crate::storage::{HostFile, HostKind, Privacy, SourceOptions};
use crate::sync::endpoint::source::Source;
use crate::units::{Extent, ExtentKind, PAGE_BYTES};

/// An image, or the manifest of a disk.
#[derive(Clone)]
#[non_exhaustive]
pub enum HostSide {
    /// The image, and how it was opened.
    Image(Arc<dyn Image>, Box<Source>),
    /// The manifest.
    Manifest(Manifest),
}

opaque!(HostSide);

/// Where two sides differ.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Diff {
    /// What differs of the source's disk, ascending; `Zero` where the source holds zeros.
    pub extents: Vec<Extent>,
    /// The granularity of that.
    pub granularity_bytes: u64,
    /// Whether the disks have one length.
    pub same_len: bool,
}

impl HostSide {
    /// Opens what is at `path`: a manifest where its extension is `.manifest` and `image` chooses
    /// no format, else an image.
    ///
    /// # Errors
    /// As [`HostSource::open`] and [`Manifest::open_with`]; `InvalidInput` for a manifest that
    /// would be read as a raw disk only by default.
    pub fn open(
        path: impl AsRef<Path>,
        image: &ImageOptions,
        options: &SourceOptions,
    ) -> Result<Self> {
        let path = path.as_ref();
        if image.format.is_none() && path.extension().is_some_and(|it| it == EXTENSION) {
            return Self::open_manifest(path, &image.limits);
        }
        let by_default = image.format.is_none() && Format::from_path(path) == Format::Raw;
        let is_file = || HostFile::at(path).is_ok_and(|it| it.kind() == HostKind::File);
        if by_default && is_file() && Manifest::open_with(path, &image.limits).is_ok() {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "looks like a manifest, but would be read as a raw disk",
            )
            .at_path(path)
            .advise("name it .manifest")
            .or_advise(Advice::SourceFormat("manifest".into()))
            .or_advise(Advice::RawSource));
        }
        Self::of(HostSource::open(path, image, options)?.source())
    }

    /// The image of a source.
    ///
    /// # Errors
    /// `Unsupported` for a disk on another host.
    pub fn of(source: Source) -> Result<Self> {
        let image = source.readable()?.clone();
        Ok(HostSide::Image(image, Box::new(source)))
    }

    /// Opens a manifest, whatever its name.
    ///
    /// # Errors
    /// As [`Manifest::open_with`].
    pub fn open_manifest(path: impl AsRef<Path>, limits: &Limits) -> Result<Self> {
        Manifest::open_with(path, limits).map(HostSide::Manifest)
    }

    /// As what a delta leads away from.
    pub fn as_base(&self) -> Base<'_> {
        match self {
            HostSide::Image(image, _) => Base::Image(&**image),
            HostSide::Manifest(manifest) => Base::Manifest(manifest),
        }
    }

    /// Whether an image is what it was when it was opened.
    ///
    /// # Errors
    /// `SourceChanged`, `Io`.
    pub fn check(&self) -> Result<()> {
        match self {
            HostSide::Image(_, source) => source.check(),
            HostSide::Manifest(_) => Ok(()),
        }
    }

    /// Who may use what it was read from; see [`HostSource::privacy`]. A manifest bounds nothing.
    pub fn privacy(&self) -> Privacy {
        match self {
            HostSide::Image(_, source) => source.privacy(),
            HostSide::Manifest(_) => Privacy::USUAL,
        }
    }

    /// Length of the disk in bytes.
    pub fn disk_len(&self) -> u64 {
        match self {
            HostSide::Image(image, _) => image.disk_len(),
            HostSide::Manifest(manifest) => manifest.disk_len(),
        }
    }

    /// Dangers that are no errors.
    pub fn warnings(&self) -> Vec<String> {
        match self {
            HostSide::Image(_, source) => source.warnings().to_vec(),
            HostSide::Manifest(_) => Vec::new(),
        }
    }

    /// What changed, as the tracker knows that the address of an image names.
    pub fn changes(&self) -> Option<&[Range<u64>]> {
        match self {
            HostSide::Image(_, source) => source.changes(),
            HostSide::Manifest(_) => None,
        }
    }

    /// What a sync from this side onto `target` would change. Two images are compared byte
    /// against byte, to the 4 KiB page; otherwise by the blocks of the manifest. What the target
    /// has beyond this side's end is not looked at.
    ///
    /// # Errors
    /// `InvalidInput` for manifests of different block sizes; `SourceChanged` for an image that
    /// was written meanwhile; `Malformed`, `Unreadable`, `Io`, `Cancelled`.
    pub fn diff(&self, target: &HostSide, work: &Work) -> Result<Diff> {
        self.diff_within(target, None, work)
    }

    /// As [`diff`](HostSide::diff), of two images only in `changed`, where that is given.
    ///
    /// # Errors
    /// As [`diff`](HostSide::diff); `InvalidInput` for manifests where `changed` is given.
    pub fn diff_within(
        &self,
        target: &HostSide,
        changed: Option<Vec<Range<u64>>>,
        work: &Work,
    ) -> Result<Diff> {
        let (extents, granularity_bytes) = match (self, target) {
            (HostSide::Image(new, _), HostSide::Image(old, _)) if changed.is_some() => {
                let within = CompareOptions::default().with_change_map(changed);
                (diff::images(&**new, &**old, &within, work)?, PAGE_BYTES)
            }
            _ if changed.is_some() => {
                let what = "a change map is of use only between two images";
                return Err(Error::new(ErrorKind::InvalidInput, what));
            }
            (HostSide::Image(new, _), _) => changes_from(target.as_base(), &**new, work)?,
            (HostSide::Manifest(new), HostSide::Image(old, _)) => {
                let found = diff::with_manifest(&**old, new, Newer::Manifest, work)?;
                (found.extents, new.block_size().bytes())
            }
            (HostSide::Manifest(new), HostSide::Manifest(old)) => {
                let found = diff::manifests(old, new)?.collect::<Result<Vec<Extent>>>()?;
                (found, new.block_size().bytes())
            }
        };
        self.check()?;
        target.check()?;
        let same_len = self.disk_len() == target.disk_len();
        Ok(Diff::new(extents, granularity_bytes, same_len))
    }
}

/// What of `new` differs from `old`, and its granularity, in bytes.
///
/// # Errors
/// `Malformed`, `Unreadable`, `Io`, `Cancelled`.
pub(crate) fn changes_from(
    old: Base<'_>,
    new: &dyn Image,
    work: &Work,
) -> Result<(Vec<Extent>, u64)> {
    match old {
        Base::Image(old) => {
            let found = diff::images(new, old, &CompareOptions::default(), work)?;
            Ok((found, PAGE_BYTES))
        }
        Base::Manifest(old) => {
            let found = diff::with_manifest(new, old, Newer::Image, work)?;
            Ok((found.extents, old.block_size().bytes()))
        }
    }
}

impl Diff {
    pub(crate) fn new(extents: Vec<Extent>, granularity_bytes: u64, same_len: bool) -> Self {
        Diff {
            extents,
            granularity_bytes,
            same_len,
        }
    }

    /// Whether the disks hold the same bytes.
    pub fn is_identical(&self) -> bool {
        self.same_len && self.extents.is_empty()
    }

    /// Bytes that differ.
    pub fn changed_bytes(&self) -> u64 {
        self.extents.iter().map(|extent| extent.len).sum()
    }

    /// Those of them that are zeros in the source.
    pub fn zeroed_bytes(&self) -> u64 {
        let zeros = self.extents.iter().filter(|it| it.kind == ExtentKind::Zero);
        zeros.map(|extent| extent.len).sum()
    }
}

/// Of manifests.
const EXTENSION: &str = "manifest";
