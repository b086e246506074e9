//! What the crash harness's model allows and what it does not.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::Path;

use diskdelta::storage::fault::{
    Failure, Fault, FaultDisk, FaultStorage, FileBytes, NoRewrite, OpKind, Outcome, Step,
    SyncedBefore,
};
use diskdelta::storage::{Access, Directory, MemoryStorage, Storage};
use diskdelta::{ErrorKind, Result};
use proptest::prelude::*;

#[test]
fn every_subset_of_unsynced_writes_may_have_landed() {
    let (disk, file) = file_of(&[b'o'; 2048]);
    for at in [0, 512, 1024, 1536] {
        file.write_all_at(&[b'n'; 512], at).unwrap();
    }
    let seen: BTreeSet<String> = contents(&disk, "/d/f")
        .iter()
        .map(|bytes| bytes.chunks(512).map(kind_of_sector).collect())
        .collect();
    let every: BTreeSet<String> = (0..256)
        .map(|n: usize| {
            (0..4)
                .map(|at| b"ongz"[n >> (2 * at) & 3] as char)
                .collect()
        })
        .collect();
    assert_eq!(seen, every);
}

#[test]
fn writes_before_a_sync_are_in_every_later_state() {
    let (disk, file) = file_of(&[b'o'; 1024]);
    file.write_all_at(&[b'n'; 512], 0).unwrap();
    file.sync().unwrap();
    disk.note("synced");
    file.write_all_at(&[b'n'; 512], 512).unwrap();
    disk.crashes()
        .check(|state| {
            let bytes = bytes_of(state.disk(), "/d/f");
            if state.noted("synced") && bytes[..512] != [b'n'; 512] {
                Err("lost")
            } else {
                Ok(())
            }
        })
        .unwrap();
}

#[test]
fn a_sync_of_one_file_says_nothing_of_another() {
    let disk = FaultDisk::new();
    disk.put("/d/a", vec![b'o'; 512]);
    disk.put("/d/b", vec![b'o'; 512]);
    let (a, b) = (open(&disk, "/d/a"), open(&disk, "/d/b"));
    a.write_all_at(&[b'n'; 512], 0).unwrap();
    b.write_all_at(&[b'n'; 512], 0).unwrap();
    b.sync().unwrap();
    disk.note("b synced");
    let last: Vec<_> = disk
        .crashes()
        .states()
        .filter(|state| state.cut() == 4)
        .collect();
    assert!(
        last.iter()
            .all(|state| bytes_of(state.disk(), "/d/b") == [b'n'; 512])
    );
    assert!(
        last.iter()
            .any(|state| bytes_of(state.disk(), "/d/a") == [b'o'; 512])
    );
}

#[test]
fn bytes_beside_a_short_write_keep_their_value() {
    let (disk, file) = file_of(&[b'o'; 4096]);
    file.write_all_at(&[b'n'; 700], 300).unwrap();
    let seen = contents(&disk, "/d/f");
    for bytes in &seen {
        assert!(
            bytes[..300]
                .iter()
                .chain(&bytes[1000..])
                .all(|&byte| byte == b'o')
        );
    }
    // Sectors of the write are torn apart from each other, and garbage shows.
    assert!(
        seen.iter()
            .any(|b| b[300..512] == [b'n'; 212] && b[512..1000] == [b'o'; 488])
    );
    assert!(seen.iter().any(|b| kind_of_sector(&b[300..512]) == 'g'));
}

#[test]
fn a_length_may_be_lost_or_come_before_its_data() {
    let (disk, file) = file_of(&[b'o'; 512]);
    file.write_all_at(&[b'n'; 1024], 512).unwrap();
    let seen = contents(&disk, "/d/f");
    let has = |bytes: &[&[u8]]| seen.contains(&bytes.concat());
    assert!(has(&[&[b'o'; 512]]));
    assert!(has(&[&[b'o'; 512], &[b'n'; 1024]]));
    assert!(
        has(&[&[b'o'; 512], &[b'n'; 512]]),
        "length of the part that landed"
    );
    assert!(has(&[&[b'o'; 512], &[0; 1024]]), "length without data");
    assert!(
        seen.iter()
            .any(|b| b.len() == 1536 && kind_of_sector(&b[1024..]) == 'g')
    );
}

