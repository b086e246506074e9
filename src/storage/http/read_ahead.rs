//! Ranges that are fetched before they are read.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::progress::CancelToken;

/// Reads a range, which is inside the store.
pub(in crate::storage) trait Fetch: Send + Sync + 'static {
    /// # Errors
    /// Those of the store.
    fn fetch(&self, buf: &mut [u8], offset: u64) -> Result<()>;
}

/// Fetches announced ranges on threads of its own, several at once, into bounded memory.
///
/// A range that is read before its turn is fetched by the thread that reads it, and what was not
/// announced directly. The error of a range goes to its reader.
pub(in crate::storage) struct ReadAhead<F: Fetch> {
    shared: Arc<Shared<F>>,
    cancel: CancelToken,
}

struct Shared<F> {
    fetch: F,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// By first byte; disjoint.
    slots: BTreeMap<u64, Slot>,
    /// First bytes of those that wait, oldest first; some may be gone.
    queue: VecDeque<u64>,
    /// Bytes of those that are under way or here.
    held_bytes: u64,
    threads: usize,
    /// Reads so far: the clock by which slots grow old.
    reads: u64,
}

struct Slot {
    end: u64,
    /// Announced bytes that were not read yet.
    wanted_bytes: u64,
    content: Content,
}

enum Content {
    Waiting,
    UnderWay,
    Here {
        bytes: Arc<Vec<u8>>,
        since: u64,
    },
    /// Until the first reader has the error; the next one asks again.
    Failed(Error),
}

/// Where a reader finds its next bytes.
enum Place {
    /// Copied, up to this offset.
    Copied(u64),
    /// To be fetched by the reader itself, as the slot that begins there.
    Mine(Range<u64>),
    /// Could not be fetched.
    Failed(Error),
    /// Not announced, up to this offset.
    Unknown(u64),
    /// Another thread fetches it.
    Elsewhere,
}

impl<F: Fetch> ReadAhead<F> {
    /// Over `fetch`; waiting for it ends once `cancel` is set.
    pub(in crate::storage) fn new(fetch: F, cancel: CancelToken) -> Self {
        let shared = Shared {
            fetch,
            state: Mutex::default(),
            changed: Condvar::new(),
        };
        ReadAhead {
            shared: Arc::new(shared),
            cancel,
        }
    }

    /// What it fetches from.
    pub(in crate::storage) fn inner(&self) -> &F {
        &self.shared.fetch
    }

    /// Fetches `range`, which is inside the store, as soon as there is room.
    pub(in crate::storage) fn announce(&self, range: Range<u64>) {
        let mut state = self.shared.lock();
        state.announce(range);
        state.forget_old();
        let threads = state.queue.len().min(MOST_THREADS);
        while state.threads < threads {
            let shared = Arc::downgrade(&self.shared);
            let run = move || work(&shared);
            let name = "diskdelta-fetch".to_owned();
            // Without a thread the readers fetch for themselves.
            if thread::Builder::new().name(name).spawn(run).is_err() {
                break;
            }
            state.threads += 1;
        }
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Fills `buf` from byte `offset` on; the range is inside the store.
    ///
    /// # Errors
    /// Those of fetching; `Cancelled`.
    pub(in crate::storage) fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let end = offset + buf.len() as u64;
        let mut at = offset;
        while at < end {
            let from = usize::try_from(at - offset).unwrap_or(usize::MAX);
            let rest = buf.get_mut(from..).unwrap_or_default();
            let mut state = self.shared.lock();
            match state.place(at, rest) {
                Place::Copied(to) => at = to,
                Place::Unknown(to) => {
                    drop(state);
                    let to = to.min(end);
                    let len = usize::try_from(to - at).unwrap_or(usize::MAX);
                    self.inner()
                        .fetch(rest.get_mut(..len).unwrap_or_default(), at)?;
                    at = to;
                }
                Place::Mine(range) => {
                    drop(state);
                    self.shared.run(range);
                }
                Place::Failed(error) => return Err(error),
                Place::Elsewhere => {
                    self.cancel.check()?;
                    let wait = self.shared.changed.wait_timeout(state, NAP);
                    drop(wait.unwrap_or_else(PoisonError::into_inner));
                }
            }
        }
        Ok(())
    }
}

impl<F: Fetch> Shared<F> {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fetches a slot that is under way by this thread.
    fn run(&self, range: Range<u64>) {
        let len = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let mut bytes = vec![0; len];
        let fetched = self.fetch.fetch(&mut bytes, range.start);
        let mut state = self.lock();
        let since = state.reads;
        if let Some(slot) = state.slots.get_mut(&range.start) {
            slot.content = match fetched {
                Ok(()) => Content::Here {
                    bytes: Arc::new(bytes),
                    since,
                },
                Err(error) => Content::Failed(error),
            };
        }
        drop(state);
        self.changed.notify_all();
    }
}

