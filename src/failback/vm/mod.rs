//! How the VMs of a site are controlled.
//!
//! Every method is idempotent and takes the command's token: a controller keeps the newest token
//! of each VM and refuses older ones, so that a late command cannot undo a newer one.

mod commands;
#[cfg(feature = "qemu")]
pub mod qemu;
mod simulated;

use std::ops::Range;

pub use commands::{CommandController, Facts};
#[cfg(feature = "qemu")]
pub use qemu::QemuController;
pub use simulated::{SimulatedVm, Simulation};

use super::machine::{Checkpoint, Token, VmSeen};
use super::plan::Address;
use crate::error::{Error, ErrorKind, Result};
use crate::progress::CancelToken;

/// Controls one VM of one site.
///
/// The contract:
/// - A token older than the newest one seen is refused with `InUse`, and nothing is done.
/// - The same token again does nothing again; the VM is looked at anew.
/// - What is returned is what the VM is seen to be *after* the command took effect.
/// - `call.cancel` ends a method early, with `Cancelled`; it may have taken effect or not.
pub trait VmController: Send + Sync {
    /// Looks.
    ///
    /// # Errors
    /// `InUse` for an old token; otherwise what the hypervisor says. So for all methods.
    fn inspect(&self, call: &Call<'_>) -> Result<VmSeen>;

    /// Makes the VM if it is not there, switched off.
    ///
    /// # Errors
    /// As [`inspect`](Self::inspect).
    fn create(&self, call: &Call<'_>) -> Result<VmSeen>;

    /// Sees to it that nobody can start the VM, also after a reboot of its host.
    ///
    /// # Errors
    /// As [`inspect`](Self::inspect).
    fn fence(&self, call: &Call<'_>) -> Result<VmSeen>;

    /// Lets the VM be started again.
    ///
    /// # Errors
    /// As [`inspect`](Self::inspect).
    fn unfence(&self, call: &Call<'_>) -> Result<VmSeen>;

    /// Starts the VM.
    ///
    /// # Errors
    /// As [`inspect`](Self::inspect).
    fn start(&self, call: &Call<'_>) -> Result<VmSeen>;

    /// Asks the guest to shut down, and waits until it is off.
    ///
    /// # Errors
    /// As [`inspect`](Self::inspect).
    fn shut_down(&self, call: &Call<'_>) -> Result<VmSeen>;

    /// Takes the VM out of service for good. Its disks stay, unless `discard_disks`.
    ///
    /// # Errors
    /// As [`inspect`](Self::inspect).
    fn retire(&self, call: &Call<'_>, discard_disks: bool) -> Result<VmSeen>;

    /// Tracks writes from now on; the checkpoint is named by the call's token. `keep` stays
    /// answerable, and writes from now on count for it too, also where its record was closed.
    ///
    /// # Errors
    /// As [`inspect`](Self::inspect).
    fn arm_tracking(&self, call: &Call<'_>, keep: Option<Checkpoint>) -> Result<VmSeen>;

    /// Holds one moment of all disks for reading.
    ///
    /// # Errors
    /// As [`inspect`](Self::inspect).
    fn snapshot(&self, call: &Call<'_>) -> Result<VmSeen>;

    /// Lets the snapshot go.
    ///
    /// # Errors
    /// As [`inspect`](Self::inspect).
    fn release(&self, call: &Call<'_>) -> Result<VmSeen>;

    /// Where the disks can be read, and what was written to them since a checkpoint: up to the
    /// snapshot, or up to now where the VM is off.
    ///
    /// # Errors
    /// As [`inspect`](Self::inspect).
    fn changes_since(
        &self,
        call: &Call<'_>,
        since: Option<Checkpoint>,
        from_snapshot: bool,
    ) -> Result<Changes>;
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
    pub address: Address,
    /// The bytes that may have changed; `None` where no checkpoint was asked for.
    pub changed: Option<Vec<Range<u64>>>,
}

/// The methods of a [`VmController`], by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Verb {
    /// [`VmController::inspect`]
    Inspect,
    /// [`VmController::create`]
    Create,
    /// [`VmController::fence`]
    Fence,
    /// [`VmController::unfence`]
    Unfence,
    /// [`VmController::start`]
    Start,
    /// [`VmController::shut_down`]
    ShutDown,
    /// [`VmController::retire`]
    Retire,
    /// [`VmController::arm_tracking`]
    ArmTracking,
    /// [`VmController::snapshot`]
    Snapshot,
    /// [`VmController::release`]
    Release,
    /// [`VmController::changes_since`]
    ChangesSince,
}

impl Verb {
    /// All of them.
    pub const ALL: [Verb; 11] = [
        Verb::Inspect,
        Verb::Create,
        Verb::Fence,
        Verb::Unfence,
        Verb::Start,
        Verb::ShutDown,
        Verb::Retire,
        Verb::ArmTracking,
        Verb::Snapshot,
        Verb::Release,
        Verb::ChangesSince,
    ];

    /// Its name in plans and programs.
    pub fn name(self) -> &'static str {
        match self {
            Verb::Inspect => "inspect",
            Verb::Create => "create",
            Verb::Fence => "fence",
            Verb::Unfence => "unfence",
            Verb::Start => "start",
            Verb::ShutDown => "shut-down",
            Verb::Retire => "retire",
            Verb::ArmTracking => "arm-tracking",
            Verb::Snapshot => "snapshot",
            Verb::Release => "release",
            Verb::ChangesSince => "changes-since",
        }
    }

    /// The verb of a name.
    pub fn parse(name: &str) -> Option<Verb> {
        Verb::ALL.into_iter().find(|verb| verb.name() == name)
    }
}

/// The error for a command that came too late.
pub(super) fn too_late(token: Token, newest: Token) -> Error {
    let text = format!("command {token} comes too late: {newest} was seen already");
    Error::new(ErrorKind::InUse, text).advise("another executor has taken the job over")
}
