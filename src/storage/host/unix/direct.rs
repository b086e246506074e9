//! Reads that bypass the page cache (`O_DIRECT`), with the alignment they need.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{AtFlags, OFlags, StatxFlags};

use crate::storage::aligned::AlignedBuf;

/// A second handle on an open file whose reads come from the medium.
#[derive(Debug)]
pub(in crate::storage) struct DirectFile {
    file: File,
    offset_align: usize,
    memory_align: usize,
    bounces: Mutex<Vec<AlignedBuf>>,
}

impl DirectFile {
    /// Opens the file behind `file` once more; `None` where the system cannot read it directly.
    pub(in crate::storage) fn reopen(file: &File) -> Option<Self> {
        let (offset_align, memory_align) = alignment(file)?;
        // Through the handle and not the path, so that it is the same file whatever was renamed.
        let again = OpenOptions::new()
            .read(true)
            .custom_flags((OFlags::DIRECT | OFlags::NONBLOCK).bits() as i32)
            .open(format!("/proc/self/fd/{}", file.as_raw_fd()))
            .ok()?;
        Some(DirectFile {
            file: again,
            offset_align,
            memory_align,
            bounces: Mutex::new(Vec::new()),
        })
    }

    /// Fills `buf` from `offset` on, or fails with `UnexpectedEof` where the file ends inside.
    pub(in crate::storage) fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let misaligned = offset % self.offset_align as u64;
        let (head, rest) = match misaligned {
            0 => (0, buf.len()),
            // Below the alignment, which is at most a page.
            over => {
                let head = (self.offset_align - over as usize).min(buf.len());
                (head, buf.len() - head)
            }
        };
        let whole = rest - rest % self.offset_align;
        let (head, rest) = buf.split_at_mut(head);
        let (whole, tail) = rest.split_at_mut(whole);
        self.read_bounced(head, offset)?;
        let offset = offset + head.len() as u64;
        if (whole.as_ptr() as usize).is_multiple_of(self.memory_align) {
            self.read_aligned(whole, offset)?;
        } else {
            for (index, piece) in whole.chunks_mut(BOUNCE_BYTES).enumerate() {
                self.read_bounced(piece, offset + (index * BOUNCE_BYTES) as u64)?;
            }
        }
        self.read_bounced(tail, offset + whole.len() as u64)
    }

    /// Everything is aligned; the file may still end inside.
    fn read_aligned(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while done < buf.len() {
            match self.file.read_at(&mut buf[done..], offset + done as u64) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => done += count,
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                Err(cause) => return Err(cause),
            }
        }
        Ok(())
    }

    /// Reads a piece of at most [`BOUNCE_BYTES`] into an aligned buffer and copies it. One that
    /// does not begin aligned ends at the next aligned offset or before it.
    fn read_bounced(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        if buf.is_empty() {
            return Ok(());
        }
        let skip = (offset % self.offset_align as u64) as usize;
        let cover = (skip + buf.len()).next_multiple_of(self.offset_align);
        let pooled = self.pool().pop();
        let mut bounce = pooled.unwrap_or_else(|| AlignedBuf::new(BOUNCE_BYTES));
        let outcome = loop {
            match self
                .file
                .read_at(&mut bounce[..cover], offset - skip as u64)
            {
                // Short only where the file ends.
                Ok(count) if count < skip + buf.len() => {
                    break Err(io::ErrorKind::UnexpectedEof.into());
                }
                Ok(_) => {
                    buf.copy_from_slice(&bounce[skip..skip + buf.len()]);
                    break Ok(());
                }
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                Err(cause) => break Err(cause),
            }
        };
        self.pool().push(bounce);
        outcome
    }

    fn pool(&self) -> std::sync::MutexGuard<'_, Vec<AlignedBuf>> {
        self.bounces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The alignment of offsets and of memory for direct reads, in bytes.
fn alignment(file: &File) -> Option<(usize, usize)> {
    let is_device = file.metadata().ok()?.file_type().is_block_device();
    if is_device {
        let sector = rustix::fs::ioctl_blksszget(file.as_fd()).ok()?;
        return usable(sector, sector);
    }
    match rustix::fs::statx(file.as_fd(), "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN) {
        Ok(facts) if facts.stx_mask & StatxFlags::DIOALIGN.bits() != 0 => {
            usable(facts.stx_dio_offset_align, facts.stx_dio_mem_align)
        }
        // Older systems do not tell; a page satisfies every device there is.
        _ => Some((PAGE, PAGE)),
    }
}

/// Zero says that direct reads are not possible; more than a page is left to the cache.
fn usable(offset_align: u32, memory_align: u32) -> Option<(usize, usize)> {
    let fits = |align: u32| {
        let align = usize::try_from(align).ok()?;
        (align.is_power_of_two() && align <= PAGE).then_some(align)
    };
    Some((fits(offset_align)?, fits(memory_align)?))
}

const PAGE: usize = 4096;

/// How much goes through a bounce buffer at a time.
const BOUNCE_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn direct_reads_give_the_same_bytes_at_every_alignment_and_fail_past_the_end() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let len = 3 * BOUNCE_BYTES + 777;
        let bytes: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
        file.write_all(&bytes).unwrap();
        let Some(direct) = DirectFile::reopen(file.as_file()) else {
            eprintln!("LEFT OUT: this file system has no direct reads");
            return;
        };
        let mut buf = AlignedBuf::new(len + 1);
        for (offset, count) in [
            (0, len),
            (0, 4096),
            (1, 1),
            (5, 3 * 4096),
            (511, 2),
            (512, 2 * BOUNCE_BYTES),
            (4095, BOUNCE_BYTES + 3),
            (len - 1, 1),
            (len - 5000, 5000),
            (len, 0),
        ] {
            for shift in [0, 1] {
                let into = &mut buf[shift..shift + count];
                direct.read_exact_at(into, offset as u64).unwrap();
                assert!(*into == bytes[offset..offset + count], "{offset}+{count}");
            }
        }
        for (offset, count) in [(0, len + 1), (len, 1), (len + 4096, 4096)] {
            let cause = direct
                .read_exact_at(&mut buf[..count], offset as u64)
                .unwrap_err();
            assert_eq!(cause.kind(), io::ErrorKind::UnexpectedEof, "{offset}");
        }
    }
}
