//! Sparse bytes in memory, as storage and as a directory of files that stops working after a while.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use diskdelta::storage::{Access, Directory, FileId, Privacy, Storage};
use diskdelta::{Error, ErrorKind, Result};

const PAGE: u64 = 4096;
type Page = [u8; PAGE as usize];

/// A byte store that takes memory only where something was written; clones share pages.
#[derive(Debug, Clone, Default)]
pub struct Bytes {
    /// Which file they are of, as an inode number would say; copies of a file keep it.
    file: u64,
    len: u64,
    pages: BTreeMap<u64, Arc<Page>>,
}

impl Bytes {
    pub fn new(bytes: &[u8]) -> Self {
        let mut row = Bytes::default();
        row.put(0, bytes);
        row
    }

    pub fn len(&self) -> u64 {
        self.len
    }

    /// How much memory the pages take.
    pub fn stored(&self) -> u64 {
        self.pages.len() as u64 * PAGE
    }

    pub fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.clear(len..self.len.next_multiple_of(PAGE));
        }
        self.len = len;
    }

    /// Fills `buf`; what lies behind the end is zeros.
    pub fn read(&self, buf: &mut [u8], at: u64) {
        buf.fill(0);
        let end = at.saturating_add(buf.len() as u64);
        for (index, page) in self.pages.range(at / PAGE..=end / PAGE) {
            let start = (index * PAGE).max(at);
            let stop = (index * PAGE + PAGE).min(end);
            if start < stop {
                let from = (start - index * PAGE) as usize;
                let len = (stop - start) as usize;
                buf[(start - at) as usize..][..len].copy_from_slice(&page[from..from + len]);
            }
        }
    }

    pub fn vec(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.read(&mut bytes, at);
        bytes
    }

    pub fn array<const N: usize>(&self, at: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.read(&mut bytes, at);
        bytes
    }

    /// Writes, extending the row where it is too short. Zeros over a hole leave it one.
    pub fn put(&mut self, at: u64, bytes: &[u8]) {
        let mut done = 0;
        while done < bytes.len() {
            let here = at + done as u64;
            let within = (here % PAGE) as usize;
            let len = (PAGE as usize - within).min(bytes.len() - done);
            let part = &bytes[done..done + len];
            let index = here / PAGE;
            if self.pages.contains_key(&index) || part.iter().any(|byte| *byte != 0) {
                let page = self
                    .pages
                    .entry(index)
                    .or_insert_with(|| Arc::new([0; PAGE as usize]));
                Arc::make_mut(page)[within..within + len].copy_from_slice(part);
            }
            done += len;
        }
        self.len = self.len.max(at + bytes.len() as u64);
    }

    /// Makes a range read as zeros.
    pub fn clear(&mut self, range: Range<u64>) {
        let indexes = range.start / PAGE..range.end.div_ceil(PAGE);
        if indexes.is_empty() {
            return;
        }
        let touched: Vec<u64> = self.pages.range(indexes).map(|(index, _)| *index).collect();
        for index in touched {
            let start = range.start.max(index * PAGE) - index * PAGE;
            let end = range.end.min(index * PAGE + PAGE) - index * PAGE;
            if end - start == PAGE {
                self.pages.remove(&index);
            } else if let Some(page) = self.pages.get_mut(&index) {
                Arc::make_mut(page)[start as usize..end as usize].fill(0);
            }
        }
    }

    /// The first stretch at or after `at` that is no hole.
    pub fn next_data(&self, at: u64) -> Option<Range<u64>> {
        let (first, _) = self.pages.range(at / PAGE..).next()?;
        let mut end = first + 1;
        while self.pages.contains_key(&end) {
            end += 1;
        }
        let range = (first * PAGE).max(at)..(end * PAGE).min(self.len);
        (!range.is_empty()).then_some(range)
    }

    pub fn same_as(&self, other: &Bytes) -> bool {
        let zeros = [0; PAGE as usize];
        let covers = |a: &Bytes, b: &Bytes| {
            a.pages
                .iter()
                .all(|(index, page)| match b.pages.get(index) {
                    Some(theirs) => Arc::ptr_eq(page, theirs) || page == theirs,
                    None => **page == zeros,
                })
        };
        self.len == other.len && covers(self, other) && covers(other, self)
    }
}

