//! The disks of a VM, each side where it lies: on this host, or on another one by a disk agent
//! there.

use std::ops::Range;
use std::path::PathBuf;

use super::agent::{AgentClient, AgentReply, Wanted, What};
use super::{Estimate, HostDisks, Measure, Prerequisite};
use crate::error::{Error, ErrorKind, Result};
use crate::failback::disk_work::{CopyOrder, DiskWork, Finding, Roots};
use crate::failback::machine::{PassReport, Root, Side, Sides, Token};
use crate::failback::plan::{Plan, Vm};
use crate::failback::vm::DiskChanges;
use crate::progress::Work;

/// The disks of one VM of a plan.
pub struct VmDisks {
    here: HostDisks,
    agents: Sides<Option<AgentClient>>,
}

impl VmDisks {
    /// The disks of `vm`; `directory` is where the job keeps what it has to remember of those of this
    /// host, `id` tells it apart from other jobs of its name.
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
            match agent.look(What::Look, &open, &work)? {
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
        match agent.look(What::Estimate, &open, work)? {
            AgentReply::Estimated(all) => Ok(all),
            _ => Err(unasked()),
        }
    }

    /// Whether a disk of this side is a block device that the plan does not let be written.
    pub fn has_unwritable_device(&self, side: Side) -> bool {
        self.here.has_unwritable_device(side)
    }

    /// Removes the ways back to what the target's disks held before: nobody goes back any more.
    ///
    /// # Errors
    /// `Io`; those of reaching the target's host.
    pub fn forget_ways_back(&self) -> Result<()> {
        match &self.agents.target {
            None => self.here.forget_ways_back(),
            Some(agent) => {
                let what = What::ForgetWaysBack;
                done(agent.call(Token::default(), what, &Work::with_threads(1)?)?)
            }
        }
    }

    /// A side's disk itself, for a disk agent.
    fn disk(&self, side: Side, wanted: &Wanted, work: &Work) -> Result<super::SourceDisk> {
        if wanted.of_pass || wanted.disk >= self.here.disks.len() {
            return Err(unasked());
        }
        self.here.source_disk(side, wanted.disk, wanted.live, work)
    }

    /// How much a side's disks should hold, as the host that has its disk states says.
    fn measures(&self, side: Side, token: Token, work: &Work) -> Result<Vec<Option<Measure>>> {
        match self.agents.of(side) {
            None => self.here.measures(side),
            Some(agent) => match agent.call(token, What::Measure, work)? {
                AgentReply::Measured(all) if all.len() == self.here.disks.len() => Ok(all),
                _ => Err(unasked()),
            },
        }
    }

    /// Lets what is done here know how much the disks of a side on another host should hold.
    fn ask_measures(&self, side: Side, token: Token, work: &Work) -> Result<()> {
        if self.agents.of(side).is_some() {
            let measures = self.measures(side, token, work)?;
            self.here.believe(side, measures);
        }
        Ok(())
    }
}

impl DiskWork for VmDisks {
    fn check(&self, token: Token, side: Side) -> Result<Vec<Finding>> {
        let Some(agent) = self.agents.of(side) else {
            return self.here.check(token, side);
        };
        self.here.admit(side, token)?;
        let work = Work::with_threads(1)?;
        let open = |wanted: &Wanted| self.disk(side.other(), wanted, &work);
        match agent.call_with(token, What::Check, &[], &open, &work) {
            Ok(AgentReply::Found(all)) => Ok(all),
            Ok(_) => Err(unasked()),
            Err(error) if error.kind() == ErrorKind::InUse => Err(error),
            Err(error) => Ok(vec![Finding {
                check: "target host".into(),
                text: error.to_string(),
            }]),
        }
    }

    fn block(&self, token: Token, side: Side) -> Result<()> {
        match self.agents.of(side) {
            None => self.here.block(token, side),
            Some(agent) => {
                self.here.admit(side, token)?;
                done(agent.call(token, What::Block, &Work::with_threads(1)?)?)
            }
        }
    }

