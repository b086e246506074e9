//! Files that are remembered by what they are, whatever their names become.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{FileType, Mode, OFlags};

use super::host_file::not_regular;
use crate::error::{Error, Result};
use crate::storage::host::file_id::FileId;

/// The open handles keep the numbers of these files from being given to others.
#[derive(Debug, Default)]
pub(super) struct KnownFiles(Mutex<Vec<(FileId, OwnedFd)>>);

impl KnownFiles {
    pub(super) fn contains(&self, id: FileId) -> bool {
        self.files().iter().any(|(known, _)| *known == id)
    }

    /// Remembers the file that has the name now; `path` is its path, for messages.
    pub(super) fn remember(&self, directory: &File, name: &OsStr, path: PathBuf) -> Result<FileId> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let pinned = rustix::fs::openat(directory, name, flags, Mode::empty())
            .map_err(|e| Error::io("open", e).at_path(&path))?;
        let facts =
            rustix::fs::fstat(&pinned).map_err(|e| Error::io("inspect", e).at_path(&path))?;
        if FileType::from_raw_mode(facts.st_mode) != FileType::RegularFile {
            return Err(not_regular(path));
        }
        let id = FileId {
            device: facts.st_dev,
            inode: facts.st_ino,
        };
        let mut known = self.files();
        known.retain(|(_, file)| rustix::fs::fstat(file).is_ok_and(|it| it.st_nlink > 0));
        if !known.iter().any(|(other, _)| *other == id) {
            known.push((id, pinned));
        }
        Ok(id)
    }

    fn files(&self) -> MutexGuard<'_, Vec<(FileId, OwnedFd)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
