//! What the commands print of a sync.

use crate::sync::{Mode, Outcome, Safety, SyncReport, Verified};
use crate::units::format_size;
use serde::Serialize;

use super::context::Context;
use super::outcome::{Ended, Exit};

#[derive(Serialize)]
struct Object<'a> {
    outcome: &'static str,
    mode: &'static str,
    reason: &'a str,
    safety: &'static str,
    disk_bytes: u64,
    compared_bytes: u64,
    changed_bytes: u64,
    zeroed_bytes: u64,
    written_bytes: u64,
    logged_bytes: u64,
    resumed_bytes: u64,
    untouched_tail_bytes: u64,
    granularity_bytes: u64,
    verified: &'static str,
    unreadable: Vec<Range>,
    root: Option<String>,
    elapsed_seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    sent_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    received_bytes: Option<u64>,
    warnings: &'a [String],
}

#[derive(Serialize)]
struct Range {
    offset: u64,
    length: u64,
}

/// Prints what a sync, an applied delta or an undo did.
pub(super) fn print_report(context: &Context, report: &SyncReport, warnings: &[String]) -> Ended {
    let traffic = report.traffic;
    let warnings = &[warnings, &report.notes].concat();
    let unreadable = report.unreadable.iter().map(|range| Range {
        offset: range.start,
        length: range.end - range.start,
    });
    let object = Object {
        outcome: outcome_name(report.outcome),
        mode: mode_name(report.mode),
        reason: &report.reason,
        safety: safety_name(report.safety),
        disk_bytes: report.disk_bytes,
        compared_bytes: report.compared_bytes,
        changed_bytes: report.changed_bytes,
        zeroed_bytes: report.zeroed_bytes,
        written_bytes: report.written_bytes,
        logged_bytes: report.logged_bytes,
        resumed_bytes: report.resumed_bytes,
        untouched_tail_bytes: report.untouched_tail_bytes,
        granularity_bytes: report.granularity_bytes,
        verified: verified_name(report.verified),
        unreadable: unreadable.collect(),
        root: report.root.map(|root| root.to_string()),
        elapsed_seconds: report.elapsed.as_secs_f64(),
        sent_bytes: traffic.map(|it| it.sent_bytes),
        received_bytes: traffic.map(|it| it.received_bytes),
        warnings,
    };
    context.print(&object, || text(report))?;
    Ok(match report.unreadable.is_empty() {
        true => Exit::Done,
        false => Exit::Gaps,
    })
}

fn text(report: &SyncReport) -> Vec<String> {
    let size = format_size;
    let disk = size(report.disk_bytes);
    let changed = size(report.changed_bytes);
    let seconds = report.elapsed.as_secs_f64();
    let mut lines = vec![match report.outcome {
        Outcome::Identical => format!("identical: nothing written ({disk} disk, {seconds:.1} s)"),
        Outcome::Unchanged => unchanged(report, &disk),
        Outcome::DryRun if report.written_bytes > 0 => format!(
            "dry run: {changed} of {disk} would change, {} would be written",
            size(report.written_bytes)
        ),
        Outcome::DryRun => format!("dry run: {changed} of {disk} would change"),
        _ => format!(
            "done: {changed} of {disk} changed, {} written, {} zeroed ({seconds:.1} s)",
            size(report.written_bytes),
            size(report.zeroed_bytes)
        ),
    }];
    let mut how = format!("mode {}", mode_name(report.mode));
    if !report.reason.is_empty() {
        how += &format!(" ({})", report.reason);
    }
    how += &format!(
        ", safety {}, verified {}",
        safety_name(report.safety),
        verified_name(report.verified)
    );
    lines.push(how);
    if let Some(traffic) = report.traffic {
        let (sent, received) = (size(traffic.sent_bytes), size(traffic.received_bytes));
        lines.push(format!("{sent} sent, {received} received"));
    }
    if report.resumed_bytes > 0 {
        let resumed = size(report.resumed_bytes);
        lines.push(format!("{resumed} taken over from an earlier run"));
    }
    if report.untouched_tail_bytes > 0 {
        let tail = size(report.untouched_tail_bytes);
        lines.push(format!("{tail} beyond the source left as they were"));
    }
    lines.extend(report.notes.iter().map(|note| format!("note: {note}")));
    lines.extend(report.unreadable.iter().map(|range| {
        let len = range.end - range.start;
        format!("unreadable: {len} bytes at {:#x}", range.start)
    }));
    lines
}

fn unchanged(report: &SyncReport, disk: &str) -> String {
    let what = match report.verified {
        Verified::Tracked => "nothing tracked as changed differs",
        Verified::Cached => "nothing differs by the manifests",
        _ if !report.unreadable.is_empty() => "nothing that could be read differs",
        _ => "nothing was found to differ",
    };
    let seconds = report.elapsed.as_secs_f64();
    format!("unchanged: {what}; nothing written ({disk} disk, {seconds:.1} s)")
}

fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Identical => "identical",
        Outcome::Unchanged => "unchanged",
        Outcome::Synced => "synced",
        Outcome::SyncedWithGaps => "synced_with_gaps",
        Outcome::DryRun => "dry_run",
    }
}

fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Delta => "delta",
        Mode::Full => "full",
        _ => "auto",
    }
}

fn safety_name(safety: Safety) -> &'static str {
    match safety {
        Safety::Atomic => "atomic",
        Safety::InPlace => "in-place",
    }
}

fn verified_name(verified: Verified) -> &'static str {
    match verified {
        Verified::No => "no",
        Verified::Written => "written",
        Verified::Cached => "cached",
        Verified::Tracked => "tracked",
        Verified::All => "all",
    }
}
