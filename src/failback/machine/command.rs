//! What the machine asks of the two sites, and what they answer.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::hash::Hash;
use crate::named::named;
pub use crate::vm::{Checkpoint, Token, VmSeen};

named! {
    /// One of the two ends of a job: the VM runs at `Source` and is to run at `Target`.
    ///
    /// Which site that is follows from the job's direction; the machine does not care.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub enum Side {
        /// Where the VM runs before the job.
        Source = "source",
        /// Where it is to run after the job.
        Target = "target",
    }
}

impl Side {
    /// The other one.
    pub fn other(self) -> Side {
        match self {
            Side::Source => Side::Target,
            Side::Target => Side::Source,
        }
    }
}

/// One value for each side.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Sides<T> {
    /// The source's.
    pub source: T,
    /// The target's.
    pub target: T,
}

impl<T> Sides<T> {
    /// What `make` makes of each side.
    pub fn of_each(mut make: impl FnMut(Side) -> T) -> Self {
        Sides {
            source: make(Side::Source),
            target: make(Side::Target),
        }
    }

    /// The value of one side.
    pub fn of(&self, side: Side) -> &T {
        match side {
            Side::Source => &self.source,
            Side::Target => &self.target,
        }
    }

    /// The value of one side, to change it.
    pub fn of_mut(&mut self, side: Side) -> &mut T {
        match side {
            Side::Source => &mut self.source,
            Side::Target => &mut self.target,
        }
    }
}

/// What a command is sent to; each keeps its own newest token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// The VM of one side, through its controller.
    Vm(Side),
    /// The disks of one side's VM, through the sync layer.
    Disk(Side),
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Resource::Vm(side) => write!(f, "{side} VM"),
            Resource::Disk(side) => write!(f, "{side} disk"),
        }
    }
}

/// A command: persisted before it is sent, sent again with the same token until answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Command {
    /// Its number.
    pub token: Token,
    /// To whom.
    pub resource: Resource,
    /// What to do.
    pub action: Action,
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.resource, self.action)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Action::Inspect => "look",
            Action::Create => "create",
            Action::Fence => "fence",
            Action::Unfence => "unfence",
            Action::Start => "start",
            Action::ShutDown => "shut down",
            Action::Retire { .. } => "retire",
            Action::ArmTracking { .. } => "track writes",
            Action::Snapshot => "take a snapshot",
            Action::Release => "let the snapshot go",
            Action::StartTest => "start a test in isolation",
            Action::StopTest => "end the test",
            Action::Check => "check the prerequisites",
            Action::Block => "make unbootable",
            Action::Unblock => "make bootable",
            Action::Copy(copy) => return write!(f, "copy {}", copy.amount),
            Action::Verify => "read back what was copied",
            Action::Prove => "read whole, to prove it equal",
            Action::CheckBaseline { .. } => "check the baseline",
            Action::Restore { compare: false, .. } => "restore",
            Action::Restore { compare: true, .. } => "restore, by comparing all of it",
        };
        f.write_str(text)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Amount::Everything => "everything",
            Amount::ChangedSince(_) => "what was written since the last pass",
            Amount::Differing(Reason::FirstPass) => "what differs",
            Amount::Differing(Reason::TrackingLost) => "what differs; tracking was lost",
            Amount::Differing(Reason::VerifyFailed) => "what differs; verification failed",
            Amount::Differing(Reason::BaselineDiffers) => "what differs; the baseline changed",
        })
    }
}

/// What a resource is asked to do. All are idempotent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Action {
    /// VM: look.
    Inspect,
    /// VM: make it if it is not there, switched off.
    Create,
    /// VM: from now on it cannot be started. Does not stop a running one.
    Fence,
    /// VM: it may be started again.
    Unfence,
    /// VM: start it.
    Start,
    /// VM: shut it down in order.
    ShutDown,
    /// VM: take it out of service for good; its disks stay unless `discard_disks`.
    Retire {
        /// Give the disks up too.
        discard_disks: bool,
    },
    /// VM: track writes from now on, under this command's token. `keep` must stay answerable and
    /// counts on; older checkpoints may go.
    ArmTracking {
        /// The checkpoint that is still needed.
        keep: Option<Checkpoint>,
    },
    /// VM: hold one moment of all its disks for reading.
    Snapshot,
    /// VM: let the snapshot go.
    Release,
    /// VM: boot a copy of its blocked disks, apart from all networks of the plan. The VM itself
    /// stays off and fenced, and its disks as they are.
    StartTest,
    /// VM: end what [`StartTest`](Action::StartTest) has begun, and remove all that it has made.
    StopTest,
    /// Disk: do identity, size, space and key fit? Changes nothing.
    Check,
    /// Disk: end what is under way, make the disk if it is missing, mark it inconsistent and make
    /// it unbootable.
    Block,
    /// Disk: lift the marker and make it bootable.
    Unblock,
    /// Disk: make it hold what the other side holds.
    Copy(Copy),
    /// Disk: read the last copy back, and give the disk's root and the one it should have.
    Verify,
    /// Disk: read everything, and give the root.
    Prove,
    /// Disk: does it still hold what had this root when its VM was switched off?
    CheckBaseline {
        /// The root to expect; nothing equals `None`.
        expected: Option<Hash>,
    },
    /// Disk: make it bit for bit what it was before the job. Where its VM ran since, `since` is
    /// when.
    Restore {
        /// From when on the disk's own VM may have written.
        since: Option<Checkpoint>,
        /// What it wrote is not tracked: the disk is compared with the other side's, whole.
        #[serde(default)]
        compare: bool,
    },
}

