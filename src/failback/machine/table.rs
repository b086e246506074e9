//! The transition table: what each phase needs, in this order, before the next one begins.
//!
//! The machine takes the first row of its phase whose condition does not hold, and does what the
//! row says. The last row of a phase leads to the next. Conditions look only at what was
//! acknowledged, never at what was merely sent. Phases that stand in no row's `go` are entered by
//! requests: Aborting, RollingBack, Cancelling.

use super::budget::another_pass;
use super::command::{Action, Amount, Copy, Problem, Reason, Resource, Side};
use super::condition::*;
use super::phase::{Disposition, JobPhase};
use super::state::{JobMode, Spec, State};

use Side::{Source, Target};

/// Nothing is touched: prerequisites are checked.
static PLANNED: &[Row] = &[
    unless(SOURCE_ANSWERS, vm(Source, INSPECT)),
    unless(TARGET_ANSWERS, vm(Target, INSPECT)),
    unless(TARGET_MAY_EXIST, stop(Problem::TargetMissing)),
    unless(TARGET_OFF, stop(Problem::TargetRuns)),
    unless(PREREQUISITES_HOLD, disk(Target, CHECK)),
    go(|_, _| JobPhase::Prepared),
];

/// The target is fenced and blocked before the first byte is written to it.
static PREPARED: &[Row] = &[
    unless(START_ASKED, WAIT),
    unless(TARGET_ANSWERS, vm(Target, INSPECT)),
    unless(TARGET_EXISTS, vm(Target, CREATE)),
    unless(TARGET_FENCED, vm(Target, FENCE)),
    unless(TARGET_OFF, stop(Problem::TargetRuns)),
    unless(TARGET_BLOCKED, disk(Target, BLOCK)),
    go(|spec, _| match spec.mode {
        JobMode::Full => JobPhase::ReadyToCutover,
        JobMode::Delta | JobMode::FullFirst => JobPhase::InitialSync,
    }),
];

/// Tracking is armed before the snapshot, so that no write falls between two passes.
static INITIAL_SYNC: &[Row] = &[
    unless(TARGET_FENCED, vm(Target, FENCE)),
    unless(TARGET_OFF, stop(Problem::TargetRuns)),
    unless(TARGET_BLOCKED, disk(Target, BLOCK)),
    unless(TRACKING_ARMED, vm(Source, ARM_TRACKING)),
    unless(SNAPSHOT_TAKEN, vm(Source, SNAPSHOT)),
    unless(COPIED, disk(Target, COPY_SNAPSHOT)),
    unless(SNAPSHOT_RELEASED, vm(Source, RELEASE)),
    go(|spec, state| match another_pass(spec, state) {
        true => JobPhase::InitialSync,
        false => JobPhase::ReadyToCutover,
    }),
];

/// The source runs and the target waits.
static READY_TO_CUTOVER: &[Row] = &[unless(COMPLETE_ASKED, WAIT), go(|_, _| JobPhase::Quiescing)];

/// A copy of the target's disks runs in isolation; no pass writes to them meanwhile.
static TESTING: &[Row] = &[
    unless(TARGET_FENCED, vm(Target, FENCE)),
    unless(TEST_RUNS, vm(Target, START_TEST)),
    unless(TEST_END_ASKED, WAIT),
    unless(TEST_GONE, vm(Target, STOP_TEST)),
    go(|_, _| JobPhase::ReadyToCutover),
];

/// The target must answer before the source is shut down; the source is fenced when it is off.
static QUIESCING: &[Row] = &[
    unless(TARGET_ANSWERS, vm(Target, INSPECT)),
    unless(TARGET_FENCED, vm(Target, FENCE)),
    unless(TARGET_OFF, stop(Problem::TargetRuns)),
    unless(TARGET_BLOCKED, disk(Target, BLOCK)),
    // What does not hold any more is found while the source still runs.
    unless(PREREQUISITES_HOLD, disk(Target, CHECK)),
    unless(GROUP_SHUTS_DOWN, WAIT),
    unless(SOURCE_OFF, vm(Source, SHUT_DOWN)),
    unless(SOURCE_FENCED, vm(Source, FENCE)),
    go(|_, _| JobPhase::FinalSync),
];

/// The source cannot be written any more; what is left of it is copied.
static FINAL_SYNC: &[Row] = &[
    unless(SOURCE_OFF, vm(Source, SHUT_DOWN)),
    unless(SOURCE_FENCED, vm(Source, FENCE)),
    unless(TARGET_FENCED, vm(Target, FENCE)),
    unless(TARGET_OFF, stop(Problem::TargetRuns)),
    unless(TARGET_BLOCKED, disk(Target, BLOCK)),
    unless(COPIED, disk(Target, COPY_DISK)),
    go(|_, _| JobPhase::Verifying),
];

