//! Where jobs stand, on a screen.

use crate::failback::history::Failure;
use crate::failback::job::{JobStatus, VmStatus};
use crate::failback::machine::{Convergence, Disposition, JobPhase, Request};
use crate::units::format_size;

use super::moments::{ago, date, span, wrapped};
use super::text::{asks, phase};

/// One line for each of several jobs.
pub(super) fn jobs(jobs: &[JobStatus]) -> Vec<String> {
    if jobs.is_empty() {
        return vec!["there are no jobs".to_owned()];
    }
    wrapped(jobs.iter().map(job_line).collect())
}

fn job_line(job: &JobStatus) -> String {
    let mut phases: Vec<&str> = job.vms.iter().map(|vm| vm.phase.name()).collect();
    phases.dedup();
    let since = job.vms.iter().map(|vm| vm.history.phase_at_ms).max();
    let since = since.filter(|since| *since > 0).unwrap_or(job.begun_at_ms);
    let mut line = format!(
        "{}: {}, {} for {}, begun {}",
        job.job,
        job.operation,
        phases.join(" and "),
        span(job.at_ms.saturating_sub(since)),
        begun(job)
    );
    if let Some(problem) = job.vms.iter().find_map(|vm| vm.problem) {
        line += &format!(", STANDS STILL: {problem}");
    }
    line + ", " + &standing(job)
}

/// What becomes of a job: it runs, waits for a process, or for nothing.
fn standing(job: &JobStatus) -> String {
    match (&job.superseded_by, job.run_by) {
        (Some(by), _) => format!("superseded by the later job `{by}`"),
        (None, Some(run_by)) => match run_by.process {
            Some(process) => format!("run by process {process}"),
            None => "run by a process that begins".to_owned(),
        },
        (None, None) => "not running".to_owned(),
    }
}

fn begun(job: &JobStatus) -> String {
    match (job.begun_at_ms, &job.begun_by[..]) {
        (0, by) => format!("by {by}"),
        (at_ms, "") => date(at_ms),
        (at_ms, by) => format!("{} by {by}", date(at_ms)),
    }
}

/// Where a job stands: what runs, how far it is, what happened last, what it waits for, and what
/// may be asked.
pub(super) fn status(job: &JobStatus) -> Vec<String> {
    let mut lines = vec![
        format!(
            "{}: {} ({}), begun {}",
            job.job,
            job.operation,
            job.direction,
            begun(job)
        ),
        standing(job),
    ];
    for vm in &job.vms {
        lines.extend(vm_lines(job, vm));
    }
    if let Some(last) = &job.last_request {
        lines.push(format!(
            "last request: {} by {}, {}",
            asks(last.request),
            last.by,
            ago(last.at_ms, job.at_ms)
        ));
    }
    for queued in &job.queued {
        lines.push(format!(
            "queued, for the next process that runs it: {} by {}, {}",
            asks(queued.request),
            queued.by,
            ago(queued.at_ms, job.at_ms)
        ));
    }
    if job.superseded_by.is_some() {
        return wrapped(lines);
    }
    let allowed: Vec<String> = job.allowed.iter().map(|it| asks(*it)).collect();
    lines.push(match allowed.is_empty() {
        true => "you may now: nothing but watch".to_owned(),
        false => format!("you may now: {}", allowed.join(", ")),
    });
    if job.run_by.is_none() && !job.vms.iter().all(is_at_rest) {
        lines.push(format!("no process runs it: failback run {}", job.job));
    } else if let Some(next) = next_step(job) {
        lines.push(format!("next: {next}"));
    }
    wrapped(lines)
}

/// Whether nothing comes of a VM's job unless it is asked for something.
fn is_at_rest(vm: &VmStatus) -> bool {
    vm.phase.is_final() || matches!(vm.phase, JobPhase::Committed | JobPhase::Protected)
}

/// The command that leads on, where an operator is waited for.
pub(super) fn next_step(job: &JobStatus) -> Option<String> {
    let command = |request: Request| format!("failback {} {}", asks(request), job.job);
    let may = |request: &Request| job.allowed.contains(request);
    let undo = Request::Undo {
        accept_loss: true,
        restore: false,
    };
    if job.vms.iter().any(|vm| vm.problem.is_some()) {
        return may(&Request::Retry).then(|| command(Request::Retry) + ", once that is mended");
    }
    if job.vms.iter().any(|vm| vm.doing.is_some()) {
        return None;
    }
    if may(&Request::Commit) {
        let (mut commit, undo) = (command(Request::Commit), command(undo));
        if job.deletes_source_disks {
            commit += " (deletes the source's disks for good)";
        }
        return Some(format!("log on to the target; then {commit}, or {undo}"));
    }
    let end = Request::Test { end: true };
    let mut on = [end, Request::Complete, Request::Reverse].into_iter();
    on.find(may).map(command)
}

