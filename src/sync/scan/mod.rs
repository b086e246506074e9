//! Finding what differs.

pub(super) mod cache;
pub(super) mod dry_run;
pub(super) mod estimate;
pub(super) mod find;
pub(super) mod sectors;
pub(super) mod target_manifest;
