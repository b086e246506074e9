//! What a disk is compared with.

use super::disk::Disk;
use crate::manifest::Manifest;

/// The older state of a disk: an image that can be read, or only its manifest.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Base<'a> {
    /// A disk that can be read: differences are found to 4 KiB.
    Disk(&'a Disk),
    /// Its manifest: differences are whole blocks of the manifest.
    Manifest(&'a Manifest),
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
