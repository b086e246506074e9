//! The messages of a descent, in their order. Every one of them is about one batch.

use super::codec::{Put, Take, wrong};
use super::format::{
    BATCH_BLOCKS, BATCH_SEGMENTS, BLOCK_PARTS, DATA_MOST, LONG_HASH_LEN, PART_PAGES, SEGMENT_BLOCKS,
};
use crate::error::Result;

/// The first bytes of a keyed hash; as many as the ends agreed on.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct TruncatedHash {
    bytes: [u8; LONG_HASH_LEN],
    len: u8,
}

impl TruncatedHash {
    /// The first `len` bytes, at most 16, of `hash`.
    pub(in crate::remote) fn of(hash: &[u8; 32], len: usize) -> TruncatedHash {
        let len = len.min(LONG_HASH_LEN);
        let mut bytes = [0; LONG_HASH_LEN];
        bytes[..len].copy_from_slice(&hash[..len]);
        TruncatedHash {
            bytes,
            len: len as u8, // at most 16
        }
    }

    fn put(&self, out: &mut Put) {
        out.raw(&self.bytes[..usize::from(self.len)]);
    }

    fn take(from: &mut Take<'_>, len: usize) -> Result<TruncatedHash> {
        let mut bytes = [0; LONG_HASH_LEN];
        let slot = bytes
            .get_mut(..len)
            .ok_or_else(|| wrong("a hash too long"))?;
        slot.copy_from_slice(from.raw(len)?);
        Ok(TruncatedHash {
            bytes,
            len: len as u8, // at most 16, as the slice above was there
        })
    }
}

impl std::fmt::Debug for TruncatedHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut bytes = self.bytes.iter().take(usize::from(self.len));
        bytes.try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The hashes of children that are not zero: a bit for each child, a hash for each bit that is set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Children {
    /// Which children are not zero.
    pub mask: u64,
    /// Their hashes, in their order.
    pub hashes: Vec<TruncatedHash>,
}

impl Children {
    /// Adds the next child, which is number `index`.
    pub fn push(&mut self, index: u32, hash: TruncatedHash) {
        self.mask |= bit(index);
        self.hashes.push(hash);
    }

    /// Each child's number and hash.
    pub fn iter(&self) -> impl Iterator<Item = (u32, TruncatedHash)> {
        bits(self.mask).zip(self.hashes.iter().copied())
    }

    fn put(&self, out: &mut Put) {
        self.hashes.iter().for_each(|hash| hash.put(out));
    }

    fn take(mask: u64, from: &mut Take<'_>, hash_len: usize) -> Result<Children> {
        let hashes = bits(mask).map(|_| TruncatedHash::take(from, hash_len));
        Ok(Children {
            mask,
            hashes: hashes.collect::<Result<_>>()?,
        })
    }
}

/// The source's segments of a batch that is not all zeros.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segments {
    /// Which batch.
    pub batch: u64,
    /// Its segments.
    pub segments: Children,
}

/// The target's blocks of the segments that differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocks {
    /// Which batch.
    pub batch: u64,
    /// Number and blocks of each segment that differs and is not zero in the source, ascending.
    pub segments: Vec<(u32, Children)>,
}

/// What the source says of a block in a segment that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlockDiff {
    /// It is zero here.
    Zero,
    /// Its pages will come: it is zero there.
    Comes,
    /// It differs; these are its parts.
    Parts(Children),
}

/// The source's blocks in the segments that differ; those left out are alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts {
    /// Which batch.
    pub batch: u64,
    /// Number in the batch and diff of each block that is not alike, ascending.
    pub blocks: Vec<(u32, BlockDiff)>,
}

/// The target's pages of the parts that differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pages {
    /// Which batch.
    pub batch: u64,
    /// For each block that came with parts, in their order.
    pub blocks: Vec<BlockPages>,
}

/// The parts of one block that differ.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BlockPages {
    /// Which parts differ.
    pub differs: u64,
    /// The target's pages of those parts, bits counted from the block's first page.
    pub pages: Children,
}

/// New pages of blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Data {
    /// Which batch.
    pub batch: u64,
    /// Ascending; each block that differs comes in one message, whole.
    pub blocks: Vec<NewBlock>,
    /// BLAKE3 of all that is said of blocks, and of the pages' bytes.
    pub digest: [u8; 32],
    /// Whether `payload` is a zstd frame.
    pub is_packed: bool,
    /// The bytes of all data pages, one after the other.
    pub payload: Vec<u8>,
}

