//! Page blobs of the Azure blob service: exported disks, snapshots, blobs of storage accounts.

mod changes;
mod lists;
mod page_blob;
mod ranges;

pub use changes::{BlobChanges, changes_since};
pub use page_blob::PageBlob;
