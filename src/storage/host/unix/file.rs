//! Regular files of the host.

use std::fs::{File, Metadata, OpenOptions};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use rustix::fs::{FallocateFlags, Mode, OFlags};
use rustix::io::Errno;

use super::handle::Handle;
use super::host_file::{HostFile, id_of, is_thick};
use super::length;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::host::allocation::Allocation;
use crate::storage::host::file_id::{FileId, HostKind};
use crate::storage::{Privacy, SourceStamp, Storage, outside, range_end};

/// A regular file, read and written at positions.
#[derive(Debug)]
pub struct FileStorage {
    handle: Handle,
    punches: bool,
    /// The system writes to a file for one thread at a time, and has the others spin meanwhile;
    /// here they sleep.
    writer: Mutex<()>,
    /// Holes are to be filled by the next sync. Not before: data that goes to space which was
    /// taken in advance costs the file system about twice as much as data that goes to a hole.
    unfilled: AtomicBool,
    hides_holes: OnceLock<bool>,
}

impl FileStorage {
    /// Opens for reading only. Takes no locks; [`open_source`](crate::storage::open_source) does.
    ///
    /// # Errors
    /// `NotFound`, `Io`; `Unsupported` for anything but a regular file.
    pub fn open_read(path: impl Into<PathBuf>) -> Result<Self> {
        Self::open_with(path.into(), OpenOptions::new().read(true))
    }

    /// Opens an existing file for reading and writing. Takes no locks;
    /// [`open_target`](crate::storage::open_target) does.
    ///
    /// # Errors
    /// `NotFound`, `Io`; `Unsupported` for anything but a regular file.
    pub fn open_write(path: impl Into<PathBuf>) -> Result<Self> {
        Self::open_with(path.into(), OpenOptions::new().read(true).write(true))
    }

    /// Creates an empty file; its name is durable once its directory is synced. A symbolic link of
    /// that name is an existing file.
    ///
    /// # Errors
    /// `AlreadyExists`, `NoSpace`, `Io`.
    pub fn create_new(path: impl Into<PathBuf>) -> Result<Self> {
        Self::open_with(
            path.into(),
            OpenOptions::new().read(true).write(true).create_new(true),
        )
    }

