//! What the commands print of a sync.

use crate::sync::{Outcome, SyncReport, Verified};
use crate::units::format_size;

use super::context::{Context, name_of};
use super::outcome::{Ended, Exit};

/// Prints what a sync, an applied delta or an undo did.
pub(super) fn print_report(context: &Context, report: &SyncReport, warnings: &[String]) -> Ended {
    let mut object = report.clone();
    object.notes = [warnings, &report.notes].concat();
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
    let mut how = format!("mode {}", name_of(&report.mode));
    if !report.reason.is_empty() {
        how += &format!(" ({})", report.reason);
    }
    how += &format!(
        ", safety {}, verified {}",
        name_of(&report.safety),
        name_of(&report.verified)
    );
    if report.cloned {
        how += ", cloned";
    }
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
