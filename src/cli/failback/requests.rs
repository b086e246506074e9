//! Asks for something, and waits for what comes of it.

use std::time::{Duration, Instant};

use crate::failback::job::{JobDirectory, JobStatus, VmStatus};
use crate::failback::machine::{JobPhase, Request};
use crate::{CancelToken, Error, ErrorKind, Result};

use super::moments::ago;
use super::text::{asks, phase};
use crate::cli::outcome::Exit;

/// How a request is made.
#[derive(clap::Args, Clone, Copy)]
pub(super) struct How {
    /// Waits until the job can do it, and then until it is done; exit status 5 where it is not
    #[arg(long)]
    pub wait: bool,
    /// Never runs the job here: where no process runs it, leaves the request for the next one
    #[arg(long)]
    pub detach: bool,
}

/// Who asks: what `--by` says, the user as the environment or the system names him.
pub(super) fn operator(by: Option<&str>) -> String {
    let set = |name| std::env::var(name).ok().filter(|it| !it.is_empty());
    let environment = || ["SUDO_USER", "USER", "LOGNAME"].into_iter().find_map(set);
    let system = || {
        let uid = nix::unistd::getuid();
        let user = nix::unistd::User::from_uid(uid).ok().flatten();
        user.map_or_else(|| format!("user {uid}"), |user| user.name)
    };
    let by = by.map(str::to_owned).or_else(environment);
    by.unwrap_or_else(system)
}

/// What came of a request so far.
pub(super) enum Fate {
    /// The job is where it leads to.
    Reached,
    /// It is not, and goes on.
    Open,
    /// It will not get there by itself: why.
    Stuck(String),
}

/// Looks whether a job has got where a request of `since_ms` leads to.
pub(super) fn fate(job: &JobStatus, request: Request, since_ms: u64) -> Fate {
    if job
        .vms
        .iter()
        .all(|vm| leads_to(request, vm) && vm.problem.is_none())
    {
        return Fate::Reached;
    }
    for vm in &job.vms {
        let stuck = |why: &str| Fate::Stuck(format!("{}: {why}", vm.vm));
        if let Some(problem) = vm.problem {
            let waited = job
                .at_ms
                .saturating_sub(since_ms.max(vm.history.phase_at_ms));
            if !problem.is_transient() || waited >= STANDS_STILL_AFTER_MS {
                let detail = vm.detail.as_ref().map(|it| format!(": {it}"));
                return stuck(&format!("{problem}{}", detail.unwrap_or_default()));
            }
        }
        let failed = vm.history.failed_cutover.as_ref();
        if request == Request::Complete && failed.is_some_and(|it| it.at_ms >= since_ms) {
            return stuck("the cutover failed, and the source was started again");
        }
        if vm.phase.is_final() {
            return stuck(phase(vm.phase));
        }
    }
    match &job.last_request {
        Some(other) if other.at_ms > since_ms && leads_away(request, other.request) => Fate::Stuck(
            format!("{} asked {} meanwhile", other.by, asks(other.request)),
        ),
        _ => Fate::Open,
    }
}

/// Whether a phase is the one that a request leads to, or beyond.
fn leads_to(request: Request, vm: &VmStatus) -> bool {
    use JobPhase::*;
    let phase = vm.phase;
    match request {
        Request::Start => !matches!(phase, Planned | Prepared | InitialSync) && !phase.is_final(),
        Request::Test { end: false } => phase == Testing && vm.doing.is_none(),
        Request::Test { end: true } => matches!(phase, InitialSync | ReadyToCutover),
        Request::Complete => matches!(
            phase,
            CommitPending | Committing | Committed | ReverseReplicating | Protected
        ),
        Request::Commit => matches!(phase, Committed | ReverseReplicating | Protected),
        Request::Reverse => phase == Protected,
        Request::Abort => matches!(phase, InitialSync | ReadyToCutover),
        Request::Cancel { .. } => matches!(phase, Cancelled(_)),
        Request::Undo { .. } => matches!(phase, RolledBack(_)),
        Request::Retry => true,
    }
}

