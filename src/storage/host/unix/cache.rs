//! Reading without pushing other people's pages out of the cache.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use rustix::fs::Advice;
use rustix::io::{Errno, ReadWriteFlags};

use super::direct::DirectFile;

/// A read that ended early.
#[derive(Debug)]
pub(in crate::storage) struct Stopped {
    /// How many bytes were read before.
    pub(in crate::storage) done: usize,
    /// `UnexpectedEof` where the file ends.
    pub(in crate::storage) cause: io::Error,
}

/// How one file is read: what is cached already comes from the cache, the rest leaves no trace
/// in it.
///
/// A large read that would miss the cache goes past it (direct), which also costs the least; a
/// small one goes through it and its pages are dropped afterwards. The system's own readahead is
/// off, because pages that it brings could not be told from pages that were there before; depth
/// comes from several threads with large reads.
#[derive(Debug)]
pub(in crate::storage) struct Reader {
    always_direct: bool,
    direct: OnceLock<Option<DirectFile>>,
    /// Whether the last read of some length was in the cache, so that the next probably is, too.
    warm: AtomicBool,
    /// How many large reads are taken for uncached without asking: asking makes the system fetch
    /// the page that it is asked for, as a request of its own.
    unasked: AtomicU32,
    /// The file system cannot tell what is cached: read plainly and drop nothing.
    blind: AtomicBool,
    behind: Mutex<Behind>,
}

impl Reader {
    /// A reader for `file`; `always_direct` bypasses the cache also for what lies in it.
    pub(in crate::storage) fn new(file: &File, always_direct: bool) -> Self {
        // A hint: without it a little more is read than asked for.
        let _ = rustix::fs::fadvise(file, 0, None, Advice::Random);
        Reader {
            always_direct,
            direct: OnceLock::new(),
            warm: AtomicBool::new(false),
            unasked: AtomicU32::new(0),
            blind: AtomicBool::new(false),
            behind: Mutex::default(),
        }
    }

    /// Fills `buf`, or says how far it came.
    pub(in crate::storage) fn read_exact_at(
        &self,
        file: &File,
        buf: &mut [u8],
        offset: u64,
    ) -> Result<(), Stopped> {
        if self.always_direct && self.read_direct(file, buf, offset) {
            return Ok(());
        }
        if self.blind.load(Ordering::Relaxed) {
            return read_through_cache(file, buf, offset, 0);
        }
        let large = buf.len() >= DIRECT_BYTES;
        if large
            && !self.warm.load(Ordering::Relaxed)
            && !self.is_cached(file, offset)
            && self.read_direct(file, buf, offset)
        {
            // Some file systems read through the cache all the same.
            drop_pages(file, offset..offset + buf.len() as u64);
            return Ok(());
        }
        let found = self.read_cached(file, buf, offset);
        if buf.len() >= TELLING_BYTES {
            self.warm.store(found == buf.len(), Ordering::Relaxed);
        }
        if found < buf.len() {
            read_through_cache(file, buf, offset, found)?;
            self.drop_later(file, offset + found as u64..offset + buf.len() as u64);
        }
        Ok(())
    }

    /// Fetches ahead where reads go through the cache.
    pub(in crate::storage) fn will_read(&self, file: &File, range: Range<u64>) {
        // Pages fetched now would look as if they had been cached before, and stay.
        if self.direct(file).is_none() {
            advise(file, range, Advice::WillNeed);
        }
    }

    /// Whether the last reads were in the cache.
    pub(in crate::storage) fn is_warm(&self) -> bool {
        !self.always_direct && self.warm.load(Ordering::Relaxed)
    }

    /// Drops clean pages now.
    pub(in crate::storage) fn drop_cache(&self, file: &File, range: Range<u64>) {
        self.warm.store(false, Ordering::Relaxed);
        drop_pages(file, range);
    }

    /// Drops what was put aside; to be called before `file` is closed.
    pub(in crate::storage) fn finish(&self, file: &File) {
        for range in self.lock().take() {
            drop_pages(file, range);
        }
    }

    fn direct(&self, file: &File) -> Option<&DirectFile> {
        self.direct
            .get_or_init(|| DirectFile::reopen(file))
            .as_ref()
    }

    /// Whether all was read past the cache. What fails is left to a read through the cache: it
    /// knows no alignment, and finds the place of an error to the page.
    fn read_direct(&self, file: &File, buf: &mut [u8], offset: u64) -> bool {
        self.direct(file)
            .is_some_and(|direct| direct.read_exact_at(buf, offset).is_ok())
    }

