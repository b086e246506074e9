//! Reading back what was written.

use std::ops::Range;

use super::run::Run;
use crate::control::{Phase, Work};
use crate::diff::CompareOptions;
use crate::error::{Error, ErrorKind, Result};
use crate::image::Image;

/// Compares `ranges` of the target, read from the medium, with the source.
///
/// # Errors
/// `VerifyFailed` at the first difference; `Io`, `Unreadable`, `Cancelled`.
pub(super) fn verify_ranges(
    run: &Run<'_>,
    target: &dyn Image,
    ranges: Vec<Range<u64>>,
) -> Result<()> {
    for range in &ranges {
        target.drop_cache(range.clone());
    }
    equal(run, target, Some(ranges))
}

/// Compares all of the target, read from the medium, with the source.
///
/// # Errors
/// As [`verify_ranges`].
pub(super) fn verify_all(run: &Run<'_>, target: &dyn Image) -> Result<()> {
    target.drop_cache(0..target.disk_len());
    equal(run, target, None)
}

fn equal(run: &Run<'_>, target: &dyn Image, ranges: Option<Vec<Range<u64>>>) -> Result<()> {
    let total = ranges
        .as_ref()
        .map(|ranges| ranges.iter().map(|r| r.end - r.start).sum());
    run.work.progress().begin(Phase::Verify, total);
    let options = CompareOptions::default()
        .with_skip_unreadable(run.options.skip_unreadable)
        .with_change_map(ranges);
    run.compare(target, &options, &quiet(run.work), &|difference| {
        Err(Error::new(
            ErrorKind::VerifyFailed,
            "the target does not hold what the source holds",
        )
        .at_offset(difference.offset)
        .advise("sync again; if it comes back, the target's medium or the source is failing"))
    })?;
    Ok(())
}

/// The comparison's own phase would hide this one.
fn quiet(work: &Work) -> Work {
    work.clone()
        .with_progress(std::sync::Arc::new(crate::Silent))
}
