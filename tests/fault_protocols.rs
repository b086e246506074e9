//! The crash harness held against small protocols: correct ones pass, and each with one barrier,
//! check or ordering taken away is caught.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::ffi::OsStr;
use std::sync::Arc;

use diskdelta::storage::fault::{Coverage, CrashState, FaultDisk, FileBytes, SyncCall, Violation};
use diskdelta::storage::{Access, Directory, Storage};
use diskdelta::{Error, ErrorKind, Result};

#[test]
fn a_correct_redo_log_survives_every_crash_and_every_crash_of_its_recovery() {
    let disk = redo_disk();
    commit(&disk, Flaw::None).unwrap();
    let mut nested = 0;
    let coverage = disk.crashes().check(|state| {
        nested += recover_and_check(state, Flaw::None)?;
        Ok::<(), String>(())
    });
    let coverage = coverage.unwrap();
    eprintln!("redo log: {coverage:?}, {nested} states of recoveries");
    assert_eq!(coverage.cuts, coverage.exhaustive_cuts);
    assert!(coverage.states > 50 && nested > 300);
}

#[test]
fn every_sync_of_the_redo_log_is_found_missing_when_it_is_dropped() {
    let disk = redo_disk();
    commit(&disk, Flaw::None).unwrap();
    let syncs = disk.log().syncs();
    assert_eq!(syncs.len(), 5);
    for sync in syncs {
        let found = crash_redo_log(Flaw::None, Some(sync.clone()));
        assert!(found.is_err(), "nothing noticed that {sync} was dropped");
    }
}

#[test]
fn every_flaw_of_the_redo_log_is_found() {
    for flaw in [
        Flaw::NoChecksum,
        Flaw::LengthForChecksum,
        Flaw::TargetFirst,
        Flaw::RecoveryDoesNotSync,
        Flaw::RecoveryRemovesFirst,
    ] {
        let found = crash_redo_log(flaw, None);
        assert!(found.is_err(), "nothing noticed {flaw:?}");
    }
}

#[test]
fn a_report_names_a_state_that_can_be_made_again() {
    let disk = redo_disk();
    commit(&disk, Flaw::NoChecksum).unwrap();
    let crashes = disk.crashes();
    let (mut first, mut again) = (None, None);
    for state in crashes.states() {
        if recover_and_check(&state, Flaw::NoChecksum).is_err() {
            first = Some(state.to_string());
            let again_state = crashes.state(state.cut(), state.number());
            assert!(recover_and_check(&again_state, Flaw::NoChecksum).is_err());
            again = Some(again_state.to_string());
            break;
        }
    }
    assert!(first.is_some());
    assert_eq!(first, again);
}

#[test]
fn a_sample_finds_a_missing_checksum_too() {
    let disk = redo_disk();
    commit(&disk, Flaw::NoChecksum).unwrap();
    let crashes = disk.crashes().with_seed(7);
    let mut spoiled = crashes.sample(2000);
    assert!(spoiled.any(|state| recover_and_check(&state, Flaw::NoChecksum).is_err()));
}

#[test]
fn a_rename_of_a_file_that_was_not_synced_is_found() {
    let run = |sync_file: bool, sync_directory: bool| {
        let disk = FaultDisk::new();
        disk.put("/d/text", OLD);
        let directory = disk.directory("/d");
        let file = directory.create_new(OsStr::new("new")).unwrap();
        file.write_all_at(NEW, 0).unwrap();
        if sync_file {
            file.sync().unwrap();
        }
        directory
            .rename(OsStr::new("new"), OsStr::new("text"))
            .unwrap();
        if sync_directory {
            directory.sync().unwrap();
        }
        disk.note("done");
        old_or_new(&disk, "/d/text")
    };
    run(true, true).unwrap();
    assert!(run(false, true).is_err());
    assert!(run(true, false).is_err());
}

#[test]
fn a_length_that_comes_before_its_data_is_found() {
    // A reader that trusts a file to be whole because it is long enough.
    let disk = FaultDisk::new();
    disk.put("/d/journal", &b""[..]);
    let journal = disk.open("/d/journal", Access::Write).unwrap();
    journal.write_all_at(NEW, 0).unwrap();
    let found = disk
        .crashes()
        .check(|state| match state.disk().contents("/d/journal") {
            Some(row) if row.len() == NEW.len() as u64 && row != FileBytes::from(NEW) => {
                Err("long enough, but not what was written")
            }
            _ => Ok(()),
        });
    assert!(found.is_err());
}

