//! The machine that decides: a state and an event in, a state and at most one command out.
//!
//! It does no I/O and knows no clock; time comes as events. All that it knows of the world is what
//! was acknowledged to it. The transitions stand in one table, in `table.rs`; what events do, in
//! [`Machine::apply`].
//!
//! Rules that hold everywhere:
//! - One command at a time, each with a new [`Token`]; a resource refuses older tokens, and only
//!   the answer to the newest one counts.
//! - Sending a command forgets what was known of its resource until it is answered.
//! - After each [`apply`](Machine::apply) that changes the state, the state is made durable before
//!   the command is sent. So the newest durable state is enough to go on from.

mod budget;
mod command;
mod condition;
mod group;
#[cfg(feature = "testing")]
mod mutation;
mod phase;
mod request;
mod state;
mod table;

use serde::{Deserialize, Serialize};

pub use budget::Convergence;
pub use command::{
    Action, Amount, Answer, Checkpoint, Command, Copy, PassReport, Problem, Reason, Resource, Side,
    Sides, Token, VmSeen,
};
pub use group::{GroupAsked, Signal, signals};
#[cfg(feature = "testing")]
pub use mutation::Mutation;
pub use phase::{Disposition, JobPhase};
pub use request::{Refusal, RefusedRequest, Request};
pub use state::{Asked, CommitPolicy, JobMode, Pass, ProofPolicy, Spec, State};

use condition::Condition;
use table::Otherwise;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// An executor takes the job over; its epoch is higher than all before.
    TakenOver {
        /// The new executor's epoch.
        epoch: u64,
    },
    /// A command was answered.
    Answered {
        /// Which one.
        token: Token,
        /// With what.
        answer: Answer,
    },
    /// No answer came in time.
    Unanswered {
        /// To which command.
        token: Token,
    },
    /// A while has passed since a command failed in a way that may pass.
    RetryDue,
    /// It is time for another pass.
    PassDue,
    /// The time to commit has run out.
    CommitDue,
    /// All of the job's group were looked at again, and its turn has come to be shut down.
    GroupShutsDown,
    /// All of the job's group are ready to be activated, and its turn has come.
    GroupActivates,
    /// A request arrives.
    Asked {
        /// What.
        request: Request,
        /// Who.
        by: String,
    },
}

/// What follows from an event.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Step {
    /// The state is another one, and has to be made durable before anything is sent.
    pub changed: bool,
    /// To be sent now.
    pub send: Option<Command>,
    /// A decision was taken: whose VM is the one that may run.
    pub decided: Option<Side>,
}

/// A job's machine.
#[derive(Debug, Clone)]
pub struct Machine {
    spec: Spec,
    state: State,
    #[cfg(feature = "testing")]
    mutation: Mutation,
}

impl Machine {
    /// A job at its beginning. It sends its first command at [`Event::TakenOver`].
    pub fn new(spec: Spec) -> Self {
        let state = State::new(&spec);
        Self::resume(spec, state)
    }

    /// A job as it was written down last.
    pub fn resume(spec: Spec, state: State) -> Self {
        Machine {
            spec,
            state,
            #[cfg(feature = "testing")]
            mutation: Mutation::default(),
        }
    }

