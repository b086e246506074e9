//! Runs a job: an executor for each VM, and the barriers between their groups.

use std::sync::Arc;
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use super::controllers::{OwnControllers, as_planned, controllers};
use super::directory::JobDirectory;
use super::hooks::Hooks;
use super::meter::{self, Meter, Moving};
use super::requests::{Member, passed_on};
use super::vm_mailbox::{VmHandle, vm_mailbox};
use crate::advice::Advice;
use crate::error::{Error, ErrorKind, Result};
use crate::failback::directory_mailbox::DirectoryMailbox;
use crate::failback::disks::VmDisks;
use crate::failback::executor::{Bell, Executor, Intervals, Mailbox, Resources};
use crate::failback::history::{AcceptedRequest, now_ms};
use crate::failback::machine::{
    CommitPolicy, Event as MachineEvent, GroupAsked, JobMode, JobPhase, Request, Side, Signal,
    Spec, State, signals,
};
use crate::failback::plan::{Plan, Vm};
use crate::failback::record::{JobRecord, PlanRecord};
use crate::journal::Writer;
use crate::progress::{CancelToken, Work};
use crate::storage::{Directory, LockFile};

/// Runs a job; there is one at a time.
pub struct JobRunner {
    directory: JobDirectory,
    journal: Writer,
    asked: GroupAsked,
    members: Vec<RunningVm>,
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

/// A VM and what runs it.
struct RunningVm {
    vm: String,
    group: usize,
    spec: Spec,
    executor: Option<Executor>,
    disks: Arc<VmDisks>,
    meter: Arc<Meter>,
    is_protected_by_passes: bool,
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
        let mut members = Vec::new();
        for (group, vms) in directory.plan().groups.iter().enumerate() {
            for vm in &vms.vms {
                members.push(RunningVm::new(&directory, group, vm, own, work)?);
            }
        }
        let hooks = Hooks::new(&directory, members.len())?;
        Ok(JobRunner {
            hooks,
            directory,
            journal,
            asked,
            members,
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
        let waits = |state: &State| {
            matches!(state.phase, JobPhase::Planned | JobPhase::Prepared) && !state.asked.start
        };
        let mut executors = self.members.iter().filter_map(|it| it.executor.as_ref());
        let is_new = executors.all(|executor| waits(executor.state()));
        // To take a job up is to try again.
        let first = first.filter(|(request, _)| *request != Request::Retry);
        let mut first = first.or(is_new.then_some((Request::Start, &begun_by[..])));
        let executors: Vec<_> = self
            .members
            .iter_mut()
            .map(|it| it.executor.take())
            .collect();
        let bell = Bell::new();
        let mailbox = DirectoryMailbox::new(self.directory.mailbox()?, self.leave.clone());
        let mut mailbox = mailbox.with_bell(&bell);
        let leave = CancelToken::new();
        std::thread::scope(|scope| {
            let mut handles = Vec::new();
            let mut threads = Vec::new();
            let meters = self.members.iter().map(|it| it.meter.clone());
            for (mut executor, meter) in executors.into_iter().flatten().zip(meters) {
                let (handle, mut mailbox) =
                    vm_mailbox(*executor.state(), leave.clone(), bell.clone(), meter);
                handles.push(handle);
                let ends = Rings(bell.clone());
                threads.push(scope.spawn(move || {
                    let _ends = ends;
                    executor.run(&mut mailbox)
                }));
            }
            let done = self.coordinate(&handles, &threads, &mut mailbox, &bell, &mut first, tell);
            leave.cancel();
            handles.iter().for_each(VmHandle::wake);
            let ended = threads.into_iter().map(|thread| {
                let panicked = |cause| std::panic::resume_unwind(cause);
                thread.join().unwrap_or_else(panicked)
            });
            let ended: Vec<Result<()>> = ended.collect();
            done.and(ended.into_iter().collect())
        })
    }

    fn coordinate(
        &mut self,
        handles: &[VmHandle],
        threads: &[ScopedJoinHandle<'_, Result<()>>],
        mailbox: &mut DirectoryMailbox,
        bell: &Bell,
        first: &mut Option<(Request, &str)>,
        tell: &mut dyn FnMut(Event),
    ) -> Result<()> {
        let mut seen: Vec<Option<State>> = vec![None; handles.len()];
        let mut published: Option<(Instant, Vec<Moving>)> = None;
        let nap = match mailbox.bell() {
            Some(_) => LONG_NAP,
            None => NAP,
        };
        let mut commit_waits: Option<Instant> = None;
        loop {
            for (index, handle) in handles.iter().enumerate() {
                let state = handle.state();
                if seen[index] != Some(state) {
                    self.changed(index, seen[index], state, tell)?;
                    seen[index] = Some(state);
                }
            }
            // A request is for a job that has looked at its prerequisites.
            let looked = handles.iter().all(|handle| {
                let state = handle.state();
                state.phase != JobPhase::Planned || state.problem.is_some()
            });
            if looked && let Some((request, by)) = first.take() {
                // What cannot begin can still be given up.
                if request == Request::Start {
                    self.refuse_if_unfit(handles)?;
                }
                self.ask(handles, request, by)?;
            }
            let asked = mailbox.poll()?;
            let was_asked = asked.is_some();
            if let Some(asked) = asked {
                let fate = self.ask(handles, asked.request, &asked.by);
                if let Err(error) = &fate {
                    tell(Event::Refused {
                        request: asked.request,
                        by: asked.by,
                        why: error.to_string(),
                    });
                }
                (asked.reply)(fate);
            }
            self.signal(handles)?;
            let all_wait = handles
                .iter()
                .all(|handle| handle.state().phase == JobPhase::CommitPending);
            commit_waits = all_wait.then(|| commit_waits.unwrap_or_else(Instant::now));
            if let Some(since) = commit_waits {
                self.commit_if_due(handles, since)?;
            }
            let works = handles
                .iter()
                .any(|handle| handle.state().pending.is_some());
            let is_due = |at: &Instant| at.elapsed() >= PUBLISHED_EVERY;
            if published.as_ref().is_none_or(|(at, _)| is_due(at)) {
                let moving = self.moving(handles);
                if published.is_none_or(|(_, before)| before != moving) {
                    self.publish(&moving)?;
                }
                published = Some((Instant::now(), moving));
            }
            self.hooks.look_for_age()?;
            // An executor ends early only by an error, which its thread returns.
            let ended = threads.iter().any(|thread| thread.is_finished())
                && !handles.iter().all(|handle| handle.state().phase.is_final());
            if self.leave.is_cancelled() || ended || (first.is_none() && self.is_at_rest(handles)) {
                return self.publish(&self.moving(handles));
            }
            if !was_asked {
                bell.wait(if works { nap.min(PUBLISHED_EVERY) } else { nap });
            }
        }
    }

    /// Says why the job cannot begin.
    fn refuse_if_unfit(&self, handles: &[VmHandle]) -> Result<()> {
        let unfit =
            |(_, handle): &(&RunningVm, &VmHandle)| handle.state().phase == JobPhase::Planned;
        let Some((it, handle)) = self.members.iter().zip(handles).find(unfit) else {
            return Ok(());
        };
        let what = handle.state().problem.map(|problem| problem.to_string());
        let text = [Some(it.vm.clone()), what, self.directory.detail(&it.vm)?];
        let text: Vec<_> = text.into_iter().flatten().collect();
        Err(Error::new(ErrorKind::InvalidInput, text.join(": "))
            .advise("nothing was touched; mend it")
            .or_advise(Advice::ResumeJob))
    }

    /// Asks the job as a whole for something.
    fn ask(&mut self, handles: &[VmHandle], request: Request, by: &str) -> Result<()> {
        let members: Vec<_> = self
            .members
            .iter()
            .zip(handles)
            .map(|(it, handle)| Member {
                vm: &it.vm,
                spec: &it.spec,
                state: handle.state(),
            })
            .collect();
        let meant = passed_on(&members, self.asked, request, by)?;
        if self.members.len() > 1 {
            let record = PlanRecord::Asked {
                request: AcceptedRequest::new(request, by, now_ms()),
                asked: meant.asked,
            };
            self.journal.append(&record.encode()?)?;
        }
        self.asked = meant.asked;
        for (index, request) in meant.tell {
            handles[index].ask(request, by).map_err(|error| {
                let text = format!("{}: {error}", self.members[index].vm);
                Error::new(error.kind(), text)
            })?;
        }
        Ok(())
    }

    /// Lets go on who waits for the others.
    fn signal(&self, handles: &[VmHandle]) -> Result<()> {
        if handles.len() < 2 {
            return Ok(());
        }
        let mut groups: Vec<Vec<State>> = Vec::new();
        let mut indices: Vec<Vec<usize>> = Vec::new();
        for (index, (it, handle)) in self.members.iter().zip(handles).enumerate() {
            groups.resize_with(groups.len().max(it.group + 1), Vec::new);
            indices.resize_with(groups.len(), Vec::new);
            groups[it.group].push(handle.state());
            indices[it.group].push(index);
        }
        for (group, vm, signal) in signals(&groups, self.asked) {
            let handle = &handles[indices[group][vm]];
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
    fn commit_if_due(&mut self, handles: &[VmHandle], since: Instant) -> Result<()> {
        let (policy, after) = self.directory.plan().commit;
        let request = match policy {
            _ if handles.len() < 2 || self.asked.commit || since.elapsed() < after => return Ok(()),
            CommitPolicy::Auto => Request::Commit,
            CommitPolicy::Undo => Request::Undo {
                accept_loss: true,
                restore: false,
            },
            CommitPolicy::Manual => return Ok(()),
        };
        match self.ask(handles, request, "the plan") {
            // Not proven yet, or it has moved on.
            Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(()),
            done => done,
        }
    }

    fn changed(
        &mut self,
        index: usize,
        before: Option<State>,
        state: State,
        tell: &mut dyn FnMut(Event),
    ) -> Result<()> {
        let it = &self.members[index];
        if state.phase == JobPhase::Committed
            && before.map(|state| state.phase) != Some(JobPhase::Committed)
        {
            it.disks.forget_ways_back()?;
        }
        self.hooks.changed(index, &it.vm, before.as_ref(), &state);
        let vm = it.vm.clone();
        let state = Box::new(state);
        tell(Event::Changed { vm, state });
        Ok(())
    }

    /// What moves, VM by VM.
    fn moving(&self, handles: &[VmHandle]) -> Vec<Moving> {
        let members = self.members.iter().zip(handles);
        let moving = members.map(|(it, handle)| match handle.state().pending {
            Some(_) => it.meter.read(),
            None => Moving::nothing(),
        });
        moving.collect()
    }

    fn publish(&self, moving: &[Moving]) -> Result<()> {
        let directory = self.directory.directory()?;
        for (it, moving) in self.members.iter().zip(moving) {
            meter::publish(&directory, &it.vm, moving)?;
        }
        Ok(())
    }

    /// Whether nothing more happens without a request, so that this process can end.
    fn is_at_rest(&self, handles: &[VmHandle]) -> bool {
        self.members.iter().zip(handles).all(|(it, handle)| {
            let state = handle.state();
            match state.phase {
                JobPhase::Planned => state.problem.is_some_and(|problem| !problem.is_transient()),
                JobPhase::Committed => !state.asked.reverse,
                JobPhase::Protected => !it.is_protected_by_passes,
                phase => phase.is_final(),
            }
        })
    }
}

impl RunningVm {
    fn new(
        directory: &JobDirectory,
        group: usize,
        vm: &Vm,
        own: &OwnControllers,
        work: &Work,
    ) -> Result<Self> {
        let plan = directory.plan();
        let disks = Arc::new(VmDisks::new(plan, vm, directory.path(), directory.id));
        let meter = Arc::new(Meter::new());
        let resources = Resources {
            vms: controllers(plan, vm, own),
            disks: disks.clone(),
            work: work.clone().with_progress(meter.clone()),
        };
        let intervals = Intervals::default()
            .with_passes(plan.pass_interval)
            .with_protection(plan.protection_interval)
            .with_commit(plan.commit.1);
        let name = JobDirectory::journal_name(&vm.name);
        let host = directory.directory()?;
        let executor = match directory.has_begun(&vm.name)? {
            true => Executor::resume(&host, &name, resources, intervals)?,
            false => {
                // A crash may have left an empty journal: nothing was done.
                if host.names()?.contains(&name) {
                    host.remove(&name)?;
                }
                let job = JobRecord {
                    job: plan.name.clone(),
                    vm: vm.name.clone(),
                    direction: plan.direction().name().to_owned(),
                    spec: spec(plan, vm, directory.mode(&vm.name), &disks),
                    after_epoch: directory.begun.after_epoch,
                };
                Executor::create(&host, &name, job, resources, intervals)?
            }
        };
        let executor = executor.kept_short(Arc::new(host), &name);
        Ok(RunningVm {
            vm: vm.name.clone(),
            group,
            spec: executor.job().spec.clone(),
            executor: Some(executor),
            disks,
            meter,
            is_protected_by_passes: plan.protection_interval.is_some(),
        })
    }
}

/// Rings when it is dropped: when its thread has ended.
struct Rings(Bell);

impl Drop for Rings {
    fn drop(&mut self) {
        self.0.ring();
    }
}

/// What is fixed about a VM's job: what its plan says, and what its disks are.
pub(super) fn spec(plan: &Plan, vm: &Vm, mode: JobMode, disks: &VmDisks) -> Spec {
    plan.spec(vm, mode)
        .with_atomic_only(disks.has_unwritable_device(Side::Source))
        .with_untestable(!disks.can_be_tested(Side::Target))
}

/// In whose name a VM of a group is asked for what the job as a whole was asked for.
const GROUP: &str = "the group";
/// How often the mailbox is looked into where it cannot be watched.
const NAP: Duration = Duration::from_millis(20);
/// And where it can, in case that fails; how soon it is seen that the process is to leave.
const LONG_NAP: Duration = Duration::from_secs(1);
const PUBLISHED_EVERY: Duration = Duration::from_millis(500);
