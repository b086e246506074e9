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
use crate::failback::lock::JobLock;
use crate::failback::machine::JobMode;
use crate::failback::plan::Plan;
use crate::failback::record::PlanRecord;
use crate::journal::Writer;
use crate::random::random;
use crate::storage::{Directory, HostDirectory};

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
        let at_ms = now_ms();
        let begun = PlanRecord::Begun {
            plan: plan_text.to_owned(),
            modes: modes.clone(),
            by: by.to_owned(),
            at_ms,
            after_epoch,
        };
        journal.append(&begun.encode()?)?;
        HostDirectory::open(state_dir)?.sync()?;
        Ok(JobDirectory {
            path,
            plan,
            modes,
            begun_by: by.to_owned(),
            begun_at_ms: at_ms,
            after_epoch,
            id,
            held: Arc::new(Mutex::new(Some(lock))),
        })
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
}

/// Held while a job is begun or taken up: what is found of the others stays so.
fn gate(state_dir: &Path) -> Result<JobLock> {
    // What others may write here would be trusted.
    HostDirectory::open(state_dir)?.refuse_shared()?;
    let meaning = "another process begins a job or takes one up";
    JobLock::take_within(&state_dir.join(GATE), GATE_PATIENCE, meaning)
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

/// In the directory of all jobs; no job has a name like that.
const GATE: &str = ".begin.lock";
const GATE_PATIENCE: Duration = Duration::from_secs(60);

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
