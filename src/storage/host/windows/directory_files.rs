//! The files of a directory of Windows: opened, created, renamed and removed.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::windows::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use windows_sys::Win32::Storage::FileSystem::{
    DELETE, FILE_ADD_FILE, FILE_FLAG_BACKUP_SEMANTICS, FILE_FLAG_OPEN_REPARSE_POINT,
    FILE_READ_ATTRIBUTES, FILE_SHARE_DELETE, FILE_SHARE_READ, FILE_SHARE_WRITE, READ_CONTROL,
    WRITE_DAC,
};

use super::access::own;
use super::calls::{facts, free_bytes, move_file};
use super::directory::HostDirectory;
use super::file::FileStorage;
use super::host_file::{HostFile, id_of, not_regular};
use super::open_file::give_way;
use super::security::AccessList;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::host::file_id::FileId;
use crate::storage::host::patience::patiently;
use crate::storage::{Access, Directory, Privacy, Storage};

impl HostDirectory {
    fn open_file(&self, name: &OsStr, options: &OpenOptions) -> Result<(PathBuf, File)> {
        let path = self.file(name)?;
        let mut options = options.clone();
        options.custom_flags(FILE_FLAG_OPEN_REPARSE_POINT);
        match options.open(&path) {
            Ok(file) => Ok((path, file)),
            Err(cause) => Err(Error::io("open", cause).at_path(path)),
        }
    }

    /// Opens an existing regular file; `doubt` says why one is not to be trusted.
    fn open_existing(
        &self,
        name: &OsStr,
        access: Access,
        doubt: &dyn Fn(&HostFile) -> Option<String>,
        refuse: fn(&'static str, PathBuf) -> Error,
    ) -> Result<Arc<dyn Storage>> {
        let path = self.file(name)?;
        if let Some(what) = self.special(name)? {
            return Err(refuse(what, path));
        }
        let (path, file) = patiently(|| self.open_file(name, &options(access)))?;
        let host = HostFile::of(path.clone(), &file)?;
        // An earlier holder may have put another file in its place.
        if access == Access::Write && self.file_id(name)? != Some(host.id()) {
            return Err(replaced(path));
        }
        if let Some(why) = doubt(&host) {
            return Err(own::refusal(why, path));
        }
        let storage = FileStorage::from_file(path, file, self.allocation, false)?;
        Ok(Arc::new(storage))
    }

    /// What has the name, where that is neither a regular file nor nothing.
    fn special(&self, name: &OsStr) -> Result<Option<&'static str>> {
        let path = self.file(name)?;
        match fs::symlink_metadata(&path) {
            Ok(facts) if facts.is_symlink() => Ok(Some("it is a symbolic link")),
            Ok(facts) if !facts.is_file() => Ok(Some("it is not a regular file")),
            Ok(_) => Ok(None),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                Err(Error::io("open", cause).at_path(path))
            }
            Err(cause) => Err(Error::io("inspect", cause).at_path(path)),
        }
    }

    /// A handle on the access list of a file, whatever others share of the file.
    fn open_list(&self, name: &OsStr, access: u32) -> Result<(PathBuf, File)> {
        let mut options = OpenOptions::new();
        options.access_mode(access | FILE_READ_ATTRIBUTES);
        self.open_file(name, &options)
    }
}

impl Directory for HostDirectory {
    fn path(&self) -> &Path {
        &self.path
    }

    fn id(&self) -> Result<Option<FileId>> {
        match facts(&self.held) {
            Ok(facts) => Ok(Some(id_of(&facts))),
            Err(cause) => Err(Error::io("inspect", cause).at_path(&self.path)),
        }
    }

    fn open(&self, name: &OsStr, access: Access) -> Result<Arc<dyn Storage>> {
        self.open_existing(name, access, &|_| None, |_, path| not_regular(path))
    }

    fn open_own(&self, name: &OsStr, access: Access) -> Result<Arc<dyn Storage>> {
        self.open_existing(name, access, &own::doubt, own::refusal)
    }

