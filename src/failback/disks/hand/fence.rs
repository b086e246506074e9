//! Who may write to the disks of a VM on a host that does not carry the job.
//!
//! Beside the disks lies the newest token that was seen there, durable before anything is done under
//! it, and a lock that is held while something is done. A hand whose token is not the newest any
//! more stops by itself; the newer one waits until it has.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::failback::controller::too_late;
use crate::failback::lock::JobLock;
use crate::failback::machine::Token;
use crate::storage::{Access, Folder, HostFolder, Place};

/// The folder of a job at a host that has disks of it.
pub(super) struct Fence {
    folder: PathBuf,
    vm: String,
    instance: String,
}

/// Leave to go on, as long as nobody newer comes.
pub(super) struct Admitted<'a> {
    fence: &'a Fence,
    seen: Seen,
    _lock: JobLock,
}

/// What was seen of a VM's jobs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    /// The job that has the disks.
    instance: String,
    newest: Token,
    /// Jobs of the same name that had them before: they never get them again.
    past: Vec<String>,
}

impl Fence {
    /// The fence of a VM, in the folder of its job; nothing is made yet.
    pub fn new(folder: &Path, vm: &str, instance: &str) -> Self {
        Fence {
            folder: folder.to_owned(),
            vm: vm.to_owned(),
            instance: instance.to_owned(),
        }
    }

    /// Where this job keeps what it knows of the disks. What an earlier one of the name knew does
    /// not count.
    pub fn ledgers(&self) -> PathBuf {
        self.folder.join(&self.instance)
    }

    /// Lets a command in: notes its token, and waits until what runs under older ones has ended.
    /// `is_over` ends the waiting.
    ///
    /// # Errors
    /// `InUse` for a token that comes too late; `Io` where what runs does not end in time;
    /// `Cancelled`.
    pub fn admit(&self, token: Token, is_over: &dyn Fn() -> bool) -> Result<Admitted<'_>> {
        let seen = self.note(Some(token))?;
        let begun = Instant::now();
        let lock = loop {
            match JobLock::take(&self.folder.join(format!("{}.lock", self.vm))) {
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
            fence: self,
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
    pub fn pass(&self) -> Result<()> {
        self.note(None).map(drop)
    }

    /// Takes note of a job, and of a token, durably.
    fn note(&self, token: Option<Token>) -> Result<Seen> {
        HostFolder::make(&self.ledgers())?;
        // Held for as long as it takes to write a line; not `InUse`: it is worth trying again.
        let busy = |error: Error| Error::new(ErrorKind::Io, error.to_string());
        let _gate = JobLock::take(&self.folder.join(format!("{}.gate", self.vm))).map_err(busy)?;
        let before = self.seen()?;
        let mut seen = before.clone();
        if seen.instance != self.instance {
            if seen.past.contains(&self.instance) {
                let text = "another job of this name has these disks since";
                return Err(Error::new(ErrorKind::InUse, text).at_path(&self.folder));
            }
            let former = std::mem::take(&mut seen.instance);
            seen.past.extend((!former.is_empty()).then_some(former));
            let excess = seen.past.len().saturating_sub(PAST_MOST);
            seen.past.drain(..excess);
            seen.instance.clone_from(&self.instance);
            seen.newest = Token::default();
        }
        if let Some(token) = token {
            if token < seen.newest {
                return Err(too_late(token, seen.newest));
            }
            seen.newest = token;
        }
        if seen != before {
            self.write(&seen)?;
        }
        Ok(seen)
    }

    fn seen(&self) -> Result<Seen> {
        let place = self.place("token")?;
        let Some(storage) = place.open_if_there(Access::Read)? else {
            return Ok(Seen::default());
        };
        let damaged = || Error::malformed("the newest token makes no sense").at_path(place.path());
        let len = usize::try_from(storage.len()?).unwrap_or(usize::MAX);
        if len > SEEN_BYTES {
            return Err(damaged());
        }
        let mut bytes = vec![0; len];
        storage.read_exact_at(&mut bytes, 0)?;
        serde_json::from_slice(&bytes).map_err(|e| damaged().caused_by(e))
    }

    fn write(&self, seen: &Seen) -> Result<()> {
        let (new, place) = (self.place("token-new")?, self.place("token")?);
        let failed = |e| Error::new(ErrorKind::InvalidInput, "cannot say a token").caused_by(e);
        let bytes = serde_json::to_vec(seen).map_err(failed)?;
        new.remove_if_there()?;
        let storage = new.create_new()?;
        storage.write_all_at(&bytes, 0)?;
        storage.sync()?;
        new.folder().rename(new.name(), place.name())?;
        new.folder().sync()
    }

    fn place(&self, kind: &str) -> Result<Place> {
        Place::host(self.folder.join(format!("{}.{kind}", self.vm)))
    }

    /// Removes what earlier jobs of this name knew; it only takes space.
    fn forget_past(&self, seen: &Seen) {
        for past in &seen.past {
            let Ok(folder) = HostFolder::open(self.folder.join(past)) else {
                continue;
            };
            let prefix = format!("{}.", self.vm);
            let names = folder.names().unwrap_or_default().into_iter();
            for name in names.filter(|name| name.to_string_lossy().starts_with(&prefix)) {
                let _ = folder.remove(&name);
            }
            // It stays as long as another VM of that job has something there.
            let _ = fs::remove_dir(folder.path());
        }
    }
}

impl Admitted<'_> {
    /// Whether it is still the newest that was seen.
    ///
    /// # Errors
    /// `InUse` where it is not; `Io`.
    pub fn check(&self) -> Result<()> {
        let now = self.fence.seen()?;
        match (now.instance == self.seen.instance, now.newest) {
            (true, newest) if newest == self.seen.newest => Ok(()),
            (_, newest) => Err(too_late(self.seen.newest, newest)),
        }
    }
}

/// Longer than what a hand that stops needs as a rule; what it has begun to apply it applies.
const PATIENCE: Duration = Duration::from_secs(20);
const PAST_MOST: usize = 1000;
const SEEN_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn token(epoch: u64, sequence: u64) -> Token {
        Token { epoch, sequence }
    }

