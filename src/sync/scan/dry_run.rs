//! What a sync would do, found without writing anything.

use super::differences::differences;
use crate::error::Result;
use crate::image::{Image, Resized};
use crate::sync::endpoint::source::SyncContext;
use crate::sync::options::Mode;
use crate::sync::report::{Outcome, SyncReport};

/// What a sync that has to create its target would write: all that is not zeros.
///
/// # Errors
/// Those of [`differences`].
pub(in crate::sync) fn would_create(context: &SyncContext<'_>) -> Result<SyncReport> {
    let blank = Resized::zeros(context.source.disk_len())?;
    let reason = "the target is not there".to_owned();
    let mut report = would_change(context, &*blank, Mode::Full, reason)?;
    report.outcome = Outcome::DryRun;
    report.written_bytes = report.changed_bytes;
    Ok(report)
}

/// What a sync would change, and in a delta write.
///
/// # Errors
/// Those of [`differences`].
pub(in crate::sync) fn would_change(
    context: &SyncContext<'_>,
    old: &dyn Image,
    mode: Mode,
    reason: String,
) -> Result<SyncReport> {
    let disk_len = context.target_len(Some(old.disk_len()))?;
    let mut report = SyncReport::new(mode, context.options.safety, context.source.disk_len());
    report.count(differences(context, old, old.disk_len(), None, &|_, _| {
        Ok(())
    })?);
    let same = report.changed_bytes == 0 && disk_len == old.disk_len();
    report.outcome = match same {
        true => Outcome::Identical,
        false => Outcome::DryRun,
    };
    if mode == Mode::Delta {
        report.written_bytes = report.changed_bytes - report.zeroed_bytes;
    }
    report.reason = reason;
    Ok(report)
}
