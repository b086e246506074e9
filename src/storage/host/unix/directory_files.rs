//! The files of a directory of the host: opened with doubt, created, renamed and removed.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::access::attributes::{self, copy_attributes, has_attributes_of};
use super::access::lock::{self, Locked, Role};
use super::access::own::{self, is_own};
use super::devices::nodes::refuse_nodes;
use super::directory::{HostDirectory, look_at};
use super::file::FileStorage;
use super::host_file::{HostFile, id_of, not_regular};
use super::length;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::host::allocation::Allocation;
use crate::storage::host::file_id::{FileId, HostKind};
use crate::storage::host::patience::patiently;
use crate::storage::{Access, Directory, Privacy, Storage};

impl HostDirectory {
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
        let id = id_of(&facts);
        // The one who held the lock may have renamed the file, or put another one in its place.
        if access == Access::Write && self.file_id(name)? != Some(id) {
            return Ok(None);
        }
        if let Some(why) = doubt(&facts)
            && !self.known.contains(id)
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
            Err(cause) => Err(Error::io("inspect", cause).at_path(path)),
        }
    }

    /// Remembers the file that has the name now.
    fn remember(&self, name: &OsStr) -> Result<FileId> {
        let path = self.file(name)?;
        self.known.remember(&self.directory, name, path)
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
        look_at(&self.directory, &self.path).map(|facts| Some(id_of(&facts)))
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
        let id = id_of(&facts);
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

    fn exchange(&self, one: &OsStr, other: &OsStr) -> Result<bool> {
        let path = self.file(one)?;
        self.file(other)?;
        let both = RenameFlags::EXCHANGE;
        match rustix::fs::renameat_with(&self.directory, one, &self.directory, other, both) {
            Ok(()) => Ok(true),
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => Ok(false),
            Err(cause) => Err(Error::io("rename", cause).at_path(path)),
        }
    }

    fn can_clone(&self) -> Result<bool> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let nameless = || {
            let mode = Mode::RUSR | Mode::WUSR;
            rustix::fs::openat(&self.directory, ".", flags, mode).map(File::from)
        };
        let (Ok(model), Ok(clone)) = (nameless(), nameless()) else {
            return Ok(false);
        };
        let written = model.write_all_at(&[1; 4096], 0);
        Ok(written.is_ok() && rustix::fs::ioctl_ficlone(&clone, &model).is_ok())
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
        let id = id_of(&facts);
        if own::doubt(&facts).is_some() && !self.known.contains(id) {
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
            Err(cause) => Err(Error::io("inspect", cause).at_path(path)),
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
            .map_err(|e| Error::io("inspect directory", e).at_path(&self.path))?;
        // Magic numbers have 32 bits, whatever the kernel's word is.
        Ok(FILE_SYSTEMS_IN_MEMORY.contains(&(facts.f_type as u32)))
    }

    fn free_bytes(&self) -> Result<Option<u64>> {
        let facts = rustix::fs::fstatvfs(&self.directory)
            .map_err(|e| Error::io("get the free space of", e).at_path(&self.path))?;
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
