//! Turns a command into calls, and what comes of them into an answer.

use super::disk_work::{CopyOrder, DiskWork};
use super::executor::Resources;
use super::machine::{
    Action, Amount, Answer, Checkpoint, Command, Copy, Problem, Resource, Side, Spec, Token,
};
use super::vm::{Call, Changes, VmController};
use crate::error::{Error, ErrorKind, Result};
use crate::progress::{CancelToken, Work};

/// What came of a command.
pub(super) struct Done {
    pub answer: Answer,
    /// More about it, for people.
    pub detail: Option<String>,
}

/// Carries a command out; blocks until it is done or `cancel` is set.
pub(super) fn perform(
    resources: &Resources,
    spec: &Spec,
    command: &Command,
    cancel: &CancelToken,
) -> Done {
    let token = command.token;
    let call = Call { token, cancel };
    let done = match command.resource {
        Resource::Vm(side) => vm(&**resources.vms.of(side), command.action, &call),
        Resource::Disk(side) => Disk {
            resources,
            spec,
            side,
            token,
            cancel,
        }
        .perform(command.action),
    };
    done.unwrap_or_else(|error| Done {
        answer: Answer::Failed(problem(&error)),
        detail: Some(error.to_string()),
    })
}

fn vm(vm: &dyn VmController, action: Action, call: &Call<'_>) -> Result<Done> {
    let seen = match action {
        Action::Inspect => vm.inspect(call),
        Action::Create => vm.create(call),
        Action::Fence => vm.fence(call),
        Action::Unfence => vm.unfence(call),
        Action::Start => vm.start(call),
        Action::ShutDown => vm.shut_down(call),
        Action::Retire { discard_disks } => vm.retire(call, discard_disks),
        Action::ArmTracking { keep } => vm.arm_tracking(call, keep),
        Action::Snapshot => vm.snapshot(call),
        Action::Release => vm.release(call),
        other => Err(misdirected(other)),
    };
    seen.map(|seen| Done::plain(Answer::Vm(seen)))
}

struct Disk<'a> {
    resources: &'a Resources,
    spec: &'a Spec,
    side: Side,
    token: Token,
    cancel: &'a CancelToken,
}

impl Disk<'_> {
    fn perform(&self, action: Action) -> Result<Done> {
        let (disks, token, side) = (&*self.resources.disks, self.token, self.side);
        let work = self.resources.work.clone().with_cancel(self.cancel.clone());
        Ok(match action {
            Action::Check => self.check(disks)?,
            Action::Block => Done::plain(disks.block(token, side).map(|()| Answer::Done)?),
            Action::Unblock => Done::plain(disks.unblock(token, side).map(|()| Answer::Done)?),
            Action::Copy(copy) => self.copy(copy, &work)?,
            Action::Verify => Done::plain(match disks.verify(token, side, &work)? {
                Some(roots) => Answer::Verified {
                    found: roots.found,
                    expected: roots.expected,
                },
                None => Answer::Damaged,
            }),
            Action::Prove => Done::plain(Answer::Proven(disks.prove(token, side, &work)?)),
            Action::CheckBaseline { expected } => Done::plain(Answer::Baseline(match expected {
                Some(root) => disks.check_baseline(token, side, root, &work)?,
                None => false,
            })),
            Action::Restore { since } => self.restore(since, &work)?,
            other => return Err(misdirected(other)),
        })
    }

    fn check(&self, disks: &dyn DiskWork) -> Result<Done> {
        let findings = disks.check(self.token, self.side)?;
        if findings.is_empty() {
            return Ok(Done::plain(Answer::Done));
        }
        let texts = findings
            .iter()
            .map(|finding| format!("{}: {}", finding.check, finding.text));
        Ok(Done {
            answer: Answer::Failed(Problem::Unfit),
            detail: Some(texts.collect::<Vec<_>>().join("; ")),
        })
    }

    /// The side that is read accepts the token, too: a copy that comes too late reads nothing.
    fn copy(&self, copy: Copy, work: &Work) -> Result<Done> {
        let since = match copy.amount {
            Amount::ChangedSince(since) => Some(since),
            Amount::Everything | Amount::Differing(_) => None,
        };
        let from = match self.changes(self.side.other(), since, copy.from_snapshot)? {
            Changes::Tracked(disks) => disks,
            Changes::TrackingLost => return Ok(Done::plain(Answer::TrackingLost)),
            Changes::SnapshotLost => return Ok(Done::plain(Answer::SnapshotLost)),
        };
        let order = CopyOrder {
            to: self.side,
            amount: copy.amount,
            from: &from,
            from_snapshot: copy.from_snapshot,
            keep_undo: self.spec.keep_undo,
        };
        let report = self.resources.disks.copy(self.token, &order, work)?;
        Ok(Done::plain(Answer::Copied(report)))
    }

    fn restore(&self, since: Option<Checkpoint>, work: &Work) -> Result<Done> {
        let written = match since {
            None => None,
            Some(since) => match self.changes(self.side, Some(since), false)? {
                Changes::Tracked(disks) => Some(disks),
                _ => return Ok(Done::plain(Answer::TrackingLost)),
            },
        };
        let disks = &self.resources.disks;
        disks.restore(self.token, self.side, written.as_deref(), work)?;
        Ok(Done::plain(Answer::Done))
    }

    fn changes(
        &self,
        side: Side,
        since: Option<Checkpoint>,
        from_snapshot: bool,
    ) -> Result<Changes> {
        let call = Call {
            token: self.token,
            cancel: self.cancel,
        };
        self.resources
            .vms
            .of(side)
            .changes_since(&call, since, from_snapshot)
    }
}

impl Done {
    fn plain(answer: Answer) -> Self {
        Done {
            answer,
            detail: None,
        }
    }
}

fn problem(error: &Error) -> Problem {
    match error.kind() {
        ErrorKind::InUse => Problem::InUse,
        ErrorKind::Malformed => Problem::Nonsense,
        ErrorKind::MarkerInData => Problem::GuestMarker,
        ErrorKind::Marked => Problem::Marked,
        ErrorKind::InvalidInput | ErrorKind::Unsupported | ErrorKind::NoSpace => Problem::Unfit,
        _ => Problem::Unavailable,
    }
}

fn misdirected(action: Action) -> Error {
    let text = format!("{action:?} was sent to a resource that does not know it");
    Error::new(ErrorKind::InvalidInput, text)
}
