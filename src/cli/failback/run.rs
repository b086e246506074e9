//! Begins jobs, runs them here, and asks those that other processes run.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::args::Args;
use super::moments::date;
use super::requests::{self, Fate, How};
use super::{plan::show, status, text};
use crate::cli::context::Context;
use crate::cli::outcome::{Ended, Exit};
use crate::failback::history::now_ms;
use crate::failback::job::{self, Event, JobDirectory, JobRunner, JobStatus};
use crate::failback::machine::Request;
use crate::failback::plan::Plan;
use crate::{Error, ErrorKind};

impl Args {
    pub(super) fn start(&self, plan: &Plan, yes: bool, how: How, context: &Context) -> Ended {
        if !yes {
            show(plan, context)?;
            let what = "nothing was begun";
            return Err(Error::new(ErrorKind::InvalidInput, what)
                .advise("begin with --yes, once this is what you want")
                .into());
        }
        let since_ms = now_ms();
        let modes = job::modes(plan, &context.work)?;
        let by = self.by();
        let directory = JobDirectory::create(&self.state_dir, plan.text(), modes, &by)?;
        if !how.detach {
            let first = how.wait.then_some(Request::Start);
            return self.run_job(directory, first, how.wait, context);
        }
        let job = plan.name.clone();
        // Another process is to run it.
        drop(directory);
        let directory = self.open(&job)?;
        self.left(&directory, Request::Start, how, since_ms, context)
    }

    /// Has a request done by the process that runs the job, or runs the job with it.
    pub(super) fn ask(&self, context: &Context, job: &str, request: Request, how: How) -> Ended {
        let directory = self.open(job)?;
        let cancel = context.work.cancel();
        if how.wait {
            requests::until_allowed(&directory, request, cancel)?;
        }
        let since_ms = now_ms();
        let asked = directory.ask(request, &self.by(), ANSWER_WITHIN);
        let is_run = asked.map_err(|error| requests::refusal(error, &directory))?;
        if !is_run && !how.detach {
            return self.run_job(directory, Some(request), how.wait, context);
        }
        if !is_run {
            if !directory.status()?.allowed.contains(&request) {
                let text = format!("{} is not possible now", request.name());
                let error = Error::new(ErrorKind::InvalidInput, text);
                return Err(requests::refusal(error, &directory).into());
            }
            directory.queue(request, &self.by())?;
            return self.left(&directory, request, how, since_ms, context);
        }
        if how.wait {
            return self.waited(&directory, request, since_ms, context);
        }
        let accepted = Accepted {
            job,
            accepted: request.name(),
        };
        context.print(&accepted, || format!("{job}: {} accepted", request.name()))?;
        Ok(Exit::Done)
    }

    /// A request was left for the next process that runs the job.
    fn left(
        &self,
        directory: &JobDirectory,
        request: Request,
        how: How,
        since_ms: u64,
        context: &Context,
    ) -> Ended {
        let (job, name) = (&directory.plan().name, request.name());
        let text = format!(
            "{job}: {name} is queued, and no process runs the job: \
             `failback run {job}`, or `failback run --all`"
        );
        if how.wait {
            if !context.common.quiet {
                context.progress.say(&text);
            }
            return self.waited(directory, request, since_ms, context);
        }
        context.print(&Queued { job, queued: name }, || text)?;
        Ok(Exit::Done)
    }

    fn waited(
        &self,
        directory: &JobDirectory,
        request: Request,
        since_ms: u64,
        context: &Context,
    ) -> Ended {
        let cancel = context.work.cancel();
        let (status, why) = requests::until_done(directory, request, since_ms, cancel)?;
        context.print(&status, || status::status(&status))?;
        if let Some(why) = &why {
            context.warn(&[format!("{} did not get there: {why}", request.name())]);
        }
        Ok(requests::exit(why.as_ref(), cancel))
    }

