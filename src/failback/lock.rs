//! One executor at a time for each job.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use crate::storage::LockFile;

/// Holds a job until it is dropped, or the process ends.
#[derive(Debug)]
pub struct JobLock {
    _file: LockFile,
}

impl JobLock {
    /// Takes the lock that the file at `path` stands for, and makes the file if need be.
    ///
    /// # Errors
    /// `InUse`, saying by whom; `Untrusted` for what is no file that this program made; `Io`.
    pub fn take(path: &Path) -> Result<Self> {
        Self::take_within(path, PATIENCE, "another process runs this job")
    }

    /// As [`take`](Self::take), waiting for at most `patience`; `meaning` says what it is that
    /// another holds.
    pub(super) fn take_within(path: &Path, patience: Duration, meaning: &str) -> Result<Self> {
        let begin = Instant::now();
        let file = loop {
            // Another process may only be looking.
            match LockFile::try_take(path)? {
                Some(file) => break file,
                None if begin.elapsed() < patience => std::thread::sleep(NAP),
                None => {
                    let holder = LockFile::holder(path)?.unwrap_or_default();
                    let text = format!("{meaning}: {holder}");
                    return Err(Error::new(ErrorKind::InUse, text)
                        .at_path(path)
                        .advise("wait for it, or end it"));
                }
            }
        };
        file.describe(&format!("process {}\n", std::process::id()))?;
        Ok(JobLock { _file: file })
    }

    /// Who holds the lock, in words; `None` if it is free.
    ///
    /// # Errors
    /// `Untrusted`, `Io`.
    pub fn holder(path: &Path) -> Result<Option<String>> {
        LockFile::holder(path)
    }
}

const PATIENCE: Duration = Duration::from_millis(500);
const NAP: Duration = Duration::from_millis(5);

#[cfg(test)]
#[path = "../../tests/inside/failback/lock.rs"]
mod tests;
