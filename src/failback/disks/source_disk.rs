//! What is read of a disk, wherever it is: its file or device, an export of it, or what another
//! host has.

use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use super::disk_path::DiskPath;
use crate::api::open_source;
use crate::error::{Error, ErrorKind, Result};
use crate::hash::Hash;
use crate::image::{Format, Image, ImageOptions, Resized};
use crate::location::Location;
use crate::progress::Work;
use crate::remote::ConnectOptions;
use crate::replica::{Appended, Changed, Replica};
use crate::storage::{SourceOptions, Storage};
use crate::sync::{
    HostSource, HostTarget, HostTargetOptions, Source, SourceBackend, SyncOptions, SyncReport,
    Target, sync,
};
use crate::units::BlockSize;

/// A disk, open to be read. With one on another host one thing is done.
pub(super) struct SourceDisk {
    source: Source,
    /// Where it is, for errors of a connection that only reads it.
    place: Option<String>,
}

impl SourceDisk {
    /// Opens it; `format` is that of the disk's file, `live` says that its VM may write to it.
    pub(super) fn open(
        location: &Location,
        format: Format,
        connect: &ConnectOptions,
        live: bool,
        work: &Work,
    ) -> Result<Self> {
        let format = match location {
            // The guest's bytes, as they were at one moment.
            Location::Nbd(_) => Format::Raw,
            _ => format,
        };
        let place = matches!(location, Location::Remote(_)).then(|| location.to_string());
        let image = ImageOptions::default().with_format(format);
        let options = SourceOptions::default().with_allow_writers(live);
        match open_source(location, &image, &options, connect, work) {
            Ok(source) => Ok(SourceDisk { source, place }),
            Err(error) => Err(place.into_iter().fold(error, Error::at_path)),
        }
    }

    /// Opens a disk of this host that no VM writes to, whether one may boot from it now or not.
    ///
    /// # Errors
    /// Those of [`HostSource::open`]; `Incomplete` for a device that is held and incomplete.
    pub(super) fn at_rest(disk_path: &DiskPath, work: &Work) -> Result<Self> {
        let path = disk_path.there()?;
        let image = ImageOptions::default().with_format(disk_path.format);
        match HostSource::open(&path, &image, &SourceOptions::default()) {
            Err(error) if error.kind() == ErrorKind::Incomplete && disk_path.is_device => {
                let target = open_to_write(&path, disk_path.format)?;
                let source = Source::new(target.held_image(work)?.ok_or(error)?);
                // Read through its marker, and kept from all others as long as it is.
                let held = Arc::new(move || {
                    let _ = &target;
                    Ok(())
                });
                Ok(source.with_check(held).into())
            }
            opened => opened.map(|opened| opened.source().into()),
        }
    }

    /// The target's disk, which its VM may not be writing to.
    pub(super) fn of_target(disk_path: &DiskPath) -> Result<Self> {
        let opened = Work::with_threads(1).and_then(|work| Self::at_rest(disk_path, &work));
        opened.map_err(|error| match error.kind() {
            ErrorKind::InUse => Error::new(ErrorKind::InUse, format!("{error}; is its VM off?")),
            _ => error,
        })
    }

    /// Whether it is a device that a job left held and incomplete: one may go on with it whatever
    /// it holds.
    pub(super) fn is_left_incomplete(disk_path: &DiskPath) -> bool {
        let marked = |error: Error| error.kind() == ErrorKind::Incomplete;
        let held = || {
            let target = open_to_write(&disk_path.own, disk_path.format);
            let marker = target.and_then(|target| target.marker());
            marker.is_ok_and(|marker| marker.is_some_and(|marker| marker.held))
        };
        disk_path.is_device && Self::of_target(disk_path).is_err_and(marked) && held()
    }

    /// The guest's bytes, for what cannot do without.
    pub(super) fn local(&self) -> Result<&Arc<dyn Image>> {
        self.image().ok_or_else(|| {
            let text = "a disk on another host cannot be read from here";
            Error::new(ErrorKind::Unsupported, text).advise("run the job on the host that has it")
        })
    }

    /// Makes `target` hold what it holds.
    pub(super) fn sync_onto(
        &self,
        target: &Target,
        options: &SyncOptions,
        work: &Work,
    ) -> Result<SyncReport> {
        sync(self, target, options, work).map_err(|error| self.named(error))
    }

    /// Adds what it holds to a replica, as a disk of that length.
    pub(super) fn append_to(
        &self,
        replica: &Replica,
        disk_len: u64,
        changed: Option<Changed>,
        next: &Arc<dyn Storage>,
        work: &Work,
    ) -> Result<Appended> {
        let Some(image) = self.image() else {
            return self.ask(|remote| replica.append_remote(remote, disk_len, changed, next, work));
        };
        let image = Resized::at_least(image.clone(), disk_len);
        replica.append(&*image, changed, next, &|| self.check(), work)
    }

    /// The root of all that the disk holds, which is read whole where it is.
    pub(super) fn root(&self, disk_len: u64, block_size: BlockSize, work: &Work) -> Result<Hash> {
        let disk_len = disk_len.max(self.disk_len());
        let root = self.ask(|source| source.root(disk_len, block_size, work))?;
        self.check()?;
        Ok(root)
    }

    /// Whether it is what it was when it was opened; one on another host was asked by what was
    /// done with it.
    pub(super) fn check(&self) -> Result<()> {
        self.image().map_or(Ok(()), |_| self.source.check())
    }

    /// Asks something other than a sync, and ends the work with the disk.
    pub(super) fn ask<T>(&self, ask: impl FnOnce(&dyn SourceBackend) -> Result<T>) -> Result<T> {
        self.source.ask(ask).map_err(|error| self.named(error))
    }

    fn named(&self, error: Error) -> Error {
        self.place.iter().fold(error, Error::at_path)
    }
}

impl Deref for SourceDisk {
    type Target = Source;

    fn deref(&self) -> &Source {
        &self.source
    }
}

impl From<Source> for SourceDisk {
    fn from(source: Source) -> Self {
        SourceDisk {
            source,
            place: None,
        }
    }
}

/// Opens a disk of this host to be written.
pub(super) fn open_to_write(path: &Path, format: Format) -> Result<HostTarget> {
    let image = ImageOptions::default().with_format(format);
    HostTarget::open(path, &HostTargetOptions::default().with_image(image))
}
