//! What an interrupted sync has left, and how it is finished.

pub(super) mod cut;
pub(super) mod forget;
pub(super) mod guarded;
pub(super) mod kept_log;
pub(super) mod log;
pub(super) mod pending;
pub(super) mod recover;
pub(super) mod redo;
pub(super) mod state;
