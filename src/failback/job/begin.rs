//! Beginning a job and taking one up: no two of them have a disk in common.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::directory::{JobDirectory, LOCK, MAILBOX, PLAN_JOURNAL, is_job};
use crate::advice::Advice;
use crate::error::{Error, ErrorKind, Result};
use crate::failback::disks::one_file::{files, refuse_one_file};
use crate::failback::history::now_ms;
use crate::failback::machine::{JobMode, JobPhase};
use crate::failback::plan::Plan;
use crate::failback::record::{Begun, PlanRecord};
use crate::journal::Writer;
use crate::random::random;
use crate::storage::{Directory, HostDirectory, LockFile};

impl JobDirectory {
    /// Begins a job: its directory and the journal of its plan are durable when this returns. A job
    /// of the same name that is over is put aside under another name. One process at a time begins
    /// a job in `state_dir`; others wait. The job is run by this process as soon as it is there,
    /// until it is [taken up](super::JobRunner::resume) or all clones of the result are dropped.
    ///
    /// # Errors
    /// `AlreadyExists` for a job of that name that is not over; `InUse` where another job that is
    /// not over has one of the disks; `InvalidInput` for a wrong plan; `NoSpace`, `Io`.
    pub fn create(
        state_dir: &Path,
        plan_text: &str,
        modes: BTreeMap<String, JobMode>,
        by: &str,
    ) -> Result<Self> {
        let plan = Plan::parse(plan_text)?;
        refuse_one_file(&plan)?;
        HostDirectory::make(state_dir)?;
        let _gate = gate(state_dir)?;
        refuse_conflicts(state_dir, &plan)?;
        let after_epoch = last_epoch(state_dir)?;
        let path = state_dir.join(&plan.name);
        if is_job(&path)? {
            put_aside(state_dir, &plan.name)?;
        }
        HostDirectory::make(&path)?;
        HostDirectory::make(&path.join(MAILBOX))?;
        let directory = HostDirectory::open(&path)?;
        // From before it is there: so it is never found and taken for one that was given up.
        let lock = take(&path)?;
        let id = random()?;
        let mut journal = Writer::create(&directory, OsStr::new(PLAN_JOURNAL), id)?;
        let begun = Begun {
            plan: plan_text.to_owned(),
            modes,
            by: by.to_owned(),
            at_ms: now_ms(),
            after_epoch,
        };
        journal.append(&PlanRecord::Begun(begun.clone()).encode()?)?;
        HostDirectory::open(state_dir)?.sync()?;
        Ok(JobDirectory {
            path,
            plan,
            begun,
            id,
            held: Arc::new(Mutex::new(Some(lock))),
        })
    }

    /// Takes the job over, until the lock is dropped.
    ///
    /// # Errors
    /// `InUse`, saying by whom, and where another job that is not over has one of its disks; `Io`.
    pub(super) fn lock(&self) -> Result<LockFile> {
        let held = self
            .held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(lock) = held {
            return Ok(lock);
        }
        let state_dir = self.path.parent().unwrap_or(Path::new("/"));
        // One that was begun meanwhile may have taken this one for given up.
        let _gate = gate(state_dir)?;
        self.directory()?.refuse_shared()?;
        let lock = take(&self.path)?;
        refuse_shared_disks(state_dir, &self.plan, self.path.file_name())?;
        Ok(lock)
    }
}

/// Holds the job in a directory.
fn take(path: &Path) -> Result<LockFile> {
    // Another process may only be looking.
    LockFile::take(&path.join(LOCK), PATIENCE, "another process runs this job")
}

/// Held while a job is begun or taken up: what is found of the others stays so.
fn gate(state_dir: &Path) -> Result<LockFile> {
    // What others may write here would be trusted.
    HostDirectory::open(state_dir)?.refuse_shared()?;
    let meaning = "another process begins a job or takes one up";
    LockFile::take(&state_dir.join(GATE), GATE_PATIENCE, meaning)
}

/// Two jobs must not have one disk, nor one replica: what an earlier one began is committed, or
/// given up.
pub(super) fn refuse_conflicts(state_dir: &Path, plan: &Plan) -> Result<()> {
    refuse_shared_disks(state_dir, plan, None)
}

