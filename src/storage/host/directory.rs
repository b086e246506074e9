//! Directories: where stages, sidecars and replaced targets are created, renamed and removed.

use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, File, Metadata};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;

use super::access::attributes::{self, copy_attributes, has_attributes_of};
use super::access::links::refuse_foreign_links;
use super::access::lock::{self, Locked, Role};
use super::access::own::is_own;
use super::access::{links, own};
use super::devices::nodes::refuse_nodes;
use super::host_file::{FileId, HostFile, HostKind};
use super::length;
use super::open::patiently;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::{Allocation, FileStorage, Privacy, Storage};

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
    /// The directory's path, for messages and for marks.
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

    /// As [`open`](Directory::open), for a file that this program made: a regular file with one name,
    /// owned by the user of this process or by root, that no other user may write to. A file that
    /// was created through this very directory is taken for one whatever the file system shows of it,
    /// and so is one that was [trusted](Directory::trust).
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

    /// Takes the file that has this name now for one that this program made, whoever owns it: the
    /// caller answers for it.
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

    /// Refuses a directory in which this process may create no files, as far as the system can tell.
    /// Changes nothing.
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

/// A directory of the host's file system.
///
/// It stays the same directory when it or one above it is renamed, and no symbolic link is followed
/// inside it. A file that is open for writing is locked as QEMU locks it, where the file system
/// can: nobody else opens it for writing meanwhile.
#[derive(Debug)]
pub struct HostDirectory {
    path: PathBuf,
    directory: File,
    allocation: Allocation,
    /// Files that are ours although the file system does not show it. The open handles keep their
    /// numbers from being given to others.
    known: Mutex<Vec<(FileId, OwnedFd)>>,
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

