//! Where a sync writes.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::delta::Delta;
use crate::error::{Error, ErrorKind, Result};
use crate::image::Format;
use crate::location::Location;
use crate::storage::{Access, FileRef, Storage};

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
        /// The file for the redo log: missing, or one that an earlier sync left. It must be on a
        /// medium that outlives a crash, and be named again for [`recover`](crate::recover).
        log: PathBuf,
    },
}

impl SyncTarget {
    /// A storage of the caller's own, with the file for its redo log. The storage is not locked:
    /// the caller keeps other syncs away from it, and gives each storage a log of its own.
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

/// The file for the redo log of an own storage.
///
/// # Errors
/// `AlreadyExists` for a file that is no redo log; `NotFound` for a missing directory; `Io`.
pub(super) fn log_file(path: &Path) -> Result<FileRef> {
    let file_ref = FileRef::to_write(path)?;
    let Some(there) = file_ref.open_own_if_there(Access::Read)? else {
        return Ok(file_ref);
    };
    if Delta::may_be_one(&*there)? {
        return Ok(file_ref);
    }
    let what = "something other than a redo log is there, and would be removed";
    Err(Error::new(ErrorKind::AlreadyExists, what)
        .at_path(path)
        .advise("name another file for the redo log"))
}
