//! The reports of `diskdelta diff --json`.

use std::io::Read;

use serde::Deserialize;
use serde::de::MapAccess;

use crate::changes::json::{Fields, Object, each, once, read_one, skip};
use crate::changes::regions::Regions;
use crate::error::{Error, Result};

/// Reads one report. Extents of both kinds are changes.
///
/// # Errors
/// `Malformed`, `Io`.
pub(in crate::changes) fn read(input: impl Read, disk_len: u64) -> Result<Regions> {
    let mut report = Report {
        regions: Regions::new(disk_len),
        disk_bytes: None,
        has_extents: false,
    };
    read_one(input, Object(&mut report))?;
    Ok(report.regions)
}

struct Report {
    regions: Regions,
    disk_bytes: Option<u64>,
    has_extents: bool,
}

#[derive(Deserialize)]
struct Extent {
    offset: u64,
    length: u64,
}

impl Fields for Report {
    fn field<'de, M: MapAccess<'de>>(&mut self, name: &str, map: &mut M) -> Result<(), M::Error> {
        match name {
            "disk_bytes" => once(&mut self.disk_bytes, map),
            "extents" => {
                self.has_extents = true;
                let add = |it: Extent| self.regions.add(it.offset, it.length);
                map.next_value_seed(each(add))
            }
            _ => skip(map),
        }
    }

    fn end(&mut self) -> Result<()> {
        match (self.disk_bytes, self.has_extents) {
            (Some(len), true) if len == self.regions.disk_len() => Ok(()),
            (Some(len), true) => Err(self.regions.incomplete(len)),
            _ => Err(Error::malformed("`disk_bytes` or `extents` is missing")),
        }
    }
}