/// One pass of copying.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Copy {
    /// Which bytes.
    pub amount: Amount,
    /// From the VM's snapshot, or (false) from the disks of a VM that is switched off.
    pub from_snapshot: bool,
}

/// Which bytes a pass copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Amount {
    /// All of them; the target is not read.
    Everything,
    /// Those that differ, found by comparing checksums, and why that is needed.
    Differing(Reason),
    /// Those that the VM wrote since.
    ChangedSince(Checkpoint),
}

/// Why both sides are compared whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reason {
    /// Nothing was copied yet.
    FirstPass,
    /// The VM's changes were not tracked all the time.
    TrackingLost,
    /// What was copied did not read back right, or did not equal the source.
    VerifyFailed,
    /// The disk no longer holds what it held when its VM was switched off.
    BaselineDiffers,
}

/// What one copy moved, and how long it took.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct PassReport {
    /// Bytes that differed.
    pub changed_bytes: u64,
    /// From the first read to the target being durable.
    pub elapsed_ms: u64,
}

/// What came back. A late answer to another than the latest command is ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Answer {
    /// VM: done; this is what it is now.
    Vm(VmSeen),
    /// Disk: done and durable (check, block, unblock, restore).
    Done,
    /// Disk: the copy is complete and durable.
    Copied(PassReport),
    /// Disk: the changes asked for were not tracked all the time.
    TrackingLost,
    /// Disk: the snapshot is gone; nothing of it can be read any more.
    SnapshotLost,
    /// Disk: all that was copied reads back right, and the two roots are these.
    Verified {
        /// What the disk holds.
        found: Hash,
        /// What it was copied from, as tracked pass by pass.
        expected: Hash,
    },
    /// Disk: something that was copied does not read back right.
    Damaged,
    /// Disk: the root of all that it holds.
    Proven(Hash),
    /// Disk: whether the baseline is what it was.
    Baseline(bool),
    /// It did not work.
    Failed(Problem),
}

named! {
    /// Why a job stands still until an operator asks for a retry.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    #[non_exhaustive]
    pub enum Problem {
        /// No answer, or the operation failed; worth trying again.
        Unavailable = "the last command failed; it is tried again",
        /// Said to be done, but not seen to be so.
        NoEffect = "the last command had no effect; it is tried again",
        /// The answer makes no sense.
        Nonsense = "the answer makes no sense",
        /// Identity, size, space, key or the earlier failover do not fit.
        Unfit = "the prerequisites do not hold",
        /// The target VM runs, and this job did not start it.
        TargetRuns = "the target VM runs, and this job did not start it",
        /// The target VM is not there, and the job may not create it.
        TargetMissing = "the target VM is not there, and may not be created",
        /// The target VM does not run, so that nothing can be committed.
        TargetStopped = "the target VM does not run",
        /// The source's disks do not equal what the target was started with.
        ProofFailed = "the source does not equal what the target was started with",
        /// Another program, or a newer executor, holds it.
        InUse = "another process holds it",
        /// A disk begins with a marker of an unfinished sync that its guest wrote; a copy of it
        /// would count as incomplete.
        GuestMarker = "a guest wrote a marker to the first page of its disk; it is tried again",
        /// A disk carries a marker: of an unfinished sync that this job cannot finish, or one that
        /// its guest wrote.
        Marked =
            "a disk carries the marker of an unfinished sync, or its guest wrote one; it is \
             tried again",
    }
}

impl Problem {
    /// Whether what was read is the reason, so that reading the same again does not help.
    pub(super) fn is_of_the_data(self) -> bool {
        matches!(self, Problem::GuestMarker | Problem::Marked)
    }

    /// Whether an executor may try again by itself after a while.
    pub fn is_transient(self) -> bool {
        matches!(
            self,
            Problem::Unavailable | Problem::NoEffect | Problem::GuestMarker | Problem::Marked
        )
    }
}
