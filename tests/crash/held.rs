//! Targets that are held: whole under their mark, from one sync to the next.

use diskdelta::storage::Access;
use diskdelta::storage::fault::{Call, Fault, FaultDisk, OpKind};
use diskdelta::sync::{Mark, Safety, SyncOptions, held_image, hold, release, sync};
use diskdelta::{ErrorKind, Result as Done};

use crate::case::{Case, Job, TARGET, source, work};
use crate::cases::{MIB, PAGE, bytes};

/// Leaves the target held after two passes, with `content`. It was to be released, and the crash
/// came before the last write of that.
pub fn prepare(case: &Case, content: &[u8], disk: &FaultDisk) {
    let pass = case.clone().doing(Job::Sync);
    pass.sync_from(&passing(content), disk).unwrap();
    pass.sync_from(content, disk).unwrap();
    let is_last = |call: &Call<'_>| {
        let is_page = call.range.start == 0 && call.range.end > 0;
        call.kind == OpKind::Write && call.path.ends_with("t") && is_page
    };
    disk.fail(Fault::nth(1).on(is_last).and_all_later());
    release(&case.target(disk), &work()).unwrap_err();
    disk.heal();
    disk.settle();
}

/// What the pass before the last one left: in a container blocks that `content` does not need.
fn passing(content: &[u8]) -> Vec<u8> {
    let mut passing = content.to_vec();
    let last = passing.len() / PAGE - 1;
    for page in [0, 5, last] {
        passing[page * PAGE..(page + 1) * PAGE].copy_from_slice(&bytes(PAGE, 0x61));
    }
    passing
}

/// What its holder reads there; `None` where there is no mark.
pub fn content(case: &Case, disk: &FaultDisk) -> Done<Option<Vec<u8>>> {
    let Some(image) = held_image(&case.target(disk), &work())? else {
        return Ok(None);
    };
    let mut bytes = vec![0; image.disk_len() as usize];
    image.read_exact_at(&mut bytes, 0)?;
    Ok(Some(bytes))
}

/// A held target is refused by all that do not hold it, whether it is whole or not.
pub fn refused(case: &Case, disk: &FaultDisk) -> Result<(), String> {
    let plain = SyncOptions::default()
        .with_safety(Safety::InPlace)
        .with_allow_shrink(true);
    match sync(&source(&case.new), &case.target(disk), &plain, &work()) {
        Err(error) if error.kind() == ErrorKind::Marked => Ok(()),
        other => Err(format!("a held target was not refused: {other:?}")),
    }
}

/// Once a hold was acknowledged the mark is there, all of it.
pub fn guarded(disk: &FaultDisk) -> Result<(), String> {
    let Some(mark) = mark(disk) else {
        return Err("a held target without a mark".to_owned());
    };
    let row = disk.row(TARGET).unwrap();
    let tail = mark.target_len.saturating_sub(MIB as u64) / 512 * 512;
    let is_all_mark = [0..MIB as u64, tail..mark.target_len]
        .into_iter()
        .map(|range| range.start.min(row.len())..range.end.min(row.len()))
        .all(|range| {
            row.slice(range).chunks(512).all(|sector| {
                let len = sector.len().min(MARKER.len());
                sector[..len] == MARKER[..len]
            })
        });
    match is_all_mark {
        true => Ok(()),
        false => Err("a held target that is not all marked".to_owned()),
    }
}

/// Nothing is left of a hold.
pub fn ended(disk: &FaultDisk) -> Result<(), String> {
    let left = [disk.names("/img"), disk.names("/stages")].concat();
    match left
        .iter()
        .any(|name| name.to_string_lossy().contains("stage"))
        || mark(disk).is_some()
    {
        true => Err(format!("let go, but there is something left: {left:?}")),
        false => Ok(()),
    }
}

/// The mark that the target carries.
pub fn mark(disk: &FaultDisk) -> Option<Mark> {
    Mark::find(&disk.open(TARGET, Access::Read).unwrap()).unwrap()
}

pub fn let_go(case: &Case, disk: &FaultDisk) -> Result<(), String> {
    match release(&case.target(disk), &work()) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("letting it go: {error}")),
    }
}

/// Holds the target anew, shows that it is, and lets it go.
pub fn held_again(case: &Case, disk: &FaultDisk) -> Result<(), String> {
    hold(&case.target(disk), &work()).map_err(|error| format!("holding: {error}"))?;
    guarded(disk)?;
    refused(case, disk)?;
    let_go(case, disk)
}

const MARKER: &[u8] = b"\0diskdelta mark1";
