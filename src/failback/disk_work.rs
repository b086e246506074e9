//! What the executor needs of the layer that moves disks.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::machine::{Amount, PassReport, Root, Side, Token};
use super::vm::DiskChanges;
use crate::error::Result;
use crate::progress::Work;

/// The disks of a job's VM, at both sides.
///
/// The contract:
/// - A token older than the newest one that a side's disks have seen is refused with `InUse`, and
///   nothing is done; a newer one first ends what is still under way there. That holds across
///   executors: whoever still writes for a dead one is locked out or waited for.
/// - The same token again does nothing again and gives the same answer.
/// - All that a method has changed is durable when it returns `Ok`.
/// - Work stops at `work`'s cancel token, with `Cancelled`; a copy that was stopped is gone on with
///   by the next one.
pub trait DiskWork: Send + Sync {
    /// Checks identity, size, format, space and key, and changes nothing. Empty: all fits.
    ///
    /// # Errors
    /// `InUse` for an old token; those of the storage. So for all methods.
    fn check(&self, token: Token, side: Side) -> Result<Vec<Finding>>;

    /// Makes the disks unbootable and marks them inconsistent; makes those that are missing, where
    /// the job may. Ends whatever is under way there.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    fn block(&self, token: Token, side: Side) -> Result<()>;

    /// Lifts the mark and makes the disks bootable, under their own names.
    ///
    /// # Errors
    /// As [`check`](Self::check); `VerifyFailed` for disks that are not whole.
    fn unblock(&self, token: Token, side: Side) -> Result<()>;

    /// Makes the disks of `order.to` hold what the other side's hold.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    fn copy(&self, token: Token, order: &CopyOrder<'_>, work: &Work) -> Result<PassReport>;

    /// Reads back what was copied, and gives the roots of what is there and of what should be, as
    /// kept current from pass to pass; `None` where something does not read back right.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    fn verify(&self, token: Token, side: Side, work: &Work) -> Result<Option<Roots>>;

    /// Reads the disks whole, and gives their root.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    fn prove(&self, token: Token, side: Side, work: &Work) -> Result<Root>;

    /// Whether the disks still hold what had this root when their VM was switched off.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    fn check_baseline(&self, token: Token, side: Side, expected: Root, work: &Work)
    -> Result<bool>;

    /// Makes the disks bit for bit what they were before the job. `written` is what their own VM
    /// wrote since it ran, if it did; the other side's disks hold these bytes as they were before.
    ///
    /// # Errors
    /// As [`check`](Self::check); `InvalidInput` where no undo file is kept.
    fn restore(
        &self,
        token: Token,
        side: Side,
        written: Option<&[DiskChanges]>,
        work: &Work,
    ) -> Result<()>;
}

/// One pass of copying.
#[derive(Debug, Clone, Copy)]
pub struct CopyOrder<'a> {
    /// Whose disks are written.
    pub to: Side,
    /// Which bytes, and why.
    pub amount: Amount,
    /// Where to read each disk, and what changed on it where `amount` goes by changes.
    pub from: &'a [DiskChanges],
    /// The source is a snapshot of a running VM; otherwise its VM is off and fenced.
    pub from_snapshot: bool,
    /// Keep the way back.
    pub keep_undo: bool,
}

/// What a verification found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roots {
    /// The root of what is there.
    pub found: Root,
    /// The root of what should be there.
    pub expected: Root,
}

/// A prerequisite that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was checked, in a word or two.
    pub check: Cow<'static, str>,
    /// What is wrong, and what to do.
    pub text: String,
}
