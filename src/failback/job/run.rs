//! Runs a job: an executor for each VM, and the barriers between their groups.

use std::panic::resume_unwind;
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use super::controllers::{OwnControllers, as_planned};
use super::directory::JobDirectory;
use super::hooks::Hooks;
use super::meter::{self, Moving};
use super::requests::{Member, passed_on};
use super::running_vm::RunningVm;
use crate::advice::Advice;
use crate::error::{Error, ErrorKind, Result};
use crate::failback::directory_mailbox::DirectoryMailbox;
use crate::failback::executor::{Bell, Mailbox};
use crate::failback::history::{AcceptedRequest, now_ms};
use crate::failback::machine::{
    CommitPolicy, Event as MachineEvent, GroupAsked, JobPhase, Request, Signal, State, signals,
};
use crate::failback::record::PlanRecord;
use crate::journal::Writer;
use crate::progress::{CancelToken, Work};
use crate::storage::LockFile;

/// Runs a job; there is one at a time.
pub struct JobRunner {
    directory: JobDirectory,
    journal: Writer,
    asked: GroupAsked,
    vms: Vec<RunningVm>,
    /// Rung when there may be something to see.
    bell: Bell,
    /// Ends the executors.
    stop: CancelToken,
    leave: CancelToken,
    hooks: Hooks,
    _lock: LockFile,
}

opaque!(JobRunner);

/// Something that the process that runs a job may want to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A VM's job stands elsewhere now.
    Changed {
        /// Which VM.
        vm: String,
        /// Where its job stands.
        state: Box<State>,
    },
    /// A request was refused.
    Refused {
        /// What was asked.
        request: Request,
        /// By whom.
        by: String,
        /// Why it was refused.
        why: String,
    },
}

impl JobRunner {
    /// Takes a job up: one that was just begun, or one that another process has left. What its
    /// journals say is trusted; the VMs and disks are asked anew. `leave` ends [`run`](Self::run)
    /// at any time, and the job can be taken up again.
    ///
    /// # Errors
    /// `InUse` where another process runs it; `Malformed` for a damaged journal, before
    /// anything is done; `Io`.
    pub fn resume(directory: JobDirectory, work: &Work, leave: CancelToken) -> Result<Self> {
        Self::resume_with(directory, &as_planned, work, leave)
    }

    /// As [`resume`](Self::resume), with controllers of the caller's.
    ///
    /// # Errors
    /// As [`resume`](Self::resume).
    pub fn resume_with(
        directory: JobDirectory,
        own: &OwnControllers,
        work: &Work,
        leave: CancelToken,
    ) -> Result<Self> {
        let lock = directory.lock()?;
        let journal = directory.plan_writer()?;
        let (asked, _) = directory.asked()?;
        let (bell, stop) = (Bell::new(), CancelToken::new());
        let mut vms = Vec::new();
        for (number, group) in directory.plan().groups.iter().enumerate() {
            for vm in &group.vms {
                let ends = (stop.clone(), bell.clone());
                vms.push(RunningVm::new(&directory, (number, vm), own, work, ends)?);
            }
        }
        Ok(JobRunner {
            hooks: Hooks::new(&directory, vms.len())?,
            directory,
            journal,
            asked,
            vms,
            bell,
            stop,
            leave,
            _lock: lock,
        })
    }

    /// Runs the job until it is at rest, or told to leave; `tell` hears of all that happens.
    /// `first` is asked before anything else. A job that was begun starts by itself.
    ///
    /// # Errors
    /// `InvalidInput` where `first` is refused; `Io` and others of the journals. What goes wrong
    /// at the sites is no error: the job stands still, and says why.
    pub fn run(
        mut self,
        first: Option<(Request, &str)>,
        tell: &mut dyn FnMut(Event),
    ) -> Result<()> {
        let begun_by = self.directory.begun.by.clone();
        let is_new = self.all(|state| state.phase <= JobPhase::Prepared && !state.asked.start);
        // To take a job up is to try again.
        let first = first.filter(|(request, _)| *request != Request::Retry);
        let mut first = first.or(is_new.then_some((Request::Start, &begun_by[..])));
        let mailbox = DirectoryMailbox::new(self.directory.mailbox()?, self.leave.clone());
        let mut mailbox = mailbox.with_bell(&self.bell);
        let executors: Vec<_> = self
            .vms
            .iter_mut()
            .filter_map(RunningVm::executor)
            .collect();
        std::thread::scope(|scope| {
            let threads = executors.into_iter().map(|(mut executor, mut mailbox)| {
                let ends = Rings(self.bell.clone());
                scope.spawn(move || {
                    let _ends = ends;
                    executor.run(&mut mailbox)
                })
            });
            let threads: Vec<_> = threads.collect();
            let done = self.coordinate(&threads, &mut mailbox, &mut first, tell);
            self.stop.cancel();
            self.vms.iter().for_each(|vm| vm.handle.wake());
            let ended = threads.into_iter().map(|thread| {
                let ended = thread.join();
                ended.unwrap_or_else(|cause| resume_unwind(cause))
            });
            let ended: Vec<Result<()>> = ended.collect();
            done.and(ended.into_iter().collect())
        })
    }

