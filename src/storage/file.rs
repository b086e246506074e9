//! Regular files of the host.

use std::fs::{File, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Advice, FallocateFlags, SeekFrom};
use rustix::io::Errno;

use super::{Storage, past_end, poisoned, range_end};
use crate::error::{Error, ErrorKind, Result};

/// A regular file, read and written at positions.
#[derive(Debug)]
pub struct FileStorage {
    path: PathBuf,
    file: File,
    poisoned: AtomicBool,
}

impl FileStorage {
    /// Opens for reading only.
    ///
    /// # Errors
    /// `NotFound`, `Io`.
    pub fn open_read(path: impl Into<PathBuf>) -> Result<Self> {
        Self::open_with(path.into(), OpenOptions::new().read(true))
    }

    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// `NotFound`, `Io`.
    pub fn open_write(path: impl Into<PathBuf>) -> Result<Self> {
        Self::open_with(path.into(), OpenOptions::new().read(true).write(true))
    }

    /// Creates an empty file; its name is durable once its folder is synced.
    ///
    /// # Errors
    /// `AlreadyExists`, `NoSpace`, `Io`.
    pub fn create_new(path: impl Into<PathBuf>) -> Result<Self> {
        Self::open_with(
            path.into(),
            OpenOptions::new().read(true).write(true).create_new(true),
        )
    }

    fn open_with(path: PathBuf, options: &OpenOptions) -> Result<Self> {
        match options.open(&path) {
            Ok(file) => Ok(FileStorage {
                path,
                file,
                poisoned: AtomicBool::new(false),
            }),
            Err(cause) => Err(Error::io("open", cause).at_path(path)),
        }
    }

    fn usable(&self) -> Result<()> {
        if self.poisoned.load(Ordering::SeqCst) {
            Err(poisoned(&self.path))
        } else {
            Ok(())
        }
    }

    fn failed(&self, operation: &'static str, cause: impl Into<std::io::Error>) -> Error {
        Error::io(operation, cause).at_path(&self.path)
    }

    fn write_zeros(&self, range: Range<u64>) -> Result<()> {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        let mut at = range.start;
        while at < range.end {
            let len = (range.end - at).min(ZEROS.len() as u64);
            // `len` is at most 64 KiB.
            self.write_all_at(&ZEROS[..len as usize], at)?;
            at += len;
        }
        Ok(())
    }
}

impl Storage for FileStorage {
    fn path(&self) -> &Path {
        &self.path
    }

    fn len(&self) -> Result<u64> {
        self.usable()?;
        Ok(self
            .file
            .metadata()
            .map_err(|e| self.failed("ask for the length", e))?
            .len())
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.usable()?;
        let end = range_end(&self.path, offset, buf.len())?;
        self.file.read_exact_at(buf, offset).map_err(|cause| {
            if cause.kind() == std::io::ErrorKind::UnexpectedEof {
                past_end(&self.path, end, self.len().unwrap_or(offset))
            } else {
                self.failed("read", cause).at_offset(offset)
            }
        })
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.usable()?;
        range_end(&self.path, offset, buf.len())?;
        self.file
            .write_all_at(buf, offset)
            .map_err(|cause| self.failed("write", cause).at_offset(offset))
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.usable()?;
        self.file
            .set_len(len)
            .map_err(|cause| self.failed("set the length", cause).at_offset(len))
    }

    fn sync(&self) -> Result<()> {
        self.usable()?;
        self.file.sync_all().map_err(|cause| {
            self.poisoned.store(true, Ordering::SeqCst);
            self.failed("sync", cause)
        })
    }

    fn punch_hole(&self, range: Range<u64>) -> Result<()> {
        self.usable()?;
        let len = self.len()?;
        if range.start > range.end || range.end > len {
            return Err(
                Error::new(ErrorKind::InvalidInput, "a hole must lie inside the file")
                    .at_path(&self.path)
                    .at_offset(range.end),
            );
        }
        if range.is_empty() {
            return Ok(());
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&self.file, flags, range.start, range.end - range.start) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.write_zeros(range),
            Err(cause) => Err(self.failed("punch a hole", cause).at_offset(range.start)),
        }
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>> {
        self.usable()?;
        let len = self.len()?;
        if offset >= len {
            return Ok(None);
        }
        let start = match rustix::fs::seek(&self.file, SeekFrom::Data(offset)) {
            Ok(start) => start.max(offset),
            // Nothing but a hole up to the end.
            Err(Errno::NXIO) => return Ok(None),
            // Where holes cannot be asked for, all is data.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some(offset..len)),
            Err(cause) => return Err(self.failed("seek data", cause).at_offset(offset)),
        };
        let end = match rustix::fs::seek(&self.file, SeekFrom::Hole(start)) {
            Ok(end) => end.min(len),
            Err(_) => len,
        };
        Ok((start < end).then_some(start..end))
    }

    fn reserve(&self, range: Range<u64>) -> Result<()> {
        self.usable()?;
        if range.is_empty() {
            return Ok(());
        }
        let len = range.end - range.start;
        match rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, range.start, len) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(cause) => Err(self.failed("reserve space", cause).at_offset(range.start)),
        }
    }

    fn drop_cache(&self, range: Range<u64>) {
        let len = std::num::NonZeroU64::new(range.end.saturating_sub(range.start));
        // A hint: what the system makes of it does not matter.
        let _ = rustix::fs::fadvise(&self.file, range.start, len, Advice::DontNeed);
    }

    fn will_read(&self, range: Range<u64>) {
        let len = std::num::NonZeroU64::new(range.end.saturating_sub(range.start));
        let _ = rustix::fs::fadvise(&self.file, range.start, len, Advice::WillNeed);
    }
}
