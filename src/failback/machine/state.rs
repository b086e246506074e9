//! What is fixed about a job, and what changes.

use serde::{Deserialize, Serialize};

use super::command::{
    Action, Amount, Checkpoint, Command, PassReport, Problem, Reason, Resource, Side, Sides, Token,
    VmSeen,
};
use super::phase::JobPhase;
use crate::hash::Hash;
use crate::setters::setters;

/// What an operator chose for a job; it does not change while the job lasts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Spec {
    /// What is copied when.
    pub mode: JobMode,
    /// When the source is proven to equal the target.
    pub proof: ProofPolicy,
    /// What happens without a commit.
    pub commit: CommitPolicy,
    /// The target VM is made if it is not there.
    pub create: bool,
    /// An undo file is kept from the first pass on, so that the target can be restored.
    pub keep_undo: bool,
    /// The source's disks are given up at commit instead of staying as the baseline.
    pub discard_baseline: bool,
    /// The job is one of a group and is activated only when the group says so.
    pub grouped: bool,
    /// At most so many passes in a row while the source runs; 0 counts as 1.
    pub max_passes: u32,
    /// Passes are repeated until one takes at most so long.
    pub downtime_budget_ms: u64,
    /// The target holds the source as of this checkpoint: a replica, or an earlier job's pass.
    pub base: Option<Checkpoint>,
    /// Nothing can be booted from the target's disks while they are blocked.
    #[serde(default)]
    pub untestable: bool,
    /// Speed limits hold also while neither side runs.
    #[serde(default)]
    pub limit_cutover: bool,
    /// The source's disks can only be read: nothing is replicated back onto them.
    #[serde(default)]
    pub one_way: bool,
    /// A disk of the source is a block device, and the job writes nothing in place: nothing is
    /// replicated back onto it.
    #[serde(default)]
    pub atomic_only: bool,
}

impl Spec {
    /// A job in `mode`, all else as it is by default: proof after activation, commit by hand,
    /// at most 8 passes, a downtime budget of 5 minutes.
    pub fn new(mode: JobMode) -> Self {
        Spec {
            mode,
            proof: ProofPolicy::AfterActivation,
            commit: CommitPolicy::Manual,
            create: false,
            keep_undo: false,
            discard_baseline: false,
            grouped: false,
            max_passes: 8,
            downtime_budget_ms: 300_000,
            base: None,
            untestable: false,
            limit_cutover: false,
            one_way: false,
            atomic_only: false,
        }
    }
}

setters! {
    Spec:
    /// Replaces [`Spec::proof`].
    with_proof, proof: ProofPolicy;
    /// Replaces [`Spec::commit`].
    with_commit, commit: CommitPolicy;
    /// Replaces [`Spec::create`].
    with_create, create: bool;
    /// Replaces [`Spec::keep_undo`].
    with_keep_undo, keep_undo: bool;
    /// Replaces [`Spec::discard_baseline`].
    with_discard_baseline, discard_baseline: bool;
    /// Replaces [`Spec::grouped`].
    with_grouped, grouped: bool;
    /// Replaces [`Spec::max_passes`].
    with_max_passes, max_passes: u32;
    /// Replaces [`Spec::downtime_budget_ms`].
    with_downtime_budget_ms, downtime_budget_ms: u64;
    /// Replaces [`Spec::base`].
    with_base, base: Option<Checkpoint>;
    /// Replaces [`Spec::untestable`].
    with_untestable, untestable: bool;
    /// Replaces [`Spec::limit_cutover`].
    with_limit_cutover, limit_cutover: bool;
    /// Replaces [`Spec::one_way`].
    with_one_way, one_way: bool;
    /// Replaces [`Spec::atomic_only`].
    with_atomic_only, atomic_only: bool;
}

/// What is copied when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum JobMode {
    /// What differs, while the source runs; the rest when it is off. Least downtime.
    Delta,
    /// Everything, when the source is off.
    Full,
    /// Everything, while the source runs; what changed since when it is off.
    FullFirst,
}

/// When the whole source is read again and held against what the target was started with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ProofPolicy {
    /// In the background while the target runs; commit waits for it.
    AfterActivation,
    /// Before the target is started, at the price of downtime.
    BeforeActivation,
    /// Never. The journal names this choice.
    Skip,
}

/// What happens without a commit in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum CommitPolicy {
    /// Nothing.
    Manual,
    /// The job commits by itself, once the proof is there.
    Auto,
    /// The job goes back by itself; what the target wrote is lost.
    Undo,
}

/// Where a job stands: all that an executor needs to go on, and all that it must not forget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct State {
    /// How far it is.
    pub phase: JobPhase,
    /// The decision: whose VM is the one that may run.
    pub active: Side,
    /// The newest token given out.
    pub last: Token,
    /// The command that is not answered yet. There is never more than one.
    pub pending: Option<Command>,
    /// Why it stands still.
    pub problem: Option<Problem>,
    /// What is known of the VMs: seen after the latest command to each was answered.
    pub vms: Sides<Option<VmSeen>>,
    /// What is known of the disks' boot blocks, in the same way.
    pub blocked: Sides<Option<bool>>,
    /// Whether a test VM runs at the target; unknown before its start or end was answered.
    #[serde(default)]
    pub test_runs: Option<bool>,
    /// What was asked for and not done yet.
    pub asked: Asked,
    /// What the pass under way has reached.
    pub pass: Pass,
    /// Which bytes the next copy has to move.
    pub next_copy: Amount,
    /// How many passes were made while the source ran, since the job began or "complete" failed.
    pub pass_count: u32,
    /// The last pass, and the one before.
    pub reports: [Option<PassReport>; 2],
    /// The prerequisites hold.
    pub checked: bool,
    /// The target's disk was told to change: blocked at least.
    pub touched: bool,
    /// The target's disk was told to take other bytes.
    pub written: bool,
    /// The target's disk is what it was before the job.
    pub restored: bool,
    /// What its own VM wrote is not known: a restore compares.
    #[serde(default)]
    pub restore_compares: bool,
    /// The root of the target as verified: what it is started with.
    pub root: Option<Hash>,
    /// The source's disks, read whole, have that root.
    pub proven: bool,
    /// The baseline was held against that root.
    pub baseline_checked: bool,
}

