//! Answers of VMware's `QueryChangedDiskAreas`.

use std::io::Read;

use serde::Deserialize;
use serde::de::MapAccess;

use crate::changes::json::{Fields, each, once, read_objects, skip};
use crate::changes::regions::Regions;
use crate::error::{Error, Result};

/// Reads one or several answers, which must tell of every byte of the disk, in its order.
///
/// # Errors
/// `Malformed`, `Io`.
pub(in crate::changes) fn read(input: impl Read, disk_len: u64) -> Result<Regions> {
    let mut answers = Answers {
        regions: Regions::new(disk_len),
        covered: 0,
        start: None,
        len: None,
    };
    read_objects(input, &mut answers)?;
    match answers.covered < disk_len {
        true => Err(answers
            .regions
            .incomplete(answers.covered)
            .advise("ask again from there with startOffset, and append the answer")),
        false => Ok(answers.regions),
    }
}

struct Answers {
    regions: Regions,
    /// The answers told of all that lies before.
    covered: u64,
    start: Option<u64>,
    len: Option<u64>,
}

#[derive(Deserialize)]
struct Area {
    start: u64,
    length: u64,
}

impl Fields for Answers {
    fn field<'de, M: MapAccess<'de>>(&mut self, name: &str, map: &mut M) -> Result<(), M::Error> {
        match name {
            "startOffset" => once(&mut self.start, map),
            "length" => once(&mut self.len, map),
            "changedArea" => {
                let add = |it: Area| self.regions.add(it.start, it.length);
                map.next_value_seed(each(add))
            }
            _ => skip(map),
        }
    }

    fn end(&mut self) -> Result<()> {
        let (Some(start), Some(len)) = (self.start.take(), self.len.take()) else {
            return Err(Error::malformed("`startOffset` or `length` is missing"));
        };
        if start > self.covered {
            let what = "an answer does not go on where the last one ended";
            return Err(Error::malformed(what).in_field("startOffset"));
        }
        self.covered = self.covered.max(start.saturating_add(len));
        Ok(())
    }
}
