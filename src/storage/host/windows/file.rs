//! Regular files of Windows.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::windows::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use windows_sys::Win32::Storage::FileSystem::{
    FILE_ATTRIBUTE_TEMPORARY, FILE_FLAG_DELETE_ON_CLOSE, FILE_SHARE_DELETE, FILE_SHARE_READ,
    FILE_SHARE_WRITE,
};

use super::calls::{self, Facts};
use super::direct;
use super::host_file::{HostFile, has_holes, refuse_devices};
use super::open_file::OpenFile;
use super::sparse::{first_allocated, is_missing};
use crate::error::{Error, Result};
use crate::random::random;
use crate::storage::host::allocation::Allocation;
use crate::storage::host::file_id::FileId;
use crate::storage::host::known_data::KnownData;
use crate::storage::{Privacy, SourceStamp, Storage, outside, past_end, range_end};

/// A regular file, read and written at positions.
///
/// With [`Allocation::Keep`] only a file that is sparse already gets holes: Hyper-V attaches no
/// image that is a sparse file.
#[derive(Debug)]
pub struct FileStorage {
    open: Arc<OpenFile>,
    known_data: KnownData,
    punches: bool,
    /// Reads come from the medium. The system writes first what its cache holds of them.
    is_cold: AtomicBool,
    /// Whether the file system lets the file have holes, once that was tried.
    is_sparse: OnceLock<bool>,
}

impl FileStorage {
    /// Opens for reading only, and keeps nothing from being written by others;
    /// [`open_source`](crate::storage::open_source) does.
    ///
    /// # Errors
    /// `NotFound`, `Io`; `Unsupported` for anything but a regular file.
    pub fn open_read(path: impl Into<PathBuf>) -> Result<Self> {
        Self::open_with(path.into(), OpenOptions::new().read(true))
    }

    /// Opens an existing file for reading and writing, and keeps others from nothing;
    /// [`open_target`](crate::storage::open_target) does.
    ///
    /// # Errors
    /// `NotFound`, `Io`; `Unsupported` for anything but a regular file.
    pub fn open_write(path: impl Into<PathBuf>) -> Result<Self> {
        Self::open_with(path.into(), OpenOptions::new().read(true).write(true))
    }

    /// Creates an empty file; its name is durable once its directory is synced.
    ///
    /// # Errors
    /// `AlreadyExists`, `NoSpace`, `Io`.
    pub fn create_new(path: impl Into<PathBuf>) -> Result<Self> {
        Self::open_with(
            path.into(),
            OpenOptions::new().read(true).write(true).create_new(true),
        )
    }

    /// Creates an empty file in `directory` that no other can open, and that is gone when it is
    /// closed.
    ///
    /// # Errors
    /// `NotFound`, `NoSpace`, `Io`.
    pub fn nameless(directory: &Path) -> Result<Option<Self>> {
        let id: [u8; 16] = random()?;
        let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        let path = directory.join(format!(".diskdelta-scratch-{hex}"));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .share_mode(0)
            .attributes(FILE_ATTRIBUTE_TEMPORARY)
            .custom_flags(FILE_FLAG_DELETE_ON_CLOSE)
            .open(&path)
            .map_err(|e| Error::io("create", e).at_path(&path))?;
        Self::from_file(path, file, Allocation::Keep, false).map(Some)
    }

    /// Takes over an open file that is known to be a regular one.
    pub(super) fn from_file(
        path: PathBuf,
        file: File,
        allocation: Allocation,
        always_direct: bool,
    ) -> Result<Self> {
        let punches = match allocation {
            Allocation::Sparse => true,
            Allocation::Full => false,
            Allocation::Keep => {
                let facts = calls::facts(&file);
                has_holes(&facts.map_err(|e| Error::io("inspect file", e).at_path(&path))?)
            }
        };
        Ok(FileStorage {
            open: OpenFile::new(path, file)?,
            known_data: KnownData::default(),
            punches,
            is_cold: AtomicBool::new(always_direct),
            is_sparse: OnceLock::new(),
        })
    }

    fn open_with(path: PathBuf, options: &OpenOptions) -> Result<Self> {
        refuse_devices(&path)?;
        let mut options = options.clone();
        options.share_mode(FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE);
        let file = options
            .open(&path)
            .map_err(|cause| Error::io("open", cause).at_path(&path))?;
        HostFile::of(path.clone(), &file)?;
        Self::from_file(path, file, Allocation::Keep, false)
    }

    fn facts(&self) -> Result<Facts> {
        self.open.with("inspect file", calls::facts)
    }

    /// Lets the file have holes where it is to have some; whether it may.
    fn may_have_holes(&self) -> Result<bool> {
        if !self.punches {
            return Ok(false);
        }
        if let Some(is) = self.is_sparse.get() {
            return Ok(*is);
        }
        let is = self
            .open
            .with("make sparse", |file| match calls::set_sparse(file) {
                Err(cause) if is_missing(&cause) => Ok(false),
                set => set.map(|()| true),
            })?;
        Ok(*self.is_sparse.get_or_init(|| is))
    }

    /// Reads some bytes from the medium; through the cache where the system does not let it be
    /// passed.
    fn read_cold(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        let read = self.open.with_unbuffered("read", |file| match file {
            Some(file) => direct::read(file, buf, offset).map(Some),
            None => Ok(None),
        })?;
        match read {
            Some(count) => Ok(count),
            None => self.open.with("read", |file| file.seek_read(buf, offset)),
        }
    }

