//! The operating system's files, directories and block devices.

pub(super) mod access;
pub(super) mod cache;
pub(super) mod devices;
pub(super) mod direct;
pub(super) mod directory;
pub(super) mod file;
pub(super) mod handle;
pub(super) mod host_file;
pub(super) mod length;
pub(super) mod open;
pub(super) mod stamp;
