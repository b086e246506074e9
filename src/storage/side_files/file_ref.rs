//! One file by its directory and name, whether it exists or not.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::side_name::{run_id, run_name, side_name};
use crate::error::{Error, ErrorKind, Result};
use crate::random::random;
use crate::storage::host::access::links::resolve_to_write;
use crate::storage::{Access, Directory, HostDirectory, Privacy, Storage};

/// Where a file is or will be.
#[derive(Clone)]
pub struct FileRef {
    directory: Arc<dyn Directory>,
    name: OsString,
}

impl FileRef {
    /// The file `name` in `directory`.
    pub fn new(directory: Arc<dyn Directory>, name: impl Into<OsString>) -> Self {
        FileRef {
            directory,
            name: name.into(),
        }
    }

    /// A file of the host. The directory must exist, the file need not. Symbolic links are not
    /// followed here.
    ///
    /// # Errors
    /// `InvalidInput` for a path without a file name, `NotFound` for a missing directory, `Io`.
    pub fn host(path: impl AsRef<Path>) -> Result<Self> {
        let (directory, name) = directory_and_name(path.as_ref())?;
        Ok(FileRef::new(
            Arc::new(HostDirectory::open(directory)?),
            name,
        ))
    }

    /// A file of the host that is made or replaced, where `path` leads through symbolic links of
    /// root and of the user of this process. The directory must exist, the file need not.
    ///
    /// # Errors
    /// `Untrusted` for a symbolic link of another user; `InvalidInput` for a path without a file
    /// name, `NotFound` for a missing directory, `InUse`, `Io`.
    pub fn to_write(path: impl AsRef<Path>) -> Result<Self> {
        let path = resolve_to_write(path)?;
        let (directory, name) = directory_and_name(&path)?;
        Ok(FileRef::new(
            Arc::new(HostDirectory::open_real(directory)?),
            name,
        ))
    }

    /// The file next to this one that is named after it: `.NAME.SUFFIX`. No two files share one,
    /// and the name has at most 255 bytes.
    #[must_use]
    pub fn hidden_sibling(&self, suffix: &str) -> Self {
        self.sibling(side_name(&self.name, suffix))
    }

    /// As [`hidden_sibling`](FileRef::hidden_sibling), for one run: `.NAME.ID.SUFFIX`, where `id`
    /// are 32 hexadecimal digits.
    #[must_use]
    pub fn run_sibling(&self, id: &str, suffix: &str) -> Self {
        self.sibling(run_name(&self.name, id, suffix))
    }

    /// All [siblings](FileRef::run_sibling) of runs that are there, with the ids in their names.
    ///
    /// # Errors
    /// `Io`.
    pub fn run_siblings(&self, suffix: &str) -> Result<Vec<(String, FileRef)>> {
        let names = self.directory.names()?;
        let found = names.into_iter().filter_map(|name| {
            let id = run_id(&name, &self.name, suffix)?.to_owned();
            Some((id, self.sibling(name)))
        });
        Ok(found.collect())
    }

    fn sibling(&self, name: OsString) -> Self {
        FileRef {
            directory: self.directory.clone(),
            name,
        }
    }

    /// The directory.
    pub fn directory(&self) -> &Arc<dyn Directory> {
        &self.directory
    }

    /// The name.
    pub fn name(&self) -> &OsStr {
        &self.name
    }

    /// Whether both are one name in one directory, whether or not a file has it.
    ///
    /// # Errors
    /// `Io`.
    pub fn is_same(&self, other: &FileRef) -> Result<bool> {
        Ok(self.name == other.name && self.is_beside(other)?)
    }

    /// Whether both are in one directory, however its path is spelled.
    ///
    /// # Errors
    /// `Io`.
    pub fn is_beside(&self, other: &FileRef) -> Result<bool> {
        Ok(match (self.directory.id()?, other.directory.id()?) {
            (Some(mine), Some(theirs)) => mine == theirs,
            _ => self.directory.path() == other.directory.path(),
        })
    }

