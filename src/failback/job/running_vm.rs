//! A VM of a job that runs: what its executor gets, and the runner's end of it.

use std::sync::Arc;

use super::controllers::{OwnControllers, controllers};
use super::directory::JobDirectory;
use super::vm_mailbox::{VmHandle, VmMailbox, vm_mailbox};
use crate::error::Result;
use crate::failback::disks::VmDisks;
use crate::failback::executor::{Bell, Executor, Intervals, Resources};
use crate::failback::machine::{JobMode, JobPhase, Problem, Side, Spec, State};
use crate::failback::plan::{Plan, Vm};
use crate::failback::record::JobRecord;
use crate::meter::{Meter, Moving};
use crate::progress::{CancelToken, Work};
use crate::storage::Directory;

/// A VM and what runs it.
pub(super) struct RunningVm {
    pub vm: String,
    /// The number of its group.
    pub group: usize,
    pub spec: Spec,
    pub handle: VmHandle,
    pub disks: Arc<VmDisks>,
    /// The state of its job in the last report.
    pub seen: Option<State>,
    /// Until they run.
    executor: Option<(Executor, VmMailbox)>,
    meter: Arc<Meter>,
    is_protected_by_passes: bool,
}

impl RunningVm {
    /// Begins the VM's job, or takes it up. `ends` ends its executor, and hears of its steps.
    ///
    /// # Errors
    /// Those of [`Executor::create`] and of [`Executor::resume`].
    pub(super) fn new(
        directory: &JobDirectory,
        (group, vm): (usize, &Vm),
        own: &OwnControllers,
        work: &Work,
        ends: (CancelToken, Bell),
    ) -> Result<Self> {
        let plan = directory.plan();
        let disks = Arc::new(VmDisks::new(plan, vm, directory.path(), directory.id));
        let meter = Arc::new(Meter::new());
        let resources = Resources {
            vms: controllers(plan, vm, own),
            disks: disks.clone(),
            work: work.clone().with_progress(meter.clone()),
        };
        let intervals = Intervals::default()
            .with_passes(plan.pass_interval)
            .with_protection(plan.protection_interval)
            .with_commit(plan.commit.1);
        let name = JobDirectory::journal_name(&vm.name);
        let host = directory.directory()?;
        let executor = match directory.has_begun(&vm.name)? {
            true => Executor::resume(&host, &name, resources, intervals)?,
            false => {
                // A crash may have left an empty journal: nothing was done.
                if host.names()?.contains(&name) {
                    host.remove(&name)?;
                }
                let job = JobRecord {
                    job: plan.name.clone(),
                    vm: vm.name.clone(),
                    direction: plan.direction().name().to_owned(),
                    spec: spec(plan, vm, directory.mode(&vm.name), &disks),
                    after_epoch: directory.begun.after_epoch,
                };
                Executor::create(&host, &name, job, resources, intervals)?
            }
        };
        let executor = executor.kept_short(Arc::new(host), &name);
        let (handle, mailbox) = vm_mailbox(*executor.state(), ends, meter.clone());
        Ok(RunningVm {
            vm: vm.name.clone(),
            group,
            spec: executor.job().spec.clone(),
            handle,
            disks,
            seen: None,
            executor: Some((executor, mailbox)),
            meter,
            is_protected_by_passes: plan.protection_interval.is_some(),
        })
    }

    /// What is to run in a thread of its own, once.
    pub(super) fn executor(&mut self) -> Option<(Executor, VmMailbox)> {
        self.executor.take()
    }

    /// Where its job stands.
    pub(super) fn state(&self) -> State {
        self.handle.state()
    }

    /// What moves.
    pub(super) fn moving(&self) -> Moving {
        match self.state().pending {
            Some(_) => self.meter.read(),
            None => Moving::nothing(),
        }
    }

    /// Whether nothing more happens without a request.
    pub(super) fn is_at_rest(&self) -> bool {
        let state = self.state();
        match state.phase {
            JobPhase::Planned => state.problem.is_some_and(|it: Problem| !it.is_transient()),
            JobPhase::Committed => !state.asked.reverse,
            JobPhase::Protected => !self.is_protected_by_passes,
            phase => phase.is_final(),
        }
    }
}

/// What is fixed about a VM's job: what its plan says, and what its disks are.
pub(super) fn spec(plan: &Plan, vm: &Vm, mode: JobMode, disks: &VmDisks) -> Spec {
    plan.spec(vm, mode)
        .with_atomic_only(disks.has_unwritable_device(Side::Source))
        .with_untestable(!disks.can_be_tested(Side::Target))
}
