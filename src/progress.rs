//! How a caller watches long work and stops it.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rayon::{ThreadPool, ThreadPoolBuilder};

pub use crate::cancel::{CancelGuard, CancelToken};
use crate::error::{Error, ErrorKind, Result};
use crate::token_bucket::TokenBucket;

/// What long work is given: threads, a progress sink, a cancel token, a speed limit.
///
/// Clones share all of them.
#[derive(Clone)]
pub struct Work {
    pool: Arc<ThreadPool>,
    progress: Arc<dyn Progress>,
    cancel: CancelToken,
    rate_limiter: Option<Arc<RateLimiter>>,
    is_unlimited: bool,
}

opaque!(Work);

impl Work {
    /// Work on a pool of its own, with one thread for each core and at least four.
    ///
    /// # Errors
    /// `Io` when the threads cannot be started.
    pub fn new() -> Result<Self> {
        Self::with_threads(0)
    }

    /// Work on a pool of its own with `threads` threads; 0 means one for each core, and at least
    /// four: on a medium most of them wait for their reads.
    ///
    /// # Errors
    /// `InvalidInput` for more than 256 threads; `Io` when the threads cannot be started.
    pub fn with_threads(threads: usize) -> Result<Self> {
        check_threads(threads)?;
        let threads = match threads {
            0 => thread::available_parallelism()
                .map_or(1, NonZeroUsize::get)
                .clamp(FEWEST_THREADS, MOST_THREADS),
            threads => threads,
        };
        let pool = ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("diskdelta-{index}"))
            .build()
            .map_err(|e| Error::new(ErrorKind::Io, "cannot start threads").caused_by(e))?;
        Ok(Self::on_pool(Arc::new(pool)))
    }

    /// Work on the caller's pool, which may have any number of threads: the buffers that they work
    /// with take no more memory than those of 256.
    pub fn on_pool(pool: Arc<ThreadPool>) -> Self {
        Work {
            pool,
            progress: Arc::new(NoProgress),
            cancel: CancelToken::new(),
            rate_limiter: None,
            is_unlimited: false,
        }
    }

    /// Tells `progress` how far it is.
    #[must_use]
    pub fn with_progress(mut self, progress: Arc<dyn Progress>) -> Self {
        self.progress = progress;
        self
    }

    /// Calls `watch` whenever a phase begins or gets on. The calls come from several threads, one
    /// at a time.
    #[must_use]
    pub fn on_progress(self, watch: impl Fn(Tick) + Send + Sync + 'static) -> Self {
        let state = Mutex::new(None);
        let notes = self.progress.clone();
        self.with_progress(Arc::new(Watch {
            watch,
            state,
            notes,
        }))
    }

    /// Calls `read` with each thing that is worth telling a person and is no error, in addition to
    /// what the report lists. The calls come from several threads.
    #[must_use]
    pub fn on_note(self, read: impl Fn(&str) + Send + Sync + 'static) -> Self {
        let below = self.progress.clone();
        self.with_progress(Arc::new(Notes { read, below }))
    }

    /// The same threads and limits, with a cancel token below this one's: cancelling it stops what
    /// runs with it, and cancelling this one stops both.
    #[must_use]
    pub fn child(&self) -> Self {
        self.clone().with_cancel(self.cancel.child())
    }

    /// Stops when `cancel` says so.
    #[must_use]
    pub fn with_cancel(mut self, cancel: CancelToken) -> Self {
        self.cancel = cancel;
        self
    }

    /// Reads at most `bytes_per_second` on average; 0 lifts the limit. A line to another host has a
    /// limit of its own.
    #[must_use]
    pub fn with_limit_rate(mut self, bytes_per_second: u64) -> Self {
        self.rate_limiter =
            (bytes_per_second > 0).then(|| Arc::new(RateLimiter::new(bytes_per_second)));
        self
    }

    /// The same work, as fast as it can be done: without its speed limit, and on lines to other
    /// hosts without theirs.
    #[cfg(feature = "failback")]
    pub(crate) fn unlimited(mut self) -> Self {
        self.is_unlimited = true;
        self.with_limit_rate(0)
    }

    /// Whether lines to other hosts are used without their speed limits.
    pub(crate) fn is_unlimited(&self) -> bool {
        self.is_unlimited
    }

    /// The threads to work on.
    pub fn pool(&self) -> &ThreadPool {
        &self.pool
    }

    /// The same work, of which every phase is reported as `phase`.
    pub(crate) fn with_phase(&self, phase: Phase) -> Self {
        let progress = Arc::new(WithPhase {
            phase,
            progress: self.progress.clone(),
        });
        self.clone().with_progress(progress)
    }

    /// The progress sink.
    pub fn progress(&self) -> &dyn Progress {
        &*self.progress
    }

    /// The cancel token.
    pub fn cancel(&self) -> &CancelToken {
        &self.cancel
    }

    /// Waits until `bytes` more may be read under the speed limit.
    ///
    /// # Errors
    /// `Cancelled`.
    pub fn admit(&self, bytes: u64) -> Result<()> {
        self.cancel.check()?;
        match &self.rate_limiter {
            Some(rate_limiter) => rate_limiter.admit(bytes, &self.cancel),
            None => Ok(()),
        }
    }
}