#[test]
fn new_space_of_a_lone_length_change_reads_as_garbage_until_it_is_synced() {
    let (disk, file) = file_of(b"");
    file.set_len(8192).unwrap();
    let seen = contents(&disk, "/d/f");
    assert_eq!(seen.len(), 3);
    assert!(seen.contains(&vec![]) && seen.contains(&vec![0; 8192]));
    file.sync().unwrap();
    disk.note("synced");
    let end = disk.log().len();
    let last: Vec<_> = disk.crashes().states_at(end).collect();
    assert_eq!(last.len(), 1);
    assert_eq!(bytes_of(last[0].disk(), "/d/f"), vec![0; 8192]);
}

#[test]
fn names_change_one_by_one_until_their_directory_is_synced() {
    let disk = FaultDisk::new();
    disk.put("/d/old", &b"old"[..]);
    disk.put("/d/gone", &b"gone"[..]);
    let directory = disk.directory("/d");
    let new = directory.create_new(name("new")).unwrap();
    new.write_all_at(b"new", 0).unwrap();
    new.sync().unwrap();
    directory.rename(name("new"), name("old")).unwrap();
    directory.remove(name("gone")).unwrap();
    let seen: BTreeSet<String> = disk
        .crashes()
        .states_at(disk.log().len())
        .map(|state| {
            let names = state.disk().names("/d").into_iter();
            let text = |name: &OsStr| {
                let bytes = bytes_of(state.disk(), &format!("/d/{}", name.display()));
                format!("{}={} ", name.display(), String::from_utf8_lossy(&bytes))
            };
            names.map(|name| text(&name)).collect::<String>()
        })
        .collect();
    let all = ["", "gone=gone "].iter().flat_map(|gone| {
        ["old=old ", "new=new old=old ", "old=new "].map(|rest| format!("{gone}{rest}"))
    });
    assert_eq!(seen, all.collect());
    directory.sync().unwrap();
    assert_eq!(disk.crashes().states_at(disk.log().len()).count(), 1);
}

#[test]
fn a_file_renamed_twice_never_has_two_names() {
    let disk = FaultDisk::new();
    disk.put("/d/a", &b"text"[..]);
    let directory = disk.directory("/d");
    directory.rename(name("a"), name("b")).unwrap();
    directory.rename(name("b"), name("c")).unwrap();
    for state in disk.crashes().states() {
        assert_eq!(state.disk().names("/d").len(), 1, "{state}");
    }
}

#[test]
fn an_open_file_outlives_its_name_but_not_the_restart() {
    let (disk, file) = file_of(b"text");
    let directory = disk.directory("/d");
    directory.remove(name("f")).unwrap();
    file.write_all_at(b"more", 4).unwrap();
    assert_eq!(file.len().unwrap(), 8);
    directory.sync().unwrap();
    file.sync().unwrap();
    let states: Vec<_> = disk.crashes().states_at(disk.log().len()).collect();
    assert!(
        states
            .iter()
            .all(|state| state.disk().contents("/d/f").is_none())
    );
}

