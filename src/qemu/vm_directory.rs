//! What stands beside a VM, and outlives every process.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::files::QemuFiles;
use super::tracking::Tracking;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::small_file;
use crate::storage::{Directory, HostDirectory, flock};
use crate::vm::{Call, Token};

/// A VM's directory: its fence, the newest token, what is tracked, and the files of its QEMU.
#[derive(Debug, Clone)]
pub(super) struct VmDirectory {
    pub(super) files: QemuFiles,
}

/// Keeps other commands to the VM out.
pub(crate) struct Admitted {
    _lock: Option<CommandLock>,
}

impl VmDirectory {
    pub(super) fn new(path: PathBuf) -> Self {
        VmDirectory {
            files: QemuFiles::new(path),
        }
    }

    pub(super) fn path(&self) -> &Path {
        self.files.directory()
    }

    /// Whether the VM is there.
    pub(super) fn exists(&self) -> Result<bool> {
        Ok(self.open()?.is_some() && !self.has(RETIRED)?)
    }

    /// Makes it exist.
    pub(super) fn create(&self) -> Result<()> {
        fs::create_dir_all(self.path()).map_err(|e| Error::io("make", e).at_path(self.path()))?;
        self.clear(RETIRED)
    }

    /// Makes it exist no more; its files stay.
    pub(super) fn retire(&self) -> Result<()> {
        self.put(RETIRED, b"")
    }

    /// Whether it must not be started.
    pub(super) fn is_fenced(&self) -> Result<bool> {
        self.has(FENCED)
    }

    /// From now on it must not be started. Durable when it returns.
    pub(super) fn fence(&self) -> Result<()> {
        self.put(
            FENCED,
            b"a failback holds this VM; it must not be started\n",
        )
    }

    /// It may be started again. Durable when it returns.
    pub(super) fn unfence(&self) -> Result<()> {
        self.clear(FENCED)
    }

    /// Lets a command in that does not come too late, and keeps its token for good.
    ///
    /// # Errors
    /// `InUse` for an older token than the newest, and while another command is carried out;
    /// `Malformed` for a token file that was edited; `Untrusted` for one that this program did not
    /// make; `Io`.
    pub(super) fn admit(&self, call: &Call<'_>) -> Result<Admitted> {
        call.cancel.check()?;
        // It only looks, or nothing is there that could remember it, or be harmed.
        if call.token == Token::default() || self.open()?.is_none() {
            return Ok(Admitted { _lock: None });
        }
        let lock = self.lock()?;
        if self.newest()?.admit(call.token)? {
            self.put(TOKEN, format!("{}\n", call.token).as_bytes())?;
        }
        Ok(Admitted { _lock: Some(lock) })
    }

    fn newest(&self) -> Result<Token> {
        let Some(bytes) = small_file::get(&self.there()?, TOKEN, TOKEN_BYTES)? else {
            return Ok(Token::default());
        };
        let text = String::from_utf8_lossy(&bytes);
        let parts = text.trim().split_once('.');
        let token = parts.and_then(|(epoch, sequence)| {
            Some(Token {
                epoch: epoch.parse().ok()?,
                sequence: sequence.parse().ok()?,
            })
        });
        token.ok_or_else(|| Error::malformed("this is no token").at_path(self.path().join(TOKEN)))
    }

    /// What is tracked; nothing where nothing was.
    ///
    /// # Errors
    /// `Malformed` for a file that was edited; `Untrusted` for one that this program did not make;
    /// `Io`.
    pub(super) fn tracking(&self) -> Result<Tracking> {
        let Some(directory) = self.open()? else {
            return Ok(Tracking::default());
        };
        match small_file::get(&directory, TRACKING, u64::MAX)? {
            None => Ok(Tracking::default()),
            Some(bytes) => serde_json::from_slice(&bytes).map_err(|e| {
                Error::malformed("this file does not list what is tracked")
                    .at_path(self.path().join(TRACKING))
                    .caused_by(e)
            }),
        }
    }

    /// Keeps what is tracked. Durable when it returns.
    pub(super) fn keep(&self, tracking: &Tracking) -> Result<()> {
        let bytes = serde_json::to_vec(tracking).map_err(|e| {
            Error::new(ErrorKind::InvalidInput, "cannot encode what is tracked").caused_by(e)
        })?;
        self.put(TRACKING, &bytes)
    }

    /// Locks the directory itself: there is no file that another user could put in the lock's
    /// place.
    fn lock(&self) -> Result<CommandLock> {
        let failed = |e| Error::io("lock", e).at_path(self.path());
        let directory = File::open(self.path()).map_err(failed)?;
        match flock::try_lock(&directory).map_err(failed)? {
            true => Ok(CommandLock(directory)),
            false => {
                let text = "another command to this VM is being carried out";
                Err(Error::new(ErrorKind::InUse, text).at_path(self.path()))
            }
        }
    }

    /// The directory; `None` where there is none. Its VM's QEMU may be allowed to write there, so
    /// nothing in it is trusted for its name alone.
    fn open(&self) -> Result<Option<HostDirectory>> {
        match HostDirectory::open(self.path()) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            directory => directory.map(Some),
        }
    }

    fn there(&self) -> Result<HostDirectory> {
        HostDirectory::open(self.path())
    }

    fn has(&self, name: &str) -> Result<bool> {
        match self.open()? {
            Some(directory) => Ok(directory.file_id(OsStr::new(name))?.is_some()),
            None => Ok(false),
        }
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        small_file::put(&self.there()?, name, bytes)
    }

    fn clear(&self, name: &str) -> Result<()> {
        small_file::clear(&self.there()?, name)
    }
}

/// Held while a command is carried out.
struct CommandLock(File);

impl Drop for CommandLock {
    /// Closing it would not do: a program that another thread is just starting has it open, too.
    fn drop(&mut self) {
        flock::unlock(&self.0);
    }
}

const FENCED: &str = "fenced";
const RETIRED: &str = "retired";
const TOKEN: &str = "token";
const TRACKING: &str = "tracking.json";
const TOKEN_BYTES: u64 = 100;

#[cfg(test)]
#[path = "../../tests/inside/qemu/vm_directory.rs"]
mod tests;
