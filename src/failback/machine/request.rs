//! What people ask of a job, and where it is refused.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::phase::JobPhase;
use super::state::{JobMode, Spec, State};
use crate::error::{Error, ErrorKind};
use crate::named::named;

named! {
    /// What an operator asks of a job.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    #[non_exhaustive]
    pub enum Request {
        /// Begin; before, nothing is touched.
        Start = "start",
        /// Boot a copy of the target's disks in isolation, while the source runs on.
        Test {
            /// End the test that runs.
            end: bool,
        } = "test",
        /// Cut over. Asked for during a pass, it is done after the pass.
        Complete = "complete",
        /// Before the decision: start the source again, keep the job and what was copied.
        Abort = "abort",
        /// While the source runs: give the job up.
        Cancel {
            /// Make the target's disk what it was. Otherwise it stays unbootable, for a later job.
            restore: bool,
        } = "cancel",
        /// After the decision: stop the target, start the source again.
        Undo {
            /// Confirms that data written by the target is lost.
            accept_loss: bool,
            /// Make the target's disk what it was, before the source is started.
            restore: bool,
        } = "undo",
        /// Retire the source for good.
        Commit = "commit",
        /// Replicate the other way from now on.
        Reverse = "reverse",
        /// Try again what did not work.
        Retry = "retry",
    }
}

/// A request that was not accepted; nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub struct RefusedRequest {
    /// What was asked.
    pub request: Request,
    /// How far the job is.
    pub phase: JobPhase,
    /// Why it cannot be.
    pub reason: Refusal,
}

named! {
    /// Why a request is refused.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    #[non_exhaustive]
    pub enum Refusal {
        /// The phase does not allow it.
        JobPhase = "is not possible in this phase",
        /// It was asked for already.
        AskedAlready = "was asked for already",
        /// The request names no operator.
        OperatorMissing = "needs the name of who asks",
        /// The source is not proven to equal the target yet.
        ProofMissing = "has to wait: the source is not proven to equal the target yet",
        /// The loss of what the target wrote is not acknowledged.
        LossNotAccepted = "loses what the target wrote, and that was not acknowledged",
        /// The target was written to and no undo file is kept.
        NoUndoKept = "cannot restore the target's disk: no undo file is kept",
        /// The target's disks are not the source's as of one moment.
        NothingToTest = "needs a complete pass that was made while the source ran",
        /// Nothing can be booted from the target's disks while they are blocked.
        NotTestable = "boots copies of files; the target's disks are devices or encrypted",
        /// Nothing failed that could be tried again.
        NothingToRetry = "is for a job that stands still",
        /// The source's disks can only be read.
        OneWay =
            "would write to the source's disks, which can only be read from here; run a job \
             for the other direction on the host that has them",
        /// A disk of the source can only be written in place, and the job may not do that.
        InPlaceOnly =
            "would write in place to a block device of the source's, and the plan says `safety \
             = \"atomic\"`; run a job for the other direction with `safety = \"in-place\"`",
    }
}

impl fmt::Display for RefusedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason {
            Refusal::JobPhase => {
                let (request, phase) = (self.request, self.phase);
                write!(f, "{request} is not possible in phase {phase}")
            }
            reason => write!(f, "{} {reason}", self.request),
        }
    }
}

impl From<RefusedRequest> for Error {
    fn from(refusal: RefusedRequest) -> Error {
        Error::new(ErrorKind::InvalidInput, refusal.to_string())
    }
}

/// Does what is asked to a copy of the state, or says why not.
pub(super) fn accept(
    spec: &Spec,
    state: &mut State,
    request: Request,
    by: &str,
    proven: bool,
) -> Result<(), Refusal> {
    use JobPhase::*;
    let phase = state.phase;
    let phases = match request {
        Request::Start => Prepared..=Prepared,
        Request::Test { end: false } => ReadyToCutover..=ReadyToCutover,
        Request::Test { end: true } => Testing..=Testing,
        Request::Complete => InitialSync..=ReadyToCutover,
        Request::Abort => Quiescing..=Verifying,
        Request::Cancel { .. } => Planned..=ReadyToCutover,
        Request::Undo { .. } => Activating..=CommitPending,
        Request::Commit => CommitPending..=CommitPending,
        Request::Reverse => Committed..=Committed,
        Request::Retry => phase..=phase,
    };
    only(phases.contains(&phase), Refusal::JobPhase)?;
    match request {
        Request::Start => {
            only(!state.asked.start, Refusal::AskedAlready)?;
            state.asked.start = true;
            // In full mode nothing is copied before the cutover, so there is nothing to wait for,
            // but for the others of the group.
            state.asked.complete = spec.mode == JobMode::Full && !spec.grouped;
            // What was seen when the job was planned may be days old.
            state.vms.target = None;
        }
        Request::Test { end: false } => {
            only(!spec.untestable, Refusal::NotTestable)?;
            only(state.pass.copied, Refusal::NothingToTest)?;
            state.asked.test = true;
            state.enter(Testing);
        }
        Request::Test { end: true } => {
            only(state.asked.test, Refusal::AskedAlready)?;
            state.asked.test = false;
            // Whatever starts it is not waited for.
            (state.pending, state.problem) = (None, None);
        }
        Request::Complete => {
            only(!state.asked.complete, Refusal::AskedAlready)?;
            state.asked.complete = true;
        }
        Request::Abort => state.enter(Aborting),
        Request::Cancel { restore } => {
            let restores = spec.keep_undo || !state.written;
            only(!restore || restores, Refusal::NoUndoKept)?;
            state.asked.restore = restore;
            state.enter(Cancelling);
        }
        Request::Undo {
            accept_loss,
            restore,
        } => {
            only(accept_loss, Refusal::LossNotAccepted)?;
            only(!restore || spec.keep_undo, Refusal::NoUndoKept)?;
            state.asked.commit = false;
            state.asked.restore = restore;
            state.enter(RollingBack);
        }
        Request::Commit => {
            only(!by.is_empty(), Refusal::OperatorMissing)?;
            only(proven, Refusal::ProofMissing)?;
            only(!state.asked.commit, Refusal::AskedAlready)?;
            ask_commit(state);
        }
        Request::Reverse => {
            refused_reverse(spec).map_or(Ok(()), Err)?;
            state.asked.reverse = true;
        }
        Request::Retry => {
            only(state.problem.is_some(), Refusal::NothingToRetry)?;
            retry(state);
        }
    }
    Ok(())
}

impl Spec {
    /// Why nothing would be replicated back once the job is committed; `None` where it would be.
    pub fn refuses_reverse(&self) -> Option<RefusedRequest> {
        refused_reverse(self).map(|reason| RefusedRequest {
            request: Request::Reverse,
            phase: JobPhase::Committed,
            reason,
        })
    }
}

/// Why nothing can be replicated onto the source's disks.
fn refused_reverse(spec: &Spec) -> Option<Refusal> {
    match (spec.one_way, spec.atomic_only) {
        (true, _) => Some(Refusal::OneWay),
        (false, true) => Some(Refusal::InPlaceOnly),
        (false, false) => None,
    }
}

/// Asks for the commit; the target must be seen running after this, not before.
pub(super) fn ask_commit(state: &mut State) {
    state.asked.commit = true;
    state.vms.target = None;
}

/// Looks at everything anew and tries again.
pub(super) fn retry(state: &mut State) {
    state.problem = None;
    state.vms = Default::default();
}

fn only(holds: bool, reason: Refusal) -> Result<(), Refusal> {
    if holds { Ok(()) } else { Err(reason) }
}
