//! What `diskdelta failback` says to people.

use std::time::{Duration, SystemTime};

use crate::failback::job::{Checked, JobStatus, LogLine, Preview, VmStatus};
use crate::failback::machine::{Convergence, Disposition, Event, JobMode, JobPhase, Side, State};
use crate::failback::plan::Plan;
use crate::failback::record::Record;
use crate::units::format_size;

use serde::Serialize;

/// Why a VM stands where it does.
#[derive(Serialize)]
pub(super) struct Explained {
    pub vm: String,
    pub phase: &'static str,
    pub means: &'static str,
    pub conditions: Vec<Condition>,
}

/// Something that has to hold before the next phase begins.
#[derive(Serialize)]
pub(super) struct Condition {
    pub condition: &'static str,
    pub holds: bool,
}

/// Where several jobs stand.
pub(super) fn jobs(jobs: &[JobStatus]) -> Vec<String> {
    match jobs.is_empty() {
        true => vec!["there are no jobs".to_owned()],
        false => {
            let all: Vec<Vec<String>> = jobs.iter().map(status).collect();
            all.join(&String::new())
        }
    }
}

/// Where a job stands: what runs, how far it is, what it waits for, what may be asked.
pub(super) fn status(job: &JobStatus) -> Vec<String> {
    let running = match &job.run_by {
        Some(by) => format!("run by {by}"),
        None => "not running".to_owned(),
    };
    let mut lines = vec![format!("{}: {}, {running}", job.job, job.direction)];
    for vm in &job.vms {
        lines.extend(vm_lines(vm));
    }
    let rests = job.vms.iter().all(|vm| {
        vm.phase.is_final() || matches!(vm.phase, JobPhase::Committed | JobPhase::Protected)
    });
    lines.push(match job.allowed.is_empty() {
        true => "you may now: nothing but watch".to_owned(),
        false => format!("you may now: {}", job.allowed.join(", ")),
    });
    if job.run_by.is_none() && !rests {
        lines.push(format!("no process runs it: failback resume {}", job.job));
    }
    lines
}

