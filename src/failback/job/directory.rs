//! Where a job is kept: one directory for each, with its journals, its lock and its mailbox.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::failback::directory_mailbox;
use crate::failback::disks::one_file::{files, refuse_one_file};
use crate::failback::lock::JobLock;
use crate::failback::machine::{JobMode, JobPhase, Request, State};
use crate::failback::plan::Plan;
use crate::failback::record::{JobRecord, PlanRecord, Record, StepRecord};
use crate::journal::{Reader, Writer};
use crate::random::random;
use crate::storage::{Access, Directory, HostDirectory};

/// Where jobs are kept by default.
pub const STATE_DIR: &str = "/var/lib/diskdelta/failback";

/// The directory of one job.
#[derive(Debug, Clone)]
pub struct JobDirectory {
    path: PathBuf,
    plan: Plan,
    modes: BTreeMap<String, JobMode>,
    pub(super) after_epoch: u64,
    /// Tells the job apart from others of its name.
    pub(super) id: [u8; 16],
    /// The lock of a job that was just begun, until its runner takes it.
    held: Arc<Mutex<Option<JobLock>>>,
}

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
        let lock = JobLock::take(&path.join(LOCK))?;
        let id = random()?;
        let mut journal = Writer::create(&directory, OsStr::new(PLAN_JOURNAL), id)?;
        let begun = PlanRecord::Begun {
            plan: plan_text.to_owned(),
            modes: modes.clone(),
            by: by.to_owned(),
            after_epoch,
        };
        journal.append(&begun.encode()?)?;
        HostDirectory::open(state_dir)?.sync()?;
        Ok(JobDirectory {
            path,
            plan,
            modes,
            after_epoch,
            id,
            held: Arc::new(Mutex::new(Some(lock))),
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
        let (id, first) = plan_begun(&path)?;
        if let Some(PlanRecord::Begun {
            plan,
            modes,
            after_epoch,
            ..
        }) = first
        {
            return Ok(JobDirectory {
                plan: Plan::parse(&plan)?,
                path,
                modes,
                after_epoch,
                id,
                held: Arc::default(),
            });
        }
        Err(Error::malformed("the journal does not say what the job's plan is").at_path(path))
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
        self.modes.get(vm).copied().unwrap_or(JobMode::Delta)
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
        JobLock::holder(&self.path.join(LOCK))
    }

    /// Takes the job over, until the lock is dropped.
    ///
    /// # Errors
    /// `InUse`, saying by whom, and where another job that is not over has one of its disks; `Io`.
    pub(super) fn lock(&self) -> Result<JobLock> {
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
        let lock = JobLock::take(&self.path.join(LOCK))?;
        refuse_shared_disks(state_dir, &self.plan, self.path.file_name())?;
        Ok(lock)
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

    pub(super) fn plan_writer(&self) -> Result<(Writer, Vec<PlanRecord>)> {
        let (directory, name) = (self.directory()?, OsStr::new(PLAN_JOURNAL));
        let (mut writer, entries) = Writer::open(&directory, name)?;
        if writer.count() >= LONG_PLAN {
            writer.compact(&directory, name, KEPT_PLAN)?;
        }
        let records = entries
            .iter()
            .map(|entry| PlanRecord::decode(&entry.payload))
            .collect::<Result<_>>()?;
        Ok((writer, records))
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
    fn latest(&self, vm: &str) -> Result<Option<State>> {
        let (job, step) = self.ends(vm)?;
        Ok(job.map(|job| step.map_or_else(|| State::new(&job.spec), |step| step.state)))
    }

    /// What the last step of a VM's journal says for people.
    pub(super) fn detail(&self, vm: &str) -> Result<Option<String>> {
        Ok(self.ends(vm)?.1.and_then(|step| step.detail))
    }

    /// Nothing is under way, and nothing is half done.
    fn is_over(&self) -> Result<bool> {
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
    phase.is_final()
        || matches!(
            phase,
            JobPhase::Planned | JobPhase::Prepared | JobPhase::Committed | JobPhase::Protected
        )
}

/// The id and the first record of a plan's journal.
fn plan_begun(path: &Path) -> Result<([u8; 16], Option<PlanRecord>)> {
    let directory = HostDirectory::open(path)?;
    let storage = directory.open_own(OsStr::new(PLAN_JOURNAL), Access::Read)?;
    let mut reader = Reader::open(storage)?;
    let first = reader.next_entry()?;
    let first = first.map(|entry| PlanRecord::decode(&entry.payload));
    Ok((reader.job(), first.transpose()?))
}

/// Held while a job is begun or taken up: what is found of the others stays so.
fn gate(state_dir: &Path) -> Result<JobLock> {
    // What others may write here would be trusted.
    HostDirectory::open(state_dir)?.refuse_shared()?;
    let meaning = "another process begins a job or takes one up";
    JobLock::take_within(&state_dir.join(GATE), GATE_PATIENCE, meaning)
}

fn is_job(path: &Path) -> Result<bool> {
    let journal = path.join(PLAN_JOURNAL);
    match journal.try_exists() {
        // A file among the jobs.
        Err(e) if e.kind() == std::io::ErrorKind::NotADirectory => Ok(false),
        found => found.map_err(|e| Error::io("look for", e).at_path(journal)),
    }
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
            continue;
        }
        if own.is_none() && name == plan.name {
            let text = format!("the job `{name}` is not over");
            return Err(Error::new(ErrorKind::AlreadyExists, text)
                .at_path(other.path)
                .advise("go on with it: `failback resume`, or give it up: `failback cancel`"));
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
        last = last.max(job.after_epoch.saturating_add(1));
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

/// How long an answer to a request is waited for, and until a refused one is made again.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
const ASK_AGAIN: Duration = Duration::from_millis(200);
const PLAN_JOURNAL: &str = "plan.journal";
const LOCK: &str = "lock";
/// In the directory of all jobs; no job has a name like that.
const GATE: &str = ".begin.lock";
const GATE_PATIENCE: Duration = Duration::from_secs(60);
/// A plan's journal of more records is compacted, down to so many.
const LONG_PLAN: u64 = 512;
const KEPT_PLAN: usize = 64;
const MAILBOX: &str = "mailbox";

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(job: &str, vm: &str, disk: &str) -> String {
        let site = "{ kind = \"commands\", program = [\"/bin/false\"] }";
        format!(
            "[job]\nname = {job:?}\nactive = \"recovery\"\n\
             [primary]\nhost = \"here\"\ncontroller = {site}\n\
             [recovery]\nhost = \"there\"\ncontroller = {site}\n\
             [[group]]\nname = \"g\"\n[[group.vm]]\nname = {vm:?}\n\
             [[group.vm.disk]]\nidentity = \"{vm}-system\"\nbytes = \"1M\"\n\
             primary = \"/no/such/primary-{disk}.raw\"\nrecovery = \"/no/such/{disk}.raw\"\n"
        )
    }

    fn begin(state: &Path, job: &str, vm: &str, disk: &str) -> Result<JobDirectory> {
        JobDirectory::create(state, &plan(job, vm, disk), BTreeMap::new(), "me")
    }

    #[test]
    fn of_several_jobs_with_one_disk_that_begin_at_once_one_does() {
        let state = tempfile::tempdir().unwrap();
        for round in 0..20 {
            let disk = format!("disk{round}");
            let begun: Vec<Result<JobDirectory>> = std::thread::scope(|scope| {
                let threads = (0..4).map(|job| {
                    let (state, disk) = (state.path(), &disk);
                    let job = format!("job{round}-{job}");
                    scope.spawn(move || begin(state, &job, "db1", disk))
                });
                let threads: Vec<_> = threads.collect();
                threads.into_iter().map(|it| it.join().unwrap()).collect()
            });
            let ok = begun.iter().filter(|it| it.is_ok()).count();
            assert_eq!(ok, 1, "{begun:?}");
            for error in begun.into_iter().filter_map(Result::err) {
                assert_eq!(error.kind(), ErrorKind::InUse, "{error}");
            }
        }
    }

    #[test]
    fn two_disks_that_are_one_file_through_a_link_are_found_in_a_plan_and_between_jobs() {
        let temporary = tempfile::tempdir().unwrap();
        let at = |name: &str| temporary.path().join(name);
        for directory in ["vm", "state"] {
            std::fs::create_dir(at(directory)).unwrap();
        }
        std::os::unix::fs::symlink(at("vm"), at("alias")).unwrap();
        std::fs::write(at("vm/disk.raw"), "disk").unwrap();
        std::fs::hard_link(at("vm/disk.raw"), at("vm/hard.raw")).unwrap();
        std::os::unix::fs::symlink(at("vm/gone.raw"), at("vm/soft.raw")).unwrap();
        let plan = |job: &str, primary: &str, recovery: &str| {
            plan(job, "db1", "x")
                .replace("/no/such/primary-x.raw", &at(primary).display().to_string())
                .replace("/no/such/x.raw", &at(recovery).display().to_string())
        };
        let state = at("state");
        let begin = |text: &str| JobDirectory::create(&state, text, BTreeMap::new(), "me");
        for (primary, recovery) in [
            ("vm/disk.raw", "alias/disk.raw"),
            ("vm/disk.raw", "vm/hard.raw"),
            ("vm/gone.raw", "vm/soft.raw"),
            ("alias/new.raw", "vm/new.raw"),
        ] {
            let text = plan("first", primary, recovery);
            let error = begin(&text).unwrap_err();
            assert_eq!(
                error.kind(),
                ErrorKind::InvalidInput,
                "{primary} {recovery}"
            );
            assert!(error.to_string().contains("are one file"), "{error}");
            let checks = crate::failback::job::check(&Plan::parse(&text).unwrap(), &state);
            let mut found = checks
                .iter()
                .filter(|it| it.check == "one file for each disk");
            assert!(!found.next().unwrap().holds);
        }
        let _first = begin(&plan("first", "vm/disk.raw", "vm/a.raw")).unwrap();
        let error = begin(&plan("second", "alias/hard.raw", "vm/b.raw")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InUse, "{error}");
        begin(&plan("third", "vm/c.raw", "vm/b.raw")).unwrap();
    }

    #[test]
    fn jobs_that_begin_at_once_never_get_one_epoch() {
        let state = tempfile::tempdir().unwrap();
        let begun: Vec<_> = std::thread::scope(|scope| {
            let threads = (0..8).map(|job| {
                let state = state.path();
                let name = format!("job{job}");
                scope.spawn(move || begin(state, &name, "db1", &name).unwrap())
            });
            let threads: Vec<_> = threads.collect();
            threads.into_iter().map(|it| it.join().unwrap()).collect()
        });
        let mut epochs: Vec<_> = begun.iter().map(|job| job.after_epoch).collect();
        epochs.sort_unstable();
        epochs.dedup();
        assert_eq!(epochs.len(), 8);
    }

    #[test]
    fn a_job_that_another_took_for_given_up_is_not_taken_up_again_beside_it() {
        let state = tempfile::tempdir().unwrap();
        let first = begin(state.path(), "first", "db1", "disk").unwrap();
        assert!(first.run_by().unwrap().is_some(), "from the beginning");
        drop(first);
        let second = begin(state.path(), "second", "db1", "disk").unwrap();
        let first = JobDirectory::open(state.path(), "first").unwrap();
        let error = first.lock().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InUse);
        assert!(error.to_string().contains("`second`"), "{error}");
        let lock = second.lock().unwrap();
        assert!(second.lock().is_err(), "run twice");
        drop((lock, second));
        assert!(first.lock().is_ok());
    }

    #[test]
    fn a_state_directory_that_others_may_write_to_begins_no_job() {
        use std::os::unix::fs::PermissionsExt;
        let state = tempfile::tempdir().unwrap();
        let open = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(state.path(), open).unwrap();
        let error = begin(state.path(), "first", "db1", "disk").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Untrusted, "{error}");
        assert_eq!(std::fs::read_dir(state.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_planted_lock_or_journal_of_a_job_is_neither_followed_nor_believed() {
        let state = tempfile::tempdir().unwrap();
        let precious = state.path().join("precious");
        std::fs::write(&precious, "precious").unwrap();
        std::os::unix::fs::symlink(&precious, state.path().join(GATE)).unwrap();
        let error = begin(state.path(), "first", "db1", "disk").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Untrusted, "{error}");
        std::fs::remove_file(state.path().join(GATE)).unwrap();
        drop(begin(state.path(), "first", "db1", "disk").unwrap());
        let job = state.path().join("first");
        for name in [LOCK, PLAN_JOURNAL] {
            let other = state.path().join("other");
            std::fs::rename(job.join(name), &other).unwrap();
            std::os::unix::fs::symlink(&other, job.join(name)).unwrap();
            let error = JobDirectory::open(state.path(), "first")
                .and_then(|job| job.lock().map(drop))
                .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Untrusted, "{error}");
            std::fs::rename(&other, job.join(name)).unwrap();
        }
        assert_eq!(std::fs::read(&precious).unwrap(), b"precious");
    }
}
