//! A disk that is read.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::disk_options::DiskOptions;
use super::source::open_source;
use crate::error::Result;
use crate::hash::Hash;
use crate::image::{self, Format, Image, ImageInfo, ImageOptions};
use crate::location::Location;
use crate::manifest::{self, Manifest};
use crate::progress::Work;
use crate::remote::{Client, ConnectOptions};
use crate::storage::{FileRef, Storage};
use crate::sync::{HostSource, Marker, Source};
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
pub struct Disk(Source);

impl Disk {
    /// Opens the image file or block device at `path`; symbolic links are followed.
    ///
    /// The format is what the extension tells; a device is raw. [`Disk::options`] chooses it, and
    /// more.
    ///
    /// # Errors
    /// `NotFound`; `InUse` where another program writes to it; `Incomplete` for a disk that an
    /// unfinished sync left incomplete; `InvalidInput` for a container that would be read as raw
    /// only by default; `Malformed`, `Unsupported`, `LimitExceeded`, `Parent`, `Io`.
    pub fn open(path: impl AsRef<Path>) -> Result<Disk> {
        Self::options().open(path)
    }

    /// Choices for opening a disk.
    pub fn options() -> DiskOptions {
        DiskOptions::default()
    }

    /// Opens the disk at `location`: a path as [`open`](Disk::open) does, an export of an NBD
    /// server, or an image on another host. A disk on another host can be synced from and hashed
    /// with [`root`](Disk::root), and nothing else.
    ///
    /// # Errors
    /// Those of [`open`](Disk::open), of connecting and of the other host; `Unsupported` for a
    /// location that this build cannot reach.
    pub fn connect(location: &Location, connect: &ConnectOptions, work: &Work) -> Result<Disk> {
        if let Location::Path(path) = location {
            return Self::open(path);
        }
        let (image, open) = DiskOptions::default().into_parts();
        open_source(location, &image, &open, connect, work).map(Disk)
    }

    /// Opens the disk at `path` of the agent that `client` is connected to, over a transport of the
    /// caller's own. It is the source of one sync.
    ///
    /// # Errors
    /// Those of the agent; `Malformed`, `Io`, `Cancelled`.
    pub fn served_by(client: Client, path: impl AsRef<Path>, work: &Work) -> Result<Disk> {
        let (image, open) = DiskOptions::default().into_parts();
        client.open(path, &image, &open, work).map(Disk)
    }

    /// A disk in a storage of the caller's own, which must not change while the disk lives.
    ///
    /// # Errors
    /// `Incomplete` for the target of an unfinished sync; `Malformed`, `Unsupported`,
    /// `LimitExceeded`, `Parent`, `Io`.
    pub fn from_storage(storage: Arc<dyn Storage>, format: Format) -> Result<Disk> {
        Self::options().format(format).open_storage(storage)
    }

    /// A disk seen through an image of the caller's own, which must not change while the disk
    /// lives.
    pub fn from_image(image: Arc<dyn Image>) -> Disk {
        Disk(Source::new(image))
    }

    /// Length in bytes, as a guest sees it.
    pub fn len(&self) -> u64 {
        self.0.disk_len()
    }

    /// Whether the disk has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the image is.
    pub fn info(&self) -> ImageInfo {
        self.0.info()
    }

    /// Dangers that are no errors, of the file and of the image in it. A [`Sync`](crate::Sync)
    /// reports them in its notes.
    pub fn warnings(&self) -> Vec<String> {
        self.0.warnings().to_vec()
    }

    /// The bytes of the disk, to be read; `None` for one on another host.
    pub fn image(&self) -> Option<&Arc<dyn Image>> {
        self.0.image()
    }

    /// The root over blocks of 64 KiB. Holes are not read.
    ///
    /// # Errors
    /// `SourceChanged`, `Unreadable`, `Malformed`, `Io`, `Cancelled`.
    pub fn root(&self, work: &Work) -> Result<Hash> {
        let root = self.0.root(self.len(), BlockSize::default(), work)?;
        self.0.check()?;
        Ok(root)
    }

    /// The hashes of all blocks of 64 KiB, kept in memory.
    ///
    /// # Errors
    /// Those of [`root`](Disk::root).
    pub fn manifest(&self, work: &Work) -> Result<Manifest> {
        let built = manifest::build(self.readable()?, BlockSize::default(), work)?;
        self.0.check()?;
        Ok(built)
    }

    /// As [`manifest`](Disk::manifest), written to a file, which takes the place of an older
    /// manifest once it is complete and durable.
    ///
    /// # Errors
    /// Those of [`root`](Disk::root); `AlreadyExists` for a file that is no manifest; `NoSpace`.
    pub fn save_manifest(&self, to: impl AsRef<Path>, work: &Work) -> Result<Manifest> {
        let to = FileRef::to_write(to)?;
        let image = self.readable()?;
        manifest::build_at(image, BlockSize::default(), work, &to, &|_| self.0.check())
    }

    /// The same disk, of which a sync reads only blocks that differ by `manifest`, which was
    /// published with it, and refuses those that are not as it states. Check its signature first,
    /// where it is to be signed (`Manifest::verify_signature`); what the signature states is
    /// recorded with the target manifest, and a target never goes back to an older edition.
    ///
    /// # Errors
    /// `InvalidInput` for the manifest of a disk of another length; `Unsupported` for a disk on
    /// another host; `Io`.
    pub fn published(&self, manifest: &Manifest) -> Result<Disk> {
        let signature = manifest.signature()?;
        let source = self.0.clone();
        source.with_published(manifest.clone(), signature).map(Disk)
    }

    pub(super) fn source(&self) -> &Source {
        &self.0
    }

    /// # Errors
    /// `Unsupported` for a disk on another host.
    pub(super) fn readable(&self) -> Result<&dyn Image> {
        self.0.readable().map(|image| &**image)
    }
}

impl DiskOptions {
    /// Opens the image file or block device at `path`.
    ///
    /// # Errors
    /// Those of [`Disk::open`].
    pub fn open(self, path: impl AsRef<Path>) -> Result<Disk> {
        let (image, options) = self.into_parts();
        HostSource::open(path, &image, &options).map(|opened| Disk(opened.source()))
    }

    /// Opens the disk in a storage of the caller's own, which must not change while the disk lives.
    /// It is raw unless another [`format`](DiskOptions::format) is chosen, and has a parent only
    /// where one is [named](DiskOptions::parent).
    ///
    /// # Errors
    /// Those of [`Disk::from_storage`].
    pub fn open_storage(self, storage: Arc<dyn Storage>) -> Result<Disk> {
        let has_parents = self.has_parents();
        let (mut image, open) = self.into_parts();
        if !has_parents {
            image.gate = ImageOptions::default().gate;
        }
        if !open.marker_is_data {
            Marker::refuse(&*storage)?;
        }
        let format = image.format.unwrap_or(Format::Raw);
        let opened = image::open_storage(storage.clone(), format, &image)?;
        Ok(Disk(Source::new(opened).in_storage(storage)))
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk")
            .field("info", &self.info())
            .finish_non_exhaustive()
    }
}
