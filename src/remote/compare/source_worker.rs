//! What the end with the source reads and hashes.

use std::ops::Range;

use super::endpoint::Worker;
use super::keys::Keys;
use super::view::View;
use super::windows::BlockHashes;
use crate::error::Result;
use crate::remote::wire::comparison::{BlockDiff, BlockPages, Children, Data, NewBlock, bit, bits};
use crate::remote::wire::format::{BLOCK_PARTS, PAGE, PART, PART_PAGES};
use crate::units::is_zero;

/// Work of the end with the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceTask {
    /// Hash a piece of the view.
    Hash(u64),
    /// Hash the parts of these blocks; the diffs of others are known already.
    Parts(u64, Vec<(u32, BlockDiff)>),
    /// Find and pack the new pages of these blocks.
    Data(u64, Vec<(u32, Wanted)>),
}

/// What of a block the target does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// All that is not zero.
    All,
    /// Those pages of these parts that differ.
    Pages(BlockPages),
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceCompletion {
    /// The blocks of a piece.
    Hashes(u64, BlockHashes),
    /// The diffs of blocks.
    Parts(u64, Vec<(u32, BlockDiff)>),
    /// A message.
    Data(Data),
}

/// Reads the source.
#[derive(Clone)]
pub struct SourceWorker<'a> {
    view: &'a View<'a>,
    keys: Keys,
    packs: bool,
    counts_only: bool,
}

opaque!(SourceWorker<'_>);

impl<'a> SourceWorker<'a> {
    /// Reads `view`; `packs` says whether payloads may be compressed.
    pub fn new(view: &'a View<'a>, keys: Keys, packs: bool) -> Self {
        SourceWorker {
            view,
            keys,
            packs,
            counts_only: false,
        }
    }

    /// Leaves the bytes out of data messages, for an end that only counts.
    #[must_use]
    pub fn with_counts_only(mut self, counts_only: bool) -> Self {
        self.counts_only = counts_only;
        self
    }

    fn block(&self, batch: u64, block: u32) -> Result<Vec<u8>> {
        self.view.read(self.view.block(batch, block))
    }

    fn data(&self, batch: u64, wanted: Vec<(u32, Wanted)>) -> Result<Data> {
        let mut blocks = Vec::with_capacity(wanted.len());
        let mut payload = Vec::new();
        for (block, wanted) in wanted {
            let whole = self.view.block(batch, block);
            let parts = wanted.parts();
            let at = |part| (whole.start + u64::from(part) * PART).min(whole.end);
            let bytes = self.view.read(at(parts.start)..at(parts.end))?;
            let first = parts.start * PART_PAGES;
            let (mut data, mut zeros) = (0, 0);
            for (index, page) in (first..).zip(bytes.chunks(PAGE as usize)) {
                match self.differs(&wanted, index, page) {
                    true if is_zero(page) => zeros |= bit(index),
                    true => {
                        data |= bit(index);
                        payload.extend_from_slice(page);
                    }
                    false => {}
                }
            }
            blocks.push(NewBlock {
                block,
                data: data as u16,   // a block has sixteen pages
                zeros: zeros as u16, // as above
            });
        }
        if self.counts_only {
            payload.clear();
        }
        let digest = digest(batch, &blocks, &payload);
        let packed = self.packs.then(|| pack(&payload)).flatten();
        Ok(Data {
            batch,
            blocks,
            digest,
            is_packed: packed.is_some(),
            payload: packed.unwrap_or(payload),
        })
    }

    fn differs(&self, wanted: &Wanted, index: u32, page: &[u8]) -> bool {
        let theirs = match wanted {
            Wanted::All => return !is_zero(page),
            Wanted::Pages(it) if it.differs & bit(index / PART_PAGES) == 0 => return false,
            Wanted::Pages(it) => hash_of(&it.pages, index),
        };
        match theirs {
            Some(theirs) => is_zero(page) || self.keys.bytes(page) != theirs,
            None => !is_zero(page),
        }
    }
}

impl Worker for SourceWorker<'_> {
    type Task = SourceTask;
    type Completion = SourceCompletion;

    fn perform(&self, task: SourceTask) -> Result<SourceCompletion> {
        match task {
            SourceTask::Hash(piece) => {
                let hashes = self.view.hash_piece(piece)?;
                Ok(SourceCompletion::Hashes(piece, hashes))
            }
            SourceTask::Parts(batch, mut blocks) => {
                for (block, diff) in &mut blocks {
                    if let BlockDiff::Parts(parts) = diff {
                        *parts = self.keys.pieces(&self.block(batch, *block)?, PART);
                        if parts.mask == 0 {
                            // It became zero since it was hashed; the root will tell.
                            *diff = BlockDiff::Zero;
                        }
                    }
                }
                Ok(SourceCompletion::Parts(batch, blocks))
            }
            SourceTask::Data(batch, wanted) => self.data(batch, wanted).map(SourceCompletion::Data),
        }
    }
}

impl Wanted {
    /// The parts from the first that may differ to the last.
    fn parts(&self) -> Range<u32> {
        match self {
            Wanted::All => 0..BLOCK_PARTS,
            Wanted::Pages(pages) => {
                let end = u64::BITS - pages.differs.leading_zeros();
                pages.differs.trailing_zeros().min(end)..end
            }
        }
    }

    /// The most bytes that it can come to.
    pub(in crate::remote) fn bytes_most(&self) -> usize {
        let parts = match self {
            Wanted::All => BLOCK_PARTS,
            Wanted::Pages(pages) => pages.differs.count_ones(),
        };
        parts as usize * PART as usize
    }
}

/// The hash that a data message carries.
pub(in crate::remote) fn digest(batch: u64, blocks: &[NewBlock], payload: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&Data::head(batch, blocks));
    hasher.update(payload);
    hasher.finalize().into()
}

fn hash_of(
    children: &Children,
    index: u32,
) -> Option<crate::remote::wire::comparison::TruncatedHash> {
    if children.mask & bit(index) == 0 {
        return None;
    }
    let place = bits(children.mask).take_while(|it| *it < index).count();
    children.hashes.get(place).copied()
}

/// Compresses what gets smaller by an eighth; a sample says early that it will not.
fn pack(payload: &[u8]) -> Option<Vec<u8>> {
    let sample = payload.get(..SAMPLE).unwrap_or(payload);
    let shrinks = |plain: &[u8]| {
        let packed = zstd::bulk::compress(plain, LEVEL).ok()?;
        (packed.len() + plain.len() / 8 < plain.len()).then_some(packed)
    };
    let packed = shrinks(sample)?;
    match sample.len() == payload.len() {
        true => Some(packed),
        false => shrinks(payload),
    }
}

const SAMPLE: usize = 16 << 10;
const LEVEL: i32 = 1;
