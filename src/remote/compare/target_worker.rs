//! What the end with the target reads, hashes and emits.

use super::endpoint::Worker;
use super::keys::Keys;
use super::source_worker::digest;
use super::view::{View, hash_block};
use super::windows::BlockHashes;
use crate::diff::{Content, Difference};
use crate::error::Result;
use crate::hash::Hash;
use crate::remote::wire::codec::wrong;
use crate::remote::wire::comparison::{BlockPages, Children, Data, NewBlock, bit, bits};
use crate::remote::wire::format::{BLOCK_PAGES, DATA_MOST, PAGE, PART, PART_PAGES};
use crate::units::is_zero;

/// What takes the differences, on any thread.
pub type Visit<'a> = dyn Fn(Difference<'_>) -> Result<()> + Sync + 'a;

/// Work of the end with the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetTask {
    /// Hash a piece of the view.
    Hash(u64),
    /// These blocks become zero.
    Clear(u64, Vec<u32>),
    /// Find the parts that differ of these blocks, and hash their pages.
    Pages(u64, Vec<(u32, Children)>),
    /// Take new pages.
    Data(Data),
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetCompletion {
    /// The blocks of a piece.
    Hashes(u64, BlockHashes),
    /// What blocks hold now, and what was emitted.
    Changed(u64, Vec<(u32, Option<Hash>)>, Emitted),
    /// The pages of blocks.
    Pages(u64, Vec<(u32, BlockPages)>),
}

/// Bytes of differences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Emitted {
    /// All of them.
    pub changed_bytes: u64,
    /// Those that became zero.
    pub zeroed_bytes: u64,
}

/// Reads the target, and emits how it differs.
#[derive(Clone)]
pub struct TargetWorker<'a> {
    view: &'a View<'a>,
    keys: Keys,
    visit: &'a Visit<'a>,
    counts_only: bool,
    everything: bool,
}

