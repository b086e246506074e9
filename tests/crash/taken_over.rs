//! What a sync takes over from the redo log of a run that was stopped before the marker.

use std::path::Path;

use diskdelta::ErrorKind;
use diskdelta::storage::fault::{Call, Fault, Op, OpKind};
use diskdelta::sync::{Source, SyncReport, sync};

use crate::case::{Case, TARGET, source, work};
use crate::cases::{self, PAGE};
use crate::leftovers::none_but_holes;
use crate::medium::leave_logged;
use crate::remote::FakeRemote;

const PREVIOUS: &str = "/img/..t.diskdelta-log.previous";

/// Logs the case's sync, then does it from `new`.
fn again(case: &Case, new: &Source) -> SyncReport {
    let disk = case.disk();
    leave_logged(&disk, || case.work_on(&disk));
    let report = sync(new, &case.target(&disk), &case.options, &work()).unwrap();
    assert!(disk.contents(TARGET).unwrap().to_vec() == case.new);
    report
}

#[test]
fn all_of_a_redo_log_is_taken_over_zeros_too_wherever_the_source_is() {
    let case = cases::atomic_under_the_marker_only();
    for source in [source(&case.new), FakeRemote::source(&case.new, false)] {
        let report = again(&case, &source);
        assert_eq!(report.resumed_bytes, 5 * PAGE as u64);
        assert_eq!(report.changed_bytes, report.resumed_bytes);
    }
}

#[test]
fn a_redo_log_that_reaches_beyond_the_target_is_taken_over_as_far_as_the_target_goes() {
    let old = cases::bytes(16 * PAGE, 1);
    let new = [cases::changed(&old), cases::bytes(3 * PAGE, 7)].concat();
    let case = Case::raw("growing", &old, &new);
    for source in [source(&case.new), FakeRemote::source(&case.new, false)] {
        let report = again(&case, &source);
        assert!(report.resumed_bytes >= 3 * PAGE as u64, "{report:?}");
        assert!(report.resumed_bytes <= 5 * PAGE as u64, "{report:?}");
        assert_eq!(report.changed_bytes, 8 * PAGE as u64);
    }
}

#[test]
fn what_was_taken_over_is_there_for_a_third_run_when_the_second_is_stopped() {
    let case = cases::atomic_under_the_marker_only();
    let logged = || {
        let disk = case.disk();
        leave_logged(&disk, || case.work_on(&disk));
        disk.make_durable();
        disk
    };
    let whole = logged();
    case.work_on(&whole).unwrap();
    let removes = |op: &Op| op.kind() == OpKind::Remove && op.path() == Path::new(PREVIOUS);
    let removed = whole.log().ops().position(removes).unwrap() as u64;
    let disk = logged();
    // What comes right after the previous redo log is gone, and all else.
    disk.fail(Fault::nth(removed + 2).and_all_later());
    case.work_on(&disk).unwrap_err();
    disk.heal();
    assert!(disk.contents(PREVIOUS).is_none());
    let target = case.target(&disk);
    let report = sync(&source(&case.new), &target, &case.options, &work()).unwrap();
    assert_eq!(report.resumed_bytes, 5 * PAGE as u64);
    assert!(disk.contents(TARGET).unwrap().to_vec() == case.new);
}

#[test]
fn data_over_a_hole_is_taken_over_too() {
    let old = cases::bytes(16 * PAGE, 0);
    let mut new = old.clone();
    new[5 * PAGE..7 * PAGE].copy_from_slice(&cases::bytes(2 * PAGE, 3));
    let case = Case::raw("filling a hole", &old, &new).with_leftovers(none_but_holes);
    let report = again(&case, &source(&new));
    assert_eq!(report.resumed_bytes, 2 * PAGE as u64);
}

#[test]
fn a_previous_redo_log_that_cannot_be_read_is_not_taken_for_a_damaged_one() {
    let case = cases::atomic_under_the_marker_only();
    for source in [source(&case.new), FakeRemote::source(&case.new, false)] {
        let disk = case.disk();
        leave_logged(&disk, || case.work_on(&disk));
        let reads = |call: &Call<'_>| call.kind == OpKind::Read && call.path == Path::new(PREVIOUS);
        disk.fail(Fault::nth(1).on(reads));
        let error = sync(&source, &case.target(&disk), &case.options, &work()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(disk.contents(TARGET).unwrap().to_vec() == *case.old.as_ref().unwrap());
        sync(&source, &case.target(&disk), &case.options, &work()).unwrap();
        assert!(disk.contents(TARGET).unwrap().to_vec() == case.new);
    }
}