    /// As [`open`](HostDirectory::open), for a path without symbolic links: none that came meanwhile
    /// is followed, where the system can tell.
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
            known: Mutex::default(),
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
            Err(e) => return Err(Error::io("look at directory", e).at_path(path)),
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
            known: Mutex::default(),
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
        match rustix::fs::openat(&self.directory, name, flags | always, mode) {
            Ok(file) => Ok((path, file.into())),
            Err(cause) => Err(Error::io("open", cause).at_path(path)),
        }
    }

    /// Opens an existing regular file; `doubt` says why one is not to be trusted.
    fn open_existing(
        &self,
        name: &OsStr,
        access: Access,
        doubt: &dyn Fn(&Metadata) -> Option<String>,
        refuse: fn(&'static str, PathBuf) -> Error,
    ) -> Result<Arc<dyn Storage>> {
        let path = self.file(name)?;
        for _ in 0..TRIES {
            // Not opened before it is known to be a file: opening a device or a pipe has effects.
            if let Some(what) = self.special(name)? {
                return Err(refuse(what, path));
            }
            let flags = match access {
                Access::Read => OFlags::RDONLY,
                Access::Write => OFlags::RDWR,
            };
            let (path, file) = self.open_file(name, flags, 0)?;
            if let Some(storage) = self.taken_over(name, path, file, access, doubt)? {
                return Ok(storage);
            }
        }
        Err(replaced(path))
    }

    /// Checks and locks an open file; `None` if the name leads to another one by now.
    fn taken_over(
        &self,
        name: &OsStr,
        path: PathBuf,
        file: File,
        access: Access,
        doubt: &dyn Fn(&Metadata) -> Option<String>,
    ) -> Result<Option<Arc<dyn Storage>>> {
        if HostFile::of(path.clone(), &file)?.kind() != HostKind::File {
            return Err(not_regular(path));
        }
        if access == Access::Write {
            // Where the file system has no locks, nothing more can be done here.
            let _ = patiently(|| lock::take(&file, Role::Target)).map_err(|e| e.at_path(&path))?;
        }
        let facts = look_at(&file, &path)?;
        let id = FileId::of(&facts);
        // The one who held the lock may have renamed the file, or put another one in its place.
        if access == Access::Write && self.file_id(name)? != Some(id) {
            return Ok(None);
        }
        if let Some(why) = doubt(&facts)
            && !self.knows(id)
        {
            return Err(own::refusal(why, path));
        }
        let storage = FileStorage::from_file(path, file, self.allocation, false)?;
        Ok(Some(match (access, self.allocation) {
            (Access::Write, Allocation::Full) => Arc::new(storage.filled_at_sync()),
            _ => Arc::new(storage),
        }))
    }

    /// What has the name, where that is neither a regular file nor nothing.
    fn special(&self, name: &OsStr) -> Result<Option<&'static str>> {
        let path = self.file(name)?;
        match rustix::fs::statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(facts) => Ok(match FileType::from_raw_mode(facts.st_mode) {
                FileType::RegularFile => None,
                FileType::Symlink => Some("it is a symbolic link"),
                _ => Some("it is not a regular file"),
            }),
            // Seen to be missing also where no more files can be opened.
            Err(cause @ Errno::NOENT) => Err(Error::io("open", cause).at_path(path)),
            Err(cause) => Err(Error::io("look at", cause).at_path(path)),
        }
    }

    fn known(&self) -> MutexGuard<'_, Vec<(FileId, OwnedFd)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn knows(&self, id: FileId) -> bool {
        self.known().iter().any(|(known, _)| *known == id)
    }

    /// Remembers the file that has the name now.
    fn remember(&self, name: &OsStr) -> Result<FileId> {
        let path = self.file(name)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let pinned = rustix::fs::openat(&self.directory, name, flags, Mode::empty())
            .map_err(|e| Error::io("open", e).at_path(&path))?;
        let facts =
            rustix::fs::fstat(&pinned).map_err(|e| Error::io("look at", e).at_path(&path))?;
        if FileType::from_raw_mode(facts.st_mode) != FileType::RegularFile {
            return Err(not_regular(path));
        }
        let id = FileId {
            device: facts.st_dev,
            inode: facts.st_ino,
        };
        let mut known = self.known();
        known.retain(|(_, file)| rustix::fs::fstat(file).is_ok_and(|it| it.st_nlink > 0));
        if !known.iter().any(|(other, _)| *other == id) {
            known.push((id, pinned));
        }
        Ok(id)
    }

    /// Gives the file its second name, then takes the first away.
    fn link_and_unlink(&self, from: &OsStr, to: &OsStr) -> Result<()> {
        let path = self.file(from)?;
        match rustix::fs::linkat(&self.directory, from, &self.directory, to, AtFlags::empty()) {
            Ok(()) => self.remove(from),
            Err(Errno::EXIST) => Err(Error::io("rename", Errno::EXIST).at_path(self.file(to)?)),
            Err(cause @ (Errno::NOENT | Errno::NOSPC | Errno::DQUOT | Errno::IO)) => {
                Err(Error::io("rename", cause).at_path(path))
            }
            Err(cause) => {
                let what = "this file system can neither rename without replacing nor link";
                Err(Error::new(ErrorKind::Unsupported, what)
                    .at_path(path)
                    .caused_by(std::io::Error::from(cause))
                    .advise("use a directory on another file system"))
            }
        }
    }
}

impl Directory for HostDirectory {
    fn path(&self) -> &Path {
        &self.path
    }

    fn id(&self) -> Result<Option<FileId>> {
        look_at(&self.directory, &self.path).map(|facts| Some(FileId::of(&facts)))
    }

    fn open(&self, name: &OsStr, access: Access) -> Result<Arc<dyn Storage>> {
        self.open_existing(name, access, &|_| None, |_, path| not_regular(path))
    }

    fn open_own(&self, name: &OsStr, access: Access) -> Result<Arc<dyn Storage>> {
        self.open_existing(name, access, &own::doubt, own::refusal)
    }

    fn open_linked(&self, name: &OsStr, access: Access) -> Result<Arc<dyn Storage>> {
        self.open_existing(name, access, &own::doubt_linked, own::refusal)
    }

