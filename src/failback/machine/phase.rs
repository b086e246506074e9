//! The phases of a job.

use serde::{Deserialize, Serialize};

use crate::named::named;

named! {
    /// How far a job is, in the order of a job that succeeds; then those of one that goes back.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    #[non_exhaustive]
    pub enum JobPhase {
        /// Nothing was touched; prerequisites are being checked.
        Planned = "planned",
        /// Prerequisites hold; waits to be started, then blocks and fences the target.
        Prepared = "prepared",
        /// Copies a snapshot while the source runs on.
        InitialSync = "initial-sync",
        /// The source runs, the target is close to it; waits for "complete".
        ReadyToCutover = "ready-to-cutover",
        /// A copy of the target's disks is booted in isolation; the source runs on.
        Testing = "testing",
        /// Shuts the source down and fences it.
        Quiescing = "quiescing",
        /// Copies what is left of the source, which is off and fenced.
        FinalSync = "final-sync",
        /// Reads the final copy back, and then decides that the target is the active side.
        Verifying = "verifying",
        /// Starts the target. From here on there is no automatic way back.
        Activating = "activating",
        /// The target runs; the source is proven, and an operator looks.
        CommitPending = "commit-pending",
        /// Retires the source.
        Committing = "committing",
        /// Done; waits for reverse replication to be asked for.
        Committed = "committed",
        /// Copies what the target wrote to the retired source's disks.
        ReverseReplicating = "reverse-replicating",
        /// The retired source's disks are a replica of the target.
        Protected = "protected",
        /// Goes back before the decision: the source is started again, the job and its data stay.
        Aborting = "aborting",
        /// Goes back after the decision: the target is stopped, the source started again.
        RollingBack = "rolling-back",
        /// Gives the job up before the source was touched.
        Cancelling = "cancelling",
        /// Given up; the source runs.
        Cancelled(Disposition) = "cancelled",
        /// Gone back; the source runs.
        RolledBack(Disposition) = "rolled-back",
    }
}

impl JobPhase {
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

    /// Whether it is on its way to success, and has come as far as `phase`.
    pub(in crate::failback) fn has_reached(self, phase: JobPhase) -> bool {
        (phase..=JobPhase::Protected).contains(&self)
    }

    /// Whether the job is over: it sends no command any more, whatever happens.
    pub fn is_final(self) -> bool {
        matches!(self, JobPhase::Cancelled(_) | JobPhase::RolledBack(_))
    }
}

/// What became of the target's disk when a job went back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Disposition {
    /// It is bit for bit what it was before the job.
    Restored,
    /// It cannot be booted; a later job may take it as its base.
    BlockedInconsistent,
}