    fn open_linked(&self, name: &OsStr, access: Access) -> Result<Arc<dyn Storage>> {
        self.open_existing(name, access, &|_| None, own::refusal)
    }

    fn create(&self, name: &OsStr, _privacy: Privacy) -> Result<Arc<dyn Storage>> {
        let mut options = options(Access::Write);
        options.create_new(true);
        let (path, file) = self.open_file(name, &options)?;
        let storage = FileStorage::from_file(path, file, self.allocation, false)?;
        Ok(Arc::new(storage))
    }

    fn rename(&self, from: &OsStr, to: &OsStr) -> Result<()> {
        let (path, place) = (self.file(from)?, self.file(to)?);
        // As POSIX has it, where the file system can: an open file is replaced, too.
        let renamed = fs::rename(&path, &place).or_else(|cause| {
            let there = FileId::of_name(&place).ok();
            match there.is_some_and(give_way) {
                true => move_file(&path, &place, true),
                false => Err(cause),
            }
        });
        renamed.map_err(|e| Error::io("rename", e).at_path(path))
    }

    fn rename_new(&self, from: &OsStr, to: &OsStr) -> Result<()> {
        let (path, taken) = (self.file(from)?, self.file(to)?);
        move_file(&path, &taken, false).map_err(|cause| {
            let exists = cause.kind() == io::ErrorKind::AlreadyExists;
            Error::io("rename", cause).at_path(if exists { taken } else { path })
        })
    }

    fn remove(&self, name: &OsStr) -> Result<()> {
        let path = self.file(name)?;
        fs::remove_file(&path).map_err(|e| Error::io("remove", e).at_path(path))
    }

    fn remove_unused(&self, name: &OsStr) -> Result<bool> {
        match self.special(name) {
            Ok(None) => {}
            Ok(Some(_)) => return Ok(false),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        }
        let mut options = options(Access::Write);
        options.access_mode(GENERIC_READ_WRITE | DELETE);
        let Ok((path, file)) = self.open_file(name, &options) else {
            return Ok(false);
        };
        let host = HostFile::of(path, &file)?;
        if own::doubt(&host).is_some() || self.file_id(name)? != Some(host.id()) {
            return Ok(false);
        }
        self.remove(name).map(|()| true)
    }

    fn file_id(&self, name: &OsStr) -> Result<Option<FileId>> {
        let path = self.file(name)?;
        match FileId::of_name(&path) {
            Ok(id) => Ok(Some(id)),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(Error::io("inspect", cause).at_path(path)),
        }
    }

    fn names(&self) -> Result<Vec<OsString>> {
        let failed = |cause| Error::io("list directory", cause).at_path(&self.path);
        let entries = fs::read_dir(&self.path).map_err(failed)?;
        entries
            .map(|entry| entry.map(|it| it.file_name()).map_err(failed))
            .collect()
    }

    fn sync(&self) -> Result<()> {
        let failed = |cause| Error::io("sync directory", cause).at_path(&self.path);
        // Only a handle that may write can be flushed.
        let directory = self.writable().map_err(failed)?;
        directory.sync_all().map_err(failed)
    }

    fn copy_attributes(&self, from: &OsStr, to: &OsStr) -> Result<Vec<String>> {
        let (path, old) = self.open_list(from, READ_CONTROL)?;
        let (new_path, new) = self.open_list(to, READ_CONTROL | WRITE_DAC)?;
        let failed = |operation, path: &Path| {
            let path = path.to_owned();
            move |cause: io::Error| Error::io(operation, cause).at_path(path)
        };
        let list = AccessList::of(&old).map_err(failed("read the access list", &path))?;
        list.give_to(&new)
            .map_err(failed("set the access list", &new_path))?;
        Ok(Vec::new())
    }

    fn has_attributes_of(&self, from: &OsStr, to: &OsStr) -> Result<bool> {
        let list_of = |name: &OsStr| {
            let (path, file) = self.open_list(name, READ_CONTROL)?;
            AccessList::of(&file).map_err(|e| Error::io("read the access list", e).at_path(path))
        };
        Ok(list_of(from)?.is_same(&list_of(to)?))
    }

