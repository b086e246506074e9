//! The disk: directories, files and devices under one log.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::contents::FileBytes;
use super::directory::FaultDirectory;
use super::handle::FaultStorage;
use super::inject::{self, Call, Failure, Fault, Faults, Fired};
use super::landing::Landing;
use super::log::{Effect, Log, Op, OpKind, Outcome, SyncCall, without_ids};
use super::noise::Residue;
use super::replay::Replay;
use super::state::{FileId, State};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::Access;

/// Directories, files and devices in memory whose every change is logged, can be made to fail, and
/// can be cut off by a crash. Clones show the same disk.
#[derive(Debug, Clone)]
pub struct FaultDisk {
    shared: Arc<Mutex<Inner>>,
}

impl FaultDisk {
    /// A disk without directories.
    pub fn new() -> Self {
        FaultDisk::holding(State::default(), 0)
    }

    pub(super) fn holding(state: State, next_file: u64) -> Self {
        let inner = Inner {
            start: state.clone(),
            live: state,
            ops: Vec::new(),
            next_file,
            faults: Faults::default(),
            syncs: BTreeMap::new(),
            policy: None,
            unreadable: Vec::new(),
            sync_failures: BTreeMap::new(),
            writers: BTreeMap::new(),
            foreign: BTreeSet::new(),
            links_to_rename: false,
            reserved: BTreeMap::new(),
        };
        FaultDisk {
            shared: Arc::new(Mutex::new(inner)),
        }
    }

    /// The directory at `path`; an empty one, durable at once, where there was none.
    pub fn directory(&self, path: impl AsRef<Path>) -> FaultDirectory {
        let path: Arc<Path> = path.as_ref().into();
        let mut inner = self.lock();
        inner.start.add_directory(&path);
        inner.live.add_directory(&path);
        FaultDirectory::new(self.clone(), path)
    }

