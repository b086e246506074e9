//! A marked disk that was moved, and another job that takes its name.

use std::ffi::OsStr;
use std::sync::Arc;

use diskdelta::storage::fault::FaultDisk;
use diskdelta::storage::{Access, Directory, FileRef};
use diskdelta::sync::{Marker, Recovered, Target, discard, recover, sync};

use crate::case::{Case, TARGET, source, work};
use crate::cases::{self, PAGE};

/// Does another job onto a disk that took the name of the marked one, which is then finished.
fn moved_and_finished(case: &Case, disk: &FaultDisk) {
    let directory: Arc<dyn Directory> = Arc::new(disk.directory("/img"));
    let moved = FileRef::new(directory.clone(), "moved");
    directory.rename(OsStr::new("t"), moved.name()).unwrap();
    let other = cases::bytes(case.new.len(), 9);
    disk.put(TARGET, cases::bytes(case.new.len(), 8));
    let report = sync(&source(&other), &case.target(disk), &case.options, &work()).unwrap();
    assert!(disk.contents(TARGET).unwrap().to_vec() == other);
    let names = directory.names().unwrap();
    let logs: Vec<_> = names
        .iter()
        .filter(|name| name.to_str().unwrap().ends_with(".diskdelta-log"))
        .collect();
    let [log] = logs[..] else {
        panic!("logs: {names:?}");
    };
    let named = log.to_str().unwrap();
    assert!(
        report.notes.iter().any(|note| note.contains(named)),
        "{report:?}"
    );
    let target = Target::file(moved, case.format).with_redo_log(FileRef::new(directory, log));
    match recover(&target, &work()).unwrap() {
        Recovered::New => {}
        Recovered::Rerun => {
            drop(sync(&source(&case.new), &target, &case.options, &work()).unwrap())
        }
        other => panic!("{other:?}"),
    }
    assert!(disk.contents("/img/moved").unwrap().to_vec() == case.new);
    assert_eq!(disk.names("/img"), ["moved", "t"]);
}

#[test]
fn a_marked_disk_that_was_moved_is_finished_after_another_job_took_its_name() {
    let atomic = cases::atomic_under_the_marker_only();
    for case in [atomic.clone(), atomic.in_place()] {
        let disk = case.disk();
        case.work_on(&disk).unwrap();
        let mut marked = 0;
        for state in disk.crashes().with_limit(24).with_samples(8).states() {
            let disk = state.disk();
            let storage = disk.open(TARGET, Access::Read).unwrap();
            if Marker::find(&storage).unwrap().is_some() {
                marked += 1;
                moved_and_finished(&case, disk);
            }
        }
        assert!(marked > 10, "{marked}");
    }
}

/// The disk that took the name of a marked one is that one's old contents, but for its first page.
#[test]
fn the_log_of_a_disk_that_was_moved_writes_nothing_to_the_one_that_took_its_name() {
    let atomic = cases::atomic_under_the_marker_only();
    for case in [atomic.clone(), atomic.in_place()] {
        let disk = case.disk();
        let mut boot = case.old.clone().unwrap();
        case.work_on(&disk).unwrap();
        boot[..PAGE].copy_from_slice(&cases::bytes(PAGE, 9));
        for state in disk.crashes().with_limit(12).with_samples(4).states() {
            let disk = state.disk();
            let storage = disk.open(TARGET, Access::Read).unwrap();
            if Marker::find(&storage).unwrap().is_none() {
                continue;
            }
            let directory = disk.directory("/img");
            directory
                .rename(OsStr::new("t"), OsStr::new("moved"))
                .unwrap();
            disk.put(TARGET, boot.clone());
            // Whatever these say.
            let _ = recover(&case.target(disk), &work());
            let _ = discard(&case.target(disk), &work());
            assert!(
                disk.contents(TARGET).unwrap().to_vec() == boot,
                "{}",
                case.name
            );
        }
    }
}
