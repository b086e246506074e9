//! Delta files that are named on the command line.

use std::path::PathBuf;

use diskdelta::delta::Delta;
use diskdelta::storage::{Access, Place, resolve};
use diskdelta::{Limits, Result};

/// Opens a delta file.
///
/// # Errors
/// `NotFound`, `Io`, and those of [`Delta::open`].
pub fn open(path: &PathBuf) -> Result<Delta> {
    let file = Place::host(resolve(path)?)?.open(Access::Read)?;
    Delta::open(file, &Limits::default())
}
