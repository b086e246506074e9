//! The incomplete marker on a target.

pub(super) mod format;
pub(super) mod in_data;
pub(super) mod overlay;
pub(super) mod redo;
pub(super) mod room;
pub(super) mod set_lift;
