//! What is done in which order, whatever a crash would leave.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use diskdelta::Limits;
use diskdelta::delta::{Delta, FrameKind};
use diskdelta::image::CreateFormat;
use diskdelta::storage::Access;
use diskdelta::storage::fault::{NoRewrite, Op, OpKind, SyncedBefore};

use crate::case::{Case, TARGET, work};
use crate::cases::{MIB, PAGE, bytes, for_each_case};
use crate::medium::{REDO_LOG, leave_logged};

/// No range is written twice between two syncs, and nothing reaches the target before the redo log,
/// sidecar, way back and intent beside it are durable, names and all.
fn operations_come_in_their_order(case: &Case) {
    let disk = case.disk();
    case.work_on(&disk).unwrap();
    let log = disk.log();
    // A copy that has no name yet is compared again after a crash, whatever it holds.
    if case.old.is_some() {
        log.check(NoRewrite::new())
            .unwrap_or_else(|error| panic!("{}: {error}", case.name));
    }
    if case.sets_marker() {
        // Needed later, or not at all: the manifest to come, a redo log that was stashed.
        let waits = |path: &Path| {
            let text = path.to_string_lossy();
            !path.ends_with("t") && !text.ends_with(".new") && !text.ends_with(".previous")
        };
        let then = |path: &Path| path == Path::new(TARGET);
        log.check(SyncedBefore::new(waits, then))
            .unwrap_or_else(|error| panic!("{}: {error}", case.name));
    }
}

for_each_case!(operations_come_in_their_order);

/// `data_bytes` go into an empty dynamic VHD in pieces that do not touch.
fn pieces(data_bytes: usize, pieces: usize) -> Case {
    let len = 64 * MIB;
    let mut new = vec![0; len];
    let step = len / pieces;
    for (index, piece) in new.chunks_mut(step).enumerate() {
        piece[..data_bytes / pieces].copy_from_slice(&bytes(data_bytes / pieces, index as u8 | 1));
    }
    Case::raw("pieces", &vec![0; len], &new).container(CreateFormat::VhdDynamic)
}

/// How often the sidecar is synced.
fn sidecar_syncs(case: Case) -> usize {
    let case = case.in_place();
    let disk = case.disk();
    case.work_on(&disk).unwrap();
    let log = disk.log();
    let beside = |op: &&Op| op.kind() == OpKind::Sync && op.path() != Path::new(TARGET);
    log.ops().filter(beside).count()
}

/// How often the redo log says what the image's footer becomes.
fn logged_footers(case: &Case) -> usize {
    let disk = case.disk();
    leave_logged(&disk, || case.work_on(&disk));
    let redo_log = disk.open(REDO_LOG, Access::Read).unwrap();
    let redo_log = Delta::from_storage(Arc::new(redo_log), &Limits::default()).unwrap();
    let footers = AtomicUsize::new(0);
    redo_log
        .verify(&work(), &|frame| {
            let is_one = frame.header().kind == FrameKind::LastTable;
            footers.fetch_add(usize::from(is_one), Ordering::Relaxed);
            Ok(())
        })
        .unwrap();
    footers.into_inner()
}

#[test]
fn tables_are_put_down_once_for_many_changes_and_again_before_too_many_wait() {
    let few = sidecar_syncs(pieces(4 * PAGE, 4));
    assert_eq!(sidecar_syncs(pieces(16 * PAGE, 16)), few);
    // As much as may wait, and half of that again.
    assert!(sidecar_syncs(pieces(24 * MIB, 16)) > few);

    let few = logged_footers(&pieces(4 * PAGE, 4));
    assert!(few > 0);
    assert_eq!(logged_footers(&pieces(16 * PAGE, 16)), few);
}
