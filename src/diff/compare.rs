//! Image against image, byte against byte.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::collect::Collector;
use super::options::CompareOptions;
use super::work_queue::{Unit, WorkQueue, unit_bytes};
use crate::advice::Advice;
use crate::error::{Error, ErrorKind, Result};
use crate::image::Image;
use crate::progress::{Phase, Work};
use crate::storage::AlignedBuf;
use crate::units::{Extent, ExtentKind, PAGE_BYTES, is_zero};

/// Finds what differs between two images, byte against byte, and passes each difference to `visit`
/// with the bytes in hand.
///
/// The source's `[0, disk_len)` is compared; where the target is shorter it counts as zeros, and
/// what it has beyond the source is not looked at. Differences are whole 4 KiB pages of the disk,
/// the last page of the source may be short. What both images know to be zeros is not read, what
/// one of them knows to be zeros is read on the other side only.
///
/// `visit` is called on the threads of `work`, in any order and several times at once, never
/// twice for one byte. It may write the difference's range, and nothing else, to the target:
/// nothing of it is read again. Memory is two buffers of 512 KiB a thread, and of many threads 64
/// MiB in all. The speed limit of `work` counts each guest byte once, whether one side is read or
/// both.
///
/// # Errors
/// `InvalidInput` for a change map that does not fit the source;
/// `Unreadable` where the source cannot be read, unless that is to be skipped; `Io` and
/// `Malformed` from either image; `Cancelled`; what `visit` returns. The first error ends the work.
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// use diskdelta::diff::{CompareOptions, compare};
/// use diskdelta::image::{Image, ImageMut, Raw};
/// use diskdelta::storage::MemoryStorage;
/// use diskdelta::Work;
///
/// # fn main() -> diskdelta::Result<()> {
/// let source = Raw::open(Arc::new(MemoryStorage::new("source", vec![7; 10_000])))?;
/// let target = Raw::open(Arc::new(MemoryStorage::new("target", vec![0; 10_000])))?;
/// let work = Work::with_threads(2)?;
/// let report = compare(&source, &target, &CompareOptions::default(), &work, &|difference| {
///     match difference.new.bytes() {
///         Some(bytes) => target.write_all_at(bytes, difference.offset),
///         None => target.write_zeroes_at(difference.range()),
///     }
/// })?;
/// assert_eq!(report.changed_bytes, 10_000);
/// # Ok(())
/// # }
/// ```
pub fn compare(
    source: &dyn Image,
    target: &dyn Image,
    options: &CompareOptions,
    work: &Work,
    visit: &(dyn Fn(Difference<'_>) -> Result<()> + Sync),
) -> Result<CompareReport> {
    options.check(source.disk_len())?;
    let windows = options.windows(source.disk_len());
    let total_bytes = windows.iter().map(|w| w.end - w.start).sum();
    work.progress().begin(Phase::Diff, Some(total_bytes));
    let unit_bytes = unit_bytes(work.pool().current_num_threads());
    let job = Job {
        source,
        target,
        target_len: target.disk_len(),
        options,
        work,
        visit,
        queue: WorkQueue::new(source, target, windows, unit_bytes, work.cancel()),
        unit_bytes,
        stop: AtomicBool::new(false),
        failure: Mutex::new(None),
        compared_bytes: AtomicU64::new(0),
        changed_bytes: AtomicU64::new(0),
        zeroed_bytes: AtomicU64::new(0),
        unreadable: Collector::default(),
    };
    work.pool().in_place_scope(|scope| {
        for _ in 0..work.pool().current_num_threads() {
            scope.spawn(|_| job.run());
        }
    });
    job.finish()
}

/// One stretch in which source and target differ; both contents have the same length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Difference<'a> {
    /// First guest byte.
    pub offset: u64,
    /// What the source holds: zeros where whole pages are zeros.
    pub new: Content<'a>,
    /// What the target holds: zeros where that was known without reading it.
    pub old: Content<'a>,
}

impl Difference<'_> {
    /// The guest bytes that differ.
    pub fn range(&self) -> Range<u64> {
        self.offset..self.offset + self.new.len()
    }
}

/// What a stretch holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content<'a> {
    /// These bytes; never empty.
    Bytes(&'a [u8]),
    /// As many zeros; never 0.
    Zeros(u64),
}

impl<'a> Content<'a> {
    /// How many bytes.
    #[allow(clippy::len_without_is_empty, reason = "a content is never empty")]
    pub fn len(&self) -> u64 {
        match self {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::Zeros(len) => *len,
        }
    }

