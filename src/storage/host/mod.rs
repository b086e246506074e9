//! The operating system's files, directories and block devices.

mod known_data;
pub(super) mod unchanged;
#[cfg(unix)]
mod unix;

#[cfg(unix)]
pub(super) use unix::*;
