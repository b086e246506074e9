//! Tells a program of the operator's what happens to a job.

use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::directory::JobDirectory;
use super::status::JobStatus;
use crate::error::Result;
use crate::failback::machine::{Amount, JobPhase, Problem, Reason, State};
use crate::program::Program;
use crate::progress::CancelToken;

/// Something that an operator may want to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Happened {
    /// The job waits for an operator: to complete, or to commit or undo.
    Waits,
    /// Something went wrong, and the job does not go on.
    StandsStill,
    /// The source does not equal what the target was started with.
    ProofFailed,
    /// The source was started again, for what was copied is wrong.
    CutoverFailed,
    /// The target runs.
    CutoverDone,
    /// A replica holds a newer moment.
    PassDone,
    /// A replica is older than the plan allows.
    Overdue,
    /// The source is retired.
    Committed,
    /// The job was given up, or undone.
    Over,
}

/// Runs the hook of a plan, one event after the other, aside of the job.
pub(super) struct Hooks {
    directory: JobDirectory,
    events: Option<Sender<(String, Happened)>>,
    thread: Option<JoinHandle<()>>,
    /// For each VM, the problem last reported to the program, and the phase.
    told: Vec<Option<(JobPhase, Problem)>>,
    looked: Instant,
    overdue: Vec<String>,
}

#[derive(Serialize)]
struct HookEvent<'a> {
    event: Happened,
    vm: &'a str,
    status: JobStatus,
}

impl Hooks {
    /// The hook of a job's plan, if it has one.
    ///
    /// # Errors
    /// `InvalidInput` for an empty name of a program.
    pub(super) fn new(directory: &JobDirectory, vms: usize) -> Result<Self> {
        let mut hooks = Hooks {
            directory: directory.clone(),
            events: None,
            thread: None,
            told: vec![None; vms],
            looked: Instant::now(),
            overdue: Vec::new(),
        };
        if let Some(argv) = directory.plan().hook.clone() {
            let program = Program::new(argv)?;
            let (events, happened) = channel::<(String, Happened)>();
            let directory = directory.clone();
            hooks.events = Some(events);
            hooks.thread = Some(std::thread::spawn(move || {
                for (vm, event) in happened {
                    // A program that fails stops no job; the next event runs it again.
                    let _ = run(&program, &directory, &vm, event);
                }
            }));
        }
        Ok(hooks)
    }

    /// Tells of what happened to a VM's job, if anything did.
    pub(super) fn changed(
        &mut self,
        index: usize,
        vm: &str,
        before: Option<&State>,
        after: &State,
    ) {
        if before.is_none_or(|before| before.phase != after.phase) {
            self.told[index] = None;
        }
        let problem = after.problem.map(|problem| (after.phase, problem));
        // One that is tried again comes and goes.
        if problem.is_none() || self.told[index] != problem {
            self.told[index] = problem.or(self.told[index]);
            if let Some(happened) = happened(before, after) {
                self.tell(vm, happened);
            }
        }
    }

    /// Tells of replicas that have become too old, now and then.
    ///
    /// # Errors
    /// Those of [`JobDirectory::status`].
    pub(super) fn look_for_age(&mut self) -> Result<()> {
        if self.events.is_none() || self.looked.elapsed() < LOOKED_EVERY {
            return Ok(());
        }
        self.looked = Instant::now();
        for vm in self.directory.status()?.vms {
            let is_told = self.overdue.contains(&vm.vm);
            match (vm.is_overdue, is_told) {
                (true, false) => {
                    self.tell(&vm.vm, Happened::Overdue);
                    self.overdue.push(vm.vm);
                }
                (false, true) => self.overdue.retain(|told| *told != vm.vm),
                _ => {}
            }
        }
        Ok(())
    }

    fn tell(&self, vm: &str, happened: Happened) {
        if let Some(events) = &self.events {
            let _ = events.send((vm.to_owned(), happened));
        }
    }
}

impl Drop for Hooks {
    /// Waits until all events are reported.
    fn drop(&mut self) {
        self.events = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(program: &Program, directory: &JobDirectory, vm: &str, event: Happened) -> Result<()> {
    let event = HookEvent {
        event,
        vm,
        status: directory.status()?,
    };
    let input = serde_json::to_vec(&event).unwrap_or_default();
    program.run(&input, TIME_LIMIT, &CancelToken::new())?;
    Ok(())
}

/// What happened from one state of a VM's job to the next that was seen.
pub(super) fn happened(before: Option<&State>, after: &State) -> Option<Happened> {
    let is_new = before.is_none_or(|before| before.phase != after.phase);
    match after.problem {
        Some(Problem::ProofFailed) => return Some(Happened::ProofFailed),
        Some(_) => return Some(Happened::StandsStill),
        None => {}
    }
    let waits = |state: &State| state.pending.is_none();
    let now_waits = waits(after) && (is_new || before.is_some_and(|before| !waits(before)));
    match after.phase {
        JobPhase::Aborting
            if is_new && after.next_copy == Amount::Differing(Reason::VerifyFailed) =>
        {
            Some(Happened::CutoverFailed)
        }
        JobPhase::CommitPending if is_new => Some(Happened::CutoverDone),
        JobPhase::ReadyToCutover | JobPhase::CommitPending if now_waits => Some(Happened::Waits),
        JobPhase::Committed if is_new => Some(Happened::Committed),
        JobPhase::Protected if is_new => Some(Happened::PassDone),
        phase if is_new && phase.is_final() => Some(Happened::Over),
        _ => None,
    }
}

/// How long the program may take for one event.
const TIME_LIMIT: Duration = Duration::from_secs(60);
/// How often the age of replicas is looked at.
const LOOKED_EVERY: Duration = Duration::from_secs(5);
