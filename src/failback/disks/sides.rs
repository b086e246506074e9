//! The disks of a VM, each side where it lies: on this host, or on another one by a disk agent
//! there.

use std::path::PathBuf;

use super::agent::{AgentClient, AgentReply, Task, Wanted};
use super::estimate::Estimate;
use super::findings::Prerequisite;
use super::host_disks::HostDisks;
use super::measure::Measure;
use super::source_disk::SourceDisk;
use crate::error::{Error, ErrorKind, Result};
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
        let agent = |side, site| AgentClient::of(plan, vm, side, site, &here.disks, &id);
        VmDisks {
            agents: Sides {
                source: agent(Side::Source, plan.source_site()),
                target: agent(Side::Target, plan.target_site()),
            },
            here,
        }
    }

    /// Looks at both sides' disks, and changes nothing; the target's are to be written.
    pub fn prerequisites(&self) -> Vec<Prerequisite> {
        let Some(agent) = &self.agents.target else {
            return self.here.prerequisites(Side::Target);
        };
        let looked = Work::with_threads(1).and_then(|work| {
            let open = |wanted: &Wanted| self.disk(Side::Source, wanted, &work);
            match agent.look(Task::Look, &open, &work)? {
                AgentReply::Looked(all) => Ok(all),
                _ => Err(unasked()),
            }
        });
        looked.unwrap_or_else(|error| {
            vec![Prerequisite {
                check: "target host".into(),
                disk: agent.login().to_owned(),
                text: error.to_string(),
                holds: false,
                room: None,
            }]
        })
    }

    /// Estimates what a job would move, disk by disk. Reads a sample; changes nothing.
    ///
    /// # Errors
    /// As [`HostDisks::estimate`]; those of reaching the target's host.
    pub fn estimate(&self, work: &Work) -> Result<Vec<Estimate>> {
        let Some(agent) = &self.agents.target else {
            return self.here.estimate(work);
        };
        let open = |wanted: &Wanted| self.disk(Side::Source, wanted, work);
        match agent.look(Task::Estimate, &open, work)? {
            AgentReply::Estimated(all) => Ok(all),
            _ => Err(unasked()),
        }
    }

    /// Whether a disk of this side is a block device that the plan does not let be written.
    pub fn has_unwritable_device(&self, side: Side) -> bool {
        self.here.has_unwritable_device(side)
    }

    /// Removes the ways back to what the target's disks held before: there is no way back any more.
    ///
    /// # Errors
    /// `Io`; those of reaching the target's host.
    pub fn forget_ways_back(&self) -> Result<()> {
        match &self.agents.target {
            None => self.here.forget_ways_back(),
            Some(agent) => {
                let task = Task::ForgetWaysBack;
                match agent.call(Token::default(), task, &Work::with_threads(1)?)? {
                    AgentReply::Done(_) => Ok(()),
                    _ => Err(unasked()),
                }
            }
        }
    }

    /// A side's disk itself, for a disk agent.
    fn disk(&self, side: Side, wanted: &Wanted, work: &Work) -> Result<SourceDisk> {
        if wanted.of_pass || wanted.disk >= self.here.disks.len() {
            return Err(unasked());
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
        let other = command.side.other();
        let disk = self.here.disks.get(wanted.disk).ok_or_else(unasked)?;
        let mut changes = command.changes.unwrap_or_default().iter();
        let from = changes
            .find(|from| wanted.of_pass && from.identity == disk.identity)
            .ok_or_else(unasked)?;
        let (format, how) = (disk.at.of(other).1, (false, true));
        self.here
            .open((other, wanted.disk), &from.address, format, how, work)
    }

    /// How much a side's disks should hold, as the host that has its disk states says.
    fn measures(&self, side: Side, token: Token, work: &Work) -> Result<Vec<Option<Measure>>> {
        match self.agents.of(side) {
            None => self.here.measures(side),
            Some(agent) => match agent.call(token, Task::Measure, work)? {
                AgentReply::Measured(all) if all.len() == self.here.disks.len() => Ok(all),
                _ => Err(unasked()),
            },
        }
    }
}

impl DiskWork for VmDisks {
    fn execute(&self, command: &DiskCommand<'_>, work: &Work) -> Result<Done> {
        let (token, side, action) = (command.token, command.side, command.action);
        let other = side.other();
        let compares = matches!(action, Action::Prove | Action::CheckBaseline { .. });
        // A disk on another host is read through an agent that only reads, as every source is.
        let agent = self.agents.of(side).as_ref();
        let Some(agent) = agent.filter(|_| action != Action::Prove) else {
            if compares && self.agents.of(other).is_some() {
                self.here.admit(side, token)?;
                let measures = self.measures(other, token, work)?;
                self.here.trust(other, measures);
            }
            return self.here.execute(command, work);
        };
        self.here.admit(side, token)?;
        let measures = match compares {
            true => Some(self.measures(other, token, work)?),
            false => None,
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
            _ => Err(unasked()),
        };
        match agent.execute(command, measures, &open, work) {
            Err(error) if action == Action::Check && error.kind() != ErrorKind::InUse => {
                Ok(Done::unfit(format!("target host: {error}")))
            }
            done => done,
        }
    }
}

/// A disk agent says, or wants, what it was not asked for.
fn unasked() -> Error {
    Error::malformed("the other end gave something else than what it was asked for")
        .advise("run the same version of diskdelta on both hosts")
}
