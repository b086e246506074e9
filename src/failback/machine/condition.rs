//! The conditions of the transition table. Each looks at what was acknowledged.

use super::command::{Side, VmSeen};
use super::state::{ProofPolicy, Spec, State};

/// Something that holds or not.
pub(super) struct Condition {
    /// In words, for people.
    pub name: &'static str,
    pub holds: fn(&Spec, &State) -> bool,
}

impl Condition {
    /// Whether it stands at the end of a phase, where the next one begins.
    pub(super) fn is_never(&self) -> bool {
        self.name == NOTHING.name
    }
}

/// Declares conditions: each with its name for people, and when it holds.
macro_rules! conditions {
    ($($id:ident $name:literal: $holds:expr;)*) => {
        $(pub(super) const $id: Condition = Condition { name: $name, holds: $holds };)*
    };
}

// The VMs.
conditions! {
    SOURCE_ANSWERS "the source VM answers": |_, s| source(s, |_| true);
    SOURCE_OFF "the source VM is off": |_, s| source(s, |vm| !vm.running);
    SOURCE_RUNS "the source VM runs": |_, s| source(s, |vm| vm.running);
    SOURCE_FENCED "the source VM is fenced": |_, s| source(s, fenced);
    SOURCE_UNFENCED "the source VM is unfenced": |_, s| source(s, |vm| !vm.fenced);
    SOURCE_RETIRED "the source VM is retired": |_, s| source(s, |vm| !vm.exists);
    TARGET_ANSWERS "the target VM answers": |_, s| target(s, |_| true);
    TARGET_EXISTS "the target VM exists": |_, s| target(s, |vm| vm.exists);
    TARGET_OFF "the target VM is off": |_, s| target(s, |vm| !vm.running);
    TARGET_RUNS "the target VM runs": |_, s| target(s, |vm| vm.running);
    TARGET_FENCED "the target VM is fenced": |_, s| target(s, fenced);
    TARGET_UNFENCED "the target VM is unfenced": |_, s| target(s, |vm| !vm.fenced);
    TARGET_MAY_EXIST "the target VM exists or may be created":
        |spec, s| spec.create || target(s, |vm| vm.exists);
}

// The disks.
conditions! {
    PREREQUISITES_HOLD "the prerequisites hold": |_, s| s.checked;
    TARGET_BLOCKED "the target disk is boot-blocked": |_, s| blocked(s);
    TARGET_BOOTABLE "the target disk is bootable": |_, s| bootable(s);
    BLOCKED_IF_RESTORING "a disk to restore is boot-blocked":
        |_, s| !s.asked.restore || s.restored || blocked(s);
    RESTORED_IF_ASKED "the target disk is restored, if asked":
        |_, s| !s.asked.restore || s.restored || !s.touched;
    BLOCKED_OR_RESTORED "the target disk is boot-blocked or restored":
        |_, s| blocked(s) || s.restored || !s.touched;
    BOOTABLE_IF_RESTORED "a restored target disk is bootable": |_, s| !s.restored || bootable(s);
    BASELINE_BLOCKED "the baseline disk is boot-blocked": |_, s| s.blocked.source == Some(true);
    BASELINE_CHECKED "the baseline is checked or discarded":
        |spec, s| s.baseline_checked || spec.discard_baseline;
}

// The pass under way, and the proofs.
conditions! {
    TRACKING_ARMED "change tracking is armed": |_, s| s.pass.checkpoint.is_some();
    SNAPSHOT_TAKEN "a snapshot is taken": |_, s| s.pass.snapshot || s.pass.copied;
    COPIED "the copy is complete": |_, s| s.pass.copied;
    SNAPSHOT_RELEASED "the snapshot is released": |_, s| !s.pass.snapshot;
    COPY_VERIFIED "the copy is verified": |_, s| s.pass.verified;
    PROVEN "the source is proven equal": |spec, s| s.proven || spec.proof == ProofPolicy::Skip;
    PROVEN_IF_ASKED_BEFORE "the source is proven equal, if asked before":
        |spec, s| s.proven || spec.proof != ProofPolicy::BeforeActivation;
}

// The decision, and what people ask.
conditions! {
    SOURCE_DECIDED "the source is decided active": |_, s| s.active == Side::Source;
    TARGET_DECIDED "the target is decided active": |_, s| s.active == Side::Target;
    START_ASKED "start is asked": |_, s| s.asked.start;
    TEST_RUNS "the test runs, if it is asked": |_, s| !s.asked.test || s.test_runs == Some(true);
    TEST_END_ASKED "the end of the test is asked": |_, s| !s.asked.test;
    TEST_GONE "the test is ended": |_, s| s.test_runs == Some(false);
    COMPLETE_ASKED "complete is asked": |_, s| s.asked.complete;
    GROUP_SHUTS_DOWN "the group shuts down": |spec, s| !spec.grouped || s.asked.shut_down;
    GROUP_ACTIVATES "the group activates": |spec, s| !spec.grouped || s.asked.activate;
    COMMIT_ASKED "commit is asked": |_, s| s.asked.commit;
    REVERSE_ASKED "reverse replication is asked": |_, s| s.asked.reverse;
    PASS_DUE "a pass is due": |_, _| false;
    NOTHING "nothing more is needed": |_, _| false;
}

fn source(state: &State, is: fn(VmSeen) -> bool) -> bool {
    state.vms.source.is_some_and(is)
}

fn target(state: &State, is: fn(VmSeen) -> bool) -> bool {
    state.vms.target.is_some_and(is)
}

/// What is not there cannot be started.
fn fenced(vm: VmSeen) -> bool {
    vm.fenced || !vm.exists
}

fn blocked(state: &State) -> bool {
    state.blocked.target == Some(true)
}

fn bootable(state: &State) -> bool {
    state.blocked.target == Some(false)
}
