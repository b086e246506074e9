//! The longest length that a file may take: what the file system holds, and what this process may
//! write.

use std::fs::File;
use std::path::Path;

use rustix::fs::SeekFrom;
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use crate::error::{Error, ErrorKind, Result};

/// Refuses a length beyond `RLIMIT_FSIZE`: writing there would end the process by SIGXFSZ.
///
/// # Errors
/// `NoSpace`.
pub(in crate::storage) fn within_process_limit(path: &Path, len: u64) -> Result<()> {
    match getrlimit(Resource::Fsize).current {
        Some(limit) if len > limit => Err(Error::new(
            ErrorKind::NoSpace,
            format!(
                "{len} bytes are beyond the limit on the files of this process, {limit} bytes \
                 (RLIMIT_FSIZE, `ulimit -f`)"
            ),
        )
        .at_path(path)
        .caused_by(too_long())),
        _ => Ok(()),
    }
}

/// Refuses a length that the file system of `file` cannot hold, without changing the file: no
/// position beyond its longest file can be sought. A network or FUSE file system may know less
/// than the one that stores its files.
///
/// # Errors
/// `NoSpace`.
pub(in crate::storage) fn within_file_system(path: &Path, file: &File, len: u64) -> Result<()> {
    match rustix::fs::seek(file, SeekFrom::Start(len)) {
        Err(Errno::INVAL | Errno::OVERFLOW | Errno::FBIG) => Err(Error::new(
            ErrorKind::NoSpace,
            format!("the file system holds no file of {len} bytes"),
        )
        .at_path(path)
        .caused_by(too_long())),
        // A position is not used otherwise, so where it ends up means nothing.
        _ => Ok(()),
    }
}

fn too_long() -> std::io::Error {
    Errno::FBIG.into()
}