    /// Creates an empty file without a name in `directory`, which is gone when it is closed; `None`
    /// where the file system knows no such files.
    ///
    /// # Errors
    /// `NotFound`, `NoSpace`, `Io`.
    pub fn nameless(directory: &Path) -> Result<Option<Self>> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        match rustix::fs::open(directory, flags, Mode::RUSR | Mode::WUSR) {
            Ok(file) => {
                let path = directory.to_owned();
                Self::from_file(path, file.into(), Allocation::Keep, false).map(Some)
            }
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::ISDIR) => Ok(None),
            Err(e) => Err(Error::io("create", e).at_path(directory)),
        }
    }

    /// Takes over an open file that is known to be a regular one.
    pub(in crate::storage) fn from_file(
        path: PathBuf,
        file: File,
        allocation: Allocation,
        always_direct: bool,
    ) -> Result<Self> {
        let handle = Handle::new(path, file, always_direct);
        let punches = match allocation {
            Allocation::Sparse => true,
            Allocation::Full => false,
            Allocation::Keep => {
                let facts = handle
                    .file()
                    .metadata()
                    .map_err(|e| handle.failed("inspect file", e))?;
                !is_thick(&facts)
            }
        };
        Ok(FileStorage {
            handle,
            punches,
            writer: Mutex::new(()),
            unfilled: AtomicBool::new(false),
            hides_holes: OnceLock::new(),
        })
    }

    /// Has the first sync fill all holes, where zeros take space; until then growing takes none.
    pub(in crate::storage) fn filled_at_sync(self) -> Self {
        self.unfilled.store(!self.punches, Ordering::Relaxed);
        self
    }

    fn open_with(path: PathBuf, options: &OpenOptions) -> Result<Self> {
        let mut options = options.clone();
        // A FIFO must not be waited for; on a regular file the flag means nothing.
        options.custom_flags(OFlags::NONBLOCK.bits() as i32);
        let file = options
            .open(&path)
            .map_err(|cause| Error::io("open", cause).at_path(&path))?;
        let host = HostFile::of(path, &file)?;
        if host.kind() != HostKind::File {
            return Err(
                Error::new(ErrorKind::Unsupported, "this is not a regular file")
                    .at_path(host.path()),
            );
        }
        Self::from_file(host.into_path(), file, Allocation::Keep, false)
    }

    fn file_len(&self) -> Result<u64> {
        Ok(self.facts()?.len())
    }

    fn facts(&self) -> Result<Metadata> {
        let facts = self.handle.file().metadata();
        facts.map_err(|e| self.handle.failed("get the length of", e))
    }

    fn takes_space_for_zeros(&self) -> bool {
        !self.punches && !self.unfilled.load(Ordering::Relaxed)
    }

    /// Allocates the holes in `range`, beyond the end too; `taken` gets what took space, also
    /// what an allocation that failed may have taken.
    fn fill_holes(&self, range: Range<u64>, taken: &mut Vec<Range<u64>>) -> Result<()> {
        if self.handle.known_data().covers(&range) {
            return Ok(());
        }
        if self.hides_holes()? {
            // Its holes are not known, so nothing of it can be given back.
            let inside = range.start..range.end.min(self.file_len()?);
            if !inside.is_empty() {
                self.handle.allocate(FallocateFlags::KEEP_SIZE, &inside)?;
            }
        }
        let mut blocks = self.facts()?.blocks();
        self.for_each_hole(range.clone(), &mut |hole| {
            taken.push(hole.clone());
            let can = self.handle.allocate(FallocateFlags::KEEP_SIZE, &hole)?;
            let now = self.facts()?.blocks();
            // A hole may have space of its own already: one that was allocated and not written.
            if !can || now == blocks {
                taken.pop();
            }
            blocks = now;
            Ok(())
        })
    }

    /// Whether the file takes less space than it is long, and yet the system shows no hole.
    fn hides_holes(&self) -> Result<bool> {
        if let Some(hides) = self.hides_holes.get() {
            return Ok(*hides);
        }
        let facts = self.facts()?;
        let whole = 0..facts.len();
        let hides = !whole.is_empty() && !is_thick(&facts) && self.next_data(0)? == Some(whole);
        Ok(*self.hides_holes.get_or_init(|| hides))
    }

    /// Visits the holes in `range`, in order; all beyond the end is one.
    fn for_each_hole(
        &self,
        range: Range<u64>,
        visit: &mut dyn FnMut(Range<u64>) -> Result<()>,
    ) -> Result<()> {
        let mut at = range.start;
        while at < range.end {
            let data = self.next_data(at)?.unwrap_or(range.end..range.end);
            let hole = at..data.start.min(range.end);
            if !hole.is_empty() {
                visit(hole)?;
            }
            at = data.end;
        }
        Ok(())
    }
}

impl Storage for FileStorage {
    fn path(&self) -> &Path {
        self.handle.path()
    }

    fn privacy(&self) -> Result<Privacy> {
        let host = HostFile::of(self.path().to_owned(), self.handle.file())?;
        Ok(host.privacy())
    }

    fn len(&self) -> Result<u64> {
        self.handle.usable()?;
        self.file_len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.handle
            .read_exact_at(buf, offset, || self.file_len().unwrap_or(offset))
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let end = range_end(self.path(), offset, buf.len())?;
        length::within_process_limit(self.path(), end)?;
        let _turn = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        self.handle.write_all_at(buf, offset)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        let old_len = self.len()?;
        let mut taken = Vec::new();
        if len > old_len {
            length::within_process_limit(self.path(), len)?;
            if self.takes_space_for_zeros() {
                // Before the length changes, so that a full disk leaves it as it was. Where space
                // cannot be reserved the new bytes are a hole, which reads as zeros too.
                taken = self.reserve(old_len..len)?;
            }
        }
        let set = self.handle.file().set_len(len);
        self.handle.known_data().forget(len..u64::MAX);
        set.map_err(|e| {
            // The first error says more than one from cleaning up.
            let _ = self.give_back(&taken);
            self.handle.failed("set the length of", e).at_offset(len)
        })
    }

