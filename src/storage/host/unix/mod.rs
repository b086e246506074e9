//! The systems of the Unix family, Linux before all.

pub(in crate::storage) mod access;
pub(in crate::storage) mod cache;
pub(in crate::storage) mod devices;
pub(in crate::storage) mod direct;
pub(in crate::storage) mod directory;
mod directory_files;
pub(in crate::storage) mod file;
pub(in crate::storage) mod handle;
pub(in crate::storage) mod host_file;
mod known_files;
pub(in crate::storage) mod length;
pub(in crate::storage) mod open;
mod stamp;
#[cfg(feature = "failback")]
pub(in crate::storage) mod watch;

pub(in crate::storage) use stamp::boot_id;
