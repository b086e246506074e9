//! What is read of a disk: its file, a copy of it, what a server exports of it, or what lies on
//! another host.

use std::sync::Arc;

use super::disk_state::padded;
use super::open::open_to_read;
use super::remote_disk::RemoteDisk;
use crate::error::{Error, ErrorKind, Result};
use crate::failback::plan::Address;
#[cfg(feature = "qemu")]
use crate::image::nbd::NbdExport;
use crate::image::{Format, Image};
use crate::progress::Work;
use crate::remote::ConnectOptions;
use crate::replica::{Appended, Changed, Replica};
use crate::storage::{HostFile, SourceOptions, Storage};
#[cfg(feature = "qemu")]
use crate::sync::Source;
use crate::sync::{HostSource, SyncOptions, SyncReport, Target, sync};

/// A disk, open to be read.
pub(super) enum SourceDisk {
    Host(HostSource),
    /// It is what it was when it was opened: a snapshot, or it is gone.
    #[cfg(feature = "qemu")]
    Nbd(Arc<dyn Image>),
    /// It is read where it lies.
    Remote(RemoteDisk),
}

impl SourceDisk {
    /// Opens it; `format` is that of the disk's file, `live` says that its VM may write to it.
    pub fn open(
        at: &Address,
        format: Format,
        connect: &ConnectOptions,
        live: bool,
        work: &Work,
    ) -> Result<Self> {
        match at {
            Address::Host(path) => {
                let options = SourceOptions::default().with_allow_writers(live);
                open_to_read(path, format, &options).map(SourceDisk::Host)
            }
            #[cfg(feature = "qemu")]
            Address::Nbd(address) => {
                let export = NbdExport::open_until(address, None, work.cancel())?;
                Ok(SourceDisk::Nbd(Arc::new(export)))
            }
            Address::Remote(remote) => {
                RemoteDisk::open(remote, format, connect, live, work).map(SourceDisk::Remote)
            }
            Address::Callback(_) => {
                let text = "nobody answers for this disk";
                Err(Error::new(ErrorKind::Unsupported, text).at_path(at.to_string()))
            }
        }
    }

    /// Length of the disk in bytes.
    pub(super) fn disk_len(&self) -> u64 {
        match self {
            SourceDisk::Host(source) => source.image().disk_len(),
            #[cfg(feature = "qemu")]
            SourceDisk::Nbd(image) => image.disk_len(),
            SourceDisk::Remote(remote) => remote.disk_len(),
        }
    }

    /// The guest's bytes, where they can be read from here.
    pub(super) fn image(&self) -> Option<&Arc<dyn Image>> {
        match self {
            SourceDisk::Host(source) => Some(source.image()),
            #[cfg(feature = "qemu")]
            SourceDisk::Nbd(image) => Some(image),
            SourceDisk::Remote(_) => None,
        }
    }

    /// The guest's bytes, for what cannot do without.
    ///
    /// # Errors
    /// `Unsupported` for a disk on another host.
    pub(super) fn local(&self) -> Result<&Arc<dyn Image>> {
        self.image().ok_or_else(|| {
            let text = "a disk on another host cannot be read from here";
            Error::new(ErrorKind::Unsupported, text).advise("run the job on the host that has it")
        })
    }

    /// Makes `target` hold what it holds; once only.
    pub fn sync_onto(
        &self,
        target: &Target,
        options: &SyncOptions,
        work: &Work,
    ) -> Result<SyncReport> {
        match self {
            SourceDisk::Host(source) => sync(&source.source(), target, options, work),
            #[cfg(feature = "qemu")]
            SourceDisk::Nbd(image) => sync(&Source::new(image.clone()), target, options, work),
            SourceDisk::Remote(remote) => remote.sync_onto(target, options, work),
        }
    }

    /// Adds what it holds to a replica, as a disk of so many bytes.
    pub fn append_to(
        &self,
        replica: &Replica,
        disk_len: u64,
        changed: Option<Changed>,
        next: &Arc<dyn Storage>,
        work: &Work,
    ) -> Result<Appended> {
        if let SourceDisk::Remote(remote) = self {
            return remote.append_to(replica, disk_len, changed, next, work);
        }
        let image = padded(self.local()?.clone(), disk_len);
        replica.append(&*image, changed, next, &|| self.check(), work)
    }

    /// Whether it is what it was when it was opened; one on another host was asked by its sync.
    pub fn check(&self) -> Result<()> {
        match self {
            SourceDisk::Host(source) => source.check(),
            #[cfg(feature = "qemu")]
            SourceDisk::Nbd(_) => Ok(()),
            SourceDisk::Remote(_) => Ok(()),
        }
    }

    /// The files and devices of this host that are read.
    pub(super) fn files(&self) -> Vec<HostFile> {
        match self {
            SourceDisk::Host(source) => source.files(),
            #[cfg(feature = "qemu")]
            SourceDisk::Nbd(_) => Vec::new(),
            SourceDisk::Remote(_) => Vec::new(),
        }
    }
}
