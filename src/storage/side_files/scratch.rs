//! Files for intermediate results.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::random::random;
use crate::storage::{Directory, FileStorage, HostDirectory, Storage};

/// A new, empty file without a name that only this process can open; it is gone when it is
/// closed, also by a crash.
///
/// It is in the directory of the file `near`, or where that cannot be, in the system's directories
/// for temporary files; in memory only where nothing else can be had.
///
/// # Errors
/// `NoSpace`, `Io`: no directory takes one.
pub(crate) fn scratch(near: &Path) -> Result<Arc<dyn Storage>> {
    let beside = near.parent().filter(|_| near.is_file());
    // A relative path ends in nothing, which is here.
    let beside = beside.map(|directory| match directory.as_os_str().is_empty() {
        true => PathBuf::from("."),
        false => directory.to_owned(),
    });
    let directories: Vec<PathBuf> = beside
        .into_iter()
        .chain([env::temp_dir(), PathBuf::from("/var/tmp")])
        .collect();
    let mut failed = None;
    for in_memory in [false, true] {
        for directory in &directories {
            match scratch_in(directory, in_memory) {
                Ok(Some(file)) => return Ok(file),
                Ok(None) => {}
                Err(error) => failed = failed.or(Some(error)),
            }
        }
    }
    Err(failed.unwrap_or_else(|| {
        let what = "no directory takes a temporary file";
        Error::new(ErrorKind::Io, what).advise("name one by the variable TMPDIR")
    }))
}

/// `None` where the directory is not wanted.
fn scratch_in(path: &Path, in_memory: bool) -> Result<Option<Arc<dyn Storage>>> {
    let directory = HostDirectory::open(path)?;
    if directory.is_volatile()? != in_memory {
        return Ok(None);
    }
    if let Ok(Some(file)) = FileStorage::nameless(path) {
        return Ok(Some(Arc::new(file)));
    }
    let id: [u8; 16] = random()?;
    let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let name = OsString::from(format!(".diskdelta-scratch-{hex}"));
    let file = directory.create_new(&name)?;
    directory.remove(&name)?;
    Ok(Some(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scratch_file_holds_what_is_written_and_has_no_name() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("log"), b"log").unwrap();
        for near in [home.path().join("log"), home.path().join("no/such/file")] {
            let file = scratch(&near).unwrap();
            file.write_all_at(&[7; 100], 5000).unwrap();
            let mut bytes = [0; 100];
            file.read_exact_at(&mut bytes, 5000).unwrap();
            assert_eq!(bytes, [7; 100]);
            assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 1);
        }
    }
}
