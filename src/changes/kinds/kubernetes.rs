//! Records of Kubernetes' `snapshot-metadata-lister -o json`.

use std::io::Read;

use serde::Deserialize;
use serde::de::MapAccess;

use crate::changes::json::{Fields, each, once, read_objects, skip};
use crate::changes::regions::Regions;
use crate::error::Result;

/// Reads arrays of records.
///
/// # Errors
/// `Malformed`, `Io`.
pub(in crate::changes) fn read(input: impl Read, disk_len: u64) -> Result<Regions> {
    let mut records = Records {
        regions: Regions::new(disk_len),
        capacity: None,
    };
    read_objects(input, &mut records)?;
    Ok(records.regions)
}

struct Records {
    regions: Regions,
    capacity: Option<u64>,
}

/// A number that is 0 is left out by the program.
#[derive(Deserialize)]
struct Block {
    #[serde(default)]
    byte_offset: u64,
    #[serde(default)]
    size_bytes: u64,
}

impl Fields for Records {
    fn field<'de, M: MapAccess<'de>>(&mut self, name: &str, map: &mut M) -> Result<(), M::Error> {
        match name {
            "volume_capacity_bytes" => once(&mut self.capacity, map),
            "block_metadata" => {
                let add = |it: Block| self.regions.add(it.byte_offset, it.size_bytes);
                map.next_value_seed(each(add))
            }
            _ => skip(map),
        }
    }

    fn end(&mut self) -> Result<()> {
        let capacity = self.capacity.take().unwrap_or(0);
        self.regions.require_len(capacity)
    }
}
