//! The end that runs the job.

use std::ops::Range;

use super::messages::{AgentReply, AgentRequest, DiskAsked, DiskRead, Task, Wanted, wrong};
use super::ranges;
use crate::error::{Error, Result};
use crate::failback::disk_work::DiskCommand;
use crate::failback::disks::host_disks::PlannedDisk;
use crate::failback::disks::measure::Measure;
use crate::failback::disks::source_disk::SourceDisk;
use crate::failback::machine::{Side, Token};
use crate::failback::plan::{Plan, Vm, path_at};
use crate::failback::vm::DiskChanges;
use crate::location::{Location, RemoteAddress};
use crate::manifest::RangeSet;
use crate::progress::Work;
use crate::remote::format::WINDOWS_MOST;
use crate::remote::{ConnectOptions, Fault, Message, Session, SourceServer};
use crate::sync::{REMOTE_BLOCK_BYTES, Safety};

/// Calls the disk agent at the host of a side's disks.
pub(in crate::failback::disks) struct AgentClient {
    at: RemoteAddress,
    login: String,
    connect: ConnectOptions,
    request: AgentRequest,
}

/// Opens a disk that the disk agent wants.
pub(in crate::failback::disks) type Open<'a> = dyn Fn(&Wanted) -> Result<SourceDisk> + 'a;

impl AgentClient {
    /// For a side whose disks all lie on one host behind a shell; `None` for any other.
    pub(crate) fn of(
        plan: &Plan,
        vm: &Vm,
        side: Side,
        disks: &[PlannedDisk],
        instance: &str,
    ) -> Option<Self> {
        let login = plan.agent_login(vm, side)?;
        let asked = disks.iter().map(|disk| {
            let (address, format) = disk.at.of(side);
            let (other, other_format) = disk.at.of(side.other());
            DiskAsked {
                identity: disk.identity.clone(),
                bytes: disk.bytes,
                path: path_at(address, &login).unwrap_or_default(),
                format: *format,
                other: path_at(other, &login),
                other_format: *other_format,
            }
        });
        let site = plan.site(plan.site_at(side));
        let Location::Remote(at) = &disks.first()?.at.of(side).0 else {
            return None;
        };
        let shell = site.connect.connect_options().shell;
        let shell = shell.with_state_dir(site.connect.state.clone());
        Some(AgentClient {
            at: at.clone(),
            connect: site.connect.connect_options().with_shell(shell),
            request: AgentRequest {
                job: plan.name.clone(),
                vm: vm.name.clone(),
                instance: instance.to_owned(),
                side,
                state: (),
                create: vm.create,
                in_place: plan.safety == Safety::InPlace,
                disks: asked.collect(),
                token: Token::default(),
                task: Task::Look,
            },
            login,
        })
    }

    /// The host, as it is connected to.
    pub(crate) fn login(&self) -> &str {
        &self.login
    }

    /// How a command is given to the disk agent, and the ranges that go with it; `other` is what
    /// the disks of the other side should hold.
    pub(crate) fn task(
        &self,
        command: &DiskCommand<'_>,
        other: Option<Vec<Option<Measure>>>,
    ) -> (Task, Vec<Vec<Range<u64>>>) {
        let (changes, lists) = command.changes.map(|it| self.sources(it)).unzip();
        let task = Task::Execute {
            action: command.action,
            keep_undo: command.keep_undo,
            changes,
            other,
        };
        (task, lists.unwrap_or_default())
    }

    /// What a disk agent gets of where disks are read, and of what changed on them.
    fn sources(&self, from: &[DiskChanges]) -> (Vec<DiskRead>, Vec<Vec<Range<u64>>>) {
        let mut lists = Vec::new();
        let disks = &self.request.disks;
        let planned = |from: &&DiskChanges| disks.iter().any(|it| it.identity == from.identity);
        let sources = from.iter().filter(planned).map(|from| {
            let blocks = from.changed.clone().map(|changed| {
                let blocks = RangeSet::of(changed).rounded_to(REMOTE_BLOCK_BYTES);
                let most = (WINDOWS_MOST / disks.len()).max(1);
                blocks.coarsened_to(most).into_vec()
            });
            let ranges = blocks.as_ref().map(|blocks| blocks.len() as u64);
            lists.extend(blocks);
            DiskRead {
                identity: from.identity.clone(),
                here: path_at(&from.address, &self.login),
                ranges,
            }
        });
        (sources.collect(), lists)
    }

