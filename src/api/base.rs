//! What a disk is compared with.

use super::disk::Disk;
use crate::delta;
use crate::error::Result;
use crate::manifest::Manifest;
use crate::storage::Privacy;

/// The older state of a disk: an image that can be read, or only its manifest.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Base<'a> {
    /// A disk that can be read: differences are found to 4 KiB.
    Disk(&'a Disk),
    /// Its manifest: differences are whole blocks of the manifest.
    Manifest(&'a Manifest),
}

impl<'a> Base<'a> {
    /// As what a comparison reads.
    ///
    /// # Errors
    /// `Unsupported` for a disk on another host.
    pub(super) fn readable(&self) -> Result<delta::Base<'a>> {
        match *self {
            Base::Disk(disk) => disk.readable().map(delta::Base::Image),
            Base::Manifest(manifest) => Ok(delta::Base::Manifest(manifest)),
        }
    }

    /// Whether a disk is what it was when it was opened.
    ///
    /// # Errors
    /// `SourceChanged`, `Io`.
    pub(super) fn check(&self) -> Result<()> {
        match self {
            Base::Disk(disk) => disk.source().check(),
            Base::Manifest(_) => Ok(()),
        }
    }

    /// Who may use what is made of it; a manifest bounds nothing.
    pub(super) fn privacy(&self) -> Privacy {
        match self {
            Base::Disk(disk) => disk.source().privacy(),
            Base::Manifest(_) => Privacy::USUAL,
        }
    }

    /// Length of the disk in bytes.
    pub(super) fn len(&self) -> u64 {
        match self {
            Base::Disk(disk) => disk.len(),
            Base::Manifest(manifest) => manifest.disk_len(),
        }
    }
}

impl<'a> From<&'a Disk> for Base<'a> {
    fn from(disk: &'a Disk) -> Self {
        Base::Disk(disk)
    }
}

impl<'a> From<&'a Manifest> for Base<'a> {
    fn from(manifest: &'a Manifest) -> Self {
        Base::Manifest(manifest)
    }
}
