//! The manifest that is kept of a target from one sync to the next.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::run::Run;
use super::target::Target;
use crate::error::{ErrorKind, Result};
use crate::manifest::{KeptManifest, ManifestWriter, refuse_other};
use crate::storage::{Access, Place, Storage};
use crate::units::BlockSize;

/// A kept manifest, its successor while a sync runs, and the intent between them.
pub(super) struct Keeper {
    place: Place,
    kept: Option<KeptManifest>,
    next: Arc<dyn Storage>,
    block_size: BlockSize,
}

impl Keeper {
    /// Opens the manifest that the options name; `None` where they name none. One that is not
    /// there, or that is damaged, is begun anew: then the target is read.
    ///
    /// # Errors
    /// `AlreadyExists` where something else lies there; `Io`, `NoSpace`, `LimitExceeded`.
    pub fn open(run: &Run<'_>) -> Result<Option<Keeper>> {
        let Some(place) = run.options.target_manifest.clone() else {
            return Ok(None);
        };
        refuse_other(&place)?;
        let kept = match place.open_if_there(Access::Write)? {
            None => None,
            Some(storage) => match KeptManifest::open(storage, run.limits()) {
                Err(error) if error.kind() == ErrorKind::Malformed => {
                    run.work
                        .progress()
                        .note(&format!("{error}; the target is read instead"));
                    None
                }
                kept => Some(kept?),
            },
        };
        let next = next_place(&place);
        next.remove_if_there()?;
        let block_size = kept
            .as_ref()
            .map_or(run.options.block_size, |kept| kept.manifest().block_size());
        Ok(Some(Keeper {
            kept,
            next: next.create_new()?,
            place,
            block_size,
        }))
    }

    /// Where it is kept.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Blocks of the manifest.
    pub fn block_size(&self) -> BlockSize {
        self.block_size
    }

    /// What stands for reading a target of `disk_len` bytes, if anything does.
    pub fn believed(&self, disk_len: u64) -> Option<&KeptManifest> {
        self.kept
            .as_ref()
            .filter(|kept| kept.manifest().disk_len() == disk_len)
    }

    /// Takes the manifest of the source.
    ///
    /// # Errors
    /// `Io`, `NoSpace`.
    pub fn writer(&self, disk_len: u64) -> Result<ManifestWriter> {
        ManifestWriter::create(self.next.clone(), disk_len, self.block_size)
    }

    /// Says durably that these ranges of the target are about to change, before they do.
    ///
    /// # Errors
    /// `Io`, `NoSpace`.
    pub fn announce(&self, ranges: impl IntoIterator<Item = Range<u64>>) -> Result<()> {
        self.next.sync()?;
        self.place.folder().sync()?;
        // What this run believes stays what it was when it began.
        self.kept
            .clone()
            .map_or(Ok(()), |mut kept| kept.mark(ranges))
    }

    /// Puts the successor in its place: the target is durable. Durable when it returns.
    ///
    /// # Errors
    /// `Io`, `NoSpace`.
    pub fn replace(&self) -> Result<()> {
        self.next.sync()?;
        rename(&self.place)
    }
}

/// Does for a recovered target what the sync would have done: `path` is what its job recorded.
/// Without the successor the marks stay, and the marked ranges are read the next time.
///
/// # Errors
/// `Io`.
pub(super) fn replace_recovered(target: &Target, path: &Path) -> Result<()> {
    let place = target.place_beside(path)?;
    if next_place(&place).open_if_there(Access::Read)?.is_some() {
        rename(&place)
    } else {
        Ok(())
    }
}

fn rename(place: &Place) -> Result<()> {
    place
        .folder()
        .rename(next_place(place).name(), place.name())?;
    place.folder().sync()
}

/// Where the manifest of the source waits until the target is durable.
fn next_place(place: &Place) -> Place {
    place.hidden_sibling("next")
}
