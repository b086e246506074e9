//! The kinds of work that are crashed.

use diskdelta::image::CreateFormat;

use crate::case::{Case, Job};
use crate::leftovers;

pub const PAGE: usize = 4096;
pub const MIB: usize = 1 << 20;

macro_rules! all {
    ($($name:ident: $case:expr;)*) => {
        $(pub fn $name() -> Case {
            $case
        })*

        /// Runs a test for every case, each under a name of its own.
        macro_rules! for_each_case {
            ($run:path) => {
                $(#[test]
                fn $name() {
                    $run(&crate::cases::$name());
                })*
            };
        }
        pub(crate) use for_each_case;
    };
}

all! {
    atomic_under_the_marker_only: Case::raw("atomic, under the marker only", &small(), &changed(&small()));
    atomic: Case::raw("atomic", &large(), &changed(&large()));
    atomic_growing: Case::raw("atomic, growing", &large(), &grown());
    atomic_shrinking: Case::raw("atomic, shrinking", &longer(), &changed(&large()));
    atomic_device: Case::raw("atomic, device", &large(), &changed(&large())).on_device();
    atomic_full_device: Case::raw("atomic, full, device", &small(), &changed(&small())).full().on_device();
    atomic_kept: Case::raw("atomic, target manifest", &large(), &changed(&large())).with_target_manifest();
    atomic_way_back: Case::raw("atomic, way back", &large(), &changed(&large())).with_way_back();
    full: Case::raw("full", &small(), &changed(&small())).full();
    full_growing: Case::raw("full, growing", &small(), &bytes(40 * PAGE + 77, 6)).full();
    full_kept: Case::raw("full, target manifest", &small(), &changed(&small())).full().with_target_manifest();
    full_exchanging: Case::raw("full, exchanging names", &small(), &changed(&small())).full().on_clones();
    cloned: Case::raw("cloned", &small(), &changed(&small())).on_clones();
    cloned_growing: Case::raw("cloned, growing", &large(), &grown()).on_clones();
    cloned_shrinking: Case::raw("cloned, shrinking", &longer(), &changed(&large())).on_clones();
    cloned_kept: Case::raw("cloned, target manifest", &small(), &changed(&small())).on_clones().with_target_manifest();
    cloned_way_back: Case::raw("cloned, way back", &small(), &changed(&small())).on_clones().with_way_back();
    cloned_way_back_shrinking: Case::raw("cloned, way back, shrinking", &longer(), &changed(&large()))
        .on_clones().with_way_back();
    cloned_dynamic_vhd: Case::raw("cloned, dynamic VHD", &dynamic_old(), &dynamic_new())
        .container(CreateFormat::VhdDynamic).on_clones();
    cloned_beside_a_copy:
        Case::raw("cloned, beside a copy", &small(), &changed(&small())).on_clones().with_leftovers(leftovers::copy);
    creating: Case { old: None, ..Case::raw("creating", &[], &changed(&small())) };
    creating_dynamic_vhd: Case { old: None, ..Case::raw("creating, dynamic VHD", &[], &changed(&small())) }
        .container(CreateFormat::VhdDynamic);
    in_place_under_the_marker_only:
        Case::raw("in place, under the marker only", &small(), &changed(&small())).in_place();
    in_place: Case::raw("in place", &large(), &changed(&large())).in_place();
    in_place_growing: Case::raw("in place, growing", &large(), &grown()).in_place();
    in_place_shrinking: Case::raw("in place, shrinking", &longer(), &changed(&large())).in_place();
    in_place_device: Case::raw("in place, device", &large(), &changed(&large())).in_place().on_device();
    in_place_kept:
        Case::raw("in place, target manifest", &large(), &changed(&large())).in_place().with_target_manifest();
    resuming: Case::raw("resuming", &large(), &changed(&large())).in_place().doing(Job::Resume);
    resuming_growing: Case::raw("resuming, growing", &large(), &grown()).in_place().doing(Job::Resume);
    resuming_dynamic_vhd: Case::raw("resuming, dynamic VHD", &dynamic_old(), &dynamic_new())
        .container(CreateFormat::VhdDynamic).in_place().doing(Job::Resume);
    holding_under_the_marker_only: Case::raw("holding, under the marker only", &small(), &small())
        .holding().doing(Job::Hold);
    holding: Case::raw("holding", &large(), &large()).holding().doing(Job::Hold);
    holding_device: Case::raw("holding, device", &large(), &large()).holding().on_device().doing(Job::Hold);
    held_after_a_sync_under_the_marker_only:
        Case::raw("held after a sync, under the marker only", &small(), &changed(&small())).holding();
    held_after_a_sync: Case::raw("held after a sync", &large(), &changed(&large())).holding();
    held_after_a_full_sync_of_a_device:
        Case::raw("held after a full sync, device", &large(), &changed(&large())).holding().full().on_device();
    held_after_a_sync_without_changes:
        Case::raw("held after a sync without changes", &small(), &small()).holding();
    held_kept:
        Case::raw("held, target manifest", &large(), &changed(&large())).holding().with_target_manifest();
    syncing_a_held_one: Case::raw("syncing a held one", &large(), &changed(&large()))
        .holding().doing(Job::HeldSync);
    syncing_a_held_device: Case::raw("syncing a held device", &large(), &changed(&large()))
        .holding().on_device().doing(Job::HeldSync);
    syncing_a_held_one_growing: Case::raw("syncing a held one, growing", &large(), &grown())
        .holding().doing(Job::HeldSync);
    syncing_a_held_one_shrinking: Case::raw("syncing a held one, shrinking", &longer(), &changed(&large()))
        .holding().doing(Job::HeldSync);
    syncing_a_held_dynamic_vhd: Case::raw("syncing a held dynamic VHD", &dynamic_old(), &dynamic_new())
        .container(CreateFormat::VhdDynamic).holding().doing(Job::HeldSync);
    syncing_a_held_dynamic_vhdx: Case::raw("syncing a held dynamic VHDX", &apart_old(), &apart_new())
        .container(CreateFormat::VhdxDynamic).holding().doing(Job::HeldSync);
    resuming_a_held_one: Case::raw("resuming a held one", &large(), &changed(&large()))
        .holding().doing(Job::Resume);
    resuming_a_held_device_again: Case::raw("resuming a held device again", &large(), &changed(&large()))
        .holding().on_device().doing(Job::HeldResume);
    resuming_a_held_dynamic_vhd: Case::raw("resuming a held dynamic VHD", &dynamic_old(), &dynamic_new())
        .container(CreateFormat::VhdDynamic).holding().doing(Job::HeldResume);
    releasing_under_the_marker_only: Case::raw("releasing, under the marker only", &small(), &small())
        .holding().doing(Job::Release);
    releasing_device: Case::raw("releasing, device", &large(), &large())
        .holding().on_device().doing(Job::Release);
    releasing_dynamic_vhd: Case::raw("releasing, dynamic VHD", &dynamic_new(), &dynamic_new())
        .container(CreateFormat::VhdDynamic).holding().doing(Job::Release);
    applying: Case::raw("applying a delta", &large(), &changed(&large())).doing(Job::Apply);
    applying_growing: Case::raw("applying a delta, growing", &large(), &grown()).doing(Job::Apply);
    applying_dynamic_vhd: Case::raw("applying a delta, dynamic VHD", &dynamic_old(), &dynamic_new())
        .container(CreateFormat::VhdDynamic).doing(Job::Apply);
    undoing: Case::raw("undoing", &changed(&large()), &large()).doing(Job::Undo);
    undoing_growing: Case::raw("undoing, growing", &grown(), &large()).doing(Job::Undo);
    fixed_vhd: Case::raw("atomic, fixed VHD", &large(), &changed(&large())).container(CreateFormat::VhdFixed);
    dynamic_vhd:
        Case::raw("atomic, dynamic VHD", &dynamic_old(), &dynamic_new()).container(CreateFormat::VhdDynamic);
    in_place_dynamic_vhd: Case::raw("in place, dynamic VHD", &dynamic_old(), &dynamic_new())
        .container(CreateFormat::VhdDynamic).in_place();
    fixed_vhdx: Case::raw("atomic, fixed VHDX", &large(), &changed(&large())).container(CreateFormat::VhdxFixed);
    dynamic_vhdx:
        Case::raw("atomic, dynamic VHDX", &apart_old(), &apart_new()).container(CreateFormat::VhdxDynamic);
    in_place_dynamic_vhdx: Case::raw("in place, dynamic VHDX", &apart_old(), &apart_new())
        .container(CreateFormat::VhdxDynamic).in_place();
    beside_a_part_of_a_redo_log:
        Case::raw("beside a part of a redo log", &large(), &changed(&large())).with_leftovers(leftovers::part_of_redo_log);
    beside_a_whole_redo_log:
        Case::raw("beside a whole redo log", &large(), &changed(&large())).with_leftovers(leftovers::whole_redo_log);
    beside_two_redo_logs:
        Case::raw("beside two logs", &small(), &changed(&small())).with_leftovers(leftovers::two_redo_logs);
    beside_a_sidecar: Case::raw("beside a sidecar", &small(), &changed(&small())).with_leftovers(leftovers::sidecar);
    in_place_beside_a_sidecar:
        Case::raw("in place, beside a sidecar", &large(), &changed(&large())).in_place().with_leftovers(leftovers::sidecar);
    in_place_beside_a_redo_log:
        Case::raw("in place, beside a redo log", &small(), &changed(&small())).in_place().with_leftovers(leftovers::whole_redo_log);
    full_beside_a_redo_log:
        Case::raw("full, beside a redo log", &small(), &changed(&small())).full().with_leftovers(leftovers::whole_redo_log);
    full_beside_a_copy:
        Case::raw("full, beside a copy", &small(), &changed(&small())).full().with_leftovers(leftovers::copy);
}