    fn open_copy(
        &self,
        name: &OsStr,
        model: Option<&OsStr>,
        privacy: Privacy,
    ) -> Result<Arc<dyn Storage>> {
        let model = match model {
            Some(model) => {
                let (path, file) = self.open_file(model, OFlags::RDONLY, 0)?;
                Some(look_at(&file, &path)?)
            }
            None => None,
        };
        let doubt = |facts: &Metadata| own::doubt_copy(facts, model.as_ref(), privacy);
        self.open_existing(name, Access::Write, &doubt, own::refusal)
    }

    fn trust(&self, name: &OsStr) -> Result<()> {
        self.remember(name).map(drop)
    }

    fn refuse_nodes(&self, name: &OsStr) -> Result<()> {
        let path = self.path.join(name);
        refuse_nodes(&self.directory, &self.path).map_err(|error| error.at_path(path))
    }

    fn create(&self, name: &OsStr, privacy: Privacy) -> Result<Arc<dyn Storage>> {
        self.refuse_nodes(name)?;
        let (mut path, mut file) = self.open_file(name, CREATE, privacy.for_all())?;
        let mut facts = look_at(&file, &path)?;
        let for_group = privacy.for_group(facts.gid());
        if for_group != privacy.for_all() && !attributes::has_access_list(&file) {
            // Made again with what its group may do: what the umask takes away is not known here.
            self.remove(name)?;
            (path, file) = self.open_file(name, CREATE, for_group)?;
            facts = look_at(&file, &path)?;
            if privacy.for_group(facts.gid()) != for_group {
                return Err(replaced(path));
            }
        }
        let id = FileId::of(&facts);
        if own::doubt(&facts).is_some() && self.remember(name)? != id {
            return Err(replaced(path));
        }
        self.taken_over(name, path.clone(), file, Access::Write, &|_| None)?
            .ok_or_else(|| replaced(path))
    }

    fn rename(&self, from: &OsStr, to: &OsStr) -> Result<()> {
        let path = self.file(from)?;
        self.file(to)?;
        rustix::fs::renameat(&self.directory, from, &self.directory, to)
            .map_err(|e| Error::io("rename", e).at_path(path))
    }

    fn rename_new(&self, from: &OsStr, to: &OsStr) -> Result<()> {
        let path = self.file(from)?;
        let taken = self.file(to)?;
        let once = RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(&self.directory, from, &self.directory, to, once) {
            Ok(()) => Ok(()),
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => self.link_and_unlink(from, to),
            Err(Errno::EXIST) => Err(Error::io("rename", Errno::EXIST).at_path(taken)),
            Err(cause) => Err(Error::io("rename", cause).at_path(path)),
        }
    }

    fn remove(&self, name: &OsStr) -> Result<()> {
        let path = self.file(name)?;
        rustix::fs::unlinkat(&self.directory, name, AtFlags::empty())
            .map_err(|e| Error::io("remove", e).at_path(path))
    }

    fn remove_unused(&self, name: &OsStr) -> Result<bool> {
        match self.special(name) {
            Ok(None) => {}
            Ok(Some(_)) => return Ok(false),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        }
        let Ok((path, file)) = self.open_file(name, OFlags::RDWR, 0) else {
            return Ok(false);
        };
        let facts = look_at(&file, &path)?;
        let id = FileId::of(&facts);
        if own::doubt(&facts).is_some() && !self.knows(id) {
            return Ok(false);
        }
        match lock::take(&file, Role::Target) {
            Ok(Locked::Yes) if self.file_id(name)? == Some(id) => self.remove(name).map(|()| true),
            _ => Ok(false),
        }
    }