    /// The bytes; `None` for zeros.
    pub fn bytes(&self) -> Option<&'a [u8]> {
        match self {
            Content::Bytes(bytes) => Some(bytes),
            Content::Zeros(_) => None,
        }
    }
}

/// What a comparison has found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompareReport {
    /// Guest bytes that had to be read on one side or on both.
    pub compared_bytes: u64,
    /// Guest bytes of all differences.
    pub changed_bytes: u64,
    /// Those of them that are zeros in the source.
    pub zeroed_bytes: u64,
    /// What the source could not read and was left alone: whole pages, ascending, disjoint.
    pub unreadable: Vec<Range<u64>>,
    /// How finely differences are told: 4096.
    pub granularity_bytes: u64,
}

impl Default for CompareReport {
    /// Of a comparison that had nothing to look at.
    fn default() -> Self {
        CompareReport {
            compared_bytes: 0,
            changed_bytes: 0,
            zeroed_bytes: 0,
            unreadable: Vec::new(),
            granularity_bytes: PAGE_BYTES,
        }
    }
}

/// What the threads of one comparison share.
struct Job<'a> {
    source: &'a dyn Image,
    target: &'a dyn Image,
    /// As it was at the start, like everything the queue goes by.
    target_len: u64,
    options: &'a CompareOptions,
    work: &'a Work,
    visit: &'a (dyn Fn(Difference<'_>) -> Result<()> + Sync),
    queue: WorkQueue<'a>,
    unit_bytes: u64,
    stop: AtomicBool,
    failure: Mutex<Option<Error>>,
    compared_bytes: AtomicU64,
    changed_bytes: AtomicU64,
    zeroed_bytes: AtomicU64,
    unreadable: Collector,
}

impl Job<'_> {
    /// Compares units until there are none or a thread fails.
    fn run(&self) {
        let mut buffers = Buffers::new(self.unit_bytes);
        while !self.stop.load(Ordering::Relaxed) {
            match self.step(&mut buffers) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    self.stop.store(true, Ordering::Relaxed);
                    let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
                    failure.get_or_insert(error);
                }
            }
        }
        self.compared_bytes
            .fetch_add(buffers.compared_bytes, Ordering::Relaxed);
        self.changed_bytes
            .fetch_add(buffers.changed_bytes, Ordering::Relaxed);
        self.zeroed_bytes
            .fetch_add(buffers.zeroed_bytes, Ordering::Relaxed);
    }

    fn finish(self) -> Result<CompareReport> {
        if let Some(error) = self
            .failure
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
        {
            return Err(error);
        }
        Ok(CompareReport {
            compared_bytes: self.compared_bytes.into_inner(),
            changed_bytes: self.changed_bytes.into_inner(),
            zeroed_bytes: self.zeroed_bytes.into_inner(),
            unreadable: self.unreadable.finish().iter().map(Extent::range).collect(),
            ..CompareReport::default()
        })
    }

    /// Compares one unit; false when there was none left.
    fn step(&self, buffers: &mut Buffers) -> Result<bool> {
        let next = self.queue.next_unit()?;
        if next.passed_bytes > 0 {
            self.work.progress().advance(next.passed_bytes);
        }
        let Some(unit) = next.unit else {
            return Ok(false);
        };
        let unit_bytes = unit.range.end - unit.range.start;
        self.work.admit(unit_bytes)?;
        self.read(&unit, buffers)?;
        self.tell(&unit, buffers)?;
        buffers.compared_bytes += unit_bytes;
        self.work.progress().advance(unit_bytes);
        Ok(true)
    }

    /// Fills the buffers of the sides that hold data.
    fn read(&self, unit: &Unit, buffers: &mut Buffers) -> Result<()> {
        let len = buffer_len(&unit.range);
        buffers.unreadable.clear();
        if unit.source == ExtentKind::Data {
            let buf = &mut buffers.source[..len];
            match self.source.read_exact_at(buf, unit.range.start) {
                Ok(()) => {}
                Err(error) if error.kind() != ErrorKind::Io => return Err(error),
                Err(_) if self.options.skip_unreadable => self.read_pages(unit, buffers)?,
                Err(error) => return Err(unreadable(error, unit.range.start)),
            }
        }
        if unit.target == ExtentKind::Data {
            let there = unit.range.start..unit.range.end.min(self.target_len);
            let (read, beyond) = buffers.target[..len].split_at_mut(buffer_len(&there));
            self.target.read_exact_at(read, there.start)?;
            beyond.fill(0);
        }
        Ok(())
    }

    /// Reads the source page by page and notes the pages that fail.
    fn read_pages(&self, unit: &Unit, buffers: &mut Buffers) -> Result<()> {
        let mut offset = unit.range.start;
        for page in buffers.source[..buffer_len(&unit.range)].chunks_mut(PAGE) {
            let end = offset + page.len() as u64;
            self.work.cancel().check()?;
            match self.source.read_exact_at(page, offset) {
                Ok(()) => buffers.unreadable.push(false),
                Err(error) if error.kind() != ErrorKind::Io => return Err(error),
                Err(_) => {
                    buffers.unreadable.push(true);
                    self.unreadable.add(Extent::data(offset..end));
                }
            }
            offset = end;
        }
        Ok(())
    }

    /// Finds the runs of pages that differ alike and emits them.
    fn tell(&self, unit: &Unit, buffers: &mut Buffers) -> Result<()> {
        let len = buffer_len(&unit.range);
        let max = usize::try_from(self.options.max_difference_bytes).unwrap_or(usize::MAX);
        let max = (max - max % PAGE).max(PAGE);
        let mut run = 0..0;
        let mut run_verdict = Verdict::Same;
        for start in (0..len).step_by(PAGE) {
            let page = start..(start + PAGE).min(len);
            let verdict = buffers.judge(unit, page.clone());
            if verdict != run_verdict || run.len() + page.len() > max {
                self.tell_run(unit, buffers, run, run_verdict)?;
                run = start..start;
                run_verdict = verdict;
            }
            run.end = page.end;
        }
        self.tell_run(unit, buffers, run, run_verdict)
    }

    fn tell_run(
        &self,
        unit: &Unit,
        buffers: &mut Buffers,
        run: Range<usize>,
        verdict: Verdict,
    ) -> Result<()> {
        let len = run.len() as u64;
        if verdict == Verdict::Same || len == 0 {
            return Ok(());
        }
        buffers.changed_bytes += len;
        if verdict == Verdict::Zeros {
            buffers.zeroed_bytes += len;
        }
        (self.visit)(Difference {
            offset: unit.range.start + run.start as u64,
            new: match verdict {
                Verdict::Zeros => Content::Zeros(len),
                _ => Content::Bytes(&buffers.source[run.clone()]),
            },
            old: match unit.target {
                ExtentKind::Zero => Content::Zeros(len),
                ExtentKind::Data => Content::Bytes(&buffers.target[run]),
            },
        })
    }
}

