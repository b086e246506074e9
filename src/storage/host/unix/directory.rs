//! Directories of the host: opened and made.

use std::ffi::OsStr;
use std::fs::{DirBuilder, File, Metadata};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::access::links::{self, refuse_foreign_links};
use super::known_files::KnownFiles;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::Directory;
use crate::storage::host::allocation::Allocation;

/// A directory of the host's file system.
///
/// It stays the same directory when it or one above it is renamed, and no symbolic link is followed
/// inside it. A file that is open for writing is locked as QEMU locks it, where the file system
/// can: no other program opens it for writing meanwhile.
#[derive(Debug)]
pub struct HostDirectory {
    pub(super) path: PathBuf,
    pub(super) directory: File,
    pub(super) allocation: Allocation,
    /// Files that are ours although the file system does not show it.
    pub(super) known: KnownFiles,
}

impl HostDirectory {
    /// The directory at `path`, which must exist.
    ///
    /// # Errors
    /// `NotFound`, `Io`.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(&path, flags, Mode::empty())
            .map_err(|e| Error::io("open directory", e).at_path(&path))?;
        Ok(Self::of(path, directory))
    }

    /// As [`open`](HostDirectory::open), for a path without symbolic links: none that came
    /// meanwhile is followed, where the system can tell.
    ///
    /// # Errors
    /// `InUse` for a path with a link; `NotFound`, `Io`.
    pub(crate) fn open_real(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let how = ResolveFlags::NO_SYMLINKS;
        match rustix::fs::openat2(rustix::fs::CWD, &path, flags, Mode::empty(), how) {
            Ok(directory) => Ok(Self::of(path, directory)),
            // Unknown to old systems, and forbidden by the filters of old containers.
            Err(Errno::NOSYS | Errno::PERM) => Self::open(path),
            Err(Errno::LOOP) => Err(links::changed(&path)),
            Err(cause) => Err(Error::io("open directory", cause).at_path(path)),
        }
    }

    fn of(path: PathBuf, directory: OwnedFd) -> Self {
        HostDirectory {
            path,
            directory: directory.into(),
            allocation: Allocation::default(),
            known: KnownFiles::default(),
        }
    }

    /// Makes the directory at `path` and those above it that are missing, for their owner alone.
    /// Durable when it returns.
    ///
    /// # Errors
    /// `AlreadyExists` where a link or a file has the name; `Untrusted` for a link of another user
    /// on the way; `NoSpace`, `Io`.
    pub fn make(path: &Path) -> Result<()> {
        refuse_foreign_links(path)?;
        Self::make_below(path)
    }

    fn make_below(path: &Path) -> Result<()> {
        match std::fs::symlink_metadata(path) {
            Ok(facts) if facts.is_dir() => return Ok(()),
            Ok(facts) => {
                let what = match facts.is_symlink() {
                    true => "a symbolic link has this name",
                    false => "something that is no directory has this name",
                };
                return Err(Error::new(ErrorKind::AlreadyExists, what)
                    .at_path(path)
                    .advise("name the directory itself"));
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io("inspect directory", e).at_path(path)),
        }
        let parent = path.parent().unwrap_or(Path::new("/"));
        // A relative path ends in nothing, which is here.
        let parent = match parent.as_os_str().is_empty() {
            true => Path::new("."),
            false => parent,
        };
        // A directory on the way may be reached by a link of root or of the user, as /tmp can be.
        if !parent.is_symlink() {
            Self::make_below(parent)?;
        }
        HostDirectory::open(parent)?.refuse_nodes(path.file_name().unwrap_or_default())?;
        match DirBuilder::new().mode(0o700).create(path) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                // Made by another process meanwhile, which may not have synced it yet.
                Self::make_below(path)?;
            }
            made => made.map_err(|e| Error::io("create directory", e).at_path(path))?,
        }
        HostDirectory::open(parent)?.sync()
    }

    /// The directory `name` in this one, made for its owner alone where it is missing; no link is
    /// followed. Durable when it returns.
    ///
    /// # Errors
    /// `Untrusted` for a directory of another user, or that others may write to; `InvalidInput` for
    /// what is no plain name; `NoSpace`, `Io`.
    pub fn subdirectory(&self, name: &OsStr) -> Result<Self> {
        let path = self.file(name)?;
        match rustix::fs::mkdirat(&self.directory, name, Mode::from_raw_mode(0o700)) {
            Ok(()) => self.sync()?,
            Err(rustix::io::Errno::EXIST) => {}
            Err(cause) => return Err(Error::io("create directory", cause).at_path(path)),
        }
        self.open_subdirectory(name)
    }

    /// As [`subdirectory`](HostDirectory::subdirectory), for one that is there.
    ///
    /// # Errors
    /// `NotFound`; those of `subdirectory`.
    pub fn open_subdirectory(&self, name: &OsStr) -> Result<Self> {
        let path = self.file(name)?;
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(&self.directory, name, flags, Mode::empty())
            .map_err(|e| Error::io("open directory", e).at_path(&path))?;
        let directory = HostDirectory {
            path,
            directory: directory.into(),
            allocation: self.allocation,
            known: KnownFiles::default(),
        };
        directory.refuse_foreign()?;
        Ok(directory)
    }

    /// Refuses a directory of another user, or one that others may write to, in whatever way.
    ///
    /// # Errors
    /// `Untrusted`, `Io`.
    pub fn refuse_foreign(&self) -> Result<()> {
        self.refuse_shared()?;
        let facts = look_at(&self.directory, &self.path)?;
        match facts.mode() & 0o022 {
            0 => Ok(()),
            _ => Err(
                Error::new(ErrorKind::Untrusted, "others may write to the directory")
                    .at_path(&self.path)
                    .advise("use a directory of your own that no other user may write to"),
            ),
        }
    }

    /// Decides what becomes of the space of zeros in the files opened and created here. With
    /// [`Allocation::Full`] a file's holes are filled when it is synced for the first time.
    #[must_use]
    pub fn with_allocation(mut self, allocation: Allocation) -> Self {
        self.allocation = allocation;
        self
    }

    /// The path of a file, for messages.
    pub(super) fn file(&self, name: &OsStr) -> Result<PathBuf> {
        let bytes = name.as_bytes();
        if bytes.is_empty() || bytes == b"." || bytes == b".." || bytes.contains(&b'/') {
            return Err(
                Error::new(ErrorKind::InvalidInput, "this is no plain file name").at_path(name),
            );
        }
        Ok(self.path.join(name))
    }
}

pub(super) fn look_at(file: &File, path: &Path) -> Result<Metadata> {
    file.metadata()
        .map_err(|e| Error::io("inspect", e).at_path(path))
}
