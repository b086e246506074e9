//! Operations that fail on purpose.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::op::OpKind;
use crate::error::Error;
use crate::error::codes::{self, system_error};

/// How an operation fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Failure {
    /// EIO, with nothing done.
    Io,
    /// ENOSPC, with nothing done.
    NoSpace,
    /// EDQUOT, with nothing done.
    Quota,
    /// EFBIG, with nothing done.
    TooLong,
    /// EROFS, with nothing done.
    ReadOnly,
    /// EPERM, with nothing done.
    NotAllowed,
    /// ENOSPC after the first half of a write, in whole sectors where it has any; as
    /// [`Io`](Failure::Io) for all else.
    Short,
    /// EIO, although all was done.
    Late,
    /// EIO; a failing sync also throws away what it should have made durable, so that reads
    /// from a fresh handle show the old bytes. As [`Io`](Failure::Io) for all else.
    Lossy,
}

/// A call that the code under test makes, before it is carried out.
#[derive(Debug)]
#[non_exhaustive]
pub struct Call<'a> {
    /// What is asked for.
    pub kind: OpKind,
    /// The file, by the name its handle was opened under, or the directory.
    pub path: &'a Path,
    /// The bytes that it touches; empty where that means nothing.
    pub range: Range<u64>,
}

/// A rule that makes the nth matching call fail, once or from then on.
#[derive(Clone)]
pub struct Fault {
    nth: u64,
    lasting: bool,
    failure: Failure,
    matching: Arc<dyn Fn(&Call<'_>) -> bool + Send + Sync>,
    seen: u64,
}

impl Fault {
    /// Fails the `nth` change or sync (from 1) with [`Failure::Io`]; once.
    pub fn nth(nth: u64) -> Self {
        Fault {
            nth,
            lasting: false,
            failure: Failure::Io,
            matching: Arc::new(|call| call.kind.changes()),
            seen: 0,
        }
    }

    /// Fails every later matching call too, as a dead disk or a killed process does.
    #[must_use]
    pub fn and_all_later(mut self) -> Self {
        self.lasting = true;
        self
    }

    /// Fails in another way.
    #[must_use]
    pub fn with_failure(mut self, failure: Failure) -> Self {
        self.failure = failure;
        self
    }

    /// Counts the calls that `matching` accepts, in place of changes and syncs. It must not use
    /// the disk.
    #[must_use]
    pub fn on(mut self, matching: impl Fn(&Call<'_>) -> bool + Send + Sync + 'static) -> Self {
        self.matching = Arc::new(matching);
        self
    }

    fn judge(&mut self, call: &Call<'_>) -> Option<Failure> {
        if !(self.matching)(call) {
            return None;
        }
        self.seen += 1;
        let hit = self.seen == self.nth || (self.lasting && self.seen > self.nth);
        hit.then_some(self.failure)
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let times = if self.lasting {
            "and all later"
        } else {
            "once"
        };
        write!(f, "Fault({:?} at call {} {times})", self.failure, self.nth)
    }
}

/// A call that was made to fail.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fired {
    /// What was asked for.
    pub kind: OpKind,
    /// The file, by the name its handle was opened under, or the directory.
    pub path: PathBuf,
    /// How it failed.
    pub failure: Failure,
}

/// All rules of one disk, and what they did.
#[derive(Debug, Default)]
pub(super) struct Faults {
    pub(super) rules: Vec<Fault>,
    pub(super) fired: Vec<Fired>,
}

impl Faults {
    pub(super) fn judge(&mut self, call: &Call<'_>) -> Option<Failure> {
        // Every rule counts every call; the first that hits decides.
        let hits = self.rules.iter_mut().filter_map(|rule| rule.judge(call));
        let failure = hits.reduce(|first, _| first)?;
        self.fired.push(Fired {
            kind: call.kind,
            path: call.path.to_owned(),
            failure,
        });
        Some(failure)
    }
}

/// The error that a failing call reports, in the words that real files use.
pub(super) fn error(failure: Failure, call: &Call<'_>) -> Error {
    let writes = call.kind == OpKind::Write;
    let cause = match failure {
        Failure::NoSpace => codes::NO_SPACE,
        Failure::Quota => codes::QUOTA,
        Failure::TooLong => codes::TOO_LONG,
        Failure::ReadOnly => codes::READ_ONLY,
        Failure::NotAllowed => codes::NOT_ALLOWED,
        Failure::Short if writes => codes::NO_SPACE,
        _ => codes::FAILED,
    };
    let error = Error::io(call.kind.operation(), system_error(cause)).at_path(call.path);
    if call.range.is_empty() {
        error
    } else {
        error.at_offset(call.range.start)
    }
}
