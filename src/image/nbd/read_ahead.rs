//! Bytes that are asked for before they are read.

use std::collections::BTreeMap;
use std::sync::mpsc::Receiver;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::pending::Answer;
use crate::error::Result;

/// Requests for bytes that will be read soon, by their offsets. What is not read in the end is
/// dropped as others need the room.
#[derive(Default)]
pub(super) struct ReadAhead(Mutex<BTreeMap<u64, Asked>>);

struct Asked {
    len: u64,
    answer: Receiver<Result<Answer>>,
}

impl ReadAhead {
    /// Whether nothing was asked for from `offset` on.
    pub(super) fn lacks(&self, offset: u64) -> bool {
        !self.lock().contains_key(&offset)
    }

    /// Enters a request that was made.
    pub(super) fn insert(&self, offset: u64, len: u64, answer: Receiver<Result<Answer>>) {
        let mut asked = self.lock();
        if asked.len() >= REQUESTS {
            asked.pop_first();
        }
        asked.insert(offset, Asked { len, answer });
    }

    /// Waits for what was asked for from `offset` on, if it is at most `most` bytes. `None` where
    /// nothing was, and where it failed.
    pub(super) fn take(&self, offset: u64, most: u64) -> Option<Vec<u8>> {
        let mut all = self.lock();
        all.get(&offset).filter(|asked| asked.len <= most)?;
        let asked = all.remove(&offset)?;
        drop(all);
        match asked.answer.recv() {
            Ok(Ok(Answer::Bytes(bytes))) => Some(bytes),
            _ => None,
        }
    }

    /// Where the next request after `offset` begins.
    pub(super) fn next_after(&self, offset: u64) -> Option<u64> {
        let asked = self.lock();
        asked.range(offset + 1..).next().map(|(next, _)| *next)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Asked>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How much one request is for.
pub(super) const REQUEST_BYTES: u64 = 512 << 10;
/// The most that are kept: 32 MiB.
const REQUESTS: usize = 64;
