//! Where a job is kept: one folder for each, with its journals, its lock and its inbox.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::failback::inbox;
use crate::failback::journal::{Reader, Writer};
use crate::failback::lock::JobLock;
use crate::failback::machine::{Gesture, Mode, Phase, State};
use crate::failback::plan::Plan;
use crate::failback::record::{JobRecord, PlanRecord, Record};
use crate::random::random;
use crate::storage::{Access, Folder, HostFolder};

/// Where jobs are kept by default.
pub const STATE_DIR: &str = "/var/lib/diskdelta/failback";

/// The folder of one job.
#[derive(Debug, Clone)]
pub struct JobFolder {
    path: PathBuf,
    plan: Plan,
    modes: BTreeMap<String, Mode>,
    pub(super) after_epoch: u64,
    /// Tells the job apart from others of its name.
    pub(super) id: [u8; 16],
}

impl JobFolder {
    /// Begins a job: its folder and the journal of its plan are durable when this returns. A job
    /// of the same name that is over is put aside under another name.
    ///
    /// # Errors
    /// `AlreadyExists` for a job of that name that is not over; `InUse` where another job that is
    /// not over has one of the disks; `InvalidInput` for a wrong plan; `NoSpace`, `Io`.
    pub fn create(
        state_dir: &Path,
        plan_text: &str,
        modes: BTreeMap<String, Mode>,
        by: &str,
    ) -> Result<Self> {
        let plan = Plan::parse(plan_text)?;
        HostFolder::make(state_dir)?;
        refuse_conflicts(state_dir, &plan)?;
        let after_epoch = last_epoch(state_dir)?;
        let path = state_dir.join(&plan.name);
        if is_job(&path)? {
            put_aside(state_dir, &plan.name)?;
        }
        HostFolder::make(&path)?;
        HostFolder::make(&path.join(INBOX))?;
        let folder = HostFolder::open(&path)?;
        let id = random()?;
        let mut journal = Writer::create(&folder, OsStr::new(PLAN_JOURNAL), id)?;
        let begun = PlanRecord::Begun {
            plan: plan_text.to_owned(),
            modes: modes.clone(),
            by: by.to_owned(),
            after_epoch,
        };
        journal.append(&begun.encode()?)?;
        HostFolder::open(state_dir)?.sync()?;
        Ok(JobFolder {
            path,
            plan,
            modes,
            after_epoch,
            id,
        })
    }

    /// The job of a name.
    ///
    /// # Errors
    /// `NotFound`, naming the jobs that there are; `Malformed` for a damaged journal; `Io`.
    pub fn open(state_dir: &Path, job: &str) -> Result<Self> {
        let path = state_dir.join(job);
        if !is_job(&path)? {
            let known = match Self::names(state_dir)? {
                names if names.is_empty() => "there is none".to_owned(),
                names => format!("there are {}", names.join(", ")),
            };
            let text = format!("there is no job `{job}`; {known}");
            return Err(Error::new(ErrorKind::NotFound, text).at_path(path));
        }
        let (id, records) = plan_records(&path)?;
        for record in records {
            if let PlanRecord::Begun {
                plan,
                modes,
                after_epoch,
                ..
            } = record
            {
                return Ok(JobFolder {
                    plan: Plan::parse(&plan)?,
                    path,
                    modes,
                    after_epoch,
                    id,
                });
            }
        }
        Err(Error::malformed("the journal does not say what the job's plan is").at_path(path))
    }

