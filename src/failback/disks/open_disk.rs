//! What a disk holds, whether a VM may boot from it now or not.

use std::sync::Arc;

use super::disk_path::DiskPath;
use super::open::{open_to_read, open_to_write};
use crate::error::{Error, ErrorKind, Result};
use crate::image::Image;
use crate::progress::Work;
use crate::storage::SourceOptions;
use crate::sync::{HostSource, HostTarget};

/// A disk, open to be read, and locked against writers.
pub(super) struct OpenDisk {
    image: Arc<dyn Image>,
    open: Open,
}

enum Open {
    Host(HostSource),
    /// A device that is held: it is read through its marker, and kept from all others.
    Held {
        _target: HostTarget,
    },
}

impl OpenDisk {
    /// Opens the disk where it stands now.
    ///
    /// # Errors
    /// Those of [`HostSource::open`]; `Incomplete` for a device that is held and incomplete.
    pub(super) fn open(disk_path: &DiskPath, work: &Work) -> Result<Self> {
        let path = disk_path.there()?;
        match open_to_read(&path, disk_path.format, &SourceOptions::default()) {
            Err(error) if error.kind() == ErrorKind::Incomplete && disk_path.is_device => {
                let target = open_to_write(&path, disk_path.format)?;
                let image = target.held_image(work)?.ok_or(error)?;
                Ok(OpenDisk {
                    image,
                    open: Open::Held { _target: target },
                })
            }
            opened => opened.map(|source| OpenDisk {
                image: source.image().clone(),
                open: Open::Host(source),
            }),
        }
    }

    /// The target's disk, which its VM may not be writing to.
    pub(super) fn of_target(disk_path: &DiskPath) -> Result<Self> {
        let opened = Work::with_threads(1).and_then(|work| Self::open(disk_path, &work));
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

    /// The guest's bytes.
    pub(super) fn image(&self) -> &Arc<dyn Image> {
        &self.image
    }

    /// Whether it is what it was when it was opened.
    pub(super) fn check(&self) -> Result<()> {
        match &self.open {
            Open::Host(source) => source.check(),
            Open::Held { .. } => Ok(()),
        }
    }
}
