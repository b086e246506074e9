//! The disks of a VM, each side where it lies: on this host, or on another one by a disk agent
//! there.

use std::path::PathBuf;

use super::agent::{AgentClient, AgentReply, Open, Task, Wanted, wrong};
use super::estimate::Estimate;
use super::findings::Prerequisite;
use super::host_disks::HostDisks;
use super::measure::Measure;
use super::source_disk::SourceDisk;
use crate::error::{ErrorKind, Result};
use crate::failback::disk_work::{DiskCommand, DiskWork, Done};
use crate::failback::machine::{Action, Side, Sides, Token};
use crate::failback::plan::{Plan, Vm};
use crate::progress::Work;

/// The disks of one VM of a plan.
pub struct VmDisks {
    here: HostDisks,
    agents: Sides<Option<AgentClient>>,
}

opaque!(VmDisks);

impl VmDisks {
    /// The disks of `vm`; `directory` is where the job keeps what it has to remember of those of
    /// this host, `id` tells it apart from other jobs of its name.
    pub fn new(plan: &Plan, vm: &Vm, directory: impl Into<PathBuf>, id: [u8; 16]) -> Self {
        let here = HostDisks::new(plan, vm, directory);
        let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        VmDisks {
            agents: Sides::of_each(|side| AgentClient::of(plan, vm, side, &here.disks, &id)),
            here,
        }
    }

    /// Looks at both sides' disks, and changes nothing; the target's are to be written.
    pub fn prerequisites(&self) -> Vec<Prerequisite> {
        let looked = Work::with_threads(1).and_then(|work| {
            let open = |wanted: &Wanted| self.disk(Side::Source, wanted, &work);
            match self.ask(Side::Target, Token::default(), Task::Look, &open, &work)? {
                AgentReply::Looked(all) => Ok(all),
                _ => Err(wrong()),
            }
        });
        looked.unwrap_or_else(|error| {
            let agent = self.agents.target.as_ref();
            let disk = agent.map_or("all", AgentClient::login);
            vec![Prerequisite::failed("target host", disk, error.to_string())]
        })
    }

    /// Estimates what a job would move, disk by disk. Reads a sample; changes nothing.
    ///
    /// # Errors
    /// As [`HostDisks::estimate`]; those of reaching the target's host.
    pub fn estimate(&self, work: &Work) -> Result<Vec<Estimate>> {
        let open = |wanted: &Wanted| self.disk(Side::Source, wanted, work);
        match self.ask(Side::Target, Token::default(), Task::Estimate, &open, work)? {
            AgentReply::Estimated(all) => Ok(all),
            _ => Err(wrong()),
        }
    }

    /// Whether a disk of this side is a block device that the plan does not let be written.
    pub fn has_unwritable_device(&self, side: Side) -> bool {
        self.here.has_unwritable_device(side)
    }

    /// Whether a side's disks are plain files while they are blocked, which a test can boot from.
    pub fn can_be_tested(&self, side: Side) -> bool {
        self.here.can_be_tested(side)
    }

    /// Removes the ways back to what the target's disks held before: there is no way back any more.
    ///
    /// # Errors
    /// `Io`; those of reaching the target's host.
    pub fn forget_ways_back(&self) -> Result<()> {
        let (token, work) = (Token::default(), Work::with_threads(1)?);
        self.ask(Side::Target, token, Task::ForgetWaysBack, &none, &work)
            .map(drop)
    }

    /// Has something done beside commands, where a side's disks lie.
    fn ask(
        &self,
        side: Side,
        token: Token,
        task: Task,
        open: &Open<'_>,
        work: &Work,
    ) -> Result<AgentReply> {
        match self.agents.of(side) {
            None => self.here.answer((side, token), &task, None, work),
            Some(agent) => agent.ask(token, task, &[], open, work),
        }
    }

    /// A side's disk itself, for a disk agent.
    fn disk(&self, side: Side, wanted: &Wanted, work: &Work) -> Result<SourceDisk> {
        if wanted.of_pass || wanted.disk >= self.here.disks.len() {
            return Err(wrong());
        }
        self.here.source_disk(side, wanted.disk, wanted.live, work)
    }

    /// What a pass reads of a disk, for a disk agent.
    fn source_of_pass(
        &self,
        command: &DiskCommand<'_>,
        wanted: &Wanted,
        work: &Work,
    ) -> Result<SourceDisk> {
        let disk = self.here.disks.get(wanted.disk);
        let disk = disk.filter(|_| wanted.of_pass).ok_or_else(wrong)?;
        let from = command.changes_of(&disk.identity)?;
        self.here.open_for_pass(command, wanted.disk, from, work)
    }

    /// How much a side's disks should hold, as the host that has its disk states says.
    fn measures(&self, side: Side, token: Token, work: &Work) -> Result<Vec<Option<Measure>>> {
        match self.ask(side, token, Task::Measure, &none, work)? {
            AgentReply::Measured(all) if all.len() == self.here.disks.len() => Ok(all),
            _ => Err(wrong()),
        }
    }
}

impl DiskWork for VmDisks {
    fn execute(&self, command: &DiskCommand<'_>, work: &Work) -> Result<Done> {
        let (token, side, action) = (command.token, command.side, command.action);
        let other = side.other();
        self.here.admit(side, token)?;
        let measures = match action {
            Action::Prove | Action::CheckBaseline { .. } => {
                Some(self.measures(other, token, work)?)
            }
            _ => None,
        };
        // A disk on another host is read through an agent that only reads, as every source is.
        let agent = self.agents.of(side).as_ref();
        let Some(agent) = agent.filter(|_| action != Action::Prove) else {
            return self.here.execute(command, measures.as_deref(), work);
        };
        let uninterrupted = Work::with_threads(1)?;
        let work = match action {
            Action::Check | Action::Block | Action::Unblock => &uninterrupted,
            _ => work,
        };
        if let Action::Copy(_) = action {
            self.here.admit(other, token)?;
        }
        let open = |wanted: &Wanted| match action {
            Action::Copy(_) => self.source_of_pass(command, wanted, work),
            Action::Check | Action::Restore { .. } => self.disk(other, wanted, work),
            _ => Err(wrong()),
        };
        let (task, lists) = agent.task(command, measures);
        match agent.ask(token, task, &lists, &open, work) {
            Ok(AgentReply::Done(done)) => Ok(done),
            Ok(_) => Err(wrong()),
            Err(error) if action == Action::Check && error.kind() != ErrorKind::InUse => {
                Ok(Done::unfit(format!("target host: {error}")))
            }
            Err(error) => Err(error),
        }
    }
}

/// No disk is read for what is asked.
fn none(_: &Wanted) -> Result<SourceDisk> {
    Err(wrong())
}
