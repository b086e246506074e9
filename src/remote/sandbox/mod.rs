//! Paths of a peer, kept to one directory.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub use unix::{Sandbox, SandboxPath};
#[cfg(windows)]
pub use windows::{Sandbox, SandboxPath};
