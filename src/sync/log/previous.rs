//! The redo log of an earlier run, and the end of one whose work is done.

use crate::error::Result;
use crate::storage::{Access, FileRef};

/// Where the redo log of an earlier run waits while a new one is written.
pub(in crate::sync) fn previous_log(redo_log: &FileRef) -> FileRef {
    redo_log.hidden_sibling("previous")
}

/// Moves a redo log that an earlier run left out of the way. Where an older one is still there, the
/// longer of the two is kept: the newer one was to take all of the older over, and may not have got
/// that far. Durable once the directory is synced.
///
/// # Errors
/// `Io`.
pub(in crate::sync) fn stash(redo_log: &FileRef) -> Result<Option<FileRef>> {
    let aside = previous_log(redo_log);
    let len = |file_ref: &FileRef| {
        let opened = file_ref.open_own_if_there(Access::Read)?;
        opened.map(|file| file.len()).transpose()
    };
    let (newer, older) = (len(redo_log)?, len(&aside)?);
    match (newer, older) {
        (None, None) => return Ok(None),
        (None, Some(_)) => {}
        (Some(newer), Some(older)) if older >= newer => redo_log.remove_if_there()?,
        (Some(_), _) => redo_log.directory().rename(redo_log.name(), aside.name())?,
    }
    Ok(Some(aside))
}

/// Removes the redo log of an earlier run that was stashed; whether there was one. Durable once the
/// directory is synced.
///
/// # Errors
/// `Io`.
pub(in crate::sync) fn remove_previous(redo_log: &FileRef) -> Result<bool> {
    let previous = previous_log(redo_log);
    let was_there = previous.is_there()?;
    if was_there {
        previous.remove_own_if_there()?;
    }
    Ok(was_there)
}

/// Removes a redo log whose work is done. Durable when it returns.
///
/// # Errors
/// `Io`.
pub(in crate::sync) fn retire(redo_log: &FileRef) -> Result<()> {
    redo_log.remove_if_there()?;
    redo_log.directory().sync()
}