impl State {
    /// Adds what of `range` is not there yet, in pieces.
    fn announce(&mut self, range: Range<u64>) {
        let mut at = range.start;
        while at < range.end && self.queue.len() < MOST_WAITING {
            if let Some(end) = self.slot_at(at).map(|(_, slot)| slot.end) {
                at = end;
                continue;
            }
            let next = self.slots.range(at..).next();
            let end = next.map_or(u64::MAX, |(start, _)| *start).min(range.end);
            let end = end.min(at.saturating_add(PIECE_BYTES));
            self.add(at..end);
            at = end;
        }
    }

    /// Adds a piece, or lengthens the last one where the gap to it is small.
    fn add(&mut self, piece: Range<u64>) {
        let wanted_bytes = piece.end - piece.start;
        if let Some(start) = self.queue.back().copied()
            && let Some(last) = self.slots.get_mut(&start)
            && matches!(last.content, Content::Waiting)
            && (last.end..=last.end.saturating_add(GAP_BYTES)).contains(&piece.start)
            && piece.end - start <= PIECE_BYTES
        {
            let end = last.end;
            if self.slots.range(end..piece.start).next().is_none()
                && let Some(last) = self.slots.get_mut(&start)
            {
                last.end = piece.end;
                last.wanted_bytes += wanted_bytes;
                return;
            }
        }
        self.queue.push_back(piece.start);
        let slot = Slot {
            end: piece.end,
            wanted_bytes,
            content: Content::Waiting,
        };
        self.slots.insert(piece.start, slot);
    }

    fn slot_at(&self, at: u64) -> Option<(u64, &Slot)> {
        let (start, slot) = self.slots.range(..=at).next_back()?;
        (at < slot.end).then_some((*start, slot))
    }

    /// Copies what is here into `buf`, or tells where it is.
    fn place(&mut self, at: u64, buf: &mut [u8]) -> Place {
        self.reads += 1;
        let Some((start, slot)) = self.slot_at(at) else {
            let next = self.slots.range(at..).next();
            return Place::Unknown(next.map_or(u64::MAX, |(start, _)| *start));
        };
        let end = slot.end;
        match &slot.content {
            Content::UnderWay => Place::Elsewhere,
            Content::Waiting => {
                self.begin(start);
                Place::Mine(start..end)
            }
            Content::Failed(_) => match self.remove(start) {
                Some(Content::Failed(error)) => Place::Failed(error),
                _ => Place::Unknown(end),
            },
            Content::Here { bytes, .. } => {
                let bytes = bytes.clone();
                let from = usize::try_from(at - start).unwrap_or(usize::MAX);
                let held = bytes.get(from..).unwrap_or_default();
                let len = held.len().min(buf.len());
                let (Some(to), Some(held)) = (buf.get_mut(..len), held.get(..len)) else {
                    return Place::Unknown(end);
                };
                to.copy_from_slice(held);
                self.count_read(start, len as u64);
                Place::Copied(at + len as u64)
            }
        }
    }

    fn count_read(&mut self, start: u64, len: u64) {
        if let Some(slot) = self.slots.get_mut(&start) {
            slot.wanted_bytes = slot.wanted_bytes.saturating_sub(len);
            if slot.wanted_bytes == 0 {
                self.remove(start);
            }
        }
    }

    fn begin(&mut self, start: u64) {
        if let Some(slot) = self.slots.get_mut(&start) {
            slot.content = Content::UnderWay;
            self.held_bytes += slot.end - start;
        }
    }

    /// Removes one that is not under way.
    fn remove(&mut self, start: u64) -> Option<Content> {
        let slot = self.slots.remove(&start)?;
        if !matches!(slot.content, Content::Waiting) {
            self.held_bytes -= slot.end - start;
        }
        Some(slot.content)
    }

    /// The next one to fetch, where there is room for it.
    fn next(&mut self) -> Option<Range<u64>> {
        while let Some(start) = self.queue.front().copied() {
            let waiting = self
                .slots
                .get(&start)
                .filter(|slot| matches!(slot.content, Content::Waiting));
            let Some(end) = waiting.map(|slot| slot.end) else {
                self.queue.pop_front();
                continue;
            };
            if self.held_bytes + (end - start) > HELD_BYTES {
                return None;
            }
            self.queue.pop_front();
            self.begin(start);
            return Some(start..end);
        }
        None
    }

    /// Gives up what was announced and not read for long.
    fn forget_old(&mut self) {
        let reads = self.reads;
        let is_old = |slot: &Slot| match slot.content {
            Content::Here { since, .. } => reads.saturating_sub(since) > OLD_READS,
            Content::Failed(_) => true,
            _ => false,
        };
        let old = self.slots.iter().filter(|(_, slot)| is_old(slot));
        let old: Vec<u64> = old.map(|(start, _)| *start).collect();
        for start in old {
            self.remove(start);
        }
    }
}

