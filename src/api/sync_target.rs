//! Where a sync writes.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::image::Format;
use crate::location::Location;
use crate::storage::Storage;

/// Where a sync writes.
#[derive(Clone)]
#[non_exhaustive]
pub enum SyncTarget {
    /// An image file or block device of this host, or a file that is to be created.
    Path(PathBuf),
    /// A target that is reached as [`Sync::connect`](crate::Sync::connect) says.
    Location(Location),
    /// A storage of the caller's own, written where it is.
    Storage {
        /// Its bytes.
        storage: Arc<dyn Storage>,
        /// What they are.
        format: Format,
        /// The file for the redo log. It must be on a medium that outlives a crash, and be named
        /// again for [`recover`](crate::recover).
        log: PathBuf,
    },
}

impl SyncTarget {
    /// A storage of the caller's own, with the file for its redo log.
    pub fn storage(storage: Arc<dyn Storage>, format: Format, log: impl Into<PathBuf>) -> Self {
        SyncTarget::Storage {
            storage,
            format,
            log: log.into(),
        }
    }
}

impl fmt::Debug for SyncTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut tuple = f.debug_tuple("SyncTarget");
        match self {
            SyncTarget::Path(path) => tuple.field(path),
            SyncTarget::Location(location) => tuple.field(location),
            SyncTarget::Storage { storage, .. } => tuple.field(&storage.path()),
        };
        tuple.finish()
    }
}

impl<P: AsRef<Path> + ?Sized> From<&P> for SyncTarget {
    fn from(path: &P) -> Self {
        SyncTarget::Path(path.as_ref().to_owned())
    }
}

impl From<Location> for SyncTarget {
    fn from(location: Location) -> Self {
        SyncTarget::Location(location)
    }
}

impl From<PathBuf> for SyncTarget {
    fn from(path: PathBuf) -> Self {
        SyncTarget::Path(path)
    }
}