    fn file_id(&self, name: &OsStr) -> Result<Option<FileId>> {
        let path = self.file(name)?;
        match rustix::fs::statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(facts) => Ok(Some(FileId {
                device: facts.st_dev,
                inode: facts.st_ino,
            })),
            Err(Errno::NOENT) => Ok(None),
            Err(cause) => Err(Error::io("look at", cause).at_path(path)),
        }
    }

    fn names(&self) -> Result<Vec<OsString>> {
        let failed = |cause| Error::io("list directory", cause).at_path(&self.path);
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(OsStr::from_bytes(name).to_owned());
            }
        }
        Ok(names)
    }

    fn sync(&self) -> Result<()> {
        self.directory
            .sync_all()
            .map_err(|e| Error::io("sync directory", e).at_path(&self.path))
    }

    fn copy_attributes(&self, from: &OsStr, to: &OsStr) -> Result<Vec<String>> {
        let (_, from) = self.open_file(from, OFlags::RDONLY, 0)?;
        let (path, to) = self.open_file(to, OFlags::RDONLY, 0)?;
        copy_attributes(&from, &to).map_err(|e| e.at_path(path))
    }

    fn has_attributes_of(&self, from: &OsStr, to: &OsStr) -> Result<bool> {
        let (path, from) = self.open_file(from, OFlags::RDONLY, 0)?;
        let (_, to) = self.open_file(to, OFlags::RDONLY, 0)?;
        has_attributes_of(&from, &to).map_err(|e| e.at_path(path))
    }

    fn refuse_shared(&self) -> Result<()> {
        let facts = look_at(&self.directory, &self.path)?;
        let uid = facts.uid();
        let ours = is_own(uid);
        // Where the sticky bit is set, users exchange their own files only.
        let what = match facts.mode() {
            _ if !ours => format!("the directory belongs to user {uid}"),
            mode if mode & 0o022 != 0 && mode & 0o1000 == 0 => {
                "others may write to the directory".into()
            }
            _ => return Ok(()),
        };
        Err(Error::new(ErrorKind::Untrusted, what)
            .at_path(&self.path)
            .advise("use a directory of your own that no other user may write to"))
    }

    fn is_volatile(&self) -> Result<bool> {
        let facts = rustix::fs::fstatfs(&self.directory)
            .map_err(|e| Error::io("look at directory", e).at_path(&self.path))?;
        // Magic numbers have 32 bits, whatever the kernel's word is.
        Ok(FILE_SYSTEMS_IN_MEMORY.contains(&(facts.f_type as u32)))
    }

    fn free_bytes(&self) -> Result<Option<u64>> {
        let facts = rustix::fs::fstatvfs(&self.directory)
            .map_err(|e| Error::io("ask for free space", e).at_path(&self.path))?;
        Ok(Some(facts.f_bavail.saturating_mul(facts.f_frsize)))
    }

    fn check_writable(&self) -> Result<()> {
        let wanted = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
        match rustix::fs::accessat(&self.directory, ".", wanted, AtFlags::EACCESS) {
            // Where the question is not known, the first file will tell.
            Ok(()) | Err(Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP) => Ok(()),
            Err(cause) => Err(Error::io("create files in directory", cause).at_path(&self.path)),
        }
    }

    fn check_len(&self, len: u64) -> Result<()> {
        length::within_process_limit(&self.path, len)?;
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        // Such a file has no name and leaves nothing; where there are none, creation will tell.
        match rustix::fs::openat(&self.directory, ".", flags, Mode::RUSR | Mode::WUSR) {
            Ok(file) => length::within_file_system(&self.path, &file.into(), len),
            Err(_) => Ok(()),
        }
    }
}

fn look_at(file: &File, path: &Path) -> Result<Metadata> {
    file.metadata()
        .map_err(|e| Error::io("look at", e).at_path(path))
}

fn not_regular(path: PathBuf) -> Error {
    Error::new(ErrorKind::Unsupported, "this is not a regular file").at_path(path)
}

fn replaced(path: PathBuf) -> Error {
    Error::new(ErrorKind::InUse, "another process keeps replacing it")
        .at_path(path)
        .advise("try again")
}

/// How often a name is opened that leads to another file each time its lock is held.
const TRIES: usize = 8;

/// Exclusive: what is there already, a link too, is an error and is not followed.
const CREATE: OFlags = OFlags::RDWR.union(OFlags::CREATE).union(OFlags::EXCL);

/// tmpfs (which devtmpfs is, too), ramfs, hugetlbfs.
const FILE_SYSTEMS_IN_MEMORY: [u32; 3] = [0x0102_1994, 0x8584_58f6, 0x9584_58f6];
