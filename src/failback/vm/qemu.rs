//! What actions do to a VM under QEMU.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Call, Changes, Facts, VmController, misdirected};
use crate::error::Result;
use crate::failback::machine::{Action, Checkpoint, VmSeen};
pub use crate::qemu::qmp;
use crate::qemu::{Launch, QemuVm};

/// Controls a VM under QEMU.
#[derive(Debug, Clone)]
pub struct QemuController(QemuVm);

impl QemuController {
    /// A VM whose directory lies in `directory`; `start` is the program that starts its QEMU.
    ///
    /// The program gets the VM's facts as the operator's other programs do, and the monitor's
    /// socket in `DISKDELTA_QMP`. It must start QEMU with `-S`, so that the guest does not run yet,
    /// and end. `time_limit` bounds it, and a guest's shutdown.
    pub fn new(facts: Facts, directory: &Path, start: Vec<String>, time_limit: Duration) -> Self {
        let disks = facts.disks.iter();
        let disks = disks.map(|(identity, path)| (identity.clone(), PathBuf::from(path)));
        let test_disks = facts.disks.iter().zip(&facts.blocked_disks);
        let test_disks = test_disks.map(|((_, own), (_, blocked))| format!("{own}={blocked}"));
        let launch = Launch {
            program: start,
            environment: facts.environment().to_vec(),
            networks: facts.networks.join(" "),
            test_disks: test_disks.collect::<Vec<_>>().join("\n"),
        };
        QemuController(QemuVm::new(
            directory.join(&facts.vm),
            disks.collect(),
            launch,
            time_limit,
        ))
    }
}

impl VmController for QemuController {
    fn execute(&self, call: &Call<'_>, action: Action) -> Result<VmSeen> {
        let vm = &self.0;
        let _admitted = vm.admit(call)?;
        match action {
            Action::Inspect => {}
            Action::Create => vm.create()?,
            Action::Fence => vm.fence(call)?,
            Action::Unfence => vm.unfence(call)?,
            Action::Start => vm.start(call)?,
            Action::ShutDown => vm.shut_down(call)?,
            Action::Retire { discard_disks } => vm.retire(call, discard_disks)?,
            Action::ArmTracking { keep } => vm.arm_tracking(call, keep)?,
            Action::Snapshot => vm.snapshot(call)?,
            Action::Release => vm.release(call)?,
            Action::StartTest => vm.start_test(call)?,
            Action::StopTest => vm.stop_test(call)?,
            other => return Err(misdirected(other)),
        }
        vm.seen(call)
    }

    fn changes_since(
        &self,
        call: &Call<'_>,
        since: Option<Checkpoint>,
        from_snapshot: bool,
    ) -> Result<Changes> {
        let _admitted = self.0.admit(call)?;
        match from_snapshot {
            true => self.0.changes_in_snapshot(call, since),
            false => self.0.changes_at_rest(call, since),
        }
    }
}
