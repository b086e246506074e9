//! Folders: where stages, sidecars and replaced targets are created, renamed and removed.

use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, Dir, Mode, OFlags};

use super::attributes::copy_attributes;
use super::host_file::{FileId, HostFile, HostKind};
use super::lock::{self, Role};
use super::open::patiently;
use super::{Allocation, FileStorage, Storage};
use crate::error::{Error, ErrorKind, Result};

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

    /// Creates an empty file that only its owner may use, and opens it for writing.
    ///
    /// # Errors
    /// `AlreadyExists` (also for a symbolic link), `NoSpace`, `Io`.
    fn create_new(&self, name: &OsStr) -> Result<Arc<dyn Storage>>;

    /// As [`create_new`](Folder::create_new), with the mode that new files have by default: for
    /// results, not for stages.
    ///
    /// # Errors
    /// As `create_new`.
    fn create_shared(&self, name: &OsStr) -> Result<Arc<dyn Storage>> {
        self.create_new(name)
    }

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

    /// Gives `to` the owner, mode and extended attributes (access lists, labels) of `from`.
    /// Durable after the next `sync` of `to`.
    ///
    /// # Errors
    /// `NotFound`, `Io`: also where this process may not give the owner away.
    fn copy_attributes(&self, _from: &OsStr, _to: &OsStr) -> Result<()> {
        Ok(())
    }

    /// Whether what lies here is lost when the machine goes down (a file system in memory).
    ///
    /// # Errors
    /// `Io`.
    fn is_volatile(&self) -> Result<bool> {
        Ok(false)
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
///
/// It stays the same folder when it or one above it is renamed, and no symbolic link is followed
/// inside it. A file that is open for writing is locked as QEMU locks it, where the file system
/// can: nobody else opens it for writing meanwhile.
#[derive(Debug)]
pub struct HostFolder {
    path: PathBuf,
    folder: File,
    allocation: Allocation,
}

impl HostFolder {
    /// The folder at `path`, which must exist.
    ///
    /// # Errors
    /// `NotFound`, `Io`.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(&path, flags, Mode::empty())
            .map_err(|e| Error::io("open folder", e).at_path(&path))?;
        Ok(HostFolder {
            path,
            folder: folder.into(),
            allocation: Allocation::default(),
        })
    }

    /// Makes the folder at `path` and those above it that are missing, for their owner alone.
    /// Durable when it returns.
    ///
    /// # Errors
    /// `NoSpace`, `Io`.
    pub fn make(path: &Path) -> Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        let parent = path.parent().unwrap_or(Path::new("/"));
        // A relative path ends in nothing, which is here.
        let parent = match parent.as_os_str().is_empty() {
            true => Path::new("."),
            false => parent,
        };
        Self::make(parent)?;
        match DirBuilder::new().mode(0o700).create(path) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            made => made.map_err(|e| Error::io("create folder", e).at_path(path))?,
        }
        HostFolder::open(parent)?.sync()
    }

    /// Decides what becomes of the space of zeros in the files opened and created here. With
    /// [`Allocation::Full`] a file's holes are filled when it is synced for the first time.
    #[must_use]
    pub fn with_allocation(mut self, allocation: Allocation) -> Self {
        self.allocation = allocation;
        self
    }

    /// Which file bears `name`; `None` if there is none.
    ///
    /// # Errors
    /// `InvalidInput` for what is no plain name; `Io`.
    pub fn file_id(&self, name: &OsStr) -> Result<Option<FileId>> {
        let path = self.file(name)?;
        match rustix::fs::statat(&self.folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(facts) => Ok(Some(FileId {
                device: facts.st_dev,
                inode: facts.st_ino,
            })),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(cause) => Err(Error::io("look at", cause).at_path(path)),
        }
    }

    /// The path of a file, for messages.
    fn file(&self, name: &OsStr) -> Result<PathBuf> {
        let bytes = name.as_bytes();
        if bytes.is_empty() || bytes == b"." || bytes == b".." || bytes.contains(&b'/') {
            return Err(
                Error::new(ErrorKind::InvalidInput, "this is no plain file name").at_path(name),
            );
        }
        Ok(self.path.join(name))
    }

    fn open_file(&self, name: &OsStr, flags: OFlags, mode: u32) -> Result<(PathBuf, File)> {
        let path = self.file(name)?;
        let always = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(mode);
        match rustix::fs::openat(&self.folder, name, flags | always, mode) {
            Ok(file) => Ok((path, file.into())),
            Err(cause) => Err(Error::io("open", cause).at_path(path)),
        }
    }

    fn open_storage(&self, name: &OsStr, flags: OFlags, mode: u32) -> Result<Arc<dyn Storage>> {
        let (path, file) = self.open_file(name, flags, mode)?;
        if HostFile::of(path.clone(), &file)?.kind() != HostKind::File {
            return Err(
                Error::new(ErrorKind::Unsupported, "this is not a regular file").at_path(path),
            );
        }
        if flags.contains(OFlags::RDWR) {
            // Where the file system has no locks, nothing more can be done here.
            let _ = patiently(|| lock::take(&file, Role::Target)).map_err(|e| e.at_path(&path))?;
        }
        let storage = FileStorage::from_file(path, file, self.allocation, false)?;
        Ok(match (flags.contains(OFlags::RDWR), self.allocation) {
            (true, Allocation::Full) => Arc::new(storage.filled_at_sync()),
            _ => Arc::new(storage),
        })
    }
}

