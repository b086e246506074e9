//! Directories: where logs, recovery files and replaced targets are created, renamed and removed.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::Arc;

use super::{FileId, Privacy, Storage};
use crate::error::Result;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Access {
    /// For reading only.
    Read,
    /// For reading and writing.
    Write,
}

/// A directory of files, named by plain names without separators.
///
/// The contract: a create, rename or remove is durable only after [`sync`](Directory::sync) has
/// returned `Ok`, and says nothing about the file's bytes, which need their own
/// [`Storage::sync`] first.
pub trait Directory: Send + Sync {
    /// The directory's path, for messages and for markers.
    fn path(&self) -> &Path;

    /// Which directory it is, whatever its paths are; `None` where only its path tells.
    ///
    /// # Errors
    /// `Io`.
    fn id(&self) -> Result<Option<FileId>> {
        Ok(None)
    }

    /// Opens an existing file. One that is opened for writing is locked first, where that can be,
    /// and is the one that has the name when the lock is held.
    ///
    /// # Errors
    /// `NotFound`, `InUse`, `Io`; `Unsupported` for what is no regular file.
    fn open(&self, name: &OsStr, access: Access) -> Result<Arc<dyn Storage>>;

    /// As [`open`](Directory::open), for a file that this program made: a regular file with one
    /// name, owned by the user of this process or by root, that no other user may write to. A file
    /// that was created through this very directory is taken for one whatever the file system shows
    /// of it, and so is one that was [trusted](Directory::trust).
    ///
    /// # Errors
    /// `Untrusted` for every other file, and for symbolic links; those of `open`.
    fn open_own(&self, name: &OsStr, access: Access) -> Result<Arc<dyn Storage>> {
        self.open(name, access)
    }

    /// As [`open_own`](Directory::open_own), for a file that may have further names.
    ///
    /// # Errors
    /// As `open_own`.
    fn open_linked(&self, name: &OsStr, access: Access) -> Result<Arc<dyn Storage>> {
        self.open_own(name, access)
    }

    /// As [`open_own`](Directory::open_own) for writing, for a file that will take the place of
    /// `model`, or of nothing, and whose users are those that `privacy` admits or that the model
    /// has.
    ///
    /// # Errors
    /// As `open_own`.
    fn open_copy(
        &self,
        name: &OsStr,
        _model: Option<&OsStr>,
        _privacy: Privacy,
    ) -> Result<Arc<dyn Storage>> {
        self.open_own(name, Access::Write)
    }

    /// Takes the file that has this name now for one that this program made, whatever its owner;
    /// the caller answers for it.
    ///
    /// # Errors
    /// `NotFound`, `Io`; `Unsupported` for what is no regular file.
    fn trust(&self, _name: &OsStr) -> Result<()> {
        Ok(())
    }

    /// Refuses the file `name` in a directory for device nodes, such as `/dev`: none is made there.
    ///
    /// # Errors
    /// `InvalidInput`; `Io`.
    fn refuse_nodes(&self, _name: &OsStr) -> Result<()> {
        Ok(())
    }

    /// Creates an empty file, opens it for writing and locks it, where that can be. Others may use
    /// it as `privacy` says, and never more.
    ///
    /// # Errors
    /// `AlreadyExists` (also for a symbolic link), `NoSpace`, `Io`.
    fn create(&self, name: &OsStr, privacy: Privacy) -> Result<Arc<dyn Storage>>;

    /// As [`create`](Directory::create), for its owner alone.
    ///
    /// # Errors
    /// As `create`.
    fn create_new(&self, name: &OsStr) -> Result<Arc<dyn Storage>> {
        self.create(name, Privacy::PRIVATE)
    }

    /// Renames a file, replacing one that is there.
    ///
    /// # Errors
    /// `NotFound`, `Io`.
    fn rename(&self, from: &OsStr, to: &OsStr) -> Result<()>;

    /// Renames a file to a name that nothing has. Where the file system has no such call, the file
    /// gets its second name before it loses its first: a crash in between leaves both.
    ///
    /// # Errors
    /// `AlreadyExists`, `NotFound`, `Io`; `Unsupported` where the file system can do neither.
    fn rename_new(&self, from: &OsStr, to: &OsStr) -> Result<()>;

    /// Has two files take each other's name, both at once; whether the file system can do that.
    ///
    /// # Errors
    /// `NotFound`, `Io`.
    fn exchange(&self, _one: &OsStr, _other: &OsStr) -> Result<bool> {
        Ok(false)
    }

    /// Whether files here can be [clones](Storage::become_clone_of) of each other, which is found
    /// out by trying. Leaves nothing behind.
    ///
    /// # Errors
    /// `Io`.
    fn can_clone(&self) -> Result<bool> {
        Ok(false)
    }

    /// Removes a file.
    ///
    /// # Errors
    /// `NotFound`, `Io`.
    fn remove(&self, name: &OsStr) -> Result<()>;

    /// Removes a file of this program that no process has open for writing; whether it did. Where
    /// the file system has no locks to tell that by, nothing is removed.
    ///
    /// # Errors
    /// `Io`.
    fn remove_unused(&self, name: &OsStr) -> Result<bool>;

    /// Which file has this name; `None` if there is none.
    ///
    /// # Errors
    /// `InvalidInput` for what is no plain name; `Io`.
    fn file_id(&self, name: &OsStr) -> Result<Option<FileId>>;

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

    /// Gives `to` the owner, mode, extended attributes (access lists, labels) and flags (such as no
    /// copy on write) of `from`; says what could not be kept. Durable after the next `sync` of
    /// `to`. Flags of how data is stored want an empty file.
    ///
    /// # Errors
    /// `NotFound`, `Io`: also where this process may not give the owner away.
    fn copy_attributes(&self, _from: &OsStr, _to: &OsStr) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// Whether `to` has the owner, mode and extended attributes that
    /// [`copy_attributes`](Directory::copy_attributes) would give it. Changes nothing.
    ///
    /// # Errors
    /// `NotFound`, `Io`.
    fn has_attributes_of(&self, _from: &OsStr, _to: &OsStr) -> Result<bool> {
        Ok(true)
    }

    /// Whether what lies here is lost when the machine goes down (a file system in memory).
    ///
    /// # Errors
    /// `Io`.
    fn is_volatile(&self) -> Result<bool> {
        Ok(false)
    }

    /// Refuses a directory whose files another user may exchange.
    ///
    /// # Errors
    /// `Untrusted`, `Io`.
    fn refuse_shared(&self) -> Result<()> {
        Ok(())
    }

    /// How many bytes can still be written here, where that is known.
    ///
    /// # Errors
    /// `Io`.
    fn free_bytes(&self) -> Result<Option<u64>> {
        Ok(None)
    }

    /// Refuses a directory in which this process may create no files, as far as the system can
    /// tell. Changes nothing.
    ///
    /// # Errors
    /// `Io`.
    fn check_writable(&self) -> Result<()> {
        Ok(())
    }

    /// Refuses a length that no file may have here, by the file system or the limits of this
    /// process, as far as the system can tell. Changes nothing.
    ///
    /// # Errors
    /// `NoSpace`.
    fn check_len(&self, _len: u64) -> Result<()> {
        Ok(())
    }
}
