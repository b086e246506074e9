//! Which names the outputs of a sync may have: none that another file of the same sync has.

use crate::error::{Error, ErrorKind, Result};
use crate::storage::{Place, is_side_name};
use crate::sync::commit::atomic::earlier_place;
use crate::sync::commit::full_copy::new_place;
use crate::sync::commit::sidecar::fresh_place;
use crate::sync::endpoint::source::Source;
use crate::sync::endpoint::target::Target;
use crate::sync::options::SyncOptions;

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
    let stage = target.stage();
    let mut own = vec![stage.clone(), earlier_place(stage), fresh_place(stage)];
    own.extend(target.file_place().map(new_place));
    for output in outputs.into_iter().flatten() {
        let mut is_near = output.is_beside(stage)?;
        if let Some(place) = target.file_place() {
            if output.is_same(place)? {
                return Err(shared(output, "the target"));
            }
            is_near |= output.is_beside(place)?;
        }
        if output.is_same(stage)? || (is_near && is_side_name(output.name())) {
            return Err(shared(
                output,
                "a file that diskdelta makes next to the target",
            ));
        }
    }
    let files = source.image.files()?;
    for place in own.iter().chain(outputs.into_iter().flatten()) {
        let there = place.directory().file_id(place.name())?;
        if there.is_some() && files.iter().any(|file| Some(file.id()) == there) {
            return Err(shared(place, "a file of the source"));
        }
    }
    Ok(())
}

fn shared(place: &Place, with: &str) -> Error {
    let what = format!("this name is also that of {with}");
    Error::new(ErrorKind::InvalidInput, what)
        .at_path(place.path())
        .advise("nothing was changed; give each file a name of its own")
}
