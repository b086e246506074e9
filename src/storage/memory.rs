//! Flat byte stores and directories in memory, for tests and small work.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::{Access, Directory, FileId, Privacy, Storage, outside, past_end, range_end};
use crate::error::{Error, ErrorKind, Result};

/// A flat byte store in memory. `sync` does nothing: nothing here outlives the process.
#[derive(Debug)]
pub struct MemoryStorage {
    name: PathBuf,
    number: u64,
    bytes: RwLock<Vec<u8>>,
}

impl Default for MemoryStorage {
    fn default() -> Self {
        MemoryStorage::new("", Vec::new())
    }
}

impl MemoryStorage {
    /// A store that holds `bytes`; `name` stands in messages.
    pub fn new(name: impl Into<PathBuf>, bytes: Vec<u8>) -> Self {
        MemoryStorage {
            name: name.into(),
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            bytes: RwLock::new(bytes),
        }
    }

    /// A copy of what it holds now.
    pub fn to_vec(&self) -> Vec<u8> {
        self.bytes
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn resize(&self, bytes: &mut Vec<u8>, len: usize) -> Result<()> {
        let more = len.saturating_sub(bytes.len());
        if let Err(cause) = bytes.try_reserve_exact(more) {
            return Err(Error::new(ErrorKind::NoSpace, "memory is too small")
                .at_path(&self.name)
                .caused_by(cause));
        }
        bytes.resize(len, 0);
        Ok(())
    }
}

impl Storage for MemoryStorage {
    fn path(&self) -> &Path {
        &self.name
    }

    fn file_id(&self) -> Result<Option<FileId>> {
        Ok(Some(FileId {
            device: 0,
            inode: self.number,
        }))
    }

    fn len(&self) -> Result<u64> {
        Ok(self
            .bytes
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .len() as u64)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let end = range_end(&self.name, offset, buf.len())?;
        if buf.is_empty() {
            return Ok(());
        }
        let bytes = self.bytes.read().unwrap_or_else(PoisonError::into_inner);
        let Some(from) = bytes.get(index(offset)..index(end)) else {
            return Err(past_end(&self.name, end, bytes.len() as u64));
        };
        buf.copy_from_slice(from);
        Ok(())
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let end = index(range_end(&self.name, offset, buf.len())?);
        if buf.is_empty() {
            return Ok(());
        }
        let mut bytes = self.bytes.write().unwrap_or_else(PoisonError::into_inner);
        let len = bytes.len().max(end);
        self.resize(&mut bytes, len)?;
        bytes[index(offset)..end].copy_from_slice(buf);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        let mut bytes = self.bytes.write().unwrap_or_else(PoisonError::into_inner);
        self.resize(&mut bytes, index(len))
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn punch_hole(&self, range: Range<u64>) -> Result<()> {
        let mut bytes = self.bytes.write().unwrap_or_else(PoisonError::into_inner);
        let len = bytes.len() as u64;
        match bytes.get_mut(index(range.start)..index(range.end)) {
            Some(hole) => hole.fill(0),
            None => return Err(outside(&self.name, &range, len)),
        }
        Ok(())
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>> {
        let len = self.len()?;
        Ok((offset < len).then_some(offset..len))
    }
}

/// A directory in memory; clones show the same files.
#[derive(Debug, Clone, Default)]
pub struct MemoryDirectory {
    files: Arc<Mutex<BTreeMap<OsString, Arc<MemoryStorage>>>>,
}

impl MemoryDirectory {
    /// An empty directory.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a file there, replacing one of that name, and returns it.
    pub fn insert(&self, name: impl Into<OsString>, bytes: Vec<u8>) -> Arc<MemoryStorage> {
        let name = name.into();
        let file = Arc::new(MemoryStorage::new(&name, bytes));
        self.lock().insert(name, file.clone());
        file
    }

    /// A copy of what a file holds, if it is there.
    pub fn bytes(&self, name: impl AsRef<OsStr>) -> Option<Vec<u8>> {
        self.lock().get(name.as_ref()).map(|file| file.to_vec())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<OsString, Arc<MemoryStorage>>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Directory for MemoryDirectory {
    fn path(&self) -> &Path {
        Path::new("memory")
    }

    fn open(&self, name: &OsStr, _access: Access) -> Result<Arc<dyn Storage>> {
        match self.lock().get(name) {
            Some(file) => Ok(file.clone()),
            None => Err(Error::new(ErrorKind::NotFound, "no such file").at_path(name)),
        }
    }

    fn create(&self, name: &OsStr, _privacy: Privacy) -> Result<Arc<dyn Storage>> {
        let mut files = self.lock();
        if files.contains_key(name) {
            return Err(Error::new(ErrorKind::AlreadyExists, "exists already").at_path(name));
        }
        let file = Arc::new(MemoryStorage::new(name, Vec::new()));
        files.insert(name.to_owned(), file.clone());
        Ok(file)
    }

    fn rename(&self, from: &OsStr, to: &OsStr) -> Result<()> {
        let mut files = self.lock();
        let Some(file) = files.remove(from) else {
            return Err(Error::new(ErrorKind::NotFound, "no such file").at_path(from));
        };
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn rename_new(&self, from: &OsStr, to: &OsStr) -> Result<()> {
        let mut files = self.lock();
        if files.contains_key(to) {
            return Err(Error::new(ErrorKind::AlreadyExists, "exists already").at_path(to));
        }
        let Some(file) = files.remove(from) else {
            return Err(Error::new(ErrorKind::NotFound, "no such file").at_path(from));
        };
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove_unused(&self, name: &OsStr) -> Result<bool> {
        let mut files = self.lock();
        let is_unused = files
            .get(name)
            .is_some_and(|file| Arc::strong_count(file) == 1);
        if is_unused {
            files.remove(name);
        }
        Ok(is_unused)
    }

    fn file_id(&self, name: &OsStr) -> Result<Option<FileId>> {
        self.lock()
            .get(name)
            .map_or(Ok(None), |file| file.file_id())
    }

    fn remove(&self, name: &OsStr) -> Result<()> {
        match self.lock().remove(name) {
            Some(_) => Ok(()),
            None => Err(Error::new(ErrorKind::NotFound, "no such file").at_path(name)),
        }
    }

    fn names(&self) -> Result<Vec<OsString>> {
        Ok(self.lock().keys().cloned().collect())
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }
}

/// The number of the next file.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// Memory holds no store longer than `usize` counts; a longer one fails in `get`.
fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}
