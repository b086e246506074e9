//! Flat byte stores, and the directories they lie in. Knows nothing of formats.

/// An open file of the system.
#[cfg(unix)]
pub(crate) use std::os::fd::BorrowedFd as HostHandle;
#[cfg(windows)]
pub(crate) use std::os::windows::io::BorrowedHandle as HostHandle;

mod absent;
mod aligned;
#[cfg(feature = "http")]
mod azure;
mod bounds;
mod contract;
mod dense;
mod directory;
#[cfg(feature = "testing")]
pub mod fault;
mod host;
#[cfg(feature = "http")]
mod http;
mod memory;
mod mmap;
mod privacy;
mod read_only;
mod side_files;
mod source_identity;
#[cfg(feature = "http")]
mod web;

pub(crate) use absent::AbsentDirectory;
pub use aligned::AlignedBuf;
#[cfg(feature = "http")]
pub use azure::{BlobChanges, BlobTarget, PageBlob, changes_since};
pub(crate) use bounds::{next_data, outside, past_end, poisoned, range_end};
pub use contract::Storage;
pub(crate) use dense::Dense;
pub use directory::{Access, Directory};
#[cfg(feature = "failback")]
pub(crate) use host::access::flock;
pub use host::access::links::{resolve, resolve_to_write};
#[cfg(feature = "failback")]
pub(crate) use host::access::lock_file::LockFile;
#[cfg(any(feature = "tls", feature = "encryption"))]
pub(crate) use host::access::private_file::read_private;
pub use host::allocation::Allocation;
#[cfg(unix)]
pub use host::devices::device::DeviceStorage;
pub use host::devices::identity::{DeviceIdentity, devices_named, identity};
pub use host::devices::in_use::{refuse_in_use, refuse_overlap};
pub(crate) use host::devices::partitions::partition_note;
pub use host::directory::HostDirectory;
#[cfg(windows)]
pub(crate) use host::directory::hold_directory;
pub use host::file::FileStorage;
pub use host::file_id::{FileId, HostKind};
pub use host::host_file::HostFile;
#[cfg(windows)]
pub(crate) use host::names::refuse_odd_name;
pub use host::open::{open_source, open_target};
pub use host::options::{Opened, SourceOptions, TargetOptions};
pub use host::stamp::SourceStamp;
#[cfg(feature = "imago")]
pub(crate) use host::unchanged::reopened;
#[cfg(feature = "failback")]
pub(crate) use host::watch::Watch;
#[cfg(all(feature = "http", feature = "testing"))]
pub use http::headers::{ContentRange, retry_after};
#[cfg(feature = "http")]
pub use http::{HttpOptions, HttpStorage};
pub use memory::{MemoryDirectory, MemoryStorage};
pub use mmap::Mmap;
pub use privacy::Privacy;
pub use side_files::file_ref::FileRef;
pub(crate) use side_files::scratch::scratch;
pub(crate) use side_files::side_name::{is_side_directory, is_side_name};
#[cfg(feature = "failback")]
pub(crate) use side_files::small_file;
pub use source_identity::SourceIdentity;
#[cfg(feature = "http")]
pub use web::WebStorage;
