//! Whether a source is still what it was.

#[cfg(feature = "imago")]
use std::fs::File;

use crate::error::{Error, ErrorKind, Result};
use crate::storage::SourceStamp;
use crate::storage::Storage;

impl SourceStamp {
    /// The stamp of `storage` now; `None` where the system keeps no such facts (memory).
    ///
    /// # Errors
    /// `Io`, `Poisoned`.
    pub fn take(storage: &dyn Storage) -> Result<Option<Self>> {
        storage.stamp()
    }

    /// Compares with what `storage` shows now.
    ///
    /// # Errors
    /// `SourceChanged`, naming what shows it; `Io`, `Poisoned`.
    pub fn check(&self, storage: &dyn Storage) -> Result<()> {
        let Some(now) = storage.stamp()? else {
            return Ok(());
        };
        let Some(what) = self.difference(&now) else {
            return Ok(());
        };
        Err(Error::new(
            ErrorKind::SourceChanged,
            format!("the source changed while it was read: {what}"),
        )
        .at_path(storage.path())
        .advise("run it again while nothing writes to the source"))
    }
}

/// A second handle for reading on the file that `storage` reads.
///
/// # Errors
/// `Unsupported` for what is no file; `SourceChanged` when its path leads elsewhere by now; `Io`.
#[cfg(feature = "imago")]
pub(crate) fn reopened(storage: &dyn Storage) -> Result<File> {
    let path = storage.path();
    let Some(expected) = storage.stamp()?.and_then(|stamp| stamp.file()) else {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "images of this format are read from files only",
        )
        .at_path(path));
    };
    let file = File::open(path).map_err(|e| Error::io("open", e).at_path(path))?;
    if SourceStamp::of_file(path, &file)?.file() != Some(expected) {
        return Err(Error::new(
            ErrorKind::SourceChanged,
            "the path leads to another file now",
        )
        .at_path(path));
    }
    Ok(file)
}
