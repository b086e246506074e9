//! Asking work to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::error::{Error, ErrorKind, Result};

/// Asks work to stop, from any thread; clones share one state.
///
/// The first [`cancel`](CancelToken::cancel) is a request: work stops at the next point where that
/// is clean. A second one stops at once and leaves the rest to recovery.
#[derive(Debug, Clone, Default)]
pub struct CancelToken(Arc<Requests>);

/// How often a stop was asked for, here and above.
#[derive(Debug, Default)]
struct Requests {
    count: AtomicU8,
    parent: Option<CancelToken>,
}

/// Cancels when it is dropped, unless it was disarmed: for a future that may be dropped while the
/// work that it waits for goes on.
#[derive(Debug)]
#[must_use = "it cancels when it is dropped"]
pub struct CancelGuard(Option<CancelToken>);

impl CancelGuard {
    /// Lets the work go on.
    pub fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for CancelGuard {
    fn drop(&mut self) {
        if let Some(token) = &self.0 {
            token.cancel();
        }
    }
}

impl CancelToken {
    /// A token that is not set.
    pub fn new() -> Self {
        Self::default()
    }

    /// A token that is set when this one is, and can be set without it.
    pub fn child(&self) -> Self {
        CancelToken(Arc::new(Requests {
            count: AtomicU8::new(0),
            parent: Some(self.clone()),
        }))
    }

    /// Cancels when the returned value is dropped.
    pub fn guard(&self) -> CancelGuard {
        CancelGuard(Some(self.clone()))
    }

    /// The most often that a stop was asked for, here or above.
    fn requests(&self) -> u8 {
        let own = self.0.count.load(Ordering::SeqCst);
        let above = self.0.parent.as_ref().map_or(0, CancelToken::requests);
        own.max(above)
    }

    /// Asks once more.
    pub fn cancel(&self) {
        // A third request says nothing new; saturate instead of wrapping to "not asked".
        let _ = self
            .0
            .count
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_add(1));
    }

    /// Whether a stop was asked for.
    pub fn is_cancelled(&self) -> bool {
        self.requests() > 0
    }

    /// Whether a stop was asked for twice or more.
    pub fn is_forced(&self) -> bool {
        self.requests() > 1
    }

    /// # Errors
    /// `Cancelled` once a stop was asked for.
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() {
            Err(stopped())
        } else {
            Ok(())
        }
    }

    /// # Errors
    /// `Cancelled` once a stop was asked for twice.
    pub fn check_forced(&self) -> Result<()> {
        if self.is_forced() {
            Err(stopped())
        } else {
            Ok(())
        }
    }
}

fn stopped() -> Error {
    Error::new(ErrorKind::Cancelled, "cancelled")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_cancelled_by_itself_and_by_its_parent() {
        let parent = CancelToken::new();
        let (first, second) = (parent.child(), parent.child());
        first.cancel();
        assert!(first.is_cancelled() && !second.is_cancelled() && !parent.is_cancelled());
        drop(parent.guard());
        assert!(second.is_cancelled() && !second.is_forced());
        parent.cancel();
        assert!(second.is_forced());
        let other = CancelToken::new();
        other.guard().disarm();
        assert!(!other.is_cancelled());
    }
}
