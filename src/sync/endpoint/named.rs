//! Whether a target is still what its name says.

use super::target::Target;
use crate::advice::Advice;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::{FileRef, HostFile, HostKind, Storage};

/// Checks that the name of `target` still leads to `storage`, the file or device that was opened.
/// What is no file or device of this host has no name that could change.
///
/// # Errors
/// `TargetChanged`; `Io`.
pub(in crate::sync) fn check_name(target: &Target, storage: &dyn Storage) -> Result<()> {
    match storage.host_file()? {
        Some(opened) => leads_to(target, &opened),
        None => Ok(()),
    }
}

/// Checks that the name of `target` leads to `wanted`.
///
/// # Errors
/// `TargetChanged`; `Io`.
pub(in crate::sync) fn leads_to(target: &Target, wanted: &HostFile) -> Result<()> {
    let name = target.name();
    let what = match HostFile::at(&name) {
        Ok(now) if now.is_same(wanted) => return Ok(()),
        Ok(now) if now.kind() == HostKind::Device => "leads to another device now",
        Ok(_) => "leads to another file now",
        Err(error) if error.kind() == ErrorKind::NotFound => "was removed",
        Err(error) if error.kind() == ErrorKind::Unsupported => "leads to no disk any more",
        Err(error) => return Err(error),
    };
    Err(Error::new(
        ErrorKind::TargetChanged,
        format!("the name of the target {what}; it was changed while the target was open"),
    )
    .at_path(name)
    .advise("find out what removed or replaced the target, and run it again"))
}

/// Checks that the name of a log, or of another file that recovery needs, still leads to `file`:
/// once it is marked, the target is lost without that file.
///
/// # Errors
/// `NotFound` where it does not; `Io`.
pub(in crate::sync) fn check_log(file_ref: &FileRef, file: &dyn Storage) -> Result<()> {
    if file.file_id()?.is_none() || file_ref.leads_to(file)? {
        return Ok(());
    }
    let what = "the file was removed or replaced while it was in use";
    Err(Error::new(ErrorKind::NotFound, what).at_path(file_ref.path()))
}

/// Checks that there is a file still at `file_ref`, which was written just now.
///
/// # Errors
/// `NotFound`; `Io`.
pub(in crate::sync) fn check_there(file_ref: &FileRef) -> Result<()> {
    if file_ref.is_there()? {
        return Ok(());
    }
    let what = "the file was removed right after it was written";
    Err(Error::new(ErrorKind::NotFound, what).at_path(file_ref.path()))
}

/// Refuses to replace a file that has further names, unless `target` allows it: they would keep
/// the old bytes.
///
/// # Errors
/// `Unsupported`; `Io`.
pub(in crate::sync) fn refuse_parting(target: &Target, storage: &dyn Storage) -> Result<()> {
    if target.parts_links() {
        return Ok(());
    }
    let links = storage.host_file()?.map_or(1, |host| host.link_count());
    if links <= 1 {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Unsupported,
        format!("the file has {links} names, and a full copy that replaces it would separate them"),
    )
    .at_path(storage.path())
    .advise("remove the other hard links")
    .or_advise(Advice::DeltaMode)
    .or_advise(Advice::InPlace))
}
