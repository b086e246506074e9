//! What a disk becomes by a delta, found without writing it.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::hash::Hash;

use super::format::FrameKind;
use super::reader::Delta;
use super::sorter::{Sorter, Table};
use crate::error::Result;
use crate::image::Image;
use crate::manifest::{HashPass, HashedRun, ManifestWriter, Sink, Visit};
use crate::progress::{Phase, Work};
use crate::units::{BlockSize, is_zero};

/// The roots of `base` as it is and as `delta` would make it, in one pass over `base` and two over
/// the delta, which is [verified](Delta::verify) by it.
///
/// # Errors
/// Those of [`Delta::verify`] and of reading `base`.
pub(crate) fn roots(delta: &Delta, base: &dyn Image, work: &Work) -> Result<(Hash, Hash)> {
    let block_size = delta.header().block_size;
    let preview = Preview {
        delta,
        base_len: base.disk_len(),
        frames: Frames::of(delta, work)?,
        near: Mutex::new(VecDeque::new()),
        resolved: Mutex::new(HashMap::new()),
    };
    let mut roots = Roots {
        base: ManifestWriter::root_only(base.disk_len(), block_size),
        result: ManifestWriter::root_only(delta.header().result_len, block_size),
        preview: &preview,
    };
    work.progress().begin(Phase::Hash, Some(base.disk_len()));
    HashPass::new(base, block_size, work).run(&preview, &mut roots)?;
    let ends = block_size.count(base.disk_len());
    roots.result_zeros(ends..block_size.count(delta.header().result_len))?;
    Ok((roots.base.finish()?, roots.result.finish()?))
}

/// Sees the base's blocks while their bytes are at hand, and resolves those that the delta changes.
struct Preview<'a> {
    delta: &'a Delta,
    base_len: u64,
    frames: Frames,
    /// The last payloads read: a frame is often longer than what is looked at in one go.
    near: Mutex<VecDeque<(u64, Arc<Vec<u8>>)>>,
    /// Blocks seen that the sink has not come to.
    resolved: Mutex<HashMap<u64, Option<Hash>>>,
}

impl Preview<'_> {
    /// The hash of a block of the result whose bytes in the base are `old`, zero beyond its end.
    fn block(&self, block: u64, old: &[u8]) -> Result<Option<Hash>> {
        let range = self.block_size().range(block, self.result_len());
        // At most a block.
        let mut bytes = vec![0; (range.end - range.start) as usize];
        let both = bytes.len().min(old.len());
        bytes[..both].copy_from_slice(&old[..both]);
        self.frames.each_in(&range, |frame| {
            let part = frame.offset.max(range.start)..frame.end().min(range.end);
            // Inside the block, and inside the frame.
            let into =
                &mut bytes[(part.start - range.start) as usize..(part.end - range.start) as usize];
            match frame.payload_at {
                ZEROS => into.fill(0),
                at => {
                    let from = (part.start - frame.offset) as usize;
                    let payload = self.payload(at, frame.len)?;
                    into.copy_from_slice(&payload[from..from + into.len()]);
                }
            }
            Ok(true)
        })?;
        Ok((!is_zero(&bytes)).then(|| Hash::of(&bytes)))
    }

    /// Whether a block of the base may be another one in the result, which has it.
    fn changes(&self, block: u64) -> Result<bool> {
        let range = self.block_size().range(block, self.result_len());
        let base_range = self.block_size().range(block, self.base_len);
        let mut changes = !range.is_empty() && range != base_range;
        if !range.is_empty() && !changes {
            self.frames.each_in(&range, |_| {
                changes = true;
                Ok(false)
            })?;
        }
        Ok(changes)
    }

    fn payload(&self, at: u64, len: u64) -> Result<Arc<Vec<u8>>> {
        let lock = || self.near.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, payload)) = lock().iter().find(|(there, _)| *there == at) {
            return Ok(Arc::clone(payload));
        }
        let payload = Arc::new(self.delta.data_at(at, len)?);
        let mut near = lock();
        if near.len() >= NEAR_FRAMES {
            near.pop_front();
        }
        near.push_back((at, Arc::clone(&payload)));
        Ok(payload)
    }

    fn resolved(&self) -> MutexGuard<'_, HashMap<u64, Option<Hash>>> {
        self.resolved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn block_size(&self) -> BlockSize {
        self.delta.header().block_size
    }

    fn result_len(&self) -> u64 {
        self.delta.header().result_len
    }
}

