//! What became of a target.

/// What became of the target of work that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum TargetState {
    /// Nothing of it was changed.
    Untouched,
    /// It is complete: entirely as it was, or entirely as it should become.
    Complete,
    /// It is incomplete, and marked so; [`recover`](crate::recover) finishes it.
    Recover,
    /// It is incomplete, and marked so; the same sync, run again, finishes it.
    RunAgain,
    /// It is complete or waits for more, and stays marked until it is released.
    Held,
}
