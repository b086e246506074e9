//! The way back: a target's disk as it was before the job.

use super::ledger::Ledger;
use super::pass::{CREATED, whole};
use super::seat::{Seat, exists, is_same, remove, rename};
use super::{HostDisks, open_to_write};
use crate::control::Work;
use crate::error::{Error, ErrorKind, Result};
use crate::failback::machine::Side;
use crate::failback::vm::DiskChanges;
use crate::manifest::RangeSet;
use crate::storage::Place;
use crate::sync::{Mode, Recovered, SyncOptions, undo};

/// Makes one disk what it was before the job. It stands under its blocked name.
pub(super) fn restore(
    disks: &HostDisks,
    side: Side,
    index: usize,
    written: Option<&[DiskChanges]>,
    work: &Work,
) -> Result<()> {
    let seat = disks.seat(side, index)?;
    let ledger = disks.ledger(side, index)?;
    if ledger.is_noted(CREATED)? {
        remove(&seat.blocked)?;
        // Half of a copy may lie beside it.
        match open_to_write(&seat.blocked, seat.format)?.discard(work) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            done => drop(done?),
        }
        ledger.forget()?;
        return seat.sync_folder();
    }
    if exists(&seat.blocked)? {
        finish(&seat, work)?;
    }
    if exists(&seat.before)? {
        return put_back(&seat);
    }
    if let Some(written) = written
        && !ledger.is_noted(REVERTED)?
    {
        take_back(disks, side, index, &seat, written, work)?;
        // Not twice: from here on the ways back lead further down.
        ledger.note(REVERTED)?;
    }
    walk_back(&seat, &ledger, work)
}

/// Removes the ways back of a disk.
///
/// # Errors
/// `Io`.
pub(super) fn forget(seat: &Seat) -> Result<()> {
    remove(&seat.before)?;
    for (_, path) in seat.undos()? {
        remove(&path)?;
    }
    seat.sync_folder()
}

/// Ends what a sync has left: what was begun is finished, what was only staged is dropped.
fn finish(seat: &Seat, work: &Work) -> Result<()> {
    let target = open_to_write(&seat.blocked, seat.format)?;
    match target.recover(work)? {
        Recovered::Rerun => {
            let text = "a disk that was written in place has no way back";
            Err(Error::new(ErrorKind::Marked, text).at_path(&seat.blocked))
        }
        Recovered::Old => target.discard(work).map(drop),
        _ => Ok(()),
    }
}

/// The file that a full copy took the place of gets its place back.
fn put_back(seat: &Seat) -> Result<()> {
    if exists(&seat.blocked)? && is_same(&seat.before, &seat.blocked)? {
        // Nothing took its place yet.
        remove(&seat.before)?;
    } else {
        rename(&seat.before, &seat.blocked)?;
    }
    seat.sync_folder()
}

/// Takes back what the target's own VM wrote: the source's disk still holds it as it was.
fn take_back(
    disks: &HostDisks,
    side: Side,
    index: usize,
    seat: &Seat,
    written: &[DiskChanges],
    work: &Work,
) -> Result<()> {
    let identity = &disks.disks[index].identity;
    let changed = written
        .iter()
        .find(|disk| disk.identity == *identity)
        .and_then(|disk| disk.changed.clone())
        .ok_or_else(|| {
            let text = format!("nobody says what was written to disk `{identity}`");
            Error::new(ErrorKind::Malformed, text)
        })?;
    let source = disks.origin(side.other(), index, false, work)?;
    // The target may be longer, and trackers count in blocks.
    let changed = RangeSet::of(changed).inside(0..source.disk_len()).collect();
    let target = open_to_write(&seat.blocked, seat.format)?;
    let options = SyncOptions::default()
        .with_mode(Mode::Delta)
        .with_change_map(Some(changed));
    source.sync_onto(target.target(), &options, work).map(drop)
}

/// Goes back pass by pass, the last one first.
fn walk_back(seat: &Seat, ledger: &Ledger, work: &Work) -> Result<()> {
    let undos = seat.undos()?;
    for (_, path) in undos.iter().rev() {
        let target = open_to_write(&seat.blocked, seat.format)?;
        match undo(&Place::host(path)?, target.target(), work) {
            // Not written to its end: the pass that it belongs to never began.
            Err(error)
                if error.kind() == ErrorKind::Malformed && !ledger.is_noted(&whole(path))? => {}
            done => drop(done?),
        }
    }
    for (_, path) in &undos {
        remove(path)?;
    }
    ledger.forget()?;
    seat.sync_folder()
}

/// What the target's own VM wrote was taken back.
const REVERTED: &str = "reverted";
