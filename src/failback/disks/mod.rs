//! The disks of a VM, moved by the sync layer. [`HostDisks`] writes files of this host, and reads
//! what lies elsewhere; for a side on another host [`VmDisks`] has a disk agent there do the same.
//!
//! While a disk is not what its VM may boot from, it stands under another name
//! (`NAME.failback-JOB.partial`, the extension kept). While bytes are being written it carries the
//! sync layer's marker as well. A block device has no name to take away: it is held, and carries
//! the marker all that time. All of this outlives every process.
//!
//! Executors of one job are kept apart by its lock: what one has begun ends with its
//! process, so an older token can only come from this process. At another host the disk agent sees
//! to that.

mod agent;
mod disk_path;
mod disk_state;
mod encrypted_disk;
mod estimate;
mod findings;
mod forecast;
mod host_disks;
mod measure;
pub(in crate::failback) mod one_file;
mod pass;
mod prerequisites;
mod restore;
mod sampling;
mod sides;
mod source_disk;
mod work;

pub use agent::DiskAgent;
pub(in crate::failback) use disk_path::blocked_address;
pub use estimate::{Estimate, Recommendation};
pub use findings::Prerequisite;
pub(in crate::failback) use findings::crowded;
pub use forecast::Forecast;
pub use host_disks::HostDisks;
pub use sides::VmDisks;
