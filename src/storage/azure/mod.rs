//! Page blobs of the Azure blob service: exported disks, snapshots, blobs of storage accounts.

mod blob_target;
mod changes;
mod lease;
mod lists;
mod page_blob;
mod ranges;
mod version;
mod writer;

pub use blob_target::BlobTarget;
pub use changes::{BlobChanges, changes_since};
pub use page_blob::PageBlob;
