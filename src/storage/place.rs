//! One file by its folder and name, whether it exists or not.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Access, Folder, HostFolder, Storage};
use crate::error::{Error, ErrorKind, Result};

/// Where a file is or will be.
#[derive(Clone)]
pub struct Place {
    folder: Arc<dyn Folder>,
    name: OsString,
}

impl Place {
    /// The file `name` in `folder`.
    pub fn new(folder: Arc<dyn Folder>, name: impl Into<OsString>) -> Self {
        Place {
            folder,
            name: name.into(),
        }
    }

    /// A file of the host. The folder must exist, the file need not. Symbolic links are not
    /// followed here.
    ///
    /// # Errors
    /// `InvalidInput` for a path without a file name, `NotFound` for a missing folder, `Io`.
    pub fn host(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let name = path.file_name().ok_or_else(|| {
            Error::new(ErrorKind::InvalidInput, "a path without a file name").at_path(path)
        })?;
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        Ok(Place::new(Arc::new(HostFolder::open(folder)?), name))
    }

    /// A file in the same folder whose name is made from this one's: `.NAME.SUFFIX`.
    #[must_use]
    pub fn hidden_sibling(&self, suffix: &str) -> Self {
        let is_hidden = self.name.as_encoded_bytes().starts_with(b".");
        let mut name = OsString::from(if is_hidden { "" } else { "." });
        if self.name.len() > LONGEST_NAME {
            name = OsString::from(".");
            // File systems allow 255 bytes; a longer made-up name keeps only a hash of its own.
            let hash = blake3::hash(self.name.as_encoded_bytes());
            name.push(&hash.to_hex()[..32]);
        } else {
            name.push(&self.name);
        }
        name.push(".");
        name.push(suffix);
        Place {
            folder: self.folder.clone(),
            name,
        }
    }

    /// The folder.
    pub fn folder(&self) -> &Arc<dyn Folder> {
        &self.folder
    }

    /// The name.
    pub fn name(&self) -> &OsStr {
        &self.name
    }

    /// Folder and name.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join(&self.name)
    }

    /// Opens the file, or `None` if it is not there.
    ///
    /// # Errors
    /// `InUse`, `Io`.
    pub fn open_if_there(&self, access: Access) -> Result<Option<Arc<dyn Storage>>> {
        match self.folder.open(&self.name, access) {
            Ok(storage) => Ok(Some(storage)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Opens the file.
    ///
    /// # Errors
    /// `NotFound`, `InUse`, `Io`.
    pub fn open(&self, access: Access) -> Result<Arc<dyn Storage>> {
        self.folder.open(&self.name, access)
    }

    /// Creates the file; its name is durable once the folder is synced.
    ///
    /// # Errors
    /// `AlreadyExists`, `NoSpace`, `Io`.
    pub fn create_new(&self) -> Result<Arc<dyn Storage>> {
        self.folder.create_new(&self.name)
    }

    /// Creates the file as a whole: `write` fills it under another name, and it takes its own once
    /// it is complete. Both are durable when this returns; after an error nothing is there.
    ///
    /// # Errors
    /// `AlreadyExists` for a file that is there; those of `write`; `NoSpace`, `Io`.
    pub fn create_whole<T>(&self, write: impl FnOnce(Arc<dyn Storage>) -> Result<T>) -> Result<T> {
        self.refuse_if_there()?;
        let part = self.hidden_sibling("part");
        part.remove_if_there()?;
        let storage = self.folder.create_shared(&part.name)?;
        let written = write(storage.clone()).and_then(|value| {
            storage.sync()?;
            self.refuse_if_there()?;
            self.folder.rename(&part.name, &self.name)?;
            Ok(value)
        });
        if written.is_err() {
            // The first error says more than one from cleaning up.
            let _ = part.remove_if_there();
        }
        let value = written?;
        self.folder.sync()?;
        Ok(value)
    }

    fn refuse_if_there(&self) -> Result<()> {
        match self.folder.open(&self.name, Access::Read) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            _ => Err(Error::new(ErrorKind::AlreadyExists, "the file exists")
                .at_path(self.path())
                .advise("name another file, or remove it first")),
        }
    }

    /// Removes the file if it is there. Durable once the folder is synced.
    ///
    /// # Errors
    /// `Io`.
    pub fn remove_if_there(&self) -> Result<()> {
        match self.folder.remove(&self.name) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path().display())
    }
}

/// Leaves room for the dot and the longest suffix within 255 bytes.
const LONGEST_NAME: usize = 220;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryFolder;

    #[test]
    fn a_name_alone_is_a_file_of_the_folder_one_stands_in() {
        let place = Place::host("disk.raw").unwrap();
        assert_eq!(place.path(), std::path::Path::new("./disk.raw"));
        assert!(Place::host("/").is_err());
    }

    #[test]
    fn whatever_stands_under_a_name_is_not_replaced_by_a_new_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.raw");
        std::fs::create_dir(&path).unwrap();
        let place = Place::host(&path).unwrap();
        let error = place.create_whole(|_| Ok(())).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_long_name_gets_a_sibling_that_still_fits() {
        let folder: Arc<dyn Folder> = Arc::new(MemoryFolder::new());
        let short = Place::new(folder.clone(), "disk.raw").hidden_sibling("stage");
        assert_eq!(short.name(), ".disk.raw.stage");
        let whole = "x".repeat(LONGEST_NAME);
        let just = Place::new(folder.clone(), &whole).hidden_sibling("stage");
        assert_eq!(just.name(), format!(".{whole}.stage").as_str());
        let long = Place::new(folder, "x".repeat(255)).hidden_sibling("stage");
        assert!(long.name().len() < 255);
    }
}
