//! One executor at a time for each job.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};

/// Holds a job until it is dropped, or the process ends.
#[derive(Debug)]
pub struct JobLock {
    file: File,
}

impl Drop for JobLock {
    /// Closing it would not do: a program that another thread is just starting has it open, too.
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

impl JobLock {
    /// Takes the lock that the file at `path` stands for, and makes the file if need be.
    ///
    /// # Errors
    /// `InUse`, saying by whom; `Io`.
    pub fn take(path: &Path) -> Result<Self> {
        let failed = |operation, e: std::io::Error| Error::io(operation, e).at_path(path);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(|e| failed("open lock", e))?;
        let begin = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => break,
                // Somebody may only be looking.
                Err(TryLockError::WouldBlock) if begin.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(TryLockError::WouldBlock) => {
                    let text = format!("another executor carries this job: {}", said(&file));
                    return Err(Error::new(ErrorKind::InUse, text)
                        .at_path(path)
                        .advise("wait for it, or end it"));
                }
                Err(TryLockError::Error(e)) => return Err(failed("lock", e)),
            }
        }
        let holder = format!("process {}\n", std::process::id());
        file.rewind()
            .and_then(|()| file.set_len(0))
            .and_then(|()| file.write_all(holder.as_bytes()))
            .map_err(|e| failed("write lock", e))?;
        Ok(JobLock { file })
    }

    /// Who holds the lock, in words; `None` if nobody does.
    ///
    /// # Errors
    /// `Io`.
    pub fn holder(path: &Path) -> Result<Option<String>> {
        let file = match File::open(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(|e| Error::io("open lock", e).at_path(path))?,
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(None),
            Err(TryLockError::WouldBlock) => Ok(Some(said(&file))),
            Err(TryLockError::Error(e)) => Err(Error::io("lock", e).at_path(path)),
        }
    }
}

/// What the holder wrote; only for people.
fn said(file: &File) -> String {
    let mut holder = String::new();
    let _ = file.take(200).read_to_string(&mut holder);
    holder.trim().to_owned()
}

const PATIENCE: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_has_one_executor_at_a_time_and_says_who_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shop.lock");
        let held = JobLock::take(&path).unwrap();
        let error = JobLock::take(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InUse);
        let holder = format!("process {}", std::process::id());
        assert!(error.to_string().contains(&holder), "{error}");
        assert_eq!(JobLock::holder(&path).unwrap(), Some(holder));
        // As a program that is being started has it.
        let other = held.file.try_clone().unwrap();
        drop(held);
        assert_eq!(JobLock::holder(&path).unwrap(), None);
        drop(other);
        assert!(JobLock::take(&path).is_ok());
    }
}
