//! Every operation fails once.

use diskdelta::storage::fault::{Call, Failure, Fault, OpKind};

use crate::case::{Case, TARGET};
use crate::cases::{PAGE, for_each_case};
use crate::check::Check;
use crate::is_long;

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
        let check = Check::new(case, disk.row(TARGET), &done);
        disk.fail(fault(nth).with_failure(failure));
        let outcome = case.work_on(&disk);
        if disk.fired().is_empty() {
            outcome.unwrap();
            return nth - 1;
        }
        let fired = disk.fired();
        let what = format!("{}, {failure:?} at {nth}: {fired:?}", case.name);
        let acknowledged = outcome.is_ok();
        if let Err(error) = outcome {
            assert!(error.path().is_some(), "{what}: no path in `{error}`");
            assert!(error.advice().is_some(), "{what}: no way on in `{error}`");
        }
        disk.heal();
        check
            .held(&disk, acknowledged)
            .and_then(|()| check.settle(&disk, acknowledged))
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

for_each_case!(any_operation_may_fail_and_the_promise_holds);
