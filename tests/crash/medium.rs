//! An error of a medium is passed on, with what it means for the target; it is never taken for
//! something that is not there.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use diskdelta::image::Raw;
use diskdelta::storage::Access;
use diskdelta::storage::fault::{Call, Failure, Fault, FaultDisk, OpKind};
use diskdelta::sync::{Mode, Outcome, Recovered, Source, discard, recover, sync};
use diskdelta::{Advice, Error, ErrorKind};

use crate::case::{Case, TARGET, work};
use crate::cases::{self, PAGE};
use crate::leftovers::none_but_holes;

pub const REDO_LOG: &str = "/img/.t.diskdelta-log";
const KEPT: &str = "/kept/m";
const KEPT_NEXT: &str = "/kept/.m.ID.new";

/// The nth such call on that file fails.
pub fn nth(nth: u64, kind: OpKind, path: &'static str) -> Fault {
    Fault::nth(nth).on(move |call: &Call<'_>| call.kind == kind && call.path == Path::new(path))
}

pub fn advice(error: &Error) -> String {
    let all: Vec<_> = error.advice().iter().map(Advice::to_string).collect();
    all.join("; ")
}

/// Leaves the case's target marked: it cannot be synced for the third time, when its data are
/// there.
pub fn leave_marked(case: &Case) -> FaultDisk {
    let disk = case.disk();
    disk.fail(nth(3, OpKind::Sync, TARGET));
    case.work_on(&disk).unwrap_err();
    disk.heal();
    disk
}

/// Leaves the complete redo log of a sync that was stopped before it set the marker.
pub fn leave_logged(disk: &FaultDisk, sync: impl FnOnce() -> diskdelta::Result<()>) {
    let takes_room = |kind| matches!(kind, OpKind::Reserve | OpKind::GiveBack);
    let changes = move |kind: OpKind| kind.changes() && !takes_room(kind);
    let first = move |call: &Call<'_>| changes(call.kind) && call.path == Path::new(TARGET);
    disk.fail(Fault::nth(1).on(first).and_all_later());
    sync().unwrap_err();
    disk.heal();
    assert!(disk.contents(REDO_LOG).is_some());
}

#[test]
fn an_error_while_the_marker_is_set_says_how_to_go_on_from_the_marker() {
    let atomic = cases::atomic_under_the_marker_only();
    let in_place = cases::in_place_under_the_marker_only();
    for (case, way) in [
        (atomic, Advice::Recover.to_string()),
        (in_place, "run the same sync again".to_owned()),
    ] {
        let disk = case.disk();
        // The first page is marked, and the rest perhaps.
        disk.fail(nth(2, OpKind::Sync, TARGET));
        let error = case.work_on(&disk).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(advice(&error).contains(&way), "{}: {error}", case.name);
        let disk = case.disk();
        disk.fail(nth(1, OpKind::Write, TARGET));
        let error = case.work_on(&disk).unwrap_err();
        let whole = "the target is whole";
        assert!(advice(&error).contains(whole), "{}: {error}", case.name);
    }
}

#[test]
fn a_redo_log_or_sidecar_that_cannot_be_read_is_neither_missing_nor_damaged() {
    let marked: fn(&Case) -> FaultDisk = leave_marked;
    let logged: fn(&Case) -> FaultDisk = |case| {
        let disk = case.disk();
        leave_logged(&disk, || case.work_on(&disk));
        disk
    };
    let atomic = cases::atomic_under_the_marker_only();
    let in_place = cases::in_place_under_the_marker_only();
    for (case, leave, recovered) in [
        (&atomic, marked, Recovered::New),
        (&atomic, logged, Recovered::Old),
        (&in_place, marked, Recovered::Rerun),
        (&in_place, logged, Recovered::Old),
    ] {
        for kind in [OpKind::Open, OpKind::Len, OpKind::Read] {
            let mut failed = 0;
            loop {
                let disk = leave(case);
                disk.fail(nth(failed + 1, kind, REDO_LOG));
                let outcome = recover(&case.target(&disk), &work());
                if disk.fired().is_empty() {
                    break;
                }
                failed += 1;
                let what = format!("{}, {recovered:?}, {kind:?} {failed}", case.name);
                let error = outcome.err().unwrap_or_else(|| panic!("{what}: not told"));
                assert_eq!(error.kind(), ErrorKind::Io, "{what}: {error}");
                let outcome = recover(&case.target(&disk), &work()).unwrap();
                assert_eq!(outcome, recovered, "{what}");
            }
            assert!(failed > 0, "{}, {recovered:?}, {kind:?}", case.name);
        }
    }
}

#[test]
fn a_full_copy_without_room_names_the_ways_that_need_less() {
    let case = cases::full();
    let disk = case.disk();
    let room = nth(1, OpKind::Write, "/img/.t.diskdelta-new").with_failure(Failure::NoSpace);
    disk.fail(room);
    let error = case.work_on(&disk).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace);
    assert!(error.advice().contains(&Advice::DeltaMode), "{error}");
    assert!(advice(&error).contains("untouched"), "{error}");
    // There is no target yet that less could be written to.
    let case = cases::creating();
    let disk = case.disk();
    disk.fail(nth(1, OpKind::Write, "/img/.t.diskdelta-new").with_failure(Failure::NoSpace));
    let error = case.work_on(&disk).unwrap_err();
    assert!(advice(&error).contains("make room"), "{error}");
}