    fn sync(&self) -> Result<()> {
        self.handle.usable()?;
        if self.unfilled.load(Ordering::Relaxed) {
            self.handle
                .allocate(FallocateFlags::KEEP_SIZE, &(0..self.len()?))?;
            self.unfilled.store(false, Ordering::Relaxed);
        }
        self.handle.sync()
    }

    fn punch_hole(&self, range: Range<u64>) -> Result<()> {
        let len = self.len()?;
        if range.start > range.end || range.end > len {
            return Err(outside(self.path(), &range, len));
        }
        if range.is_empty() {
            return Ok(());
        }
        let how = if self.punches {
            FallocateFlags::PUNCH_HOLE
        } else {
            FallocateFlags::ZERO_RANGE
        };
        let punched = self
            .handle
            .allocate(how | FallocateFlags::KEEP_SIZE, &range);
        self.handle.known_data().forget(range.clone());
        if punched? {
            return Ok(());
        }
        self.handle.write_zeros(range)
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>> {
        self.handle.usable()?;
        self.handle.next_data(offset, || self.len())
    }

    fn host_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.handle.file().as_fd())
    }

    fn become_clone_of(&self, model: &dyn Storage) -> Result<bool> {
        self.handle.usable()?;
        let Some(model) = model.host_fd() else {
            return Ok(false);
        };
        if rustix::fs::ioctl_ficlone(self.handle.file(), model).is_ok() {
            return Ok(true);
        }
        // A part of it may have been cloned.
        self.set_len(0).map(|()| false)
    }

    fn check_len(&self, len: u64) -> Result<()> {
        self.handle.usable()?;
        length::within_process_limit(self.path(), len)?;
        if len <= self.file_len()? {
            return Ok(());
        }
        length::within_file_system(self.path(), self.handle.file(), len)
    }

    fn reserve(&self, range: Range<u64>) -> Result<Vec<Range<u64>>> {
        self.handle.usable()?;
        let mut taken = Vec::new();
        if range.start < range.end {
            self.check_len(range.end)?;
            // Whole blocks, for only these can be given back.
            let block = self.facts()?.blksize().max(1);
            let end = range.end.checked_next_multiple_of(block);
            let blocks = range.start - range.start % block..end.unwrap_or(range.end);
            self.fill_holes(blocks, &mut taken).inspect_err(|_| {
                // The first error says more than one from cleaning up.
                let _ = self.give_back(&taken);
            })?;
        }
        Ok(taken)
    }

    fn reserve_len(&self, len: u64) -> Result<Vec<Range<u64>>> {
        self.check_len(len)?;
        let old_len = self.file_len()?;
        match len > old_len && self.takes_space_for_zeros() {
            true => self.reserve(old_len..len),
            false => Ok(Vec::new()),
        }
    }

    fn give_back(&self, ranges: &[Range<u64>]) -> Result<()> {
        let len = self.len()?;
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        for range in ranges {
            // Whether they are still holes cannot be asked: the system counts what was allocated
            // and then read as data.
            let inside = range.start..range.end.min(len);
            if !inside.is_empty() {
                let punched = self.handle.allocate(punch, &inside);
                self.handle.known_data().forget(inside);
                punched?;
            }
        }
        if ranges.iter().any(|range| range.end > len) {
            // Frees what is beyond the end; some file systems do not punch there.
            self.handle
                .file()
                .set_len(len)
                .map_err(|e| self.handle.failed("set the length of", e).at_offset(len))?;
        }
        Ok(())
    }

    fn file_id(&self) -> Result<Option<FileId>> {
        let facts = self.handle.file().metadata();
        facts
            .map(|facts| Some(id_of(&facts)))
            .map_err(|e| self.handle.failed("inspect file", e))
    }

    fn stamp(&self) -> Result<Option<SourceStamp>> {
        self.handle.usable()?;
        SourceStamp::of_file(self.path(), self.handle.file()).map(Some)
    }

    fn host_file(&self) -> Result<Option<HostFile>> {
        HostFile::of(self.path().to_owned(), self.handle.file()).map(Some)
    }

    fn drop_cache(&self, range: Range<u64>) {
        self.handle.drop_cache(range);
    }

    fn will_read(&self, range: Range<u64>) {
        self.handle.will_read(range);
    }

    fn reads_from_memory(&self) -> bool {
        self.handle.reads_from_memory()
    }
}