fn leads_away(request: Request, other: Request) -> bool {
    let back = |it| {
        matches!(
            it,
            Request::Abort | Request::Cancel { .. } | Request::Undo { .. }
        )
    };
    back(other) && !back(request)
}

/// Waits until a process runs the job and it can do what is asked, or it cannot come to that.
pub(super) fn until_allowed(
    directory: &JobDirectory,
    request: Request,
    cancel: &CancelToken,
) -> Result<()> {
    let begin = Instant::now();
    while !cancel.is_cancelled() {
        let status = directory.status()?;
        let works = status.vms.iter().any(|vm| vm.doing.is_some());
        // A process that is to run it may only be beginning.
        let waits = works || begin.elapsed() < RUNNER_WITHIN && status.vms.iter().all(is_unseen);
        if status.allowed.contains(&request) || !waits || status.run_by.is_none() && works {
            break;
        }
        std::thread::sleep(LOOKED_EVERY);
    }
    Ok(())
}

fn is_unseen(vm: &VmStatus) -> bool {
    vm.history.phase_at_ms == 0 || vm.phase == JobPhase::Prepared
}

/// Waits until a request that another process carries out has led where it leads.
pub(super) fn until_done(
    directory: &JobDirectory,
    request: Request,
    since_ms: u64,
    cancel: &CancelToken,
) -> Result<(JobStatus, Option<String>)> {
    let mut seen = Instant::now();
    loop {
        let status = directory.status()?;
        if status.run_by.is_some() {
            seen = Instant::now();
        }
        let why = match fate(&status, request, since_ms) {
            Fate::Reached => None,
            Fate::Stuck(why) => Some(why),
            Fate::Open if cancel.is_cancelled() => Some("interrupted".to_owned()),
            Fate::Open if seen.elapsed() >= RUNNER_WITHIN => {
                Some("no process runs the job".to_owned())
            }
            Fate::Open => {
                std::thread::sleep(LOOKED_EVERY);
                continue;
            }
        };
        return Ok((status, why));
    }
}

/// The exit status of a request that was waited for.
pub(super) fn exit(why: Option<&String>, cancel: &CancelToken) -> Exit {
    match why {
        None => Exit::Done,
        Some(_) if cancel.is_cancelled() => Exit::Recover,
        Some(_) => Exit::Stuck,
    }
}

/// A refusal, with what goes on instead, who asked for that, and what may be asked.
pub(super) fn refusal(error: Error, directory: &JobDirectory) -> Error {
    let (ErrorKind::InvalidInput, Ok(job)) = (error.kind(), directory.status()) else {
        return error;
    };
    let mut said: Vec<String> = Vec::new();
    let mut phases: Vec<_> = job.vms.iter().map(|vm| vm.phase).collect();
    phases.dedup();
    said.extend(phases.into_iter().map(|it| phase(it).to_owned()));
    if let Some(last) = &job.last_request {
        let when = ago(last.at_ms, job.at_ms);
        said.push(format!("{} asked {} {when}", last.by, asks(last.request)));
    }
    let command = |it: &Request| format!("`failback {} {}`", asks(*it), job.job);
    let allowed: Vec<String> = job.allowed.iter().map(command).collect();
    said.push(match allowed.is_empty() {
        true => "nothing can be asked now".to_owned(),
        false => format!("you may ask: {}", allowed.join(", ")),
    });
    Error::new(error.kind(), error.to_string()).advise(said.join("; "))
}

const LOOKED_EVERY: Duration = Duration::from_millis(100);
/// How long a process that is to run the job may take to begin.
const RUNNER_WITHIN: Duration = Duration::from_secs(10);
/// What is tried again by itself counts as a standstill after so long.
const STANDS_STILL_AFTER_MS: u64 = 60_000;