/// As [`refuse_conflicts`], for the job in the directory `own`, where it has one.
fn refuse_shared_disks(state_dir: &Path, plan: &Plan, own: Option<&OsStr>) -> Result<()> {
    let (mine, my_files) = (disks(plan), files(plan));
    for name in JobDirectory::names(state_dir)? {
        if own == Some(OsStr::new(&name)) {
            continue;
        }
        let other = JobDirectory::open(state_dir, &name)?;
        if other.is_over()? {
            if own.is_none() && name == plan.name {
                refuse_leaving(&other, plan)?;
            }
            continue;
        }
        if own.is_none() && name == plan.name {
            let text = format!("the job `{name}` is not over");
            return Err(Error::new(ErrorKind::AlreadyExists, text)
                .at_path(other.path)
                .advise(Advice::LookAtJob));
        }
        let theirs = files(&other.plan);
        let one = theirs
            .iter()
            .find(|theirs| my_files.iter().any(|mine| mine.is(theirs)));
        let named = disks(&other.plan)
            .into_iter()
            .find(|disk| mine.contains(disk));
        let shared = named.or_else(|| one.map(|one| one.named.display().to_string()));
        if let Some(shared) = shared {
            let text = format!("the job `{name}`, which is not over, has {shared}");
            return Err(Error::new(ErrorKind::InUse, text).advise("end that job first"));
        }
    }
    Ok(())
}

/// A job must not take the name of one that still keeps, or may keep, a replica of other VMs.
fn refuse_leaving(job: &JobDirectory, plan: &Plan) -> Result<()> {
    for vm in job.plan.vms() {
        let phase = job.latest(&vm.name)?.map(|state| state.phase);
        let phase = phase.filter(|it| matches!(it, JobPhase::Committed | JobPhase::Protected));
        if let Some(phase) = phase
            && plan.vms().all(|it| it.name != vm.name)
        {
            let (job, vm) = (&job.plan.name, &vm.name);
            let text = format!("the job `{job}` is still the one of {vm}, which is {phase}");
            let error = Error::new(ErrorKind::AlreadyExists, text);
            return Err(error.advise("give the new job another name"));
        }
    }
    Ok(())
}

fn disks(plan: &Plan) -> Vec<String> {
    let sites = [&plan.primary, &plan.recovery];
    let encrypted = || sites.iter().filter_map(|site| site.encryption.as_ref());
    let mut all = Vec::new();
    for vm in plan.vms() {
        for disk in &vm.disks {
            all.extend([disk.primary.place(), disk.recovery.place()]);
            let directories =
                encrypted().filter_map(|it| it.directory_of(&vm.name, &disk.identity));
            all.extend(directories.map(|directory| directory.display().to_string()));
        }
    }
    all
}

/// The highest epoch of all jobs that are kept here.
fn last_epoch(state_dir: &Path) -> Result<u64> {
    let mut last = 0;
    for name in JobDirectory::names(state_dir)? {
        let job = JobDirectory::open(state_dir, &name)?;
        // Its first one, which it may not have noted yet.
        last = last.max(job.begun.after_epoch.saturating_add(1));
        for vm in job.plan.vms() {
            let latest = job.latest(&vm.name)?;
            last = last.max(latest.map_or(0, |state| state.last.epoch));
        }
    }
    Ok(last)
}

/// Renames the directory of a job that is over.
fn put_aside(state_dir: &Path, name: &str) -> Result<()> {
    let from = state_dir.join(name);
    for number in 1u32.. {
        let to = state_dir.join(format!("{name}.{number}"));
        if !to.exists() {
            std::fs::rename(&from, &to).map_err(|e| Error::io("rename", e).at_path(from))?;
            return HostDirectory::open(state_dir)?.sync();
        }
    }
    Ok(())
}

/// In the directory of all jobs; no job has a name like that.
const GATE: &str = ".begin.lock";
const PATIENCE: Duration = Duration::from_millis(500);
const GATE_PATIENCE: Duration = Duration::from_secs(60);

#[cfg(test)]
#[path = "../../../tests/inside/failback/job_begin.rs"]
mod tests;
