//! What an embedder meets first: a disk, what it is compared with, and what is made of it.

mod base;
mod compare;
mod delta;
mod disk;
mod disk_options;
mod finish;
mod manifest;
mod source;
mod sync;
mod sync_target;
mod target;

pub use base::Base;
pub use delta::DeltaInfo;
pub use disk::Disk;
pub use disk_options::DiskOptions;
pub use finish::{discard, recover, undo};
pub use manifest::Block;
#[cfg(feature = "failback")]
pub(crate) use source::changes_between;
pub use source::{open_manifest, open_source};
pub use sync::Sync;
pub use sync_target::SyncTarget;
pub use target::OpenTarget;
#[cfg(feature = "cli")]
pub(crate) use target::open_host_target;
