//! Ways to break the machine on purpose, and to compare its states; for tests only.

use super::command::{Action, Amount, Checkpoint, Copy, Token};
use super::phase::{Disposition, JobPhase};
use super::state::State;
use super::{Machine, table};

impl Machine {
    /// The same machine, broken.
    #[must_use]
    pub fn with_mutation(mut self, mutation: Mutation) -> Self {
        self.mutation = mutation;
        self
    }

    /// The whole transition table: phase and condition of each row that can hold something up.
    pub fn table() -> Vec<(&'static str, &'static str)> {
        let mut all = Vec::new();
        for phase in PHASES {
            let rows = table::rows(phase);
            let checks = &rows[..rows.len().saturating_sub(1)];
            all.extend(checks.iter().map(|row| (phase.name(), row.condition.name)));
        }
        all
    }
}

impl State {
    /// The same state with other tokens: states that differ only in how often something was tried
    /// are one to a model checker.
    #[must_use]
    pub fn map_tokens(mut self, map: &mut impl FnMut(Token) -> Token) -> State {
        self.last = map(self.last);
        if let Some(command) = &mut self.pending {
            command.token = map(command.token);
            command.action = command.action.map_tokens(map);
        }
        self.pass.checkpoint = self.pass.checkpoint.map(|c| Checkpoint(map(c.0)));
        self.next_copy = self.next_copy.map_tokens(map);
        self
    }
}

impl Action {
    /// The same action with other tokens.
    #[must_use]
    pub fn map_tokens(self, map: &mut impl FnMut(Token) -> Token) -> Action {
        match self {
            Action::ArmTracking { keep } => Action::ArmTracking {
                keep: keep.map(|c| Checkpoint(map(c.0))),
            },
            Action::Restore { since } => Action::Restore {
                since: since.map(|c| Checkpoint(map(c.0))),
            },
            Action::Copy(copy) => Action::Copy(Copy {
                amount: copy.amount.map_tokens(map),
                ..copy
            }),
            other => other,
        }
    }
}

impl Amount {
    fn map_tokens(self, map: &mut impl FnMut(Token) -> Token) -> Amount {
        match self {
            Amount::ChangedSince(c) => Amount::ChangedSince(Checkpoint(map(c.0))),
            other => other,
        }
    }
}

/// What is wrong with a machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mutation {
    dropped: Vec<(&'static str, &'static str)>,
    remembers: bool,
}

impl Mutation {
    /// The row of `condition` is missing from the table of `phase` (`""`: of all phases).
    #[must_use]
    pub fn without(mut self, phase: &'static str, condition: &'static str) -> Self {
        let known = Machine::table()
            .iter()
            .any(|row| row.1 == condition && (phase.is_empty() || row.0 == phase));
        assert!(known, "the table has no row {phase:?} {condition:?}");
        self.dropped.push((phase, condition));
        self
    }

    /// What was known of a resource is still trusted while a command to it is under way.
    #[must_use]
    pub fn without_acknowledgement_barrier(mut self) -> Self {
        self.remembers = true;
        self
    }

    pub(super) fn drops(&self, phase: JobPhase, condition: &str) -> bool {
        self.dropped
            .iter()
            .any(|(p, c)| *c == condition && (p.is_empty() || *p == phase.name()))
    }

    pub(super) fn forgets(&self) -> bool {
        !self.remembers
    }
}

const PHASES: [JobPhase; 18] = [
    JobPhase::Planned,
    JobPhase::Prepared,
    JobPhase::InitialSync,
    JobPhase::ReadyToCutover,
    JobPhase::Quiescing,
    JobPhase::FinalSync,
    JobPhase::Verifying,
    JobPhase::Activating,
    JobPhase::CommitPending,
    JobPhase::Committing,
    JobPhase::Committed,
    JobPhase::ReverseReplicating,
    JobPhase::Protected,
    JobPhase::Aborting,
    JobPhase::RollingBack,
    JobPhase::Cancelling,
    JobPhase::Cancelled(Disposition::Restored),
    JobPhase::RolledBack(Disposition::Restored),
];
