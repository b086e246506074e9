//! What files and block devices have in common: a poisonable handle with positions.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::Errno;

use super::cache::Reader;
use crate::error::{Error, Result};
use crate::storage::host::known_data::KnownData;
use crate::storage::{past_end, poisoned, range_end};

/// An open file or device. Locks taken on it last as long as it lives.
#[derive(Debug)]
pub(in crate::storage) struct Handle {
    path: PathBuf,
    file: File,
    reader: Reader,
    known_data: KnownData,
    poisoned: AtomicBool,
}

impl Handle {
    pub(in crate::storage) fn new(path: PathBuf, file: File, always_direct: bool) -> Self {
        let reader = Reader::new(&file, always_direct);
        Handle {
            path,
            file,
            reader,
            known_data: KnownData::default(),
            poisoned: AtomicBool::new(false),
        }
    }

    pub(in crate::storage) fn path(&self) -> &Path {
        &self.path
    }

    pub(in crate::storage) fn file(&self) -> &File {
        &self.file
    }

    /// Fails once a sync has failed.
    pub(in crate::storage) fn usable(&self) -> Result<()> {
        if self.poisoned.load(Ordering::SeqCst) {
            Err(poisoned(&self.path))
        } else {
            Ok(())
        }
    }

    pub(in crate::storage) fn failed(
        &self,
        operation: &'static str,
        cause: impl Into<io::Error>,
    ) -> Error {
        Error::io(operation, cause).at_path(&self.path)
    }

    /// `len` is asked only to say how much is there when the read runs over the end.
    pub(in crate::storage) fn read_exact_at(
        &self,
        buf: &mut [u8],
        offset: u64,
        len: impl FnOnce() -> u64,
    ) -> Result<()> {
        self.usable()?;
        let end = range_end(&self.path, offset, buf.len())?;
        self.reader
            .read_exact_at(&self.file, buf, offset)
            .map_err(|stopped| {
                if stopped.cause.kind() == io::ErrorKind::UnexpectedEof {
                    past_end(&self.path, end, len())
                } else {
                    let at = offset + stopped.done as u64;
                    self.failed("read", stopped.cause).at_offset(at)
                }
            })
    }

    pub(in crate::storage) fn write_all_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.usable()?;
        range_end(&self.path, offset, buf.len())?;
        self.file
            .write_all_at(buf, offset)
            .map_err(|cause| self.failed("write", cause).at_offset(offset))
    }

    pub(in crate::storage) fn sync(&self) -> Result<()> {
        self.usable()?;
        self.file.sync_all().map_err(|cause| {
            self.poisoned.store(true, Ordering::SeqCst);
            self.failed("sync", cause)
        })
    }

    /// The next stretch of data; all up to `len` where the system cannot tell.
    pub(in crate::storage) fn next_data(
        &self,
        offset: u64,
        len: impl Fn() -> Result<u64>,
    ) -> Result<Option<Range<u64>>> {
        let ask = |offset| self.ask_for_data(offset, &len);
        self.known_data.next(offset, ask)
    }

    /// What [`next_data`](Handle::next_data) has found.
    pub(in crate::storage) fn known_data(&self) -> &KnownData {
        &self.known_data
    }

    fn ask_for_data(
        &self,
        offset: u64,
        len: &dyn Fn() -> Result<u64>,
    ) -> Result<Option<Range<u64>>> {
        let start = match rustix::fs::seek(&self.file, SeekFrom::Data(offset)) {
            Ok(start) => start.max(offset),
            // Nothing but a hole up to the end.
            Err(Errno::NXIO) => return Ok(None),
            Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => {
                let end = len()?;
                return Ok((offset < end).then_some(offset..end));
            }
            Err(cause) => return Err(self.failed("look for data in", cause).at_offset(offset)),
        };
        // There is a hole at the end of every file.
        let end = match rustix::fs::seek(&self.file, SeekFrom::Hole(start)) {
            Ok(end) => end,
            Err(_) => len()?,
        };
        Ok((start < end).then_some(start..end))
    }

    /// One `fallocate`; `false` where the system or the medium cannot do it.
    pub(in crate::storage) fn allocate(
        &self,
        flags: FallocateFlags,
        range: &Range<u64>,
    ) -> Result<bool> {
        let len = range.end - range.start;
        loop {
            return match rustix::fs::fallocate(&self.file, flags, range.start, len) {
                Ok(()) => Ok(true),
                Err(Errno::INTR) => continue,
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(false),
                Err(cause) => Err(self.failed("allocate", cause).at_offset(range.start)),
            };
        }
    }

    pub(in crate::storage) fn write_zeros(&self, range: Range<u64>) -> Result<()> {
        let mut at = range.start;
        // At most 1 MiB.
        let zeros = vec![0u8; (range.end - at).min(1 << 20) as usize];
        while at < range.end {
            let len = (range.end - at).min(zeros.len() as u64);
            self.write_all_at(&zeros[..len as usize], at)?;
            at += len;
        }
        Ok(())
    }

    pub(in crate::storage) fn drop_cache(&self, range: Range<u64>) {
        self.reader.drop_cache(&self.file, range);
    }

    pub(in crate::storage) fn will_read(&self, range: Range<u64>) {
        self.reader.will_read(&self.file, range);
    }

    pub(in crate::storage) fn reads_from_memory(&self) -> bool {
        self.reader.is_warm()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.reader.finish(&self.file);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn a_failed_sync_poisons_the_handle() {
        // Character devices cannot be synced.
        let file = File::options()
            .read(true)
            .write(true)
            .open("/dev/zero")
            .unwrap();
        let handle = Handle::new("zero".into(), file, false);
        handle.write_all_at(b"x", 0).unwrap();
        handle.read_exact_at(&mut [0], 0, || 1).unwrap();
        assert_eq!(handle.sync().unwrap_err().kind(), ErrorKind::Io);
        let after = [
            handle.sync(),
            handle.write_all_at(b"x", 0),
            handle.read_exact_at(&mut [0], 0, || 1),
        ];
        for outcome in after {
            assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Poisoned);
        }
    }
}
