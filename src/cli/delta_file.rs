//! Delta files that are named on the command line.

use std::path::PathBuf;

use crate::delta::Delta;
use crate::storage::{Access, FileRef, resolve};
use crate::{Limits, Result};

/// Opens a delta file.
///
/// # Errors
/// `NotFound`, `Io`, and those of [`Delta::from_storage`].
pub(super) fn open(path: &PathBuf) -> Result<Delta> {
    let file = FileRef::host(resolve(path)?)?.open(Access::Read)?;
    Delta::from_storage(file, &Limits::default())
}