    /// Puts a file there, as if it had always been there, making its directory; one of that name
    /// stays the same file and holds this. Everything done before counts as durable from now on, as after
    /// [`settle`](FaultDisk::settle).
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
        inner.settle();
    }

    /// Puts a device of fixed length there, in no directory, as [`put`](FaultDisk::put) does.
    pub fn put_device(&self, path: impl AsRef<Path>, contents: impl Into<FileBytes>) {
        let mut inner = self.lock();
        let file = inner.new_file();
        inner.live.put_contents(file, contents.into());
        inner.live.add_device(path.as_ref().into(), file);
        inner.settle();
    }

    /// Opens the file or device at `path`.
    ///
    /// # Errors
    /// `NotFound`; what a [`Fault`] makes of it.
    pub fn open(&self, path: impl AsRef<Path>, access: Access) -> Result<FaultStorage> {
        let path = path.as_ref();
        let mut inner = self.lock();
        let logged = without_ids(path);
        let late = inner.judge(OpKind::Open, &logged, 0..0)?;
        let Some(file) = inner.live.find(path) else {
            return Err(missing(path));
        };
        late.done()?;
        if access == Access::Write {
            inner.add_writer(file);
        }
        let failures = inner.sync_failures.get(&file).copied().unwrap_or(0);
        Ok(FaultStorage::new(
            self.clone(),
            file,
            logged.into(),
            access,
            failures,
        ))
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
    pub fn settle(&self) {
        self.lock().settle();
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

    /// Gives the file at `path` attributes, which a number stands for. Durable at once, as after
    /// [`settle`](FaultDisk::settle).
    ///
    /// # Errors
    /// `NotFound`.
    pub fn put_attributes(&self, path: impl AsRef<Path>, attributes: u64) -> Result<()> {
        let mut inner = self.lock();
        let Some(file) = inner.live.find(path.as_ref()) else {
            return Err(missing(path.as_ref()));
        };
        inner.live.set_attributes(file, attributes);
        inner.settle();
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

    /// What was done since the disk was last settled.
    pub fn log(&self) -> Log {
        self.lock().snapshot()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for FaultDisk {
    fn default() -> Self {
        FaultDisk::new()
    }
}

/// All of a disk; one lock over it keeps the log in one order.
#[derive(Debug)]
pub(super) struct Inner {
    start: State,
    pub(super) live: State,
    ops: Vec<Arc<Op>>,
    next_file: u64,
    faults: Faults,
    syncs: BTreeMap<Arc<Path>, u64>,
    policy: Option<DropPolicy>,
    unreadable: Vec<(FileId, Range<u64>)>,
    sync_failures: BTreeMap<FileId, u64>,
    /// Handles for writing.
    writers: BTreeMap<FileId, usize>,
    foreign: BTreeSet<FileId>,
    links_to_rename: bool,
    /// Holes that were reserved and not given back; a crash forgets them.
    reserved: BTreeMap<FileId, Vec<Range<u64>>>,
}

impl Inner {
    pub(super) fn new_file(&mut self) -> FileId {
        self.next_file += 1;
        FileId(self.next_file)
    }

    fn settle(&mut self) {
        self.start = self.live.clone();
        self.ops.clear();
        self.syncs.clear();
    }

    fn snapshot(&self) -> Log {
        Log {
            start: self.start.clone(),
            ops: self.ops.clone(),
            next_file: self.next_file,
        }
    }

    /// Shows a file as it lies on the medium, after a sync that threw its writes away.
    pub(super) fn fall_back(&mut self, file: FileId) {
        let replay = Replay::of(&self.snapshot());
        if let Some(contents) = replay.durable.contents(file) {
            self.live.put_contents(file, contents.clone());
        }
    }

    /// Asks the rules about a call; a failing one that changes things is logged.
    pub(super) fn judge(&mut self, kind: OpKind, path: &Path, range: Range<u64>) -> Result<Late> {
        let call = Call { kind, path, range };
        match self.faults.judge(&call) {
            None => Ok(Late(None)),
            Some(Failure::Late) => Ok(Late(Some(inject::error(Failure::Late, &call)))),
            Some(failure) => {
                if kind.changes() {
                    self.log(kind, path, Effect::Nothing, Outcome::Failed);
                }
                Err(inject::error(failure, &call))
            }
        }
    }

    /// As [`judge`](Inner::judge), but leaves it to the caller what the failure does.
    pub(super) fn judge_open(
        &mut self,
        kind: OpKind,
        path: &Path,
        range: Range<u64>,
    ) -> Option<(Failure, Error)> {
        let call = Call { kind, path, range };
        let failure = self.faults.judge(&call)?;
        Some((failure, inject::error(failure, &call)))
    }

    /// Carries out and logs an operation.
    pub(super) fn log(&mut self, kind: OpKind, path: &Path, effect: Effect, outcome: Outcome) {
        let path = match self.ops.last() {
            Some(last) if *last.path == *path => last.path.clone(),
            _ => path.into(),
        };
        let number = self.ops.len();
        let op = Op {
            number,
            kind,
            path,
            effect,
            outcome,
        };
        self.live.apply(&op, &Landing::WHOLE, &Residue::default());
        self.ops.push(Arc::new(op));
    }

    /// Whether the next sync of `path` really takes place.
    pub(super) fn sync_outcome(&mut self, path: &Path) -> Outcome {
        let nth = self.syncs.entry(path.into()).or_default();
        *nth += 1;
        let call = SyncCall {
            path: path.to_owned(),
            nth: *nth,
        };
        match &self.policy {
            Some(DropPolicy(dropped)) if dropped(&call) => Outcome::Dropped,
            _ => Outcome::Done,
        }
    }

    pub(super) fn sync_failures(&mut self, file: FileId) -> &mut u64 {
        self.sync_failures.entry(file).or_default()
    }

    pub(super) fn add_writer(&mut self, file: FileId) {
        *self.writers.entry(file).or_default() += 1;
    }

    pub(super) fn drop_writer(&mut self, file: FileId) {
        if let Some(count) = self.writers.get_mut(&file) {
            *count = count.saturating_sub(1);
        }
    }

    pub(super) fn has_writers(&self, file: FileId) -> bool {
        self.writers.get(&file).is_some_and(|count| *count > 0)
    }

    pub(super) fn is_foreign(&self, file: FileId) -> bool {
        self.foreign.contains(&file)
    }

    pub(super) fn set_foreign(&mut self, file: FileId, is_foreign: bool) {
        match is_foreign {
            true => self.foreign.insert(file),
            false => self.foreign.remove(&file),
        };
    }

    pub(super) fn links_to_rename(&self) -> bool {
        self.links_to_rename
    }

    /// Notes the holes in `range` as reserved; returns them.
    pub(super) fn take_space(&mut self, file: FileId, range: &Range<u64>) -> Vec<Range<u64>> {
        let taken = self.holes(file, range);
        let reserved = self.reserved.entry(file).or_default();
        reserved.extend(taken.iter().cloned());
        taken
    }

    /// Forgets what lies in `ranges` of the reservations of a file.
    pub(super) fn give_back_space(&mut self, file: FileId, ranges: &[Range<u64>]) {
        let Some(reserved) = self.reserved.get_mut(&file) else {
            return;
        };
        for gone in ranges {
            let left = reserved.drain(..).flat_map(|range| {
                let before = range.start..range.end.min(gone.start);
                let after = range.start.max(gone.end)..range.end;
                [before, after]
            });
            *reserved = left.filter(|range| !range.is_empty()).collect();
        }
    }

    /// The holes in `range`, all beyond the end among them.
    fn holes(&self, file: FileId, range: &Range<u64>) -> Vec<Range<u64>> {
        let mut holes = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let contents = self.live.contents(file);
            let data = contents.and_then(|contents| contents.next_data(at));
            let data = data.unwrap_or(range.end..range.end);
            let hole = at..data.start.min(range.end);
            if !hole.is_empty() {
                holes.push(hole);
            }
            at = data.end;
        }
        holes
    }

    pub(super) fn readable(&self, file: FileId, range: &Range<u64>) -> bool {
        let meets = |bad: &Range<u64>| bad.start < range.end && range.start < bad.end;
        !self
            .unreadable
            .iter()
            .any(|(in_file, bad)| *in_file == file && meets(bad))
    }
}

/// The error that a call reports although all was done, if any.
#[must_use]
pub(super) struct Late(Option<Error>);

impl Late {
    pub(super) fn done(self) -> Result<()> {
        self.0.map_or(Ok(()), Err)
    }
}

#[derive(Clone)]
struct DropPolicy(Arc<dyn Fn(&SyncCall) -> bool + Send + Sync>);

impl std::fmt::Debug for DropPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DropPolicy")
    }
}

pub(super) fn missing(path: &Path) -> Error {
    Error::new(ErrorKind::NotFound, "no such file").at_path(path)
}