fn vm_lines(vm: &VmStatus) -> Vec<String> {
    let mut lines = vec![format!(
        "  {} ({}): {}: {}",
        vm.vm,
        vm.group,
        vm.phase,
        phase(vm.phase)
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
    if let Some(doing) = &vm.doing {
        let mut line = format!("now: {doing}");
        if let Some(moving) = vm.moving.as_ref().filter(|moving| moving.done_bytes > 0) {
            line += &format!(": {} {}", moving.what, format_size(moving.done_bytes));
            if let Some(total) = moving.total_bytes {
                line += &format!(" of {}", format_size(total));
            }
            line += &format!(", {}/s", format_size(moving.rate() as u64));
            if let Some(left) = moving.seconds_left() {
                line += &format!(", {left:.0} s left");
            }
        }
        say(line);
    } else if let (Some(waits_for), None) = (vm.waits_for, vm.problem) {
        say(format!("waits until: {waits_for}"));
    }
    if let Some(problem) = vm.problem {
        say(format!("STANDS STILL: {problem}"));
        if let Some(detail) = &vm.detail {
            say(detail.clone());
        }
    }
    if let Some(pass) = vm.last_pass {
        let changed = format_size(pass.changed_bytes);
        let seconds = pass.elapsed_ms as f64 / 1000.0;
        let fits = match vm.convergence {
            Convergence::Fits => ", which fits the downtime budget",
            Convergence::Stalled => ", too long, and passes do not get shorter",
            Convergence::Shrinking => ", too long still, but passes get shorter",
            _ => "",
        };
        let passes = vm.passes;
        say(format!(
            "last pass: {changed} in {seconds:.1} s{fits} (passes while the source ran: {passes})"
        ));
    }
    if vm.phase == JobPhase::CommitPending {
        say(match vm.proven {
            true => "the source is proven equal to what the target was started with".to_owned(),
            false => "the source is not proven equal yet".to_owned(),
        });
    }
    lines
}

/// One line for a state, as a job goes through it.
pub(super) fn state_line(state: &State) -> String {
    match (state.problem, state.pending) {
        (Some(problem), _) => format!("{}: stands still: {problem}", state.phase),
        (None, Some(command)) => format!("{}: {command}", state.phase),
        (None, None) => state.phase.to_string(),
    }
}

/// What a phase means to a person.
pub(super) fn phase(phase: JobPhase) -> &'static str {
    match phase {
        JobPhase::Planned => "nothing is touched; the prerequisites are checked",
        JobPhase::Prepared => "nothing is copied yet; the prerequisites hold",
        JobPhase::InitialSync => "the source runs, and is being copied",
        JobPhase::ReadyToCutover => "the source runs, the target is close to it",
        JobPhase::Quiescing => "the source is being shut down",
        JobPhase::FinalSync => "nothing runs; the rest is being copied",
        JobPhase::Verifying => "nothing runs; what was copied is read back",
        JobPhase::Activating => "the target is being started",
        JobPhase::CommitPending => "the target runs; look at it, then commit or undo",
        JobPhase::Committing => "the target runs; the source is being retired",
        JobPhase::Committed => "the target runs, the source is retired",
        JobPhase::ReverseReplicating => {
            "the target runs, and is being copied to the retired source"
        }
        JobPhase::Protected => "the target runs, the retired source's disks are its replica",
        JobPhase::Aborting => "the source is being started again",
        JobPhase::RollingBack => "the target is being stopped, the source started again",
        JobPhase::Cancelling => "the source runs; the job is being given up",
        JobPhase::Cancelled(_) => "the source runs; the job was given up",
        JobPhase::RolledBack(_) => "the source runs again",
    }
}

/// The prerequisites, one a line.
pub(super) fn checks(checked: &[Checked]) -> Vec<String> {
    let lines = checked.iter().map(|it| {
        let mark = if it.holds { "ok " } else { "NO " };
        format!("{mark} {}: {}: {}", it.vm, it.check, it.found)
    });
    lines.collect()
}

/// What a plan would do.
pub(super) fn plan(plan: &Plan, previews: &[Preview]) -> Vec<String> {
    let mut lines = vec![
        format!("{}: {}", plan.name, plan.direction().name()),
        format!("  from {}", plan.source_site().host),
        format!("  to   {}", plan.target_site().host),
    ];
    for preview in previews {
        let advised = preview.advice.mode;
        let mode = plan.mode.unwrap_or(advised);
        lines.push(format!("  {}: mode {}", preview.vm, mode_name(mode)));
        lines.push(format!(
            "      advised: {} ({})",
            mode_name(advised),
            preview.advice.reason
        ));
        for forecast in &preview.forecasts {
            let downtime = forecast.downtime_seconds.map_or_else(
                || "not known: the VM's write rate was not measured".to_owned(),
                |seconds| format!("about {} s", seconds.ceil()),
            );
            lines.push(format!(
                "      {}: moves about {}; downtime {downtime}",
                mode_name(forecast.mode),
                format_size(forecast.moved_bytes),
            ));
        }
        if let Some(why) = &preview.no_reverse {
            lines.push(format!("      after the commit: {why}"));
        }
        for disk in &preview.disks {
            let full = format_size(disk.data_bytes);
            let delta = disk.changed_bytes.map_or("everything".to_owned(), |bytes| {
                format!("about {}", format_size(bytes))
            });
            lines.push(format!(
                "      {}: full moves {full}, a delta {delta}; reading takes about {:.0} s",
                disk.disk, disk.read_seconds
            ));
            if disk.line_seconds > 0.0 {
                lines.push(format!(
                    "      {}: moving all of it over the line takes about {:.0} s",
                    disk.disk, disk.line_seconds
                ));
            }
            if plan.keep_undo {
                lines.push(format!(
                    "      {}: the way back needs as much as is moved, until the commit",
                    disk.disk
                ));
            }
        }
    }
    if plan.discard_baseline {
        lines.push(
            "  the source's disks are given up at commit: no way to copy back only \
            what changes"
                .to_owned(),
        );
    }
    lines
}

/// All that happened.
pub(super) fn log(lines: &[LogLine]) -> Vec<String> {
    let lines = lines.iter().map(|line| match &line.record {
        Record::Job(job) => format!("{}: job {}, {}", line.vm, job.job, job.direction),
        Record::Step(step) => {
            let mut text = format!("{} {}: ", time(step.at_ms), line.vm);
            text += &match &step.event {
                Event::Asked { request, by } => format!("{by} asks: {}", request.name()),
                Event::TakenOver { epoch } => format!("taken up, epoch {epoch}"),
                Event::Answered { token, .. } => format!("{token} answered"),
                other => format!("{other:?}"),
            };
            if let Some(detail) = &step.detail {
                text += &format!(" ({detail})");
            }
            if let Some(side) = step.decide {
                text += &match side {
                    Side::Source => " DECIDED: the source may run".to_owned(),
                    Side::Target => " DECIDED: the target may run".to_owned(),
                };
            }
            text + &format!(" -> {}", state_line(&step.state))
        }
    });
    lines.collect()
}

/// What each VM needs to go on.
pub(super) fn explanation(vms: &[Explained]) -> Vec<String> {
    let mut lines = Vec::new();
    for vm in vms {
        lines.push(format!("{}: {}: {}", vm.vm, vm.phase, vm.means));
        for condition in &vm.conditions {
            let mark = if condition.holds { "yes" } else { "no " };
            lines.push(format!("  {mark} {}", condition.condition));
        }
    }
    lines
}

fn mode_name(mode: JobMode) -> &'static str {
    match mode {
        JobMode::Delta => "delta",
        JobMode::Full => "full",
        JobMode::FullFirst => "full-first",
    }
}

/// Hours, minutes and seconds of a day, UTC.
fn time(at_ms: u64) -> String {
    let at = SystemTime::UNIX_EPOCH + Duration::from_millis(at_ms);
    let seconds = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs() % 86_400);
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02}", seconds % 60)
}
