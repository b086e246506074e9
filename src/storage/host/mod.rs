//! The operating system's files, directories and block devices.

pub(super) mod allocation;
pub(super) mod file_id;
mod known_data;
pub(super) mod options;
mod patience;
pub(super) mod stamp;
pub(super) mod unchanged;
#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub(super) use unix::*;
#[cfg(windows)]
pub(super) use windows::*;