/// What every handle of a fixture shares: how many more changes succeed.
pub type Fuel = Arc<AtomicI64>;

/// A fuel that does not run out.
pub fn endless() -> Fuel {
    Arc::new(AtomicI64::new(i64::MAX))
}

/// Sparse bytes as storage.
#[derive(Debug, Clone)]
pub struct Store {
    name: PathBuf,
    bytes: Arc<RwLock<Bytes>>,
    fuel: Fuel,
}

impl Store {
    pub fn new(name: &str, bytes: Bytes) -> Self {
        Store {
            name: name.into(),
            bytes: Arc::new(RwLock::new(bytes)),
            fuel: endless(),
        }
    }

    pub fn bytes(&self) -> Bytes {
        self.bytes.read().unwrap().clone()
    }

    fn change(&self, end: u64, change: impl FnOnce(&mut Bytes)) -> Result<()> {
        if self.fuel.fetch_sub(1, Ordering::SeqCst) <= 0 {
            self.fuel.store(0, Ordering::SeqCst);
            return Err(Error::new(ErrorKind::Io, "power cut").at_path(&self.name));
        }
        if end > MOST_BYTES {
            return Err(Error::new(ErrorKind::NoSpace, "too long").at_path(&self.name));
        }
        change(&mut self.bytes.write().unwrap());
        Ok(())
    }
}

impl Storage for Store {
    fn path(&self) -> &Path {
        &self.name
    }

    fn file_id(&self) -> Result<Option<FileId>> {
        Ok(Some(id_of(&self.bytes)))
    }

    fn len(&self) -> Result<u64> {
        Ok(self.bytes.read().unwrap().len())
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let bytes = self.bytes.read().unwrap();
        match offset.checked_add(buf.len() as u64) {
            Some(end) if end <= bytes.len() || buf.is_empty() => {
                bytes.read(buf, offset);
                Ok(())
            }
            _ => Err(Error::new(ErrorKind::Io, "read past the end")
                .at_path(&self.name)
                .at_offset(bytes.len())),
        }
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let end = offset.saturating_add(buf.len() as u64);
        self.change(end, |bytes| {
            if !buf.is_empty() {
                bytes.put(offset, buf);
            }
        })
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.change(len, |bytes| bytes.set_len(len))
    }

    fn sync(&self) -> Result<()> {
        self.change(0, |_| {})
    }

    fn punch_hole(&self, range: Range<u64>) -> Result<()> {
        let len = self.len()?;
        if range.start > range.end || range.end > len {
            return Err(Error::new(ErrorKind::InvalidInput, "a hole outside").at_path(&self.name));
        }
        self.change(range.end, |bytes| bytes.clear(range))
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>> {
        Ok(self.bytes.read().unwrap().next_data(offset))
    }
}

/// Files are told apart by where they lie in memory.
/// A number that no other file has.
fn new_file() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}

fn id_of(bytes: &Arc<RwLock<Bytes>>) -> FileId {
    FileId {
        device: 0,
        inode: bytes.read().unwrap().file,
    }
}

/// A directory of sparse files.
#[derive(Clone)]
pub struct Fixture {
    files: Arc<Mutex<BTreeMap<OsString, Arc<RwLock<Bytes>>>>>,
    fuel: Fuel,
}

impl Fixture {
    pub fn new() -> Self {
        Fixture {
            files: Arc::default(),
            fuel: endless(),
        }
    }

    /// The same files with power for `changes` more changes.
    pub fn powered(&self, changes: i64) -> Self {
        Fixture {
            files: self.files.clone(),
            fuel: Arc::new(AtomicI64::new(changes)),
        }
    }

    /// A copy that shares nothing.
    pub fn snapshot(&self) -> Self {
        let copy = Fixture::new();
        for name in self.list() {
            copy.insert(&name, self.bytes(&name).unwrap());
        }
        copy
    }