impl Visit for Preview<'_> {
    fn data(&self, run: &HashedRun<'_>) -> Result<()> {
        for (block, bytes, _) in run.blocks() {
            if self.changes(block)? {
                let hash = self.block(block, bytes)?;
                self.resolved().insert(block, hash);
            }
        }
        Ok(())
    }

    fn zeros(&self, _blocks: Range<u64>) -> Result<()> {
        Ok(())
    }
}

/// Both trees, as the pass goes along the base.
struct Roots<'a> {
    base: ManifestWriter,
    result: ManifestWriter,
    preview: &'a Preview<'a>,
}

impl Roots<'_> {
    /// Blocks that are zero in the base, or beyond its end.
    fn result_zeros(&mut self, blocks: Range<u64>) -> Result<()> {
        let size = self.preview.block_size();
        let end = blocks.end.min(size.count(self.preview.result_len()));
        let mut at = blocks.start;
        while at < end {
            // Frames are few beside the blocks of a hole, so the walk goes by frames.
            let hole = at * size.bytes()..end.saturating_mul(size.bytes());
            let Some(frame) = self.preview.frames.first_data_in(&hole)? else {
                break;
            };
            let block = (frame.offset / size.bytes()).max(at);
            if let Some(hash) = self.preview.block(block, &[])? {
                self.result.push(block, &hash)?;
            }
            at = block + 1;
        }
        Ok(())
    }
}

impl Sink for Roots<'_> {
    fn data(&mut self, first_block: u64, hashes: &[Option<Hash>]) -> Result<()> {
        self.base.data(first_block, hashes)?;
        let count = self.preview.block_size().count(self.preview.result_len());
        let mut resolved = self.preview.resolved();
        for (block, hash) in (first_block..count).zip(hashes) {
            if let Some(hash) = resolved.remove(&block).unwrap_or(*hash) {
                self.result.push(block, &hash)?;
            }
        }
        Ok(())
    }

    fn zeros(&mut self, blocks: Range<u64>) -> Result<()> {
        self.base.zeros(blocks.clone())?;
        self.result_zeros(blocks)
    }
}

/// Where each frame's bytes are, by disk offset.
struct Frames(Table<3>);

#[derive(Clone, Copy)]
struct FramePayload {
    offset: u64,
    len: u64,
    /// In the delta file; [`ZEROS`] for a frame that zeroes.
    payload_at: u64,
}

impl FramePayload {
    /// Not beyond the result's end, as was checked.
    fn end(&self) -> u64 {
        self.offset + self.len
    }
}

impl Frames {
    fn of(delta: &Delta, work: &Work) -> Result<Self> {
        let near = delta.storage().path().to_owned();
        let payloads = Mutex::new(Sorter::new(delta.limits().ranges_bytes(), near));
        delta.verify(work, &|frame| {
            let payload_at = match frame.header().kind {
                FrameKind::Data => frame.at(),
                FrameKind::Zero => ZEROS,
                _ => return Ok(()),
            };
            let mut payloads = payloads.lock().unwrap_or_else(PoisonError::into_inner);
            payloads.push([frame.offset(), frame.header().len, payload_at])
        })?;
        let payloads = payloads
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        payloads.into_table().map(Frames)
    }

    /// Passes on those that touch `range`, ascending, until `visit` says `false`.
    fn each_in(
        &self,
        range: &Range<u64>,
        mut visit: impl FnMut(FramePayload) -> Result<bool>,
    ) -> Result<()> {
        let place = |[offset, len, payload_at]: [u64; 3]| FramePayload {
            offset,
            len,
            payload_at,
        };
        let is_before = |row: &[u64; 3]| place(*row).end() <= range.start;
        self.0.each(is_before, |row| {
            let place = place(*row);
            Ok(place.offset < range.end && visit(place)?)
        })
    }

    /// The first of them with bytes.
    fn first_data_in(&self, range: &Range<u64>) -> Result<Option<FramePayload>> {
        let mut first = None;
        self.each_in(range, |place| {
            first = (place.payload_at != ZEROS).then_some(place);
            Ok(first.is_none())
        })?;
        Ok(first)
    }
}

/// No frame lies here: a file begins with its header.
const ZEROS: u64 = 0;

/// Enough for the threads that look at neighbouring blocks.
const NEAR_FRAMES: usize = 4;
