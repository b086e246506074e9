//! Reading back what was written.

use std::ops::Range;

use super::endpoint::source::SyncContext;
use super::options::Verify;
use super::scan::differences::narrowed;
use crate::diff::CompareOptions;
use crate::error::{Error, ErrorKind, Result};
use crate::hash::Hash;
use crate::image::Image;
use crate::manifest::root_of;
use crate::progress::Phase;
use crate::storage::Storage;

/// Compares `ranges` of the target, read from the medium, with the source.
///
/// They hold what was written, and may hold more. The target had `old_len` bytes before the sync.
///
/// # Errors
/// `VerifyFailed` at the first difference; `Io`, `Unreadable`, `Cancelled`.
pub(super) fn verify_ranges(
    context: &SyncContext<'_>,
    target: &dyn Image,
    ranges: Vec<Range<u64>>,
    old_len: u64,
) -> Result<()> {
    for range in &ranges {
        target.drop_cache(range.clone());
    }
    // Where they were rounded out, what the change map leaves out is not looked at all the same.
    equal(context, target, narrowed(context, old_len, Some(ranges)))
}

/// Compares all of the target, read from the medium, with the source.
///
/// # Errors
/// As [`verify_ranges`].
pub(super) fn verify_all(context: &SyncContext<'_>, target: &dyn Image) -> Result<()> {
    target.drop_cache(0..target.disk_len());
    equal(context, target, None)
}

/// Compares all of the target, read from the medium, with the root of what was read of the source,
/// which is not read again.
///
/// # Errors
/// As [`verify_ranges`].
pub(super) fn verify_root(context: &SyncContext<'_>, target: &dyn Image, root: Hash) -> Result<()> {
    target.drop_cache(0..target.disk_len());
    let work = context.work.with_phase(Phase::Verify);
    let size = context.source.block_size_or(context.options.block_size);
    match root_of(target, size, &work)? == root {
        true => Ok(()),
        false => Err(differs()),
    }
}

/// Refuses to rely on a storage that does not check what it is sent; `None` is one that is created.
///
/// # Errors
/// `InvalidInput`.
pub(super) fn refuse_unconfirmed(verify: Verify, storage: Option<&dyn Storage>) -> Result<()> {
    if verify != Verify::Sent || storage.is_some_and(Storage::confirms_writes) {
        return Ok(());
    }
    let what = "the storage of the target does not hold what it is sent against a checksum";
    Err(Error::new(ErrorKind::InvalidInput, what).advise("have what was written read back"))
}

fn differs() -> Error {
    let what = "the target does not hold what the source holds";
    Error::new(ErrorKind::VerifyFailed, what)
        .advise("sync again; if it comes back, the target's medium or the source is failing")
}

fn equal(
    context: &SyncContext<'_>,
    target: &dyn Image,
    ranges: Option<Vec<Range<u64>>>,
) -> Result<()> {
    let ranges = match &context.source.recalled {
        None => ranges,
        Some(recalled) => {
            // The hashes of what was read show most of it without reading the source again.
            let held = recalled.held_by(target, &context.work.with_phase(Phase::Verify))?;
            let all = std::iter::once(0..context.source.disk_len()).collect();
            let parts = ranges.unwrap_or(all).into_iter();
            Some(parts.flat_map(|part| held.gaps(part)).collect())
        }
    };
    let options = CompareOptions::default()
        .with_skip_unreadable(context.options.skip_unreadable)
        .with_change_map(ranges);
    let work = context.work.with_phase(Phase::Verify);
    let compared = context.compare(target, &options, &work, &|difference| {
        Err(differs().at_offset(difference.offset))
    });
    // A source that was written to meanwhile is no fault of the target.
    let kinds = [ErrorKind::VerifyFailed];
    compared
        .map(drop)
        .map_err(|error| context.or_change_behind(error, &kinds))
}