/// Bytes of prime period, so that swapped pages show; `salt` 0 gives zeros.
pub fn bytes(len: usize, salt: u8) -> Vec<u8> {
    let byte = |at: usize| {
        if salt == 0 {
            0
        } else {
            (at % 251) as u8 ^ salt
        }
    };
    (0..len).map(byte).collect()
}

/// `old`, changed at some pages: first and last, under both ends of the marker and between.
pub fn changed(old: &[u8]) -> Vec<u8> {
    let mut new = old.to_vec();
    let pages = new.len() / PAGE;
    let at = [0, 3, pages / 2, pages / 2 + 2, pages - 1];
    for (index, page) in at.into_iter().enumerate() {
        let salt = if index == 2 { 0 } else { 0x80 | index as u8 };
        new[page * PAGE..(page + 1) * PAGE].copy_from_slice(&bytes(PAGE, salt));
    }
    new
}

/// All of it lies under the marker.
fn small() -> Vec<u8> {
    bytes(16 * PAGE, 1)
}

/// A few pages of it lie outside the marker.
fn large() -> Vec<u8> {
    bytes(2 * MIB + 24 * PAGE, 2)
}

fn grown() -> Vec<u8> {
    [changed(&large()), bytes(5 * PAGE, 9), bytes(3 * PAGE, 0)].concat()
}

fn longer() -> Vec<u8> {
    [large(), bytes(8 * PAGE, 9)].concat()
}

fn dynamic_old() -> Vec<u8> {
    [bytes(MIB, 3), bytes(3 * MIB, 0)].concat()
}

fn dynamic_new() -> Vec<u8> {
    [
        changed(&bytes(MIB, 3)),
        bytes(MIB, 0),
        bytes(MIB, 5),
        bytes(MIB, 0),
    ]
    .concat()
}

/// A block of it lies outside of the marker.
fn apart_old() -> Vec<u8> {
    [bytes(2 * MIB, 3), bytes(2 * MIB, 0)].concat()
}

fn apart_new() -> Vec<u8> {
    let both = [changed(&bytes(MIB, 3)), changed(&bytes(MIB, 7))];
    [both.concat(), bytes(MIB, 0), bytes(MIB, 5)].concat()
}
