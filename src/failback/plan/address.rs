//! Where a disk lies.

use std::fmt;
use std::path::{Component, Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};

/// Where a disk lies: a file or block device of the executor's host, as an absolute path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(PathBuf);

impl Address {
    /// Reads an address.
    ///
    /// # Errors
    /// `InvalidInput` for relative paths, paths with `..`, and what is no path.
    pub fn parse(text: &str) -> Result<Self> {
        let path = Path::new(text);
        let plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
        let odd = text.chars().any(char::is_control) || path.file_name().is_none();
        if odd || !path.is_absolute() || !path.components().all(plain) {
            let text = format!("`{text}` is not an absolute path without `..`");
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        // Collected anew, `/a//b/./c` equals `/a/b/c`.
        Ok(Address(path.components().collect()))
    }

    /// The path.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_spellings_of_a_path_are_one_address() {
        let plain = Address::parse("/vm/a.vhd").unwrap();
        assert_eq!(Address::parse("/vm//./a.vhd").unwrap(), plain);
        assert_eq!(plain.to_string(), "/vm/a.vhd");
    }

    #[test]
    fn an_address_is_an_absolute_path() {
        assert!(Address::parse("/dev/vg0/a").is_ok());
        for wrong in [
            "",
            "/",
            "a.vhd",
            "../a",
            "/vm/../a",
            "http://host/a",
            "c:\\a",
            "/a\nb",
        ] {
            assert!(Address::parse(wrong).is_err(), "{wrong}");
        }
    }
}
