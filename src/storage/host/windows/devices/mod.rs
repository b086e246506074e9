//! Disks, none of which can be named on Windows.

pub(in crate::storage) mod identity;
pub(in crate::storage) mod in_use;
pub(in crate::storage) mod partitions;
