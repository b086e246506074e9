//! Block devices of the host.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::FallocateFlags;

use super::kernel::Kernel;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::host::allocation::Allocation;
use crate::storage::host::unix::handle::Handle;
use crate::storage::host::unix::host_file::HostFile;
use crate::storage::{Privacy, SourceStamp, Storage, outside, range_end};

/// A block device: a flat byte store whose length is fixed.
///
/// All of it counts as data, because devices do not tell where they hold zeros. Discarding is
/// never taken for zeroing: what [`punch_hole`](Storage::punch_hole) clears reads as zeros by the
/// kernel's promise, and is written where the device has no such operation.
#[derive(Debug)]
pub struct DeviceStorage {
    handle: Handle,
    len: u64,
    sector_bytes: u64,
    gives_back: bool,
}

impl DeviceStorage {
    /// Takes over an open file that is known to be a block device.
    ///
    /// `Keep` lets the device decide what becomes of cleared space, as `fstrim` does: a thin one
    /// gets it back, a thick one has its own. A loop device over a thick file keeps it thick.
    pub(in crate::storage) fn from_file(
        path: PathBuf,
        mut file: File,
        allocation: Allocation,
        always_direct: bool,
    ) -> Result<Self> {
        let failed = |cause| Error::io("get the length of", cause);
        let len = file
            .seek(SeekFrom::End(0))
            .map_err(|e| failed(e).at_path(&path))?;
        let sector_bytes = rustix::fs::ioctl_blksszget(file.as_fd())
            .map_err(|e| failed(e.into()).at_path(&path))?;
        let gives_back = match allocation {
            Allocation::Sparse => true,
            Allocation::Full => false,
            Allocation::Keep => !stands_on_thick_file(&file),
        };
        Ok(DeviceStorage {
            handle: Handle::new(path, file, always_direct),
            len,
            sector_bytes: u64::from(sector_bytes).max(512),
            gives_back,
        })
    }

    fn inside(&self, range: &Range<u64>) -> Result<()> {
        self.handle.usable()?;
        if range.start > range.end || range.end > self.len {
            return Err(outside(self.path(), range, self.len));
        }
        Ok(())
    }

    /// Clears whole sectors without writing them; `false` where the device cannot.
    fn clear_sectors(&self, range: &Range<u64>) -> Result<bool> {
        let back = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let zero = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
        if self.gives_back && self.clear_by(back, range) {
            return Ok(true);
        }
        Ok(self.clear_by(zero, range))
    }

    /// A device that claims an operation and then fails it is a device without it: writing the
    /// zeros clears the range, or reports what is wrong.
    fn clear_by(&self, how: FallocateFlags, range: &Range<u64>) -> bool {
        self.handle.allocate(how, range).unwrap_or(false)
    }
}

impl Storage for DeviceStorage {
    fn path(&self) -> &Path {
        self.handle.path()
    }

    fn privacy(&self) -> Result<Privacy> {
        let host = HostFile::of(self.path().to_owned(), self.handle.file())?;
        Ok(host.privacy())
    }

    fn len(&self) -> Result<u64> {
        self.handle.usable()?;
        Ok(self.len)
    }

    fn has_fixed_len(&self) -> bool {
        true
    }

    fn sector_bytes(&self) -> Option<u64> {
        Some(self.sector_bytes)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.handle.read_exact_at(buf, offset, || self.len)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let end = range_end(self.path(), offset, buf.len())?;
        if buf.is_empty() {
            return self.handle.usable();
        }
        self.inside(&(offset..end))?;
        self.handle.write_all_at(buf, offset)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.handle.usable()?;
        if len == self.len {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "a device of {:#x} bytes cannot become {len:#x} bytes long",
                self.len
            ),
        )
        .at_path(self.path()))
    }

    fn sync(&self) -> Result<()> {
        self.handle.sync()
    }

    fn punch_hole(&self, range: Range<u64>) -> Result<()> {
        self.inside(&range)?;
        let start = range.start.next_multiple_of(self.sector_bytes);
        let end = range.end - range.end % self.sector_bytes;
        if start >= end {
            return self.handle.write_zeros(range);
        }
        self.handle.write_zeros(range.start..start)?;
        let mut at = start;
        while at < end {
            let step = at..end.min(at.saturating_add(CLEAR_BYTES));
            at = step.end;
            if !self.clear_sectors(&step)? {
                self.handle.write_zeros(step)?;
            }
        }
        self.handle.write_zeros(end..range.end)
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>> {
        self.handle.usable()?;
        self.handle.next_data(offset, || Ok(self.len))
    }

    fn stamp(&self) -> Result<Option<SourceStamp>> {
        self.handle.usable()?;
        SourceStamp::of_device(self.path(), self.handle.file(), self.len).map(Some)
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

/// Whether the device is a loop device, or a partition of one, over a file without holes.
fn stands_on_thick_file(device: &File) -> bool {
    let Ok(number) = device.metadata().map(|facts| facts.rdev()) else {
        return false;
    };
    let kernel = Kernel::host();
    let disk = kernel.disk_of(number).unwrap_or(number);
    kernel
        .backing_file(disk)
        .and_then(|path| std::fs::metadata(path).ok())
        .is_some_and(|facts| facts.is_file() && facts.blocks().saturating_mul(512) >= facts.len())
}

/// How much one system call clears, so that none runs for minutes.
const CLEAR_BYTES: u64 = 1 << 30;
