//! What a plan needs, and what it would do.

use std::path::Path;

use serde::Serialize;

use super::text;
use crate::cli::context::Context;
use crate::cli::outcome::{Ended, Exit};
use crate::failback::job::{self, Checked};
use crate::failback::machine::JobMode;
use crate::failback::plan::Plan;

pub(super) fn check(plan: &Plan, state_dir: &Path, context: &Context) -> Ended {
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

pub(super) fn show(plan: &Plan, context: &Context) -> Ended {
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
        operation: plan.direction().operation(),
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
struct Checks<'a> {
    job: &'a str,
    holds: bool,
    checks: &'a [Checked],
}

#[derive(Serialize)]
struct PlanObject<'a> {
    job: &'a str,
    operation: &'static str,
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
