//! Several VMs at once: groups of jobs, and what holds each job until the others are there.

use serde::{Deserialize, Serialize};

use super::phase::JobPhase;
use super::state::State;

/// What was asked of a plan as a whole, and holds until it is done or taken back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupAsked {
    /// To cut over, once all are ready.
    pub complete: bool,
    /// To commit, once all may.
    pub commit: bool,
}

/// What a job of a plan is notified of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Signal {
    /// [`Request::Complete`](super::Request::Complete)
    Complete,
    /// [`Event::GroupShutsDown`](super::Event::GroupShutsDown)
    ShutDown,
    /// [`Event::GroupActivates`](super::Event::GroupActivates)
    Activate,
    /// [`Request::Commit`](super::Request::Commit)
    Commit,
}

/// Which VM gets which signal now: group, VM, signal.
///
/// - Once all are ready, the prerequisites of all are looked at again.
/// - Once they hold for all, the sources are shut down from the last group to the first, each group
///   when the one after it is off.
/// - Once all are verified, the targets are started from the first group to the last, each group
///   when the one before it runs.
/// - Once all run and are proven, all are committed.
pub fn signals(groups: &[Vec<State>], asked: GroupAsked) -> Vec<(usize, usize, Signal)> {
    let mut told = Vec::new();
    for (group, jobs) in groups.iter().enumerate() {
        for (vm, job) in jobs.iter().enumerate() {
            let before = || groups.iter().take(group).flatten();
            let after = || groups.iter().skip(group + 1).flatten();
            let all = || groups.iter().flatten();
            let signal = match job.phase {
                JobPhase::ReadyToCutover
                    if asked.complete && !job.asked.complete && all().all(is_ready) =>
                {
                    Signal::Complete
                }
                JobPhase::Quiescing
                    if !job.asked.shut_down && all().all(is_checked) && after().all(is_off) =>
                {
                    Signal::ShutDown
                }
                JobPhase::Verifying
                    if !job.asked.activate && all().all(is_verified) && before().all(runs) =>
                {
                    Signal::Activate
                }
                JobPhase::CommitPending
                    if asked.commit && !job.asked.commit && all().all(may_commit) =>
                {
                    Signal::Commit
                }
                _ => continue,
            };
            told.push((group, vm, signal));
        }
    }
    told
}

fn is_ready(job: &State) -> bool {
    job.phase.has_reached(JobPhase::ReadyToCutover) && job.phase != JobPhase::Testing
}

fn is_checked(job: &State) -> bool {
    let waits = job.checked && job.pending.is_none() && job.problem.is_none();
    job.phase == JobPhase::Quiescing && (waits || job.asked.shut_down) || is_off(job)
}

fn is_off(job: &State) -> bool {
    job.phase.has_reached(JobPhase::FinalSync)
}

fn is_verified(job: &State) -> bool {
    let waits = job.phase == JobPhase::Verifying && job.pass.verified && job.pending.is_none();
    waits && job.problem.is_none() || job.phase.has_reached(JobPhase::Activating)
}

fn runs(job: &State) -> bool {
    job.phase.has_reached(JobPhase::CommitPending)
}

fn may_commit(job: &State) -> bool {
    // Where the proof is skipped, nothing is pending either.
    runs(job) && job.pending.is_none() && job.problem.is_none()
}
