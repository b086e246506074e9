//! Where a disk lies.

use std::fmt;
use std::path::{Component, Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::image::Format;
#[cfg(feature = "qemu")]
use crate::location::NbdAddress;
use crate::location::{Location, RemoteAddress};

/// Where a disk lies: on the executor's host, or somewhere that it can be reached from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// A file or block device of the executor's host, as an absolute path.
    Host(PathBuf),
    /// An export of an NBD server, which is only read: the guest's bytes.
    #[cfg(feature = "qemu")]
    Nbd(NbdAddress),
    /// An image on another host. Behind a shell it may be written to as well.
    Remote(RemoteAddress),
    /// What the client of a disk agent answers for, by the disk's number in its request; no
    /// plan names one.
    Callback(usize),
}

impl Address {
    /// Reads an absolute path, `nbd+unix:///EXPORT?socket=PATH`, `ssh://[user@]host[:port]/path`
    /// or `diskdelta://host[:port]/name`.
    ///
    /// # Errors
    /// `InvalidInput` for relative paths, paths with `..`, and what is no address.
    pub fn parse(text: &str) -> Result<Self> {
        let path = Path::new(text);
        match Location::parse_with(path, |_| false) {
            Ok(Location::Path(_)) => parse_path(text).map(Address::Host),
            Ok(Location::Remote(remote)) if is_plain(text, remote.path()) => {
                Ok(Address::Remote(remote))
            }
            #[cfg(feature = "qemu")]
            Ok(Location::Nbd(address)) => Ok(Address::Nbd(address)),
            #[cfg(not(feature = "qemu"))]
            Ok(Location::Nbd(_)) => {
                let text = "this build cannot read NBD exports (feature `qemu`)";
                Err(Error::new(ErrorKind::InvalidInput, text))
            }
            Ok(Location::Remote(_)) => {
                let text = format!("`{text}` does not name an image by a path without `..`");
                Err(Error::new(ErrorKind::InvalidInput, text))
            }
            Err(error) if text.contains("://") => {
                Err(Error::new(ErrorKind::InvalidInput, error.to_string()))
            }
            Err(_) => {
                let text = format!(
                    "`{text}` is neither an absolute path nor an address \
                     (ssh://[user@]host[:port]/path, diskdelta://host[:port]/name)"
                );
                Err(Error::new(ErrorKind::InvalidInput, text))
            }
        }
    }

    /// The path, where it is one of the executor's host.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Address::Host(path) => Some(path),
            _ => None,
        }
    }

    /// The path at a host behind a shell, where it lies there.
    pub(in crate::failback) fn path_at(&self, login: &str) -> Option<PathBuf> {
        match self {
            Address::Remote(remote) if remote.login().as_deref() == Some(login) => {
                Some(remote.path().to_owned())
            }
            _ => None,
        }
    }

    /// The same text for two spellings of one address.
    pub fn place(&self) -> String {
        match self {
            Address::Host(_) | Address::Callback(_) => self.to_string(),
            #[cfg(feature = "qemu")]
            Address::Nbd(address) => address.place(),
            Address::Remote(remote) => remote.place(),
        }
    }

    /// The format that its name says.
    pub fn format(&self) -> Format {
        match self {
            Address::Host(path) => Format::from_path(path),
            #[cfg(feature = "qemu")]
            Address::Nbd(_) => Format::Raw,
            Address::Callback(_) => Format::Raw,
            Address::Remote(remote) => Format::from_path(remote.path()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Host(path) => path.display().fmt(f),
            #[cfg(feature = "qemu")]
            Address::Nbd(address) => address.fmt(f),
            Address::Remote(remote) => remote.fmt(f),
            Address::Callback(disk) => write!(f, "disk {disk} of the client"),
        }
    }
}

/// Reads an absolute path of this host.
///
/// # Errors
/// `InvalidInput` for relative paths, paths with `..`, and what is no path.
pub(super) fn parse_path(text: &str) -> Result<PathBuf> {
    let path = Path::new(text);
    if !path.is_absolute() || !is_plain(text, path) {
        let text = format!("`{text}` is not an absolute path without `..`");
        return Err(Error::new(ErrorKind::InvalidInput, text));
    }
    // Collected anew, `/a//b/./c` equals `/a/b/c`.
    Ok(path.components().collect())
}

/// Whether the path in a text names something and has no `..`.
pub(in crate::failback) fn is_plain(text: &str, path: &Path) -> bool {
    let plain = |part: Component<'_>| {
        matches!(
            part,
            Component::RootDir | Component::Normal(_) | Component::CurDir
        )
    };
    let odd = text.chars().any(char::is_control) || path.file_name().is_none();
    !odd && path.components().all(plain)
}
