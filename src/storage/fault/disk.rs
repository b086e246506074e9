//! The disk: directories, files and devices under one log.

use std::ffi::OsString;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, MutexGuard};

use super::contents::FileBytes;
use super::directory::FaultDirectory;
use super::handle::FaultStorage;
use super::inject::{Fault, Faults, Fired};
use super::inner::{DropPolicy, Inner, Shared, missing};
use super::log::Log;
use super::op::{Effect, OpKind, Outcome, SyncCall};
use super::state::State;
use crate::error::Result;
use crate::storage::Access;

/// Directories, files and devices in memory whose every change is logged, can be made to fail, and
/// can be cut off by a crash. Clones show the same disk.
#[derive(Debug, Clone)]
pub struct FaultDisk {
    shared: Shared,
}

impl FaultDisk {
    /// A disk without directories.
    pub fn new() -> Self {
        FaultDisk::holding(State::default(), 0)
    }

    pub(super) fn holding(state: State, next_file: u64) -> Self {
        FaultDisk {
            shared: Shared::new(state, next_file),
        }
    }

    /// The directory at `path`; an empty one, durable at once, where there was none.
    pub fn directory(&self, path: impl AsRef<Path>) -> FaultDirectory {
        let path: Arc<Path> = path.as_ref().into();
        let mut inner = self.lock();
        inner.start.add_directory(&path);
        inner.live.add_directory(&path);
        FaultDirectory::new(self.shared.clone(), path)
    }

    /// Puts a file there, as if it had always been there, making its directory; one of that name
    /// stays the same file and holds this. Everything done before counts as durable from now on, as
    /// after [`make_durable`](FaultDisk::make_durable).
    pub fn put(&self, path: impl AsRef<Path>, contents: impl Into<FileBytes>) {
        let path = path.as_ref();
        let directory = path.parent().unwrap_or(Path::new(""));
        self.directory(directory);
        let mut inner = self.lock();
        let name = path.file_name().unwrap_or_default();
        let there = inner.live.named(directory, name);
        let file = there.unwrap_or_else(|| inner.new_file());
        inner.live.put_contents(file, contents.into());
        inner.live.set_name(directory, name.into(), file);
        inner.make_durable();
    }

    /// Puts a device of fixed length there, in no directory, as [`put`](FaultDisk::put) does.
    pub fn put_device(&self, path: impl AsRef<Path>, contents: impl Into<FileBytes>) {
        let mut inner = self.lock();
        let file = inner.new_file();
        inner.live.put_contents(file, contents.into());
        inner.live.add_device(path.as_ref().into(), file);
        inner.make_durable();
    }

    /// Opens the file or device at `path`.
    ///
    /// # Errors
    /// `NotFound`; what a [`Fault`] makes of it.
    pub fn open(&self, path: impl AsRef<Path>, access: Access) -> Result<FaultStorage> {
        FaultStorage::open(&self.shared, path.as_ref(), access)
    }

    /// What the file or device at `path` holds now, durable or not; `None` where there is none.
    pub fn contents(&self, path: impl AsRef<Path>) -> Option<FileBytes> {
        let inner = self.lock();
        let file = inner.live.find(path.as_ref())?;
        inner.live.contents(file).cloned()
    }

    /// The names in a directory now, durable or not.
    pub fn names(&self, directory: impl AsRef<Path>) -> Vec<OsString> {
        self.lock().live.names(directory.as_ref())
    }

    /// The holes of the file at `path` that are reserved, and neither written nor given back.
    pub fn reserved(&self, path: impl AsRef<Path>) -> Vec<Range<u64>> {
        let inner = self.lock();
        let Some(file) = inner.live.find(path.as_ref()) else {
            return Vec::new();
        };
        let reserved = inner.reserved.get(&file).into_iter().flatten();
        let holes = reserved.flat_map(|range| inner.holes(file, range));
        holes.collect()
    }