    /// Whether a large read that begins at `offset` is better made through the cache.
    fn is_cached(&self, file: &File, offset: u64) -> bool {
        let less = |count: u32| count.checked_sub(1);
        let unasked = &self.unasked;
        if unasked
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
            .is_ok()
        {
            return false;
        }
        let mut byte = [0u8];
        let found = self.read_cached(file, &mut byte, offset) > 0;
        if !found {
            unasked.store(UNASKED_READS, Ordering::Relaxed);
        }
        found || self.blind.load(Ordering::Relaxed)
    }

    /// How many leading bytes of `buf` could be filled without waiting for the medium.
    fn read_cached(&self, file: &File, buf: &mut [u8], offset: u64) -> usize {
        let mut found = 0;
        while found < buf.len() {
            let rest = &mut [IoSliceMut::new(&mut buf[found..])];
            match rustix::io::preadv2(file, rest, offset + found as u64, ReadWriteFlags::NOWAIT) {
                Ok(0) => break,
                Ok(count) => found += count,
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                    self.blind.store(true, Ordering::Relaxed);
                    break;
                }
                // Not cached; or an error, which the read that waits will meet and report.
                Err(_) => break,
            }
        }
        found
    }

    fn drop_later(&self, file: &File, range: Range<u64>) {
        if self.blind.load(Ordering::Relaxed) {
            return;
        }
        let due = self.lock().add(range);
        for range in due {
            drop_pages(file, range);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Behind> {
        self.behind.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Fills `buf` from byte `done` of it on.
fn read_through_cache(
    file: &File,
    buf: &mut [u8],
    offset: u64,
    mut done: usize,
) -> Result<(), Stopped> {
    while done < buf.len() {
        let cause = match file.read_at(&mut buf[done..], offset + done as u64) {
            Ok(0) => io::ErrorKind::UnexpectedEof.into(),
            Ok(count) => {
                done += count;
                continue;
            }
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => continue,
            Err(cause) => cause,
        };
        return Err(Stopped { done, cause });
    }
    Ok(())
}

/// Drops the clean pages that touch `range`. A hint.
fn drop_pages(file: &File, range: Range<u64>) {
    let start = range.start - range.start % PAGE;
    let end = range
        .end
        .checked_next_multiple_of(PAGE)
        .unwrap_or(range.end);
    advise(file, start..end, Advice::DontNeed);
}

/// What the system makes of a hint does not matter.
fn advise(file: &File, range: Range<u64>, advice: Advice) {
    if let Some(len) = NonZeroU64::new(range.end.saturating_sub(range.start)) {
        let _ = rustix::fs::fadvise(file, range.start, Some(len), advice);
    }
}

/// Ranges read through the cache that are to be dropped, gathered so that dropping is cheap.
#[derive(Debug, Default)]
struct Behind {
    ranges: Vec<Range<u64>>,
    bytes: u64,
}

impl Behind {
    /// Adds a range; gives back all of them once they are worth a round of calls.
    fn add(&mut self, range: Range<u64>) -> Vec<Range<u64>> {
        self.bytes += range.end - range.start;
        match self.ranges.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => self.ranges.push(range),
        }
        if self.bytes >= BEHIND_BYTES || self.ranges.len() >= BEHIND_COUNT {
            return self.take();
        }
        Vec::new()
    }

    fn take(&mut self) -> Vec<Range<u64>> {
        self.bytes = 0;
        std::mem::take(&mut self.ranges)
    }
}

const PAGE: u64 = 4096;

/// Reads shorter than this go through the cache: for them a direct read is not cheaper.
const DIRECT_BYTES: usize = 128 << 10;

/// A file that is cached further on is noticed after so many large reads.
const UNASKED_READS: u32 = 15;

/// Shorter reads do not tell whether those after them will be in the cache.
const TELLING_BYTES: usize = 64 << 10;

/// How much may lie behind undropped. Who compares across hosts comes back soon to what differs.
const BEHIND_BYTES: u64 = 64 << 20;
const BEHIND_COUNT: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_ranges_are_dropped_as_one_and_in_large_steps() {
        let mut behind = Behind::default();
        for at in 0..1023 {
            assert!(behind.add(at << 16..(at + 1) << 16).is_empty());
        }
        let whole = 0..64 << 20;
        assert_eq!(behind.add(1023 << 16..1024 << 16), vec![whole]);
        assert!(behind.take().is_empty());
        for at in 0..2047 {
            assert!(behind.add(at * 8192..at * 8192 + 4096).is_empty());
        }
        assert_eq!(behind.add(0..4096).len(), 2048);
    }
}
