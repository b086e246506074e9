//! Where a job is kept: one directory for each, with its journals, its lock and its mailbox.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::failback::directory_mailbox;
use crate::failback::history::AcceptedRequest;
use crate::failback::machine::{GroupAsked, JobMode, JobPhase, Request, State};
use crate::failback::plan::Plan;
use crate::failback::record::{Begun, JobRecord, PlanRecord, Record, StepRecord};
use crate::journal::{Reader, Writer};
use crate::storage::{Access, Directory, HostDirectory, LockFile};

/// Where jobs are kept by default.
pub const STATE_DIR: &str = "/var/lib/diskdelta/failback";

/// The directory of one job.
#[derive(Debug, Clone)]
pub struct JobDirectory {
    pub(super) path: PathBuf,
    pub(super) plan: Plan,
    pub(super) begun: Begun,
    /// Tells the job apart from others of its name.
    pub(super) id: [u8; 16],
    /// The lock of a job that was just begun, until its runner takes it.
    pub(super) held: Arc<Mutex<Option<LockFile>>>,
}

impl JobDirectory {
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
        let mut journal = plan_journal(&HostDirectory::open(&path)?)?;
        match journal
            .next_entry()?
            .map(|entry| PlanRecord::decode(&entry.payload))
        {
            Some(Ok(PlanRecord::Begun(begun))) => Ok(JobDirectory {
                plan: Plan::parse(&begun.plan)?,
                path,
                begun,
                id: journal.job(),
                held: Arc::default(),
            }),
            Some(Err(error)) => Err(error),
            _ => Err(Error::malformed("the journal has no plan").at_path(path)),
        }
    }

    /// The names of all jobs in a directory.
    ///
    /// # Errors
    /// `Io`.
    pub fn names(state_dir: &Path) -> Result<Vec<String>> {
        let listed = match std::fs::read_dir(state_dir) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            listed => listed.map_err(|e| Error::io("read directory", e).at_path(state_dir))?,
        };
        let mut names = Vec::new();
        for entry in listed {
            let entry = entry.map_err(|e| Error::io("read directory", e).at_path(state_dir))?;
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
    pub fn mode(&self, vm: &str) -> JobMode {
        self.begun.modes.get(vm).copied().unwrap_or(JobMode::Delta)
    }

    /// Asks the process that runs the job for something, and waits for its answer; `false`
    /// where no process runs it, or who did has ended without taking the request.
    ///
    /// # Errors
    /// `InvalidInput` where it is refused, saying why; `InUse` without an answer; `Io`.
    pub fn ask(&self, request: Request, by: &str, wait: Duration) -> Result<bool> {
        let is_running = || Ok(self.run_by()?.is_some());
        Ok(is_running()?
            && directory_mailbox::send(&*self.mailbox()?, request, by, wait, &is_running)?)
    }

    /// Leaves a request for the next process that runs the job.
    ///
    /// # Errors
    /// `NoSpace`, `Io`.
    pub fn queue(&self, request: Request, by: &str) -> Result<()> {
        directory_mailbox::queue(&*self.mailbox()?, request, by)
    }

    /// Whether a process should take the job up: something is under way, or was asked for, and no
    /// process runs it.
    ///
    /// # Errors
    /// `Malformed` for a damaged journal; `Io`.
    pub fn needs_runner(&self) -> Result<bool> {
        let named = self.path.file_name() == Some(OsStr::new(&self.plan.name));
        if !named || self.run_by()?.is_some() {
            return Ok(false);
        }
        if !directory_mailbox::queued(&*self.mailbox()?)?.is_empty() {
            return Ok(true);
        }
        for vm in self.plan.vms() {
            let phase = self.latest(&vm.name)?.map(|state| state.phase);
            let goes_on = match phase {
                Some(JobPhase::Protected) => self.plan.protection_interval.is_some(),
                Some(phase) => !phase.is_final() && phase != JobPhase::Committed,
                None => true,
            };
            if goes_on {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Makes requests in their order, each as soon as it is allowed, until `is_done`. What is not
    /// allowed any more once a later one is, is left out.
    pub(in crate::failback) fn ask_in_turn(
        &self,
        mut requests: &[Request],
        by: &str,
        is_done: &AtomicBool,
    ) -> Result<()> {
        while !requests.is_empty() && !is_done.load(Ordering::Acquire) {
            let mut accepted = None;
            for (index, request) in requests.iter().enumerate() {
                match self.ask(*request, by, ANSWER_WITHIN) {
                    Ok(true) => accepted = Some(index),
                    Ok(false) => return Ok(()),
                    Err(error) if error.kind() == ErrorKind::InvalidInput => continue,
                    Err(error) => return Err(error),
                }
                break;
            }
            match accepted {
                Some(index) => requests = &requests[index + 1..],
                None => std::thread::sleep(ASK_AGAIN),
            }
        }
        Ok(())
    }

    /// The process that runs the job now, in words; `None` where none does.
    ///
    /// # Errors
    /// `Io`.
    pub fn run_by(&self) -> Result<Option<String>> {
        LockFile::holder(&self.path.join(LOCK))
    }

    pub(super) fn mailbox(&self) -> Result<Arc<dyn Directory>> {
        Ok(Arc::new(HostDirectory::open(self.path.join(MAILBOX))?))
    }

    pub(super) fn directory(&self) -> Result<HostDirectory> {
        HostDirectory::open(&self.path)
    }

    pub(super) fn journal_name(vm: &str) -> OsString {
        OsString::from(format!("{vm}.journal"))
    }

    pub(super) fn plan_writer(&self) -> Result<Writer> {
        let (directory, name) = (self.directory()?, OsStr::new(PLAN_JOURNAL));
        let (mut writer, _) = Writer::open(&directory, name)?;
        if writer.count() >= LONG_PLAN {
            writer.compact(&directory, name, KEPT_PLAN)?;
        }
        Ok(writer)
    }

    /// All records of a VM's journal; none where it has not begun.
    pub(super) fn records(&self, vm: &str) -> Result<Vec<Record>> {
        let Some(mut journal) = self.journal(vm)? else {
            return Ok(Vec::new());
        };
        let entries = journal.rest()?;
        let records = entries.iter().map(|entry| Record::decode(&entry.payload));
        records.collect()
    }

    /// What a VM's job is, and its newest step; what is between is not read.
    pub(super) fn ends(&self, vm: &str) -> Result<(Option<JobRecord>, Option<StepRecord>)> {
        let (mut job, mut step) = (None, None);
        if let Some(mut journal) = self.journal(vm)? {
            let ends = [journal.next_entry()?, journal.last_entry()?];
            for entry in ends.into_iter().flatten() {
                match Record::decode(&entry.payload)? {
                    Record::Job(found) => job = Some(found),
                    Record::Step(found) => step = Some(*found),
                }
            }
        }
        Ok((job, step))
    }

    /// Whether a VM's journal says what its job is.
    pub(super) fn has_begun(&self, vm: &str) -> Result<bool> {
        Ok(self.ends(vm)?.0.is_some())
    }

    fn journal(&self, vm: &str) -> Result<Option<Reader>> {
        match self
            .directory()?
            .open_own(&Self::journal_name(vm), Access::Read)
        {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            storage => Reader::open(storage?).map(Some),
        }
    }

    /// Where a VM's job stands; `None` before it begins.
    pub(super) fn latest(&self, vm: &str) -> Result<Option<State>> {
        let (job, step) = self.ends(vm)?;
        Ok(job.map(|job| step.map_or_else(|| State::new(&job.spec), |step| step.state)))
    }

    /// What the plan as a whole was asked for last, and what of that holds still.
    pub(super) fn asked(&self) -> Result<(GroupAsked, Option<AcceptedRequest>)> {
        let last = plan_journal(&self.directory()?)?.last_entry()?;
        let last = last.map(|entry| PlanRecord::decode(&entry.payload));
        Ok(match last.transpose()? {
            Some(PlanRecord::Asked { request, asked }) => (asked, Some(request)),
            _ => Default::default(),
        })
    }

    /// What the last step of a VM's journal says for people.
    pub(super) fn detail(&self, vm: &str) -> Result<Option<String>> {
        Ok(self.ends(vm)?.1.and_then(|step| step.detail))
    }

    /// Nothing is under way, and nothing is half done.
    pub(super) fn is_over(&self) -> Result<bool> {
        if self.run_by()?.is_some() {
            return Ok(false);
        }
        for vm in self.plan.vms() {
            let phase = self.latest(&vm.name)?.map(|state| state.phase);
            if !phase.is_none_or(is_at_rest) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Whether a job may end here without anybody missing it.
fn is_at_rest(phase: JobPhase) -> bool {
    let rests = phase <= JobPhase::Prepared || phase == JobPhase::Committed;
    rests || phase == JobPhase::Protected || phase.is_final()
}

fn plan_journal(directory: &HostDirectory) -> Result<Reader> {
    Reader::open(directory.open_own(OsStr::new(PLAN_JOURNAL), Access::Read)?)
}

pub(super) fn is_job(path: &Path) -> Result<bool> {
    let journal = path.join(PLAN_JOURNAL);
    match journal.try_exists() {
        // A file among the jobs.
        Err(e) if e.kind() == std::io::ErrorKind::NotADirectory => Ok(false),
        found => found.map_err(|e| Error::io("look for", e).at_path(journal)),
    }
}

/// How long an answer to a request is waited for, and until a refused one is made again.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
const ASK_AGAIN: Duration = Duration::from_millis(200);
pub(super) const PLAN_JOURNAL: &str = "plan.journal";
pub(super) const LOCK: &str = "lock";
/// A plan's journal of more records is compacted, down to so many.
const LONG_PLAN: u64 = 512;
const KEPT_PLAN: usize = 64;
pub(super) const MAILBOX: &str = "mailbox";
