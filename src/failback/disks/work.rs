//! What is done to disks of this host, as the executor asks for it.

use super::disk_path::DiskPath;
use super::disk_state::{DiskState, combined, cut};
use super::host_disks::HostDisks;
use super::open::open_to_write;
use super::open_disk::OpenDisk;
use super::{pass, restore};
use crate::error::Result;
use crate::failback::disk_work::{DiskCommand, DiskWork, Done};
use crate::failback::machine::{Action, Answer, Side};
use crate::failback::vm::misdirected;
use crate::hash::Hash;
use crate::progress::Work;

impl DiskWork for HostDisks {
    fn execute(&self, command: &DiskCommand<'_>, work: &Work) -> Result<Done> {
        let side = command.side;
        self.admit(side, command.token)?;
        let answer = match command.action {
            Action::Check => return Ok(self.check(side)),
            Action::Block => self.block(side).map(|()| Answer::Done),
            Action::Unblock => self.unblock(side).map(|()| Answer::Done),
            Action::Copy(copy) => {
                self.admit(side.other(), command.token)?;
                pass::copy(self, command, copy, work).map(Answer::Copied)
            }
            Action::Verify => self.verify(side, work),
            Action::Prove => self.prove(side, work).map(Answer::Proven),
            Action::CheckBaseline { expected } => self
                .check_baseline(side, expected, work)
                .map(Answer::Baseline),
            Action::Restore { .. } => {
                for index in 0..self.disks.len() {
                    restore::restore(self, side, index, command.changes, work)?;
                }
                Ok(Answer::Done)
            }
            other => Err(misdirected(other)),
        };
        answer.map(Done::from)
    }
}

impl HostDisks {
    fn check(&self, side: Side) -> Done {
        let all = self.prerequisites(side);
        let failed = all.iter().filter(|it| !it.holds);
        let texts = failed.map(|it| format!("{}: {}: {}", it.check, it.disk, it.text));
        match texts.collect::<Vec<_>>() {
            texts if texts.is_empty() => Answer::Done.into(),
            texts => Done::unfit(texts.join("; ")),
        }
    }

    fn block(&self, side: Side) -> Result<()> {
        for (index, disk_path) in self.disk_paths(side).enumerate() {
            let disk_path = disk_path?;
            self.refuse_device(&disk_path)?;
            if let Some(path) = disk_path.path()? {
                // The process that runs from it has it open.
                let target = open_to_write(&path, disk_path.format)?;
                if disk_path.is_device {
                    target.hold(&Work::with_threads(1)?)?;
                }
            }
            if !disk_path.block()? {
                self.may_be_missing(side, index, &disk_path)?;
            }
        }
        Ok(())
    }

    fn unblock(&self, side: Side) -> Result<()> {
        for (index, disk_path) in self.disk_paths(side).enumerate() {
            let disk_path = disk_path?;
            let encrypted = self.encrypted(side, index)?;
            if let Some(encrypted) = &encrypted {
                let state = self.state(side, index)?;
                // A replica that this job has added nothing to stays what it is.
                if encrypted.exists()? && state.current()?.is_none() {
                    continue;
                }
                if encrypted.is_alone(&state)? {
                    return Err(encrypted.not_written_out());
                }
            }
            if let Some(path) = disk_path.path()? {
                let target = open_to_write(&path, disk_path.format)?;
                if disk_path.is_device {
                    target.release(&Work::with_threads(1)?)?;
                } else if let Some(marker) = target.marker()? {
                    return Err(marker.refusal().at_path(path));
                }
            }
            if let Some(encrypted) = encrypted {
                encrypted.give_up()?;
            }
            if !disk_path.unblock()? {
                self.may_be_missing(side, index, &disk_path)?;
            }
        }
        Ok(())
    }

    fn verify(&self, side: Side, work: &Work) -> Result<Answer> {
        let (mut found, mut expected) = (Vec::new(), Vec::new());
        for (index, disk) in self.disks.iter().enumerate() {
            let disk_path = self.disk_path(side, index)?;
            let state = self.state(side, index)?;
            found.push((
                disk.identity.clone(),
                self.found(side, index, &disk_path, &state, work)?,
            ));
            expected.push((disk.identity.clone(), state.known()?.root()));
        }
        let (found, expected) = (combined(&found), combined(&expected));
        if found == expected {
            for index in 0..self.disks.len() {
                self.state(side, index)?.set_verified()?;
            }
        }
        Ok(Answer::Verified { found, expected })
    }

    fn prove(&self, side: Side, work: &Work) -> Result<Hash> {
        let mut roots = Vec::new();
        for (index, disk) in self.disks.iter().enumerate() {
            roots.push((disk.identity.clone(), self.root_of(side, index, work)?));
        }
        Ok(combined(&roots))
    }

    fn check_baseline(&self, side: Side, expected: Option<Hash>, work: &Work) -> Result<bool> {
        let Some(expected) = expected else {
            return Ok(false);
        };
        let mut roots = Vec::new();
        for (index, disk) in self.disks.iter().enumerate() {
            let (source, image) = self.open_whole(side, index, work)?;
            let state = self.state(side, index)?;
            let manifest = state.rebuild(&*image, work, &|| source.check())?;
            state.set_verified()?;
            roots.push((disk.identity.clone(), manifest.root()));
        }
        Ok(combined(&roots) == expected)
    }

    /// The root of what a disk holds.
    fn found(
        &self,
        side: Side,
        index: usize,
        disk_path: &DiskPath,
        state: &DiskState,
        work: &Work,
    ) -> Result<Hash> {
        if let Some(encrypted) = self.encrypted(side, index)?
            && encrypted.is_alone(state)?
        {
            return encrypted.verify(work)?.ok_or_else(|| disk_path.gone());
        }
        let open_disk = OpenDisk::open(disk_path, work)?;
        let len = state.known()?.disk_len();
        state.found(&*cut(open_disk.image().clone(), len), work)
    }
}
