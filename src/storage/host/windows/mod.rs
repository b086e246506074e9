//! Windows: files and directories of NTFS and ReFS.

pub(in crate::storage) mod access;
mod calls;
pub(in crate::storage) mod devices;
mod direct;
pub(in crate::storage) mod directory;
mod directory_files;
pub(in crate::storage) mod file;
pub(in crate::storage) mod host_file;
pub(in crate::storage) mod names;
pub(in crate::storage) mod open;
mod open_file;
mod security;
mod sparse;
mod stamp;

pub(in crate::storage) use stamp::boot_id;
