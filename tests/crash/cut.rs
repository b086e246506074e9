//! Marked targets that became shorter: what is missing is never taken for there.

use diskdelta::storage::fault::FaultDisk;
use diskdelta::storage::{Access, Storage};
use diskdelta::sync::{
    GuardedBytes, Recovered, discard, forget, held_image, hold, recover, release,
};
use diskdelta::{Advice, Error, ErrorKind};

use crate::case::{Case, Job, TARGET, work};
use crate::cases::{self, MIB, PAGE};
use crate::medium::leave_marked;

fn set_len(case: &Case, disk: &FaultDisk, len: usize) {
    if case.device {
        let row = disk.contents(TARGET).unwrap().to_vec();
        disk.put_device(TARGET, row[..len].to_vec());
    } else {
        let storage = disk.open(TARGET, Access::Write).unwrap();
        storage.set_len(len as u64).unwrap();
    }
}

type Attempt<'a> = &'a dyn Fn() -> Result<(), Error>;

/// Everything that would go on with it refuses it and writes nothing.
fn is_refused(case: &Case, disk: &FaultDisk, lens: [usize; 2]) {
    let before = disk.contents(TARGET).unwrap().to_vec();
    let again = || case.clone().doing(Job::Sync).work_on(disk);
    let tries: [(&str, Attempt<'_>); 6] = [
        ("recover", &|| {
            recover(&case.target(disk), &work()).map(drop)
        }),
        ("discard", &|| {
            discard(&case.target(disk), &work()).map(drop)
        }),
        ("release", &|| {
            release(&case.target(disk), &work()).map(drop)
        }),
        ("hold", &|| hold(&case.target(disk), &work())),
        ("held image", &|| {
            held_image(&case.target(disk), &work()).map(drop)
        }),
        ("sync", &again),
    ];
    for (name, attempt) in tries {
        let error = attempt().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Incomplete, "{}, {name}", case.name);
        for text in lens {
            let text = text.to_string();
            assert!(error.to_string().contains(&text), "{name}: {error}");
        }
        assert!(
            error.advice().contains(&Advice::Forget)
                || error.advice().contains(&Advice::ForgetHeld),
            "{name}: {error}"
        );
        let now = disk.contents(TARGET).unwrap().to_vec();
        assert!(now == before, "{}, {name}", case.name);
    }
}

/// It is given up although its log is there, and a sync makes it whole.
fn has_a_way_out(case: &Case, disk: &FaultDisk) {
    let zeros = GuardedBytes::default().with_zeros(true).with_held(true);
    let forgotten = forget(&case.target(disk), &zeros, &work()).unwrap();
    assert!(forgotten.notes[0].contains("is kept as"), "{forgotten:?}");
    if case.device {
        return;
    }
    let found = recover(&case.target(disk), &work()).unwrap();
    assert_eq!(found, Recovered::Nothing);
    let mut plain = case.clone().doing(Job::Sync);
    plain.options = plain.options.with_hold(false);
    plain.work_on(disk).unwrap();
    assert!(disk.contents(TARGET).unwrap().to_vec() == case.new);
}

fn check(case: &Case, leave: &dyn Fn() -> FaultDisk, least: usize) {
    for len in [least - 1, least - MIB / 2, 2 * PAGE] {
        let disk = leave();
        // The lengths of devices are whole sectors.
        let len = len / 512 * 512;
        set_len(case, &disk, len);
        is_refused(case, &disk, [least, len]);
        has_a_way_out(case, &disk);
    }
}

#[test]
fn a_target_that_was_cut_under_its_marker_is_not_finished() {
    for case in [
        cases::atomic(),
        cases::atomic_growing(),
        cases::atomic_shrinking(),
        cases::atomic_device(),
        cases::in_place(),
        cases::in_place_growing(),
        cases::in_place_shrinking(),
        cases::in_place_device(),
    ] {
        let least = case.old.as_ref().unwrap().len().min(case.new.len());
        check(&case, &|| leave_marked(&case), least);
    }
}

#[test]
fn a_held_target_that_was_cut_is_not_whole() {
    for case in [
        cases::holding(),
        cases::holding_device(),
        cases::held_after_a_sync(),
        cases::syncing_a_held_one_growing(),
        cases::syncing_a_held_one_shrinking(),
    ] {
        let held = || {
            let disk = case.disk();
            case.work_on(&disk).unwrap();
            disk
        };
        check(&case, &held, case.new.len());
    }
}

#[test]
fn a_held_target_that_was_cut_while_a_sync_onto_it_was_under_way_is_not_gone_on_with() {
    for mut case in [cases::syncing_a_held_one(), cases::syncing_a_held_device()] {
        // An earlier pass has made it longer than it was when it was marked.
        if !case.device {
            case = Case::raw("grown", &case.new[..2 * MIB], &case.new).holding();
        }
        let left = || {
            let disk = case.disk();
            case.work_on(&disk).unwrap();
            let other = cases::changed(&case.new);
            disk.fail(crate::medium::nth(
                1,
                diskdelta::storage::fault::OpKind::Sync,
                TARGET,
            ));
            case.clone()
                .doing(Job::Sync)
                .sync_from(&other, &disk)
                .unwrap_err();
            disk.heal();
            disk
        };
        check(&case, &left, case.new.len());
    }
}

#[test]
fn a_marked_target_that_has_grown_is_finished_as_before() {
    let case = cases::atomic();
    let disk = leave_marked(&case);
    set_len(&case, &disk, case.new.len() + MIB);
    assert_eq!(
        recover(&case.target(&disk), &work()).unwrap(),
        Recovered::New
    );
    assert!(disk.contents(TARGET).unwrap().to_vec() == case.new);
    let case = cases::holding();
    let disk = case.disk();
    case.work_on(&disk).unwrap();
    set_len(&case, &disk, case.new.len() + MIB);
    release(&case.target(&disk), &work()).unwrap();
    let now = disk.contents(TARGET).unwrap().to_vec();
    assert_eq!(now.len(), case.new.len() + MIB);
    assert!(now[..case.new.len()] == case.new);
}