/// Which pages of a block are new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewBlock {
    /// Number in the batch.
    pub block: u32,
    /// Pages whose bytes are in the message.
    pub data: u16,
    /// Pages that are zero.
    pub zeros: u16,
}

impl Segments {
    pub(in crate::remote) fn put(&self, out: &mut Put) {
        out.number(self.batch);
        out.raw(&self.segments.mask.to_le_bytes());
        self.segments.put(out);
    }

    pub(in crate::remote) fn take(from: &mut Take<'_>, hash_len: usize) -> Result<Self> {
        let batch = from.number()?;
        let mask = u64::from_le_bytes(from.array()?);
        let segments = Children::take(mask, from, hash_len)?;
        Ok(Segments { batch, segments })
    }
}

impl Blocks {
    pub(in crate::remote) fn put(&self, out: &mut Put) {
        out.number(self.batch);
        out.number(self.segments.len() as u64);
        for (index, blocks) in &self.segments {
            out.number(u64::from(*index));
            put_u16(out, blocks.mask);
            blocks.put(out);
        }
    }

    pub(in crate::remote) fn take(from: &mut Take<'_>, hash_len: usize) -> Result<Self> {
        let batch = from.number()?;
        let count = from.count(BATCH_SEGMENTS as usize)?;
        let mut order = Ascending::below(BATCH_SEGMENTS);
        let mut segments = Vec::with_capacity(count);
        for _ in 0..count {
            let index = order.next(from.number()?)?;
            let mask = u64::from(from.u16()?);
            segments.push((index, Children::take(mask, from, hash_len)?));
        }
        Ok(Blocks { batch, segments })
    }
}

impl Parts {
    /// A block's number times four, plus what it is; then a byte with the mask of its parts.
    pub(in crate::remote) fn put(&self, out: &mut Put) {
        out.number(self.batch);
        out.number(self.blocks.len() as u64);
        let mut last = 0;
        for (block, diff) in &self.blocks {
            let (what, parts) = match diff {
                BlockDiff::Zero => (0, None),
                BlockDiff::Comes => (1, None),
                BlockDiff::Parts(parts) => (2, Some(parts)),
            };
            out.number(u64::from(block - last) * 4 + what);
            last = *block;
            if let Some(parts) = parts {
                out.byte((parts.mask & 0xf) as u8); // four parts
                parts.put(out);
            }
        }
    }

    pub(in crate::remote) fn take(from: &mut Take<'_>, hash_len: usize) -> Result<Self> {
        let batch = from.number()?;
        let count = from.count(BATCH_BLOCKS as usize)?;
        let mut order = Ascending::below(BATCH_BLOCKS);
        let mut blocks = Vec::with_capacity(count);
        for _ in 0..count {
            let word = from.number()?;
            let block = order.after(word / 4)?;
            let diff = match word % 4 {
                0 => BlockDiff::Zero,
                1 => BlockDiff::Comes,
                2 => {
                    let mask = u64::from(from.byte()?);
                    if mask == 0 || mask >> BLOCK_PARTS != 0 {
                        return Err(wrong("a block with parts that it cannot have"));
                    }
                    BlockDiff::Parts(Children::take(mask, from, hash_len)?)
                }
                _ => return Err(wrong("a block of an unknown kind")),
            };
            blocks.push((block, diff));
        }
        Ok(Parts { batch, blocks })
    }
}

impl Pages {
    /// For each block a byte: its parts that differ; and for each of them four bits, its pages.
    pub(in crate::remote) fn put(&self, out: &mut Put) {
        out.number(self.batch);
        out.number(self.blocks.len() as u64);
        for block in &self.blocks {
            out.byte((block.differs & 0xf) as u8); // four parts
            let mut nibbles = bits(block.differs).map(|part| {
                (block.pages.mask >> (part * PART_PAGES) & 0xf) as u8 // four pages
            });
            while let Some(low) = nibbles.next() {
                out.byte(low | nibbles.next().unwrap_or(0) << 4);
            }
            block.pages.put(out);
        }
    }

