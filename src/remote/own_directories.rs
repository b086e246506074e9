//! What no job may name: the files and directories that the agent itself acts on.

use std::path::Path;

use crate::error::{Error, ErrorKind, Result};
use crate::storage::{FileId, is_side_directory, is_side_name, resolve};

/// The agent's own directories, by what they are: another name for one is no way in.
pub(crate) struct OwnDirectories(Vec<FileId>);

impl OwnDirectories {
    /// Those of `directories` that are there.
    ///
    /// # Errors
    /// `Io`.
    pub(crate) fn of<'a>(directories: impl IntoIterator<Item = &'a Path>) -> Result<Self> {
        let ids = directories
            .into_iter()
            .filter_map(|directory| id_of(directory).transpose());
        Ok(OwnDirectories(ids.collect::<Result<_>>()?))
    }

    /// Refuses a path, wherever links on it lead: one that lies in a directory of the agent's own,
    /// or has a name of files that this program makes next to others and trusts.
    ///
    /// # Errors
    /// `InvalidInput`; `NotFound` for a missing directory; `Io`.
    pub(crate) fn refuse(&self, path: &Path) -> Result<()> {
        let refused = |what: &'static str| {
            Err(Error::new(ErrorKind::InvalidInput, what)
                .at_path(path)
                .advise("give the disk another name"))
        };
        let real = resolve(path)?;
        // A link is refused by its own name, too: what it leads to may change.
        for path in [path, &real] {
            if path.file_name().is_some_and(is_side_name) {
                return refused("this name is reserved for files of diskdelta");
            }
            let mut directories = path.ancestors().skip(1).filter_map(Path::file_name);
            if directories.any(is_side_directory) {
                return refused("this directory is reserved for diskdelta");
            }
        }
        for directory in real.ancestors() {
            if id_of(directory)?.is_some_and(|id| self.0.contains(&id)) {
                return refused("this directory is the agent's own");
            }
        }
        Ok(())
    }
}

/// Whether `directory` is `outer`, or lies in it, by what they are; both must be there.
///
/// # Errors
/// `NotFound`, `Io`.
#[cfg(feature = "failback")]
pub(crate) fn lies_within(directory: &Path, outer: &Path) -> Result<bool> {
    let outer = id_of(outer)?;
    let real = resolve(directory)?;
    for directory in real.ancestors() {
        if outer.is_some() && id_of(directory)? == outer {
            return Ok(true);
        }
    }
    Ok(false)
}

fn id_of(path: &Path) -> Result<Option<FileId>> {
    match FileId::at(path) {
        Ok(id) => Ok(Some(id)),
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(Error::io("inspect", cause).at_path(path)),
    }
}
