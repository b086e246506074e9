//! How far long work is, for other processes to see.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::progress::{Phase, Progress};

/// Counts what is done, and since when.
pub(crate) struct Meter(Mutex<(Moving, Instant)>);

/// What is moving, as it stands in a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Moving {
    /// What is being done to a disk.
    pub what: String,
    /// How much of it is to be gone through, where that is known.
    pub total_bytes: Option<u64>,
    /// How much of that is done.
    pub done_bytes: u64,
    /// Since it began.
    pub elapsed_seconds: f64,
}

impl Moving {
    pub(crate) fn nothing() -> Self {
        Moving {
            what: "nothing".to_owned(),
            total_bytes: None,
            done_bytes: 0,
            elapsed_seconds: 0.0,
        }
    }

    /// Bytes a second, on average.
    pub fn rate(&self) -> f64 {
        self.done_bytes as f64 / self.elapsed_seconds.max(0.001)
    }

    /// How long it still takes at that rate.
    pub fn seconds_left(&self) -> Option<f64> {
        let left = self.total_bytes?.saturating_sub(self.done_bytes);
        (self.done_bytes > 0).then(|| left as f64 / self.rate())
    }
}

impl Meter {
    pub(crate) fn new() -> Self {
        Meter(Mutex::new((Moving::nothing(), Instant::now())))
    }

    /// Begins anew: nothing is done of what comes.
    pub(crate) fn reset(&self) {
        *self.lock() = (Moving::nothing(), Instant::now());
    }

    pub(crate) fn read(&self) -> Moving {
        let (moving, since) = &*self.lock();
        Moving {
            elapsed_seconds: since.elapsed().as_secs_f64(),
            ..moving.clone()
        }
    }

    fn lock(&self) -> MutexGuard<'_, (Moving, Instant)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress for Meter {
    fn begin(&self, phase: Phase, total_bytes: Option<u64>) {
        let what = match phase {
            Phase::Sample => "sampling",
            Phase::Hash => "reading",
            Phase::Diff => "comparing",
            Phase::Copy => "copying",
            Phase::Apply => "writing",
            _ => "reading back",
        };
        let moving = Moving {
            what: what.to_owned(),
            total_bytes,
            ..Moving::nothing()
        };
        *self.lock() = (moving, Instant::now());
    }

    fn advance(&self, bytes: u64) {
        let moving = &mut self.lock().0;
        moving.done_bytes = moving.done_bytes.saturating_add(bytes);
    }
}
