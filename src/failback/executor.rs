//! Carries out what the machine decides: each step is written down before it is done.

use std::ffi::{OsStr, OsString};
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::disk_work::Done;
use super::history::{History, now_ms};
use super::machine::{
    Answer, Command, CommitPolicy, Event, JobPhase, Machine, Problem, Request, State, Step,
};
pub use super::mailbox::{Asked, Mailbox, NoMailbox};
pub use super::perform::Resources;
use super::record::{JobRecord, Record, StepRecord};
pub use crate::bell::Bell;
use crate::error::{Error, ErrorKind, Result};
use crate::journal::Writer;
use crate::progress::CancelToken;
use crate::random::random;
use crate::setters::setters;
use crate::storage::Directory;

/// When an executor does something by itself.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Intervals {
    /// After a failure that may pass; doubled each time, up to a hundredfold.
    pub retry: Duration,
    /// Between passes of a job that waits for its cutover; `None`: never.
    pub passes: Option<Duration>,
    /// Between passes of a job that is protected; `None`: never.
    pub protection: Option<Duration>,
    /// How long a commit is waited for, where the job has a policy for that. Counted anew after a
    /// takeover, and never by the wall clock, so that a clock that jumps ends nothing early.
    pub commit: Duration,
}

/// Runs one job. There must be one executor only: its maker holds the job's lock.
pub struct Executor {
    machine: Machine,
    journal: Writer,
    job: JobRecord,
    resources: Resources,
    intervals: Intervals,
    since: Instant,
    retries: u32,
    history: History,
    /// Where the journal is, if it is kept short on the way.
    home: Option<(Arc<dyn Directory>, OsString)>,
}

opaque!(Executor);

impl Executor {
    /// Begins a job: makes its journal, which is durable when this returns.
    ///
    /// # Errors
    /// `AlreadyExists` where a journal of that name is; `NoSpace`, `Io`.
    pub fn create(
        directory: &dyn Directory,
        name: &OsStr,
        job: JobRecord,
        resources: Resources,
        intervals: Intervals,
    ) -> Result<Self> {
        let mut journal = Writer::create(directory, name, random()?)?;
        journal.append(&Record::Job(job.clone()).encode()?)?;
        let begun = (Self::begin(&job), History::default());
        Self::take_over(begun, journal, job, resources, intervals)
    }

    /// Takes a job over from the process that ran it before, and goes on from its journal.
    ///
    /// # Errors
    /// `NotFound`; `Malformed`, naming the record, for a damaged journal; `Io`.
    pub fn resume(
        directory: &dyn Directory,
        name: &OsStr,
        resources: Resources,
        intervals: Intervals,
    ) -> Result<Self> {
        let (mut journal, entries) = Writer::open(directory, name)?;
        if is_long(&journal) {
            // It is as good as it is; what was read stays true.
            let _ = journal.compact(directory, name, KEPT_STEPS);
        }
        let at = |e: Error, sequence: u64| {
            let text = format!("record {sequence} of the journal: {e}");
            Error::new(e.kind(), text).at_path(directory.path().join(name))
        };
        let (mut job, mut state, mut history) = (None, None, History::default());
        for entry in entries {
            match Record::decode(&entry.payload).map_err(|e| at(e, entry.sequence))? {
                Record::Job(found) => job = Some(found),
                Record::Step(step) => {
                    state = Some(step.state);
                    history = step.history;
                }
            }
        }
        let job = job.ok_or_else(|| {
            // A crash in `create`: nothing was done yet.
            Error::malformed("the journal has no job record")
                .at_path(directory.path().join(name))
                .advise("nothing was done; remove it and start again")
        })?;
        let machine = match state {
            Some(state) => Machine::resume(job.spec.clone(), state),
            None => Self::begin(&job),
        };
        Self::take_over((machine, history), journal, job, resources, intervals)
    }

    /// The machine of a job of which nothing was done yet.
    fn begin(job: &JobRecord) -> Machine {
        let mut state = State::new(&job.spec);
        state.last.epoch = job.after_epoch;
        Machine::resume(job.spec.clone(), state)
    }

    fn take_over(
        (machine, history): (Machine, History),
        journal: Writer,
        job: JobRecord,
        resources: Resources,
        intervals: Intervals,
    ) -> Result<Self> {
        let epoch = machine.state().last.epoch + 1;
        let mut executor = Executor {
            machine,
            journal,
            job,
            resources,
            intervals,
            since: Instant::now(),
            retries: 0,
            history,
            home: None,
        };
        executor.apply(Event::TakenOver { epoch }, None)?;
        Ok(executor)
    }

    /// Keeps the journal short: where it gets long, all but its first record and its newest steps
    /// are left out. `directory` and `name` are those that it was made or opened with.
    #[must_use]
    pub fn kept_short(mut self, directory: Arc<dyn Directory>, name: &OsStr) -> Self {
        self.home = Some((directory, name.to_owned()));
        self
    }

    /// What the job is.
    pub fn job(&self) -> &JobRecord {
        &self.job
    }

