//! What is done to disks of this host, as the executor or another host asks for it.

use std::borrow::Cow;

use super::agent::{AgentReply, Task};
use super::disk_path::DiskPath;
use super::disk_state::{DiskState, combined};
use super::host_disks::HostDisks;
use super::measure::Measure;
use super::source_disk::{SourceDisk, open_to_write};
use super::{pass, restore};
use crate::error::Result;
use crate::failback::disk_work::{DiskCommand, Done};
use crate::failback::machine::{Action, Answer, Problem, Side, Token};
use crate::failback::vm::{DiskChanges, misdirected};
use crate::hash::Hash;
use crate::image::Resized;
use crate::progress::Work;

impl HostDisks {
    /// Does what a disk agent is asked; `changes` is what a command knows of changes.
    pub(super) fn answer(
        &self,
        (side, token): (Side, Token),
        task: &Task,
        changes: Option<&[DiskChanges]>,
        work: &Work,
    ) -> Result<AgentReply> {
        match task {
            Task::Look => Ok(AgentReply::Looked(self.prerequisites(side))),
            Task::Estimate => self.estimate(work).map(AgentReply::Estimated),
            Task::Measure => self.measures(side).map(AgentReply::Measured),
            Task::ForgetWaysBack => {
                self.forget_ways_back()?;
                Ok(AgentReply::Done(Answer::Done.into()))
            }
            Task::Execute {
                action,
                keep_undo,
                other,
                ..
            } => {
                let command = DiskCommand {
                    token,
                    side,
                    action: *action,
                    keep_undo: *keep_undo,
                    changes,
                };
                let done = self.execute(&command, other.as_deref(), work);
                done.map(AgentReply::Done)
            }
        }
    }

    /// Executes one of the [actions](Action) for disks; `other` is how much the other side's disks
    /// should hold, where that is known elsewhere.
    pub(super) fn execute(
        &self,
        command: &DiskCommand<'_>,
        other: Option<&[Option<Measure>]>,
        work: &Work,
    ) -> Result<Done> {
        let side = command.side;
        self.admit(side, command.token)?;
        let other = || match other {
            Some(other) => Ok(Cow::Borrowed(other)),
            None => self.measures(side.other()).map(Cow::Owned),
        };
        let answer = match command.action {
            Action::Check => return Ok(self.check(side)),
            Action::Block => self.block(side).map(|()| Answer::Done),
            Action::Unblock => self.unblock(side).map(|()| Answer::Done),
            Action::Copy(copy) => {
                self.admit(side.other(), command.token)?;
                pass::copy(self, command, copy, work).map(Answer::Copied)
            }
            Action::Verify => self.verify(side, work),
            Action::Prove => {
                let other = other()?;
                let root = |index| self.root_of(side, index, other[index], work);
                self.combined(root).map(Answer::Proven)
            }
            Action::CheckBaseline { expected: None } => Ok(Answer::Baseline(false)),
            Action::CheckBaseline { expected } => {
                let other = other()?;
                let root = |index| self.check_baseline(side, index, other[index], work);
                let same = self.combined(root)?;
                Ok(Answer::Baseline(Some(same) == expected))
            }
            Action::Restore { .. } => {
                for index in 0..self.disks.len() {
                    restore::restore(self, command, index, work)?;
                }
                Ok(Answer::Done)
            }
            other => Err(misdirected(other)),
        };
        answer.map(Done::from)
    }

    fn check(&self, side: Side) -> Done {
        let all = self.prerequisites(side);
        let failed: Vec<_> = all.iter().filter(|it| !it.holds).collect();
        let texts = failed.iter();
        let texts = texts.map(|it| format!("{}: {}: {}", it.check, it.disk, it.text));
        let text = texts.collect::<Vec<_>>().join("; ");
        match failed.iter().all(|it| it.is_marker) {
            _ if failed.is_empty() => Answer::Done.into(),
            true => Done {
                answer: Answer::Failed(Problem::Marked),
                detail: Some(text),
            },
            false => Done::unfit(text),
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
        let found = self.combined(|index| {
            let disk_path = self.disk_path(side, index)?;
            self.found(side, index, &disk_path, &self.state(side, index)?, work)
        })?;
        let expected = self.combined(|index| Ok(self.state(side, index)?.known()?.root()))?;
        if found == expected {
            for index in 0..self.disks.len() {
                self.state(side, index)?.set_verified()?;
            }
        }
        Ok(Answer::Verified { found, expected })
    }

    /// The root of what a disk holds now, which is what it should hold from here on.
    fn check_baseline(
        &self,
        side: Side,
        index: usize,
        other: Option<Measure>,
        work: &Work,
    ) -> Result<Hash> {
        let (source, image) = self.open_whole(side, index, other, work)?;
        let state = self.state(side, index)?;
        let manifest = state.rebuild(&*image, work, &|| source.check())?;
        state.set_verified()?;
        Ok(manifest.root())
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
        let disk = SourceDisk::at_rest(disk_path, work)?;
        let len = state.known()?.disk_len();
        state.found(&*Resized::at_most(disk.local()?.clone(), len), work)
    }

    /// The one root of all disks, from that of each.
    fn combined(&self, root: impl Fn(usize) -> Result<Hash>) -> Result<Hash> {
        let disks = self.disks.iter().enumerate();
        let roots = disks.map(|(index, disk)| Ok((&disk.identity[..], root(index)?)));
        roots
            .collect::<Result<Vec<_>>>()
            .map(|roots| combined(&roots))
    }
}