    /// Directory and name.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join(&self.name)
    }

    /// Opens the file, or `None` if it is not there.
    ///
    /// # Errors
    /// `InUse`, `Io`.
    pub fn open_if_there(&self, access: Access) -> Result<Option<Arc<dyn Storage>>> {
        match self.directory.open(&self.name, access) {
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
        self.directory.open(&self.name, access)
    }

    /// As [`open`](FileRef::open), for a file that this program made; see
    /// [`Directory::open_own`].
    ///
    /// # Errors
    /// `Untrusted` for another file; `NotFound`, `InUse`, `Io`.
    pub fn open_own(&self, access: Access) -> Result<Arc<dyn Storage>> {
        self.directory.open_own(&self.name, access)
    }

    /// As [`open_own`](FileRef::open_own), or `None` if the file is not there.
    ///
    /// # Errors
    /// `Untrusted` for another file; `InUse`, `Io`.
    pub fn open_own_if_there(&self, access: Access) -> Result<Option<Arc<dyn Storage>>> {
        match self.open_own(access) {
            Ok(storage) => Ok(Some(storage)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Opens, for writing, a file that is to take the place of `model`, or of nothing; see
    /// [`Directory::open_copy`].
    ///
    /// # Errors
    /// `Untrusted` for another file; `NotFound`, `InUse`, `Io`.
    pub fn open_copy(&self, model: Option<&FileRef>, privacy: Privacy) -> Result<Arc<dyn Storage>> {
        let model = model.map(FileRef::name);
        self.directory.open_copy(&self.name, model, privacy)
    }

    /// Removes the file if it is there, and is one that this program made. Durable once the
    /// directory is synced.
    ///
    /// # Errors
    /// `Untrusted` for another file; `Io`.
    pub fn remove_own_if_there(&self) -> Result<()> {
        match self.open_own_if_there(Access::Read)? {
            Some(_) => self.remove_if_there(),
            None => Ok(()),
        }
    }

    /// Whether anything has this name. Nothing is opened.
    ///
    /// # Errors
    /// `Io`.
    pub fn is_there(&self) -> Result<bool> {
        Ok(self.directory.file_id(&self.name)?.is_some())
    }

    /// Whether the name leads to the file that is open as `storage`.
    ///
    /// # Errors
    /// `Io`.
    pub fn leads_to(&self, storage: &dyn Storage) -> Result<bool> {
        let named = self.directory.file_id(&self.name)?;
        Ok(named.is_some() && named == storage.file_id()?)
    }

    /// Creates the file for its owner alone; its name is durable once the directory is synced.
    ///
    /// # Errors
    /// `AlreadyExists`, `NoSpace`, `Io`.
    pub fn create_new(&self) -> Result<Arc<dyn Storage>> {
        self.directory.create_new(&self.name)
    }

    /// As [`create_new`](FileRef::create_new), for those whom `privacy` admits.
    ///
    /// # Errors
    /// As `create_new`.
    pub fn create(&self, privacy: Privacy) -> Result<Arc<dyn Storage>> {
        self.directory.create(&self.name, privacy)
    }

    /// Gives the file the name of `to`, in the same directory, which nothing may have. Durable once
    /// the directory is synced.
    ///
    /// # Errors
    /// As [`Directory::rename_new`].
    pub fn rename_new(&self, to: &FileRef) -> Result<()> {
        self.directory.rename_new(&self.name, &to.name)
    }

    /// Creates a file next to this one that no other process shares, under a random name that ends
    /// with `suffix`, and removes those that crashes have left. Where it is, and the open file.
    ///
    /// # Errors
    /// `NoSpace`, `Io`.
    pub fn create_temporary(
        &self,
        suffix: &str,
        privacy: Privacy,
    ) -> Result<(FileRef, Arc<dyn Storage>)> {
        self.remove_leftovers(suffix)?;
        let mut tries = 0;
        loop {
            let id = u128::from_le_bytes(random()?);
            let place = self.run_sibling(&format!("{id:032x}"), suffix);
            tries += 1;
            match place.create(privacy) {
                // Another process took it for a leftover before it was locked.
                Err(error) if error.kind() == ErrorKind::InUse && tries < TRIES => {}
                created => return created.map(|storage| (place, storage)),
            }
        }
    }

    /// Removes what crashes have left of [temporary files](FileRef::create_temporary) of this one:
    /// only files that this program made and that no process has open.
    ///
    /// # Errors
    /// `Io`.
    pub fn remove_leftovers(&self, suffix: &str) -> Result<()> {
        for (_, left) in self.run_siblings(suffix)? {
            let named = self.directory.file_id(&self.name)?;
            // A crash in the middle of a renaming left the finished file with both names.
            match named.is_some() && named == self.directory.file_id(&left.name)? {
                true => left.remove_if_there()?,
                false => drop(self.directory.remove_unused(&left.name)?),
            }
        }
        Ok(())
    }

    /// Creates the file as a whole, for those whom `privacy` admits: `write` fills it under another
    /// name, and it takes its own once it is complete. Nothing is replaced, and no two processes
    /// write the same file. File and name are durable when this returns; after an error nothing is
    /// there.
    ///
    /// # Errors
    /// `AlreadyExists` for a file that is there, also one that came meanwhile; those of `write`;
    /// `Unsupported` where the file system cannot rename without replacing; `NoSpace`, `Io`.
    pub fn create_whole<T>(
        &self,
        privacy: Privacy,
        write: impl FnOnce(Arc<dyn Storage>) -> Result<T>,
    ) -> Result<T> {
        if self.is_there()? {
            return Err(self.taken());
        }
        let (part, storage) = self.create_temporary(PART, privacy)?;
        let written = write(storage.clone()).and_then(|value| {
            storage.sync()?;
            match part.rename_new(self) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(self.taken()),
                renamed => renamed.map(|()| value),
            }
        });
        if written.is_err() {
            // The first error says more than one from cleaning up.
            let _ = part.remove_if_there();
        }
        // Unlocked now that no other process can take it for a leftover.
        drop(storage);
        let value = written.map_err(|error| error.instead_of(&part.path(), &self.path()))?;
        self.directory.sync()?;
        Ok(value)
    }

    fn taken(&self) -> Error {
        Error::new(ErrorKind::AlreadyExists, "the file exists")
            .at_path(self.path())
            .advise("name another file, or remove it first")
    }

    /// Removes the file if it is there. Durable once the directory is synced.
    ///
    /// # Errors
    /// `Io`.
    pub fn remove_if_there(&self) -> Result<()> {
        match self.directory.remove(&self.name) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for FileRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path().display())
    }
}

/// What the names of files end with that are not complete.
const PART: &str = "part";
/// How often a name is chosen.
const TRIES: usize = 8;

/// The directory and the name of a file; the directory of a bare name is the current one.
///
/// # Errors
/// `InvalidInput` for a path without a file name.
pub(in crate::storage) fn directory_and_name(path: &Path) -> Result<(&Path, &OsStr)> {
    let name = path.file_name().ok_or_else(|| {
        Error::new(ErrorKind::InvalidInput, "a path without a file name").at_path(path)
    })?;
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    Ok((directory, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_alone_is_a_file_of_the_directory_one_stands_in() {
        let place = FileRef::host("disk.raw").unwrap();
        assert_eq!(place.path(), std::path::Path::new("./disk.raw"));
        assert!(FileRef::host("/").is_err());
    }

    #[test]
    fn an_error_names_the_file_that_was_asked_for_and_not_the_part_that_was_removed() {
        let directory = tempfile::tempdir().unwrap();
        let place = FileRef::host(directory.path().join("d.delta")).unwrap();
        let write = |file: std::sync::Arc<dyn crate::storage::Storage>| -> crate::Result<()> {
            Err(crate::Error::new(crate::ErrorKind::NoSpace, "cannot write").at_path(file.path()))
        };
        let error = place.create_whole(Privacy::PRIVATE, write).unwrap_err();
        assert_eq!(error.path(), Some(&*place.path()));
    }

    #[test]
    fn whatever_stands_under_a_name_is_not_replaced_by_a_new_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk.raw");
        std::fs::create_dir(&path).unwrap();
        let place = FileRef::host(&path).unwrap();
        let error = place
            .create_whole(Privacy::PRIVATE, |_| Ok(()))
            .unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