#[test]
fn a_length_that_is_lost_is_found() {
    let run = |sync_after: bool| {
        let disk = FaultDisk::new();
        disk.put("/d/disk", OLD);
        let file = disk.open("/d/disk", Access::Write).unwrap();
        file.sync().unwrap();
        file.set_len(9000).unwrap();
        if sync_after {
            file.sync().unwrap();
        }
        disk.note("grown");
        disk.crashes().check(|state| {
            let len = state.disk().contents("/d/disk").map_or(0, |row| row.len());
            if state.noted("grown") && len != 9000 {
                Err("too short")
            } else {
                Ok(())
            }
        })
    };
    run(true).unwrap();
    assert!(run(false).is_err());
}

#[test]
fn a_valid_record_that_an_earlier_run_left_in_free_space_is_found() {
    let run = |name_first: bool| {
        let disk = FaultDisk::new();
        disk.put("/d/log", record_of(OLD));
        let directory = disk.directory("/d");
        directory.remove(OsStr::new("log")).unwrap();
        directory.sync().unwrap();
        let name = OsStr::new(if name_first { "log" } else { "log.new" });
        let log = directory.create_new(name).unwrap();
        log.write_all_at(&record_of(NEW), 0).unwrap();
        log.sync().unwrap();
        if !name_first {
            directory.rename(name, OsStr::new("log")).unwrap();
        }
        directory.sync().unwrap();
        disk.crashes().check(|state| {
            let Ok(log) = state
                .disk()
                .directory("/d")
                .open(OsStr::new("log"), Access::Read)
            else {
                return Ok(());
            };
            match valid_record(&log, Flaw::None).unwrap() {
                Some(bytes) if bytes == OLD && state.cut() > 2 => Err("an earlier record"),
                _ => Ok(()),
            }
        })
    };
    run(false).unwrap();
    assert!(run(true).is_err());
}

#[test]
fn a_change_in_place_without_a_log_is_found_when_it_is_wider_than_a_sector() {
    let run = |len: usize| {
        let disk = FaultDisk::new();
        disk.put_device("/dev/disk", vec![1; 8192]);
        let device = disk.open("/dev/disk", Access::Write).unwrap();
        device.write_all_at(&vec![2; len], 0).unwrap();
        device.sync().unwrap();
        let new = disk.contents("/dev/disk").unwrap();
        let old = FileBytes::from(vec![1; 8192]);
        disk.crashes().check(|state| {
            let row = state.disk().contents("/dev/disk").unwrap_or_default();
            if row == old || row == new {
                Ok(())
            } else {
                Err("neither old nor new")
            }
        })
    };
    assert!(run(1024).is_err());
    // One sector is not safe either: it may be garbage.
    assert!(run(512).is_err());
}

/// One thing wrong with the redo log.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Flaw {
    None,
    NoChecksum,
    LengthForChecksum,
    TargetFirst,
    RecoveryDoesNotSync,
    RecoveryRemovesFirst,
}

const OLD: &[u8] = &[0x11; 3000];
const NEW: &[u8] = &[0x22; 3000];
const GUEST: &[u8] = &[0x33; 3000];

fn redo_disk() -> FaultDisk {
    let disk = FaultDisk::new();
    disk.put("/d/target", OLD);
    disk
}

/// Replaces the target's bytes by way of a redo log; then a guest writes to it.
fn commit(disk: &FaultDisk, flaw: Flaw) -> Result<()> {
    let directory = disk.directory("/d");
    let target = directory.open(OsStr::new("target"), Access::Write)?;
    if flaw == Flaw::TargetFirst {
        target.write_all_at(NEW, 0)?;
    }
    let log = directory.create_new(OsStr::new("log"))?;
    log.write_all_at(&record_of(NEW), 0)?;
    log.sync()?;
    directory.sync()?;
    if flaw != Flaw::TargetFirst {
        target.write_all_at(NEW, 0)?;
    }
    target.sync()?;
    directory.remove(OsStr::new("log"))?;
    directory.sync()?;
    disk.note("committed");
    target.write_all_at(GUEST, 0)?;
    target.sync()?;
    disk.note("guest");
    Ok(())
}

