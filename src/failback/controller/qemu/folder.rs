//! What stands beside a VM, and outlives every process.

use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::tracking::Tracking;
use crate::error::{Error, ErrorKind, Result};
use crate::failback::controller::{Call, too_late};
use crate::failback::machine::Token;

/// A VM's folder: its monitor's socket, its fence, the newest token, what is tracked, scratch.
#[derive(Debug, Clone)]
pub(super) struct VmFolder {
    path: PathBuf,
}

/// Keeps other commands to the VM out.
pub(super) struct Admitted {
    _lock: Option<CommandLock>,
}

impl VmFolder {
    pub fn new(path: PathBuf) -> Self {
        VmFolder { path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The monitor's socket, where QEMU has to listen.
    pub fn monitor(&self) -> PathBuf {
        self.path.join("qmp.sock")
    }

    /// The socket at which QEMU exports disks.
    pub fn exports(&self) -> PathBuf {
        self.path.join("nbd.sock")
    }

    /// Where the bytes go that the guest overwrites during a pass.
    pub fn scratch(&self, disk: usize) -> PathBuf {
        self.path.join(format!("scratch-{disk}.qcow2"))
    }

    /// Whether the VM is there.
    ///
    /// # Errors
    /// `Io`.
    pub fn exists(&self) -> Result<bool> {
        Ok(there(&self.path)? && !there(&self.file(RETIRED))?)
    }

    /// Makes it exist.
    ///
    /// # Errors
    /// `Io`.
    pub fn create(&self) -> Result<()> {
        fs::create_dir_all(&self.path).map_err(|e| self.failed("make", e))?;
        self.clear(RETIRED)
    }

    /// Makes it exist no more; its files stay.
    ///
    /// # Errors
    /// `Io`.
    pub fn retire(&self) -> Result<()> {
        self.write(RETIRED, b"")
    }

    /// Whether it must not be started.
    ///
    /// # Errors
    /// `Io`.
    pub fn is_fenced(&self) -> Result<bool> {
        there(&self.file(FENCED))
    }

    /// From now on it must not be started. Durable when it returns.
    ///
    /// # Errors
    /// `Io`.
    pub fn fence(&self) -> Result<()> {
        self.write(
            FENCED,
            b"a failback holds this VM; it must not be started\n",
        )
    }

    /// It may be started again. Durable when it returns.
    ///
    /// # Errors
    /// `Io`.
    pub fn unfence(&self) -> Result<()> {
        self.clear(FENCED)
    }

    /// Lets a command in that does not come too late, and keeps its token for good.
    ///
    /// # Errors
    /// `InUse` for an older token than the newest, and while another command is carried out;
    /// `Malformed` for a token file that somebody has edited; `Io`.
    pub fn admit(&self, call: &Call<'_>) -> Result<Admitted> {
        call.cancel.check()?;
        // It only looks, or nothing is there that could remember it, or be harmed.
        if call.token == Token::default() || !there(&self.path)? {
            return Ok(Admitted { _lock: None });
        }
        let lock = self.lock()?;
        let newest = self.newest()?;
        if call.token < newest {
            return Err(too_late(call.token, newest));
        }
        if call.token > newest {
            self.write(TOKEN, format!("{}\n", call.token).as_bytes())?;
        }
        Ok(Admitted { _lock: Some(lock) })
    }

    fn newest(&self) -> Result<Token> {
        let path = self.file(TOKEN);
        let text = match fs::read_to_string(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Token::default()),
            text => text.map_err(|e| Error::io("read", e).at_path(&path))?,
        };
        let parts = text.trim().split_once('.');
        let token = parts.and_then(|(epoch, sequence)| {
            Some(Token {
                epoch: epoch.parse().ok()?,
                sequence: sequence.parse().ok()?,
            })
        });
        token.ok_or_else(|| Error::malformed("this is no token").at_path(&path))
    }

    /// What is tracked; nothing where nothing was.
    ///
    /// # Errors
    /// `Malformed` for a file that somebody has edited; `Io`.
    pub fn tracking(&self) -> Result<Tracking> {
        let path = self.file(TRACKING);
        match fs::read(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Tracking::default()),
            bytes => {
                let bytes = bytes.map_err(|e| Error::io("read", e).at_path(&path))?;
                serde_json::from_slice(&bytes).map_err(|e| {
                    Error::malformed("this does not say what is tracked")
                        .at_path(&path)
                        .caused_by(e)
                })
            }
        }
    }

    /// Keeps what is tracked. Durable when it returns.
    ///
    /// # Errors
    /// `NoSpace`, `Io`.
    pub fn keep(&self, tracking: &Tracking) -> Result<()> {
        let bytes = serde_json::to_vec(tracking).map_err(|e| {
            Error::new(ErrorKind::InvalidInput, "cannot say what is tracked").caused_by(e)
        })?;
        self.write(TRACKING, &bytes)
    }

    /// Removes the scratch files.
    ///
    /// # Errors
    /// `Io`.
    pub fn clear_scratch(&self, disks: usize) -> Result<()> {
        (0..disks).try_for_each(|disk| remove(&self.scratch(disk)))
    }

    fn lock(&self) -> Result<CommandLock> {
        let path = self.file("lock");
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|e| Error::io("open lock", e).at_path(&path))?;
        match file.try_lock() {
            Ok(()) => Ok(CommandLock(file)),
            Err(TryLockError::WouldBlock) => {
                let text = "another command to this VM is being carried out";
                Err(Error::new(ErrorKind::InUse, text).at_path(&path))
            }
            Err(TryLockError::Error(e)) => Err(Error::io("lock", e).at_path(&path)),
        }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let (new, path) = (self.file(&format!("{name}.new")), self.file(name));
        let written = File::create(&new).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        });
        written
            .and_then(|()| fs::rename(&new, &path))
            .map_err(|e| Error::io("write", e).at_path(&path))?;
        self.sync()
    }

    fn clear(&self, name: &str) -> Result<()> {
        remove(&self.file(name))?;
        self.sync()
    }

    fn sync(&self) -> Result<()> {
        let synced = File::open(&self.path).and_then(|folder| folder.sync_all());
        synced.map_err(|e| self.failed("sync", e))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn failed(&self, operation: &'static str, cause: std::io::Error) -> Error {
        Error::io(operation, cause).at_path(&self.path)
    }
}

/// Held while a command is carried out.
struct CommandLock(File);

impl Drop for CommandLock {
    /// Closing it would not do: a program that another thread is just starting has it open, too.
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

/// Removes a file, if it is there.
///
/// # Errors
/// `Io`.
pub(super) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("remove", e).at_path(path))
        }
        _ => Ok(()),
    }
}

fn there(path: &Path) -> Result<bool> {
    path.try_exists()
        .map_err(|e| Error::io("look for", e).at_path(path))
}

const FENCED: &str = "fenced";
const RETIRED: &str = "retired";
const TOKEN: &str = "token";
const TRACKING: &str = "tracking.json";
