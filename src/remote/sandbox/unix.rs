//! Paths kept to a directory by the kernel (`openat2`).

use std::ffi::OsStr;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, ResolveFlags, fstat, open, openat2};
use rustix::io::Errno;

use crate::error::{Error, ErrorKind, Result};
use crate::storage::{FileId, HostFile};

/// A directory that nothing asked for by a peer may lie outside of.
#[derive(Debug)]
pub struct Sandbox {
    directory: OwnedFd,
    path: PathBuf,
}

/// Where a path leads to that is kept to the directory.
#[derive(Debug, Clone)]
pub struct SandboxPath {
    /// The same place by a path without symbolic links.
    pub path: PathBuf,
    /// What lies there; `None` where nothing does.
    id: Option<FileId>,
    /// Kept open, so that no other file gets its number.
    _held: Option<Arc<OwnedFd>>,
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
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = open(path, flags, Mode::empty()).map_err(|e| failed(e.into()))?;
        Ok(Sandbox {
            directory,
            path: fs::canonicalize(path).map_err(failed)?,
        })
    }

    /// Where `asked` leads from this directory, as if it were the root of all; symbolic links are
    /// followed as long as they stay inside.
    ///
    /// # Errors
    /// `InvalidInput` for a path that leads outside, also through a symbolic link, or to no name;
    /// `NotFound` for a missing directory; `Io`.
    pub fn resolve(&self, asked: &[u8]) -> Result<SandboxPath> {
        let asked = Path::new(OsStr::from_bytes(asked));
        let inner = self.inner(asked);
        let Some(Component::Normal(name)) = inner.components().next_back() else {
            return Err(outside(asked));
        };
        match self.look_up(inner, OFlags::empty()) {
            Ok(there) => {
                let facts = fstat(&there).map_err(|e| failed(e, asked))?;
                Ok(SandboxPath {
                    path: real_path(&there, asked)?,
                    id: Some(FileId {
                        device: facts.st_dev,
                        inode: facts.st_ino,
                    }),
                    _held: Some(Arc::new(there)),
                })
            }
            // A link that leads nowhere yet could lead outside once something is created.
            Err(Errno::NOENT) => Ok(SandboxPath {
                path: self.beside(inner, name, asked)?,
                id: None,
                _held: None,
            }),
            Err(cause) => Err(failed(cause, asked)),
        }
    }

    /// Where `asked` leads to, which may be a file that is renamed or missing now and then: as
    /// [`resolve`](Sandbox::resolve), but symbolic links are followed in its directories only.
    ///
    /// # Errors
    /// As [`resolve`](Sandbox::resolve); `InvalidInput` for a symbolic link.
    pub fn resolve_new(&self, asked: &Path) -> Result<PathBuf> {
        let inner = self.inner(asked);
        let Some(Component::Normal(name)) = inner.components().next_back() else {
            return Err(outside(asked));
        };
        self.beside(inner, name, asked)
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
                Ok(inner) => self.resolve(inner.as_os_str().as_bytes())?,
                Err(_) => return Err(outside(file.path())),
            };
            if resolved.id != Some(file.id()) {
                return Err(outside(file.path()));
            }
        }
        Ok(())
    }

    /// The path from this directory on.
    fn inner<'a>(&self, asked: &'a Path) -> &'a Path {
        let inner = asked.strip_prefix(&self.path).unwrap_or(asked);
        inner.strip_prefix("/").unwrap_or(inner)
    }

    /// A name in the real directory of `inner`; no link may stand there.
    fn beside(&self, inner: &Path, name: &OsStr, asked: &Path) -> Result<PathBuf> {
        let parent = inner.parent().filter(|it| !it.as_os_str().is_empty());
        let directory = self
            .look_up(parent.unwrap_or(Path::new(".")), OFlags::DIRECTORY)
            .map_err(|e| failed(e, asked))?;
        let path = real_path(&directory, asked)?.join(name);
        match fs::symlink_metadata(&path) {
            Ok(facts) if facts.is_symlink() => Err(outside(asked)),
            _ => Ok(path),
        }
    }

    fn look_up(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::PATH | OFlags::CLOEXEC;
        let how = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        openat2(&self.directory, path, flags, Mode::empty(), how)
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
        if now == self.id {
            Ok(())
        } else {
            Err(outside(&self.path))
        }
    }
}

fn real_path(file: &OwnedFd, asked: &Path) -> Result<PathBuf> {
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    fs::read_link(link).map_err(|cause| Error::io("inspect", cause).at_path(asked))
}

fn failed(cause: Errno, asked: &Path) -> Error {
    match cause {
        Errno::XDEV | Errno::LOOP => outside(asked),
        // Looked up below the root, and named so: a client may have meant another file.
        other => Error::io(
            "inspect in the served directory",
            std::io::Error::from(other),
        )
        .at_path(asked.strip_prefix("/").unwrap_or(asked)),
    }
}

fn outside(asked: &Path) -> Error {
    Error::new(
        ErrorKind::InvalidInput,
        "is outside of what this agent serves",
    )
    .at_path(asked.strip_prefix("/").unwrap_or(asked))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn nothing_outside_is_reached_by_any_name() {
        let all = tempfile::tempdir().unwrap();
        let served = all.path().join("served");
        fs::create_dir_all(served.join("in")).unwrap();
        fs::write(all.path().join("secret"), b"s").unwrap();
        fs::write(served.join("in/disk"), b"d").unwrap();
        symlink("../secret", served.join("up")).unwrap();
        symlink(all.path().join("secret"), served.join("far")).unwrap();
        symlink("..", served.join("directory")).unwrap();
        symlink(all.path().join("not-yet"), served.join("later")).unwrap();
        symlink("in/disk", served.join("near")).unwrap();
        symlink("loop", served.join("loop")).unwrap();
        let root = Sandbox::open(&served).unwrap();
        let real = fs::canonicalize(&served).unwrap();
        for inside in ["in/disk", "/in/disk", "near", "in/../near"] {
            let found = root.resolve(inside.as_bytes()).unwrap();
            assert_eq!(found.path, real.join("in/disk"), "{inside}");
            found.check().unwrap();
        }
        let whole = real.join("in/disk");
        let found = root.resolve(whole.as_os_str().as_bytes()).unwrap();
        assert_eq!(found.path, whole);
        assert_eq!(root.resolve(b"in/new").unwrap().path, real.join("in/new"));
        for wrong in [
            "up",
            "far",
            "directory/secret",
            "../secret",
            "later",
            "loop",
            "in/../../secret",
            "",
            "/",
            "..",
            "directory/new",
            "/etc/passwd/..",
            "in/..",
        ] {
            assert!(root.resolve(wrong.as_bytes()).is_err(), "{wrong}");
        }
        let secret = HostFile::at(all.path().join("secret")).unwrap();
        assert!(root.check(&[secret]).is_err());
        root.check(&[HostFile::at(served.join("near")).unwrap()])
            .unwrap();
        let swapped = root.resolve(b"in/disk").unwrap();
        fs::remove_file(served.join("in/disk")).unwrap();
        symlink(all.path().join("secret"), served.join("in/disk")).unwrap();
        assert!(swapped.check().is_err());
    }
}