    /// Where the job stands, as the journal has it.
    pub fn state(&self) -> &State {
        self.machine.state()
    }

    /// What the job waits for, in words.
    pub fn needs(&self) -> Option<&'static str> {
        self.machine.needs()
    }

    /// Asks for something. It is durable when this returns.
    ///
    /// # Errors
    /// `InvalidInput` where it is refused, saying why; `Io`.
    pub fn ask(&mut self, request: Request, by: &str) -> Result<()> {
        self.machine.allows(request, by)?;
        let by = by.to_owned();
        self.apply(Event::Asked { request, by }, None)?;
        Ok(())
    }

    /// Works until it has to wait: for an operator, a timer, the group.
    ///
    /// # Errors
    /// `Io` and others of the journal. What goes wrong at the sites is no error: the job stands
    /// still, and says why.
    pub fn work(&mut self, mailbox: &mut dyn Mailbox) -> Result<()> {
        while let Some(command) = self.machine.state().pending {
            mailbox.note(self.state());
            if mailbox.leave() {
                return Ok(());
            }
            self.execute(command, mailbox)?;
        }
        Ok(())
    }

    /// Works and waits, until the job is over or the mailbox says to leave.
    ///
    /// # Errors
    /// As [`work`](Executor::work).
    pub fn run(&mut self, mailbox: &mut dyn Mailbox) -> Result<()> {
        loop {
            self.work(mailbox)?;
            mailbox.note(self.state());
            if mailbox.leave() || self.state().phase.is_final() {
                return Ok(());
            }
            if !self.hear(mailbox)? {
                match mailbox.bell() {
                    Some(bell) => bell.wait(self.due_in()),
                    None => std::thread::sleep(NAP),
                }
            }
        }
    }

    /// Takes in what people, the group and time have brought; whether that was anything.
    fn hear(&mut self, mailbox: &mut dyn Mailbox) -> Result<bool> {
        if let Some(asked) = mailbox.poll()? {
            self.answer(asked, mailbox)?;
            return Ok(true);
        }
        match mailbox.group().or_else(|| self.due()) {
            Some(event) => self.apply(event, None).map(|step| step.changed),
            None => Ok(false),
        }
    }

    /// What time has brought.
    fn due(&self) -> Option<Event> {
        let (after, event) = self.comes(self.state(), self.retries)?;
        (self.since.elapsed() >= after).then_some(event)
    }

    /// How long nothing happens by itself.
    fn due_in(&self) -> Duration {
        let comes = self.comes(self.state(), self.retries);
        let wait = comes.map(|(after, _)| after.saturating_sub(self.since.elapsed()));
        wait.map_or(LONG_NAP, |wait| wait.min(LONG_NAP))
    }

    /// What time brings, and when: so long after the last step.
    fn comes(&self, state: &State, retries: u32) -> Option<(Duration, Event)> {
        let longer = 2u32.saturating_pow(retries).min(100);
        let retry = self.intervals.retry.saturating_mul(longer);
        if state.problem.is_some_and(Problem::is_transient) {
            return Some((retry, Event::RetryDue));
        }
        match state.phase {
            JobPhase::ReadyToCutover => self.intervals.passes.map(|it| (it, Event::PassDue)),
            JobPhase::Protected => self.intervals.protection.map(|it| (it, Event::PassDue)),
            JobPhase::CommitPending if !state.asked.commit => {
                let spec = self.machine.spec();
                let policy = spec.commit != CommitPolicy::Manual && !spec.grouped;
                policy.then_some((self.intervals.commit, Event::CommitDue))
            }
            _ => None,
        }
    }

    /// Carries one command out, and listens to people meanwhile.
    fn execute(&mut self, command: Command, mailbox: &mut dyn Mailbox) -> Result<()> {
        let cancel = CancelToken::new();
        let mut resources = self.resources.clone();
        let spec = self.machine.spec().clone();
        if self.state().phase.is_downtime() && !spec.limit_cutover {
            resources.work = resources.work.unlimited();
        }
        let bell = mailbox.bell();
        let is_done = AtomicBool::new(false);
        let done = std::thread::scope(|scope| {
            let (resources, spec, cancel, is_done) = (&resources, &spec, &cancel, &is_done);
            let ends = Ends {
                bell: bell.clone().unwrap_or_default(),
                is_done,
            };
            let waits = ends.bell.clone();
            let worker = scope.spawn(move || {
                let _ends = ends;
                resources.perform(spec, &command, cancel)
            });
            let listened = self.listen(command, mailbox, cancel, |due_in| {
                waits.wait(if bell.is_some() { due_in } else { NAP });
                !is_done.load(Ordering::SeqCst)
            });
            if listened.is_err() {
                stop(cancel);
            }
            let done = worker.join().unwrap_or_else(|panic| resume_unwind(panic));
            listened.map(|()| done)
        })?;
        let Done { answer, detail } = done;
        // What was stopped to leave the job is asked for anew by the next executor.
        if mailbox.leave() && matches!(answer, Answer::Failed(_)) {
            return Ok(());
        }
        let token = command.token;
        let answered = Event::Answered { token, answer };
        self.apply(answered, detail).map(drop)
    }

    fn listen(
        &mut self,
        command: Command,
        mailbox: &mut dyn Mailbox,
        cancel: &CancelToken,
        mut goes_on: impl FnMut(Duration) -> bool,
    ) -> Result<()> {
        let has_bell = mailbox.bell().is_some();
        loop {
            let on = goes_on(self.due_in());
            // The ring of a request may have been taken together with that of the command's end.
            if on || has_bell {
                mailbox.note(self.state());
                // Several may have come, and rung once.
                let mut heard = true;
                while heard {
                    heard = self.hear(mailbox)?;
                    // The command is not waited for any more; its answer will be ignored.
                    if self.machine.state().pending != Some(command) || mailbox.leave() {
                        stop(cancel);
                    }
                }
            }
            if !on {
                return Ok(());
            }
        }
    }

    fn answer(&mut self, asked: Asked, mailbox: &mut dyn Mailbox) -> Result<()> {
        let fate = self.ask(asked.request, &asked.by);
        let refused = matches!(&fate, Err(error) if error.kind() == ErrorKind::InvalidInput);
        let (told, ends) = match fate {
            Err(error) if !refused => {
                let text = format!("not known whether it was accepted: {error}");
                (Err(Error::new(error.kind(), text)), Err(error))
            }
            fate => (fate, Ok(())),
        };
        // Who asked looks at the state as soon as he has his answer.
        mailbox.note(self.state());
        (asked.reply)(told);
        ends
    }

    /// Feeds the machine; what it becomes is durable before anything follows from it.
    fn apply(&mut self, event: Event, detail: Option<String>) -> Result<Step> {
        let mut next = self.machine.clone();
        let step = next.apply(&event)?;
        if step.changed {
            let before = self.machine.state();
            let retries = match (before.problem, next.state().problem) {
                (None, Some(_)) => self.retries.saturating_add(1),
                (None, None) => 0,
                _ => self.retries,
            };
            let at_ms = now_ms();
            let mut history = self.history.clone();
            history.note(at_ms, (&event, detail.as_deref()), (before, next.state()));
            let comes = self.comes(next.state(), retries);
            history.next_at_ms = comes.map(|(after, _)| at_ms + after.as_millis() as u64);
            let record = StepRecord {
                at_ms,
                event,
                detail,
                decide: step.decided,
                intent: step.send,
                state: *next.state(),
                history: history.clone(),
            };
            self.journal
                .append(&Record::Step(Box::new(record)).encode()?)?;
            self.shorten();
            (self.retries, self.history) = (retries, history);
            self.since = Instant::now();
            self.machine = next;
        }
        Ok(step)
    }

    /// Compacts a journal that has grown long, now and then. Where that fails the journal is good
    /// as it is, or says so itself at the next step.
    fn shorten(&mut self) {
        if let Some((directory, name)) = &self.home
            && is_long(&self.journal)
            && self.journal.count().is_multiple_of(TRIED_EVERY)
        {
            let _ = self.journal.compact(&**directory, name, KEPT_STEPS);
        }
    }
}