    /// Puts a file there; in the place of another it is the same file with other bytes.
    pub fn insert(&self, name: &str, mut bytes: Bytes) {
        let mut files = self.files.lock().unwrap();
        if let Some(there) = files.get(OsStr::new(name)) {
            bytes.file = there.read().unwrap().file;
        } else if bytes.file == 0 {
            bytes.file = new_file();
        }
        files.insert(name.into(), Arc::new(RwLock::new(bytes)));
    }

    pub fn bytes(&self, name: &str) -> Option<Bytes> {
        let files = self.files.lock().unwrap();
        Some(files.get(OsStr::new(name))?.read().unwrap().clone())
    }

    pub fn list(&self) -> Vec<String> {
        let files = self.files.lock().unwrap();
        let names = files.keys().map(|name| name.to_string_lossy().into_owned());
        names.collect()
    }

    fn store(&self, name: &OsStr, bytes: Arc<RwLock<Bytes>>) -> Arc<dyn Storage> {
        Arc::new(Store {
            name: Path::new("/fixture").join(name),
            bytes,
            fuel: self.fuel.clone(),
        })
    }

    fn spend(&self) -> Result<()> {
        if self.fuel.fetch_sub(1, Ordering::SeqCst) <= 0 {
            self.fuel.store(0, Ordering::SeqCst);
            return Err(Error::new(ErrorKind::Io, "power cut"));
        }
        Ok(())
    }
}

impl Directory for Fixture {
    fn path(&self) -> &Path {
        Path::new("/fixture")
    }

    fn open(&self, name: &OsStr, _access: Access) -> Result<Arc<dyn Storage>> {
        match self.files.lock().unwrap().get(name) {
            Some(bytes) => Ok(self.store(name, bytes.clone())),
            None => Err(Error::new(ErrorKind::NotFound, "no such file").at_path(name)),
        }
    }

    fn create(&self, name: &OsStr, _privacy: Privacy) -> Result<Arc<dyn Storage>> {
        self.spend()?;
        let mut files = self.files.lock().unwrap();
        if files.contains_key(name) {
            return Err(Error::new(ErrorKind::AlreadyExists, "exists").at_path(name));
        }
        let bytes = Arc::new(RwLock::new(Bytes::default()));
        bytes.write().unwrap().file = new_file();
        files.insert(name.to_owned(), bytes.clone());
        Ok(self.store(name, bytes))
    }

    fn rename(&self, from: &OsStr, to: &OsStr) -> Result<()> {
        self.spend()?;
        let mut files = self.files.lock().unwrap();
        match files.remove(from) {
            Some(file) => {
                files.insert(to.to_owned(), file);
                Ok(())
            }
            None => Err(Error::new(ErrorKind::NotFound, "no such file").at_path(from)),
        }
    }

    fn remove(&self, name: &OsStr) -> Result<()> {
        self.spend()?;
        match self.files.lock().unwrap().remove(name) {
            Some(_) => Ok(()),
            None => Err(Error::new(ErrorKind::NotFound, "no such file").at_path(name)),
        }
    }

    fn rename_new(&self, from: &OsStr, to: &OsStr) -> Result<()> {
        match self.files.lock().unwrap().contains_key(to) {
            true => Err(Error::new(ErrorKind::AlreadyExists, "exists").at_path(to)),
            false => self.rename(from, to),
        }
    }

    fn remove_unused(&self, name: &OsStr) -> Result<bool> {
        match self.files.lock().unwrap().get(name).map(Arc::strong_count) {
            Some(1) => self.remove(name).map(|()| true),
            _ => Ok(false),
        }
    }

    fn file_id(&self, name: &OsStr) -> Result<Option<FileId>> {
        let files = self.files.lock().unwrap();
        Ok(files.get(name).map(id_of))
    }

    fn names(&self) -> Result<Vec<OsString>> {
        Ok(self.files.lock().unwrap().keys().cloned().collect())
    }

    fn sync(&self) -> Result<()> {
        self.spend()
    }
}

/// What no file system here holds.
const MOST_BYTES: u64 = 1 << 46;
