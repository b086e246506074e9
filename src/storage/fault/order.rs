//! Rules over the order in which things were done.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::contents::FileBytes;
use super::log::Log;
use super::op::{Effect, FileId, Op, OpKind, Outcome, SyncCall};
use super::replay::{Hold, Replay};

/// A promise that was broken, and where.
pub struct Violation(String);

impl Violation {
    pub(super) fn new(text: String) -> Self {
        Violation(text)
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The same as `Display`, so that a test that unwraps shows it readably.
impl fmt::Debug for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Violation {}

/// A rule that is shown every operation of a log in order.
pub trait OrderRule {
    /// Looks at one operation.
    ///
    /// # Errors
    /// What is wrong with it.
    fn see(&mut self, step: &Step<'_>) -> Result<(), String>;
}

impl<F: FnMut(&Step<'_>) -> Result<(), String>> OrderRule for F {
    fn see(&mut self, step: &Step<'_>) -> Result<(), String> {
        self(step)
    }
}

/// One operation, and what was certain on the disk when it was asked for.
#[derive(Debug)]
pub struct Step<'a> {
    op: &'a Op,
    replay: &'a Replay,
}

impl<'a> Step<'a> {
    /// The operation.
    pub fn op(&self) -> &'a Op {
        self.op
    }

    /// The contents at `path` that a crash could not take away any more, leaving unsynced
    /// writes out; `None` where no such name is durable.
    pub fn durable(&self, path: impl AsRef<Path>) -> Option<&'a FileBytes> {
        let durable = &self.replay.durable;
        durable.contents(durable.find(path.as_ref())?)
    }

    /// Whether a crash now would leave anything of `path` in doubt: its bytes, its length, or
    /// whether that name is there and what it means.
    pub fn in_doubt(&self, path: impl AsRef<Path>) -> bool {
        let path = path.as_ref();
        let file = self.replay.durable.find(path);
        let doubts = |op: &Op| match &op.effect {
            Effect::Write { file: of, .. } | Effect::SetLen { file: of, .. } => file == Some(*of),
            Effect::Create { .. } | Effect::Remove { .. } => op.path() == path,
            Effect::Rename { .. } | Effect::Exchange { .. } => {
                op.path() == path || op.renamed_to().is_some_and(|to| to == path)
            }
            _ => false,
        };
        self.in_doubt_ops().any(|op| doubts(op))
    }

    fn in_doubt_ops(&self) -> impl Iterator<Item = &'a Arc<Op>> {
        let pending = self.replay.pending.iter();
        pending
            .filter(|pending| pending.hold != Hold::Sure)
            .map(|pending| &pending.op)
    }
}

impl Log {
    /// Shows every operation to `rule`.
    ///
    /// # Errors
    /// The first thing that the rule finds wrong, with the operation.
    pub fn check(&self, mut rule: impl OrderRule) -> Result<(), Violation> {
        let mut replay = Replay::new(self);
        for op in &self.ops {
            let step = Step {
                op,
                replay: &replay,
            };
            rule.see(&step)
                .map_err(|what| Violation(format!("{what}\n  at {op}")))?;
            replay.step(op);
        }
        Ok(())
    }
}

impl Log {
    /// Every sync that made something durable; [`syncs`](Log::syncs) also names those before
    /// which nothing was pending.
    pub fn barriers(&self) -> Vec<SyncCall> {
        let mut replay = Replay::new(self);
        let mut step = |op: &Arc<Op>| {
            let narrows = replay.narrows(op);
            replay.step(op);
            narrows
        };
        let narrows: Vec<bool> = self.ops.iter().map(&mut step).collect();
        let counted = |(op, narrows): (&Arc<Op>, bool)| {
            let succeeded = matches!(op.outcome, Outcome::Done | Outcome::Dropped);
            (op.kind.syncs() && succeeded).then_some(narrows)
        };
        let narrows = self.ops.iter().zip(narrows).filter_map(counted);
        let both = self.syncs().into_iter().zip(narrows);
        both.filter_map(|(call, narrows)| narrows.then_some(call))
            .collect()
    }
}

/// The rule that no byte of a file is written twice between two syncs of that file: the medium
/// may keep either, and a torn second write can spoil what the first one had made good.
#[derive(Debug, Default)]
pub struct NoRewrite {
    written: BTreeMap<FileId, BTreeMap<u64, u64>>,
}

impl NoRewrite {
    /// The rule, before the first operation.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a range; answers with one that it meets.
    fn add(&mut self, file: FileId, range: Range<u64>) -> Option<Range<u64>> {
        let written = self.written.entry(file).or_default();
        let before = written.range(..range.end).next_back();
        let met = before
            .map(|(&start, &end)| start..end)
            .filter(|met| met.end > range.start);
        written.insert(range.start, range.end);
        met
    }
}

impl OrderRule for NoRewrite {
    fn see(&mut self, step: &Step<'_>) -> Result<(), String> {
        match &step.op.effect {
            Effect::Sync { file } if step.op.outcome == Outcome::Done => {
                self.written.remove(file);
            }
            // What is written to a clone goes to space of its own.
            Effect::Write { file, patch, .. } if step.op.kind != OpKind::Clone => {
                if let Some(met) = self.add(*file, patch.range.clone()) {
                    return Err(format!(
                        "written twice without a sync between: {:#x}..{:#x} meets {:#x}..{:#x}",
                        patch.range.start, patch.range.end, met.start, met.end,
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// The rule that nothing is written to some files while others are not certain on the disk yet:
/// nothing reaches a target before its redo log is synced, names included.
pub struct SyncedBefore<F, T> {
    first: F,
    then: T,
}

opaque!(SyncedBefore<F, T>);

impl<F: Fn(&Path) -> bool, T: Fn(&Path) -> bool> SyncedBefore<F, T> {
    /// The rule that what `first` accepts is durable whenever something that `then` accepts is
    /// written, cut, extended or punched.
    pub fn new(first: F, then: T) -> Self {
        SyncedBefore { first, then }
    }
}

impl<F: Fn(&Path) -> bool, T: Fn(&Path) -> bool> OrderRule for SyncedBefore<F, T> {
    fn see(&mut self, step: &Step<'_>) -> Result<(), String> {
        let touches = matches!(
            step.op.kind,
            OpKind::Write | OpKind::PunchHole | OpKind::SetLen
        );
        if !touches || !(self.then)(&step.op.path) {
            return Ok(());
        }
        let waits = |op: &&Arc<Op>| {
            (self.first)(&op.path) || op.renamed_to().is_some_and(|to| (self.first)(&to))
        };
        match step.in_doubt_ops().find(waits) {
            Some(op) => Err(format!("touched before this was durable: {op}")),
            None => Ok(()),
        }
    }
}
