//! `diskdelta failback`

mod log;
mod moments;
mod status;
mod text;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::failback::history::now_ms;
use crate::failback::job::{
    self, Checked, Event, JobDirectory, JobRunner, JobStatus, LogLine, STATE_DIR,
};
use crate::failback::machine::{JobMode, Request};
use crate::failback::plan::Plan;
use crate::{Error, ErrorKind};
use clap::Subcommand;
use serde::Serialize;

use super::args;
use super::context::Context;
use super::outcome::{Ended, Exit};
use super::print::clear_screen;
use moments::date;
use text::{Condition, Explained};

/// Move running virtual machines to the other site, as a plan says
///
/// One process runs a job; others watch it and send it requests. A job whose process died is
/// taken up again by `failback resume`, and by every request.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Directory of the jobs
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        default_value = STATE_DIR,
        value_parser = args::here()
    )]
    state_dir: PathBuf,
    /// Operator, for the record [the user]
    #[arg(long, global = true, value_name = "NAME")]
    by: Option<String>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Check the prerequisites of a plan one by one; changes nothing
    Check {
        /// Plan file
        #[arg(value_parser = args::here())]
        plan: PathBuf,
    },
    /// Show what a plan would move, in which direction and how; changes nothing
    Plan {
        /// Plan file
        #[arg(value_parser = args::here())]
        plan: PathBuf,
    },
    /// Begin a job, and run it
    Start {
        /// Plan file
        #[arg(value_parser = args::here())]
        plan: PathBuf,
        /// Begin; without it, only show what would be done
        #[arg(long)]
        yes: bool,
    },
    /// Continue a job whose process ended
    Resume { job: String },
    /// Show where jobs stand, and which requests they accept
    Status {
        /// One line for each job, if none is named
        job: Option<String>,
        /// Leave out jobs that are over, or superseded by a later one
        #[arg(long)]
        active: bool,
        /// Show it again and again, until the job rests
        #[arg(long)]
        watch: bool,
    },
    /// Cut over: shut the source down, copy the rest, start the target
    Complete { job: String },
    /// Start the source again, before the target was started; copies stay
    Abort { job: String },
    /// Give a job up while its source runs; the target's disks stay unbootable
    Cancel {
        job: String,
        /// Restore the target's disks to what they were (`keep_undo` in the plan)
        #[arg(long)]
        restore: bool,
    },
    /// Stop the target after it was started, and start the source again
    Undo {
        job: String,
        /// Confirm that data written by the target is lost
        #[arg(long)]
        accept_loss: bool,
        /// Restore the target's disks to what they were (`keep_undo` in the plan)
        #[arg(long)]
        restore: bool,
    },
    /// Retire the source for good
    Commit { job: String },
    /// Replicate the other way from now on, copying only what changed
    Reverse { job: String },
    /// Retry what a job stands still on
    Retry { job: String },
    /// Show everything that happened
    Log { job: String },
    /// Show what a job needs to continue, condition by condition
    Explain { job: String },
}

pub(super) fn run(args: &Args, context: &Context) -> Ended {
    let request = |job, request| args.ask(context, job, request);
    match &args.verb {
        Verb::Check { plan } => check(&Plan::load(plan)?, &args.state_dir, context),
        Verb::Plan { plan } => show(&Plan::load(plan)?, context),
        Verb::Start { plan, yes } => args.start(plan, *yes, context),
        Verb::Resume { job } => {
            let directory = args.open(job)?;
            args.run_job(directory, None, context)
        }
        Verb::Status { job, active, watch } => {
            args.status(job.as_deref(), *active, *watch, context)
        }
        Verb::Complete { job } => request(job, Request::Complete),
        Verb::Abort { job } => request(job, Request::Abort),
        Verb::Cancel { job, restore } => request(job, Request::Cancel { restore: *restore }),
        Verb::Undo {
            job,
            accept_loss,
            restore,
        } => request(
            job,
            Request::Undo {
                accept_loss: *accept_loss,
                restore: *restore,
            },
        ),
        Verb::Commit { job } => request(job, Request::Commit),
        Verb::Reverse { job } => request(job, Request::Reverse),
        Verb::Retry { job } => request(job, Request::Retry),
        Verb::Log { job } => {
            let lines = args.open(job)?.log()?;
            context.print(&Log { lines: &lines }, || log::log(&lines))?;
            Ok(Exit::Done)
        }
        Verb::Explain { job } => args.explain(job, context),
    }
}

impl Args {
    fn start(&self, path: &PathBuf, yes: bool, context: &Context) -> Ended {
        let plan_text =
            std::fs::read_to_string(path).map_err(|e| Error::io("read", e).at_path(path))?;
        let plan = Plan::parse(&plan_text).map_err(|e| e.at_path(path))?;
        if !yes {
            show(&plan, context)?;
            let what = "nothing was begun";
            return Err(Error::new(ErrorKind::InvalidInput, what)
                .advise("begin with --yes, once this is what you want")
                .into());
        }
        let modes = job::modes(&plan, &context.work)?;
        let by = self.by();
        let directory = JobDirectory::create(&self.state_dir, &plan_text, modes, &by)?;
        self.run_job(directory, None, context)
    }

    /// Has a request done by the process that runs the job, or resumes the job with it.
    fn ask(&self, context: &Context, job: &str, request: Request) -> Ended {
        let directory = self.open(job)?;
        if !directory.ask(request, &self.by(), ANSWER_WITHIN)? {
            return self.run_job(directory, Some(request), context);
        }
        let accepted = Accepted {
            job,
            accepted: request.name(),
        };
        context.print(&accepted, || format!("{job}: {} accepted", request.name()))?;
        Ok(Exit::Done)
    }

