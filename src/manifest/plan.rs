//! Cutting an image into units of work, holes left out.

use std::ops::Range;

use super::ranges::RangeSet;
use crate::error::{Error, ErrorKind, Result};
use crate::image::Image;
use crate::units::{BlockSize, ExtentKind};

/// A share of the image that one thread reads and hashes.
#[derive(Debug)]
pub(super) struct Unit {
    /// Units count up from 0 in the order of the disk.
    pub number: u64,
    pub parts: Vec<Part>,
}

/// Neighbouring blocks.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Blocks in which nothing needs to be read.
    Zeros(Range<u64>),
    /// Blocks with something to read.
    Data {
        blocks: Range<u64>,
        /// The bytes to read, ascending; the rest of the blocks is zeros.
        pieces: Vec<Range<u64>>,
    },
}

/// Emits an image's units in the order of the disk.
pub(super) struct Plan<'a> {
    image: &'a dyn Image,
    disk_len: u64,
    block_size: BlockSize,
    /// Blocks still to plan, the next ones last.
    windows: Vec<Range<u64>>,
    /// The data found last, and from where on it is the first.
    found: (u64, Range<u64>),
    next_number: u64,
}

impl<'a> Plan<'a> {
    /// Plans the blocks that `within` touches, or all.
    pub(super) fn new(
        image: &'a dyn Image,
        block_size: BlockSize,
        within: Option<&RangeSet>,
    ) -> Self {
        let disk_len = image.disk_len();
        let mut windows = match within {
            Some(within) => within.to_blocks(block_size, disk_len),
            None => RangeSet::everything().to_blocks(block_size, disk_len),
        }
        .into_vec();
        windows.reverse();
        Plan {
            image,
            disk_len,
            block_size,
            windows,
            found: (0, 0..0),
            next_number: 0,
        }
    }

    /// The next unit; `None` when all blocks have been emitted. `check` is asked now and then
    /// whether to go on.
    pub(super) fn next(&mut self, check: impl Fn() -> Result<()>) -> Result<Option<Unit>> {
        let mut parts = Vec::new();
        let mut left = UNIT_BYTES;
        while left > 0
            && parts.len() < UNIT_PARTS
            && let Some(window) = self.windows.pop()
        {
            check()?;
            let end = self.next_parts(window.clone(), left, &mut parts)?;
            if let Some(Part::Data { blocks, .. }) = parts.last() {
                left = left.saturating_sub((blocks.end - blocks.start) * self.block_size.bytes());
            }
            if end < window.end {
                self.windows.push(end..window.end);
            }
        }
        if parts.is_empty() {
            return Ok(None);
        }
        let number = self.next_number;
        self.next_number += 1;
        Ok(Some(Unit { number, parts }))
    }

    /// Adds the zeros at the start of `window` and the data after them, not much more than `left`
    /// bytes of it; returns the first block that is not planned yet.
    fn next_parts(&mut self, window: Range<u64>, left: u64, parts: &mut Vec<Part>) -> Result<u64> {
        let bytes = self.block_size.bytes();
        let window_end = self.block_size.range(window.end - 1, self.disk_len).end;
        let Some(mut data) = self.next_data(window.start * bytes, window_end)? else {
            parts.push(Part::Zeros(window.clone()));
            return Ok(window.end);
        };
        let first = data.start / bytes;
        if first > window.start {
            parts.push(Part::Zeros(window.start..first));
        }
        let most = first.saturating_add((left / bytes).max(1)).min(window.end);
        let mut pieces: Vec<Range<u64>> = Vec::new();
        let mut end = first;
        loop {
            end = data.end.div_ceil(bytes).clamp(end, most);
            let end_byte = self.block_size.range(end - 1, self.disk_len).end;
            let piece = data.start..data.end.min(end_byte);
            match pieces.last_mut() {
                Some(last) if piece.start - last.end < BRIDGE_BYTES => last.end = piece.end,
                _ => pieces.push(piece),
            }
            if data.end >= end_byte && end == most {
                break;
            }
            // More data may begin in the last block, or right behind it.
            match self.next_data(data.end, window_end)? {
                Some(next) if next.start <= end_byte && next.start / bytes < most => data = next,
                _ => break,
            }
        }
        parts.push(Part::Data {
            blocks: first..end,
            pieces,
        });
        Ok(end)
    }

    /// The first data at or after `offset`, clipped to `end`.
    fn next_data(&mut self, offset: u64, end: u64) -> Result<Option<Range<u64>>> {
        let (from, data) = &self.found;
        if (*from..data.end).contains(&offset) {
            let data = data.start.max(offset)..data.end.min(end);
            return Ok((!data.is_empty()).then_some(data));
        }
        let mut at = offset;
        while at < end {
            let Some(extent) = self.image.next_extent(at)? else {
                break;
            };
            if extent.offset != at || extent.len == 0 {
                let message = "an image gave an extent that does not begin where it was asked";
                return Err(Error::new(ErrorKind::InvalidInput, message).at_offset(at));
            }
            if extent.kind != ExtentKind::Zero {
                self.found = (offset, at..extent.end());
                return Ok(Some(at..extent.end().min(end)));
            }
            at = extent.end();
        }
        Ok(None)
    }
}

/// Large enough that threads seldom meet, small enough that they end together.
pub(super) const UNIT_BYTES: u64 = 4 << 20;

/// Keeps a unit of scattered blocks small.
const UNIT_PARTS: usize = 1024;

/// Holes shorter than this inside a block are read through: one read costs less than two.
const BRIDGE_BYTES: u64 = 64 << 10;
