//! Names of devices, of which there are none.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};

/// What tells a device from all others; no device has one on Windows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceIdentity(String);

impl DeviceIdentity {
    /// As text that can be part of a file name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it stays the same when the system starts again.
    pub fn is_stable(&self) -> bool {
        false
    }
}

impl fmt::Display for DeviceIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The identity of the device at `path`.
///
/// # Errors
/// `Unsupported`.
pub fn identity(path: impl AsRef<Path>) -> Result<DeviceIdentity> {
    let what = "disks and other devices are not supported on Windows";
    Err(Error::new(ErrorKind::Unsupported, what).at_path(path))
}

/// The devices with this name: none.
pub fn devices_named(_name: &str) -> Vec<PathBuf> {
    Vec::new()
}
