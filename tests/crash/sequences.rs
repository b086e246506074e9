//! Several crashes, guests and syncs in a row.

use diskdelta::image::Format;
use diskdelta::storage::fault::{CrashState, FaultDisk};
use diskdelta::storage::{Access, Storage};
use diskdelta::sync::recover;

use crate::case::{Case, Job, TARGET, work};
use crate::cases::{PAGE, bytes, for_each_case};
use crate::check::Check;
use crate::held;
use crate::is_long;

mod guests {
    use super::*;

    /// Apply, crash, recover, guest writes, crash, recover, apply again.
    fn what_a_guest_writes_after_a_crash_is_never_mixed_with_the_redo_log(case: &Case) {
        let has_guest = case.format == Format::Raw && case.old.is_some();
        if !has_guest || case.is_in_place() || case.kept {
            return;
        }
        let (disk, check) = Check::of(case);
        for state in disk.crashes().sample(count()) {
            let disk = state.disk();
            // A marked disk does not boot, so a guest only ever finds what recovery left.
            recover(&case.target(disk), &work()).unwrap();
            disk.make_durable();
            write(disk);
            for crash in disk.crashes().with_seed(state.number()).sample(4) {
                let disk = crash.disk();
                let guest = disk.contents(TARGET).unwrap();
                let said = recover(&case.target(disk), &work());
                assert!(
                    disk.contents(TARGET).unwrap() == guest,
                    "{}: {said:?}\n{state}\n{crash}",
                    case.name
                );
                if case.job == Job::Sync && !case.way_back {
                    case.work_again(disk).unwrap();
                    check
                        .promise(disk, true)
                        .unwrap_or_else(|error| panic!("{}: {error}", case.name));
                }
            }
        }
    }

    /// Writes at both ends and between, and syncs some of it.
    fn write(disk: &FaultDisk) {
        let storage = disk.open(TARGET, Access::Write).unwrap();
        let pages = storage.len().unwrap() as usize / PAGE;
        for page in [0, pages / 2, pages - 1] {
            let at = (page * PAGE) as u64;
            storage.write_all_at(&bytes(PAGE, 0x77), at).unwrap();
            if page == 0 {
                storage.sync().unwrap();
            }
        }
    }

    for_each_case!(
        super::guests::what_a_guest_writes_after_a_crash_is_never_mixed_with_the_redo_log
    );
}

mod syncs {
    use super::*;

    /// Sync, crash, recover, sync from another source, crash, recover.
    fn one_crashed_sync_after_another_keeps_the_promise(case: &Case) {
        if case.old.is_none() || !matches!(case.job, Job::Sync) {
            return;
        }
        let (disk, check) = Check::of(case);
        for state in disk.crashes().sample(count()) {
            let disk = state.disk();
            let acknowledged = state.noted("acknowledged");
            check.finish(disk, acknowledged).unwrap();
            let mut next = case.clone();
            next.old = case.content(disk).unwrap();
            next.new = next.old.clone().unwrap();
            let page = next.new.len() / PAGE / 2 * PAGE;
            next.new[page..page + PAGE].copy_from_slice(&bytes(PAGE, 0x33));
            next.new[..PAGE].copy_from_slice(&bytes(PAGE, 0x35));
            let before = disk.contents(TARGET);
            disk.make_durable();
            next.work_again(disk).unwrap();
            let mut check = Check::new(&next, before, disk);
            for crash in disk.crashes().with_seed(state.number()).sample(6) {
                check.state(&crash, 0).unwrap_or_else(|error| {
                    panic!("{}: {error}\n  after {crash}\n  after {state}", case.name)
                });
            }
        }
    }

    for_each_case!(super::syncs::one_crashed_sync_after_another_keeps_the_promise);
}

mod passes {
    use super::*;

    /// Pass after pass onto a target that stays held, each from another source, each crashed; the
    /// one that gets to its end is what is let go.
    fn crashed_passes_onto_a_held_target_end_in_the_last_source(case: &Case) {
        if case.job != Job::HeldSync {
            return;
        }
        let (disk, _) = Check::of(case);
        for state in disk.crashes().sample(count()) {
            pass_again(case, &state, 4);
        }
    }

    fn pass_again(case: &Case, state: &CrashState, more: u8) {
        let disk = state.disk();
        assert!(
            held::marker(disk).is_some(),
            "{}: no marker\n{state}",
            case.name
        );
        disk.make_durable();
        let mut next = case.clone();
        let pages = next.new.len() / PAGE;
        for page in [1, pages / 2, pages - 1 - usize::from(more)] {
            let salt = 0x50 | more;
            next.new[page * PAGE..(page + 1) * PAGE].copy_from_slice(&bytes(PAGE, salt));
        }
        let done = |what: Result<(), String>| {
            what.unwrap_or_else(|error| panic!("{}: {error}\n{state}", case.name));
        };
        next.work_again(disk)
            .unwrap_or_else(|error| panic!("{}: {error}\n{state}", case.name));
        done(held::guarded(disk));
        assert!(held::content(&next, disk).unwrap().as_ref() == Some(&next.new));
        match disk.crashes().with_seed(state.number()).sample(1).next() {
            Some(crash) if more > 0 => pass_again(&next, &crash, more - 1),
            _ => {
                done(held::let_go(&next, disk));
                assert!(next.content(disk).unwrap().as_ref() == Some(&next.new));
                done(held::ended(disk));
            }
        }
    }

    for_each_case!(super::passes::crashed_passes_onto_a_held_target_end_in_the_last_source);
}

fn count() -> usize {
    match is_long() {
        true => 60,
        false if cfg!(debug_assertions) => 2,
        false => 8,
    }
}
