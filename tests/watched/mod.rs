//! A directory in memory that sees in which order its files are written and made durable.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::Arc;

use diskdelta::Result;
use diskdelta::storage::fault::{
    FaultDirectory, FaultDisk, NoRewrite, OrderRule, Step, SyncedBefore,
};
use diskdelta::storage::{Access, Directory, FileId, Privacy, Storage};

/// What was done in it is looked at when the last of its clones is dropped: nothing is written
/// twice between two syncs, and nothing to a target before its redo log or sidecar is durable.
#[derive(Clone)]
pub struct WatchedDirectory(Arc<Watched>);

struct Watched {
    disk: FaultDisk,
    directory: FaultDirectory,
}

impl WatchedDirectory {
    pub fn new() -> Self {
        let disk = FaultDisk::new();
        let directory = disk.directory(PATH);
        WatchedDirectory(Arc::new(Watched { disk, directory }))
    }

    /// Puts a file there, as if it had always been there.
    pub fn insert(&self, name: &str, bytes: Vec<u8>) {
        // It begins the log anew.
        self.0.check();
        self.0.disk.put(Path::new(PATH).join(name), bytes);
    }

    /// What a file holds.
    pub fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        let row = self.0.disk.contents(Path::new(PATH).join(name));
        row.map(|row| row.to_vec())
    }
}

impl Watched {
    fn check(&self) {
        let log = self.disk.log();
        let is_redo_log = |path: &Path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.contains(".diskdelta-log") && !name.ends_with(".previous")
        };
        let is_target = |path: &Path| !path.to_string_lossy().contains("/.");
        log.check(SyncedBefore::new(is_redo_log, is_target))
            .unwrap();
        log.check(NamedOnly(NoRewrite::new())).unwrap();
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.check();
        }
    }
}

/// A copy that has no name yet is compared again after a crash, whatever it holds.
struct NamedOnly(NoRewrite);

impl OrderRule for NamedOnly {
    fn see(&mut self, step: &Step<'_>) -> std::result::Result<(), String> {
        match step.op().path().to_string_lossy().contains("/.") {
            true => Ok(()),
            false => self.0.see(step),
        }
    }
}

impl Directory for WatchedDirectory {
    fn path(&self) -> &Path {
        self.0.directory.path()
    }

    fn open(&self, name: &OsStr, access: Access) -> Result<Arc<dyn Storage>> {
        self.0.directory.open(name, access)
    }

    fn open_own(&self, name: &OsStr, access: Access) -> Result<Arc<dyn Storage>> {
        self.0.directory.open_own(name, access)
    }

    fn create(&self, name: &OsStr, privacy: Privacy) -> Result<Arc<dyn Storage>> {
        self.0.directory.create(name, privacy)
    }

    fn rename_new(&self, from: &OsStr, to: &OsStr) -> Result<()> {
        self.0.directory.rename_new(from, to)
    }

    fn remove_unused(&self, name: &OsStr) -> Result<bool> {
        self.0.directory.remove_unused(name)
    }

    fn file_id(&self, name: &OsStr) -> Result<Option<FileId>> {
        self.0.directory.file_id(name)
    }

    fn copy_attributes(&self, from: &OsStr, to: &OsStr) -> Result<Vec<String>> {
        self.0.directory.copy_attributes(from, to)
    }

    fn has_attributes_of(&self, from: &OsStr, to: &OsStr) -> Result<bool> {
        self.0.directory.has_attributes_of(from, to)
    }

    fn rename(&self, from: &OsStr, to: &OsStr) -> Result<()> {
        self.0.directory.rename(from, to)
    }

    fn remove(&self, name: &OsStr) -> Result<()> {
        self.0.directory.remove(name)
    }

    fn names(&self) -> Result<Vec<OsString>> {
        self.0.directory.names()
    }

    fn sync(&self) -> Result<()> {
        self.0.directory.sync()
    }
}

const PATH: &str = "/watched";
