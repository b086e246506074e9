//! Where a job stands, as anybody may see who can read its directory.

use serde::{Serialize, Serializer};

use super::directory::JobDirectory;
use super::meter::{Moving, published};
use super::requests::{Member, meaning};
use crate::error::Result;
use crate::failback::directory_mailbox;
use crate::failback::history::{AcceptedRequest, History, now_ms};
use crate::failback::machine::{
    Convergence, Disposition, GroupAsked, JobMode, JobPhase, Machine, PassReport, Problem, Request,
    Resource, Side, Spec, State,
};
use crate::failback::record::{Record, StepRecord};

/// Where a job stands. Moments are milliseconds since 1970.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct JobStatus {
    /// The job's name; that of its directory.
    pub job: String,
    /// `primary-to-recovery` or `recovery-to-primary`.
    pub direction: &'static str,
    /// What a job in this direction is called: `failover` or `failback`.
    pub operation: &'static str,
    /// When this was looked at.
    pub at_ms: u64,
    /// When the job was begun; 0 where that was not written down.
    pub begun_at_ms: u64,
    /// By whom.
    pub begun_by: String,
    /// The commit deletes the source's disks.
    pub deletes_source_disks: bool,
    /// The job that took its name and its disks later.
    pub superseded_by: Option<String>,
    /// The process that runs it; `None`: none does, and nothing moves.
    pub run_by: Option<RunBy>,
    /// The last request that was accepted.
    pub last_request: Option<AcceptedRequest>,
    /// What was asked and waits for a process that runs the job.
    pub queued: Vec<AcceptedRequest>,
    /// What may be asked of the job now, with options that ask for more.
    pub allowed: Vec<Request>,
    /// Its VMs.
    pub vms: Vec<VmStatus>,
}

impl JobStatus {
    /// Whether nothing comes of it any more: all VMs' jobs are over, or its disks are another's.
    pub fn is_over(&self) -> bool {
        self.superseded_by.is_some() || self.vms.iter().all(|vm| vm.phase.is_final())
    }
}

/// The process that runs a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RunBy {
    /// Its number; `None` in the moment in which it begins.
    pub process: Option<u32>,
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
    /// What moves for the command that is being carried out.
    pub moving: Option<Moving>,
    /// The replica of a protected VM is older than the plan allows.
    pub is_overdue: bool,
    /// What may be asked of it now. In a job of several VMs only the job as a whole is asked.
    pub allowed: Vec<Request>,
    /// What happened last, and when.
    #[serde(flatten)]
    pub history: History,
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
        let run_by = self.run_by()?.map(|holder| RunBy {
            process: holder.rsplit(' ').next().and_then(|it| it.parse().ok()),
        });
        let directory = self.directory()?;
        let (asked, mut last_request) = self.asked()?;
        let mut vms = Vec::new();
        let mut machines = Vec::new();
        for group in &self.plan().groups {
            for vm in &group.vms {
                let mode = self.mode(&vm.name);
                let (spec, last, state) = self.stand(&vm.name, self.plan().spec(vm, mode))?;
                let machine = Machine::resume(spec, state);
                let on_disks = state
                    .pending
                    .is_some_and(|command| matches!(command.resource, Resource::Disk(_)));
                let moving = match run_by {
                    Some(_) if on_disks => published(&directory, &vm.name),
                    _ => None,
                };
                let (detail, history) = match last {
                    Some(step) => (step.detail, step.history),
                    None => Default::default(),
                };
                if last_request.is_none() && self.plan().vms().count() == 1 {
                    last_request = history.last_request.clone();
                }
                vms.push(VmStatus {
                    is_overdue: self.is_overdue(&state, &history),
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
                    detail: detail.filter(|_| state.problem.is_some()),
                    passes: state.pass_count,
                    last_pass: state.reports[0],
                    convergence: Convergence::of(machine.spec(), &state),
                    proven: state.proven,
                    moving: moving.filter(|moving| moving.done_bytes > 0),
                    allowed: allowed(&[(vm.name.clone(), machine.clone())], asked),
                    history,
                });
                machines.push((vm.name.clone(), machine));
            }
        }
        let name = self.path().file_name().unwrap_or_default();
        let job = name.to_string_lossy().into_owned();
        let plan = self.plan();
        Ok(JobStatus {
            deletes_source_disks: plan.discard_baseline,
            superseded_by: (job != plan.name).then(|| plan.name.clone()),
            job,
            direction: plan.direction().name(),
            operation: plan.direction().operation(),
            at_ms: now_ms(),
            begun_at_ms: self.begun.at_ms,
            begun_by: self.begun.by.clone(),
            run_by,
            last_request,
            queued: directory_mailbox::queued(&*self.mailbox()?)?,
            allowed: allowed(&machines, asked),
            vms,
        })
    }

    fn is_overdue(&self, state: &State, history: &History) -> bool {
        let replicates = matches!(
            state.phase,
            JobPhase::Protected | JobPhase::ReverseReplicating
        );
        let copied_at_ms = history
            .last_copy
            .map_or(history.phase_at_ms, |it| it.as_of_ms);
        let most = self.plan().max_replica_age.as_millis();
        let age = now_ms().saturating_sub(copied_at_ms);
        replicates && most > 0 && u128::from(age) > most
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
fn allowed(machines: &[(String, Machine)], asked: GroupAsked) -> Vec<Request> {
    let members: Vec<_> = machines
        .iter()
        .map(|(vm, machine)| Member {
            vm,
            spec: machine.spec(),
            state: *machine.state(),
        })
        .collect();
    let may = |request: &Request| meaning(&members, asked, *request, "an operator").is_ok();
    ASKABLE.into_iter().filter(may).collect()
}

const ASKABLE: [Request; 12] = [
    Request::Start,
    Request::Complete,
    Request::Abort,
    Request::Cancel { restore: false },
    Request::Cancel { restore: true },
    undo(false),
    undo(true),
    Request::Commit,
    Request::Reverse,
    Request::Retry,
    Request::Test { end: false },
    Request::Test { end: true },
];

const fn undo(restore: bool) -> Request {
    Request::Undo {
        accept_loss: true,
        restore,
    }
}
