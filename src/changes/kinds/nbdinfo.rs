//! Maps of `nbdinfo --json --map=qemu:dirty-bitmap:NAME`.

use std::io::Read;

use serde::Deserialize;

use crate::changes::json::{each, read_one};
use crate::changes::regions::Regions;
use crate::error::{Error, Result};

/// Reads one map, which must tell of every byte of the disk.
///
/// # Errors
/// `Malformed`, also for a map of what is allocated; `Io`.
pub(in crate::changes) fn read(input: impl Read, disk_len: u64) -> Result<Regions> {
    let mut regions = Regions::new(disk_len);
    let mut at = 0;
    let add = |stretch: Stretch| {
        if stretch.offset != at {
            return Err(Error::malformed("the map does not go on where it ended"));
        }
        match &stretch.description[..] {
            "dirty" => regions.add(stretch.offset, stretch.length)?,
            "clean" => {}
            other => {
                let what = format!("`{other}` tells what is allocated, and not what changed");
                return Err(Error::malformed(what)
                    .advise("map the context qemu:dirty-bitmap:NAME of the export"));
            }
        }
        at = stretch.offset.saturating_add(stretch.length);
        Ok(())
    };
    read_one(input, each(add))?;
    match at == disk_len {
        true => Ok(regions),
        false => Err(regions.incomplete(at)),
    }
}

#[derive(Deserialize)]
struct Stretch {
    offset: u64,
    length: u64,
    description: String,
}
