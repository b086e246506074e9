//! What `diskdelta failback` says to people.

use crate::failback::job::{Checked, DELETED_AT_COMMIT, Preview};
use crate::failback::machine::{JobMode, JobPhase, Request, State};
use crate::failback::plan::Plan;
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

/// One line for a state, as a job goes through it.
pub(super) fn state_line(state: &State) -> String {
    match (state.problem, state.pending) {
        (Some(problem), _) => format!("{}: stands still: {problem}", state.phase),
        (None, Some(command)) => format!("{}: {command}", state.phase),
        (None, None) => state.phase.to_string(),
    }
}

/// A request as the command names it.
pub(super) fn asks(request: Request) -> String {
    let mut text = request.name().to_owned();
    let (accept_loss, restore) = match request {
        Request::Test { end: true } => return "test --end".to_owned(),
        Request::Undo {
            accept_loss,
            restore,
        } => (accept_loss, restore),
        Request::Cancel { restore } => (false, restore),
        _ => (false, false),
    };
    for (is_set, option) in [(accept_loss, " --accept-loss"), (restore, " --restore")] {
        text += if is_set { option } else { "" };
    }
    text
}

/// What a phase means to a person.
pub(super) fn phase(phase: JobPhase) -> &'static str {
    match phase {
        JobPhase::Planned => "nothing is touched; the prerequisites are checked",
        JobPhase::Prepared => "nothing is copied yet; the prerequisites hold",
        JobPhase::InitialSync => "the source runs, and is being copied",
        JobPhase::ReadyToCutover => "the source runs, the target is close to it",
        JobPhase::Testing => "the source runs, and a copy of the target's disks in isolation",
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
        format!(
            "{}: {} ({})",
            plan.name,
            plan.direction().operation(),
            plan.direction().name()
        ),
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
        lines.push(format!("  source disks: {DELETED_AT_COMMIT}"));
    }
    lines
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