    fn unblock(&self, token: Token, side: Side) -> Result<()> {
        match self.agents.of(side) {
            None => self.here.unblock(token, side),
            Some(agent) => {
                self.here.admit(side, token)?;
                done(agent.call(token, What::Unblock, &Work::with_threads(1)?)?)
            }
        }
    }

    fn copy(&self, token: Token, order: &CopyOrder<'_>, work: &Work) -> Result<PassReport> {
        let side = order.to;
        let Some(agent) = self.agents.of(side) else {
            return self.here.copy(token, order, work);
        };
        self.here.admit(side, token)?;
        self.here.admit(side.other(), token)?;
        let (from, lists) = agent.sources(order.from);
        let what = What::Copy {
            amount: order.amount,
            from_snapshot: order.from_snapshot,
            keep_undo: order.keep_undo,
            from,
        };
        let open = |wanted: &Wanted| {
            let disk = self.here.disks.get(wanted.disk).ok_or_else(unasked)?;
            let from = order.from.iter();
            let from = from
                .clone()
                .find(|from| wanted.of_pass && from.identity == disk.identity)
                .ok_or_else(unasked)?;
            let format = disk.at.of(side.other()).1;
            let how = (false, true);
            self.here
                .open(side.other(), &from.address, format, how, work)
        };
        match agent.call_with(token, what, &lists, &open, work)? {
            AgentReply::Copied(report) => Ok(report),
            _ => Err(unasked()),
        }
    }

    fn verify(&self, token: Token, side: Side, work: &Work) -> Result<Option<Roots>> {
        let Some(agent) = self.agents.of(side) else {
            return self.here.verify(token, side, work);
        };
        self.here.admit(side, token)?;
        match agent.call(token, What::Verify, work)? {
            AgentReply::Verified(roots) => Ok(roots),
            _ => Err(unasked()),
        }
    }

    /// A disk on another host is read through an agent that only reads, as every source is.
    fn prove(&self, token: Token, side: Side, work: &Work) -> Result<Root> {
        self.here.admit(side, token)?;
        self.ask_measures(side.other(), token, work)?;
        self.here.prove(token, side, work)
    }

    fn check_baseline(
        &self,
        token: Token,
        side: Side,
        expected: Root,
        work: &Work,
    ) -> Result<bool> {
        self.here.admit(side, token)?;
        let Some(agent) = self.agents.of(side) else {
            self.ask_measures(side.other(), token, work)?;
            return self.here.check_baseline(token, side, expected, work);
        };
        let other = self.measures(side.other(), token, work)?;
        match agent.call(token, What::CheckBaseline { expected, other }, work)? {
            AgentReply::Baseline(holds) => Ok(holds),
            _ => Err(unasked()),
        }
    }

    fn restore(
        &self,
        token: Token,
        side: Side,
        written: Option<&[DiskChanges]>,
        work: &Work,
    ) -> Result<()> {
        let Some(agent) = self.agents.of(side) else {
            return self.here.restore(token, side, written, work);
        };
        self.here.admit(side, token)?;
        let (written, lists) = match written.map(|from| agent.sources(from)) {
            Some((from, lists)) => (Some(from), lists),
            None => (None, Vec::<Vec<Range<u64>>>::new()),
        };
        let open = |wanted: &Wanted| self.disk(side.other(), wanted, work);
        done(agent.call_with(token, What::Restore { written }, &lists, &open, work)?)
    }
}

fn done(reply: AgentReply) -> Result<()> {
    match reply {
        AgentReply::Done => Ok(()),
        _ => Err(unasked()),
    }
}

/// A disk agent says, or wants, what it was not asked for.
fn unasked() -> Error {
    Error::malformed("the other end gave something else than what it was asked for")
        .advise("run the same version of diskdelta on both hosts")
}