    fn write_zeros(&self, range: Range<u64>) -> Result<()> {
        let zeros = vec![0u8; (range.end - range.start).min(1 << 20) as usize];
        let mut at = range.start;
        while at < range.end {
            let len = (range.end - at).min(zeros.len() as u64);
            self.write_all_at(&zeros[..len as usize], at)?;
            at += len;
        }
        Ok(())
    }
}

impl Storage for FileStorage {
    fn path(&self) -> &Path {
        self.open.path()
    }

    fn privacy(&self) -> Result<Privacy> {
        Ok(Privacy::USUAL)
    }

    fn len(&self) -> Result<u64> {
        Ok(self.facts()?.len)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.open.usable()?;
        let end = range_end(self.path(), offset, buf.len())?;
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let rest = &mut buf[done..];
            let count = match self.is_cold.load(Ordering::Relaxed) {
                true => self.read_cold(rest, at),
                false => self.open.with("read", |file| file.seek_read(rest, at)),
            };
            match count.map_err(|error| error.at_offset(at))? {
                0 => return Err(past_end(self.path(), end, self.len().unwrap_or(at))),
                count => done += count,
            }
        }
        Ok(())
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.open.usable()?;
        range_end(self.path(), offset, buf.len())?;
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let rest = &buf[done..];
            let count = self
                .open
                .with("write", |file| match file.seek_write(rest, at) {
                    Ok(0) => Err(io::ErrorKind::WriteZero.into()),
                    written => written,
                });
            done += count.map_err(|error| error.at_offset(at))?;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        let old_len = self.len()?;
        let mut taken = Vec::new();
        if len > old_len && !self.may_have_holes()? {
            // Before the length changes, so that a full disk leaves it as it was.
            taken = self.reserve(old_len..len)?;
        }
        let set = self.open.with("set the length", |file| file.set_len(len));
        self.known_data.forget(len..u64::MAX);
        set.map_err(|error| {
            // The first error says more than one from cleaning up.
            let _ = self.give_back(&taken);
            error.at_offset(len)
        })
    }

    fn sync(&self) -> Result<()> {
        self.open.usable()?;
        self.open.sync()
    }

    fn punch_hole(&self, range: Range<u64>) -> Result<()> {
        let len = self.len()?;
        if range.start > range.end || range.end > len {
            return Err(outside(self.path(), &range, len));
        }
        if range.is_empty() {
            return Ok(());
        }
        self.may_have_holes()?;
        let zeroed = self
            .open
            .with("zero", |file| match calls::zero_data(file, &range) {
                Err(cause) if is_missing(&cause) => Ok(false),
                zeroed => zeroed.map(|()| true),
            });
        self.known_data.forget(range.clone());
        match zeroed? {
            true => Ok(()),
            false => self.write_zeros(range),
        }
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>> {
        let ask = |offset| {
            let facts = self.facts()?;
            let rest = offset..facts.len;
            if rest.is_empty() || !has_holes(&facts) {
                return Ok((!rest.is_empty()).then_some(rest));
            }
            self.open.with("find data", |file| {
                first_allocated(rest.clone(), |range| calls::allocated_ranges(file, range))
            })
        };
        self.open.usable()?;
        self.known_data.next(offset, ask)
    }

    fn reserve(&self, range: Range<u64>) -> Result<Vec<Range<u64>>> {
        let facts = self.facts()?;
        // What is inside has its space, or is a hole, for which there is no call.
        if range.end <= facts.len.max(facts.allocated) {
            return Ok(Vec::new());
        }
        self.open
            .with("allocate", |file| match calls::allocate(file, range.end) {
                Err(cause) if is_missing(&cause) => Ok(()),
                allocated => allocated,
            })
            .map_err(|error| error.at_offset(range.end))?;
        let beyond = facts.len.max(facts.allocated)..range.end;
        Ok(vec![beyond])
    }

    fn reserve_len(&self, len: u64) -> Result<Vec<Range<u64>>> {
        let old_len = self.len()?;
        match len > old_len && !self.may_have_holes()? {
            true => self.reserve(old_len..len),
            false => Ok(Vec::new()),
        }
    }

    fn give_back(&self, ranges: &[Range<u64>]) -> Result<()> {
        let len = self.len()?;
        for range in ranges {
            let inside = range.start..range.end.min(len);
            if !inside.is_empty() {
                self.punch_hole(inside)?;
            }
        }
        if ranges.iter().any(|range| range.end > len) {
            // Setting the length gives back what is beyond it.
            self.open
                .with("set the length", |file| file.set_len(len))
                .map_err(|error| error.at_offset(len))?;
        }
        Ok(())
    }

    fn file_id(&self) -> Result<Option<FileId>> {
        Ok(Some(self.open.id()))
    }

    fn stamp(&self) -> Result<Option<SourceStamp>> {
        self.facts()
            .map(|facts| Some(super::stamp::stamp_of(&facts)))
    }

    fn drop_cache(&self, _range: Range<u64>) {
        self.is_cold.store(true, Ordering::Relaxed);
    }

    fn host_file(&self) -> Result<Option<HostFile>> {
        HostFile::from_facts(self.path().to_owned(), &self.facts()?).map(Some)
    }
}
