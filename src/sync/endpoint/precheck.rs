//! What can be tried before anything is compared: permission and lengths. Nothing is changed, so
//! a dry run tries it too.

use super::source::SyncContext;
use super::target::Target;
use crate::advice::Advice;
use crate::error::{Error, Result};
use crate::image::{CreateFormat, Format, Image};
use crate::storage::{FileRef, Storage};
use crate::target_state::TargetState;

/// For a copy that takes the target's name; `old` is the target that is there now.
///
/// # Errors
/// `Io` for a directory that cannot be written; `NoSpace` for a file that would be too long; those
/// of [`check`](crate::image::CreateOptions::check).
pub(in crate::sync) fn for_copy(context: &SyncContext<'_>, old: Option<&dyn Image>) -> Result<()> {
    let Some(file_ref) = context.target.file_ref() else {
        return Ok(());
    };
    let there = old.is_some();
    writable(file_ref).map_err(|error| match there {
        true => error
            .leaving(TargetState::Untouched)
            .advise("the target is untouched")
            .or_advise(Advice::DeltaWithLogDirectory),
        false => error.advise("nothing was made; name a target in a directory that can be written"),
    })?;
    let disk_len = context.target_len(old.map(|old| old.disk_len()))?;
    let old = old.map(|old| old.info());
    let source = context.source.info();
    let create = context
        .target
        .create_options(&source, old.as_ref(), disk_len);
    create.check()?;
    if matches!(create.format, CreateFormat::Raw | CreateFormat::VhdFixed) {
        file_ref
            .directory()
            .check_len(disk_len)
            .map_err(|error| match there {
                true => too_long(error),
                false => error.advise(
                    "nothing was made; name a target on a file system, or run this with a limit, \
                 that allows such a file",
                ),
            })?;
    }
    outputs(context)
}

/// For a change of `storage`, the target, to a disk of `disk_len` bytes.
///
/// # Errors
/// `NoSpace` for a file that would be too long.
pub(in crate::sync) fn new_length(
    target: &Target,
    storage: &dyn Storage,
    disk_len: u64,
) -> Result<()> {
    // Its last bytes are written too, by the marker. How long the other formats become is known
    // once their blocks have places.
    let len = storage.len()?;
    let longest = match target.format() {
        Format::Raw => len.max(disk_len),
        _ => len,
    };
    storage.check_len(longest).map_err(too_long)
}

/// For all that goes beside a change that is known to be one.
///
/// # Errors
/// `Io` for a directory that cannot be written.
pub(in crate::sync) fn for_logs(context: &SyncContext<'_>) -> Result<()> {
    log_directory(context.target.redo_log())?;
    context.options.undo.iter().try_for_each(undo_directory)
}

/// For the log of a change that is known to be one.
///
/// # Errors
/// `Io` for a directory that cannot be written.
pub(in crate::sync) fn log_directory(redo_log: &FileRef) -> Result<()> {
    writable(redo_log).map_err(|error| {
        error
            .leaving(TargetState::Untouched)
            .advise("the target is untouched")
            .or_advise(Advice::LogDirectory)
    })
}

/// For the way back from a change that is known to be one.
///
/// # Errors
/// `Io` for a directory that cannot be written.
pub(in crate::sync) fn undo_directory(undo: &FileRef) -> Result<()> {
    output(undo)
}

/// For what is written whether or not anything differs.
///
/// # Errors
/// `Io` for a directory that cannot be written.
pub(in crate::sync) fn outputs(context: &SyncContext<'_>) -> Result<()> {
    context.options.target_manifest.iter().try_for_each(output)
}

fn output(file_ref: &FileRef) -> Result<()> {
    writable(file_ref).map_err(|e| {
        e.leaving(TargetState::Untouched)
            .advise("the target is untouched; name a file in another directory")
    })
}

fn writable(file_ref: &FileRef) -> Result<()> {
    file_ref.directory().check_writable()
}

/// Says what to do about a target that would be too long.
pub(in crate::sync) fn too_long(error: Error) -> Error {
    error.leaving(TargetState::Untouched).advise(
        "the target is untouched; store it on a file system, or run this with a limit, that \
         allows such a file",
    )
}
