//! What is durable, and what may be, as a log goes on.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::contents::FileBytes;
use super::landing::Landing;
use super::log::Log;
use super::noise::Residue;
use super::op::{Effect, FileId, Op, OpKind, Outcome};
use super::state::State;

/// The durable contents before some operation of a log, and what may or may not have landed on
/// top of them.
#[derive(Debug, Clone)]
pub(super) struct Replay {
    pub(super) durable: State,
    pub(super) pending: Vec<Pending>,
}

/// An operation that is not folded into the durable contents yet.
#[derive(Debug, Clone)]
pub(super) struct Pending {
    pub(super) op: Arc<Op>,
    pub(super) hold: Hold,
}

/// What is known of a pending operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    /// The next sync makes it durable.
    Open,
    /// A sync of it failed: no later sync says anything about it.
    Doomed,
    /// Durable, but above a doomed one.
    Sure,
}

impl Replay {
    /// Before the first operation of a log.
    pub(super) fn new(log: &Log) -> Self {
        Replay {
            durable: log.start.clone(),
            pending: Vec::new(),
        }
    }

    /// After all of a log.
    pub(super) fn of(log: &Log) -> Self {
        let mut replay = Replay::new(log);
        log.ops.iter().for_each(|op| replay.step(op));
        replay
    }

    /// Whether `op` would make something durable, so that fewer states are possible after it.
    pub(super) fn narrows(&self, op: &Op) -> bool {
        let folds = |pending: &Pending| pending.hold == Hold::Open && covers(op, &pending.op);
        op.outcome == Outcome::Done && op.kind.syncs() && self.pending.iter().any(folds)
    }

    pub(super) fn step(&mut self, op: &Arc<Op>) {
        if op.pends() {
            if let Effect::Create { file, .. } = &op.effect {
                // The file itself is there at once: without a durable name it is not seen.
                self.durable.contents_mut(*file);
            }
            let (op, hold) = (op.clone(), Hold::Open);
            self.pending.push(Pending { op, hold });
            return;
        }
        match (op.kind, op.outcome) {
            (OpKind::Sync | OpKind::SyncDirectory, Outcome::Done) => self.fold(op),
            (OpKind::Sync, Outcome::Failed) => {
                let doubted =
                    |pending: &&mut Pending| pending.hold == Hold::Open && covers(op, &pending.op);
                let doubted = self.pending.iter_mut().filter(doubted);
                doubted.for_each(|pending| pending.hold = Hold::Doomed);
            }
            (OpKind::Sync, Outcome::Lost) => {
                let kept = |pending: &Pending| pending.hold == Hold::Sure;
                self.pending
                    .retain(|pending| kept(pending) || !covers(op, &pending.op));
                self.fold(op);
            }
            _ => {}
        }
    }

    /// Makes durable what a sync covers.
    fn fold(&mut self, sync: &Op) {
        let mut doomed = BTreeSet::<FileId>::new();
        let durable = &mut self.durable;
        let nothing = Residue::default();
        self.pending.retain_mut(|pending| {
            if !covers(sync, &pending.op) {
                return true;
            }
            let file = pending.op.file();
            if pending.hold == Hold::Doomed {
                doomed.extend(file);
            }
            if file.is_some_and(|file| doomed.contains(&file)) {
                if pending.hold == Hold::Open {
                    pending.hold = Hold::Sure;
                }
                return true;
            }
            durable.apply(&pending.op, &Landing::WHOLE, &nothing);
            false
        });
        if sync.kind == OpKind::SyncDirectory {
            self.forget_unreachable();
        }
    }

    /// Drops what is pending for files that have no durable name and can get none any more.
    fn forget_unreachable(&mut self) {
        let named = self
            .pending
            .iter()
            .filter_map(|pending| pending.op.names_file());
        let named: BTreeSet<FileId> = named.collect();
        let durable = &self.durable;
        self.pending.retain(|pending| match pending.op.file() {
            Some(file) => named.contains(&file) || durable.is_named(file),
            None => true,
        });
    }

    /// A file that is no more, and what its space holds.
    pub(super) fn stale(&self) -> Option<FileBytes> {
        let file = self.durable.newest_nameless()?;
        let mut named = self
            .pending
            .iter()
            .filter_map(|pending| pending.op.names_file());
        if named.any(|named| named == file) {
            return None;
        }
        self.durable.contents(file).cloned()
    }
}

/// Whether a sync makes an operation durable: data and length by the file, names by the directory.
fn covers(sync: &Op, op: &Op) -> bool {
    match &sync.effect {
        Effect::Sync { file } => op.file() == Some(*file),
        Effect::SyncDirectory { directory } => op.directory() == Some(directory),
        _ => false,
    }
}
