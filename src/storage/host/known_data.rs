//! Where a file is known to hold data, so that the system is asked once for each stretch.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::Result;

/// Stretches of data, as the system told them.
///
/// Where a stretch ends, the system finds by walking through all of it, on some file systems page
/// by page or extent by extent, and on ZFS after a transaction group: that is done once for each.
/// What another process makes a hole meanwhile is still data here, and reads as zeros.
#[derive(Debug, Default)]
pub(in crate::storage) struct KnownData(Mutex<BTreeMap<u64, u64>>);

impl KnownData {
    /// The first data at or after `offset`. `ask` asks the system the same.
    ///
    /// # Errors
    /// Those of `ask`.
    pub(in crate::storage) fn next(
        &self,
        offset: u64,
        ask: impl Fn(u64) -> Result<Option<Range<u64>>>,
    ) -> Result<Option<Range<u64>>> {
        let mut known = self.lock();
        let below = match known.range(..=offset).next_back() {
            Some((_, &end)) if offset < end => return Ok(Some(offset..end)),
            Some((_, &end)) => end,
            None => 0,
        };
        // From where the last one ends: often one stretch goes from there past what is asked for,
        // and then it need not be walked again for a place further down.
        let mut found = ask(below)?;
        if let Some(data) = found.clone().filter(|data| data.end <= offset) {
            insert(&mut known, data);
            found = ask(offset)?;
        }
        let Some(data) = found else { return Ok(None) };
        insert(&mut known, data.clone());
        Ok(Some(data.start.max(offset)..data.end))
    }

    /// Whether all of `range` is known to be data.
    #[cfg(any(unix, test))]
    pub(in crate::storage) fn covers(&self, range: &Range<u64>) -> bool {
        let known = self.lock();
        let around = known.range(..=range.start).next_back();
        around.is_some_and(|(_, &end)| range.end <= end)
    }

    /// Takes note that `range` may hold holes by now.
    pub(in crate::storage) fn forget(&self, range: Range<u64>) {
        let mut known = self.lock();
        while let Some((&start, &end)) = known.range(..range.end).next_back() {
            if end <= range.start {
                break;
            }
            known.remove(&start);
            if range.end < end {
                known.insert(range.end, end);
            }
            if start < range.start {
                known.insert(start, range.start);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds a stretch to those that are known, joined with those that it touches.
fn insert(known: &mut BTreeMap<u64, u64>, data: Range<u64>) {
    let (mut start, mut end) = (data.start, data.end);
    while let Some((&other, &other_end)) = known.range(..=end).next_back()
        && other_end >= start
    {
        known.remove(&other);
        start = start.min(other);
        end = end.max(other_end);
    }
    known.insert(start, end);
    if known.len() > MOST_STRETCHES {
        // The one that is further away.
        let (first, last) = (known.first_key_value(), known.last_key_value());
        let first = first.map_or(0, |(&first, _)| start - first);
        match last.map_or(0, |(&last, _)| last - start) > first {
            true => known.pop_last(),
            false => known.pop_first(),
        };
    }
}

/// About 64 KiB a file.
const MOST_STRETCHES: usize = 2048;

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// A file, and what it took to ask for its data.
    struct File {
        data: Vec<Range<u64>>,
        asked: Cell<usize>,
        walked: Cell<u64>,
    }

    impl File {
        /// Each of `count` stretches is `len` bytes long, and a hole of the same length follows.
        fn of(count: u64, len: u64) -> Self {
            File {
                data: (0..count)
                    .map(|at| 2 * at * len..(2 * at + 1) * len)
                    .collect(),
                asked: Cell::new(0),
                walked: Cell::new(0),
            }
        }

        fn ask(&self, offset: u64) -> Option<Range<u64>> {
            self.asked.set(self.asked.get() + 1);
            let at = self.data.partition_point(|data| data.end <= offset);
            let data = self.data.get(at)?;
            let data = data.start.max(offset)..data.end;
            self.walked.set(self.walked.get() + (data.end - data.start));
            Some(data)
        }

        fn next(&self, known: &KnownData, offset: u64) -> Option<Range<u64>> {
            let found = known.next(offset, |at| Ok(self.ask(at))).unwrap();
            let (asked, walked) = (self.asked.get(), self.walked.get());
            assert_eq!(found, self.ask(offset), "{offset}");
            self.asked.set(asked);
            self.walked.set(walked);
            found
        }
    }

    #[test]
    fn one_long_stretch_is_walked_once_in_whatever_order_it_is_asked_for() {
        let len = 2 << 30;
        let up: Vec<u64> = (0..256).map(|at| at * (len / 256)).collect();
        let down: Vec<u64> = up.iter().rev().copied().collect();
        let mixed: Vec<u64> = (0..256).map(|at| at * 97 % 256 * (len / 256)).collect();
        for order in [up, down, mixed] {
            let file = File::of(1, len);
            let known = KnownData::default();
            for offset in order {
                assert_eq!(file.next(&known, offset), Some(offset..len));
            }
            assert_eq!((file.asked.get(), file.walked.get()), (1, len));
        }
    }

    #[test]
    fn a_file_of_a_million_stretches_is_asked_for_each_of_them_once() {
        let count = 1 << 20;
        let file = File::of(count, 4096);
        let known = KnownData::default();
        let mut at = 0;
        while let Some(data) = file.next(&known, at) {
            // As images ask: where the hole begins, where the data begins, and inside of it.
            assert_eq!(file.next(&known, data.start), Some(data.clone()));
            file.next(&known, data.start + 512);
            at = data.end;
        }
        assert_eq!(file.asked.get() as u64, count + 1);
        assert_eq!(file.walked.get(), count * 4096);
        assert!(known.lock().len() <= MOST_STRETCHES);
    }

    #[test]
    fn places_in_any_order_are_asked_for_at_most_twice() {
        let count = 10_000;
        let file = File::of(count, 4096);
        let known = KnownData::default();
        for at in 0..count {
            let offset = at * 7919 % count * 8192 + 100;
            file.next(&known, offset);
        }
        assert!(file.asked.get() as u64 <= 2 * count);
    }

    #[test]
    fn what_may_be_a_hole_is_asked_for_again() {
        let mut file = File::of(1, 8 << 20);
        let known = KnownData::default();
        file.next(&known, 0);
        assert!(known.covers(&(0..8 << 20)));
        file.data = vec![0..1 << 20, 2 << 20..8 << 20];
        known.forget(1 << 20..2 << 20);
        assert!(!known.covers(&(0..8 << 20)));
        assert!(known.covers(&(2 << 20..8 << 20)));
        for offset in [0, 1 << 20, (1 << 20) + 1, 2 << 20, 7 << 20] {
            file.next(&known, offset);
        }
        file.data.clear();
        known.forget(0..u64::MAX);
        assert_eq!(file.next(&known, 0), None);
    }

    #[test]
    fn stretches_that_touch_are_one() {
        let known = KnownData::default();
        for data in [0..10, 20..30, 10..20, 25..40, 50..60] {
            insert(&mut known.lock(), data);
        }
        assert_eq!(
            known.lock().clone().into_iter().collect::<Vec<_>>(),
            [(0, 40), (50, 60)]
        );
    }
}
