//! Folders: where stages, sidecars and replaced targets are created, renamed and removed.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{FileStorage, Storage};
use crate::error::{Error, Result};

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Access {
    /// For reading only.
    Read,
    /// For reading and writing.
    Write,
}

/// A folder of files, named by plain names without separators.
///
/// The contract: a create, rename or remove is durable only after [`sync`](Folder::sync) has
/// returned `Ok`, and says nothing about the file's bytes, which need their own
/// [`Storage::sync`] first.
pub trait Folder: Send + Sync {
    /// The folder's path, for messages and for marks.
    fn path(&self) -> &Path;

    /// Opens an existing file.
    ///
    /// # Errors
    /// `NotFound`, `InUse`, `Io`.
    fn open(&self, name: &OsStr, access: Access) -> Result<Arc<dyn Storage>>;

    /// Creates an empty file and opens it for writing.
    ///
    /// # Errors
    /// `AlreadyExists`, `NoSpace`, `Io`.
    fn create_new(&self, name: &OsStr) -> Result<Arc<dyn Storage>>;

    /// Renames a file, replacing one that is there.
    ///
    /// # Errors
    /// `NotFound`, `Io`.
    fn rename(&self, from: &OsStr, to: &OsStr) -> Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// `NotFound`, `Io`.
    fn remove(&self, name: &OsStr) -> Result<()>;

    /// The names of all files.
    ///
    /// # Errors
    /// `Io`.
    fn names(&self) -> Result<Vec<OsString>>;

    /// Makes earlier creates, renames and removes durable.
    ///
    /// # Errors
    /// `Io`.
    fn sync(&self) -> Result<()>;

    /// Gives `to` the mode, owner and extended attributes of `from`.
    ///
    /// # Errors
    /// `NotFound`, `Io`.
    fn copy_attributes(&self, _from: &OsStr, _to: &OsStr) -> Result<()> {
        Ok(())
    }

    /// How many bytes can still be written here, where that is known.
    ///
    /// # Errors
    /// `Io`.
    fn free_bytes(&self) -> Result<Option<u64>> {
        Ok(None)
    }
}

/// A folder of the host's file system.
#[derive(Debug)]
pub struct HostFolder {
    path: PathBuf,
}

impl HostFolder {
    /// The folder at `path`, which must exist.
    ///
    /// # Errors
    /// `NotFound`, `Io`.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let metadata =
            fs::metadata(&path).map_err(|e| Error::io("look at folder", e).at_path(&path))?;
        if !metadata.is_dir() {
            return Err(Error::io("open folder", rustix::io::Errno::NOTDIR).at_path(&path));
        }
        Ok(HostFolder { path })
    }

    fn file(&self, name: &OsStr) -> PathBuf {
        self.path.join(name)
    }
}

impl Folder for HostFolder {
    fn path(&self) -> &Path {
        &self.path
    }

    fn open(&self, name: &OsStr, access: Access) -> Result<Arc<dyn Storage>> {
        let path = self.file(name);
        Ok(match access {
            Access::Read => Arc::new(FileStorage::open_read(path)?),
            Access::Write => Arc::new(FileStorage::open_write(path)?),
        })
    }

    fn create_new(&self, name: &OsStr) -> Result<Arc<dyn Storage>> {
        Ok(Arc::new(FileStorage::create_new(self.file(name))?))
    }

    fn rename(&self, from: &OsStr, to: &OsStr) -> Result<()> {
        let from = self.file(from);
        fs::rename(&from, self.file(to)).map_err(|e| Error::io("rename", e).at_path(from))
    }

    fn remove(&self, name: &OsStr) -> Result<()> {
        let path = self.file(name);
        fs::remove_file(&path).map_err(|e| Error::io("remove", e).at_path(path))
    }

    fn names(&self) -> Result<Vec<OsString>> {
        let failed = |e| Error::io("list folder", e).at_path(&self.path);
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            names.push(entry.map_err(failed)?.file_name());
        }
        Ok(names)
    }

    fn sync(&self) -> Result<()> {
        File::open(&self.path)
            .and_then(|folder| folder.sync_all())
            .map_err(|e| Error::io("sync folder", e).at_path(&self.path))
    }

    fn free_bytes(&self) -> Result<Option<u64>> {
        let stat = rustix::fs::statvfs(&self.path)
            .map_err(|e| Error::io("ask for free space", e).at_path(&self.path))?;
        Ok(Some(stat.f_bavail.saturating_mul(stat.f_frsize)))
    }
}
