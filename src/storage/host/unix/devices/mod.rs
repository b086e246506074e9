//! Block devices, and what the kernel says of them.

pub(in crate::storage) mod device;
pub(in crate::storage) mod identity;
pub(in crate::storage) mod in_use;
pub(in crate::storage) mod kernel;
pub(in crate::storage) mod nodes;
pub(in crate::storage) mod partitions;