    pub(in crate::remote) fn take(from: &mut Take<'_>, hash_len: usize) -> Result<Self> {
        let batch = from.number()?;
        let count = from.count(BATCH_BLOCKS as usize)?;
        let mut blocks = Vec::with_capacity(count);
        for _ in 0..count {
            let differs = u64::from(from.byte()?);
            if differs >> BLOCK_PARTS != 0 {
                return Err(wrong("a block with parts that it cannot have"));
            }
            let bytes = from.raw(differs.count_ones().div_ceil(2) as usize)?;
            let nibbles = bytes.iter().flat_map(|byte| [byte & 0xf, byte >> 4]);
            let mut mask = 0;
            for (part, nibble) in bits(differs).zip(nibbles) {
                mask |= u64::from(nibble) << (part * PART_PAGES);
            }
            let pages = Children::take(mask, from, hash_len)?;
            blocks.push(BlockPages { differs, pages });
        }
        Ok(Pages { batch, blocks })
    }
}

impl Data {
    /// What is said of the blocks, as it is sent and as it goes into the digest.
    pub(in crate::remote) fn head(batch: u64, blocks: &[NewBlock]) -> Vec<u8> {
        let mut out = Put::default();
        out.number(batch);
        out.number(blocks.len() as u64);
        let mut last = 0;
        for new in blocks {
            out.number(u64::from(new.block - last) * 2 + u64::from(new.zeros != 0));
            last = new.block;
            out.raw(&new.data.to_le_bytes());
            if new.zeros != 0 {
                out.raw(&new.zeros.to_le_bytes());
            }
        }
        out.0
    }

    pub(in crate::remote) fn put(&self, out: &mut Put) {
        out.raw(&Data::head(self.batch, &self.blocks));
        out.raw(&self.digest);
        out.flag(self.is_packed);
        out.raw(&self.payload);
    }

    pub(in crate::remote) fn take(from: &mut Take<'_>) -> Result<Self> {
        let batch = from.number()?;
        let count = from.count(BATCH_BLOCKS as usize)?;
        let mut order = Ascending::below(BATCH_BLOCKS);
        let mut blocks = Vec::with_capacity(count);
        for _ in 0..count {
            let word = from.number()?;
            let block = order.after(word / 2)?;
            let data = from.u16()?;
            let zeros = match word % 2 {
                0 => 0,
                _ => match from.u16()? {
                    0 => return Err(wrong("a block whose zeros are none")),
                    zeros => zeros,
                },
            };
            if data & zeros != 0 {
                return Err(wrong("a page that is both data and zeros"));
            }
            blocks.push(NewBlock { block, data, zeros });
        }
        let digest = from.array()?;
        let is_packed = from.flag()?;
        let payload = from.rest().to_vec();
        if payload.len() > DATA_MOST {
            return Err(wrong("more data than goes into one message"));
        }
        Ok(Data {
            batch,
            blocks,
            digest,
            is_packed,
            payload,
        })
    }
}

/// The bit of child `index`, which is below 64.
pub(in crate::remote) fn bit(index: u32) -> u64 {
    1u64.checked_shl(index).unwrap_or(0)
}

/// The numbers of the bits that are set, ascending.
pub(in crate::remote) fn bits(mask: u64) -> impl Iterator<Item = u32> {
    (0..64).filter(move |index| mask >> index & 1 == 1)
}

/// Numbers that must rise, and stay below an end.
struct Ascending {
    next: u64,
    last: u64,
    end: u32,
}

impl Ascending {
    fn below(end: u32) -> Self {
        Ascending {
            next: 0,
            last: 0,
            end,
        }
    }

    fn next(&mut self, number: u64) -> Result<u32> {
        match u32::try_from(number) {
            Ok(small) if number >= self.next && small < self.end => {
                (self.next, self.last) = (number + 1, number);
                Ok(small)
            }
            _ => Err(wrong("numbers that do not rise, or rise too far")),
        }
    }

    /// The number that lies `step` after the last one.
    fn after(&mut self, step: u64) -> Result<u32> {
        self.next(self.last.saturating_add(step))
    }
}

fn put_u16(out: &mut Put, mask: u64) {
    const { assert!(SEGMENT_BLOCKS == 16) };
    out.raw(&((mask & 0xffff) as u16).to_le_bytes());
}
