//! Changed blocks of EBS snapshots.

use std::io::Read;

use serde::Deserialize;
use serde::de::MapAccess;

use crate::changes::json::{Fields, each, once, read_objects, skip};
use crate::changes::regions::Regions;
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::manifest::Gathered;

/// Reads one or several answers. A block is changed whatever tokens it has: without a second one
/// it is gone from the newer snapshot.
///
/// # Errors
/// `Malformed`, `Io`.
pub(in crate::changes) fn read(input: impl Read, disk_len: u64) -> Result<Regions> {
    let mut answers = Answers {
        regions: Regions::new(disk_len),
        blocks: no_blocks(),
        blocks_end: 0,
        block_bytes: None,
        volume_gib: None,
        token: None,
        has_blocks: false,
        has_more: false,
    };
    read_objects(input, &mut answers)?;
    match answers.has_more {
        true => Err(
            Error::malformed("an answer ends with a token: its next part is missing")
                .in_field("NextToken")
                .advise("append the answers that follow, up to the one without a token"),
        ),
        false => Ok(answers.regions),
    }
}

struct Answers {
    regions: Regions,
    /// The blocks of one answer; their size may stand behind them.
    blocks: Gathered,
    blocks_end: u64,
    block_bytes: Option<u64>,
    volume_gib: Option<u64>,
    token: Option<Option<String>>,
    has_blocks: bool,
    has_more: bool,
}

#[derive(Deserialize)]
struct Block {
    #[serde(rename = "BlockIndex")]
    index: u32,
}

impl Fields for Answers {
    fn field<'de, M: MapAccess<'de>>(&mut self, name: &str, map: &mut M) -> Result<(), M::Error> {
        match name {
            "ChangedBlocks" | "Blocks" => {
                self.has_blocks = true;
                map.next_value_seed(each(|block: Block| {
                    let index = u64::from(block.index);
                    self.blocks.insert(index..index + 1);
                    self.blocks_end = self.blocks_end.max(index + 1);
                    Ok(())
                }))
            }
            "BlockSize" => once(&mut self.block_bytes, map),
            "VolumeSize" => once(&mut self.volume_gib, map),
            "NextToken" => once(&mut self.token, map),
            _ => skip(map),
        }
    }

    fn end(&mut self) -> Result<()> {
        let Some(size) = self.block_bytes.take().filter(|size| *size > 0) else {
            return Err(Error::malformed("`BlockSize` is missing, or 0"));
        };
        if !self.has_blocks {
            return Err(Error::malformed("`ChangedBlocks` is missing"));
        }
        if let Some(gib) = self.volume_gib.take() {
            self.regions.require_len(gib.saturating_mul(1 << 30))?;
        }
        // The last block alone; rounding out may put ranges behind it.
        let last = self.blocks_end.checked_sub(1);
        if let Some(last) = last {
            self.regions.add(last.saturating_mul(size), size)?;
        }
        let blocks = std::mem::replace(&mut self.blocks, no_blocks());
        for blocks in blocks.into_set().inside(0..self.blocks_end) {
            let count = blocks.end - blocks.start;
            self.regions.add(blocks.start * size, count * size)?;
        }
        self.has_more = self.token.take().flatten().is_some_and(|it| !it.is_empty());
        (self.blocks_end, self.has_blocks) = (0, false);
        Ok(())
    }
}

fn no_blocks() -> Gathered {
    Gathered::new(Limits::default().ranges_bytes())
}
