//! How the VMs of a site are controlled.
//!
//! Every method is idempotent and takes the command's token: a controller keeps the newest token
//! of each VM and refuses older ones, so that a late command cannot undo a newer one.

mod commands;
mod contract;
mod facts;
mod no_controller;
#[cfg(feature = "qemu")]
pub mod qemu;

pub use commands::CommandController;
pub use contract::try_controller;
pub(super) use contract::try_program;
pub use facts::Facts;
pub(super) use no_controller::NoController;
#[cfg(feature = "qemu")]
pub use qemu::QemuController;

use super::machine::{Action, Checkpoint, VmSeen};
use crate::error::{Error, ErrorKind, Result};
pub use crate::vm::{Call, Changes, DiskChanges};

/// Controls one VM of one site.
///
/// The contract:
/// - A token older than the newest one seen is refused with `InUse`, and nothing is done.
/// - The same token again does nothing again; the VM is looked at anew.
/// - What is returned is what the VM is seen to be *after* the command took effect.
/// - `call.cancel` ends a method early, with `Cancelled`; it may have taken effect or not.
pub trait VmController: Send + Sync {
    /// Executes one of the [actions](Action) for VMs, and looks.
    ///
    /// # Errors
    /// `InUse` for an old token; [`misdirected`] for an action of disks; otherwise what the
    /// hypervisor says.
    fn execute(&self, call: &Call<'_>, action: Action) -> Result<VmSeen>;

    /// Where the disks can be read, and what was written to them since a checkpoint: up to the
    /// snapshot, or up to now where the VM is off.
    ///
    /// # Errors
    /// As [`execute`](Self::execute).
    fn changes_since(
        &self,
        call: &Call<'_>,
        since: Option<Checkpoint>,
        from_snapshot: bool,
    ) -> Result<Changes>;
}

/// What a controller's program is asked, as plans and programs name it: an action for VMs, or
/// [`CHANGES_SINCE`].
pub fn verb(action: Action) -> Option<&'static str> {
    Some(match action {
        Action::Inspect => "inspect",
        Action::Create => "create",
        Action::Fence => "fence",
        Action::Unfence => "unfence",
        Action::Start => "start",
        Action::ShutDown => "shut-down",
        Action::Retire { .. } => "retire",
        Action::ArmTracking { .. } => "arm-tracking",
        Action::Snapshot => "snapshot",
        Action::Release => "release",
        Action::StartTest => "start-test",
        Action::StopTest => "stop-test",
        _ => return None,
    })
}

/// The verb of [`VmController::changes_since`].
pub const CHANGES_SINCE: &str = "changes-since";

/// All verbs.
pub const VERBS: [&str; 13] = [
    "inspect",
    "create",
    "fence",
    "unfence",
    "start",
    "shut-down",
    "retire",
    "arm-tracking",
    "snapshot",
    "release",
    "start-test",
    "stop-test",
    CHANGES_SINCE,
];

/// The error for an action that is none of the resource that it was sent to.
pub fn misdirected(action: Action) -> Error {
    let text = format!("{action:?} was sent to a resource that does not know it");
    Error::new(ErrorKind::InvalidInput, text)
}
