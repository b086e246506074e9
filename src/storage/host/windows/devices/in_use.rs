//! Whether source and target are the same file. Who else uses a file shows when it is opened.

use crate::error::{Error, ErrorKind, Result};
use crate::storage::HostFile;

/// Refuses nothing: the share modes of others do when the file is opened.
///
/// # Errors
/// None.
pub fn refuse_in_use(_host: &HostFile) -> Result<()> {
    Ok(())
}

/// Refuses a target that is a source under whatever name.
///
/// # Errors
/// `InUse`.
pub fn refuse_overlap(source: &HostFile, target: &HostFile) -> Result<()> {
    if !source.is_same(target) {
        return Ok(());
    }
    let what = format!(
        "source and target share their bytes: {} is the source",
        source.path().display()
    );
    Err(Error::new(ErrorKind::InUse, what)
        .at_path(target.path())
        .advise("name two different disks"))
}
