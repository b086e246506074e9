//! Files that stand for a lock.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{flock, own};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::side_files::file_ref::directory_and_name;

/// A file that stands for a lock, in the directory that it was opened in, and with a line about who
/// holds it. The lock ends when this is dropped, or the process ends.
#[derive(Debug)]
pub(crate) struct LockFile {
    file: File,
    path: PathBuf,
}

impl Drop for LockFile {
    /// Closing it would not do: a program that another thread is just starting has it open, too.
    fn drop(&mut self) {
        flock::unlock(&self.file);
    }
}

impl LockFile {
    /// Takes the lock if it is free, and makes its file where there is none; `None` while it is
    /// held by another. The directory must exist.
    ///
    /// # Errors
    /// `Untrusted`, with nothing changed, for what is no regular file of this user or root, has
    /// another name, or can be written to by others; `NotFound`, `Io`.
    pub(crate) fn try_take(path: &Path) -> Result<Option<Self>> {
        let (directory, name) = split(path)?;
        for _ in 0..TRIES {
            let file = match open(&directory, &name, path, true)? {
                Some(file) => file,
                None => continue,
            };
            if !flock::try_lock(&file).map_err(|e| failed("lock", e, path))? {
                return Ok(None);
            }
            // The one who held it may have removed the file, or put another one in its place.
            if has_name(&file, &directory, &name, path)? {
                let path = path.to_owned();
                return Ok(Some(LockFile { file, path }));
            }
        }
        Err(Error::new(ErrorKind::InUse, "the lock is replaced again and again").at_path(path))
    }

    /// Takes the lock, and says which process has it; waits for at most `patience` for another one.
    /// `meaning` says what it is that another holds.
    ///
    /// # Errors
    /// `InUse`, saying by whom; as [`try_take`](Self::try_take).
    pub(crate) fn take(path: &Path, patience: Duration, meaning: &str) -> Result<Self> {
        let begin = Instant::now();
        let taken = loop {
            match Self::try_take(path)? {
                Some(taken) => break taken,
                None if begin.elapsed() < patience => std::thread::sleep(NAP),
                None => {
                    let holder = Self::holder(path)?.unwrap_or_default();
                    let text = format!("{meaning}: {holder}");
                    return Err(Error::new(ErrorKind::InUse, text)
                        .at_path(path)
                        .advise("wait for it, or end it"));
                }
            }
        };
        taken.describe(&format!("process {}\n", std::process::id()))?;
        Ok(taken)
    }

    /// Writes down who holds the lock, for people.
    ///
    /// # Errors
    /// `NoSpace`, `Io`.
    fn describe(&self, holder: &str) -> Result<()> {
        let written = self.file.set_len(0);
        let written = written.and_then(|()| self.file.write_all_at(holder.as_bytes(), 0));
        written.map_err(|e| failed("write lock", e, &self.path))
    }

    /// Who holds the lock, in the words of the holder; `None` if it is free.
    ///
    /// # Errors
    /// As [`try_take`](Self::try_take).
    pub(crate) fn holder(path: &Path) -> Result<Option<String>> {
        let (directory, name) = match split(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            split => split?,
        };
        let Some(file) = open(&directory, &name, path, false)? else {
            return Ok(None);
        };
        let is_free = flock::try_lock_shared(&file).map_err(|e| failed("lock", e, path))?;
        Ok((!is_free).then(|| Self::said(&file)))
    }

    fn said(file: &File) -> String {
        let mut holder = [0; 200];
        let len = file.read_at(&mut holder, 0).unwrap_or(0);
        let text = String::from_utf8_lossy(&holder[..len]);
        text.trim().to_owned()
    }
}

/// The directory, open, and the file's name.
fn split(path: &Path) -> Result<(File, OsString)> {
    let (directory, name) = directory_and_name(path)?;
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let opened = rustix::fs::open(directory, flags, Mode::empty());
    let opened = opened.map_err(|e| Error::io("open directory", e).at_path(directory))?;
    Ok((opened.into(), name.to_owned()))
}