/// Says that a command was carried out, also where that panics.
struct Ends<'a> {
    bell: Bell,
    is_done: &'a AtomicBool,
}

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.is_done.store(true, Ordering::SeqCst);
        self.bell.ring();
    }
}

fn is_long(journal: &Writer) -> bool {
    journal.count() >= LONG_STEPS || journal.len_bytes() >= LONG_BYTES
}

impl Default for Intervals {
    /// Tries again after 5 seconds, makes no passes by itself, waits a day for a commit.
    fn default() -> Self {
        Intervals {
            retry: Duration::from_secs(5),
            passes: None,
            protection: None,
            commit: Duration::from_secs(86400),
        }
    }
}

setters! {
    Intervals:
    /// Replaces [`Intervals::retry`].
    with_retry, retry: Duration;
    /// Replaces [`Intervals::passes`].
    with_passes, passes: Option<Duration>;
    /// Replaces [`Intervals::protection`].
    with_protection, protection: Option<Duration>;
    /// Replaces [`Intervals::commit`].
    with_commit, commit: Duration;
}

/// How often requests and timers are looked for, where no bell tells.
const NAP: Duration = Duration::from_millis(20);
/// And where one does, in case it fails to.
const LONG_NAP: Duration = Duration::from_secs(1);
/// A journal of more steps or bytes is compacted, down to so many steps.
const LONG_STEPS: u64 = 512;
const LONG_BYTES: u64 = 4 << 20;
const KEPT_STEPS: usize = 256;
/// How often that is tried where it fails, in steps.
const TRIED_EVERY: u64 = 16;

/// At once: twice is what makes work stop that could go on to a clean end.
fn stop(cancel: &CancelToken) {
    while !cancel.is_forced() {
        cancel.cancel();
    }
}