    fn coordinate(
        &mut self,
        threads: &[ScopedJoinHandle<'_, Result<()>>],
        mailbox: &mut DirectoryMailbox,
        first: &mut Option<(Request, &str)>,
        tell: &mut dyn FnMut(Event),
    ) -> Result<()> {
        let mut published: Option<(Instant, Vec<Moving>)> = None;
        let nap = match mailbox.bell() {
            Some(_) => LONG_NAP,
            None => NAP,
        };
        let mut commit_waits: Option<Instant> = None;
        loop {
            self.look(tell)?;
            // A request is for a job that has looked at its prerequisites.
            let looked =
                self.all(|state| state.phase != JobPhase::Planned || state.problem.is_some());
            if looked && let Some((request, by)) = first.take() {
                // What cannot begin can still be given up.
                if request == Request::Start {
                    self.refuse_if_unfit()?;
                }
                self.ask(request, by)?;
            }
            let asked = mailbox.poll()?;
            let was_asked = asked.is_some();
            if let Some(asked) = asked {
                let fate = self.ask(asked.request, &asked.by);
                if let Err(error) = &fate {
                    tell(Event::Refused {
                        request: asked.request,
                        by: asked.by,
                        why: error.to_string(),
                    });
                }
                (asked.reply)(fate);
            }
            self.signal()?;
            let all_wait = self.all(|state| state.phase == JobPhase::CommitPending);
            commit_waits = all_wait.then(|| commit_waits.unwrap_or_else(Instant::now));
            if let Some(since) = commit_waits {
                self.commit_if_due(since)?;
            }
            let works = !self.all(|state| state.pending.is_none());
            let is_due = |at: &Instant| at.elapsed() >= PUBLISHED_EVERY;
            if published.as_ref().is_none_or(|(at, _)| is_due(at)) {
                let moving: Vec<_> = self.vms.iter().map(RunningVm::moving).collect();
                if published.is_none_or(|(_, before)| before != moving) {
                    self.publish()?;
                }
                published = Some((Instant::now(), moving));
            }
            self.hooks.look_for_age()?;
            // An executor ends early only by an error, which its thread returns.
            let ended = threads.iter().any(|thread| thread.is_finished())
                && !self.all(|state| state.phase.is_final());
            let is_at_rest = || self.vms.iter().all(RunningVm::is_at_rest);
            if self.leave.is_cancelled() || ended || (first.is_none() && is_at_rest()) {
                return self.publish();
            }
            if !was_asked {
                let nap = if works { nap.min(PUBLISHED_EVERY) } else { nap };
                self.bell.wait(nap);
            }
        }
    }

    fn all(&self, holds: impl Fn(&State) -> bool) -> bool {
        self.vms.iter().all(|vm| holds(&vm.state()))
    }

    /// Tells of VMs' jobs that stand elsewhere now.
    fn look(&mut self, tell: &mut dyn FnMut(Event)) -> Result<()> {
        for (index, vm) in self.vms.iter_mut().enumerate() {
            let state = vm.state();
            let before = vm.seen.replace(state);
            if before == Some(state) {
                continue;
            }
            let was_committed = before.is_some_and(|it| it.phase == JobPhase::Committed);
            if state.phase == JobPhase::Committed && !was_committed {
                vm.disks.forget_ways_back()?;
            }
            self.hooks.changed(index, &vm.vm, before.as_ref(), &state);
            tell(Event::Changed {
                vm: vm.vm.clone(),
                state: Box::new(state),
            });
        }
        Ok(())
    }

    /// Says why the job cannot begin.
    fn refuse_if_unfit(&self) -> Result<()> {
        let mut vms = self.vms.iter();
        let Some(it) = vms.find(|vm| vm.state().phase == JobPhase::Planned) else {
            return Ok(());
        };
        let what = it.state().problem.map(|problem| problem.to_string());
        let text = [Some(it.vm.clone()), what, self.directory.detail(&it.vm)?];
        let text: Vec<_> = text.into_iter().flatten().collect();
        Err(Error::new(ErrorKind::InvalidInput, text.join(": "))
            .advise("nothing was touched; mend it")
            .or_advise(Advice::ResumeJob))
    }

    /// Asks the job as a whole for something.
    fn ask(&mut self, request: Request, by: &str) -> Result<()> {
        let members = self.vms.iter().map(|it| Member {
            vm: &it.vm,
            spec: &it.spec,
            state: it.state(),
        });
        let members: Vec<_> = members.collect();
        let meant = passed_on(&members, self.asked, request, by)?;
        if self.vms.len() > 1 {
            let record = PlanRecord::Asked {
                request: AcceptedRequest::new(request, by, now_ms()),
                asked: meant.asked,
            };
            self.journal.append(&record.encode()?)?;
        }
        self.asked = meant.asked;
        for (index, request) in meant.tell {
            let it = &self.vms[index];
            it.handle.ask(request, by).map_err(|error| {
                let text = format!("{}: {error}", it.vm);
                Error::new(error.kind(), text)
            })?;
        }
        Ok(())
    }

    /// Lets go on who waits for the others.
    fn signal(&self) -> Result<()> {
        if self.vms.len() < 2 {
            return Ok(());
        }
        let groups: Vec<&[RunningVm]> = self.vms.chunk_by(|a, b| a.group == b.group).collect();
        let states = groups.iter().map(|vms| vms.iter().map(RunningVm::state));
        let states: Vec<Vec<State>> = states.map(Iterator::collect).collect();
        for (group, vm, signal) in signals(&states, self.asked) {
            let handle = &groups[group][vm].handle;
            let told = match signal {
                Signal::Complete => handle.ask(Request::Complete, GROUP),
                Signal::Commit => handle.ask(Request::Commit, GROUP),
                Signal::ShutDown => {
                    handle.tell(MachineEvent::GroupShutsDown);
                    Ok(())
                }
                Signal::Activate => {
                    handle.tell(MachineEvent::GroupActivates);
                    Ok(())
                }
            };
            match told {
                // It has moved on since it was looked at.
                Err(error) if error.kind() == ErrorKind::InvalidInput => {}
                told => told?,
            }
        }
        Ok(())
    }

    /// Commits a group, or goes back with it, without a request in time.
    fn commit_if_due(&mut self, since: Instant) -> Result<()> {
        let (policy, after) = self.directory.plan().commit;
        let is_due = self.vms.len() > 1 && !self.asked.commit && since.elapsed() >= after;
        let request = match policy {
            CommitPolicy::Auto if is_due => Request::Commit,
            CommitPolicy::Undo if is_due => Request::Undo {
                accept_loss: true,
                restore: false,
            },
            _ => return Ok(()),
        };
        match self.ask(request, "the plan") {
            // Not proven yet, or it has moved on.
            Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(()),
            done => done,
        }
    }

    fn publish(&self) -> Result<()> {
        let directory = self.directory.directory()?;
        let mut vms = self.vms.iter();
        vms.try_for_each(|it| meter::publish(&directory, &it.vm, &it.moving()))
    }
}

/// Rings when it is dropped: when its thread has ended.
struct Rings(Bell);

impl Drop for Rings {
    fn drop(&mut self) {
        self.0.ring();
    }
}

/// In whose name a VM of a group is asked for what the job as a whole was asked for.
const GROUP: &str = "the group";
/// How often the mailbox is looked into where it cannot be watched.
const NAP: Duration = Duration::from_millis(20);
/// And where it can, in case that fails; how soon it is seen that the process is to leave.
const LONG_NAP: Duration = Duration::from_secs(1);
const PUBLISHED_EVERY: Duration = Duration::from_millis(500);
