//! Which names the outputs of a sync may have: none that another file of the same sync has.

use crate::error::{Error, ErrorKind, Result};
use crate::storage::{FileRef, is_side_name};
use crate::sync::endpoint::source::Source;
use crate::sync::endpoint::target::Target;
use crate::sync::endpoint::target::new_file;
use crate::sync::log::previous::previous_log;
use crate::sync::log::sidecar::fresh_log;
use crate::sync::options::SyncOptions;
use crate::sync::source::fetch_log::fetch_log;

/// Refuses outputs that would take the place of each other, of the target, of a file of the source,
/// or of a file that the sync makes next to the target; and a source that is such a file. Nothing
/// is changed.
///
/// # Errors
/// `InvalidInput`, with the path of the file; `Io`.
pub(in crate::sync) fn refuse_shared_names(
    source: &Source,
    target: &Target,
    options: &SyncOptions,
) -> Result<()> {
    let outputs = [&options.undo, &options.target_manifest];
    if let [Some(undo), Some(manifest)] = outputs
        && undo.is_same(manifest)?
    {
        return Err(shared(manifest, "the undo file"));
    }
    let redo_log = target.redo_log();
    let mut own = vec![
        redo_log.clone(),
        previous_log(redo_log),
        fresh_log(redo_log),
        fetch_log(redo_log),
    ];
    own.extend(target.file_ref().map(new_file));
    for output in outputs.into_iter().flatten() {
        let mut is_near = output.is_beside(redo_log)?;
        if let Some(file_ref) = target.file_ref() {
            if output.is_same(file_ref)? {
                return Err(shared(output, "the target"));
            }
            is_near |= output.is_beside(file_ref)?;
        }
        if output.is_same(redo_log)? || (is_near && is_side_name(output.name())) {
            return Err(shared(
                output,
                "a file that diskdelta makes next to the target",
            ));
        }
    }
    let files = source.files()?;
    for file_ref in own.iter().chain(outputs.into_iter().flatten()) {
        let there = file_ref.directory().file_id(file_ref.name())?;
        if there.is_some() && files.iter().any(|file| Some(file.id()) == there) {
            return Err(shared(file_ref, "a file of the source"));
        }
    }
    Ok(())
}

fn shared(file_ref: &FileRef, with: &str) -> Error {
    let what = format!("this name is also that of {with}");
    Error::new(ErrorKind::InvalidInput, what)
        .at_path(file_ref.path())
        .advise("nothing was changed; give each file a name of its own")
}
