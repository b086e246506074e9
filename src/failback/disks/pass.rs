//! One pass of copying: each disk by one call of the sync layer.

use std::path::Path;
use std::time::Instant;

use super::disk_path::{DiskPath, exists};
use super::disk_state::DiskState;
use super::host_disks::HostDisks;
use super::source_disk::SourceDisk;
use crate::error::{Error, ErrorKind, Result};
use crate::failback::disk_work::DiskCommand;
use crate::failback::machine::{Amount, Copy, PassReport, Reason, Side};
use crate::failback::vm::DiskChanges;
use crate::image::{ImageOptions, Resized};
use crate::manifest::RangeSet;
use crate::progress::Work;
use crate::storage::{FileRef, TargetOptions};
use crate::sync::{
    HostTarget, HostTargetOptions, Mode, REMOTE_BLOCK_BYTES, Recovered, Safety, SyncOptions, Verify,
};

/// Copies all disks, one after the other.
pub(super) fn copy(
    disks: &HostDisks,
    command: &DiskCommand<'_>,
    copy: Copy,
    work: &Work,
) -> Result<PassReport> {
    let started = Instant::now();
    let mut report = PassReport::default();
    for (index, disk) in disks.disks.iter().enumerate() {
        let pass = Pass {
            disks,
            index,
            command,
            copy,
            from: command.changes_of(&disk.identity)?,
            disk_path: disks.disk_path(command.side, index)?,
            state: disks.state(command.side, index)?,
            work,
        };
        report.changed_bytes += pass.run()?;
    }
    report.elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(report)
}

/// A pass over one disk.
struct Pass<'a> {
    disks: &'a HostDisks,
    index: usize,
    command: &'a DiskCommand<'a>,
    copy: Copy,
    from: &'a DiskChanges,
    disk_path: DiskPath,
    state: DiskState,
    work: &'a Work,
}