impl Folder for HostFolder {
    fn path(&self) -> &Path {
        &self.path
    }

    fn open(&self, name: &OsStr, access: Access) -> Result<Arc<dyn Storage>> {
        let flags = match access {
            Access::Read => OFlags::RDONLY,
            Access::Write => OFlags::RDWR,
        };
        self.open_storage(name, flags, 0)
    }

    fn create_new(&self, name: &OsStr) -> Result<Arc<dyn Storage>> {
        self.open_storage(name, CREATE, 0o600)
    }

    fn create_shared(&self, name: &OsStr) -> Result<Arc<dyn Storage>> {
        self.open_storage(name, CREATE, 0o666)
    }

    fn rename(&self, from: &OsStr, to: &OsStr) -> Result<()> {
        let path = self.file(from)?;
        self.file(to)?;
        rustix::fs::renameat(&self.folder, from, &self.folder, to)
            .map_err(|e| Error::io("rename", e).at_path(path))
    }

    fn remove(&self, name: &OsStr) -> Result<()> {
        let path = self.file(name)?;
        rustix::fs::unlinkat(&self.folder, name, AtFlags::empty())
            .map_err(|e| Error::io("remove", e).at_path(path))
    }

    fn names(&self) -> Result<Vec<OsString>> {
        let failed = |cause| Error::io("list folder", cause).at_path(&self.path);
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(OsStr::from_bytes(name).to_owned());
            }
        }
        Ok(names)
    }

    fn sync(&self) -> Result<()> {
        self.folder
            .sync_all()
            .map_err(|e| Error::io("sync folder", e).at_path(&self.path))
    }

    fn copy_attributes(&self, from: &OsStr, to: &OsStr) -> Result<()> {
        let (_, from) = self.open_file(from, OFlags::RDONLY, 0)?;
        let (path, to) = self.open_file(to, OFlags::RDONLY, 0)?;
        copy_attributes(&from, &to).map_err(|e| e.at_path(path))
    }

    fn is_volatile(&self) -> Result<bool> {
        let facts = rustix::fs::fstatfs(&self.folder)
            .map_err(|e| Error::io("look at folder", e).at_path(&self.path))?;
        // Magic numbers have 32 bits, whatever the kernel's word is.
        Ok(FILE_SYSTEMS_IN_MEMORY.contains(&(facts.f_type as u32)))
    }

    fn free_bytes(&self) -> Result<Option<u64>> {
        let facts = rustix::fs::fstatvfs(&self.folder)
            .map_err(|e| Error::io("ask for free space", e).at_path(&self.path))?;
        Ok(Some(facts.f_bavail.saturating_mul(facts.f_frsize)))
    }
}

/// Exclusive: what is there already, a link too, is an error and is not followed.
const CREATE: OFlags = OFlags::RDWR.union(OFlags::CREATE).union(OFlags::EXCL);

/// tmpfs (which devtmpfs is, too), ramfs, hugetlbfs.
const FILE_SYSTEMS_IN_MEMORY: [u32; 3] = [0x0102_1994, 0x8584_58f6, 0x9584_58f6];
