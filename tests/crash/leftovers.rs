//! What earlier runs that did not end have left beside an unmarked target.

use std::path::Path;

use diskdelta::storage::fault::{Fault, FaultDisk, FileBytes, Op, OpKind};
use diskdelta::storage::{Access, Storage};
use diskdelta::sync::Mode;

use crate::case::{Case, TARGET};
use crate::cases::{PAGE, bytes};

/// A redo log that has no end.
pub fn part_of_redo_log(case: &Case, disk: &FaultDisk) {
    stop(&stranger(case), disk, 6, 0.5);
}

/// A redo log that only wanted to be applied, of a source that is not wanted any more.
pub fn whole_redo_log(case: &Case, disk: &FaultDisk) {
    stop(&stranger(case), disk, 6, 1.0);
}

/// A part of one, and another stashed before it.
pub fn two_redo_logs(case: &Case, disk: &FaultDisk) {
    let other = copy_of(disk);
    stop(&stranger(case), &other, 6, 1.0);
    let redo_log = Path::new("/img/.t.diskdelta-log");
    stop(&stranger(case), disk, 7, 0.5);
    disk.put(
        "/img/..t.diskdelta-log.previous",
        other.contents(redo_log).unwrap(),
    );
    disk.make_durable();
}

/// A sidecar of an in-place sync that had not begun to write.
pub fn sidecar(case: &Case, disk: &FaultDisk) {
    stop(&stranger(case).in_place(), disk, 6, 1.0);
}

/// A part of a full copy.
pub fn copy(case: &Case, disk: &FaultDisk) {
    stop(&stranger(case).full(), disk, 6, 0.5);
}

/// Nothing, but a target whose zeros are holes.
pub fn none_but_holes(case: &Case, disk: &FaultDisk) {
    let old = case.old.as_ref().unwrap();
    disk.put(TARGET, FileBytes::zeros(old.len() as u64));
    let target = disk.open(TARGET, Access::Write).unwrap();
    for (index, page) in old.chunks(PAGE).enumerate() {
        if page.iter().any(|byte| *byte != 0) {
            target.write_all_at(page, (index * PAGE) as u64).unwrap();
        }
    }
}

fn stranger(case: &Case) -> Case {
    let mut stranger = case.clone();
    stranger.options = Case::raw("", &[], &[]).options.with_mode(Mode::Delta);
    stranger.kept = false;
    stranger.clones = false;
    stranger
}

/// Runs a sync from another source, which ends at a part of what comes before the marker.
fn stop(case: &Case, disk: &FaultDisk, salt: u8, part: f64) {
    let mut new = case.old.clone().unwrap();
    let middle = new.len() / 2;
    new[..2 * PAGE].copy_from_slice(&bytes(2 * PAGE, salt));
    new[middle..middle + PAGE].copy_from_slice(&bytes(PAGE, salt));
    let whole = copy_of(disk);
    case.sync_from(&new, &whole).unwrap();
    let target = Path::new(TARGET);
    let touches = |op: &Op| match op.kind() {
        OpKind::Reserve | OpKind::GiveBack => false,
        _ => op.path() == target || op.renamed_to().is_some_and(|to| to == target),
    };
    let before = whole.log().ops().position(touches).unwrap();
    let nth = (before as f64 * part) as u64 + 1;
    disk.fail(Fault::nth(nth).and_all_later());
    case.sync_from(&new, disk).unwrap_err();
    disk.heal();
    disk.make_durable();
    assert!(disk.names("/img").len() > 1, "nothing was left behind");
}

/// Another disk with the same files.
fn copy_of(disk: &FaultDisk) -> FaultDisk {
    let copy = FaultDisk::new();
    for name in disk.names("/img") {
        let path = Path::new("/img").join(name);
        copy.put(&path, disk.contents(&path).unwrap());
    }
    copy.make_durable();
    copy
}