/// Fetches what waits, until there is nothing for a while or the reader is gone.
fn work<F: Fetch>(shared: &Weak<Shared<F>>) {
    let mut idle = 0;
    while let Some(shared) = shared.upgrade() {
        let mut state = shared.lock();
        match state.next() {
            Some(range) => {
                drop(state);
                idle = 0;
                shared.run(range);
            }
            None if idle < IDLE_NAPS => {
                idle += 1;
                let wait = shared.changed.wait_timeout(state, NAP);
                drop(wait.unwrap_or_else(PoisonError::into_inner));
            }
            None => {
                state.threads -= 1;
                return;
            }
        }
    }
}

/// As many as requests are under way at most.
const MOST_THREADS: usize = 32;
/// Bytes of one request: at 30 ms and 16 at once, 500 MiB/s.
const PIECE_BYTES: u64 = 1 << 20;
/// Unwanted bytes that are fetched along to save a request.
const GAP_BYTES: u64 = 64 << 10;
/// Bytes that are held at once.
const HELD_BYTES: u64 = 64 << 20;
/// Ranges that wait at once; further announcements are passed over.
const MOST_WAITING: usize = 4096;
/// Reads after which what was not wanted is given up.
const OLD_READS: u64 = 4096;
const NAP: Duration = Duration::from_millis(100);
const IDLE_NAPS: u32 = 50;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Bytes whose value is their offset; one offset cannot be read.
    struct Numbers {
        requests: Mutex<Vec<Range<u64>>>,
        under_way: AtomicUsize,
        most: AtomicUsize,
        broken: u64,
    }

    impl Fetch for Numbers {
        fn fetch(&self, buf: &mut [u8], offset: u64) -> Result<()> {
            let range = offset..offset + buf.len() as u64;
            let now = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(now, Ordering::SeqCst);
            thread::sleep(Duration::from_millis(5));
            self.under_way.fetch_sub(1, Ordering::SeqCst);
            self.requests.lock().unwrap().push(range.clone());
            if range.contains(&self.broken) {
                return Err(Error::new(ErrorKind::Io, "broken"));
            }
            for (byte, at) in buf.iter_mut().zip(range) {
                *byte = value(at);
            }
            Ok(())
        }
    }

    fn value(at: u64) -> u8 {
        (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
    }

    fn ahead(broken: u64) -> ReadAhead<Numbers> {
        let numbers = Numbers {
            requests: Mutex::default(),
            under_way: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            broken,
        };
        ReadAhead::new(numbers, CancelToken::new())
    }

    fn check(ahead: &ReadAhead<Numbers>, range: Range<u64>) {
        let mut buf = vec![0; (range.end - range.start) as usize];
        ahead.read(&mut buf, range.start).unwrap();
        assert!(buf.iter().zip(range).all(|(byte, at)| *byte == value(at)));
    }

    #[test]
    fn announced_ranges_are_fetched_once_and_several_at_a_time() {
        let ahead = ahead(u64::MAX);
        let total = 24 << 20;
        ahead.announce(0..total);
        for at in (0..total).step_by(512 << 10) {
            check(&ahead, at..at + (512 << 10));
        }
        let fetched: u64 = ahead
            .inner()
            .requests
            .lock()
            .unwrap()
            .iter()
            .map(|it| it.end - it.start)
            .sum();
        assert_eq!(fetched, total);
        assert!(ahead.inner().most.load(Ordering::SeqCst) > 4);
        let state = ahead.shared.lock();
        assert_eq!((state.held_bytes, state.slots.len()), (0, 0));
    }

    #[test]
    fn near_pages_are_one_request_and_far_ones_are_not() {
        let ahead = ahead(u64::MAX);
        let mut state = ahead.shared.lock();
        for at in [0, 8 << 10, 100 << 10, 10 << 20] {
            state.announce(at..at + 4096);
        }
        let slots: Vec<_> = state
            .slots
            .iter()
            .map(|(start, it)| (*start, it.end))
            .collect();
        drop(state);
        let (page, far) = (4096, 10 << 20);
        assert_eq!(
            slots,
            [
                (0, 12 << 10),
                (100 << 10, (100 << 10) + page),
                (far, far + page)
            ]
        );
        check(&ahead, 0..11 << 20);
    }

    #[test]
    fn an_error_reaches_the_reader_and_nothing_else_suffers() {
        let ahead = ahead(5 << 20);
        ahead.announce(0..8 << 20);
        check(&ahead, 0..4 << 20);
        let error = ahead.read(&mut [0; 10], 5 << 20).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        check(&ahead, 6 << 20..8 << 20);
    }

    #[test]
    fn memory_is_bounded_whatever_is_announced_and_never_read() {
        let ahead = ahead(u64::MAX);
        for at in 0..200 {
            ahead.announce(at << 30..(at << 30) + (40 << 20));
        }
        for at in 0..20_000 {
            check(&ahead, (at << 10) + 7..(at << 10) + 8);
            let state = ahead.shared.lock();
            assert!(
                state.held_bytes <= HELD_BYTES + PIECE_BYTES && state.queue.len() <= MOST_WAITING
            );
        }
    }
}
