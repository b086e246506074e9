//! Every barrier is missed: a sync that does nothing, a step that comes too early.

use diskdelta::storage::fault::{Crashes, FaultDisk, NoRewrite, SyncCall};

use diskdelta::storage::{Access, Storage};
use diskdelta::sync::recover;

use crate::case::{Case, TARGET, work};
use crate::cases::{MIB, PAGE, for_each_case};
use crate::check::Check;
use crate::is_long;

mod syncs {
    use super::*;

    /// Each sync that makes something durable is made to do nothing, in turn.
    fn every_sync_is_missed_when_it_does_not_take_effect(case: &Case) {
        if !is_looked_at(case) {
            return;
        }
        let (done, _) = Check::of(case);
        let mut unnoticed = Vec::new();
        let barriers = done.log().barriers();
        for call in &barriers {
            if is_for_guests(case, call) {
                continue;
            }
            let dropped = call.clone();
            match survives_without(case, move |call| *call == dropped) {
                Ok(()) if is_one_of_two(case, call, done.log().syncs()) => {}
                Ok(()) => unnoticed.push(call.to_string()),
                Err(error) => eprintln!("{}: without {call}: {}", case.name, first_line(&error)),
            }
        }
        eprintln!("{}: {} syncs dropped", case.name, barriers.len());
        assert!(
            unnoticed.is_empty(),
            "{}: nothing noticed the loss of {unnoticed:#?}",
            case.name
        );
    }

    for_each_case!(super::syncs::every_sync_is_missed_when_it_does_not_take_effect);
}

mod orders {
    use std::path::Path;

    use diskdelta::storage::fault::{Op, OpKind};

    use super::*;
    use crate::cases;

    /// A step is taken before one that it has to wait for: the last such step, before the last of
    /// those that it waits for.
    fn is_missed(case: &Case, step: impl Fn(&Op) -> bool, waits_for: impl Fn(&Op) -> bool) {
        let (done, _) = Check::of(case);
        let log = done.log();
        let last = |found: &dyn Fn(&Op) -> bool| log.ops().filter(|op| found(op)).last();
        let from = last(&step).unwrap().number();
        let before = |op: &Op| op.number() < from && waits_for(op);
        let to = last(&before).unwrap().number();
        let mut check = Check::new(case, case.disk().contents(TARGET), &done);
        let crashes = Crashes::of(log.moved(from, to))
            .with_limit(100)
            .with_samples(30);
        let found = crashes.check(|state| check.state(state, 0));
        let pair: Vec<String> = log
            .ops()
            .filter(|op| op.number() == from || op.number() == to)
            .map(ToString::to_string)
            .collect();
        match found {
            Ok(_) => panic!("{}: nothing noticed the wrong order of {pair:?}", case.name),
            Err(error) => eprintln!("{pair:?}: {}", first_line(&error.to_string())),
        }
    }

    fn of(kind: OpKind, path: &str) -> impl Fn(&Op) -> bool {
        move |op| op.kind() == kind && op.path() == Path::new(path)
    }

    /// The write of the first page that sets the marker, or the one that lifts it.
    fn page(lifts: bool) -> impl Fn(&Op) -> bool {
        move |op| {
            let is_marker = op.written().starts_with(b"\0diskdelta mark1");
            let is_first = op.range().is_some_and(|range| range.start == 0);
            of(OpKind::Write, TARGET)(op) && is_first && is_marker != lifts
        }
    }

    /// The operation of this place that a run of the case makes.
    fn number(case: &Case, found: impl Fn(&Op) -> bool, nth: usize) -> usize {
        let (done, _) = Check::of(case);
        let log = done.log();
        let mut numbers = log.ops().filter(|op| found(op)).map(Op::number);
        numbers.nth(nth).unwrap()
    }

    const REDO_LOG: &str = "/img/.t.diskdelta-log";

    #[test]
    fn the_marker_waits_for_the_redo_log() {
        is_missed(&cases::atomic(), page(false), of(OpKind::Sync, REDO_LOG));
        for case in [cases::atomic(), cases::in_place()] {
            is_missed(&case, page(false), of(OpKind::SyncDirectory, "/img"));
        }
    }

    #[test]
    fn changes_wait_for_the_marker() {
        for case in [cases::atomic(), cases::in_place(), cases::dynamic_vhd()] {
            let outside = |op: &Op| {
                let is_there = op.range().is_some_and(|range| range.start > MIB as u64);
                of(OpKind::Write, TARGET)(op) && is_there
            };
            let first = number(&case, outside, 0);
            is_missed(&case, move |op| op.number() == first, page(false));
        }
    }

    #[test]
    fn the_last_page_waits_for_the_data() {
        for case in [cases::atomic(), cases::in_place(), cases::atomic_growing()] {
            let third = number(&case, of(OpKind::Sync, TARGET), 2);
            is_missed(&case, page(true), move |op| op.number() == third);
        }
    }

    #[test]
    fn a_redo_log_is_removed_once_the_target_is_durable() {
        for case in [cases::atomic(), cases::in_place()] {
            is_missed(
                &case,
                of(OpKind::Remove, REDO_LOG),
                of(OpKind::Sync, TARGET),
            );
        }
    }