/// What one thread works with.
struct Buffers {
    source: AlignedBuf,
    target: AlignedBuf,
    /// For each page of the unit at hand whether the source failed to read it; empty when none
    /// did.
    unreadable: Vec<bool>,
    compared_bytes: u64,
    changed_bytes: u64,
    zeroed_bytes: u64,
}

impl Buffers {
    fn new(unit_bytes: u64) -> Self {
        // At most 512 KiB.
        let len = unit_bytes as usize;
        Buffers {
            source: AlignedBuf::new(len),
            target: AlignedBuf::new(len),
            unreadable: Vec::new(),
            compared_bytes: 0,
            changed_bytes: 0,
            zeroed_bytes: 0,
        }
    }

    /// Judges one page of the unit whose bytes are in the buffers.
    fn judge(&self, unit: &Unit, page: Range<usize>) -> Verdict {
        if self.unreadable.get(page.start / PAGE) == Some(&true) {
            return Verdict::Same;
        }
        let new = &self.source[page.clone()];
        let old = &self.target[page];
        match (unit.source, unit.target) {
            (ExtentKind::Data, ExtentKind::Data) if new == old => Verdict::Same,
            (ExtentKind::Data, ExtentKind::Data) if is_zero(new) => Verdict::Zeros,
            (ExtentKind::Data, ExtentKind::Zero) if is_zero(new) => Verdict::Same,
            (ExtentKind::Data, _) => Verdict::Bytes,
            (ExtentKind::Zero, _) if is_zero(old) => Verdict::Same,
            (ExtentKind::Zero, _) => Verdict::Zeros,
        }
    }
}

/// What is to be done about a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Same,
    Bytes,
    Zeros,
}

/// A unit's length as the length of a buffer; never more than that.
fn buffer_len(range: &Range<u64>) -> usize {
    usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX)
}

fn unreadable(cause: Error, start: u64) -> Error {
    let error = Error::new(ErrorKind::Unreadable, "a range of the source is unreadable")
        .during("read")
        .at_offset(cause.offset().unwrap_or(start))
        .advise(Advice::SkipUnreadable);
    let error = match cause.path() {
        Some(path) => error.at_path(path),
        None => error,
    };
    error.caused_by(cause)
}

const PAGE: usize = PAGE_BYTES as usize;
