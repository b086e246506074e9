//! Directories for device nodes, in which no file is made: a file there lies in memory, and takes
//! the name of the device that was meant.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::kernel::Kernel;
use crate::error::{Error, ErrorKind, Result};

/// Refuses a directory of device nodes: one on devtmpfs, and `/dev` with what is below it on the
/// same file system. Other file systems below `/dev`, such as `/dev/shm`, are directories like any
/// other.
///
/// # Errors
/// `InvalidInput`; `Io`.
pub(in crate::storage) fn refuse_nodes(directory: &File, path: &Path) -> Result<()> {
    let failed = |cause| Error::io("inspect directory", cause).at_path(path);
    let system = directory.metadata().map_err(failed)?.dev();
    let is_devtmpfs = || {
        let mounts = Kernel::host().mounts().into_iter();
        let mut of_it = mounts.filter(|mount| mount.number == system);
        of_it.any(|mount| mount.kind == "devtmpfs")
    };
    if !(is_below_dev(path, system) || is_devtmpfs()) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidInput,
        "no file is made here: this directory is for device nodes, and is in memory",
    )
    .advise(
        "check the device's name, and that it is there (volume active, disk attached), or name a \
         file elsewhere",
    ))
}

fn is_below_dev(path: &Path, system: u64) -> bool {
    let system_of = |path: &str| fs::metadata(path).ok().map(|facts| facts.dev());
    if system_of("/dev") != Some(system) {
        return false;
    }
    // Where `/dev` is a file system of its own, all of it is for nodes, wherever it is mounted.
    system_of("/") != Some(system)
        || fs::canonicalize(path).is_ok_and(|real| real.starts_with("/dev"))
}