    fn free_bytes(&self) -> Result<Option<u64>> {
        free_bytes(&self.path)
            .map(Some)
            .map_err(|e| Error::io("get the free space", e).at_path(&self.path))
    }

    fn check_writable(&self) -> Result<()> {
        match self.writable() {
            Ok(_) => Ok(()),
            Err(e) => Err(Error::io("create files in directory", e).at_path(&self.path)),
        }
    }
}

impl HostDirectory {
    fn writable(&self) -> io::Result<File> {
        OpenOptions::new()
            .access_mode(FILE_ADD_FILE | FILE_READ_ATTRIBUTES | SYNCHRONIZE)
            .share_mode(FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE)
            .custom_flags(FILE_FLAG_BACKUP_SEMANTICS)
            .open(&self.path)
    }
}

/// A reader shares everything; a writer is the only one, and is read meanwhile.
fn options(access: Access) -> OpenOptions {
    let mut options = OpenOptions::new();
    match access {
        Access::Read => options
            .read(true)
            .share_mode(FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE),
        Access::Write => options
            .read(true)
            .write(true)
            .share_mode(FILE_SHARE_READ | FILE_SHARE_DELETE),
    };
    options
}

fn replaced(path: PathBuf) -> Error {
    Error::new(ErrorKind::InUse, "another process keeps replacing it")
        .at_path(path)
        .advise("try again")
}

const GENERIC_READ_WRITE: u32 = 0xc000_0000;
const SYNCHRONIZE: u32 = 0x0010_0000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_file_is_replaced_and_its_old_handle_closed_or_apart() {
        let home = tempfile::tempdir().unwrap();
        let directory = HostDirectory::open(home.path()).unwrap();
        let (old, new) = (OsStr::new("disk"), OsStr::new(".disk.new"));
        let there = directory.create(old, Privacy::USUAL).unwrap();
        there.write_all_at(b"old", 0).unwrap();
        let fresh = directory.create(new, Privacy::USUAL).unwrap();
        fresh.write_all_at(b"new", 0).unwrap();
        fresh.sync().unwrap();
        directory.copy_attributes(old, new).unwrap();
        assert!(directory.has_attributes_of(old, new).unwrap());
        directory.rename(new, old).unwrap();
        directory.sync().unwrap();
        assert_eq!(directory.names().unwrap(), [old]);
        let found = directory.file_id(old).unwrap();
        assert_eq!(found, fresh.file_id().unwrap());
        assert_ne!(found, there.file_id().unwrap());
        drop((there, fresh));
        assert_eq!(fs::read(home.path().join("disk")).unwrap(), b"new");
        directory.remove(old).unwrap();
        assert!(directory.names().unwrap().is_empty());
    }

    #[test]
    fn a_name_that_is_taken_is_not_given_again() {
        let home = tempfile::tempdir().unwrap();
        let directory = HostDirectory::open(home.path()).unwrap();
        let (one, other) = (OsStr::new("one"), OsStr::new("other"));
        let held = directory.create(one, Privacy::USUAL).unwrap();
        directory.create(other, Privacy::USUAL).unwrap();
        let error = directory.rename_new(one, other).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert!(directory.create(one, Privacy::USUAL).is_err());
        assert!(!directory.remove_unused(one).unwrap());
        drop(held);
        assert!(directory.remove_unused(one).unwrap());
        directory.rename_new(other, one).unwrap();
        assert_eq!(directory.names().unwrap(), [one]);
    }

    #[test]
    fn a_directory_stays_where_it_is_while_it_is_open() {
        let home = tempfile::tempdir().unwrap();
        let (inner, moved) = (home.path().join("inner"), home.path().join("moved"));
        HostDirectory::make(&inner).unwrap();
        let directory = HostDirectory::open(&inner).unwrap();
        assert!(fs::rename(&inner, &moved).is_err());
        directory.check_writable().unwrap();
        assert!(directory.free_bytes().unwrap().unwrap() > 0);
        drop(directory);
        fs::rename(&inner, &moved).unwrap();
    }
}
