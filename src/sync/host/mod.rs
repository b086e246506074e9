//! What paths of this host open: sources, targets, and what syncs have left there.

#[cfg(feature = "http")]
pub(super) mod blob_target;
pub(super) mod cache;
pub(super) mod pending;
pub(super) mod side;
pub(super) mod source;
pub(super) mod target;
#[cfg(feature = "http")]
pub(super) mod web_source;
