//! Paths kept to a directory part by part: every directory on the way is held open, so that it can
//! neither be renamed nor replaced, and nothing that leads elsewhere is followed.

use std::fs::{self, File};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::path_bytes::path_of;
use crate::storage::{FileId, HostFile, hold_directory, refuse_odd_name};

/// A directory that nothing asked for by a peer may lie outside of.
#[derive(Debug)]
pub struct Sandbox {
    directory: Arc<File>,
    path: PathBuf,
}

/// Where a path leads to that is kept to the directory.
#[derive(Debug, Clone)]
pub struct SandboxPath {
    /// The same place by a path without links.
    pub path: PathBuf,
    /// What lies there; `None` where nothing does.
    id: Option<FileId>,
    /// The directories on the way, which stay what they are as long as these are open.
    _held: Vec<Arc<File>>,
}

impl Sandbox {
    /// The directory at `path`.
    ///
    /// # Errors
    /// `NotFound`, `Io`.
    pub fn open(path: impl AsRef<Path>) -> Result<Sandbox> {
        let path = path.as_ref();
        let failed =
            |cause: std::io::Error| Error::io("open the root of this agent", cause).at_path(path);
        let path = fs::canonicalize(path).map_err(failed)?;
        let directory = Arc::new(hold_directory(&path)?);
        Ok(Sandbox { directory, path })
    }

    /// Where `asked` leads from this directory, as if it were the root of all. No link is followed,
    /// and there is no way up.
    ///
    /// # Errors
    /// `InvalidInput` for a path that leads outside or through a link, or to no name; `NotFound`
    /// for a missing directory; `Io`.
    pub fn resolve(&self, asked: &[u8]) -> Result<SandboxPath> {
        let asked = path_of(asked);
        let (path, held) = self.way(&asked)?;
        let id = match fs::symlink_metadata(&path) {
            Ok(facts) if facts.is_symlink() => return Err(outside(&asked)),
            Ok(_) => Some(FileId::of_name(&path).map_err(|e| failed(e, &asked))?),
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => None,
            Err(cause) => return Err(failed(cause, &asked)),
        };
        Ok(SandboxPath {
            path,
            id,
            _held: held,
        })
    }

    /// Where `asked` leads to, which may be a file that is renamed or missing now and then.
    ///
    /// # Errors
    /// As [`resolve`](Sandbox::resolve).
    pub fn resolve_new(&self, asked: &Path) -> Result<PathBuf> {
        let (path, _) = self.way(asked)?;
        match fs::symlink_metadata(&path) {
            Ok(facts) if facts.is_symlink() => Err(outside(asked)),
            _ => Ok(path),
        }
    }

    /// Refuses files that do not lie inside: parents of an image, say.
    ///
    /// # Errors
    /// As [`resolve`](Sandbox::resolve).
    pub fn check(&self, files: &[HostFile]) -> Result<()> {
        for file in files {
            let real = fs::canonicalize(file.path())
                .map_err(|cause| Error::io("inspect", cause).at_path(file.path()))?;
            let resolved = match real.strip_prefix(&self.path) {
                Ok(inner) => self.resolve(inner.as_os_str().as_encoded_bytes())?,
                Err(_) => return Err(outside(file.path())),
            };
            if resolved.id != Some(file.id()) {
                return Err(outside(file.path()));
            }
        }
        Ok(())
    }

    /// The path that `asked` is of, and the directories on the way to it, open.
    fn way(&self, asked: &Path) -> Result<(PathBuf, Vec<Arc<File>>)> {
        let inner = asked.strip_prefix(&self.path).unwrap_or(asked);
        let mut names = Vec::new();
        for part in inner.components() {
            match part {
                Component::Normal(name) => names.push(name),
                Component::CurDir => {}
                Component::RootDir if names.is_empty() => {}
                _ => return Err(outside(asked)),
            }
        }
        let Some(last) = names.pop() else {
            return Err(outside(asked));
        };
        let (mut path, mut held) = (self.path.clone(), vec![self.directory.clone()]);
        for name in names {
            refuse_odd_name(name)?;
            path.push(name);
            let facts = fs::symlink_metadata(&path).map_err(|e| failed(e, asked))?;
            if facts.is_symlink() {
                return Err(outside(asked));
            }
            held.push(Arc::new(hold_directory(&path)?));
        }
        refuse_odd_name(last)?;
        path.push(last);
        Ok((path, held))
    }
}

impl SandboxPath {
    /// Whether what lies there is still what was found.
    ///
    /// # Errors
    /// `InvalidInput` where it is not; `Io`.
    pub fn check(&self) -> Result<()> {
        let now = match FileId::of_name(&self.path) {
            Ok(id) => Some(id),
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => None,
            Err(cause) => return Err(Error::io("inspect", cause).at_path(&self.path)),
        };
        match now == self.id {
            true => Ok(()),
            false => Err(outside(&self.path)),
        }
    }
}

fn failed(cause: std::io::Error, asked: &Path) -> Error {
    Error::io("inspect, in the directory that this agent serves", cause).at_path(asked)
}

fn outside(asked: &Path) -> Error {
    let what = "is outside of what this agent serves";
    Error::new(ErrorKind::InvalidInput, what).at_path(asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_outside_is_reached_by_any_name() {
        let all = tempfile::tempdir().unwrap();
        let served = all.path().join("served");
        fs::create_dir_all(served.join("in")).unwrap();
        fs::write(all.path().join("secret"), b"s").unwrap();
        fs::write(served.join("in/disk"), b"d").unwrap();
        let root = Sandbox::open(&served).unwrap();
        let real = fs::canonicalize(&served).unwrap();
        for inside in ["in/disk", "/in/disk", "in\\disk", "./in/disk"] {
            let found = root.resolve(inside.as_bytes()).unwrap();
            assert_eq!(found.path, real.join("in").join("disk"), "{inside}");
            found.check().unwrap();
        }
        let new = root.resolve(b"in/new").unwrap();
        assert_eq!(new.path, real.join("in").join("new"));
        for wrong in [
            "../secret",
            "in/../../secret",
            "",
            "/",
            "..",
            "in/..",
            "C:/secret",
            "C:secret",
            "in/disk:stream",
            "in/NUL",
            "\\\\host\\share\\disk",
            "\\\\.\\PhysicalDrive0",
        ] {
            assert!(root.resolve(wrong.as_bytes()).is_err(), "{wrong}");
        }
        let secret = HostFile::at(all.path().join("secret")).unwrap();
        assert!(root.check(&[secret]).is_err());
        let disk = HostFile::at(served.join("in/disk")).unwrap();
        root.check(&[disk]).unwrap();
        let found = root.resolve(b"in/disk").unwrap();
        fs::rename(served.join("in/disk"), served.join("in/other")).unwrap();
        fs::write(served.join("in/disk"), b"x").unwrap();
        assert!(found.check().is_err());
    }
}