/// The copy is right, and the source still off and fenced, when the target is decided on.
static VERIFYING: &[Row] = &[
    unless(SOURCE_OFF, vm(Source, SHUT_DOWN)),
    unless(SOURCE_FENCED, vm(Source, FENCE)),
    unless(COPY_VERIFIED, disk(Target, VERIFY)),
    unless(PROVEN_IF_ASKED_BEFORE, disk(Source, PROVE)),
    unless(GROUP_ACTIVATES, WAIT),
    unless(TARGET_DECIDED, decide(Target)),
    go(|_, _| JobPhase::Activating),
];

/// The target's writes are tracked before anybody can start it.
static ACTIVATING: &[Row] = &[
    unless(TARGET_BOOTABLE, disk(Target, UNBLOCK)),
    unless(TRACKING_ARMED, vm(Target, ARM_TRACKING)),
    unless(TARGET_UNFENCED, vm(Target, UNFENCE)),
    unless(TARGET_RUNS, vm(Target, START)),
    go(|_, _| JobPhase::CommitPending),
];

/// The source is proven in the background; an operator looks at the target.
static COMMIT_PENDING: &[Row] = &[
    unless(PROVEN, disk(Source, PROVE)),
    unless(COMMIT_ASKED, WAIT),
    unless(TARGET_ANSWERS, vm(Target, INSPECT)),
    unless(TARGET_RUNS, stop(Problem::TargetStopped)),
    go(|_, _| JobPhase::Committing),
];

/// No way back from here.
static COMMITTING: &[Row] = &[
    unless(SOURCE_OFF, vm(Source, SHUT_DOWN)),
    unless(SOURCE_FENCED, vm(Source, FENCE)),
    unless(SOURCE_RETIRED, vm(Source, RETIRE)),
    go(|_, _| JobPhase::Committed),
];

static COMMITTED: &[Row] = &[
    unless(REVERSE_ASKED, WAIT),
    go(|_, _| JobPhase::ReverseReplicating),
];

/// A pass the other way, onto the retired source's disks.
static REVERSE_REPLICATING: &[Row] = &[
    unless(BASELINE_BLOCKED, disk(Source, BLOCK)),
    unless(BASELINE_CHECKED, disk(Source, CHECK_BASELINE)),
    unless(TRACKING_ARMED, vm(Target, ARM_TRACKING)),
    unless(SNAPSHOT_TAKEN, vm(Target, SNAPSHOT)),
    unless(COPIED, disk(Source, COPY_SNAPSHOT)),
    unless(COPY_VERIFIED, disk(Source, VERIFY)),
    unless(SNAPSHOT_RELEASED, vm(Target, RELEASE)),
    go(|_, _| JobPhase::Protected),
];

static PROTECTED: &[Row] = &[unless(PASS_DUE, WAIT)];

/// Back before the decision: writes are tracked again before anybody can start the source.
static ABORTING: &[Row] = &[
    unless(TRACKING_ARMED, vm(Source, ARM_TRACKING)),
    unless(SOURCE_UNFENCED, vm(Source, UNFENCE)),
    unless(SOURCE_RUNS, vm(Source, START)),
    // What has to be compared whole is compared while the source runs, not in the next cutover.
    go(|spec, state| match state.next_copy {
        Amount::Differing(Reason::VerifyFailed) if spec.mode != JobMode::Full => {
            JobPhase::InitialSync
        }
        _ => JobPhase::ReadyToCutover,
    }),
];

/// Back after the decision: the target cannot run any more when the source is let go.
static ROLLING_BACK: &[Row] = &[
    unless(TARGET_FENCED, vm(Target, FENCE)),
    unless(TARGET_OFF, vm(Target, SHUT_DOWN)),
    unless(SOURCE_DECIDED, decide(Source)),
    unless(BLOCKED_IF_RESTORING, disk(Target, BLOCK)),
    unless(RESTORED_IF_ASKED, disk(Target, RESTORE)),
    unless(TRACKING_ARMED, vm(Source, ARM_TRACKING)),
    unless(SOURCE_UNFENCED, vm(Source, UNFENCE)),
    unless(SOURCE_RUNS, vm(Source, START)),
    unless(BLOCKED_OR_RESTORED, disk(Target, BLOCK)),
    unless(BOOTABLE_IF_RESTORED, disk(Target, UNBLOCK)),
    go(|_, state| JobPhase::RolledBack(disposition(state))),
];

/// Given up while the source runs: the target is what it was, or cannot be booted.
static CANCELLING: &[Row] = &[
    unless(BLOCKED_OR_RESTORED, disk(Target, BLOCK)),
    unless(RESTORED_IF_ASKED, disk(Target, RESTORE)),
    unless(BOOTABLE_IF_RESTORED, disk(Target, UNBLOCK)),
    unless(SNAPSHOT_RELEASED, vm(Source, RELEASE)),
    go(|_, state| JobPhase::Cancelled(disposition(state))),
];

