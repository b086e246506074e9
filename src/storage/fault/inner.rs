//! Everything that is known of a disk, under one lock.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::inject::{self, Call, Failure, Faults};
use super::landing::Landing;
use super::log::Log;
use super::noise::Residue;
use super::op::{Effect, FileId, Op, OpKind, Outcome, SyncCall};
use super::replay::Replay;
use super::state::State;
use crate::error::{Error, ErrorKind, Result};

/// The disk, for all that show it.
#[derive(Debug, Clone)]
pub(super) struct Shared(Arc<Mutex<Inner>>);

impl Shared {
    pub(super) fn new(state: State, next_file: u64) -> Self {
        Shared(Arc::new(Mutex::new(Inner {
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
        })))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All of a disk; one lock over it keeps the log in one order.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) start: State,
    pub(super) live: State,
    ops: Vec<Arc<Op>>,
    next_file: u64,
    pub(super) faults: Faults,
    syncs: BTreeMap<Arc<Path>, u64>,
    pub(super) policy: Option<DropPolicy>,
    pub(super) unreadable: Vec<(FileId, Range<u64>)>,
    pub(super) sync_failures: BTreeMap<FileId, u64>,
    /// Handles for writing.
    writers: BTreeMap<FileId, usize>,
    foreign: BTreeSet<FileId>,
    pub(super) links_to_rename: bool,
    /// Holes that were reserved and not given back; a crash forgets them.
    pub(super) reserved: BTreeMap<FileId, Vec<Range<u64>>>,
}

impl Inner {
    pub(super) fn new_file(&mut self) -> FileId {
        self.next_file += 1;
        FileId(self.next_file)
    }

    pub(super) fn make_durable(&mut self) {
        self.start = self.live.clone();
        self.ops.clear();
        self.syncs.clear();
    }

    pub(super) fn snapshot(&self) -> Log {
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
    pub(super) fn holes(&self, file: FileId, range: &Range<u64>) -> Vec<Range<u64>> {
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
pub(super) struct DropPolicy(pub(super) Arc<dyn Fn(&SyncCall) -> bool + Send + Sync>);

impl std::fmt::Debug for DropPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DropPolicy")
    }
}

pub(super) fn missing(path: &Path) -> Error {
    Error::new(ErrorKind::NotFound, "no such file").at_path(path)
}
