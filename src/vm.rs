//! Commands to a VM: their numbers, and what is known of the VM and of its disks.

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::location::Location;
use crate::progress::CancelToken;

/// Numbers the commands of a job, over all executors that ever ran it.
///
/// A resource keeps the newest token it has seen and refuses every older one, so that a late
/// command of a dead executor, or one that a later command replaced, has no effect.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Token {
    /// Which executor; each takeover counts one up.
    pub epoch: u64,
    /// Which command of that executor.
    pub sequence: u64,
}

impl Token {
    /// Takes note of a command, where this is the newest token that was seen: whether it is new.
    ///
    /// # Errors
    /// `InUse` for one that comes too late.
    pub fn admit(&mut self, token: Token) -> Result<bool> {
        if token < *self {
            return Err(token.too_late(*self));
        }
        Ok(std::mem::replace(self, token) < token)
    }

    /// The error for a command that came after the `newest` one.
    pub(crate) fn too_late(self, newest: Token) -> Error {
        let text = format!("command {self} comes too late: {newest} was seen already");
        Error::new(ErrorKind::InUse, text).advise("another executor has taken the job over")
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.sequence)
    }
}

/// A moment from which a VM's writes are tracked, named by the token of the command that armed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Checkpoint(pub Token);

/// What a VM is seen to be, after a command took effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VmSeen {
    /// It is there.
    pub exists: bool,
    /// It runs.
    pub running: bool,
    /// It cannot be started.
    pub fenced: bool,
}

/// What every command to a VM carries.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The command's number.
    pub token: Token,
    /// Ends it early.
    pub cancel: &'a CancelToken,
}

/// What was written to a VM's disks.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Changes {
    /// Disk by disk.
    Tracked(Vec<DiskChanges>),
    /// The record has a gap: the checkpoint is unknown, or was lost in a crash.
    TrackingLost,
    /// The snapshot is gone.
    SnapshotLost,
}

/// Where a disk can be read, and what was written to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskChanges {
    /// Which disk.
    pub identity: String,
    /// Where to read it.
    pub address: Location,
    /// The bytes that may have changed; `None` where no checkpoint was asked for.
    pub changed: Option<Vec<Range<u64>>>,
}