#[test]
fn a_failed_sync_poisons_the_handle_and_leaves_its_writes_in_doubt_for_ever() {
    let (disk, file) = file_of(&[b'o'; 512]);
    let other = open(&disk, "/d/f");
    file.write_all_at(&[b'n'; 512], 0).unwrap();
    disk.fail(Fault::nth(1).on(|call| call.kind == OpKind::Sync));
    assert_eq!(file.sync().unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(file.len().unwrap_err().kind(), ErrorKind::Poisoned);
    // A handle that was open is told too, once; a fresh one is not.
    assert_eq!(other.sync().unwrap_err().kind(), ErrorKind::Io);
    let fresh = open(&disk, "/d/f");
    fresh.sync().unwrap();
    assert_eq!(bytes_of(&disk, "/d/f"), [b'n'; 512]);
    let end = |disk: &FaultDisk| -> BTreeSet<char> {
        let crashes = disk.crashes();
        let states = crashes.states_at(disk.log().len());
        states
            .map(|state| kind_of_sector(&bytes_of(state.disk(), "/d/f")))
            .collect()
    };
    assert_eq!(end(&disk), BTreeSet::from(['g', 'n', 'o', 'z']));
    // Written again and synced it is certain.
    fresh.write_all_at(&[b'n'; 512], 0).unwrap();
    fresh.sync().unwrap();
    assert_eq!(end(&disk), BTreeSet::from(['n']));
}

#[test]
fn a_failed_sync_may_throw_the_writes_away() {
    let (disk, file) = file_of(&[b'o'; 512]);
    file.write_all_at(&[b'n'; 1024], 0).unwrap();
    let lossy = Fault::nth(1).with_failure(Failure::Lossy);
    disk.fail(lossy.on(|call| call.kind == OpKind::Sync));
    assert_eq!(file.sync().unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(bytes_of(&disk, "/d/f"), [b'o'; 512]);
    assert_eq!(contents(&disk, "/d/f"), BTreeSet::from([vec![b'o'; 512]]));
}

#[test]
fn new_space_may_hold_what_a_removed_file_left_there() {
    let disk = FaultDisk::new();
    disk.put("/d/redo_log", vec![b's'; 2000]);
    let directory = disk.directory("/d");
    directory.remove(name("redo_log")).unwrap();
    directory.sync().unwrap();
    let after_restart = disk.crashes().states().last().unwrap();
    for disk in [&disk, after_restart.disk()] {
        let redo_log = disk.directory("/d").create_new(name("redo_log")).unwrap();
        disk.directory("/d").sync().unwrap();
        redo_log.set_len(1500).unwrap();
        assert!(contents(disk, "/d/redo_log").contains(&vec![b's'; 1500]));
        redo_log.sync().unwrap();
        redo_log.write_all_at(&[b'n'; 500], 1500).unwrap();
        let stale = [&[0; 1500][..], &[b's'; 500]].concat();
        assert!(contents(disk, "/d/redo_log").contains(&stale));
    }
}

#[test]
fn space_of_a_file_whose_removal_may_be_lost_is_not_free() {
    let disk = FaultDisk::new();
    disk.put("/d/old", vec![b's'; 2000]);
    let directory = disk.directory("/d");
    directory.remove(name("old")).unwrap();
    let new = directory.create_new(name("new")).unwrap();
    new.set_len(2000).unwrap();
    assert!(!contents(&disk, "/d/new").contains(&vec![b's'; 2000]));
}

#[test]
fn writes_to_a_file_that_is_gone_for_good_make_no_states() {
    let (disk, file) = file_of(&[b'o'; 4096]);
    file.write_all_at(&[b'n'; 4096], 0).unwrap();
    let directory = disk.directory("/d");
    directory.remove(name("f")).unwrap();
    directory.sync().unwrap();
    assert_eq!(disk.crashes().states_at(disk.log().len()).count(), 1);
}

#[test]
fn garbage_is_the_same_for_the_same_seed_and_never_old_or_new() {
    let (disk, file) = file_of(&[0; 4096]);
    file.write_all_at(&[1; 3], 100).unwrap();
    file.write_all_at(&[2; 2048], 1024).unwrap();
    let run = |seed| -> Vec<Vec<u8>> {
        let crashes = disk.crashes().with_seed(seed);
        let bytes = crashes.states().map(|state| bytes_of(state.disk(), "/d/f"));
        bytes.collect()
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}

#[test]
fn crash_states_share_nothing_that_can_be_changed() {
    let (disk, file) = file_of(&[b'o'; 8192]);
    file.write_all_at(&[b'n'; 4096], 0).unwrap();
    let before = contents(&disk, "/d/f");
    for state in disk.crashes().states() {
        let file = open(state.disk(), "/d/f");
        file.write_all_at(&[b'x'; 8192], 0).unwrap();
        file.set_len(1).unwrap();
    }
    assert_eq!(contents(&disk, "/d/f"), before);
    assert_eq!(disk.log().len(), 1);
}

#[test]
fn a_megabyte_write_is_torn_in_several_ways_without_being_copied() {
    let disk = FaultDisk::new();
    disk.put_device("/dev/x", vec![b'o'; 2 << 20]);
    let device = open(&disk, "/dev/x");
    device.write_all_at(&vec![b'n'; 1 << 20], 0).unwrap();
    device.write_all_at(&vec![b'n'; 1 << 20], 1 << 20).unwrap();
    let coverage = disk.crashes().coverage();
    assert_eq!((coverage.cuts, coverage.exhaustive_cuts), (1, 1));
    assert!(coverage.states > 100);
    for state in disk.crashes().states() {
        assert_eq!(
            state.disk().contents("/dev/x").map(|row| row.len()),
            Some(2 << 20)
        );
    }
}

#[test]
fn a_crash_after_a_killed_process_still_loses_what_that_process_did_not_sync() {
    let (disk, file) = file_of(&[b'o'; 1024]);
    disk.fail(Fault::nth(2).and_all_later());
    file.write_all_at(&[b'n'; 512], 0).unwrap();
    assert!(file.sync().is_err());
    disk.heal();
    let next_process = open(&disk, "/d/f");
    assert_eq!(bytes_of(&disk, "/d/f")[..512], [b'n'; 512]);
    next_process.write_all_at(&[b'n'; 512], 512).unwrap();
    let seen = contents(&disk, "/d/f");
    assert!(seen.contains(&[[b'o'; 512], [b'n'; 512]].concat()));
}

#[test]
fn the_nth_operation_fails_once_or_from_then_on() {
    let work = |disk: &FaultDisk| -> Result<()> {
        let directory = disk.directory("/d");
        let file = directory.create_new(name("f"))?;
        file.write_all_at(&[1; 2048], 0)?;
        file.set_len(1000)?;
        let taken = file.reserve(0..4096)?;
        file.give_back(&taken)?;
        file.punch_hole(0..100)?;
        file.sync()?;
        directory.rename(name("f"), name("g"))?;
        directory.copy_attributes(name("g"), name("g"))?;
        directory.remove(name("g"))?;
        directory.sync()
    };
    let mut failed = Vec::new();
    for nth in 1.. {
        let disk = FaultDisk::new();
        disk.fail(Fault::nth(nth));
        let result = work(&disk);
        let Some(fired) = disk.fired().pop() else {
            result.unwrap();
            break;
        };
        let error = result.unwrap_err();
        assert!(
            error.path().is_some() && error.operation().is_some(),
            "{error}"
        );
        assert_eq!(
            disk.log().ops().last().map(|op| op.outcome()),
            Some(Outcome::Failed)
        );
        failed.push(fired.kind);
    }
    use OpKind::*;
    let all = [
        Create,
        Write,
        SetLen,
        Reserve,
        GiveBack,
        PunchHole,
        Sync,
        Rename,
        Attributes,
        Remove,
        SyncDirectory,
    ];
    assert_eq!(failed, all);
}

#[test]
fn failures_do_nothing_a_part_or_all_as_they_say() {
    let outcome = |failure| {
        let (disk, file) = file_of(&[b'o'; 2048]);
        disk.fail(Fault::nth(1).with_failure(failure));
        let error = file.write_all_at(&[b'n'; 2048], 0).unwrap_err();
        (
            error.kind(),
            bytes_of(&disk, "/d/f")
                .iter()
                .filter(|&&byte| byte == b'n')
                .count(),
        )
    };
    assert_eq!(outcome(Failure::Io), (ErrorKind::Io, 0));
    assert_eq!(outcome(Failure::NoSpace), (ErrorKind::NoSpace, 0));
    assert_eq!(outcome(Failure::Short), (ErrorKind::NoSpace, 1024));
    assert_eq!(outcome(Failure::Late), (ErrorKind::Io, 2048));
}

#[test]
fn reads_fail_where_a_range_is_unreadable_and_only_there() {
    let (disk, file) = file_of(&[7; 4096]);
    disk.make_unreadable("/d/f", 1024..1536).unwrap();
    let mut buf = [0; 512];
    file.read_exact_at(&mut buf, 512).unwrap();
    let error = file.read_exact_at(&mut buf, 1535).unwrap_err();
    assert_eq!((error.kind(), error.offset()), (ErrorKind::Io, Some(1535)));
    disk.heal();
    file.read_exact_at(&mut buf, 1535).unwrap();
    assert!(disk.make_unreadable("/d/none", 0..1).is_err());
}

#[test]
fn a_device_keeps_its_length_and_has_no_holes() {
    let disk = FaultDisk::new();
    disk.put_device("/dev/x", FileBytes::zeros(1 << 20));
    let device = open(&disk, "/dev/x");
    assert_eq!(
        device.set_len(5).unwrap_err().kind(),
        ErrorKind::Unsupported
    );
    let past_end = device.write_all_at(&[1; 2], (1 << 20) - 1).unwrap_err();
    assert_eq!(past_end.kind(), ErrorKind::InvalidInput);
    assert_eq!(device.next_data(5).unwrap(), Some(5..1 << 20));
    assert!(disk.names("/dev").is_empty());
}

#[test]
fn a_handle_opened_for_reading_cannot_change_anything() {
    let (disk, _) = file_of(b"text");
    let file = disk.open("/d/f", Access::Read).unwrap();
    assert!(file.write_all_at(b"x", 0).is_err());
    assert!(file.set_len(0).is_err());
    assert!(file.punch_hole(0..1).is_err());
    assert!(disk.log().is_empty());
}

#[test]
fn a_dropped_sync_reports_success_and_makes_nothing_durable() {
    let (disk, file) = file_of(&[b'o'; 512]);
    disk.drop_syncs(|sync| sync.path() == Path::new("/d/f") && sync.nth() == 1);
    file.write_all_at(&[b'n'; 512], 0).unwrap();
    file.sync().unwrap();
    assert!(contents(&disk, "/d/f").contains(&vec![b'o'; 512]));
    file.sync().unwrap();
    assert_eq!(disk.crashes().states_at(3).count(), 1);
}

#[test]
fn writing_the_same_bytes_twice_between_syncs_breaks_a_rule() {
    let run = |second: u64, sync: bool| {
        let (disk, file) = file_of(&[0; 4096]);
        file.write_all_at(&[1; 100], 0).unwrap();
        if sync {
            file.sync().unwrap();
        }
        file.write_all_at(&[2; 100], second).unwrap();
        disk.log().check(NoRewrite::new())
    };
    run(100, false).unwrap();
    run(99, true).unwrap();
    let violation = run(99, false).unwrap_err().to_string();
    assert!(
        violation.contains("0x63..0xc7 meets 0x0..0x64"),
        "{violation}"
    );
    assert!(violation.contains("#1 write /d/f"), "{violation}");
}

#[test]
fn touching_a_target_before_its_redo_log_is_durable_breaks_a_rule() {
    let run = |sync_redo_log: bool, sync_directory: bool| {
        let (disk, target) = file_of(&[0; 4096]);
        let directory = disk.directory("/d");
        let redo_log = directory.create_new(name("redo_log")).unwrap();
        redo_log.write_all_at(&[1; 100], 0).unwrap();
        if sync_redo_log {
            redo_log.sync().unwrap();
        }
        if sync_directory {
            directory.sync().unwrap();
        }
        target.write_all_at(&[1; 100], 0).unwrap();
        let redo_log = |path: &Path| path.ends_with("redo_log");
        disk.log()
            .check(SyncedBefore::new(redo_log, |path| path.ends_with("f")))
    };
    run(true, true).unwrap();
    assert!(run(false, true).is_err());
    assert!(run(true, false).is_err());
}

#[test]
fn a_rule_of_ones_own_sees_what_is_durable_before_each_operation() {
    let (disk, file) = file_of(b"old");
    file.write_all_at(b"new", 0).unwrap();
    file.sync().unwrap();
    disk.note("end");
    let mut seen = Vec::new();
    let rule = |step: &Step<'_>| {
        let durable = step
            .durable("/d/f")
            .map(FileBytes::to_vec)
            .unwrap_or_default();
        seen.push((
            String::from_utf8_lossy(&durable).into_owned(),
            step.in_doubt("/d/f"),
        ));
        Ok(())
    };
    disk.log().check(rule).unwrap();
    let expected = [("old", false), ("old", true), ("new", false)];
    assert_eq!(seen, expected.map(|(text, doubt)| (text.to_owned(), doubt)));
}

#[derive(Debug, Clone)]
enum Change {
    Write(u64, usize, u8),
    SetLen(u64),
    Punch(u64, u64),
    Sync,
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let change = prop_oneof![
        4 => (0..6000u64, 1..3000usize, 1..=255u8).prop_map(|(at, n, b)| Change::Write(at, n, b)),
        1 => (0..9000u64).prop_map(Change::SetLen),
        1 => (0..9000u64, 0..9000u64).prop_map(|(a, b)| Change::Punch(a.min(b), a.max(b))),
        1 => Just(Change::Sync),
    ];
    prop::collection::vec(change, 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_file_behaves_as_memory_does_and_a_crash_touches_only_what_was_not_synced(
        changes in changes(),
        seed in any::<u64>(),
    ) {
        let (disk, file) = file_of(&[0xaa; 5000]);
        let model = MemoryStorage::new("model", vec![0xaa; 5000]);
        let (mut durable, mut touched) = (model.to_vec(), vec![false; 20_000]);
        for change in changes {
            let len = model.len().unwrap();
            let touch = match change {
                Change::Write(at, count, byte) => {
                    file.write_all_at(&vec![byte; count], at).unwrap();
                    model.write_all_at(&vec![byte; count], at).unwrap();
                    at.min(len)..at + count as u64
                }
                Change::SetLen(to) => {
                    file.set_len(to).unwrap();
                    model.set_len(to).unwrap();
                    len.min(to)..20_000
                }
                Change::Punch(from, to) => {
                    let done = file.punch_hole(from..to).is_ok();
                    prop_assert_eq!(done, to <= len);
                    if done {
                        model.punch_hole(from..to).unwrap();
                    }
                    from..if done { to } else { from }
                }
                Change::Sync => {
                    file.sync().unwrap();
                    (durable, touched) = (model.to_vec(), vec![false; 20_000]);
                    0..0
                }
            };
            touched[touch.start as usize..touch.end as usize].fill(true);
            prop_assert_eq!(bytes_of(&disk, "/d/f"), model.to_vec());
        }
        let crashes = disk.crashes().with_seed(seed).with_limit(200);
        let mut whole = false;
        for state in crashes.states_at(disk.log().len()) {
            let bytes = bytes_of(state.disk(), "/d/f");
            whole |= bytes == model.to_vec();
            for (at, byte) in durable.iter().enumerate().filter(|(at, _)| !touched[*at]) {
                prop_assert_eq!(bytes.get(at), Some(byte), "byte {} after {}", at, state);
            }
        }
        prop_assert!(whole, "no state in which all landed");
    }
}

fn name(name: &str) -> &OsStr {
    OsStr::new(name)
}

fn open(disk: &FaultDisk, path: &str) -> FaultStorage {
    disk.open(path, Access::Write).unwrap()
}

fn file_of(bytes: &[u8]) -> (FaultDisk, FaultStorage) {
    let disk = FaultDisk::new();
    disk.put("/d/f", bytes);
    let file = open(&disk, "/d/f");
    (disk, file)
}

fn bytes_of(disk: &FaultDisk, path: &str) -> Vec<u8> {
    disk.contents(path)
        .map(|row| row.to_vec())
        .unwrap_or_default()
}

/// All contents of a file that a crash at the end may leave.
fn contents(disk: &FaultDisk, path: &str) -> BTreeSet<Vec<u8>> {
    let crashes = disk.crashes();
    let states = crashes.states_at(disk.log().len());
    states.map(|state| bytes_of(state.disk(), path)).collect()
}

/// `o`ld, `n`ew or `z`ero through and through, or `g`arbage.
fn kind_of_sector(bytes: &[u8]) -> char {
    match bytes.first() {
        Some(b'o') if bytes.iter().all(|&byte| byte == b'o') => 'o',
        Some(b'n') if bytes.iter().all(|&byte| byte == b'n') => 'n',
        Some(0) if bytes.iter().all(|&byte| byte == 0) => 'z',
        _ => 'g',
    }
}