fn record_of(bytes: &[u8]) -> Vec<u8> {
    [bytes, &crc32fast::hash(bytes).to_le_bytes()].concat()
}

fn recover(disk: &FaultDisk, flaw: Flaw) -> Result<()> {
    let directory = disk.directory("/d");
    let log = match directory.open(OsStr::new("log"), Access::Read) {
        Ok(log) => log,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let target = directory.open(OsStr::new("target"), Access::Write)?;
    let remove = || -> Result<()> {
        directory.remove(OsStr::new("log"))?;
        directory.sync()
    };
    let Some(bytes) = valid_record(&log, flaw)? else {
        return remove();
    };
    if flaw == Flaw::RecoveryRemovesFirst {
        remove()?;
    }
    target.write_all_at(&bytes, 0)?;
    if flaw != Flaw::RecoveryDoesNotSync {
        target.sync()?;
    }
    if flaw == Flaw::RecoveryRemovesFirst {
        Ok(())
    } else {
        remove()
    }
}

fn valid_record(log: &Arc<dyn Storage>, flaw: Flaw) -> Result<Option<Vec<u8>>> {
    let len = NEW.len() as u64;
    if log.len()? < len + 4 {
        return Ok(None);
    }
    let mut bytes = vec![0; NEW.len()];
    let mut sum = [0; 4];
    log.read_exact_at(&mut bytes, 0)?;
    log.read_exact_at(&mut sum, len)?;
    let whole = match flaw {
        Flaw::NoChecksum => sum != [0; 4],
        Flaw::LengthForChecksum => true,
        _ => sum == crc32fast::hash(&bytes).to_le_bytes(),
    };
    Ok(whole.then_some(bytes))
}

/// Commits, crashes everywhere, recovers, and crashes every recovery everywhere too.
fn crash_redo_log(
    flaw: Flaw,
    dropped: Option<SyncCall>,
) -> std::result::Result<Coverage, Violation> {
    let disk = redo_disk();
    if let Some(dropped) = dropped {
        disk.drop_syncs(move |sync| *sync == dropped);
    }
    commit(&disk, flaw).unwrap();
    disk.crashes()
        .check(|state| recover_and_check(state, flaw).map(drop))
}

/// Answers with the count of states that crashes of the recovery leave.
fn recover_and_check(state: &CrashState, flaw: Flaw) -> std::result::Result<u64, String> {
    let said = |error: Error| error.to_string();
    let disk = state.disk();
    recover(disk, flaw).map_err(said)?;
    target_is_right(state, disk)?;
    let again = disk.crashes().with_seed(2).with_limit(40).with_samples(10);
    let nested = again.check(|nested| {
        recover(nested.disk(), flaw).map_err(said)?;
        target_is_right(state, nested.disk())
    });
    nested
        .map(|coverage| coverage.states)
        .map_err(|violation| format!("in its recovery: {violation}"))
}

/// Old or new before the acknowledgement, new after it, and the guest's once the guest synced;
/// what the guest's own write leaves before that is the guest's concern, but never the old bytes.
fn target_is_right(state: &CrashState, disk: &FaultDisk) -> std::result::Result<(), String> {
    let target = disk.contents("/d/target").unwrap_or_default();
    let holds = |bytes: &[u8]| target == FileBytes::from(bytes);
    let right = match (state.noted("committed"), state.noted("guest")) {
        (false, _) => holds(OLD) || holds(NEW),
        (true, false) => !holds(OLD),
        (true, true) => holds(GUEST),
    };
    if right {
        Ok(())
    } else {
        Err(format!("the target is spoiled: {target:?}"))
    }
}

fn old_or_new(disk: &FaultDisk, path: &str) -> std::result::Result<Coverage, Violation> {
    disk.crashes()
        .check(|state| match state.disk().contents(path) {
            Some(row) if row == FileBytes::from(NEW) => Ok(()),
            Some(row) if row == FileBytes::from(OLD) && !state.noted("done") => Ok(()),
            row => Err(format!("{path} holds {row:?}")),
        })
}
