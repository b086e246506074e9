//! Changes that Hyper-V's resilient change tracking (RCT) knows.

use std::io::Read;

use serde::de::MapAccess;

use crate::changes::json::{Fields, each, once, read_objects, skip};
use crate::changes::regions::Regions;
use crate::error::{Error, ErrorKind, Result};

/// Reads the answers of `GetVirtualDiskChanges`, one or several in the order of the disk.
///
/// # Errors
/// `Malformed`, also for answers that do not cover the disk; `LimitExceeded` for more than two
/// million changes in one; `Io`.
pub(in crate::changes) fn read(input: impl Read, disk_len: u64) -> Result<Regions> {
    let mut answers = Answers {
        regions: Regions::new(disk_len),
        covered: 0,
        offsets: Vec::new(),
        lens: Vec::new(),
        processed: None,
        result: None,
    };
    read_objects(input, &mut answers)?;
    match answers.covered < disk_len {
        true => Err(answers
            .regions
            .incomplete(answers.covered)
            .advise("ask again from there with ByteOffset, and append the answer")),
        false => Ok(answers.regions),
    }
}

struct Answers {
    regions: Regions,
    /// How much of the disk the answers told of.
    covered: u64,
    offsets: Vec<u64>,
    lens: Vec<u64>,
    processed: Option<u64>,
    result: Option<u64>,
}

impl Fields for Answers {
    fn field<'de, M: MapAccess<'de>>(&mut self, name: &str, map: &mut M) -> Result<(), M::Error> {
        let list = match name {
            "ChangedByteOffsets" => &mut self.offsets,
            "ChangedByteLengths" => &mut self.lens,
            "ProcessedByteLength" => return once(&mut self.processed, map),
            "ReturnValue" => return once(&mut self.result, map),
            _ => return skip(map),
        };
        map.next_value_seed(each(|number| {
            if list.len() >= CHANGES_MAX {
                let what = "more than two million changes in one answer";
                return Err(Error::new(ErrorKind::LimitExceeded, what));
            }
            list.push(number);
            Ok(())
        }))
    }

    fn end(&mut self) -> Result<()> {
        let Some(processed) = self.processed.take() else {
            return Err(Error::malformed("`ProcessedByteLength` is missing"));
        };
        if let Some(result) = self.result.take().filter(|it| *it != 0) {
            let what = format!("the query failed, or is not done: its result is {result}");
            return Err(Error::malformed(what).in_field("ReturnValue"));
        }
        if self.offsets.len() != self.lens.len() {
            let what = "there are not as many lengths of changes as offsets";
            return Err(Error::malformed(what));
        }
        let lens = self.lens.drain(..);
        for (offset, len) in self.offsets.drain(..).zip(lens) {
            self.regions.add(offset, len)?;
        }
        self.covered = self.covered.saturating_add(processed);
        Ok(())
    }
}

/// 32 MiB of memory.
const CHANGES_MAX: usize = 2 << 20;
