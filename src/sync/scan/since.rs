//! What changed since the snapshot that the target holds.

use std::ops::Range;

use super::target_manifest::recorded_source;
use crate::error::Result;
use crate::location::WebAddress;
use crate::sync::endpoint::source::SyncContext;
use crate::sync::source::history::ChangedSince;
use crate::units::format_size;

/// Where to look for changes since a snapshot of the source.
pub(in crate::sync) enum Since {
    /// In these ranges; the text tells on what evidence.
    Within(Vec<Range<u64>>, String),
    /// Everywhere, for this reason.
    Everywhere(String),
}

/// Asks the source what changed since `older`, which the target must be recorded to hold unless it
/// is trusted to.
///
/// # Errors
/// `SourceChanged`, `Cancelled`; those of reading the target manifest.
pub(in crate::sync) fn changes(context: &SyncContext<'_>, older: &WebAddress) -> Result<Since> {
    let everywhere = |why: &str| Ok(Since::Everywhere(why.to_owned()));
    let Some(history) = &context.source.history else {
        return everywhere("the source knows no earlier snapshots");
    };
    let holds = match &context.options.target_manifest {
        Some(file_ref) => recorded_source(file_ref, context.limits())?,
        None => None,
    };
    if holds.is_some() && holds == context.source.identity() {
        let note = "the target was made from this very snapshot".to_owned();
        return Ok(Since::Within(Vec::new(), note));
    }
    if holds.is_none() && !context.options.trust_target {
        return everywhere("no snapshot is recorded of the target");
    }
    let found = history.changed_since(older, holds.as_ref(), context.work.cancel())?;
    Ok(match found {
        ChangedSince::Unknown(why) => Since::Everywhere(why),
        ChangedSince::Known(ranges) => {
            let bytes = ranges.iter().map(|range| range.end - range.start).sum();
            let (bytes, count) = (format_size(bytes), ranges.len());
            let note = format!(
                "only what changed since {older} was looked for: {bytes} in {count} ranges, which \
                 the service lists as changed, or as allocated in one of the snapshots alone"
            );
            Since::Within(ranges, note)
        }
    })
}
