//! The change map that an option names.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::PathBuf;

use crate::{ChangeMap, ChangeMapKind, Error, ErrorKind, Location, Result};

/// `KIND:FILE`: a change map, in a file or on standard input.
#[derive(Debug, Clone)]
pub(crate) struct ChangesArg {
    kind: ChangeMapKind,
    /// `None` for standard input.
    file: Option<PathBuf>,
}

impl ChangesArg {
    /// Reads the text of the option.
    ///
    /// # Errors
    /// `InvalidInput`, `Unsupported`.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let (kind, file) = text.split_once(':').ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidInput,
                "the kind of the change map is missing",
            )
            .advise("write KIND:FILE, such as nbdinfo:map.json")
        })?;
        let file = match file {
            "-" => None,
            file => Some(Location::parse_here(file)?),
        };
        let kind = kind.parse()?;
        Ok(ChangesArg { kind, file })
    }

    /// Reads the map of a disk of `disk_len` bytes.
    ///
    /// # Errors
    /// Those of [`ChangeMap::parse`]; `NotFound`.
    pub(super) fn read(&self, disk_len: u64) -> Result<ChangeMap> {
        let Some(path) = &self.file else {
            return ChangeMap::parse(self.kind, io::stdin().lock(), disk_len);
        };
        let file = File::open(path).map_err(|cause| Error::io("open", cause).at_path(path));
        ChangeMap::parse(self.kind, file?, disk_len).map_err(|error| error.at_path(path))
    }
}

/// Which bytes of a disk of `disk_len` bytes changed, as an option or the source itself knows.
///
/// # Errors
/// Those of [`ChangesArg::read`]; `InvalidInput` for two change maps.
pub(super) fn changed_in(
    option: Option<&ChangesArg>,
    of_source: Option<&[Range<u64>]>,
    disk_len: u64,
) -> Result<Option<Vec<Range<u64>>>> {
    match (option, of_source) {
        (Some(_), Some(_)) => {
            let what = "--changes and a bitmap in the address of the source are two change maps";
            Err(Error::new(ErrorKind::InvalidInput, what))
        }
        (Some(option), None) => Ok(Some(option.read(disk_len)?.ranges().to_vec())),
        (None, changes) => Ok(changes.map(<[_]>::to_vec)),
    }
}
