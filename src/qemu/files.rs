//! The files of one QEMU that are not its disks.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Sockets and scratch files of one QEMU, in a directory of its own.
#[derive(Debug, Clone)]
pub(crate) struct QemuFiles {
    directory: PathBuf,
}

impl QemuFiles {
    pub(crate) fn new(directory: PathBuf) -> Self {
        QemuFiles { directory }
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The monitor's socket, where QEMU has to listen.
    pub(crate) fn monitor(&self) -> PathBuf {
        self.directory.join("qmp.sock")
    }

    /// The socket at which QEMU exports disks.
    pub(crate) fn exports(&self) -> PathBuf {
        self.directory.join("nbd.sock")
    }

    /// Where the bytes go that the guest overwrites while a snapshot of it is read.
    pub(crate) fn scratch(&self, disk: usize) -> PathBuf {
        self.directory.join(format!("scratch-{disk}.qcow2"))
    }

    /// Removes the scratch files.
    pub(crate) fn clear_scratch(&self, disks: usize) -> Result<()> {
        (0..disks).try_for_each(|disk| remove(&self.scratch(disk)))
    }
}

/// Removes a file, if it is there.
pub(crate) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("remove", e).at_path(path))
        }
        _ => Ok(()),
    }
}