    /// The names of all jobs in a folder.
    ///
    /// # Errors
    /// `Io`.
    pub fn names(state_dir: &Path) -> Result<Vec<String>> {
        let listed = match std::fs::read_dir(state_dir) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            listed => listed.map_err(|e| Error::io("read folder", e).at_path(state_dir))?,
        };
        let mut names = Vec::new();
        for entry in listed {
            let entry = entry.map_err(|e| Error::io("read folder", e).at_path(state_dir))?;
            if let Some(name) = entry.file_name().to_str()
                && is_job(&entry.path())?
            {
                names.push(name.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is to be done.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The mode that was chosen for a VM.
    pub fn mode(&self, vm: &str) -> Mode {
        self.modes.get(vm).copied().unwrap_or(Mode::Delta)
    }

    /// Asks the process that carries the job for something, and waits for its answer; `false`
    /// where nobody carries it, or who did has ended without taking the request.
    ///
    /// # Errors
    /// `InvalidInput` where it is refused, saying why; `InUse` where nobody answers; `Io`.
    pub fn ask(&self, gesture: Gesture, by: &str, wait: Duration) -> Result<bool> {
        let is_carried = || Ok(self.carried_by()?.is_some());
        Ok(is_carried()? && inbox::request(&*self.inbox()?, gesture, by, wait, &is_carried)?)
    }

    /// Who carries the job now, in words; `None` where nobody does.
    ///
    /// # Errors
    /// `Io`.
    pub fn carried_by(&self) -> Result<Option<String>> {
        JobLock::holder(&self.path.join(LOCK))
    }

    /// Takes the job over, until the lock is dropped.
    ///
    /// # Errors
    /// `InUse`, saying by whom; `Io`.
    pub(super) fn lock(&self) -> Result<JobLock> {
        JobLock::take(&self.path.join(LOCK))
    }

    pub(super) fn inbox(&self) -> Result<Arc<dyn Folder>> {
        Ok(Arc::new(HostFolder::open(self.path.join(INBOX))?))
    }

    pub(super) fn folder(&self) -> Result<HostFolder> {
        HostFolder::open(&self.path)
    }

    pub(super) fn journal_name(vm: &str) -> OsString {
        OsString::from(format!("{vm}.journal"))
    }

    pub(super) fn plan_writer(&self) -> Result<(Writer, Vec<PlanRecord>)> {
        let (writer, entries) = Writer::open(&self.folder()?, OsStr::new(PLAN_JOURNAL))?;
        let records = entries
            .iter()
            .map(|entry| PlanRecord::decode(&entry.payload))
            .collect::<Result<_>>()?;
        Ok((writer, records))
    }

    /// All records of a VM's journal; none where it has not begun.
    pub(super) fn records(&self, vm: &str) -> Result<Vec<Record>> {
        let folder = self.folder()?;
        let storage = match folder.open(&Self::journal_name(vm), Access::Read) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            storage => storage?,
        };
        let entries = Reader::open(storage)?.rest()?;
        let records = entries.iter().map(|entry| Record::decode(&entry.payload));
        records.collect()
    }

    /// What a VM's job is and where it stands; `None` before it begins.
    pub(super) fn latest(&self, vm: &str) -> Result<Option<(JobRecord, State)>> {
        let mut job = None;
        let mut state = None;
        for record in self.records(vm)? {
            match record {
                Record::Job(record) => {
                    state = Some(State::new(&record.spec));
                    job = Some(record);
                }
                Record::Step(step) => state = Some(step.state),
            }
        }
        Ok(job.zip(state))
    }

    /// What the last step of a VM's journal says for people.
    pub(super) fn detail(&self, vm: &str) -> Result<Option<String>> {
        Ok(match self.records(vm)?.pop() {
            Some(Record::Step(step)) => step.detail,
            _ => None,
        })
    }

    /// Nothing is under way, and nothing is half done.
    fn is_over(&self) -> Result<bool> {
        if self.carried_by()?.is_some() {
            return Ok(false);
        }
        for vm in self.plan.vms() {
            let phase = self.latest(&vm.name)?.map(|(_, state)| state.phase);
            if !phase.is_none_or(is_at_rest) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Whether a job may end here without anybody missing it.
fn is_at_rest(phase: Phase) -> bool {
    phase.is_final()
        || matches!(
            phase,
            Phase::Planned | Phase::Prepared | Phase::Committed | Phase::Protected
        )
}

/// The id and the records of a plan's journal.
fn plan_records(path: &Path) -> Result<([u8; 16], Vec<PlanRecord>)> {
    let folder = HostFolder::open(path)?;
    let storage = folder.open(OsStr::new(PLAN_JOURNAL), Access::Read)?;
    let mut reader = Reader::open(storage)?;
    let entries = reader.rest()?;
    let records = entries
        .iter()
        .map(|entry| PlanRecord::decode(&entry.payload));
    Ok((reader.job(), records.collect::<Result<_>>()?))
}

fn is_job(path: &Path) -> Result<bool> {
    let journal = path.join(PLAN_JOURNAL);
    journal
        .try_exists()
        .map_err(|e| Error::io("look for", e).at_path(journal))
}

/// Two jobs must not have one disk, nor one replica: what an earlier one began is committed, or given up.
pub(super) fn refuse_conflicts(state_dir: &Path, plan: &Plan) -> Result<()> {
    for name in JobFolder::names(state_dir)? {
        let other = JobFolder::open(state_dir, &name)?;
        if other.is_over()? {
            continue;
        }
        if name == plan.name {
            let text = format!("the job `{name}` is not over");
            return Err(Error::new(ErrorKind::AlreadyExists, text)
                .at_path(other.path)
                .advise("go on with it: `failback resume`, or give it up: `failback cancel`"));
        }
        let mine = disks(plan);
        if let Some(shared) = disks(&other.plan).iter().find(|disk| mine.contains(disk)) {
            let text = format!("the job `{name}`, which is not over, has {shared}");
            return Err(Error::new(ErrorKind::InUse, text).advise("end that job first"));
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
            let folders = encrypted().filter_map(|it| it.folder_of(&vm.name, &disk.identity));
            all.extend(folders.map(|folder| folder.display().to_string()));
        }
    }
    all
}

/// The highest epoch of all jobs that are kept here.
fn last_epoch(state_dir: &Path) -> Result<u64> {
    let mut last = 0;
    for name in JobFolder::names(state_dir)? {
        let job = JobFolder::open(state_dir, &name)?;
        last = last.max(job.after_epoch);
        for vm in job.plan.vms() {
            let latest = job.latest(&vm.name)?;
            last = last.max(latest.map_or(0, |(_, state)| state.last.epoch));
        }
    }
    Ok(last)
}

/// Renames the folder of a job that is over.
fn put_aside(state_dir: &Path, name: &str) -> Result<()> {
    let from = state_dir.join(name);
    for number in 1u32.. {
        let to = state_dir.join(format!("{name}.{number}"));
        if !to.exists() {
            std::fs::rename(&from, &to).map_err(|e| Error::io("rename", e).at_path(from))?;
            return HostFolder::open(state_dir)?.sync();
        }
    }
    Ok(())
}

const PLAN_JOURNAL: &str = "plan.journal";
const LOCK: &str = "lock";
const INBOX: &str = "inbox";