    /// Has something done, for which `open` opens other disks.
    ///
    /// # Errors
    /// Those of reaching the host, and of what is done there; `InUse` for a token that comes too
    /// late; `Malformed` for an answer that is invalid; `Io`, `Cancelled`.
    pub(crate) fn ask(
        &self,
        token: Token,
        task: Task,
        lists: &[Vec<Range<u64>>],
        open: &Open<'_>,
        work: &Work,
    ) -> Result<AgentReply> {
        let mut request = self.request.clone();
        (request.token, request.task) = (token, task);
        if request.only_looks() {
            request.instance.clear();
        }
        let named = |error: Error| match error.path() {
            Some(_) => error,
            None => error.at_path(&self.login),
        };
        let message = request.encode()?;
        let client = self.connect.connect(&self.at, work).map_err(named)?;
        let (session, connection) = client.disk_agent().map_err(named)?;
        let sent = session.line().send(&Message::Ask(message));
        let answer = sent
            .and_then(|()| ranges::send(&session, lists))
            .and_then(|()| self.listen(&session, open, work));
        match &answer {
            // The disk agent stops as soon as the line ends.
            Err(_) => drop(session),
            Ok(_) => session.finish(),
        }
        answer.map_err(|error| match connection {
            Some(mut connection) => named(connection.explain(error)),
            None => named(error),
        })
    }

    fn listen(&self, session: &Session, open: &Open<'_>, work: &Work) -> Result<AgentReply> {
        let mut wanted_count = 0;
        let mut missing = None;
        loop {
            let message = match session.line().receive("its answer", work.cancel()) {
                Ok(Message::Told(message)) => message,
                Ok(_) => return Err(wrong()),
                // It failed for want of a disk that this end could not open.
                Err(error) => return Err(missing.unwrap_or(error)),
            };
            match AgentReply::decode(&message)? {
                AgentReply::Begun { phase, total_bytes } => {
                    work.progress().begin(phase, total_bytes);
                }
                AgentReply::Advanced { bytes } => work.progress().advance(bytes),
                AgentReply::Wanted(wanted) => {
                    wanted_count += 1;
                    if wanted_count > WANTED_MOST * self.request.disks.len() {
                        return Err(wrong());
                    }
                    missing = answer_for(session, &wanted, open, work)?;
                }
                reply => return Ok(reply),
            }
        }
    }
}

/// Is the source of what the disk agent does next; gives why the disk could not be opened.
fn answer_for(
    session: &Session,
    wanted: &Wanted,
    open: &Open<'_>,
    work: &Work,
) -> Result<Option<Error>> {
    let tell = |error: &Error| {
        let fault = Box::new(Fault::of(error, false));
        session.line().send(&Message::Fail(fault))
    };
    let opened = open(wanted).and_then(|source_disk| {
        let image = source_disk.local()?.clone();
        Ok((source_disk, image))
    });
    let (source_disk, image) = match opened {
        Ok(opened) => opened,
        // What follows from that the disk agent says.
        Err(error) => return tell(&error).map(|()| Some(error)),
    };
    let source_server = SourceServer {
        image,
        check: &|| source_disk.check(),
        warnings: Vec::new(),
        cached: None,
    };
    source_server
        .answer(session, work)
        .map(|_| None)
        .inspect_err(|error| {
            // Where the line is down the other end cannot be reached.
            let _ = tell(error);
        })
}

/// How often a disk agent may ask for each disk.
const WANTED_MOST: usize = 4;
