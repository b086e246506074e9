//! What makes no sense, whatever source and target hold.

use std::sync::Arc;

use super::endpoint::source::{Source, SyncContext};
use super::options::{Mode, Safety, SyncOptions};
use crate::advice::Advice;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::{Storage, refuse_overlap};

/// Refuses options that do not go with each other, or with the source.
///
/// # Errors
/// `InvalidInput`.
pub(super) fn refuse_contradictions(source: &Source, options: &SyncOptions) -> Result<()> {
    refuse_change_map(options)?;
    refuse_atomic_hold(options)?;
    refuse_gaps_with_manifest(options)?;
    refuse_with_published(source, options)
}

fn refuse_change_map(options: &SyncOptions) -> Result<()> {
    let what = match (&options.change_map, &options.since) {
        (Some(_), Some(_)) => "a change map and what changed since a snapshot are two change maps",
        (None, None) => return Ok(()),
        _ if options.mode != Mode::Full => return Ok(()),
        (Some(_), None) => "a change map does not go with a full copy",
        (None, Some(_)) => "what changed since a snapshot does not go with a full copy",
    };
    Err(Error::new(ErrorKind::InvalidInput, what))
}

fn refuse_atomic_hold(options: &SyncOptions) -> Result<()> {
    if !options.hold || options.safety == Safety::InPlace {
        return Ok(());
    }
    let what = "a target can only be held when it is written in place";
    Err(Error::new(ErrorKind::InvalidInput, what).advise(Advice::InPlace))
}

/// Refuses what would leave blocks unread that a published manifest is to be held against.
fn refuse_with_published(source: &Source, options: &SyncOptions) -> Result<()> {
    let has_map = options.change_map.is_some() || options.since.is_some();
    let what = match source.published() {
        Some(_) if options.skip_unreadable => "unreadable ranges cannot be skipped",
        Some(_) if has_map => "no change map is of use",
        _ => return Ok(()),
    };
    let what = format!("{what} where a manifest states what the source holds");
    Err(Error::new(ErrorKind::InvalidInput, what))
}

fn refuse_gaps_with_manifest(options: &SyncOptions) -> Result<()> {
    if !options.skip_unreadable || options.target_manifest.is_none() {
        return Ok(());
    }
    let what = "a target manifest stands for all of a source, and cannot be kept where unreadable \
                ranges are skipped";
    Err(Error::new(ErrorKind::InvalidInput, what)
        .advise(Advice::WithoutSkipUnreadable)
        .or_advise(Advice::WithoutTargetManifest))
}

/// Refuses a target that shares its bytes with the source, also where the caller named no sources
/// when it opened the target.
pub(super) fn refuse_own_source(source: &Source, target: &Arc<dyn Storage>) -> Result<()> {
    if source.is_in(target) {
        let what = "source and target are one storage";
        return Err(Error::new(ErrorKind::InUse, what).at_path(target.path()));
    }
    let Some(target) = target.host_file()? else {
        return Ok(());
    };
    let mut files = source.files()?.into_iter();
    files.try_for_each(|file| refuse_overlap(&file, &target))
}

/// Refuses an undo file where `what` is done, which writes none.
pub(super) fn refuse_undo(context: &SyncContext<'_>, what: &str) -> Result<()> {
    if context.options.undo.is_none() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidInput,
        format!("{what} cannot write the way back"),
    )
    .advise(Advice::AtomicDelta))
}
