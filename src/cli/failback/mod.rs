//! `diskdelta failback`

mod args;
mod controller;
mod log;
mod moments;
mod plan;
mod requests;
mod run;
mod status;
mod text;

use std::time::Duration;

use serde::Serialize;

use super::context::Context;
use super::outcome::{Ended, Exit};
use super::print::clear_screen;
use crate::failback::job::{JobDirectory, JobStatus, LogLine};
use crate::failback::machine::Request;
pub(super) use args::Args;
use args::Verb;
use controller::ControllerVerb;
use plan::{check, show};
use requests::How;
use text::{Condition, Explained};

pub(super) fn run(args: &Args, context: &Context) -> Ended {
    let ask = |job: &String, request, how: &How| args.ask(context, job, request, *how);
    match &args.verb {
        Verb::Check { plan } => check(&plan.load()?, &args.state_dir, context),
        Verb::Plan { plan } => show(&plan.load()?, context),
        Verb::Start { plan, yes, how } => args.start(&plan.load()?, *yes, *how, context),
        Verb::Run { job, all: _ } => match job {
            Some(job) => args.run_job(args.open(job)?, None, false, context),
            None => args.run_all(context),
        },
        Verb::Status { job, active, watch } => {
            args.status(job.as_deref(), *active, *watch, context)
        }
        Verb::Test { job, end, how } => ask(job, Request::Test { end: *end }, how),
        Verb::Complete { job, how } => ask(job, Request::Complete, how),
        Verb::Abort { job, how } => ask(job, Request::Abort, how),
        Verb::Cancel { job, restore, how } => ask(job, Request::Cancel { restore: *restore }, how),
        Verb::Undo {
            job,
            accept_loss,
            restore,
            how,
        } => {
            let (accept_loss, restore) = (*accept_loss, *restore);
            let undo = Request::Undo {
                accept_loss,
                restore,
            };
            ask(job, undo, how)
        }
        Verb::Commit { job, how } => ask(job, Request::Commit, how),
        Verb::Reverse { job, how } => ask(job, Request::Reverse, how),
        Verb::Retry { job, how } => ask(job, Request::Retry, how),
        Verb::Log { job } => {
            let directory = args.open(job)?;
            let (lines, direction) = (directory.log()?, directory.plan().direction());
            let operation = direction.operation();
            let log = Log {
                operation,
                lines: &lines,
            };
            context.print(&log, || log::log(&lines, operation))?;
            Ok(Exit::Done)
        }
        Verb::Controller {
            verb: ControllerVerb::Test(test),
        } => controller::test(test, context),
        Verb::Explain { job } => args.explain(job, context),
    }
}

impl Args {
    fn status(&self, job: Option<&str>, active: bool, watch: bool, context: &Context) -> Ended {
        loop {
            let names = match job {
                Some(job) => vec![job.to_owned()],
                None => JobDirectory::names(&self.state_dir)?,
            };
            let mut jobs = Vec::new();
            for name in names {
                jobs.push(self.open(&name)?.status()?);
            }
            if active {
                jobs.retain(|job: &JobStatus| !job.is_over());
            }
            let running = jobs.iter().any(|job| job.run_by.is_some());
            if watch && !context.common.json {
                clear_screen();
            }
            match (job, &jobs[..]) {
                (Some(_), [one]) => context.print(one, || status::status(one))?,
                _ => context.print(&Jobs { jobs: &jobs }, || status::jobs(&jobs))?,
            }
            if !watch || !running || context.work.cancel().is_cancelled() {
                let overdue = jobs.iter().flat_map(|job| &job.vms).any(|vm| vm.is_overdue);
                return Ok(if overdue { Exit::Overdue } else { Exit::Done });
            }
            std::thread::sleep(WATCH_EVERY);
        }
    }

    fn explain(&self, job: &str, context: &Context) -> Ended {
        let directory = self.open(job)?;
        let mut vms = Vec::new();
        for vm in directory.status()?.vms {
            let conditions = directory.explain(&vm.vm)?;
            let conditions = conditions
                .into_iter()
                .map(|(condition, holds)| Condition { condition, holds });
            vms.push(Explained {
                phase: vm.phase.name(),
                means: text::phase(vm.phase),
                conditions: conditions.collect(),
                vm: vm.vm,
            });
        }
        context.print(&Explanation { vms: &vms }, || text::explanation(&vms))?;
        Ok(Exit::Done)
    }
}

#[derive(Serialize)]
struct Explanation<'a> {
    vms: &'a [Explained],
}

#[derive(Serialize)]
struct Jobs<'a> {
    jobs: &'a [JobStatus],
}

#[derive(Serialize)]
struct Log<'a> {
    operation: &'static str,
    lines: &'a [LogLine],
}

const WATCH_EVERY: Duration = Duration::from_secs(2);
