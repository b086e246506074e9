//! The operating system's files, directories and block devices.

pub(super) mod access;
pub(super) mod cache;
pub(super) mod devices;
pub(super) mod direct;
pub(super) mod directory;
mod directory_files;
pub(super) mod file;
pub(super) mod handle;
pub(super) mod host_file;
mod known_data;
mod known_files;
pub(super) mod length;
pub(super) mod open;
pub(super) mod stamp;
pub(super) mod unchanged;