    fn run_job(&self, directory: JobDirectory, first: Option<Request>, context: &Context) -> Ended {
        let leave = context.work.cancel().clone();
        let runner = JobRunner::resume(directory.clone(), &context.work, leave.clone())?;
        let by = self.by();
        let loud = !context.common.json && !context.common.quiet;
        let mut last = BTreeMap::new();
        runner.run(first.map(|request| (request, &by[..])), &mut |event| {
            let Event::Changed { vm, state } = event;
            let mut line = text::state_line(&state);
            // Where somebody is waited for, what leads on.
            if state.pending.is_none()
                && let Some(next) = directory.status().ok().as_ref().and_then(status::next_step)
            {
                line += &format!("; next: {next}");
            }
            if loud && last.insert(vm.clone(), line.clone()) != Some(line.clone()) {
                let at = date(now_ms());
                context.progress.say(&format!("{at} {vm}: {line}"));
            }
        })?;
        let status = directory.status()?;
        context.print(&status, || status::status(&status))?;
        if leave.is_cancelled() {
            return Ok(Exit::Recover);
        }
        Ok(Exit::Done)
    }

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
                return Ok(Exit::Done);
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

    fn open(&self, job: &str) -> Result<JobDirectory, Error> {
        JobDirectory::open(&self.state_dir, job)
    }

    fn by(&self) -> String {
        let user = || {
            let names = ["SUDO_USER", "USER", "LOGNAME"].into_iter();
            names.filter_map(|name| std::env::var(name).ok()).next()
        };
        self.by.clone().or_else(user).unwrap_or_default()
    }
}

fn check(plan: &Plan, state_dir: &Path, context: &Context) -> Ended {
    let checked = job::check_until(plan, state_dir, context.work.cancel());
    let holds = checked.iter().all(|checked| checked.holds);
    let object = Checks {
        job: &plan.name,
        holds,
        checks: &checked,
    };
    context.print(&object, || text::checks(&checked))?;
    match holds {
        true => Ok(Exit::Done),
        false => Ok(Exit::Error),
    }
}

fn show(plan: &Plan, context: &Context) -> Ended {
    let previews = job::estimate(plan, &context.work)?;
    let vms = plan.vms().zip(&previews).map(|(vm, preview)| VmObject {
        vm: &vm.name,
        mode: plan.mode.unwrap_or(preview.advice.mode),
        advice: preview.advice.mode,
        reason: &preview.advice.reason,
        no_reverse: preview.no_reverse.as_deref(),
        modes: preview
            .forecasts
            .iter()
            .map(|forecast| ModeObject {
                mode: forecast.mode,
                moved_bytes: forecast.moved_bytes,
                downtime_seconds: forecast.downtime_seconds,
            })
            .collect(),
        disks: preview
            .disks
            .iter()
            .map(|disk| DiskObject {
                disk: &disk.disk,
                disk_bytes: disk.disk_bytes,
                full_bytes: disk.data_bytes,
                delta_bytes: disk.changed_bytes,
                read_seconds: disk.read_seconds,
                line_seconds: disk.line_seconds,
                write_seconds: disk.write_seconds,
                back_seconds: disk.back_seconds,
                written_per_second: disk.written_per_second,
                kept_for_undo_bytes: disk.changed_bytes.filter(|_| plan.keep_undo),
            })
            .collect(),
    });
    let object = PlanObject {
        job: &plan.name,
        direction: plan.direction().name(),
        source: &plan.source_site().host,
        target: &plan.target_site().host,
        baseline_is_discarded: plan.discard_baseline,
        vms: vms.collect(),
    };
    context.print(&object, || text::plan(plan, &previews))?;
    Ok(Exit::Done)
}

#[derive(Serialize)]
struct Explanation<'a> {
    vms: &'a [Explained],
}

#[derive(Serialize)]
struct Accepted<'a> {
    job: &'a str,
    accepted: &'static str,
}

#[derive(Serialize)]
struct Jobs<'a> {
    jobs: &'a [JobStatus],
}

#[derive(Serialize)]
struct Log<'a> {
    lines: &'a [LogLine],
}

#[derive(Serialize)]
struct Checks<'a> {
    job: &'a str,
    holds: bool,
    checks: &'a [Checked],
}

#[derive(Serialize)]
struct PlanObject<'a> {
    job: &'a str,
    direction: &'static str,
    source: &'a str,
    target: &'a str,
    baseline_is_discarded: bool,
    vms: Vec<VmObject<'a>>,
}

#[derive(Serialize)]
struct VmObject<'a> {
    vm: &'a str,
    mode: JobMode,
    advice: JobMode,
    reason: &'a str,
    no_reverse: Option<&'a str>,
    modes: Vec<ModeObject>,
    disks: Vec<DiskObject<'a>>,
}

#[derive(Serialize)]
struct ModeObject {
    mode: JobMode,
    moved_bytes: u64,
    downtime_seconds: Option<f64>,
}

#[derive(Serialize)]
struct DiskObject<'a> {
    disk: &'a str,
    disk_bytes: u64,
    full_bytes: u64,
    delta_bytes: Option<u64>,
    read_seconds: f64,
    line_seconds: f64,
    write_seconds: f64,
    back_seconds: f64,
    written_per_second: Option<f64>,
    kept_for_undo_bytes: Option<u64>,
}

const ANSWER_WITHIN: Duration = Duration::from_secs(30);
const WATCH_EVERY: Duration = Duration::from_secs(2);
