//! How many requests are under way at once.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::progress::CancelToken;

/// Bounds the requests that are under way, and adapts the bound to what the server takes: a little
/// more after each answer, much less where the server asks for fewer.
pub(super) struct RequestLimit {
    state: Mutex<State>,
    freed: Condvar,
}

struct State {
    limit: f64,
    in_flight: u32,
    lowered: Option<Instant>,
}

/// The right to one request, until it is dropped.
pub(super) struct Permit<'a>(&'a RequestLimit);

impl RequestLimit {
    pub(super) fn new() -> Self {
        RequestLimit {
            state: Mutex::new(State {
                limit: FIRST,
                in_flight: 0,
                lowered: None,
            }),
            freed: Condvar::new(),
        }
    }

    /// Waits until one more request may be made.
    ///
    /// # Errors
    /// `Cancelled`.
    pub(super) fn acquire(&self, cancel: &CancelToken) -> Result<Permit<'_>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            cancel.check()?;
            if f64::from(state.in_flight) < state.limit.floor() {
                state.in_flight += 1;
                return Ok(Permit(self));
            }
            let waited = self.freed.wait_timeout(state, Duration::from_millis(100));
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.freed.notify_one();
    }

    #[cfg(test)]
    fn limit(&self) -> f64 {
        self.state.lock().unwrap().limit
    }
}

impl Permit<'_> {
    /// The server answered.
    pub(super) fn answered(&self) {
        self.0
            .change(|state| state.limit = (state.limit + 1.0 / state.limit).min(MOST));
    }

    /// The server asks for fewer requests. Answers to requests that were made before count once.
    pub(super) fn throttled(&self) {
        self.0.change(|state| {
            if state.lowered.is_none_or(|at| at.elapsed() > ONE_LOWERING) {
                state.limit = (state.limit * 0.65).max(1.0);
                state.lowered = Some(Instant::now());
            }
        });
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0
            .change(|state| state.in_flight = state.in_flight.saturating_sub(1));
    }
}

/// One page blob answers 500 requests a second: at 30 ms, 15 at once.
const FIRST: f64 = 16.0;
const MOST: f64 = 32.0;
const ONE_LOWERING: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_rises_slowly_and_falls_once_a_second() {
        let (limit, cancel) = (RequestLimit::new(), CancelToken::new());
        let permits: Vec<_> = (0..16).map(|_| limit.acquire(&cancel).unwrap()).collect();
        let stopped = CancelToken::new();
        stopped.cancel();
        assert!(limit.acquire(&stopped).is_err());
        for _ in 0..2000 {
            permits[0].answered();
        }
        assert_eq!(limit.limit(), MOST);
        permits[0].throttled();
        permits[1].throttled();
        assert_eq!(limit.limit(), MOST * 0.65);
        drop(permits);
        assert_eq!(limit.state.lock().unwrap().in_flight, 0);
    }
}