    /// Runs a job here, until it rests, or has got where `first` leads to.
    pub(super) fn run_job(
        &self,
        directory: JobDirectory,
        first: Option<Request>,
        until_there: bool,
        context: &Context,
    ) -> Ended {
        let (job, by, since_ms) = (directory.plan().name.clone(), self.by(), now_ms());
        let leave = context.work.cancel().child();
        let runner = JobRunner::resume(directory.clone(), &context.work, leave.clone())?;
        let said = |text: &str| context.progress.say(&format!("{} {text}", date(now_ms())));
        let say = |text: &str| {
            if !context.common.json && !context.common.quiet {
                said(text);
            }
        };
        if let Some(request) = first.filter(|_| !context.common.quiet) {
            let until = match until_there {
                true => "until that is done",
                false => "until it rests",
            };
            said(&format!(
                "{job}: no other process runs the job: this one does, from {} {until}; Ctrl-C \
                 leaves it for `failback run {job}`",
                request.name()
            ));
        }
        let mut last = BTreeMap::new();
        let asked = first.filter(|request| *request != Request::Start);
        let mut why = None;
        let ran = runner.run(asked.map(|request| (request, &by[..])), &mut |event| {
            match event {
                Event::Changed { vm, state } => {
                    let mut line = text::state_line(&state);
                    let status = directory.status().ok();
                    // Where the job waits, the next step.
                    if state.pending.is_none()
                        && let Some(next) = status.as_ref().and_then(status::next_step)
                    {
                        line += &format!("; next: {next}");
                    }
                    if last.insert(vm.clone(), line.clone()) != Some(line.clone()) {
                        say(&format!("{vm}: {line}"));
                    }
                    let rests = |job: &JobStatus| job.vms.iter().all(|vm| vm.doing.is_none());
                    if let (Some(request), Some(job), true) = (first, status, until_there) {
                        match requests::fate(&job, request, since_ms) {
                            Fate::Reached if rests(&job) => leave.cancel(),
                            Fate::Stuck(reason) => {
                                why = Some(reason);
                                leave.cancel();
                            }
                            _ => {}
                        }
                    }
                }
                Event::Refused { request, by, why } => {
                    say(&format!(
                        "{} of {by} is refused: {why}",
                        text::asks(request)
                    ));
                }
            }
        });
        ran.map_err(|error| requests::refusal(error, &directory))?;
        let status = directory.status()?;
        context.print(&status, || status::status(&status))?;
        if context.work.cancel().is_cancelled() {
            return Ok(Exit::Recover);
        }
        Ok(requests::exit(why.as_ref(), context.work.cancel()))
    }

    /// Runs every job that needs a process, each on a thread, until it is stopped.
    pub(super) fn run_all(&self, context: &Context) -> Ended {
        let cancel = context.work.cancel();
        let running: Mutex<BTreeMap<String, Option<Instant>>> = Mutex::default();
        let jobs = || running.lock().unwrap_or_else(PoisonError::into_inner);
        std::thread::scope(|scope| -> Result<(), Error> {
            while !cancel.is_cancelled() {
                for name in JobDirectory::names(&self.state_dir)? {
                    let is_due = match jobs().get(&name) {
                        None => true,
                        Some(None) => false,
                        Some(Some(ended)) => ended.elapsed() >= AGAIN_AFTER,
                    };
                    let needs = |directory: &JobDirectory| directory.needs_runner();
                    let directory = self.open(&name);
                    match directory.and_then(|it| Ok((needs(&it)?, it))) {
                        Ok((true, directory)) if is_due => {
                            jobs().insert(name.clone(), None);
                            scope.spawn(|| {
                                let name = directory.plan().name.clone();
                                let ran = self.run_quietly(directory, context);
                                if let Err(error) = &ran {
                                    context.progress.say(&format!("{name}: {error}"));
                                }
                                // What failed is not tried again at once.
                                match ran {
                                    Ok(()) => jobs().remove(&name),
                                    Err(_) => jobs().insert(name, Some(Instant::now())),
                                }
                            });
                        }
                        Ok(_) => {}
                        Err(error) if is_due => {
                            context.progress.say(&format!("{name}: {error}"));
                            jobs().insert(name, Some(Instant::now()));
                        }
                        Err(_) => {}
                    }
                }
                std::thread::sleep(LOOKED_FOR_JOBS_EVERY);
            }
            Ok(())
        })?;
        Ok(Exit::Done)
    }

    fn run_quietly(&self, directory: JobDirectory, context: &Context) -> Result<(), Error> {
        let (job, leave) = (directory.plan().name.clone(), context.work.cancel().clone());
        let runner = JobRunner::resume(directory, &context.work, leave)?;
        let mut last = BTreeMap::new();
        runner.run(None, &mut |event| {
            let (of, line) = match event {
                Event::Changed { vm, state } => (vm, text::state_line(&state)),
                Event::Refused { request, by, why } => {
                    let line = format!("{} of {by} is refused: {why}", text::asks(request));
                    ("requests".to_owned(), line)
                }
            };
            if !context.common.quiet && last.insert(of.clone(), line.clone()) != Some(line.clone())
            {
                let at = date(now_ms());
                context.progress.say(&format!("{at} {job}: {of}: {line}"));
            }
        })
    }
}

#[derive(Serialize)]
struct Accepted<'a> {
    job: &'a str,
    accepted: &'static str,
}

#[derive(Serialize)]
struct Queued<'a> {
    job: &'a str,
    queued: &'static str,
}

const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// How often jobs are looked for that need a process, and how long one that failed is left alone.
const LOOKED_FOR_JOBS_EVERY: Duration = Duration::from_secs(1);
const AGAIN_AFTER: Duration = Duration::from_secs(30);
