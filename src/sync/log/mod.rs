//! The logs of a sync: written, kept, and applied to their target.

pub(super) mod apply;
pub(super) mod kept_log;
pub(super) mod previous;
pub(super) mod redo_log;
pub(super) mod sidecar;
