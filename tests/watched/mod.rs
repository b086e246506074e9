//! A folder in memory that sees in which order its files are written and made durable.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::Arc;

use diskdelta::Result;
use diskdelta::storage::fault::{FaultDisk, FaultFolder, NoRewrite, OrderRule, Step, SyncedBefore};
use diskdelta::storage::{Access, FileId, Folder, Privacy, Storage};

/// What was done in it is looked at when the last of its clones is dropped: nothing is written twice
/// between two syncs, and nothing to a target before its stage or sidecar is durable.
#[derive(Clone)]
pub struct WatchedFolder(Arc<Watched>);

struct Watched {
    disk: FaultDisk,
    folder: FaultFolder,
}

impl WatchedFolder {
    pub fn new() -> Self {
        let disk = FaultDisk::new();
        let folder = disk.folder(PATH);
        WatchedFolder(Arc::new(Watched { disk, folder }))
    }

    /// Puts a file there, as if it had always been there.
    pub fn insert(&self, name: &str, bytes: Vec<u8>) {
        // It begins the log anew.
        self.0.check();
        self.0.disk.put(Path::new(PATH).join(name), bytes);
    }

    /// What a file holds.
    pub fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        let row = self.0.disk.row(Path::new(PATH).join(name));
        row.map(|row| row.to_vec())
    }
}

impl Watched {
    fn check(&self) {
        let log = self.disk.log();
        let is_stage = |path: &Path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.contains(".diskdelta-stage") && !name.ends_with(".earlier")
        };
        let is_target = |path: &Path| !path.to_string_lossy().contains("/.");
        log.check(SyncedBefore::new(is_stage, is_target)).unwrap();
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

impl Folder for WatchedFolder {
    fn path(&self) -> &Path {
        self.0.folder.path()
    }

    fn open(&self, name: &OsStr, access: Access) -> Result<Arc<dyn Storage>> {
        self.0.folder.open(name, access)
    }

    fn open_own(&self, name: &OsStr, access: Access) -> Result<Arc<dyn Storage>> {
        self.0.folder.open_own(name, access)
    }

    fn create(&self, name: &OsStr, privacy: Privacy) -> Result<Arc<dyn Storage>> {
        self.0.folder.create(name, privacy)
    }

    fn rename_new(&self, from: &OsStr, to: &OsStr) -> Result<()> {
        self.0.folder.rename_new(from, to)
    }

    fn remove_unused(&self, name: &OsStr) -> Result<bool> {
        self.0.folder.remove_unused(name)
    }

    fn file_id(&self, name: &OsStr) -> Result<Option<FileId>> {
        self.0.folder.file_id(name)
    }

    fn copy_attributes(&self, from: &OsStr, to: &OsStr) -> Result<Vec<String>> {
        self.0.folder.copy_attributes(from, to)
    }

    fn has_attributes_of(&self, from: &OsStr, to: &OsStr) -> Result<bool> {
        self.0.folder.has_attributes_of(from, to)
    }

    fn rename(&self, from: &OsStr, to: &OsStr) -> Result<()> {
        self.0.folder.rename(from, to)
    }

    fn remove(&self, name: &OsStr) -> Result<()> {
        self.0.folder.remove(name)
    }

    fn names(&self) -> Result<Vec<OsString>> {
        self.0.folder.names()
    }

    fn sync(&self) -> Result<()> {
        self.0.folder.sync()
    }
}

const PATH: &str = "/watched";