opaque!(TargetWorker<'_>);

impl<'a> TargetWorker<'a> {
    /// Reads `view` and passes differences to `visit`.
    pub fn new(view: &'a View<'a>, keys: Keys, visit: &'a Visit<'a>) -> Self {
        TargetWorker {
            view,
            keys,
            visit,
            counts_only: false,
            everything: false,
        }
    }

    /// Emits nothing, and counts what data messages without bytes tell.
    #[must_use]
    pub fn with_counts_only(mut self, counts_only: bool) -> Self {
        self.counts_only = counts_only;
        self
    }

    /// Emits all of a block that came, and not only what differs.
    #[must_use]
    pub(in crate::remote) fn with_everything(mut self, everything: bool) -> Self {
        self.everything = everything;
        self
    }

    fn block(&self, batch: u64, block: u32) -> Result<Vec<u8>> {
        self.view.read(self.view.block(batch, block))
    }

    fn clear(&self, batch: u64, blocks: Vec<u32>) -> Result<TargetCompletion> {
        let mut emitted = Emitted::default();
        let mut changed = Vec::with_capacity(blocks.len());
        for block in blocks {
            let old = self.block(batch, block)?;
            let new = vec![0; old.len()];
            self.emit(
                self.view.block(batch, block).start,
                &new,
                &old,
                &mut emitted,
            )?;
            changed.push((block, None));
        }
        Ok(TargetCompletion::Changed(batch, changed, emitted))
    }

    fn pages(&self, batch: u64, blocks: Vec<(u32, Children)>) -> Result<TargetCompletion> {
        let mut found = Vec::with_capacity(blocks.len());
        for (block, theirs) in blocks {
            let bytes = self.block(batch, block)?;
            let ours = self.keys.pieces(&bytes, PART);
            let mut of_block = BlockPages::default();
            let hash = |children: &Children, part| {
                children
                    .iter()
                    .find(|(at, _)| *at == part)
                    .map(|(_, hash)| hash)
            };
            for (part, bytes) in (0..).zip(bytes.chunks(PART as usize)) {
                if hash(&ours, part) == hash(&theirs, part) {
                    continue;
                }
                of_block.differs |= bit(part);
                for (page, hash) in self.keys.pieces(bytes, PAGE).iter() {
                    of_block.pages.push(part * PART_PAGES + page, hash);
                }
            }
            found.push((block, of_block));
        }
        Ok(TargetCompletion::Pages(batch, found))
    }

    fn data(&self, data: Data) -> Result<TargetCompletion> {
        let payload = match data.is_packed {
            true => unpack(&data.payload)?,
            false => data.payload,
        };
        if digest(data.batch, &data.blocks, &payload) != data.digest {
            return Err(wrong("data that does not have its hash"));
        }
        if self.counts_only {
            return self.count(data.batch, &data.blocks, &payload);
        }
        let mut rest = &payload[..];
        let mut emitted = Emitted::default();
        let mut changed = Vec::with_capacity(data.blocks.len());
        for new in &data.blocks {
            let old = self.block(data.batch, new.block)?;
            let block = patched(&old, new, &mut rest)?;
            let start = self.view.block(data.batch, new.block).start;
            self.emit(start, &block, &old, &mut emitted)?;
            changed.push((new.block, hash_block(&block)));
        }
        match rest {
            [] => Ok(TargetCompletion::Changed(data.batch, changed, emitted)),
            _ => Err(wrong("more data than its pages hold")),
        }
    }

    /// What data without bytes comes to.
    fn count(&self, batch: u64, blocks: &[NewBlock], payload: &[u8]) -> Result<TargetCompletion> {
        if !payload.is_empty() {
            return Err(wrong("bytes that were not asked for"));
        }
        let mut emitted = Emitted::default();
        for new in blocks {
            let block = self.view.block(batch, new.block);
            let block_len = usize::try_from(block.end - block.start).unwrap_or(0);
            for page in bits(u64::from(new.data | new.zeros)) {
                let len = page_range(page, block_len).len() as u64;
                if len == 0 {
                    return Err(wrong("pages beyond the end of the disk"));
                }
                emitted.changed_bytes += len;
                if u64::from(new.zeros) & bit(page) != 0 {
                    emitted.zeroed_bytes += len;
                }
            }
        }
        Ok(TargetCompletion::Changed(batch, Vec::new(), emitted))
    }

    /// Emits the pages that differ, neighbours of one kind together.
    fn emit(&self, start: u64, new: &[u8], old: &[u8], emitted: &mut Emitted) -> Result<()> {
        let page = PAGE as usize;
        let kinds: Vec<Option<bool>> = new
            .chunks(page)
            .zip(old.chunks(page))
            .map(|(new, old)| (self.everything || new != old).then(|| is_zero(new)))
            .collect();
        let mut first = 0;
        for run in kinds.chunk_by(|one, next| one == next) {
            let from = first * page;
            first += run.len();
            let to = (first * page).min(new.len());
            if let Some(Some(zeros)) = run.first().copied() {
                let (new, old) = (&new[from..to], &old[from..to]);
                if !self.counts_only {
                    self.emit_run(start + from as u64, new, old, zeros)?;
                }
                emitted.changed_bytes += new.len() as u64;
                emitted.zeroed_bytes += if zeros { new.len() as u64 } else { 0 };
            }
        }
        Ok(())
    }

    fn emit_run(&self, start: u64, new: &[u8], old: &[u8], zeros: bool) -> Result<()> {
        let range = start..start + new.len() as u64;
        let (mut new, mut old) = (new, old);
        for (_, piece) in self.view.windows().pieces(range) {
            let len = usize::try_from(piece.end - piece.start).unwrap_or(usize::MAX);
            let (new_now, new_rest) = new.split_at(len.min(new.len()));
            let (old_now, old_rest) = old.split_at(len.min(old.len()));
            (new, old) = (new_rest, old_rest);
            (self.visit)(Difference {
                offset: piece.start,
                new: match zeros {
                    true => Content::Zeros(new_now.len() as u64),
                    false => Content::Bytes(new_now),
                },
                old: match is_zero(old_now) {
                    true => Content::Zeros(old_now.len() as u64),
                    false => Content::Bytes(old_now),
                },
            })?;
        }
        Ok(())
    }
}

impl Worker for TargetWorker<'_> {
    type Task = TargetTask;
    type Completion = TargetCompletion;

    fn perform(&self, task: TargetTask) -> Result<TargetCompletion> {
        match task {
            TargetTask::Hash(piece) => {
                let hashes = self.view.hash_piece(piece)?;
                Ok(TargetCompletion::Hashes(piece, hashes))
            }
            TargetTask::Clear(batch, blocks) => self.clear(batch, blocks),
            TargetTask::Pages(batch, blocks) => self.pages(batch, blocks),
            TargetTask::Data(data) => self.data(data),
        }
    }
}

/// A block with its new pages, whose bytes are taken off `payload`.
fn patched(old: &[u8], new: &NewBlock, payload: &mut &[u8]) -> Result<Vec<u8>> {
    let mut block = old.to_vec();
    for page in bits(u64::from(new.data | new.zeros)) {
        let range = page_range(page, block.len());
        let Some(slot) = block.get_mut(range).filter(|slot| !slot.is_empty()) else {
            return Err(wrong("pages beyond the end of the disk"));
        };
        if u64::from(new.zeros) & bit(page) != 0 {
            slot.fill(0);
            continue;
        }
        let Some((bytes, rest)) = payload.split_at_checked(slot.len()) else {
            return Err(wrong("less data than its pages hold"));
        };
        slot.copy_from_slice(bytes);
        *payload = rest;
    }
    Ok(block)
}

fn page_range(page: u32, block_len: usize) -> std::ops::Range<usize> {
    let start = (page.min(BLOCK_PAGES) as usize) * PAGE as usize;
    start.min(block_len)..(start + PAGE as usize).min(block_len)
}

fn unpack(packed: &[u8]) -> Result<Vec<u8>> {
    zstd::bulk::decompress(packed, DATA_MOST)
        .map_err(|cause| wrong("data that cannot be unpacked").caused_by(cause))
}