#[test]
fn a_redo_log_without_room_names_the_ways_out_and_no_other_error_does() {
    let case = cases::atomic_under_the_marker_only();
    for (failure, kind) in [
        (Failure::NoSpace, ErrorKind::NoSpace),
        (Failure::Io, ErrorKind::Io),
    ] {
        let disk = case.disk();
        disk.fail(nth(1, OpKind::Write, REDO_LOG).with_failure(failure));
        let error = case.work_on(&disk).unwrap_err();
        assert_eq!(error.kind(), kind);
        let is_for_room = error.advice().contains(&Advice::LogDirectory);
        assert_eq!(is_for_room, kind == ErrorKind::NoSpace, "{error}");
    }
}

#[test]
fn room_for_what_was_a_hole_is_found_before_the_target_is_marked() {
    let old = [cases::bytes(PAGE, 1), cases::bytes(8 * PAGE, 0)].concat();
    let mut new = [cases::bytes(PAGE, 2), cases::bytes(8 * PAGE, 0)].concat();
    new[3 * PAGE..5 * PAGE].copy_from_slice(&cases::bytes(2 * PAGE, 3));
    let case = Case::raw("filling a hole", &old, &new).with_leftovers(none_but_holes);
    let disk = case.disk();
    disk.fail(nth(1, OpKind::Reserve, TARGET).with_failure(Failure::NoSpace));
    let error = case.work_on(&disk).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace);
    let way = "make room where the target is stored";
    assert!(advice(&error).contains(way), "{error}");
    assert!(disk.contents(TARGET).unwrap().to_vec() == old);
    assert!(disk.fired().iter().all(|it| it.kind == OpKind::Reserve));
    disk.heal();

    let disk = case.disk();
    case.work_on(&disk).unwrap();
    let log = disk.log();
    let reserved: Vec<_> = log
        .ops()
        .filter(|op| op.kind() == OpKind::Reserve)
        .map(|op| op.range().unwrap())
        .collect();
    let page = PAGE as u64;
    // All of it is under the marker, and two ranges change.
    assert_eq!(reserved, [0..9 * page, 0..page, 3 * page..5 * page]);

    // Zeros at the end take none.
    let longer = [&old[..], &[0; PAGE]].concat();
    let case = Case::raw("growing by zeros", &old, &longer).with_leftovers(none_but_holes);
    let disk = case.disk();
    case.work_on(&disk).unwrap();
    let log = disk.log();
    let reserved = log.ops().filter(|op| op.kind() == OpKind::Reserve);
    assert_eq!(reserved.count(), 1, "that of the marker");
}

#[test]
fn room_for_a_container_that_grows_is_found_before_it_is_marked() {
    let case = cases::dynamic_vhd();
    let disk = case.disk();
    let old = disk.contents(TARGET).unwrap().to_vec();
    disk.fail(nth(1, OpKind::Reserve, TARGET).with_failure(Failure::NoSpace));
    let error = case.work_on(&disk).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace);
    assert!(disk.contents(TARGET).unwrap().to_vec() == old);
    disk.heal();
    let disk = case.disk();
    case.work_on(&disk).unwrap();
    let new_len = disk.contents(TARGET).unwrap().len();
    let log = disk.log();
    let reserved = log.ops().filter(|op| op.kind() == OpKind::Reserve);
    let reserved: Vec<_> = reserved.filter_map(|op| op.range()).collect();
    // All that is written where it grows, and zeros are not.
    let written = log
        .ops()
        .filter(|op| op.kind() == OpKind::Write && op.path() == Path::new(TARGET));
    let mut grown = 0;
    for range in written.filter_map(|op| op.range()) {
        assert!(range.end <= new_len);
        if range.start >= old.len() as u64 {
            let has_room = |room: &Range<u64>| room.start <= range.start && range.end <= room.end;
            assert!(reserved.iter().any(has_room), "{range:?} in {reserved:?}");
            grown += 1;
        }
    }
    assert!(grown > 0);
}

#[test]
fn a_target_manifest_that_cannot_be_read_stops_the_sync_and_a_damaged_one_is_begun_anew() {
    let case = cases::atomic_kept();
    for read in 1..4 {
        let disk = case.disk();
        disk.fail(nth(read, OpKind::Read, KEPT));
        let error = case.work_on(&disk).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io, "read {read}");
        assert!(disk.contents(TARGET).unwrap().to_vec() == *case.old.as_ref().unwrap());
    }
    let disk = case.disk();
    let mut damaged = disk.contents(KEPT).unwrap().to_vec();
    damaged[20] ^= 1;
    disk.put(KEPT, damaged.clone());
    case.work_on(&disk).unwrap();
    assert!(disk.contents(TARGET).unwrap().to_vec() == case.new);
    assert!(disk.contents(KEPT).unwrap().to_vec() != damaged);
}