    /// The same machine, broken.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn with_mutation(mut self, mutation: Mutation) -> Self {
        self.mutation = mutation;
        self
    }

    /// What is fixed about the job.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Where the job stands.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What the job needs next: the condition that does not hold, in words. `None` once it is over.
    pub fn needs(&self) -> Option<&'static str> {
        self.next_row(&self.state).map(|row| row.condition.name)
    }

    /// The conditions of the phase that the job is in, in their order, and whether each holds. It
    /// goes on once all do.
    pub fn explain(&self) -> Vec<(&'static str, bool)> {
        let rows = table::rows(self.state.phase);
        let conditions = rows.iter().map(|row| &row.condition);
        conditions
            .filter(|condition| !condition.is_never())
            .map(|condition| (condition.name, self.holds(&self.state, condition)))
            .collect()
    }

    /// Whether a request would be accepted now.
    ///
    /// # Errors
    /// The refusal it would meet.
    pub fn allows(&self, request: Request, by: &str) -> Result<(), RefusedRequest> {
        self.accept(&mut self.state.clone(), request, by)
    }

    /// Takes an event in.
    ///
    /// # Errors
    /// A request that is not allowed now; nothing was changed.
    pub fn apply(&mut self, event: &Event) -> Result<Step, RefusedRequest> {
        let mut next = self.state;
        let mut send = None;
        match event {
            Event::TakenOver { epoch } if *epoch > next.last.epoch => next.take_over(*epoch),
            Event::Answered { token, answer } => self.answered(&mut next, *token, answer),
            Event::Unanswered { token } => {
                send = next.pending.filter(|command| command.token == *token);
            }
            Event::RetryDue if next.problem.is_some_and(Problem::is_transient) => {
                request::retry(&mut next);
            }
            Event::PassDue => match next.phase {
                JobPhase::ReadyToCutover if !next.asked.complete => {
                    next.pass_count = 0;
                    next.enter(JobPhase::InitialSync);
                }
                JobPhase::Protected => next.enter(JobPhase::ReverseReplicating),
                _ => {}
            },
            // Those of a group commit together, when all of them are asked.
            Event::CommitDue if self.spec.grouped => {}
            Event::CommitDue if next.phase == JobPhase::CommitPending => match self.spec.commit {
                CommitPolicy::Manual => {}
                CommitPolicy::Auto => request::ask_commit(&mut next),
                CommitPolicy::Undo => next.enter(JobPhase::RollingBack),
            },
            Event::GroupActivates if next.phase == JobPhase::Verifying => {
                next.asked.activate = true
            }
            Event::GroupShutsDown if next.phase == JobPhase::Quiescing => {
                next.asked.shut_down = true
            }
            Event::Asked { request, by } => self.accept(&mut next, *request, by)?,
            _ => {}
        }
        if next != self.state {
            send = self.advance(&mut next);
        }
        let step = Step {
            changed: next != self.state,
            send,
            decided: (next.active != self.state.active).then_some(next.active),
        };
        self.state = next;
        Ok(step)
    }

    /// Walks down the table until something has to be sent or waited for.
    fn advance(&self, state: &mut State) -> Option<Command> {
        while state.pending.is_none() && state.problem.is_none() {
            let row = self.next_row(state)?;
            match row.otherwise {
                Otherwise::Send(resource, action) => {
                    let action = action(&self.spec, state);
                    return Some(state.issue(resource, action, self.forgets()));
                }
                Otherwise::Wait => return None,
                Otherwise::Stop(problem) => state.problem = Some(problem),
                Otherwise::Decide(side) => state.active = side,
                Otherwise::Go(phase) => {
                    let phase = phase(&self.spec, state);
                    state.enter(phase);
                }
            }
        }
        None
    }

    fn next_row(&self, state: &State) -> Option<&'static table::Row> {
        table::rows(state.phase)
            .iter()
            .find(|row| !self.holds(state, &row.condition))
    }

    fn accept(&self, state: &mut State, request: Request, by: &str) -> Result<(), RefusedRequest> {
        let phase = state.phase;
        let proven = self.holds(state, &condition::PROVEN);
        request::accept(&self.spec, state, request, by, proven).map_err(|reason| RefusedRequest {
            request,
            phase,
            reason,
        })
    }

    /// Learns from an answer, if it is the one that is waited for.
    fn answered(&self, state: &mut State, token: Token, answer: &Answer) {
        let Some(command) = state.pending.filter(|command| command.token == token) else {
            return;
        };
        state.pending = None;
        match (command.resource, command.action, *answer) {
            // The other side's disk still holds all that it needs.
            (
                _,
                Action::Restore {
                    since: Some(_),
                    compare: false,
                },
                Answer::Failed(_) | Answer::TrackingLost,
            ) => state.restore_compares = true,
            (_, Action::Restore { .. }, Answer::Failed(_) | Answer::TrackingLost) => {
                state.asked.restore = false;
            }
            // It goes when the next one is taken.
            (_, Action::Release, Answer::Failed(_)) => state.pass.snapshot = false,
            (_, action, Answer::Failed(problem)) => {
                state.problem = Some(problem);
                if let Action::Copy(copy) = action
                    && copy.from_snapshot
                    && problem.is_of_the_data()
                {
                    // A later snapshot may be without it; this one never is.
                    state.pass = Pass::default();
                }
            }
            (Resource::Vm(side), action, Answer::Vm(seen)) => {
                *state.vms.of_mut(side) = Some(seen);
                self.vm_answered(state, command.token, action, seen);
            }
            (Resource::Disk(side), action, answer) => {
                self.disk_answered(state, side, action, answer);
            }
            _ => state.problem = Some(Problem::Nonsense),
        }
    }

    fn vm_answered(&self, state: &mut State, token: Token, action: Action, seen: VmSeen) {
        let done = match action {
            Action::Create => seen.exists,
            Action::Fence => seen.fenced || !seen.exists,
            Action::Unfence => !seen.fenced,
            Action::Start => seen.running,
            Action::ShutDown => !seen.running,
            Action::Retire { .. } => !seen.exists,
            Action::StartTest => !seen.running,
            _ => true,
        };
        if !done {
            state.problem = Some(match action {
                // What runs is no test, but the VM itself.
                Action::StartTest => Problem::TargetRuns,
                _ => Problem::NoEffect,
            });
            return;
        }
        match action {
            Action::ArmTracking { .. } => {
                state.pass.checkpoint = Some(Checkpoint(token));
                state.finish();
            }
            Action::Snapshot => state.pass.snapshot = true,
            Action::Release => state.pass.snapshot = false,
            Action::StartTest => state.test_runs = Some(true),
            Action::StopTest => state.test_runs = Some(false),
            Action::Retire {
                discard_disks: true,
            } => state.next_copy = Amount::Everything,
            _ => {}
        }
    }

    fn disk_answered(&self, state: &mut State, side: Side, action: Action, answer: Answer) {
        let compare = |reason| Amount::Differing(reason);
        match (action, answer) {
            (Action::Check, Answer::Done) => state.checked = true,
            (Action::Block, Answer::Done) => *state.blocked.of_mut(side) = Some(true),
            (Action::Unblock, Answer::Done) => *state.blocked.of_mut(side) = Some(false),
            (Action::Restore { .. }, Answer::Done) => state.restored = true,
            (Action::Copy(_), Answer::Copied(report)) => {
                state.reports = [Some(report), state.reports[0]];
                state.pass_count = state.pass_count.saturating_add(1);
                state.pass.copied = true;
                state.finish();
            }
            (Action::Copy(_), Answer::TrackingLost) => {
                state.next_copy = compare(Reason::TrackingLost);
            }
            (Action::Copy(_), Answer::SnapshotLost) => state.pass = Pass::default(),
            (Action::Verify, Answer::Verified { found, expected }) if found == expected => {
                state.pass.verified = true;
                if side == Side::Target {
                    state.root = Some(found);
                }
            }
            (Action::Verify, Answer::Verified { .. } | Answer::Damaged) => verify_failed(state),
            (Action::Prove, Answer::Proven(root)) if state.root == Some(root) => {
                state.proven = true;
            }
            (Action::Prove, Answer::Proven(_)) if state.active == Side::Source => {
                verify_failed(state);
            }
            (Action::Prove, Answer::Proven(_)) => state.problem = Some(Problem::ProofFailed),
            (Action::CheckBaseline { .. }, Answer::Baseline(same)) => {
                state.baseline_checked = true;
                if !same {
                    state.next_copy = compare(Reason::BaselineDiffers);
                }
            }
            _ => state.problem = Some(Problem::Nonsense),
        }
    }

    fn holds(&self, state: &State, condition: &Condition) -> bool {
        #[cfg(feature = "testing")]
        if self.mutation.drops(state.phase, condition.name) {
            return true;
        }
        (condition.holds)(&self.spec, state)
    }

    fn forgets(&self) -> bool {
        #[cfg(feature = "testing")]
        return !self.mutation.remembers;
        #[cfg(not(feature = "testing"))]
        true
    }
}

/// A copy is not what it should be: the next pass compares all. Where the source was shut down for
/// it, it goes on meanwhile.
fn verify_failed(state: &mut State) {
    state.pass.copied = false;
    state.next_copy = Amount::Differing(Reason::VerifyFailed);
    if state.phase == JobPhase::Verifying {
        state.enter(JobPhase::Aborting);
    }
}
