//! The one ordered log of everything that was done to a disk.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::op::{Op, Outcome, SyncCall};
use super::state::State;

/// What was done to a disk since it was last made durable, in order.
#[derive(Debug, Clone)]
pub struct Log {
    pub(super) start: State,
    pub(super) ops: Vec<Arc<Op>>,
    pub(super) next_file: u64,
}

impl Log {
    /// The operations, in order.
    pub fn ops(&self) -> impl ExactSizeIterator<Item = &Op> {
        self.ops.iter().map(|op| &**op)
    }

    /// How many operations there are.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether nothing was done.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// The same operations, the one at `from` done at the place of the one at `to`: what a program
    /// does that takes a step too early or too late.
    #[must_use]
    pub fn moved(&self, from: usize, to: usize) -> Log {
        let mut log = self.clone();
        if from < log.ops.len() {
            let op = log.ops.remove(from);
            log.ops.insert(to.min(log.ops.len()), op);
        }
        log
    }

    /// Every sync that reported success, to be dropped in turn in later runs.
    pub fn syncs(&self) -> Vec<SyncCall> {
        let mut counts = std::collections::BTreeMap::<&Path, u64>::new();
        let mut syncs = Vec::new();
        for op in self.ops().filter(|op| op.kind.syncs()) {
            let nth = counts.entry(op.path()).or_default();
            *nth += 1;
            if matches!(op.outcome, Outcome::Done | Outcome::Dropped) {
                syncs.push(SyncCall {
                    path: op.path().to_owned(),
                    nth: *nth,
                });
            }
        }
        syncs
    }
}

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ops().try_for_each(|op| writeln!(f, "{op}"))
    }
}