/// What a job is doing; phases come in this order, some are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum Phase {
    /// Estimating how much differs.
    Sample,
    /// Reading and hashing an image.
    Hash,
    /// Finding what differs (and, where nothing is logged, writing it).
    Diff,
    /// Copying everything.
    Copy,
    /// Writing logged changes to the target.
    Apply,
    /// Reading back what was written.
    Verify,
}

/// Progress callbacks. All methods may be called from several threads.
pub trait Progress: Send + Sync {
    /// A phase begins; `total_bytes` is what it will go through, where that is known.
    fn begin(&self, phase: Phase, total_bytes: Option<u64>);
    /// `bytes` more of the phase's total are done.
    fn advance(&self, bytes: u64);
    /// Something worth telling a person that is no error.
    fn note(&self, _text: &str) {}
}

/// Discards progress.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn begin(&self, _phase: Phase, _total_bytes: Option<u64>) {}
    fn advance(&self, _bytes: u64) {}
}

/// Work that is a part of another phase than it knows of.
struct WithPhase {
    phase: Phase,
    progress: Arc<dyn Progress>,
}

impl Progress for WithPhase {
    fn begin(&self, _phase: Phase, total_bytes: Option<u64>) {
        self.progress.begin(self.phase, total_bytes);
    }

    fn advance(&self, bytes: u64) {
        self.progress.advance(bytes);
    }

    fn note(&self, text: &str) {
        self.progress.note(text);
    }
}

/// How far work is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Tick {
    /// What it is doing.
    pub phase: Phase,
    /// Bytes that this phase has gone through.
    pub done_bytes: u64,
    /// Bytes that it will go through, where that is known.
    pub total_bytes: Option<u64>,
}

/// Progress that is given to a caller's function.
struct Watch<F> {
    watch: F,
    state: Mutex<Option<Tick>>,
    /// Takes the notes.
    notes: Arc<dyn Progress>,
}

/// Notes that are given to a caller's function.
struct Notes<F> {
    read: F,
    /// Takes everything else.
    below: Arc<dyn Progress>,
}

impl<F: Fn(&str) + Send + Sync> Progress for Notes<F> {
    fn begin(&self, phase: Phase, total_bytes: Option<u64>) {
        self.below.begin(phase, total_bytes);
    }

    fn advance(&self, bytes: u64) {
        self.below.advance(bytes);
    }

    fn note(&self, text: &str) {
        (self.read)(text);
    }
}

impl<F: Fn(Tick)> Watch<F> {
    fn change(&self, change: impl FnOnce(&mut Option<Tick>)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        if let Some(tick) = *state {
            (self.watch)(tick);
        }
    }
}

impl<F: Fn(Tick) + Send + Sync> Progress for Watch<F> {
    fn begin(&self, phase: Phase, total_bytes: Option<u64>) {
        self.change(|state| {
            *state = Some(Tick {
                phase,
                done_bytes: 0,
                total_bytes,
            });
        });
    }

    fn advance(&self, bytes: u64) {
        self.change(|state| {
            if let Some(tick) = state {
                tick.done_bytes = tick.done_bytes.saturating_add(bytes);
            }
        });
    }

    fn note(&self, text: &str) {
        self.notes.note(text);
    }
}

/// A speed limit: each admission books its time on one shared line and waits for its end.
#[derive(Debug)]
struct RateLimiter {
    bucket: TokenBucket,
    begun: Instant,
}

impl RateLimiter {
    fn new(bytes_per_second: u64) -> Self {
        RateLimiter {
            bucket: TokenBucket::new(bytes_per_second),
            begun: Instant::now(),
        }
    }

    fn admit(&self, bytes: u64, cancel: &CancelToken) -> Result<()> {
        let until = self.bucket.book(bytes, self.begun.elapsed());
        loop {
            cancel.check()?;
            let left = until.saturating_sub(self.begun.elapsed());
            if left.is_zero() {
                return Ok(());
            }
            // Short naps, so that a cancel is seen soon.
            thread::sleep(left.min(Duration::from_millis(100)));
        }
    }
}

/// Most threads that [`Work::with_threads`] starts: more wait for each other, not for a medium.
pub const MOST_THREADS: usize = 256;

/// Refuses a number of threads that is no use.
///
/// # Errors
/// `InvalidInput` for more than [`MOST_THREADS`].
pub(crate) fn check_threads(threads: usize) -> Result<()> {
    if threads <= MOST_THREADS {
        return Ok(());
    }
    let what = format!("{threads} threads are too many");
    Err(Error::new(ErrorKind::InvalidInput, what)
        .in_field("threads")
        .advise(format!("choose at most {MOST_THREADS}")))
}

/// Reads that must be under way for two media, one read and one compared with it, to be busy.
const FEWEST_THREADS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_threads_than_are_of_use_are_refused_and_none_is_started() {
        for threads in [MOST_THREADS + 1, 100_000, usize::MAX] {
            let error = Work::with_threads(threads).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains("256"), "{error}");
        }
    }
}