    fn never() -> bool {
        false
    }

    #[test]
    fn an_older_token_is_refused_by_whoever_comes_later() {
        let folder = tempfile::tempdir().unwrap();
        let fence = || Fence::new(folder.path(), "db1", "a");
        drop(fence().admit(token(2, 5), &never).unwrap());
        drop(fence().admit(token(2, 5), &never).unwrap());
        for old in [token(2, 4), token(1, 9)] {
            let error = fence().admit(old, &never).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::InUse);
        }
        fence().pass().unwrap();
        assert!(
            Fence::new(folder.path(), "db2", "a")
                .admit(token(1, 1), &never)
                .is_ok()
        );
    }

    #[test]
    fn who_is_inside_sees_a_newer_one_come_and_that_one_waits() {
        let folder = tempfile::tempdir().unwrap();
        let fence = Fence::new(folder.path(), "db1", "a");
        let first = fence.admit(token(1, 1), &never).unwrap();
        first.check().unwrap();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| fence.admit(token(2, 1), &never).map(|it| it.check()));
            while first.check().is_ok() {
                std::thread::sleep(Duration::from_millis(5));
            }
            assert!(!second.is_finished(), "let in beside another");
            drop(first);
            second.join().unwrap().unwrap().unwrap();
        });
    }

    #[test]
    fn who_waits_stops_waiting_once_nobody_wants_it() {
        let folder = tempfile::tempdir().unwrap();
        let fence = Fence::new(folder.path(), "db1", "a");
        let _first = fence.admit(token(1, 1), &never).unwrap();
        let error = fence.admit(token(1, 2), &|| true).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
    }

    #[test]
    fn a_new_job_of_the_name_begins_anew_and_the_old_one_never_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let old = Fence::new(folder.path(), "db1", "old");
        drop(old.admit(token(7, 7), &never).unwrap());
        fs::write(old.ledgers().join("db1.target-0.manifest"), "x").unwrap();
        fs::write(old.ledgers().join("db2.target-0.manifest"), "x").unwrap();
        let new = Fence::new(folder.path(), "db1", "new");
        drop(new.admit(token(1, 1), &never).unwrap());
        assert!(!old.ledgers().join("db1.target-0.manifest").exists());
        assert!(
            old.ledgers().join("db2.target-0.manifest").exists(),
            "another VM's"
        );
        let error = old.admit(token(8, 1), &never).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::InUse);
        assert!(old.pass().is_err());
    }

    #[test]
    fn a_token_that_cannot_be_read_lets_nobody_in() {
        let folder = tempfile::tempdir().unwrap();
        let fence = Fence::new(folder.path(), "db1", "a");
        drop(fence.admit(token(1, 1), &never).unwrap());
        fs::write(folder.path().join("db1.token"), "{").unwrap();
        let error = fence.admit(token(1, 2), &never).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Malformed);
    }
}
