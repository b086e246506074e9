//! Who may write to the disks of a VM on a host that does not run the job.
//!
//! The agent's own directory has the newest token that was seen for a VM, durable before anything
//! is done under it, and a lock that is held while something is done. A disk agent whose token is
//! not the newest any more stops by itself; the newer one waits until it has.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::storage::small_file;
use crate::storage::{Directory, HostDirectory, LockFile};
use crate::vm::Token;

/// What an agent has of one VM of a job.
pub(crate) struct FencingToken {
    directory: HostDirectory,
    instance: String,
}

/// Leave to go on, until a newer command comes.
pub(crate) struct Admitted<'a> {
    fencing_token: &'a FencingToken,
    seen: Seen,
    _lock: LockFile,
}

/// What was seen of a VM's jobs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Seen {
    /// The job that has the disks.
    instance: String,
    newest: Token,
    /// Jobs of the same name that had them before: they never get them again.
    past: Vec<String>,
}

impl FencingToken {
    /// The fencing token of a VM, for the job of this id, 32 hexadecimal digits; `directory` is the
    /// VM's own.
    pub(crate) fn new(directory: HostDirectory, instance: &str) -> Self {
        FencingToken {
            directory,
            instance: instance.to_owned(),
        }
    }

    /// Where this job keeps what it knows of the disks. What an earlier one of the name knew does
    /// not count.
    pub(crate) fn disk_states(&self) -> PathBuf {
        self.directory.path().join(&self.instance)
    }

    /// Lets a command in: notes its token, and waits until what runs under older ones has ended.
    /// `is_over` ends the waiting.
    ///
    /// # Errors
    /// `InUse` for a token that comes too late; `Io` where what runs does not end in time;
    /// `Cancelled`.
    pub(crate) fn admit(&self, token: Token, is_over: &dyn Fn() -> bool) -> Result<Admitted<'_>> {
        let seen = self.note(Some(token))?;
        let begun = Instant::now();
        let lock = loop {
            match self.lock("lock") {
                Err(error) if error.kind() == ErrorKind::InUse => {
                    if is_over() {
                        return Err(Error::new(ErrorKind::Cancelled, "the other end has gone"));
                    }
                    if begun.elapsed() > PATIENCE {
                        // Not `InUse`: it is worth trying again.
                        let text = format!("what was begun here before has not ended yet: {error}");
                        return Err(Error::new(ErrorKind::Io, text));
                    }
                }
                taken => break taken?,
            }
        };
        let admitted = Admitted {
            fencing_token: self,
            seen,
            _lock: lock,
        };
        admitted.check()?;
        self.forget_past(&admitted.seen);
        Ok(admitted)
    }

    /// Lets in what is done beside commands, whatever runs: the job has the disks.
    ///
    /// # Errors
    /// `InUse` where another job has them since; `Io`.
    pub(crate) fn pass(&self) -> Result<()> {
        self.note(None).map(drop)
    }

    fn lock(&self, name: &str) -> Result<LockFile> {
        let path = self.directory.path().join(name);
        LockFile::take(&path, LOCK_PATIENCE, "another process runs this job")
    }

    /// Takes note of a job, and of a token, durably.
    fn note(&self, token: Option<Token>) -> Result<Seen> {
        self.directory.subdirectory(OsStr::new(&self.instance))?;
        // Held for as long as it takes to write a line; not `InUse`: it is worth trying again.
        let busy = |error: Error| Error::new(ErrorKind::Io, error.to_string());
        let _gate = self.lock("gate").map_err(busy)?;
        let before = self.seen()?;
        let mut seen = before.clone();
        if seen.instance != self.instance {
            if seen.past.contains(&self.instance) {
                let text = "another job of this name has these disks since";
                return Err(Error::new(ErrorKind::InUse, text).at_path(self.directory.path()));
            }
            let former = std::mem::take(&mut seen.instance);
            seen.past.extend((!former.is_empty()).then_some(former));
            let excess = seen.past.len().saturating_sub(PAST_MOST);
            seen.past.drain(..excess);
            seen.instance.clone_from(&self.instance);
            seen.newest = Token::default();
        }
        if let Some(token) = token {
            seen.newest.admit(token)?;
        }
        if seen != before {
            self.write(&seen)?;
        }
        Ok(seen)
    }

    fn seen(&self) -> Result<Seen> {
        let Some(bytes) = small_file::get(&self.directory, TOKEN, SEEN_BYTES)? else {
            return Ok(Seen::default());
        };
        let path = self.directory.path().join(TOKEN);
        let damaged = || Error::malformed("the newest token is invalid").at_path(&path);
        let seen: Seen = serde_json::from_slice(&bytes).map_err(|e| damaged().caused_by(e))?;
        // They become names of files.
        let ids = seen.past.iter().chain([&seen.instance]);
        match ids.into_iter().all(|id| is_instance(id)) && seen.past.len() <= PAST_MOST {
            true => Ok(seen),
            false => Err(damaged()),
        }
    }

    fn write(&self, seen: &Seen) -> Result<()> {
        let failed = |e| Error::new(ErrorKind::InvalidInput, "cannot encode a token").caused_by(e);
        let bytes = serde_json::to_vec(seen).map_err(failed)?;
        small_file::put(&self.directory, TOKEN, &bytes)
    }

    /// Removes what earlier jobs of this name knew; it only takes space.
    fn forget_past(&self, seen: &Seen) {
        for past in &seen.past {
            let Ok(directory) = self.directory.open_subdirectory(OsStr::new(past)) else {
                continue;
            };
            for name in directory.names().unwrap_or_default() {
                let _ = directory.remove(&name);
            }
            let _ = fs::remove_dir(directory.path());
        }
    }
}

impl Admitted<'_> {
    /// Whether it is still the newest that was seen.
    ///
    /// # Errors
    /// `InUse` where it is not; `Io`.
    pub(crate) fn check(&self) -> Result<()> {
        let now = self.fencing_token.seen()?;
        match (now.instance == self.seen.instance, now.newest) {
            (true, newest) if newest == self.seen.newest => Ok(()),
            (_, newest) => Err(self.seen.newest.too_late(newest)),
        }
    }
}

/// Whether it is 16 bytes in lower-case hex.
pub(crate) fn is_instance(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|it| b"0123456789abcdef".contains(&it))
}

/// Longer than what a disk agent that stops needs as a rule; what it has begun to apply it applies.
const PATIENCE: Duration = Duration::from_secs(20);
const LOCK_PATIENCE: Duration = Duration::from_millis(500);
const TOKEN: &str = "token";
const PAST_MOST: usize = 1000;
const SEEN_BYTES: u64 = 1 << 20;

#[cfg(test)]
#[path = "../tests/inside/fencing.rs"]
mod tests;
