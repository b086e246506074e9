//! What an interrupted sync has left, and how it is finished.

pub(super) mod cut;
pub(super) mod forget;
pub(super) mod found_log;
pub(super) mod guarded;
pub(super) mod recover;
pub(super) mod state;
