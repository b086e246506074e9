//! Where a differencing image says its parent is ([MS-VHDX] section 2.6.2.6). All paths are the
//! file's own claims: hints for a caller, never opened from here.

use super::format::{encode_locator, locator_pairs};
use super::guid::Guid;
use crate::error::{Error, ErrorKind, Result};

/// What a differencing image knows of its parent.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParentLocator {
    /// The parent's data write GUID when the child was made.
    pub linkage: Guid,
    /// A second one that the parent may have instead, used while disks are merged.
    pub linkage2: Option<Guid>,
    /// The parent's path from the child's directory, with backslashes.
    pub relative_path: Option<String>,
    /// The parent's path on a volume that is named by its GUID.
    pub volume_path: Option<String>,
    /// The parent's path with a drive letter.
    pub absolute_path: Option<String>,
}

impl ParentLocator {
    /// A locator that names a parent by its data write GUID and its path from the child's
    /// directory.
    pub fn new(linkage: Guid, relative_path: impl Into<String>) -> Self {
        ParentLocator {
            linkage,
            linkage2: None,
            relative_path: Some(relative_path.into()),
            volume_path: None,
            absolute_path: None,
        }
    }

    /// Whether a parent with this data write GUID is the one that is meant.
    pub fn accepts(&self, data_write: Guid) -> bool {
        !data_write.is_nil() && (self.linkage == data_write || self.linkage2 == Some(data_write))
    }

    /// The paths in the order in which the format wants them tried.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        [&self.relative_path, &self.volume_path, &self.absolute_path]
            .into_iter()
            .filter_map(|path| path.as_deref())
    }

    pub(super) fn parse(item: &[u8]) -> Result<Self> {
        let mut pairs = locator_pairs(item)?;
        let mut take = |key: &str| {
            let index = pairs.iter().position(|(found, _)| found == key)?;
            Some(pairs.swap_remove(index).1)
        };
        let linkage = take("parent_linkage")
            .and_then(|text| Guid::parse(&text))
            .ok_or_else(|| wrong("the parent locator has no parent_linkage GUID"))?;
        let linkage2 = take("parent_linkage2").and_then(|text| Guid::parse(&text));
        let locator = ParentLocator {
            linkage,
            linkage2: linkage2.filter(|guid| !guid.is_nil()),
            relative_path: take("relative_path"),
            volume_path: take("volume_path"),
            absolute_path: take("absolute_win32_path"),
        };
        if locator.paths().next().is_none() {
            return Err(wrong("the parent locator names no path"));
        }
        Ok(locator)
    }

    pub(super) fn encode(&self) -> Result<Vec<u8>> {
        let linkage = format!("{{{}}}", self.linkage);
        let linkage2 = self.linkage2.map(|guid| format!("{{{guid}}}"));
        let pairs = [
            ("parent_linkage", Some(linkage.as_str())),
            ("parent_linkage2", linkage2.as_deref()),
            ("relative_path", self.relative_path.as_deref()),
            ("volume_path", self.volume_path.as_deref()),
            ("absolute_win32_path", self.absolute_path.as_deref()),
        ];
        let pairs: Vec<(&str, &str)> = pairs
            .into_iter()
            .filter_map(|(key, value)| Some((key, value?)))
            .collect();
        encode_locator(&pairs).ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidInput,
                "a path of the parent locator is too long",
            )
        })
    }
}

fn wrong(message: &'static str) -> Error {
    Error::malformed(message).in_field("parent_locator")
}