    #[test]
    fn a_copy_takes_its_name_once_it_is_durable() {
        let copy = "/img/.t.diskdelta-new";
        for case in [
            cases::full(),
            cases::full_exchanging(),
            cases::cloned(),
            cases::creating(),
            cases::creating_dynamic_vhd(),
        ] {
            is_missed(&case, of(OpKind::Rename, copy), of(OpKind::Sync, copy));
        }
    }

    #[test]
    fn a_target_manifest_advances_once_the_target_is_durable() {
        for case in [cases::atomic_kept(), cases::in_place_kept()] {
            let first = number(&case, of(OpKind::Write, TARGET), 0);
            let next = of(OpKind::Rename, "/kept/.m.ID.new");
            is_missed(&case, next, move |op| op.number() == first);
        }
    }

    /// What a closed sidecar says of a held target is not true any more once that changes.
    #[test]
    fn changes_of_a_held_target_wait_for_its_sidecar_to_be_opened() {
        let outside = |op: &Op| {
            let is_there = op.range().is_some_and(|range| range.start > MIB as u64);
            of(OpKind::Write, TARGET)(op) && is_there && !is_marker(op)
        };
        let case = cases::syncing_a_held_one();
        is_missed(&case, outside, of(OpKind::SyncDirectory, "/img"));
        let case = cases::syncing_a_held_device();
        is_missed(&case, outside, of(OpKind::SyncDirectory, "/logs"));
    }

    #[test]
    fn a_sidecar_is_closed_once_the_target_is_durable() {
        for (case, redo_log) in [
            (cases::held_after_a_sync(), "/img/..t.diskdelta-log.fresh"),
            (cases::syncing_a_held_device(), "/logs/.redo_log.fresh"),
        ] {
            let changes = |op: &Op| of(OpKind::Write, TARGET)(op) && !is_marker(op);
            is_missed(&case, of(OpKind::Rename, redo_log), changes);
        }
    }

    #[test]
    fn a_released_target_shows_its_first_page_last() {
        let case = cases::releasing_device();
        is_missed(&case, page(true), |op: &Op| {
            of(OpKind::Write, TARGET)(op) && op.range().is_some_and(|range| range.start > 0)
        });
    }

    fn is_marker(op: &Op) -> bool {
        op.written().starts_with(b"\0diskdelta mark1")
    }

    #[test]
    fn changes_wait_for_the_intent() {
        for case in [cases::atomic_kept(), cases::in_place_kept()] {
            is_missed(&case, page(true), of(OpKind::Sync, "/kept/m"));
        }
    }
}

fn is_looked_at(case: &Case) -> bool {
    // What mends the marker is missed where that is not whole: the held ones that are synced anew.
    if case.options.hold && case.resumes() {
        return false;
    }
    is_long() || case.new.len() < 64 * PAGE
}

/// Where nothing that matters is written between a sync and the next one of the same file, either
/// makes durable what came before, and only the loss of both is missed.
fn is_one_of_two(case: &Case, call: &SyncCall, syncs: Vec<SyncCall>) -> bool {
    let is_next = |it: &SyncCall| it.path() == call.path() && it.nth() == call.nth() + 1;
    let Some(next) = syncs.into_iter().find(is_next) else {
        return false;
    };
    let (one, other) = (call.clone(), next.clone());
    match survives_without(case, move |call| *call == one || *call == other) {
        Ok(()) => false,
        Err(error) => {
            let error = first_line(&error);
            eprintln!("{}: without {call} and {next}: {error}", case.name);
            true
        }
    }
}

/// What an earlier run left is put away before anything else, durably: or it would undo, once more,
/// what a guest has written to the first page meanwhile.
fn is_for_guests(case: &Case, call: &SyncCall) -> bool {
    let is_first = |call: &SyncCall| call.path().ends_with("img") && call.nth() == 1;
    let disk = case.disk();
    if disk.names("/img").len() < 2 || case.kept || !is_first(call) {
        return false;
    }
    disk.drop_syncs(is_first);
    recover(&case.target(&disk), &work()).unwrap();
    let guest = disk.open(TARGET, Access::Write).unwrap();
    guest.write_all_at(&[0x77; 4096], 0).unwrap();
    guest.sync().unwrap();
    let written = disk.contents(TARGET).unwrap();
    let undone = disk.crashes().states().any(|state| {
        let _ = recover(&case.target(state.disk()), &work());
        state.disk().contents(TARGET).unwrap() != written
    });
    assert!(undone, "{}: no guest misses {call}", case.name);
    true
}

/// The crashes of a run in which some syncs did nothing.
fn survives_without(
    case: &Case,
    dropped: impl Fn(&SyncCall) -> bool + Send + Sync + 'static,
) -> Result<(), String> {
    let disk: FaultDisk = case.disk();
    let before = disk.contents(TARGET);
    disk.drop_syncs(dropped);
    case.work_on(&disk).map_err(|error| error.to_string())?;
    let text = |violation: diskdelta::storage::fault::Violation| violation.to_string();
    disk.log().check(NoRewrite::new()).map_err(text)?;
    let mut check = Check::new(case, before, &disk);
    // Of what is really missed a state is found soon; where nothing is, all are looked at.
    let (limit, samples) = if is_long() { (300, 100) } else { (60, 20) };
    let crashes = disk.crashes().with_limit(limit).with_samples(samples);
    crashes
        .check(|state| check.state(state, 6))
        .map(drop)
        .map_err(text)
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
