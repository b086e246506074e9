//! Finding what differs.

pub(super) mod differences;
pub(super) mod dry_run;
pub(super) mod estimate;
#[cfg(feature = "failback")]
pub(super) mod kept;
#[cfg(feature = "failback")]
pub(super) mod sampled;
pub(super) mod sectors;
pub(super) mod since;
pub(super) mod target_manifest;
#[cfg(feature = "failback")]
pub(super) mod throughput;
