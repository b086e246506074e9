//! The way back: a target's disk as it was before the job.

use super::disk_path::{DiskPath, exists, is_same, remove, rename};
use super::disk_state::DiskState;
use super::host_disks::HostDisks;
use super::pass::{CREATED, whole};
use super::source_disk::open_to_write;
use crate::error::{Error, ErrorKind, Result};
use crate::failback::disk_work::DiskCommand;
use crate::failback::machine::{Action, Side};
use crate::manifest::RangeSet;
use crate::progress::Work;
use crate::storage::FileRef;
use crate::sync::{Mode, Recovered, SyncOptions, undo};

/// Makes one disk what it was before the job. It stands under its blocked name. What its own VM
/// wrote since is in `written`; where that is not known, it is found by comparing.
pub(super) fn restore(
    disks: &HostDisks,
    command: &DiskCommand<'_>,
    index: usize,
    work: &Work,
) -> Result<()> {
    let side = command.side;
    let disk_path = disks.disk_path(side, index)?;
    let state = disks.state(side, index)?;
    if state.is_noted(CREATED)? {
        remove(&disk_path.blocked)?;
        // Half of a copy may lie beside it.
        match open_to_write(&disk_path.blocked, disk_path.format)?.discard(work) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            done => drop(done?),
        }
        state.forget()?;
        return disk_path.sync_directory();
    }
    if exists(&disk_path.blocked)? {
        finish(&disk_path, work)?;
    }
    if exists(&disk_path.before)? {
        return put_back(&disk_path);
    }
    let compares = matches!(command.action, Action::Restore { compare: true, .. });
    if (compares || command.changes.is_some()) && !state.is_noted(REVERTED)? {
        take_back(disks, command, index, &disk_path, work)?;
        // Not twice: from here on the ways back lead further down.
        state.note(REVERTED)?;
    }
    walk_back(&disk_path, &state, work)
}

impl HostDisks {
    /// Removes the ways back to what the target's disks held before: there is no way back any more.
    ///
    /// # Errors
    /// `Io`.
    pub fn forget_ways_back(&self) -> Result<()> {
        for disk_path in self.disk_paths(Side::Target) {
            let disk_path = disk_path?;
            remove(&disk_path.before)?;
            for (_, path) in disk_path.undos()? {
                remove(&path)?;
            }
            disk_path.sync_directory()?;
        }
        Ok(())
    }
}

/// Ends what a sync has left: what was begun is finished, what was only logged is dropped.
fn finish(disk_path: &DiskPath, work: &Work) -> Result<()> {
    let target = open_to_write(&disk_path.blocked, disk_path.format)?;
    match target.recover(work)? {
        Recovered::Rerun => {
            let text = "a disk that was written in place has no way back";
            Err(Error::new(ErrorKind::Incomplete, text).at_path(&disk_path.blocked))
        }
        Recovered::Old => target.discard(work).map(drop),
        _ => Ok(()),
    }
}

/// The file that a full copy took the place of gets its place back.
fn put_back(disk_path: &DiskPath) -> Result<()> {
    if exists(&disk_path.blocked)? && is_same(&disk_path.before, &disk_path.blocked)? {
        // Nothing took its place yet.
        remove(&disk_path.before)?;
    } else {
        rename(&disk_path.before, &disk_path.blocked)?;
    }
    disk_path.sync_directory()
}

/// Takes back what the target's own VM wrote: the source's disk still holds it as it was.
fn take_back(
    disks: &HostDisks,
    command: &DiskCommand<'_>,
    index: usize,
    disk_path: &DiskPath,
    work: &Work,
) -> Result<()> {
    let identity = &disks.disks[index].identity;
    // Without changes all is compared.
    let changed = match command.changes {
        None => None,
        Some(_) => Some(
            command
                .changes_of(identity)?
                .changed
                .clone()
                .ok_or_else(|| {
                    let text = format!("no changes are known of disk `{identity}`");
                    Error::new(ErrorKind::Malformed, text)
                })?,
        ),
    };
    let source = disks.source_disk(command.side.other(), index, false, work)?;
    // The target may be longer, and trackers count in blocks.
    let inside = 0..source.disk_len();
    let changed = changed.map(|it| RangeSet::of(it).inside(inside).collect());
    let target = open_to_write(&disk_path.blocked, disk_path.format)?;
    let options = SyncOptions::default()
        .with_mode(Mode::Delta)
        .with_change_map(changed);
    source.sync_onto(target.target(), &options, work).map(drop)
}

/// Goes back pass by pass, the last one first.
fn walk_back(disk_path: &DiskPath, state: &DiskState, work: &Work) -> Result<()> {
    let undos = disk_path.undos()?;
    for (_, path) in undos.iter().rev() {
        let target = open_to_write(&disk_path.blocked, disk_path.format)?;
        match undo(&FileRef::host(path)?, target.target(), work) {
            // Not written to its end: the pass that it belongs to never began.
            Err(error)
                if error.kind() == ErrorKind::Malformed && !state.is_noted(&whole(path))? => {}
            done => drop(done?),
        }
    }
    for (_, path) in &undos {
        remove(path)?;
    }
    state.forget()?;
    disk_path.sync_directory()
}

/// What the target's own VM wrote was taken back.
const REVERTED: &str = "reverted";
