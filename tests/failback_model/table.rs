//! Ways to break the machine on purpose, and to compare its states.

use diskdelta::failback::machine::{
    Action, Amount, Checkpoint, Copy, Disposition, JobMode, JobPhase, Machine, Mutation, Spec,
    State, Token,
};

/// The whole transition table: phase and condition of each row that can hold something up.
pub fn table() -> Vec<(&'static str, &'static str)> {
    let rows = PHASES.iter().flat_map(|&phase| {
        let spec = Spec::new(JobMode::Delta);
        let mut state = State::new(&spec);
        state.phase = phase;
        let conditions = Machine::resume(spec, state).explain().into_iter();
        conditions.map(move |(condition, _)| (phase.name(), condition))
    });
    rows.collect()
}

/// A machine from whose table the row of `condition` in `phase` (`""`: all phases) is missing, too.
pub fn without(mut broken: Mutation, phase: &'static str, condition: &'static str) -> Mutation {
    let known = table()
        .iter()
        .any(|row| row.1 == condition && (phase.is_empty() || row.0 == phase));
    assert!(known, "the table has no row {phase:?} {condition:?}");
    broken.dropped.push((phase, condition));
    broken
}

/// The same state with other tokens: states that differ only in how often something was tried
/// are one to a model checker.
pub fn map_state(mut state: State, map: &mut impl FnMut(Token) -> Token) -> State {
    state.last = map(state.last);
    if let Some(command) = &mut state.pending {
        command.token = map(command.token);
        command.action = map_action(command.action, map);
    }
    state.pass.checkpoint = state.pass.checkpoint.map(|c| Checkpoint(map(c.0)));
    state.next_copy = map_amount(state.next_copy, map);
    state
}

/// The same action with other tokens.
pub fn map_action(action: Action, map: &mut impl FnMut(Token) -> Token) -> Action {
    match action {
        Action::ArmTracking { keep } => Action::ArmTracking {
            keep: keep.map(|c| Checkpoint(map(c.0))),
        },
        Action::Restore { since, compare } => Action::Restore {
            since: since.map(|c| Checkpoint(map(c.0))),
            compare,
        },
        Action::Copy(copy) => Action::Copy(Copy {
            amount: map_amount(copy.amount, map),
            ..copy
        }),
        other => other,
    }
}

fn map_amount(amount: Amount, map: &mut impl FnMut(Token) -> Token) -> Amount {
    match amount {
        Amount::ChangedSince(c) => Amount::ChangedSince(Checkpoint(map(c.0))),
        other => other,
    }
}

const PHASES: [JobPhase; 19] = [
    JobPhase::Planned,
    JobPhase::Prepared,
    JobPhase::InitialSync,
    JobPhase::ReadyToCutover,
    JobPhase::Testing,
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
