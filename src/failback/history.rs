//! What happened to a VM's job, and when.

use serde::{Deserialize, Serialize};

use super::machine::{Action, Answer, Event, JobPhase, Problem, Request, State};
pub(crate) use crate::duration::now_ms;

/// What happened last, and when: carried from step to step, for people only. Moments are
/// milliseconds since 1970 by the executor's clock; nothing is decided by them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct History {
    /// When the phase began.
    pub phase_at_ms: u64,
    /// When the command that is being carried out was sent.
    pub command_at_ms: u64,
    /// When the job goes on by itself: tries again, makes a pass, commits.
    pub next_at_ms: Option<u64>,
    /// The last request that was accepted.
    pub last_request: Option<AcceptedRequest>,
    /// What went wrong last in this phase.
    pub last_problem: Option<Failure>,
    /// The last cutover, where it failed and the source was started again.
    pub failed_cutover: Option<Failure>,
    /// The target's disks could not be restored, though that was asked.
    pub failed_restore: Option<Failure>,
    /// When the snapshot of the pass was taken.
    pub snapshot_at_ms: u64,
    /// The last complete pass.
    pub last_copy: Option<CopyDone>,
    /// Since when neither VM runs.
    pub down_since_ms: Option<u64>,
    /// How long neither VM ran, once one runs again.
    pub downtime_ms: Option<u64>,
    /// What the downtime was expected to be when the source was shut down.
    pub downtime_forecast_ms: Option<u64>,
}

/// A request, by whom, and when it was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AcceptedRequest {
    /// What was asked.
    pub request: Request,
    /// By whom.
    pub by: String,
    /// When; 0 where that was not written down.
    #[serde(default)]
    pub at_ms: u64,
}

/// Something that did not work, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Failure {
    /// When.
    pub at_ms: u64,
    /// The kind of problem; `None` where what was copied was found wrong.
    pub problem: Option<Problem>,
    /// More about it.
    pub detail: Option<String>,
}

/// A complete pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CopyDone {
    /// The moment of the running side's disks that the other side's hold.
    pub as_of_ms: u64,
    /// When it was complete.
    pub ended_at_ms: u64,
    /// The VM ran meanwhile.
    pub while_running: bool,
}

impl AcceptedRequest {
    pub(super) fn new(request: Request, by: &str, at_ms: u64) -> Self {
        AcceptedRequest {
            request,
            by: by.to_owned(),
            at_ms,
        }
    }
}

impl History {
    /// Takes a step of the machine into account.
    pub(super) fn note(
        &mut self,
        at_ms: u64,
        (event, detail): (&Event, Option<&str>),
        (before, after): (&State, &State),
    ) {
        let failure = |problem| Failure {
            at_ms,
            problem,
            detail: detail.map(str::to_owned),
        };
        if after.phase != before.phase {
            self.enter(at_ms, after);
        }
        if after.pending != before.pending {
            self.command_at_ms = at_ms;
        }
        if let (None, Some(problem)) = (before.problem, after.problem) {
            self.last_problem = Some(failure(Some(problem)));
        }
        match event {
            Event::Asked { request, by } => {
                self.last_request = Some(AcceptedRequest::new(*request, by, at_ms));
            }
            Event::Answered { answer, .. } => {
                let action = before.pending.map(|command| command.action);
                match (action, *answer) {
                    (Some(Action::Restore { .. }), Answer::Failed(problem)) => {
                        self.failed_restore = Some(failure(Some(problem)));
                    }
                    (Some(Action::Restore { .. }), Answer::TrackingLost) => {
                        self.failed_restore = Some(failure(None));
                    }
                    (Some(Action::Restore { .. }), Answer::Done) => self.failed_restore = None,
                    (Some(Action::Snapshot), Answer::Vm(_)) => self.snapshot_at_ms = at_ms,
                    (Some(Action::Copy(copy)), Answer::Copied(_)) => {
                        self.last_copy = Some(CopyDone {
                            as_of_ms: match copy.from_snapshot {
                                true => self.snapshot_at_ms,
                                false => self.down_since_ms.unwrap_or(at_ms),
                            },
                            ended_at_ms: at_ms,
                            while_running: copy.from_snapshot,
                        });
                    }
                    (Some(Action::ShutDown), Answer::Vm(seen))
                        if !seen.running && after.phase.is_downtime() =>
                    {
                        self.down_since_ms.get_or_insert(at_ms);
                    }
                    (Some(Action::Start), Answer::Vm(seen)) if seen.running => self.up(at_ms),
                    _ => {}
                }
                if (before.phase, after.phase) == (JobPhase::Verifying, JobPhase::Aborting) {
                    let unproven = action == Some(Action::Prove);
                    self.failed_cutover = Some(failure(unproven.then_some(Problem::ProofFailed)));
                }
            }
            _ => {}
        }
    }

    fn enter(&mut self, at_ms: u64, after: &State) {
        self.phase_at_ms = at_ms;
        self.last_problem = None;
        match after.phase {
            JobPhase::Quiescing => {
                self.downtime_ms = None;
                let last = after.reports[0].map(|pass| pass.elapsed_ms);
                self.downtime_forecast_ms = last.filter(|_| after.pass_count > 0);
            }
            JobPhase::FinalSync => {
                self.down_since_ms.get_or_insert(at_ms);
            }
            JobPhase::Activating => self.failed_cutover = None,
            JobPhase::RollingBack => self.downtime_forecast_ms = None,
            JobPhase::ReadyToCutover
            | JobPhase::InitialSync
            | JobPhase::CommitPending
            | JobPhase::RolledBack(_) => {
                self.up(at_ms);
            }
            _ => {}
        }
    }

    /// One of the VMs runs again.
    fn up(&mut self, at_ms: u64) {
        if let Some(since) = self.down_since_ms.take() {
            self.downtime_ms = Some(at_ms.saturating_sub(since));
        }
    }
}