impl Pass<'_> {
    /// Returns how many bytes changed.
    fn run(&self) -> Result<u64> {
        let (disks, command) = (self.disks, self.command);
        let source = disks.open_for_pass(command, self.index, self.from, self.work)?;
        let there = exists(&self.disk_path.blocked)?;
        if there {
            self.finish_previous()?;
        } else {
            disks.may_be_missing(command.side, self.index, &self.disk_path)?;
        }
        let encrypted = disks.encrypted(command.side, self.index)?;
        // All of a disk that is switched off goes straight to where its VM will find it.
        let is_direct = self.copy.amount == Amount::Everything && !self.copy.from_snapshot;
        if let Some(encrypted) = encrypted.as_ref().filter(|_| !is_direct) {
            let changed = self.from.changed.as_deref();
            return encrypted.copy(self.copy, &source, changed, &self.state, self.work);
        }
        if let Some(encrypted) = &encrypted {
            encrypted.pass_over(&self.state)?;
        }
        if !there {
            // Said before it is made, so that it is known whose it is.
            self.state.note(CREATED)?;
        }
        let options = self.options(there, &source)?;
        let target = HostTarget::open(&self.disk_path.blocked, &self.target_options(&source)?)?;
        let report = source.sync_onto(target.target(), &options, self.work)?;
        drop(target);
        if let Some(undo) = &options.undo {
            self.state.note(&whole(&undo.path()))?;
        }
        self.account(&source, &options)?;
        if let Some(encrypted) = encrypted {
            encrypted.give_up()?;
        }
        Ok(report.changed_bytes)
    }

    /// What a sync of an executor that died has left is finished first: its way back then leads
    /// from what the disk really holds.
    fn finish_previous(&self) -> Result<()> {
        let image = ImageOptions::default().with_format(self.disk_path.format);
        let options = HostTargetOptions::default()
            .with_image(image)
            .with_target_manifest(Some(self.state.file.clone().path()));
        let target = HostTarget::open(&self.disk_path.blocked, &options)?;
        match target.recover(self.work)? {
            Recovered::Rerun if self.disks.safety == Safety::Atomic => {
                let text = "an in-place sync onto this disk was not finished";
                Err(Error::new(ErrorKind::Incomplete, text).at_path(&self.disk_path.blocked))
            }
            _ => Ok(()),
        }
    }

    fn options(&self, there: bool, source: &SourceDisk) -> Result<SyncOptions> {
        let remote = source.image().is_none();
        let options = SyncOptions::default()
            .with_safety(self.disks.safety)
            .with_hold(self.disk_path.is_device)
            .with_allow_larger(self.disks.disks[self.index].may_be_longer())
            .with_allow_shrink(false);
        // Where the source is off, what was copied is read back as the next step; but what should
        // be there is known then, and of a source on another host it is what the target holds.
        let options = match self.copy.from_snapshot || remote {
            true => options.with_verify(Verify::Written),
            false => options.with_verify(Verify::None),
        };
        let keep = self.command.keep_undo && self.command.side == Side::Target && there;
        let map = self.from.changed.clone().filter(|_| there);
        let map = map.map(|map| {
            let map = RangeSet::of(map);
            // Less than a block is never compared across a line.
            let map = if remote {
                map.rounded_to(REMOTE_BLOCK_BYTES)
            } else {
                map
            };
            // Trackers count in blocks, and so may end behind the disk.
            map.inside(0..source.disk_len()).collect()
        });
        Ok(match self.copy.amount {
            Amount::Everything => {
                if keep {
                    self.keep_whole()?;
                    return Ok(options.with_mode(Mode::Full).with_safety(Safety::Atomic));
                }
                options.with_mode(Mode::Full)
            }
            Amount::ChangedSince(_) if map.is_some() && self.state.current()?.is_some() => options
                .with_mode(Mode::Delta)
                .with_change_map(map)
                .with_undo(self.undo(keep)?),
            amount => {
                if !matches!(amount, Amount::Differing(Reason::TrackingLost)) {
                    // Nothing stands for reading the target then.
                    self.state.forget()?;
                }
                // What a line that was cut has brought is taken up again only without a manifest.
                let manifest = (!remote).then(|| self.state.file.clone());
                options
                    .with_mode(Mode::Delta)
                    .with_target_manifest(manifest)
                    .with_undo(self.undo(keep)?)
            }
        })
    }

    /// Keeps the file that a full copy takes the place of, under another name.
    fn keep_whole(&self) -> Result<()> {
        if exists(&self.disk_path.before)? {
            return Ok(());
        }
        std::fs::hard_link(&self.disk_path.blocked, &self.disk_path.before)
            .map_err(|e| Error::io("link", e).at_path(&self.disk_path.before))?;
        self.disk_path.sync_directory()
    }

    /// Where the way back is written, unless the whole file is kept.
    fn undo(&self, keep: bool) -> Result<Option<FileRef>> {
        if !keep || exists(&self.disk_path.before)? || self.state.is_noted(CREATED)? {
            return Ok(None);
        }
        FileRef::host(self.disk_path.next_undo()?).map(Some)
    }

    fn target_options(&self, source: &SourceDisk) -> Result<HostTargetOptions> {
        let image = ImageOptions::default().with_format(self.disk_path.format);
        Ok(HostTargetOptions::default()
            .with_image(image)
            .with_open(TargetOptions::default())
            // The way back is another name of the file that a full copy takes the place of.
            .with_parts_links(true)
            .with_sources(source.files()?))
    }

    /// Keeps the manifest current, where the sync has not done so.
    fn account(&self, source: &SourceDisk, options: &SyncOptions) -> Result<()> {
        // Kept open as long as it is read.
        let disk;
        let wanted = match source.image() {
            // What a device has beyond the disk does not count: the target has nothing to add.
            Some(image) if self.disk_path.is_device => image.clone(),
            image => {
                disk = SourceDisk::at_rest(&self.disk_path, self.work)?;
                let target = disk.local()?;
                match image {
                    Some(image) => Resized::at_least(image.clone(), target.disk_len()),
                    // The sync has held what was written, read from the medium, against the source.
                    None if self.disk_path.is_device => {
                        Resized::at_most(target.clone(), source.disk_len())
                    }
                    None => target.clone(),
                }
            }
        };
        let check = || source.check();
        match (&options.change_map, &options.target_manifest) {
            (Some(map), _) => self.state.update(&*wanted, map, self.work, &check)?,
            (None, None) => drop(self.state.rebuild(&*wanted, self.work, &check)?),
            // A target that held everything already may have been left without one.
            (None, Some(_)) if self.state.current()?.is_none() => {
                drop(self.state.rebuild(&*wanted, self.work, &check)?);
            }
            _ => {}
        }
        match self.copy.from_snapshot && self.command.side == Side::Target {
            true => self.state.set_verified(),
            false => Ok(()),
        }
    }
}

/// A disk of the target's that the job has made.
pub(super) const CREATED: &str = "created";

/// The note that a way back was written to its end.
pub(super) fn whole(undo: &Path) -> String {
    let name = undo.extension().unwrap_or_default().to_string_lossy();
    format!("{name}-is-whole")
}