fn vm_lines(job: &JobStatus, vm: &VmStatus) -> Vec<String> {
    let (now, history) = (job.at_ms, &vm.history);
    let since = match history.phase_at_ms {
        0 => String::new(),
        since => format!(" for {}", span(now.saturating_sub(since))),
    };
    let mut lines = vec![format!(
        "  {} ({}): {}{since}: {}",
        vm.vm,
        vm.group,
        vm.phase,
        meaning(vm)
    )];
    let mut say = |line: String| lines.push(format!("      {line}"));
    say(format!("the {} is the side that may run", vm.active));
    if let Some(disposition) = vm.disposition {
        say(match disposition {
            Disposition::Restored => "the target's disks are what they were before".to_owned(),
            Disposition::BlockedInconsistent => "the target's disks are kept under names that \
                no VM has; a later job goes on from them"
                .to_owned(),
        });
    }
    if let Some(failure) = &history.failed_cutover {
        say(format!(
            "THE LAST CUTOVER FAILED {}: {}; the source was started again, and the next pass \
             compares all",
            ago(failure.at_ms, now),
            wrong_copy(failure)
        ));
    }
    if let Some(failure) = &history.failed_restore {
        say(format!(
            "THE TARGET WAS NOT RESTORED ({}): {}",
            ago(failure.at_ms, now),
            reason(failure, "what its VM wrote was not tracked")
        ));
    }
    if let Some(doing) = &vm.doing {
        say(format!(
            "now, for {}: {doing}{}",
            span(now.saturating_sub(history.command_at_ms)),
            moved(vm)
        ));
    } else if let (Some(waits_for), None) = (vm.waits_for, vm.problem) {
        say(format!("waits until: {waits_for}{}", due(job, vm)));
    }
    if let Some(problem) = vm.problem {
        say(format!("STANDS STILL: {problem}{}", due(job, vm)));
        if let Some(detail) = &vm.detail {
            say(detail.clone());
        }
    } else if let Some(failure) = &history.last_problem {
        say(format!(
            "last problem, {}: {}",
            ago(failure.at_ms, now),
            reason(failure, "unknown")
        ));
    }
    if let Some(line) = downtime(job, vm) {
        say(line);
    }
    if let Some(line) = last_pass(job, vm) {
        say(line);
    }
    if vm.is_overdue {
        say("WARNING: the replica is older than the plan allows (`max_replica_age`)".to_owned());
    }
    if vm.phase == JobPhase::CommitPending {
        say(match vm.proven {
            true => "the source is proven equal to what the target was started with".to_owned(),
            false => "the source is not proven equal yet".to_owned(),
        });
    }
    lines
}

fn meaning(vm: &VmStatus) -> &'static str {
    match vm.phase {
        JobPhase::ReadyToCutover if vm.last_pass.is_none() => {
            "the source runs, and nothing whole was copied of it yet"
        }
        of => phase(of),
    }
}

/// Why a cutover failed.
pub(super) fn wrong_copy(failure: &Failure) -> &'static str {
    match failure.problem {
        Some(_) => "the source does not equal what was copied; its writes were not all tracked",
        None => "what was copied does not read back as it should",
    }
}

fn reason(failure: &Failure, otherwise: &str) -> String {
    let problem = failure.problem.map(|problem| problem.to_string());
    let said = [problem, failure.detail.clone()].into_iter().flatten();
    match said.collect::<Vec<_>>() {
        said if said.is_empty() => otherwise.to_owned(),
        said => said.join(": "),
    }
}

/// How far the command is.
fn moved(vm: &VmStatus) -> String {
    let Some(moving) = &vm.moving else {
        return String::new();
    };
    let mut line = format!(": {} {}", moving.what, format_size(moving.done_bytes));
    if let Some(total) = moving.total_bytes {
        line += &format!(" of {}", format_size(total));
    }
    line += &format!(", {}/s", format_size(moving.rate() as u64));
    if let Some(left) = moving.seconds_left() {
        line += &format!(", {left:.0} s left");
    }
    line
}

/// When the job goes on by itself.
fn due(job: &JobStatus, vm: &VmStatus) -> String {
    match (vm.history.next_at_ms, job.run_by) {
        (Some(at_ms), Some(_)) => match at_ms.saturating_sub(job.at_ms) {
            0 => ", at once".to_owned(),
            left => format!(", in {}", span(left)),
        },
        (Some(_), None) => ", once a process runs it".to_owned(),
        (None, _) => String::new(),
    }
}

/// How long neither VM ran, next to what was expected.
fn downtime(job: &JobStatus, vm: &VmStatus) -> Option<String> {
    let history = &vm.history;
    let forecast = match history.downtime_forecast_ms {
        Some(ms) => format!("; the forecast was {}", span(ms)),
        None => String::new(),
    };
    match (history.down_since_ms, history.downtime_ms) {
        (Some(since), _) => {
            let span = span(job.at_ms.saturating_sub(since));
            Some(format!("DOWN for {span} so far{forecast}"))
        }
        (None, Some(ms)) => Some(format!("downtime of the cutover: {}{forecast}", span(ms))),
        (None, None) => None,
    }
}

fn last_pass(job: &JobStatus, vm: &VmStatus) -> Option<String> {
    let pass = vm.last_pass?;
    let fits = match vm.convergence {
        Convergence::Fits => ", which fits the downtime budget",
        Convergence::Stalled => ", too long, and passes do not get shorter",
        Convergence::Shrinking => ", too long still, but passes get shorter",
        _ => "",
    };
    let mut line = format!(
        "last pass: {} in {}{fits}",
        format_size(pass.changed_bytes),
        span(pass.elapsed_ms)
    );
    if let Some(copy) = vm.history.last_copy {
        line += match copy.while_running {
            true => "; data as of ",
            false => ", with the source off; data as of ",
        };
        line += &format!(
            "{} ({})",
            date(copy.as_of_ms),
            ago(copy.as_of_ms, job.at_ms)
        );
    }
    Some(line)
}
