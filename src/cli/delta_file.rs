//! Delta files that are named on the command line.

use std::path::PathBuf;

use crate::delta::Delta;
use crate::storage::{Access, Place, resolve};
use crate::{Limits, Result};

/// Opens a delta file.
///
/// # Errors
/// `NotFound`, `Io`, and those of [`Delta::open`].
pub fn open(path: &PathBuf) -> Result<Delta> {
    let file = Place::host(resolve(path)?)?.open(Access::Read)?;
    Delta::open(file, &Limits::default())
}