/// What was asked for and not done yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Asked {
    /// To begin.
    pub start: bool,
    /// To cut over.
    pub complete: bool,
    /// To boot a copy of the target's disks, until the test is ended.
    pub test: bool,
    /// To shut the source down: said by the group.
    pub shut_down: bool,
    /// To activate: said by the group.
    pub activate: bool,
    /// To retire the source.
    pub commit: bool,
    /// To replicate the other way.
    pub reverse: bool,
    /// To restore the target's disk when going back.
    pub restore: bool,
}

/// What a pass has reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Pass {
    /// Writes are tracked from here on.
    pub checkpoint: Option<Checkpoint>,
    /// A snapshot is held.
    pub snapshot: bool,
    /// The passive disk holds what the active one held.
    pub copied: bool,
    /// That was read back.
    pub verified: bool,
}

impl State {
    /// The beginning of a job.
    pub fn new(spec: &Spec) -> Self {
        State {
            phase: JobPhase::Planned,
            active: Side::Source,
            last: Token::default(),
            pending: None,
            problem: None,
            vms: Sides::default(),
            blocked: Sides::default(),
            test_runs: None,
            asked: Asked::default(),
            pass: Pass::default(),
            next_copy: match (spec.base, spec.mode) {
                (Some(base), _) => Amount::ChangedSince(base),
                (None, JobMode::Delta) => Amount::Differing(Reason::FirstPass),
                (None, JobMode::Full | JobMode::FullFirst) => Amount::Everything,
            },
            pass_count: 0,
            reports: [None; 2],
            checked: false,
            touched: false,
            written: false,
            restored: false,
            restore_compares: false,
            root: None,
            proven: false,
            baseline_checked: false,
        }
    }

    /// The checkpoint that the next copy starts from, if it does.
    pub fn base(&self) -> Option<Checkpoint> {
        match self.next_copy {
            Amount::ChangedSince(base) => Some(base),
            Amount::Everything | Amount::Differing(_) => None,
        }
    }

    /// Gives a command its token. What it may change is unknown until it is answered: something
    /// that looks fenced while an unfence is on its way is not fenced.
    pub(super) fn issue(&mut self, resource: Resource, action: Action, forget: bool) -> Command {
        self.last.sequence += 1;
        let command = Command {
            token: self.last,
            resource,
            action,
        };
        self.pending = Some(command);
        match (resource, action) {
            (Resource::Vm(side), _) if forget => *self.vms.of_mut(side) = None,
            (Resource::Disk(side), Action::Block | Action::Unblock | Action::Restore { .. })
                if forget =>
            {
                *self.blocked.of_mut(side) = None;
            }
            _ => {}
        }
        self.touched |= action == Action::Block;
        self.written |= matches!(action, Action::Copy(_));
        command
    }

    /// Where a copy is complete up to a checkpoint, the next one starts from there.
    pub(super) fn finish(&mut self) {
        if let (true, Some(checkpoint)) = (self.pass.copied, self.pass.checkpoint) {
            self.next_copy = Amount::ChangedSince(checkpoint);
        }
    }

    /// What the executors before this one knew is hearsay; what was acknowledged to them stands.
    pub(super) fn take_over(&mut self, epoch: u64) {
        self.last = Token { epoch, sequence: 0 };
        self.pending = None;
        self.problem = None;
        self.vms = Sides::default();
    }

    /// Begins a phase: what belongs to an earlier one is put away.
    pub(super) fn enter(&mut self, phase: JobPhase) {
        self.phase = phase;
        self.pending = None;
        self.problem = None;
        match phase {
            JobPhase::InitialSync | JobPhase::ReverseReplicating | JobPhase::FinalSync => {
                self.pass = Pass::default();
            }
            JobPhase::Testing => self.test_runs = None,
            JobPhase::Quiescing => {
                self.pass = Pass::default();
                // The target must answer now, before the source is shut down, and what held when
                // the job began must hold still.
                self.vms.target = None;
                self.checked = false;
                self.asked.shut_down = false;
            }
            // The source's disk is now the passive one, and equal to the target's.
            JobPhase::Activating => {
                self.next_copy = Amount::Everything;
                self.pass = Pass {
                    copied: true,
                    ..Pass::default()
                };
            }
            JobPhase::Aborting => {
                self.asked.complete = false;
                self.asked.activate = false;
                self.pass_count = 0;
                self.pass = Pass {
                    copied: self.pass.copied,
                    ..Pass::default()
                };
                self.root = None;
                self.proven = false;
            }
            // A block sent anew ends whatever still writes to the target's disk.
            JobPhase::Cancelling => self.blocked.target = None,
            JobPhase::RollingBack => {
                self.blocked.target = None;
                self.pass = Pass::default();
            }
            _ => {}
        }
    }
}
