//! What a sync reads from and writes to: paths, devices, remote disks, and own images.

pub(super) mod named;
pub(super) mod path_side;
pub(super) mod path_source;
pub(super) mod path_target;
pub(super) mod source;
pub(super) mod target;
