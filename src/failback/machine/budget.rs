//! Whether another pass while the source runs is worth it.

use serde::Serialize;

use super::state::{Spec, State};

/// How the passes of a job develop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Convergence {
    /// No pass is complete yet.
    Unknown,
    /// The last pass was short enough: what a cutover would copy now fits the downtime budget.
    Fits,
    /// Too long still, but passes are getting shorter.
    Shrinking,
    /// Too long, and the VM writes about as fast as passes copy: more of them do not help.
    Stalled,
}

impl Convergence {
    /// Judges the passes made so far. A pass copies what was written during the one before, so
    /// the last one's length predicts the downtime of a cutover now.
    pub fn of(spec: &Spec, state: &State) -> Self {
        let [Some(last), before] = state.reports else {
            return Convergence::Unknown;
        };
        if last.elapsed_ms <= spec.downtime_budget_ms {
            return Convergence::Fits;
        }
        match before {
            // Less than a tenth shorter is no progress.
            Some(before) if last.elapsed_ms / 9 >= before.elapsed_ms / 10 => Convergence::Stalled,
            _ => Convergence::Shrinking,
        }
    }
}

/// Whether the initial synchronization goes on after the pass that just ended.
pub(super) fn another_pass(spec: &Spec, state: &State) -> bool {
    let hopeful = matches!(
        Convergence::of(spec, state),
        Convergence::Shrinking | Convergence::Unknown
    );
    hopeful && !state.asked.complete && state.pass_count < spec.max_passes.max(1)
}