#[test]
fn a_successor_of_a_target_manifest_that_cannot_be_opened_is_not_taken_for_none() {
    let case = cases::atomic_kept();
    let disk = leave_marked(&case);
    let kept = disk.contents(KEPT).unwrap();
    disk.fail(nth(1, OpKind::Open, KEPT_NEXT));
    let error = recover(&case.target(&disk), &work()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(disk.contents(KEPT).unwrap() == kept);
    let recovered = recover(&case.target(&disk), &work()).unwrap();
    assert_eq!(recovered, Recovered::New);
    // Its redo log was done; the intents in what is kept say what has changed.
    assert!(disk.contents(TARGET).unwrap().to_vec() == case.new);
    let old = case.old.as_ref().unwrap();
    case.sync_from(old, &disk).unwrap();
    assert!(disk.contents(TARGET).unwrap().to_vec() == *old);
    assert_eq!(disk.names("/kept"), ["m"]);
}

#[test]
fn a_way_back_that_cannot_be_opened_says_that_the_target_is_whole() {
    let case = cases::undoing();
    let disk = case.disk();
    disk.fail(nth(1, OpKind::Open, "/undo/undo"));
    let error = case.work_on(&disk).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(advice(&error).contains("the target is whole"));
}

#[test]
fn giving_up_a_sync_that_is_done_but_for_its_redo_log_says_that_the_target_is_new() {
    let case = cases::atomic_under_the_marker_only();
    let disk = case.disk();
    disk.fail(nth(1, OpKind::Remove, REDO_LOG));
    case.work_on(&disk).unwrap_err();
    disk.heal();
    let given_up = discard(&case.target(&disk), &work()).unwrap();
    assert_eq!(given_up, Recovered::New);
    assert!(disk.contents(TARGET).unwrap().to_vec() == case.new);
    assert_eq!(disk.names("/img"), ["t"]);

    let disk = case.disk();
    leave_logged(&disk, || case.work_on(&disk));
    let given_up = discard(&case.target(&disk), &work()).unwrap();
    assert_eq!(given_up, Recovered::Old);
    assert!(disk.contents(TARGET).unwrap().to_vec() == *case.old.as_ref().unwrap());
    assert_eq!(disk.names("/img"), ["t"]);
}

#[test]
fn ranges_of_the_source_that_have_become_unreadable_are_passed_over_beside_a_redo_log_too() {
    let case = cases::atomic_under_the_marker_only();
    let disk = case.disk();
    leave_logged(&disk, || case.work_on(&disk));
    let page = PAGE as u64;
    let source = unreadable(&case.new, &(3..4));
    let options = case.options.clone();
    let error = sync(&source, &case.target(&disk), &options, &work()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreadable);
    let options = options.with_skip_unreadable(true);
    let report = sync(&source, &case.target(&disk), &options, &work()).unwrap();
    assert_eq!(report.outcome, Outcome::SyncedWithGaps);
    let passed_over = &report.unreadable[..];
    assert!(matches!(passed_over, [it] if *it == (3 * page..4 * page)));
    assert!(report.resumed_bytes > 0);
    let mut expected = case.new.clone();
    let old = &case.old.as_ref().unwrap()[3 * PAGE..4 * PAGE];
    expected[3 * PAGE..4 * PAGE].copy_from_slice(old);
    assert!(disk.contents(TARGET).unwrap().to_vec() == expected);
}

#[test]
fn a_full_copy_keeps_the_old_bytes_where_the_source_cannot_be_read() {
    let case = cases::full();
    let old = cases::bytes(600 * PAGE, 1);
    let new = cases::bytes(600 * PAGE, 2);
    // Further on and at the start; longer than what is copied at once.
    for pages in [200..500, 0..300] {
        let disk = FaultDisk::new();
        disk.put(TARGET, old.clone());
        let bytes = pages.start * PAGE..pages.end * PAGE;
        let options = case.options.clone().with_skip_unreadable(true);
        let source = unreadable(&new, &pages);
        let report = sync(&source, &case.target(&disk), &options, &work()).unwrap();
        assert_eq!(
            (report.outcome, report.mode),
            (Outcome::SyncedWithGaps, Mode::Full)
        );
        let range = bytes.start as u64..bytes.end as u64;
        assert!(matches!(&report.unreadable[..], [it] if *it == range));
        let mut expected = new.clone();
        expected[bytes.clone()].copy_from_slice(&old[bytes]);
        assert!(disk.contents(TARGET).unwrap().to_vec() == expected);
    }
}

/// A source some pages of which cannot be read.
pub fn unreadable(bytes: &[u8], pages: &Range<usize>) -> Source {
    let disk = FaultDisk::new();
    disk.put("/s/s", bytes.to_vec());
    let range = (pages.start * PAGE) as u64..(pages.end * PAGE) as u64;
    disk.make_unreadable("/s/s", range).unwrap();
    let storage = disk.open("/s/s", Access::Read).unwrap();
    Source::new(Arc::new(Raw::open(Arc::new(storage)).unwrap()))
}
