//! What a pass reads: a disk's file, a copy of it, or what a server exports of it.

use std::sync::Arc;

use super::open_to_read;
use crate::error::Result;
use crate::failback::controller::ReadAt;
#[cfg(feature = "qemu")]
use crate::failback::nbd::NbdExport;
use crate::image::{Format, Image};
use crate::storage::{HostFile, SourceOptions};
use crate::sync::{HostSource, Source};

/// A disk, open for a pass.
pub(super) enum Origin {
    Host(HostSource),
    /// It is what it was when it was opened: a snapshot, or it is gone.
    #[cfg(feature = "qemu")]
    Nbd(Arc<dyn Image>),
}

impl Origin {
    /// Opens it; `format` is that of the disk's file.
    ///
    /// # Errors
    /// Those of [`HostSource::open`] and of [`NbdExport::open`].
    pub fn open(at: &ReadAt, format: Format) -> Result<Self> {
        match at {
            ReadAt::Host(address) => {
                open_to_read(address.path(), format, &SourceOptions::default()).map(Origin::Host)
            }
            #[cfg(feature = "qemu")]
            ReadAt::Nbd(address) => {
                let export = NbdExport::open(address, None)?;
                Ok(Origin::Nbd(Arc::new(export)))
            }
        }
    }

    /// The guest's bytes.
    pub fn image(&self) -> &Arc<dyn Image> {
        match self {
            Origin::Host(source) => source.image(),
            #[cfg(feature = "qemu")]
            Origin::Nbd(image) => image,
        }
    }

    /// As a sync's source.
    pub fn source(&self) -> Source {
        match self {
            Origin::Host(source) => source.source(),
            #[cfg(feature = "qemu")]
            Origin::Nbd(image) => Source::new(image.clone()),
        }
    }

    /// Whether it is what it was when it was opened.
    ///
    /// # Errors
    /// `SourceChanged`, `Io`.
    pub fn check(&self) -> Result<()> {
        match self {
            Origin::Host(source) => source.check(),
            #[cfg(feature = "qemu")]
            Origin::Nbd(_) => Ok(()),
        }
    }

    /// The files and devices of this host that are read.
    pub fn files(&self) -> Vec<HostFile> {
        match self {
            Origin::Host(source) => source.files(),
            #[cfg(feature = "qemu")]
            Origin::Nbd(_) => Vec::new(),
        }
    }
}
