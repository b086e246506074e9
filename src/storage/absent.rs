//! A directory that is not there, for looking at what would be in it.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Access, Directory, FileId, Privacy, Storage};
use crate::error::{Error, ErrorKind, Result};

/// A directory that is not there: it holds nothing, and nothing can be made in it.
#[derive(Debug)]
pub(crate) struct AbsentDirectory {
    path: PathBuf,
}

impl AbsentDirectory {
    /// The directory that would be at `path`.
    pub(crate) fn new(path: impl Into<PathBuf>) -> Self {
        AbsentDirectory { path: path.into() }
    }

    fn missing<T>(&self, name: &OsStr) -> Result<T> {
        let what = "the directory is not there";
        Err(Error::new(ErrorKind::NotFound, what).at_path(self.path.join(name)))
    }
}

impl Directory for AbsentDirectory {
    fn path(&self) -> &Path {
        &self.path
    }

    fn open(&self, name: &OsStr, _access: Access) -> Result<Arc<dyn Storage>> {
        self.missing(name)
    }

    fn create(&self, name: &OsStr, _privacy: Privacy) -> Result<Arc<dyn Storage>> {
        self.missing(name)
    }

    fn rename(&self, from: &OsStr, _to: &OsStr) -> Result<()> {
        self.missing(from)
    }

    fn rename_new(&self, from: &OsStr, _to: &OsStr) -> Result<()> {
        self.missing(from)
    }

    fn remove(&self, name: &OsStr) -> Result<()> {
        self.missing(name)
    }

    fn remove_unused(&self, _name: &OsStr) -> Result<bool> {
        Ok(false)
    }

    fn file_id(&self, _name: &OsStr) -> Result<Option<FileId>> {
        Ok(None)
    }

    fn names(&self) -> Result<Vec<OsString>> {
        Ok(Vec::new())
    }

    fn sync(&self) -> Result<()> {
        self.missing(OsStr::new(""))
    }
}
