//! Files with secrets: private keys and passphrases.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};
use crate::storage::HostFile;

/// Reads a file with a secret, of at most 1 MiB. Who else may read it is a matter of its access
/// list, which is not looked at.
///
/// # Errors
/// `Unsupported` for something other than a regular file; `LimitExceeded` for one that is too long;
/// `NotFound`, `Io`.
pub(crate) fn read_private(path: &Path) -> Result<Vec<u8>> {
    let failed = |cause: std::io::Error| Error::io("read", cause).at_path(path);
    HostFile::at(path)?;
    let mut bytes = Vec::new();
    let mut within = File::open(path).map_err(failed)?.take(MOST_BYTES + 1);
    within.read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MOST_BYTES {
        let text = format!("a file with a secret has at most {MOST_BYTES} bytes");
        return Err(Error::new(ErrorKind::LimitExceeded, text).at_path(path));
    }
    Ok(bytes)
}

const MOST_BYTES: u64 = 1 << 20;
