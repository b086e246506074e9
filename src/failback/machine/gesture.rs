//! What people ask of a job, and where it is refused.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::phase::Phase;
use super::state::{Mode, Spec, State};
use crate::error::{Error, ErrorKind};

/// What an operator asks of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Gesture {
    /// Begin; before, nothing is touched.
    Start,
    /// Cut over. Asked for during a pass, it is done after the pass.
    Complete,
    /// Before the decision: start the source again, keep the job and what was copied.
    Abort,
    /// While the source runs: give the job up.
    Cancel {
        /// Make the target's disk what it was. Otherwise it stays unbootable, for a later job.
        restore: bool,
    },
    /// After the decision: stop the target, start the source again.
    Undo {
        /// Says that whoever asks knows that what the target wrote is lost.
        accept_loss: bool,
        /// Make the target's disk what it was, before the source is started.
        restore: bool,
    },
    /// Retire the source for good.
    Commit,
    /// Replicate the other way from now on.
    Reverse,
    /// Try again what did not work.
    Retry,
}

impl Gesture {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Gesture::Start => "start",
            Gesture::Complete => "complete",
            Gesture::Abort => "abort",
            Gesture::Cancel { .. } => "cancel",
            Gesture::Undo { .. } => "undo",
            Gesture::Commit => "commit",
            Gesture::Reverse => "reverse",
            Gesture::Retry => "retry",
        }
    }
}

/// A gesture that was not accepted; nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub struct Refusal {
    /// What was asked.
    pub gesture: Gesture,
    /// How far the job is.
    pub phase: Phase,
    /// Why it cannot be.
    pub because: Because,
}

/// Why a gesture is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Because {
    /// The phase does not allow it.
    Phase,
    /// It was asked for already.
    AskedAlready,
    /// Nobody is named who asks.
    OperatorMissing,
    /// The source is not proven to equal the target yet.
    ProofMissing,
    /// The loss of what the target wrote is not acknowledged.
    LossNotAccepted,
    /// The target was written to and no undo file is kept.
    NoUndoKept,
    /// Nothing failed that could be tried again.
    NothingToRetry,
    /// The source's disks can only be read.
    OneWay,
    /// A disk of the source can only be written in place, and the job may not do that.
    InPlaceOnly,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (gesture, phase) = (self.gesture.name(), self.phase);
        match self.because {
            Because::Phase => write!(f, "{gesture} is not possible in phase {phase}"),
            Because::AskedAlready => write!(f, "{gesture} was asked for already"),
            Because::OperatorMissing => write!(f, "{gesture} needs the name of who asks"),
            Because::ProofMissing => write!(
                f,
                "{gesture} has to wait: the source is not proven to equal the target yet"
            ),
            Because::LossNotAccepted => write!(
                f,
                "{gesture} loses what the target wrote, and that was not acknowledged"
            ),
            Because::NoUndoKept => write!(
                f,
                "{gesture} cannot restore the target's disk: no undo file is kept"
            ),
            Because::NothingToRetry => write!(f, "{gesture} is for a job that stands still"),
            Because::OneWay => write!(
                f,
                "{gesture} would write to the source's disks, which can only be read from here; run \
                 a job for the other direction on the host that has them"
            ),
            Because::InPlaceOnly => write!(
                f,
                "{gesture} would write in place to a block device of the source's, and the plan says \
                 `safety = \"atomic\"`; run a job for the other direction with `safety = \"in-place\"`"
            ),
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Error {
        Error::new(ErrorKind::InvalidInput, refusal.to_string())
    }
}

/// Does what is asked to a copy of the state, or says why not.
pub(super) fn accept(
    spec: &Spec,
    state: &mut State,
    gesture: Gesture,
    by: &str,
    proven: bool,
) -> Result<(), Because> {
    use Phase::*;
    let phase = state.phase;
    match gesture {
        Gesture::Start => {
            only(phase == Prepared, Because::Phase)?;
            only(!state.asked.start, Because::AskedAlready)?;
            state.asked.start = true;
            // In full mode nothing is copied before the cutover, so there is nothing to wait for,
            // but for the others of the group.
            state.asked.complete = spec.mode == Mode::Full && !spec.grouped;
            // What was seen when the job was planned may be days old.
            state.vms.target = None;
        }
        Gesture::Complete => {
            only(
                matches!(phase, InitialSync | ReadyToCutover),
                Because::Phase,
            )?;
            only(!state.asked.complete, Because::AskedAlready)?;
            state.asked.complete = true;
        }
        Gesture::Abort => {
            only(
                matches!(phase, Quiescing | FinalSync | Verifying),
                Because::Phase,
            )?;
            state.enter(Aborting);
        }
        Gesture::Cancel { restore } => {
            only(
                matches!(phase, Planned | Prepared | InitialSync | ReadyToCutover),
                Because::Phase,
            )?;
            only(
                !restore || spec.keep_undo || !state.written,
                Because::NoUndoKept,
            )?;
            state.asked.restore = restore;
            state.enter(Cancelling);
        }
        Gesture::Undo {
            accept_loss,
            restore,
        } => {
            only(matches!(phase, Activating | CommitPending), Because::Phase)?;
            only(accept_loss, Because::LossNotAccepted)?;
            only(!restore || spec.keep_undo, Because::NoUndoKept)?;
            state.asked.commit = false;
            state.asked.restore = restore;
            state.enter(RollingBack);
        }
        Gesture::Commit => {
            only(phase == CommitPending, Because::Phase)?;
            only(!by.is_empty(), Because::OperatorMissing)?;
            only(proven, Because::ProofMissing)?;
            only(!state.asked.commit, Because::AskedAlready)?;
            ask_commit(state);
        }
        Gesture::Reverse => {
            only(phase == Committed, Because::Phase)?;
            refused_reverse(spec).map_or(Ok(()), Err)?;
            state.asked.reverse = true;
        }
        Gesture::Retry => {
            only(state.problem.is_some(), Because::NothingToRetry)?;
            retry(state);
        }
    }
    Ok(())
}

/// Why nothing can be replicated onto the source's disks.
pub(super) fn refused_reverse(spec: &Spec) -> Option<Because> {
    match (spec.one_way, spec.atomic_only) {
        (true, _) => Some(Because::OneWay),
        (false, true) => Some(Because::InPlaceOnly),
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

fn only(holds: bool, because: Because) -> Result<(), Because> {
    if holds { Ok(()) } else { Err(because) }
}
