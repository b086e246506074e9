//! What a disk holds, whether a VM may boot from it now or not.

use std::sync::Arc;

use super::disk_path::DiskPath;
use super::{open_to_read, open_to_write};
use crate::error::{ErrorKind, Result};
use crate::image::Image;
use crate::progress::Work;
use crate::storage::SourceOptions;
use crate::sync::{HostSource, HostTarget};

/// A disk, open to be read; nobody writes to it meanwhile.
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

    /// The guest's bytes.
    pub(super) fn image(&self) -> &Arc<dyn Image> {
        &self.image
    }

    /// Whether it is what it was when it was opened.
    ///
    /// # Errors
    /// `SourceChanged`, `Io`.
    pub(super) fn check(&self) -> Result<()> {
        match &self.open {
            Open::Host(source) => source.check(),
            Open::Held { .. } => Ok(()),
        }
    }
}
