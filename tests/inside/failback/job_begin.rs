//! Beginning jobs, from inside.

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
    let mut epochs: Vec<_> = begun.iter().map(|job| job.begun.after_epoch).collect();
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
