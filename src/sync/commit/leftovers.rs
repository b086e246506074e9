//! What unfinished syncs that went another way have left next to a target.

use crate::delta::Delta;
use crate::error::{ErrorKind, Result};
use crate::progress::Work;
use crate::storage::{Access, FileRef};
use crate::sync::endpoint::target::Target;
use crate::sync::endpoint::target::new_file;
use crate::sync::log::previous::previous_log;
use crate::sync::log::sidecar::{self, FRESH};
use crate::sync::marker::format::Marker;
use crate::sync::source::fetch_log::fetch_log;

/// Removes them once a sync onto `target` has ended well: an unfinished full copy, a log or a
/// recovery file that was never finished, and a log that was stashed. Kept are files that this
/// program did not make or another process has open, all files of a marked target, and a complete
/// log under its own name, which may be that of a marked target elsewhere. Durable when it returns.
///
/// # Errors
/// `Io`.
pub(in crate::sync) fn remove(target: &Target, work: &Work) -> Result<()> {
    let is_marked = match target.open_if_there()? {
        Some(storage) => Marker::find(&*storage)?.is_some(),
        None => false,
    };
    let log = target.redo_log();
    // It says nothing of a target that holds all of it.
    let fetched = std::iter::once(fetch_log(log));
    if is_marked {
        return remove_all(fetched);
    }
    let unfinished = is_unfinished(log, target, work)?.then(|| log.clone());
    let file_refs = target.file_ref().map(new_file).into_iter();
    let file_refs = file_refs
        .chain([previous_log(log), log.hidden_sibling(FRESH)])
        .chain(unfinished)
        .chain(fetched);
    remove_all(file_refs)
}

fn remove_all(file_refs: impl Iterator<Item = FileRef>) -> Result<()> {
    for file_ref in file_refs {
        if file_ref.is_there()? && file_ref.directory().remove_unused(file_ref.name())? {
            file_ref.directory().sync()?;
        }
    }
    Ok(())
}

/// Whether a log lies there that was never finished: no target can need it.
fn is_unfinished(log: &FileRef, target: &Target, work: &Work) -> Result<bool> {
    if !log.is_there()? {
        return Ok(false);
    }
    let Ok(file) = log.open_own(Access::Read) else {
        return Ok(false);
    };
    let limits = &target.image_options().limits;
    match sidecar::read(log, limits, work) {
        Ok(Some(_)) => return Ok(false),
        Err(error) if error.kind() != ErrorKind::Malformed => return Ok(false),
        // Another file, or one that was never finished.
        _ => {}
    }
    match Delta::from_storage(file, limits) {
        Err(error) => Ok(error.kind() == ErrorKind::Malformed),
        Ok(_) => Ok(false),
    }
}
