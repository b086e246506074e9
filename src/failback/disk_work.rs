//! What the executor needs of the layer that moves disks.

use serde::{Deserialize, Serialize};

use super::machine::{Action, Answer, Problem, Side, Token};
use super::vm::DiskChanges;
use crate::error::{Error, ErrorKind, Result};
use crate::progress::Work;

/// The disks of a job's VM, at both sides.
///
/// The contract:
/// - A token older than the newest one that a side's disks have seen is refused with `InUse`, and
///   nothing is done; a newer one first ends what is still under way there. That holds across
///   executors: what still writes for a dead one is locked out or waited for.
/// - The same token again does nothing again and gives the same answer.
/// - All that a command has changed is durable when `Ok` is returned.
/// - Work stops at `work`'s cancel token, with `Cancelled`; a copy that was stopped is gone on with
///   by the next one.
pub trait DiskWork: Send + Sync {
    /// Executes one of the [actions](Action) for disks.
    ///
    /// # Errors
    /// `InUse` for an old token; `InvalidInput` for an action of VMs; `VerifyFailed` where disks
    /// that are not whole would become bootable; those of the storage.
    fn execute(&self, command: &DiskCommand<'_>, work: &Work) -> Result<Done>;
}

/// A command to the disks of a side, and what it needs to know.
#[derive(Debug, Clone, Copy)]
pub struct DiskCommand<'a> {
    /// Its number.
    pub token: Token,
    /// Whose disks.
    pub side: Side,
    /// What to do.
    pub action: Action,
    /// Keep the way back from a copy.
    pub keep_undo: bool,
    /// Where a copy reads each disk, and what changed on it where it goes by changes; what the
    /// disks' own VM wrote, for a restore after it ran.
    pub changes: Option<&'a [DiskChanges]>,
}

impl DiskCommand<'_> {
    /// Where a disk is read, and what changed on it.
    ///
    /// # Errors
    /// `Malformed` where that is not known.
    pub fn changes_of(&self, identity: &str) -> Result<&DiskChanges> {
        let mut all = self.changes.unwrap_or_default().iter();
        all.find(|it| it.identity == identity).ok_or_else(|| {
            let text = format!("no source and no changes are known of disk `{identity}`");
            Error::new(ErrorKind::Malformed, text)
        })
    }
}

/// What came of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Done {
    /// The answer to the machine.
    pub answer: Answer,
    /// More about it, for people.
    pub detail: Option<String>,
}

impl Done {
    /// The prerequisites do not hold, and why.
    pub fn unfit(detail: String) -> Self {
        Done {
            answer: Answer::Failed(Problem::Unfit),
            detail: Some(detail),
        }
    }
}

impl From<Answer> for Done {
    fn from(answer: Answer) -> Self {
        Done {
            answer,
            detail: None,
        }
    }
}
