//! The phases of a job.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum JobPhase {
    /// Nothing was touched; prerequisites are being checked.
    Planned,
    /// Prerequisites hold; waits to be started, then blocks and fences the target.
    Prepared,
    /// Copies a snapshot while the source runs on.
    InitialSync,
    /// The source runs, the target is close to it; waits for "complete".
    ReadyToCutover,
    /// A copy of the target's disks is booted in isolation; the source runs on.
    Testing,
    /// Shuts the source down and fences it.
    Quiescing,
    /// Copies what is left of the source, which is off and fenced.
    FinalSync,
    /// Reads the final copy back, and then decides that the target is the active side.
    Verifying,
    /// Starts the target. From here on there is no automatic way back.
    Activating,
    /// The target runs; the source is proven, and an operator looks.
    CommitPending,
    /// Retires the source.
    Committing,
    /// Done; waits for reverse replication to be asked for.
    Committed,
    /// Copies what the target wrote to the retired source's disks.
    ReverseReplicating,
    /// The retired source's disks are a replica of the target.
    Protected,
    /// Goes back before the decision: the source is started again, the job and its data stay.
    Aborting,
    /// Goes back after the decision: the target is stopped, the source started again.
    RollingBack,
    /// Gives the job up before the source was touched.
    Cancelling,
    /// Given up; the source runs.
    Cancelled(Disposition),
    /// Gone back; the source runs.
    RolledBack(Disposition),
}

impl JobPhase {
    /// Its name, without what it may carry.
    pub fn name(self) -> &'static str {
        match self {
            JobPhase::Planned => "planned",
            JobPhase::Prepared => "prepared",
            JobPhase::InitialSync => "initial-sync",
            JobPhase::ReadyToCutover => "ready-to-cutover",
            JobPhase::Testing => "testing",
            JobPhase::Quiescing => "quiescing",
            JobPhase::FinalSync => "final-sync",
            JobPhase::Verifying => "verifying",
            JobPhase::Activating => "activating",
            JobPhase::CommitPending => "commit-pending",
            JobPhase::Committing => "committing",
            JobPhase::Committed => "committed",
            JobPhase::ReverseReplicating => "reverse-replicating",
            JobPhase::Protected => "protected",
            JobPhase::Aborting => "aborting",
            JobPhase::RollingBack => "rolling-back",
            JobPhase::Cancelling => "cancelling",
            JobPhase::Cancelled(_) => "cancelled",
            JobPhase::RolledBack(_) => "rolled-back",
        }
    }

    /// Whether neither side runs meanwhile, and people wait.
    pub(in crate::failback) fn is_downtime(self) -> bool {
        matches!(
            self,
            JobPhase::Quiescing
                | JobPhase::FinalSync
                | JobPhase::Verifying
                | JobPhase::Activating
                | JobPhase::RollingBack
        )
    }

    /// Whether the job is over: it sends no command any more, whatever happens.
    pub fn is_final(self) -> bool {
        matches!(self, JobPhase::Cancelled(_) | JobPhase::RolledBack(_))
    }
}

impl fmt::Display for JobPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What became of the target's disk when a job went back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Disposition {
    /// It is bit for bit what it was before the job.
    Restored,
    /// It cannot be booted; a later job may take it as its base.
    BlockedInconsistent,
}
