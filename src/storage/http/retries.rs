//! Attempts of one request, with longer and longer pauses between them.

use std::thread;
use std::time::{Duration, Instant};

use super::failure::Failure;
use crate::error::Result;
use crate::progress::CancelToken;

/// Counts the attempts of one request, and waits between them.
pub(in crate::storage) struct Retries<'a> {
    left: u32,
    pause: Duration,
    attempts: u32,
    cancel: &'a CancelToken,
}

impl<'a> Retries<'a> {
    pub(super) fn new(attempts: u32, cancel: &'a CancelToken) -> Self {
        Retries {
            left: attempts.saturating_sub(1),
            pause: FIRST_PAUSE,
            attempts,
            cancel,
        }
    }

    /// Waits until the next attempt.
    ///
    /// # Errors
    /// That of the failure where it is final, or the attempts are used up; `Cancelled`.
    pub(in crate::storage) fn wait(&mut self, failure: Failure) -> Result<()> {
        self.cancel.check()?;
        let (error, asked) = match failure {
            Failure::Final(error) => return Err(error),
            Failure::Passing { error, wait, .. } => (error, wait),
        };
        if self.left == 0 {
            return Err(error);
        }
        self.left -= 1;
        let pause = asked
            .unwrap_or(Duration::ZERO)
            .min(LONGEST_ASKED)
            .max(self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        let until = Instant::now() + pause;
        while Instant::now() < until {
            self.cancel.check()?;
            let left = until.saturating_duration_since(Instant::now());
            thread::sleep(left.min(Duration::from_millis(50)));
        }
        self.cancel.check()
    }

    /// Begins to count again: the last attempt brought something.
    pub(in crate::storage) fn restart(&mut self) {
        *self = Retries::new(self.attempts, self.cancel);
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// What a server may ask for by `Retry-After`.
const LONGEST_ASKED: Duration = Duration::from_secs(60);