/// The rows of a phase, top to bottom; none where the job is over.
pub(super) fn rows(phase: JobPhase) -> &'static [Row] {
    match phase {
        JobPhase::Planned => PLANNED,
        JobPhase::Prepared => PREPARED,
        JobPhase::InitialSync => INITIAL_SYNC,
        JobPhase::ReadyToCutover => READY_TO_CUTOVER,
        JobPhase::Testing => TESTING,
        JobPhase::Quiescing => QUIESCING,
        JobPhase::FinalSync => FINAL_SYNC,
        JobPhase::Verifying => VERIFYING,
        JobPhase::Activating => ACTIVATING,
        JobPhase::CommitPending => COMMIT_PENDING,
        JobPhase::Committing => COMMITTING,
        JobPhase::Committed => COMMITTED,
        JobPhase::ReverseReplicating => REVERSE_REPLICATING,
        JobPhase::Protected => PROTECTED,
        JobPhase::Aborting => ABORTING,
        JobPhase::RollingBack => ROLLING_BACK,
        JobPhase::Cancelling => CANCELLING,
        JobPhase::Cancelled(_) | JobPhase::RolledBack(_) => &[],
    }
}

/// One line of the table.
pub(super) struct Row {
    /// What must hold for the machine to look further down.
    pub condition: Condition,
    /// What is done about it while it does not.
    pub otherwise: Otherwise,
}

/// What a row does while its condition does not hold.
pub(super) enum Otherwise {
    /// Send a command that brings it about.
    Send(Resource, Ask),
    /// Wait for a request.
    Wait,
    /// Stand still until an operator asks for a retry.
    Stop(Problem),
    /// Write down whose VM is the one that may run.
    Decide(Side),
    /// Begin the next phase.
    Go(fn(&Spec, &State) -> JobPhase),
}

/// A command's action, made from the state; most are the same in every state.
type Ask = fn(&Spec, &State) -> Action;

const INSPECT: Ask = |_, _| Action::Inspect;
const CREATE: Ask = |_, _| Action::Create;
const FENCE: Ask = |_, _| Action::Fence;
const UNFENCE: Ask = |_, _| Action::Unfence;
const START: Ask = |_, _| Action::Start;
const SHUT_DOWN: Ask = |_, _| Action::ShutDown;
const RETIRE: Ask = |spec, _| Action::Retire {
    discard_disks: spec.discard_baseline,
};
const ARM_TRACKING: Ask = |_, state| Action::ArmTracking { keep: state.base() };
const SNAPSHOT: Ask = |_, _| Action::Snapshot;
const RELEASE: Ask = |_, _| Action::Release;
const START_TEST: Ask = |_, _| Action::StartTest;
const STOP_TEST: Ask = |_, _| Action::StopTest;
const CHECK: Ask = |_, _| Action::Check;
const BLOCK: Ask = |_, _| Action::Block;
const UNBLOCK: Ask = |_, _| Action::Unblock;
const COPY_SNAPSHOT: Ask = |_, state| {
    Action::Copy(Copy {
        amount: state.next_copy,
        from_snapshot: true,
    })
};
const COPY_DISK: Ask = |_, state| {
    Action::Copy(Copy {
        amount: state.next_copy,
        from_snapshot: false,
    })
};
const VERIFY: Ask = |_, _| Action::Verify;
const PROVE: Ask = |_, _| Action::Prove;
const CHECK_BASELINE: Ask = |_, state| Action::CheckBaseline {
    expected: state.root,
};
const RESTORE: Ask = |_, state| Action::Restore {
    // Before the decision the target never ran, and the base is a checkpoint of the source.
    since: (state.phase == JobPhase::RollingBack)
        .then(|| state.base())
        .flatten(),
    compare: state.restore_compares,
};

const WAIT: Otherwise = Otherwise::Wait;

const fn unless(condition: Condition, otherwise: Otherwise) -> Row {
    Row {
        condition,
        otherwise,
    }
}

const fn go(phase: fn(&Spec, &State) -> JobPhase) -> Row {
    unless(NOTHING, Otherwise::Go(phase))
}

const fn vm(side: Side, ask: Ask) -> Otherwise {
    Otherwise::Send(Resource::Vm(side), ask)
}

const fn disk(side: Side, ask: Ask) -> Otherwise {
    Otherwise::Send(Resource::Disk(side), ask)
}

const fn stop(problem: Problem) -> Otherwise {
    Otherwise::Stop(problem)
}

const fn decide(side: Side) -> Otherwise {
    Otherwise::Decide(side)
}

fn disposition(state: &State) -> Disposition {
    if state.restored || !state.touched {
        Disposition::Restored
    } else {
        Disposition::BlockedInconsistent
    }
}
