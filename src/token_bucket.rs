//! How many bytes may go in a time.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A speed limit, by whatever clock its user has: says when what is asked for may have gone.
#[derive(Debug)]
pub(crate) struct TokenBucket {
    bytes_per_second: u64,
    /// Until when the way is taken by what was admitted.
    booked: Mutex<Duration>,
}

impl TokenBucket {
    /// This many bytes a second, at least 1.
    pub(crate) fn new(bytes_per_second: u64) -> Self {
        TokenBucket {
            bytes_per_second: bytes_per_second.max(1),
            booked: Mutex::default(),
        }
    }

    /// The speed.
    pub(crate) fn bytes_per_second(&self) -> u64 {
        self.bytes_per_second
    }

    /// Until when to wait with `bytes` more that are asked for `now`.
    pub(crate) fn book(&self, bytes: u64, now: Duration) -> Duration {
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let mut booked = self.booked.lock().unwrap_or_else(PoisonError::into_inner);
        *booked = (*booked).max(now).saturating_add(cost);
        *booked
    }
}
