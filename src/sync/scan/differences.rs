//! How changes are found: by comparing, against a target manifest, or not at all.

use std::ops::Range;

use super::target_manifest::Keeper;
use crate::delta::Old;
use crate::diff::{CompareOptions, CompareReport, Content, Difference};
use crate::error::{Error, ErrorKind, Result};
use crate::hash::Hash;
use crate::image::Image;
use crate::manifest::RangeSet;
use crate::sync::endpoint::source::SyncContext;
use crate::sync::options::{Safety, Verify};
use crate::sync::source::backend::Search;

/// What moves, piece by piece: the difference, and what is known of the bytes it replaces.
pub(in crate::sync) type OnDifference<'a> =
    dyn Fn(&Difference<'_>, fn(&Difference<'_>) -> Old) -> Result<()> + Sync + 'a;

/// Emits every difference between source and `old`; only in `ranges`, where they are given,
/// and in the change map, where there is one. `old` had `old_len` bytes before the sync.
///
/// # Errors
/// Those of [`compare`](crate::diff::compare), and those of `on_difference`.
pub(in crate::sync) fn differences(
    context: &SyncContext<'_>,
    old: &dyn Image,
    old_len: u64,
    ranges: Option<Vec<Range<u64>>>,
    on_difference: &OnDifference<'_>,
) -> Result<CompareReport> {
    let doubted = match doubts(context) {
        true => change_map(context, old_len),
        false => None,
    };
    let ranges = match doubted {
        Some(_) => ranges.map(|ranges| cut(ranges, context.source.disk_len())),
        None => narrowed(context, old_len, ranges),
    };
    let options = CompareOptions::default()
        .with_skip_unreadable(context.options.skip_unreadable)
        .with_change_map(ranges);
    let visit = |difference: Difference<'_>| {
        let map = doubted.as_ref();
        map.map_or(Ok(()), |map| refuse_missed(map, &difference.range()))?;
        on_difference(&difference, old_bytes)
    };
    let search = Search {
        published: context.source.published(),
        counts_only: context.options.dry_run,
        reads_all: doubts(context),
        ..Search::new(old, context.source.disk_len(), &options)
    };
    Ok(context.source.backend.find(search, context.work, &visit)?.0)
}

/// Whether what stands for reading is checked by reading.
fn doubts(context: &SyncContext<'_>) -> bool {
    context.options.verify == Verify::All && !context.options.dry_run
}

/// Where to look: the part of `ranges` that the change map has, for a target that had `old_len`
/// bytes. Ranges that were coarsened may reach behind the end of the source.
pub(in crate::sync) fn narrowed(
    context: &SyncContext<'_>,
    old_len: u64,
    ranges: Option<Vec<Range<u64>>>,
) -> Option<Vec<Range<u64>>> {
    match (change_map(context, old_len), ranges) {
        (Some(map), Some(ranges)) => {
            let parts = ranges.into_iter().flat_map(|range| map.inside(range));
            Some(parts.collect())
        }
        (Some(map), None) => Some(map.into_vec()),
        (None, ranges) => ranges.map(|ranges| cut(ranges, context.source.disk_len())),
    }
}

fn cut(ranges: Vec<Range<u64>>, len: u64) -> Vec<Range<u64>> {
    let inside = |range: Range<u64>| range.start.min(len)..range.end.min(len);
    ranges.into_iter().map(inside).collect()
}

/// The whole pages that the change map names. What only one of the two disks has is looked at
/// whatever the map says.
fn change_map(context: &SyncContext<'_>, old_len: u64) -> Option<RangeSet> {
    let map = context.options.change_map.as_ref()?;
    let (one, other) = (context.source.disk_len(), old_len);
    let grown = (one != other).then(|| one.min(other)..one.max(other));
    let ranges: Vec<_> = map.iter().cloned().chain(grown).collect();
    let options = CompareOptions::default().with_change_map(Some(ranges));
    Some(RangeSet::of(options.windows(one)))
}

/// # Errors
/// `VerifyFailed` for a difference that a change map does not name.
fn refuse_missed(map: &RangeSet, difference: &Range<u64>) -> Result<()> {
    let mut at = difference.start;
    for part in map.inside(difference.clone()) {
        if part.start > at {
            break;
        }
        at = part.end;
    }
    if at >= difference.end {
        return Ok(());
    }
    let what = "source and target differ where the change map names no change";
    Err(Error::new(ErrorKind::VerifyFailed, what)
        .at_offset(at)
        .advise("the target is untouched; sync again without a change map"))
}

/// Emits everything the source holds, zeros too; no target is looked at. Also returns the
/// root of what was read, where it is known in blocks as the options want them.
///
/// # Errors
/// `Unreadable`, `Io`, `Malformed`, `Cancelled`, and those of `on_difference`.
pub(in crate::sync) fn everything(
    context: &SyncContext<'_>,
    on_difference: &OnDifference<'_>,
) -> Result<(CompareReport, Option<Hash>)> {
    let backend = &context.source.backend;
    let block_size = context.source.block_size_or(context.options.block_size);
    let visit = |difference: Difference<'_>| on_difference(&difference, unknown);
    let (report, root) =
        backend.everything(context.source.disk_len(), block_size, context.work, &visit)?;
    context.source.check_root(root)?;
    let is_wanted = backend.block_size().is_none_or(|its| its == block_size);
    Ok((report, is_wanted.then_some(root)))
}

/// Emits what differs between the source and what a target manifest says of `old`; the
/// target is read only where they differ, and the source only where the change map, if there is
/// one, or the manifest's intents name it. The manifest of what the target will hold goes to the
/// keeper.
///
/// # Errors
/// As [`everything`].
pub(in crate::sync) fn against_kept(
    context: &SyncContext<'_>,
    old: &dyn Image,
    keeper: &Keeper,
    on_difference: &OnDifference<'_>,
) -> Result<(CompareReport, Hash)> {
    let disk_len = context.source.disk_len();
    let map = change_map(context, old.disk_len());
    let doubted = map.as_ref().filter(|_| doubts(context));
    let narrow = map.as_ref().filter(|_| doubted.is_none());
    let options =
        CompareOptions::default().with_change_map(narrow.cloned().map(RangeSet::into_vec));
    let search = Search {
        kept: keeper.trusted(old.disk_len()),
        manifest: context.source.manifest.as_ref(),
        published: context.source.published(),
        next: Some(keeper.writer(disk_len)?),
        reads_all: doubts(context),
        is_logged: context.options.safety == Safety::Atomic,
        ..Search::new(old, disk_len, &options)
    };
    let visit = |difference: Difference<'_>| {
        doubted.map_or(Ok(()), |map| refuse_missed(map, &difference.range()))?;
        on_difference(&difference, old_bytes)
    };
    let (report, root) = context.source.backend.find(search, context.work, &visit)?;
    let root = root.ok_or_else(|| Error::malformed("no manifest came of a comparison"))?;
    Ok((report, root))
}

fn old_bytes(difference: &Difference<'_>) -> Old {
    match difference.old {
        Content::Bytes(bytes) => Old::Hash(Hash::of(bytes)),
        Content::Zeros(_) => Old::Zeros,
    }
}

fn unknown(_difference: &Difference<'_>) -> Old {
    Old::Unknown
}
