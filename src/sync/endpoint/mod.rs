//! What a sync reads from and writes to: paths, devices, remote disks, and own images.

pub(super) mod named;
pub(super) mod precheck;
pub(super) mod source;
pub(super) mod target;