    /// A digest of all files, names and devices as they are now. Two disks with one digest behave
    /// alike from here on, so a check of thousands of states need look at each kind only once.
    pub fn digest(&self) -> [u8; 32] {
        self.lock().live.digest().into()
    }

    /// Writes a note into the log, so that a crash state can tell what had been reached.
    pub fn note(&self, text: impl Into<String>) {
        let text = text.into();
        self.lock().log(
            OpKind::Note,
            Path::new(""),
            Effect::Note(text),
            Outcome::Done,
        );
    }

    /// Makes everything durable as it is now and begins an empty log.
    pub fn make_durable(&self) {
        self.lock().make_durable();
    }

    /// Adds a rule that makes an operation fail.
    pub fn fail(&self, fault: Fault) {
        self.lock().faults.rules.push(fault);
    }

    /// Makes reads that touch `range` of the file or device at `path` fail with EIO.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn make_unreadable(&self, path: impl AsRef<Path>, range: Range<u64>) -> Result<()> {
        let mut inner = self.lock();
        let Some(file) = inner.live.find(path.as_ref()) else {
            return Err(missing(path.as_ref()));
        };
        inner.unreadable.push((file, range));
        Ok(())
    }

    /// Makes the file at `path` one of another user, which [`Directory::open_own`] refuses.
    ///
    /// # Errors
    /// `NotFound`.
    ///
    /// [`Directory::open_own`]: crate::storage::Directory::open_own
    pub fn make_foreign(&self, path: impl AsRef<Path>) -> Result<()> {
        let mut inner = self.lock();
        let Some(file) = inner.live.find(path.as_ref()) else {
            return Err(missing(path.as_ref()));
        };
        inner.set_foreign(file, true);
        Ok(())
    }

    /// Makes the disk one that cannot rename without replacing: a file gets its second name before
    /// it loses its first.
    pub fn link_to_rename(&self) {
        self.lock().links_to_rename = true;
    }

    /// Makes the disk one whose files can be clones of each other and can exchange their names; it
    /// stays one after a crash.
    pub fn clone_files(&self) {
        let mut inner = self.lock();
        (inner.start.clones, inner.live.clones) = (true, true);
    }

    /// Gives the file at `path` attributes, which a number stands for. Durable at once, as after
    /// [`make_durable`](FaultDisk::make_durable).
    ///
    /// # Errors
    /// `NotFound`.
    pub fn put_attributes(&self, path: impl AsRef<Path>, attributes: u64) -> Result<()> {
        let mut inner = self.lock();
        let Some(file) = inner.live.find(path.as_ref()) else {
            return Err(missing(path.as_ref()));
        };
        inner.live.set_attributes(file, attributes);
        inner.make_durable();
        Ok(())
    }

    /// The attributes of the file at `path` now, durable or not; those of a new file are 0.
    pub fn attributes(&self, path: impl AsRef<Path>) -> Option<u64> {
        let inner = self.lock();
        let file = inner.live.find(path.as_ref())?;
        Some(inner.live.attributes(file))
    }

    /// What the rules made fail so far, in order.
    pub fn fired(&self) -> Vec<Fired> {
        self.lock().faults.fired.clone()
    }

    /// Takes away all rules, unreadable ranges and dropped syncs: the disk is sound again. What
    /// a failed sync left in doubt stays in doubt.
    pub fn heal(&self) {
        let mut inner = self.lock();
        inner.faults = Faults::default();
        inner.unreadable.clear();
        inner.policy = None;
    }

    /// Makes syncs that `dropped` accepts report success and do nothing. It must not use the
    /// disk.
    pub fn drop_syncs(&self, dropped: impl Fn(&SyncCall) -> bool + Send + Sync + 'static) {
        self.lock().policy = Some(DropPolicy(Arc::new(dropped)));
    }

    /// What was done since the disk was last made durable.
    pub fn log(&self) -> Log {
        self.lock().snapshot()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.shared.lock()
    }
}

impl Default for FaultDisk {
    fn default() -> Self {
        FaultDisk::new()
    }
}
