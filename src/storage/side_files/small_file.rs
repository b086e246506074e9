//! Small files that this program keeps: put there whole, and taken for its own or not at all.

use std::ffi::{OsStr, OsString};

use crate::error::{Error, ErrorKind, Result};
use crate::storage::{Access, Directory};

/// Puts a file there, whole or not at all, in place of an earlier one, for its owner alone. What
/// has the name, a link too, is neither followed nor written to. Durable when this returns.
pub(crate) fn put(directory: &dyn Directory, name: &str, bytes: &[u8]) -> Result<()> {
    let part = written(directory, name, "new", bytes, true)?;
    directory.rename(&part, OsStr::new(name))?;
    directory.sync()
}

/// Puts a file there, whole or not at all, in place of an earlier one, for its owner alone. It need
/// not outlive a crash; `suffix` tells this writer apart from others.
pub(crate) fn put_for_now(
    directory: &dyn Directory,
    name: &str,
    suffix: &str,
    bytes: &[u8],
) -> Result<()> {
    let part = written(directory, name, suffix, bytes, false)?;
    directory.rename(&part, OsStr::new(name))
}

/// What a file of ours holds; `None` where there is none.
///
/// # Errors
/// `Untrusted` for a file that this program did not make; `LimitExceeded` for more than `most`
/// bytes; `Io`.
pub(crate) fn get(directory: &dyn Directory, name: &str, most: u64) -> Result<Option<Vec<u8>>> {
    let file = match directory.open_own(OsStr::new(name), Access::Read) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let len = file.len()?;
    if len > most {
        let text = format!("a file of {len} bytes, where {most} are the most");
        return Err(Error::new(ErrorKind::LimitExceeded, text).at_path(directory.path().join(name)));
    }
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(Some(bytes))
}

/// Removes a file, if it is there. Durable when this returns.
#[cfg(feature = "qemu")]
pub(crate) fn clear(directory: &dyn Directory, name: &str) -> Result<()> {
    remove_if_there(directory, OsStr::new(name))?;
    directory.sync()
}

fn written(
    directory: &dyn Directory,
    name: &str,
    suffix: &str,
    bytes: &[u8],
    durable: bool,
) -> Result<OsString> {
    let part = OsString::from(format!("{name}.{suffix}"));
    // Left by a crash, or put there to be written through.
    remove_if_there(directory, &part)?;
    let file = directory.create_new(&part)?;
    file.write_all_at(bytes, 0)?;
    if durable {
        file.sync()?;
    }
    Ok(part)
}

fn remove_if_there(directory: &dyn Directory, name: &OsStr) -> Result<()> {
    match directory.remove(name) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
#[path = "../../../tests/inside/small_file.rs"]
mod tests;
