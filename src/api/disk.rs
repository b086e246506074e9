//! A disk that is read.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::disk_options::DiskOptions;
use crate::error::Result;
use crate::hash::Hash;
use crate::image::{self, Format, Image, ImageInfo, ImageOptions};
use crate::manifest::{self, Manifest};
use crate::progress::Work;
use crate::storage::{FileRef, HostFile, Privacy, Storage};
use crate::sync::{HostSource, Source};
use crate::units::BlockSize;

/// A disk that is read: an image file, a block device, or a storage of the caller's own.
///
/// While a disk that was opened by its path lives, other programs that honour QEMU's locks are kept
/// from writing to it, and a change made in spite of them is an error of kind `SourceChanged` where
/// the work that read it ends. Clones share one open disk.
///
/// # Examples
/// ```no_run
/// use diskdelta::{Disk, Work};
///
/// # fn main() -> diskdelta::Result<()> {
/// let work = Work::new()?;
/// let disk = Disk::open("web.vhdx")?;
/// println!("{} bytes, root {}", disk.len(), disk.root(&work)?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Disk(Body);

#[derive(Clone)]
enum Body {
    Host(HostSource),
    Image(Arc<dyn Image>),
}

impl Disk {
    /// Opens the image file or block device at `path`; symbolic links are followed.
    ///
    /// The format is what the extension tells; a device is raw. [`Disk::options`] chooses it, and
    /// more.
    ///
    /// # Errors
    /// `NotFound`; `InUse` where another program writes to it; `Marked` for a disk that an
    /// unfinished sync left incomplete; `InvalidInput` for a container that would be read as raw
    /// only by default; `Malformed`, `Unsupported`, `LimitExceeded`, `Parent`, `Io`.
    pub fn open(path: impl AsRef<Path>) -> Result<Disk> {
        Self::options().open(path)
    }

    /// Choices for opening a disk.
    pub fn options() -> DiskOptions {
        DiskOptions::default()
    }

    /// A disk in a storage of the caller's own, which must not change while the disk lives.
    ///
    /// # Errors
    /// `Malformed`, `Unsupported`, `LimitExceeded`, `Parent`, `Io`.
    pub fn from_storage(storage: Arc<dyn Storage>, format: Format) -> Result<Disk> {
        image::open_storage(storage, format, &ImageOptions::default()).map(Disk::from_image)
    }

    /// A disk seen through an image of the caller's own, which must not change while the disk
    /// lives.
    pub fn from_image(image: Arc<dyn Image>) -> Disk {
        Disk(Body::Image(image))
    }

    /// Length in bytes, as a guest sees it.
    pub fn len(&self) -> u64 {
        self.image().disk_len()
    }

    /// Whether the disk has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the image is.
    pub fn info(&self) -> ImageInfo {
        self.image().info()
    }

    /// Dangers that are no errors, of the file and of the image in it. A [`Sync`](crate::Sync) reports them in
    /// its notes.
    pub fn warnings(&self) -> Vec<String> {
        match &self.0 {
            Body::Host(source) => source.warnings(),
            Body::Image(image) => image.info().warnings,
        }
    }

    /// The bytes of the disk, to be read.
    pub fn image(&self) -> &Arc<dyn Image> {
        match &self.0 {
            Body::Host(source) => source.image(),
            Body::Image(image) => image,
        }
    }

    /// The root over blocks of 64 KiB. Holes are not read.
    ///
    /// # Errors
    /// `SourceChanged`, `Unreadable`, `Malformed`, `Io`, `Cancelled`.
    pub fn root(&self, work: &Work) -> Result<Hash> {
        let root = manifest::root_of(&**self.image(), BlockSize::default(), work)?;
        self.check()?;
        Ok(root)
    }

    /// The hashes of all blocks of 64 KiB, kept in memory.
    ///
    /// # Errors
    /// Those of [`root`](Disk::root).
    pub fn manifest(&self, work: &Work) -> Result<Manifest> {
        let built = manifest::build(&**self.image(), BlockSize::default(), work)?;
        self.check()?;
        Ok(built)
    }

    /// As [`manifest`](Disk::manifest), written to a file, which takes the place of an older
    /// manifest once it is complete and durable.
    ///
    /// # Errors
    /// Those of [`root`](Disk::root); `AlreadyExists` for a file that is no manifest; `NoSpace`.
    pub fn save_manifest(&self, to: impl AsRef<Path>, work: &Work) -> Result<Manifest> {
        let to = FileRef::to_write(to)?;
        let image = &**self.image();
        manifest::build_at(image, BlockSize::default(), work, &to, &|| self.check())
    }

    /// Whether the disk is what it was when it was opened.
    pub(super) fn check(&self) -> Result<()> {
        match &self.0 {
            Body::Host(source) => source.check(),
            Body::Image(_) => Ok(()),
        }
    }

    pub(super) fn source(&self) -> Source {
        match &self.0 {
            Body::Host(source) => source.source(),
            Body::Image(image) => Source::new(image.clone()),
        }
    }

    pub(super) fn files(&self) -> Result<Vec<HostFile>> {
        match &self.0 {
            Body::Host(source) => Ok(source.files()),
            Body::Image(image) => image.files(),
        }
    }

    pub(super) fn privacy(&self) -> Result<Privacy> {
        match &self.0 {
            Body::Host(source) => source.privacy(),
            Body::Image(_) => Ok(Privacy::PRIVATE),
        }
    }
}

impl DiskOptions {
    /// Opens the image file or block device at `path`.
    ///
    /// # Errors
    /// Those of [`Disk::open`].
    pub fn open(self, path: impl AsRef<Path>) -> Result<Disk> {
        let (image, options) = self.into_parts();
        let source = HostSource::open(path, &image, &options)?;
        Ok(Disk(Body::Host(source)))
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk")
            .field("info", &self.info())
            .finish_non_exhaustive()
    }
}
