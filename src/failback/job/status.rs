//! Where a job stands, as anybody may see who can read its directory.

use serde::{Serialize, Serializer};

use super::directory::JobDirectory;
use super::meter::{Moving, published};
use super::requests::{Member, meaning};
use crate::error::Result;
use crate::failback::machine::{
    Convergence, Disposition, GroupAsked, JobMode, JobPhase, Machine, PassReport, Problem, Request,
    Side, Spec, State,
};
use crate::failback::record::{Record, StepRecord};

/// Where a job stands.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct JobStatus {
    /// The job's name.
    pub job: String,
    /// `primary-to-recovery` or `recovery-to-primary`.
    pub direction: &'static str,
    /// The process that runs it; `None`: none does, and nothing moves.
    pub run_by: Option<String>,
    /// What may be asked now, as the command names it.
    pub allowed: Vec<&'static str>,
    /// Its VMs.
    pub vms: Vec<VmStatus>,
}

/// Where a VM of a job stands.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct VmStatus {
    /// The VM's name.
    pub vm: String,
    /// Its group's name.
    pub group: String,
    /// What is copied when.
    pub mode: JobMode,
    /// How far it is.
    #[serde(serialize_with = "name")]
    pub phase: JobPhase,
    /// What became of the target's disks, where the job is over.
    pub disposition: Option<Disposition>,
    /// The side whose VM may run: the decision.
    pub active: Side,
    /// What is being done now.
    pub doing: Option<String>,
    /// What it needs before it goes on.
    pub waits_for: Option<&'static str>,
    /// Why it stands still.
    pub problem: Option<Problem>,
    /// More about that.
    pub detail: Option<String>,
    /// Passes made while the source runs.
    pub passes: u32,
    /// The last pass.
    pub last_pass: Option<PassReport>,
    /// Whether a cutover would fit the downtime budget.
    pub convergence: Convergence,
    /// The source's disks were read whole and are what the target was started with.
    pub proven: bool,
    /// What moves.
    pub moving: Option<Moving>,
}

/// A line of a job's log.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct LogLine {
    /// The VM's name.
    pub vm: String,
    /// What the journal holds.
    #[serde(flatten)]
    pub record: Record,
}

impl JobDirectory {
    /// Where the job stands now.
    ///
    /// # Errors
    /// `Malformed` for a damaged journal; `Io`.
    pub fn status(&self) -> Result<JobStatus> {
        let run_by = self.run_by()?;
        let directory = self.directory()?;
        let mut vms = Vec::new();
        let mut machines = Vec::new();
        for group in &self.plan().groups {
            for vm in &group.vms {
                let mode = self.mode(&vm.name);
                let (spec, last, state) = self.stand(&vm.name, self.plan().spec(vm, mode))?;
                let machine = Machine::resume(spec, state);
                let moving = published(&directory, &vm.name)
                    .filter(|_| run_by.is_some() && state.pending.is_some());
                vms.push(VmStatus {
                    vm: vm.name.clone(),
                    group: group.name.clone(),
                    mode: machine.spec().mode,
                    phase: state.phase,
                    disposition: match state.phase {
                        JobPhase::Cancelled(disposition) | JobPhase::RolledBack(disposition) => {
                            Some(disposition)
                        }
                        _ => None,
                    },
                    active: state.active,
                    doing: state.pending.map(|command| command.to_string()),
                    waits_for: machine.needs(),
                    problem: state.problem,
                    detail: last
                        .and_then(|step| step.detail)
                        .filter(|_| state.problem.is_some()),
                    passes: state.pass_count,
                    last_pass: state.reports[0],
                    convergence: Convergence::of(machine.spec(), &state),
                    proven: state.proven,
                    moving,
                });
                machines.push((vm.name.clone(), machine));
            }
        }
        Ok(JobStatus {
            job: self.plan().name.clone(),
            direction: self.plan().direction().name(),
            run_by,
            allowed: allowed(&machines),
            vms,
        })
    }

    /// Every condition of the phase that a VM is in, and whether it holds.
    ///
    /// # Errors
    /// As [`status`](Self::status).
    pub fn explain(&self, vm: &str) -> Result<Vec<(&'static str, bool)>> {
        let planned = self.plan().vms().find(|planned| planned.name == vm);
        let Some(planned) = planned else {
            return Ok(Vec::new());
        };
        let spec = self.plan().spec(planned, self.mode(vm));
        let (spec, _, state) = self.stand(vm, spec)?;
        Ok(Machine::resume(spec, state).explain())
    }

    /// All that the job's journals hold of its VMs, VM by VM, oldest first.
    ///
    /// # Errors
    /// As [`status`](Self::status).
    pub fn log(&self) -> Result<Vec<LogLine>> {
        let mut lines = Vec::new();
        for vm in self.plan().vms() {
            let records = self.records(&vm.name)?.into_iter();
            lines.extend(records.map(|record| LogLine {
                vm: vm.name.clone(),
                record,
            }));
        }
        Ok(lines)
    }

    /// What a VM's job is, its last step, and where that has led.
    fn stand(&self, vm: &str, planned: Spec) -> Result<(Spec, Option<StepRecord>, State)> {
        let (job, last) = self.ends(vm)?;
        let spec = job.map_or(planned, |job| job.spec);
        let state = last.as_ref().map_or(State::new(&spec), |step| step.state);
        Ok((spec, last, state))
    }
}

fn name<S: Serializer>(phase: &JobPhase, to: S) -> std::result::Result<S::Ok, S::Error> {
    to.serialize_str(phase.name())
}

/// What the job as a whole may be asked.
fn allowed(machines: &[(String, Machine)]) -> Vec<&'static str> {
    let members: Vec<_> = machines
        .iter()
        .map(|(vm, machine)| Member {
            vm,
            spec: machine.spec(),
            state: *machine.state(),
        })
        .collect();
    let may = |request| meaning(&members, GroupAsked::default(), request, "an operator").is_ok();
    ASKABLE
        .into_iter()
        .filter(|(_, request)| may(*request))
        .map(|(name, _)| name)
        .collect()
}

const ASKABLE: [(&str, Request); 10] = [
    ("start", Request::Start),
    ("complete", Request::Complete),
    ("abort", Request::Abort),
    ("cancel", Request::Cancel { restore: false }),
    ("cancel --restore", Request::Cancel { restore: true }),
    ("undo --accept-loss", undo(false)),
    ("undo --accept-loss --restore", undo(true)),
    ("commit", Request::Commit),
    ("reverse", Request::Reverse),
    ("retry", Request::Retry),
];

const fn undo(restore: bool) -> Request {
    Request::Undo {
        accept_loss: true,
        restore,
    }
}
