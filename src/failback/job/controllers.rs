//! What controls the VMs of a job.

use std::sync::Arc;

use crate::failback::disks::blocked_address;
use crate::failback::machine::{Side, Sides};
use crate::failback::plan::{Controller, Disk, Plan, SiteName, Vm};
#[cfg(feature = "qemu")]
use crate::failback::vm::QemuController;
use crate::failback::vm::{CommandController, Facts, NoController, VmController};

/// Controllers that do not follow from a plan, by site and VM; `None`: as the plan says.
pub type OwnControllers = dyn Fn(SiteName, &Vm) -> Option<Arc<dyn VmController>>;

/// As the plan says, for all VMs.
pub(super) fn as_planned(_: SiteName, _: &Vm) -> Option<Arc<dyn VmController>> {
    None
}

/// What controls a VM at each side of its job.
pub(super) fn controllers(
    plan: &Plan,
    vm: &Vm,
    own: &OwnControllers,
) -> Sides<Arc<dyn VmController>> {
    Sides::of_each(|side| {
        let name = plan.site_at(side);
        own(name, vm).unwrap_or_else(|| planned_controller(plan, vm, side, name))
    })
}

fn planned_controller(plan: &Plan, vm: &Vm, side: Side, name: SiteName) -> Arc<dyn VmController> {
    let site = plan.site(name);
    let blocked = |disk: &Disk| blocked_address(disk.at(name), disk.format_at(name), &plan.name);
    let facts = Facts {
        job: plan.name.clone(),
        vm: vm.name.clone(),
        side,
        site: name.name().to_owned(),
        host: site.host.clone(),
        networks: vm.networks.clone(),
        disks: vm
            .disks
            .iter()
            .map(|disk| (disk.identity.clone(), disk.at(name).to_string()))
            .collect(),
        blocked_disks: vm
            .disks
            .iter()
            .map(|disk| (disk.identity.clone(), blocked(disk)))
            .collect(),
    };
    match site.controller.clone() {
        Controller::Own => Arc::new(NoController),
        Controller::Commands {
            verbs,
            default,
            time_limit,
        } => Arc::new(CommandController::new(facts, verbs, default, time_limit)),
        #[cfg(feature = "qemu")]
        Controller::Qemu {
            directory,
            start,
            time_limit,
        } => Arc::new(QemuController::new(facts, &directory, start, time_limit)),
    }
}
