//! Extents of Ceph's `rbd diff --format json`.

use std::io::Read;

use serde::Deserialize;

use crate::changes::json::{each, read_one};
use crate::changes::regions::Regions;
use crate::error::Result;

/// Reads one array of extents. An extent that does not exist any more is a change.
///
/// # Errors
/// `Malformed`, `Io`.
pub(in crate::changes) fn read(input: impl Read, disk_len: u64) -> Result<Regions> {
    let mut regions = Regions::new(disk_len);
    let add = |extent: Extent| regions.add(extent.offset, extent.length);
    read_one(input, each(add))?;
    Ok(regions)
}

#[derive(Deserialize)]
struct Extent {
    offset: u64,
    length: u64,
}
