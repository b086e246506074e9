//! Pairs of offset and length.

use std::io::Read;

use crate::changes::json::{each, read_one};
use crate::changes::regions::Regions;
use crate::error::Result;

/// Reads one array of pairs.
///
/// # Errors
/// `Malformed`, `Io`.
pub(in crate::changes) fn read(input: impl Read, disk_len: u64) -> Result<Regions> {
    let mut regions = Regions::new(disk_len);
    let add = |(offset, len): (u64, u64)| regions.add(offset, len);
    read_one(input, each(add))?;
    Ok(regions)
}
