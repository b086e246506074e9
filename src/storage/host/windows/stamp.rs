//! The stamps of files.

#[cfg(feature = "imago")]
use std::fs::File;
#[cfg(feature = "imago")]
use std::path::Path;

use super::calls::Facts;
use super::host_file::id_of;
#[cfg(feature = "imago")]
use crate::error::{Error, Result};
use crate::storage::host::stamp::SourceStamp;

#[cfg(feature = "imago")]
impl SourceStamp {
    pub(in crate::storage) fn of_file(path: &Path, file: &File) -> Result<Self> {
        let facts =
            super::calls::facts(file).map_err(|e| Error::io("inspect file", e).at_path(path))?;
        Ok(stamp_of(&facts))
    }
}

pub(super) fn stamp_of(facts: &Facts) -> SourceStamp {
    SourceStamp {
        id: id_of(facts),
        len: facts.len,
        modified: moment(facts.written),
        changed: moment(facts.changed),
        is_device: false,
        sectors_written: None,
    }
}

/// Devices have no stamps here.
pub(in crate::storage) fn boot_id() -> Option<Vec<u8>> {
    None
}

/// Seconds since 1970, and nanoseconds.
fn moment(time: i64) -> (i64, i64) {
    let since = time - UNIX_EPOCH;
    (
        since.div_euclid(PER_SECOND),
        since.rem_euclid(PER_SECOND) * 100,
    )
}

/// 1970 in units of 100 nanoseconds since 1601.
const UNIX_EPOCH: i64 = 116_444_736_000_000_000;
const PER_SECOND: i64 = 10_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_counted_from_1970() {
        assert_eq!(moment(UNIX_EPOCH), (0, 0));
        assert_eq!(moment(UNIX_EPOCH + 15_000_001), (1, 500_000_100));
        assert_eq!(moment(UNIX_EPOCH - 1), (-1, 999_999_900));
    }
}
