//! Paths with their links followed.

use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::error::{Error, ErrorKind, Result};
use crate::path_bytes::bytes_of;
use crate::storage::host::windows::host_file::refuse_devices;
use crate::storage::host::windows::names::refuse_odd_name;

/// The path with every link followed, in the form that has no greatest length (`\\?\`); its last
/// part may be missing.
///
/// # Errors
/// `NotFound` when a directory on the way is missing; `InvalidInput` for a name that Windows takes
/// for something else; `Unsupported` for devices; `Io`.
pub fn resolve(path: impl AsRef<Path>) -> Result<PathBuf> {
    let given = path.as_ref();
    refuse_devices(given)?;
    let failed = |cause: io::Error| Error::io("resolve", cause).at_path(given);
    let ends_as_directory = bytes_of(given).ends_with(b"/") || bytes_of(given).ends_with(b"\\");
    if ends_as_directory && !given.is_dir() {
        let what = "a path that ends with a slash names a directory";
        return Err(Error::new(ErrorKind::InvalidInput, what)
            .at_path(given)
            .advise("name a file"));
    }
    if let Some(name) = given.file_name() {
        refuse_odd_name(name).map_err(|error| error.at_path(given))?;
    }
    match fs::canonicalize(given) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
        outcome => return outcome.map_err(failed),
    }
    let Some(name) = given.file_name() else {
        return Err(failed(io::ErrorKind::NotFound.into()));
    };
    let directory = match given.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        _ => Path::new("."),
    };
    let missing = fs::canonicalize(directory).map_err(failed)?.join(name);
    match fs::symlink_metadata(&missing) {
        Ok(_) => Err(Error::new(
            ErrorKind::Unsupported,
            "a link that leads nowhere is not followed on Windows",
        )
        .at_path(given)
        .advise("name the file itself that it leads to")),
        Err(_) => Ok(missing),
    }
}

/// As [`resolve`], for what is written.
///
/// # Errors
/// Those of [`resolve`].
pub fn resolve_to_write(path: impl AsRef<Path>) -> Result<PathBuf> {
    resolve(path)
}
