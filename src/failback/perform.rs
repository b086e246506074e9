//! Turns a command of the machine into a call, and what comes of it into an answer.

use std::sync::Arc;

use super::disk_work::{DiskCommand, DiskWork, Done};
use super::machine::{Action, Amount, Answer, Command, Problem, Resource, Side, Sides, Spec};
use super::vm::{Call, Changes, VmController};
use crate::error::{Error, ErrorKind, Result};
use crate::progress::{CancelToken, Work};

/// What an executor works with: the VMs of both sides, and their disks.
#[derive(Clone)]
pub struct Resources {
    /// The VMs.
    pub vms: Sides<Arc<dyn VmController>>,
    /// Their disks.
    pub disks: Arc<dyn DiskWork>,
    /// Threads, progress and speed limit for work on disks.
    pub work: Work,
}

opaque!(Resources);

impl Resources {
    /// Executes a command; blocks until it is done or `cancel` is set.
    pub(super) fn perform(&self, spec: &Spec, command: &Command, cancel: &CancelToken) -> Done {
        let token = command.token;
        let call = Call { token, cancel };
        let done = match command.resource {
            Resource::Vm(side) => {
                let seen = self.vms.of(side).execute(&call, command.action);
                seen.map(|seen| Answer::Vm(seen).into())
            }
            Resource::Disk(side) => self.perform_on_disks(spec, side, command.action, &call),
        };
        done.unwrap_or_else(|error| Done {
            answer: Answer::Failed(problem(&error)),
            detail: Some(error.to_string()),
        })
    }

    /// The side that is read accepts a copy's token, too: one that comes too late reads nothing.
    fn perform_on_disks(
        &self,
        spec: &Spec,
        side: Side,
        action: Action,
        call: &Call<'_>,
    ) -> Result<Done> {
        let changes = match action {
            Action::Copy(copy) => {
                let since = match copy.amount {
                    Amount::ChangedSince(since) => Some(since),
                    Amount::Everything | Amount::Differing(_) => None,
                };
                let source = self.vms.of(side.other());
                Some(source.changes_since(call, since, copy.from_snapshot)?)
            }
            Action::Restore {
                since,
                compare: false,
            } if since.is_some() => Some(self.vms.of(side).changes_since(call, since, false)?),
            // Nothing equals what is not known.
            Action::CheckBaseline { expected: None } => return Ok(Answer::Baseline(false).into()),
            _ => None,
        };
        let changes = match changes {
            None => None,
            Some(Changes::Tracked(disks)) => Some(disks),
            Some(Changes::SnapshotLost) if matches!(action, Action::Copy(_)) => {
                return Ok(Answer::SnapshotLost.into());
            }
            Some(Changes::TrackingLost | Changes::SnapshotLost) => {
                return Ok(Answer::TrackingLost.into());
            }
        };
        let command = DiskCommand {
            token: call.token,
            side,
            action,
            keep_undo: spec.keep_undo,
            changes: changes.as_deref(),
        };
        let work = self.work.clone().with_cancel(call.cancel.clone());
        self.disks.execute(&command, &work)
    }
}

fn problem(error: &Error) -> Problem {
    match error.kind() {
        ErrorKind::InUse => Problem::InUse,
        ErrorKind::Malformed => Problem::Nonsense,
        ErrorKind::MarkerInData => Problem::GuestMarker,
        ErrorKind::Incomplete => Problem::Marked,
        ErrorKind::InvalidInput | ErrorKind::Unsupported | ErrorKind::NoSpace => Problem::Unfit,
        _ => Problem::Unavailable,
    }
}
