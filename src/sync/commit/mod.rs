//! Bringing differences to the target: by a redo log, in place, by a clone, or by a whole copy.

pub(super) mod apply_delta;
pub(super) mod atomic;
pub(super) mod blank;
pub(super) mod clone;
pub(super) mod full_copy;
pub(super) mod hold;
pub(super) mod in_place;
pub(super) mod leftovers;
pub(super) mod outputs;
pub(super) mod resume;