/// Opens the file, and makes it if it is `wanted`; `None` where there is none.
fn open(directory: &File, name: &OsString, path: &Path, wanted: bool) -> Result<Option<File>> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    if wanted {
        let make = flags | OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        match rustix::fs::openat(directory, name, make, Mode::from_raw_mode(0o600)) {
            Ok(file) => return Ok(Some(file.into())),
            Err(Errno::EXIST) => {}
            Err(cause) => return Err(failed("create lock", cause.into(), path)),
        }
    }
    // Looked at first: opening a pipe or a device has effects.
    let facts = match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(None),
        facts => facts.map_err(|e| failed("look at lock", e.into(), path))?,
    };
    match FileType::from_raw_mode(facts.st_mode) {
        FileType::RegularFile => {}
        FileType::Symlink => return Err(untrusted("it is a symbolic link", path)),
        _ => return Err(untrusted("it is not a regular file", path)),
    }
    let access = if wanted { OFlags::RDWR } else { OFlags::RDONLY };
    let file: File = match rustix::fs::openat(directory, name, flags | access, Mode::empty()) {
        Ok(file) => file.into(),
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP) => return Err(untrusted("it is a symbolic link", path)),
        Err(cause) => return Err(failed("open lock", cause.into(), path)),
    };
    let facts = file
        .metadata()
        .map_err(|e| failed("look at lock", e, path))?;
    if !facts.is_file() {
        return Err(untrusted("it is not a regular file", path));
    }
    // Who only asks changes nothing.
    if let (true, Some(why)) = (wanted, own::doubt(&facts)) {
        return Err(untrusted(&why, path));
    }
    Ok(Some(file))
}

/// Whether the name still leads to the file.
fn has_name(file: &File, directory: &File, name: &OsString, path: &Path) -> Result<bool> {
    let ours = file
        .metadata()
        .map_err(|e| failed("look at lock", e, path))?;
    match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(there) => Ok((there.st_dev, there.st_ino) == (ours.dev(), ours.ino())),
        Err(Errno::NOENT) => Ok(false),
        Err(cause) => Err(failed("look at lock", cause.into(), path)),
    }
}

fn untrusted(why: &str, path: &Path) -> Error {
    let text = format!("this lock may not come from diskdelta: {why}");
    Error::new(ErrorKind::Untrusted, text)
        .at_path(path)
        .advise("find out where it comes from, and remove it")
}

fn failed(operation: &'static str, cause: std::io::Error, path: &Path) -> Error {
    Error::io(operation, cause).at_path(path)
}

const TRIES: usize = 8;
const NAP: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_planted_lock_is_neither_followed_nor_written_to() {
        let directory = tempfile::tempdir().unwrap();
        let precious = directory.path().join("precious");
        fs::write(&precious, "precious").unwrap();
        let lock = directory.path().join("lock");
        let plants: [&dyn Fn(); 6] = [
            &|| symlink(&precious, &lock).unwrap(),
            &|| symlink(directory.path().join("not there"), &lock).unwrap(),
            &|| fs::hard_link(&precious, &lock).unwrap(),
            &|| {
                let made = std::process::Command::new("mkfifo").arg(&lock).status();
                assert!(made.unwrap().success());
            },
            &|| fs::create_dir(&lock).unwrap(),
            &|| {
                fs::write(&lock, "").unwrap();
                fs::set_permissions(&lock, fs::Permissions::from_mode(0o666)).unwrap();
            },
        ];
        for (index, plant) in plants.iter().enumerate() {
            plant();
            let error = LockFile::try_take(&lock).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Untrusted, "{index}: {error}");
            assert_eq!(fs::read(&precious).unwrap(), b"precious", "{index}");
            assert!(!directory.path().join("not there").exists());
            fs::remove_file(&lock)
                .or_else(|_| fs::remove_dir(&lock))
                .unwrap();
        }
    }

    #[test]
    fn a_lock_whose_name_leads_elsewhere_by_now_is_not_held() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let first = LockFile::try_take(&path).unwrap().unwrap();
        fs::remove_file(&path).unwrap();
        let second = LockFile::try_take(&path).unwrap().unwrap();
        let directory = split(&path).unwrap().0;
        assert!(!has_name(&first.file, &directory, &"lock".into(), &path).unwrap());
        assert!(has_name(&second.file, &directory, &"lock".into(), &path).unwrap());
    }

    #[test]
    fn a_lock_has_one_holder_at_a_time_and_says_who_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("shop.lock");
        let take = || LockFile::take(&path, NAP, "another process runs this job");
        let held = take().unwrap();
        let error = take().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InUse);
        let holder = format!("process {}", std::process::id());
        assert!(error.to_string().contains(&holder), "{error}");
        assert_eq!(LockFile::holder(&path).unwrap(), Some(holder));
        drop(held);
        assert_eq!(LockFile::holder(&path).unwrap(), None);
        assert!(take().is_ok());
    }

    /// As a program that is being started has it.
    #[test]
    fn a_lock_that_was_dropped_is_free_although_another_has_its_file_open() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let held = LockFile::try_take(&path).unwrap().unwrap();
        assert!(LockFile::try_take(&path).unwrap().is_none());
        let other = held.file.try_clone().unwrap();
        drop(held);
        assert!(LockFile::holder(&path).unwrap().is_none());
        drop(other);
        assert!(LockFile::try_take(&path).unwrap().is_some());
    }
}
