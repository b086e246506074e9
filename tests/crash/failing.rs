//! Every operation fails once.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use diskdelta::storage::fault::{Call, Failure, Fault, FaultDisk, FileBytes, Fired, OpKind};
use diskdelta::{Error, ErrorKind};

use crate::case::{Case, TARGET};
use crate::cases::{PAGE, for_each_case};
use crate::check::Check;
use crate::medium::advice;
use crate::{held, is_long};

fn any_operation_may_fail_and_the_promise_holds(case: &Case) {
    let mut failed = 0;
    for failure in [
        Failure::Io,
        Failure::NoSpace,
        Failure::Short,
        Failure::Lossy,
        Failure::Late,
    ] {
        failed += fails(case, failure, &|nth| Fault::nth(nth));
    }
    // These differ in their words only.
    if is_long() || case.new.len() < 64 * PAGE {
        for failure in [
            Failure::TooLong,
            Failure::Quota,
            Failure::ReadOnly,
            Failure::NotAllowed,
        ] {
            failed += fails(case, failure, &|nth| Fault::nth(nth));
        }
    }
    // Reads and the like, of which there are many.
    if is_long() || case.new.len() < 64 * PAGE {
        failed += fails(case, Failure::Io, &|nth| Fault::nth(nth).on(is_ours));
    }
    eprintln!("{}: {failed} operations failed", case.name);
}

/// Any operation but the opening of a device, which is the caller's.
fn is_ours(call: &Call<'_>) -> bool {
    call.kind != OpKind::Open || !call.path.ends_with("t")
}

/// Fails the first, second, third operation and so on, until none is left.
fn fails(case: &Case, failure: Failure, fault: &dyn Fn(u64) -> Fault) -> u64 {
    let (done, _) = Check::of(case);
    for nth in 1.. {
        let disk = case.disk();
        let check = Check::new(case, disk.contents(TARGET), &done);
        let (row, names) = (disk.contents(TARGET), names(&disk));
        disk.fail(fault(nth).with_failure(failure));
        let outcome = case.work_on(&disk);
        if disk.fired().is_empty() {
            outcome.unwrap();
            return nth - 1;
        }
        let fired = disk.fired();
        let what = format!("{}, {failure:?} at {nth}: {fired:?}", case.name);
        let acknowledged = outcome.is_ok();
        disk.heal();
        if let Err(error) = outcome {
            assert!(error.path().is_some(), "{what}: no path in `{error}`");
            assert!(!error.advice().is_empty(), "{what}: no way on in `{error}`");
            if !case.begins_marked() {
                says_where_the_target_stands(&disk, &error, &fired, &what);
                gives_back_what_it_took(case, &disk, row.as_ref(), &fired, &what);
            }
            if error.kind() == ErrorKind::NoSpace && !case.begins_marked() {
                leaves_nothing(&disk, &error, &names, &fired, &what);
            }
        }
        check
            .held(&disk, acknowledged)
            .and_then(|()| check.finish(&disk, acknowledged))
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        // With the way back there is nothing to do again once the target is new.
        if !case.way_back || !check.promise(&disk, false).unwrap() {
            case.work_again(&disk)
                .unwrap_or_else(|error| panic!("{what}: again: {error}"));
        }
        check
            .promise(&disk, true)
            .unwrap_or_else(|error| panic!("{what}: {error}"));
    }
    unreachable!("operations without end")
}

/// The advice is that of a marked target where it is marked, and only there.
fn says_where_the_target_stands(disk: &FaultDisk, error: &Error, fired: &[Fired], what: &str) {
    let marker = disk.contents(TARGET).and_then(|_| held::marker(disk));
    let advice = advice(error);
    let is_marked = advice.contains("marked and incomplete") || advice.contains("held");
    // What a sync that failed has left on the medium is not known then, nor is a marker that was
    // lifted, or set, by a write that is reported as failed.
    let is_late = |it: &Fired| it.kind == OpKind::Write && it.failure == Failure::Late;
    let is_unknown = (fired.iter()).any(|it| it.kind == OpKind::Sync || is_late(it));
    let fits = marker.is_some() == is_marked || (is_marked && is_unknown);
    assert!(fits, "{what}: `{error}`, but {marker:?}");
}

/// A target that did not change takes no more space than it did.
fn gives_back_what_it_took(
    case: &Case,
    disk: &FaultDisk,
    before: Option<&FileBytes>,
    fired: &[Fired],
    what: &str,
) {
    // A marker that may be there keeps the room of what follows it.
    let may_be_marked = |it: &Fired| it.kind == OpKind::Sync && it.path == Path::new(TARGET);
    let is_as_it_was = before.is_some() && disk.contents(TARGET).as_ref() == before;
    if is_as_it_was && case.sets_marker() && !fired.iter().any(may_be_marked) {
        let left = disk.reserved(TARGET);
        assert!(left.is_empty(), "{what}: still reserved: {left:?}");
    }
}

/// What ran out of room before the target was touched is not there any more, or is named.
fn leaves_nothing(
    disk: &FaultDisk,
    error: &Error,
    before: &BTreeSet<PathBuf>,
    fired: &[Fired],
    what: &str,
) {
    let is_marked = disk.contents(TARGET).is_some() && held::marker(disk).is_some();
    let beside = |it: &Fired| {
        let writes = [OpKind::Create, OpKind::Write, OpKind::SetLen, OpKind::Sync];
        it.path != Path::new(TARGET) && writes.contains(&it.kind)
    };
    let is_named = advice(error).contains("is kept: run the same again");
    if is_marked || is_named || !fired.iter().all(beside) {
        return;
    }
    // A redo log that was stashed was there before.
    let is_new = |path: &&PathBuf| !path.ends_with("..t.diskdelta-log.previous");
    let left: Vec<_> = names(disk)
        .difference(before)
        .filter(is_new)
        .cloned()
        .collect();
    assert!(left.is_empty(), "{what}: left: {left:?} by `{error}`");
}

fn names(disk: &FaultDisk) -> BTreeSet<PathBuf> {
    let directories = ["/img", "/logs", "/undo", "/kept"].map(Path::new);
    let names = directories.iter().flat_map(|directory| {
        let names = disk.names(directory).into_iter();
        names.map(|name| directory.join(name))
    });
    names.collect()
}

for_each_case!(any_operation_may_fail_and_the_promise_holds);
