//! Directories of Windows: opened and made.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::os::windows::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use windows_sys::Win32::Storage::FileSystem::{
    FILE_FLAG_BACKUP_SEMANTICS, FILE_FLAG_OPEN_REPARSE_POINT, FILE_LIST_DIRECTORY,
    FILE_READ_ATTRIBUTES, FILE_SHARE_READ, FILE_SHARE_WRITE,
};

use super::names::refuse_odd_name;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::Directory;
use crate::storage::host::allocation::Allocation;

/// A directory of the host's file system.
///
/// It can be neither renamed nor removed while this lives, nor can one above it: its handle does
/// not share that. No link is followed inside it. A file that is open for writing can be read by
/// other programs meanwhile, and not written.
#[derive(Debug)]
pub struct HostDirectory {
    pub(super) path: PathBuf,
    pub(super) held: File,
    pub(super) allocation: Allocation,
}

impl HostDirectory {
    /// The directory at `path`, which must exist.
    ///
    /// # Errors
    /// `NotFound`, `Io`.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let real = fs::canonicalize(&path);
        Self::open_real(real.map_err(|e| Error::io("open directory", e).at_path(&path))?)
    }

    /// As [`open`](HostDirectory::open), for a path without links: none that came meanwhile is
    /// followed.
    ///
    /// # Errors
    /// `NotFound`, `Io`.
    pub(crate) fn open_real(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        Ok(HostDirectory {
            held: hold_directory(&path)?,
            path,
            allocation: Allocation::default(),
        })
    }

    /// Makes the directory at `path` and those above it that are missing. Durable when it returns.
    ///
    /// # Errors
    /// `AlreadyExists` where a link or a file has the name; `NoSpace`, `Io`.
    pub fn make(path: &Path) -> Result<()> {
        match fs::symlink_metadata(path) {
            Ok(facts) if facts.is_dir() => return Ok(()),
            Ok(_) => {
                let what = "something that is no directory has this name";
                return Err(Error::new(ErrorKind::AlreadyExists, what)
                    .at_path(path)
                    .advise("name the directory itself"));
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io("inspect directory", e).at_path(path)),
        }
        // A relative path ends in nothing, which is here.
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        Self::make(parent)?;
        match fs::create_dir(path) {
            // Made by another process meanwhile.
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => return Self::make(path),
            made => made.map_err(|e| Error::io("create directory", e).at_path(path))?,
        }
        HostDirectory::open(parent)?.sync()
    }

    /// The directory `name` in this one, made where it is missing; no link is followed. Durable
    /// when it returns.
    ///
    /// # Errors
    /// `InvalidInput` for what is no plain name; `NoSpace`, `Io`.
    pub fn subdirectory(&self, name: &OsStr) -> Result<Self> {
        let path = self.file(name)?;
        match fs::create_dir(&path) {
            Ok(()) => self.sync()?,
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(cause) => return Err(Error::io("create directory", cause).at_path(path)),
        }
        self.open_subdirectory(name)
    }

    /// As [`subdirectory`](HostDirectory::subdirectory), for one that is there.
    ///
    /// # Errors
    /// `NotFound`; those of `subdirectory`.
    pub fn open_subdirectory(&self, name: &OsStr) -> Result<Self> {
        let opened = Self::open_real(self.file(name)?)?;
        Ok(opened.with_allocation(self.allocation))
    }

    /// Access lists are not read: who may write to a directory is the operator's choice.
    ///
    /// # Errors
    /// None here.
    pub fn refuse_foreign(&self) -> Result<()> {
        Ok(())
    }

    /// Decides how zeros are stored in the files opened and created here.
    #[must_use]
    pub fn with_allocation(mut self, allocation: Allocation) -> Self {
        self.allocation = allocation;
        self
    }

    /// The path of a file.
    pub(super) fn file(&self, name: &OsStr) -> Result<PathBuf> {
        refuse_odd_name(name)?;
        Ok(self.path.join(name))
    }
}

/// Opens a directory so that it keeps its name as long as it is open.
///
/// # Errors
/// `NotFound`, `Io`; `InUse` for a link.
pub(crate) fn hold_directory(path: &Path) -> Result<File> {
    let failed = |cause| Error::io("open directory", cause).at_path(path);
    let file = OpenOptions::new()
        .access_mode(FILE_LIST_DIRECTORY | FILE_READ_ATTRIBUTES)
        .share_mode(FILE_SHARE_READ | FILE_SHARE_WRITE)
        .custom_flags(FILE_FLAG_BACKUP_SEMANTICS | FILE_FLAG_OPEN_REPARSE_POINT)
        .open(path)
        .map_err(failed)?;
    let facts = file.metadata().map_err(failed)?;
    if facts.is_symlink() {
        let what = "a directory or link on the way was replaced";
        return Err(Error::new(ErrorKind::InUse, what)
            .at_path(path)
            .advise("try again"));
    }
    match facts.is_dir() {
        true => Ok(file),
        false => Err(failed(std::io::ErrorKind::NotADirectory.into())),
    }
}
