//! How a disk is opened.

use std::path::PathBuf;
use std::sync::Arc;

use crate::image::{FileGate, Format, ImageOptions};
use crate::limits::Limits;
use crate::storage::SourceOptions;

/// How a disk is opened.
///
/// # Examples
/// ```no_run
/// use diskdelta::{Disk, Format};
///
/// # fn main() -> diskdelta::Result<()> {
/// let disk = Disk::options().format(Format::Vhd).parent("base.vhd").open("snapshot.img")?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct DiskOptions {
    image: ImageOptions,
    open: SourceOptions,
    parents: Vec<PathBuf>,
}

impl DiskOptions {
    /// Reads the file as this format, whatever its name.
    pub fn format(mut self, format: Format) -> Self {
        self.image.format = Some(format);
        self
    }

    /// Admits a file as parent of a differencing image, or as a file that the image names. Files
    /// next to the image and below its directory are admitted without.
    pub fn parent(mut self, path: impl Into<PathBuf>) -> Self {
        self.parents.push(path.into());
        self
    }

    /// Reads VHDs that break a rule of their format without being ambiguous.
    pub fn lenient(mut self) -> Self {
        self.image.lenient = true;
        self
    }

    /// Reads the holes of the file too, instead of taking them for zeros.
    pub fn read_holes(mut self) -> Self {
        self.image.read_holes = true;
        self
    }

    /// Bounds what the image's file may state.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.image.limits = limits;
        self
    }

    /// Bypasses the page cache.
    pub fn direct(mut self) -> Self {
        self.open.direct = true;
        self
    }

    /// Reads also while another program writes to the disk; what is read may then never have been
    /// there at one moment.
    pub fn allow_writers(mut self) -> Self {
        self.open.allow_writers = true;
        self
    }

    /// Reads a disk that begins with the marker of an unfinished sync, because its own guest wrote
    /// the marker.
    pub fn marker_is_data(mut self) -> Self {
        self.open.marker_is_data = true;
        self
    }

    pub(super) fn has_parents(&self) -> bool {
        !self.parents.is_empty()
    }

    /// How the image and its file are opened.
    pub(super) fn into_parts(self) -> (ImageOptions, SourceOptions) {
        let mut gate = FileGate::new();
        for parent in self.parents {
            gate = gate.with_parent(parent);
        }
        (self.image.with_gate(Arc::new(gate)), self.open)
    }
}
