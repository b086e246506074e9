//! A descent, seen from the end with the target.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use super::endpoint::{Capacity, Endpoint, Output};
use super::hashing::Hashing;
use super::keys::Keys;
use super::open_batch::{BatchState, OpenBatch};
use super::target_worker::{Emitted, TargetCompletion, TargetTask};
use super::view::View;
use super::windows::BlockHashes;
use crate::diff::CompareReport;
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{ManifestWriter, Sink};
use crate::remote::wire::codec::wrong;
use crate::remote::wire::comparison::{
    BlockDiff, BlockPages, Blocks, Children, Data, Pages, Parts, Segments, bit, bits,
};
use crate::remote::wire::format::{
    BATCH, BATCH_BLOCKS, BATCH_PIECES, BLOCK, PAGE, PART_PAGES, PIECE, SEGMENT, SEGMENT_BLOCKS,
    WINDOW_BATCHES,
};
use crate::remote::wire::message::Message;
use crate::units::{BlockSize, PAGE_BYTES};

/// Takes the number of a block in the view, and hashes from there on.
pub type TakeBlocks<'a> = Box<dyn FnMut(u64, &BlockHashes) -> Result<()> + 'a>;

/// The end with the target, for one comparison.
///
/// It trusts nothing but what it can check: data has the hash it comes with, only pages that
/// were asked for are taken, and in the end what is there must have the root of the source.
pub struct TargetPeer<'a> {
    view: &'a View<'a>,
    keys: Keys,
    /// The target's batches that were not held against the source's yet.
    ours: Hashing<'a>,
    /// The source's batches that were not held against the target's yet.
    theirs: VecDeque<Segments>,
    /// The first batch of which the source may still speak.
    theirs_next: u64,
    /// The source's root, once it came.
    their_root: Option<[u8; 32]>,
    /// Batches that were compared and are not finished.
    open: BTreeMap<u64, OpenBatch>,
    outbox: VecDeque<Message>,
    tasks: VecDeque<TargetTask>,
    root: Option<ManifestWriter>,
    compared_bytes: u64,
    emitted: Emitted,
    finished_bytes: u64,
    also: Option<TakeBlocks<'a>>,
    counts_only: bool,
    /// Whether the source may pass over what it cannot read.
    skips: bool,
    /// The first piece of which it may still say so.
    gaps_next: u64,
}

opaque!(TargetPeer<'_>);

impl<'a> TargetPeer<'a> {
    /// Begins to compare what `view` shows.
    ///
    /// # Errors
    /// `InvalidInput` never in practice: a manifest may have such blocks.
    pub fn new(view: &'a View<'a>, keys: Keys) -> Result<Self> {
        let root = ManifestWriter::root_only(view.len(), BlockSize::new(BLOCK)?);
        Ok(TargetPeer {
            view,
            keys,
            ours: Hashing::new(view),
            theirs: VecDeque::new(),
            theirs_next: 0,
            their_root: None,
            open: BTreeMap::new(),
            outbox: VecDeque::new(),
            tasks: VecDeque::new(),
            root: Some(root),
            compared_bytes: 0,
            emitted: Emitted::default(),
            finished_bytes: 0,
            also: None,
            counts_only: false,
            skips: false,
            gaps_next: 0,
        })
    }

    /// Also gives the blocks of each batch that is not all zeros to `also`, as they will be.
    #[must_use]
    pub fn with_blocks(mut self, also: TakeBlocks<'a>) -> Self {
        self.also = Some(also);
        self
    }

    /// Takes data messages for what they count, without a root in the end.
    #[must_use]
    pub fn with_counts_only(mut self, counts_only: bool) -> Self {
        self.counts_only = counts_only;
        self
    }

    /// Lets the source pass over what it cannot read: that is not compared, and reported.
    #[must_use]
    pub fn with_skips(mut self, skips: bool) -> Self {
        self.skips = skips;
        self
    }

    /// How much of the view is finished, in bytes, for progress.
    pub fn finished_bytes(&self) -> u64 {
        self.finished_bytes
    }

    /// What was found, once it is finished.
    ///
    /// # Errors
    /// `VerifyFailed` where the target with what was emitted does not have the source's root.
    pub fn report(mut self) -> Result<CompareReport> {
        let root = match self.root.take() {
            Some(root) => Some(*root.finish()?.as_bytes()),
            None => None,
        };
        // Nothing is known of the new contents of a disk whose bytes were not wanted.
        if !self.counts_only && (root != self.their_root || root.is_none()) {
            return Err(Error::new(
                ErrorKind::VerifyFailed,
                "what came from the source does not make up the source",
            )
            .advise(
                "run it again; if it comes back, a program writes to the source or the target",
            ));
        }
        Ok(CompareReport {
            compared_bytes: self.compared_bytes,
            changed_bytes: self.emitted.changed_bytes,
            zeroed_bytes: self.emitted.zeroed_bytes,
            unreadable: self.view.gaps_on_disk(),
            ..CompareReport::default()
        })
    }

    fn hash_next(&mut self) -> Result<Option<TargetTask>> {
        let piece = self.ours.deal(self.ours.len() < WINDOW_BATCHES)?;
        if piece.is_none() {
            self.compare()?;
        }
        Ok(piece.map(TargetTask::Hash))
    }

    /// Compares the batches that both sides have told of, in their order.
    fn compare(&mut self) -> Result<()> {
        loop {
            let ours = self.ours.first();
            let theirs = self.theirs.front().map(|segments| segments.batch);
            let batch = match (ours, theirs) {
                (Some(ours), Some(theirs)) => ours.min(theirs),
                (Some(one), None) | (None, Some(one)) => one,
                (None, None) => break,
            };
            let is_known = self.ours.is_whole(batch);
            let is_told = self.theirs_next > batch || self.their_root.is_some();
            if !is_known || !is_told {
                break;
            }
            let blocks = self.ours.take(batch);
            let segments = match theirs {
                Some(theirs) if theirs == batch => self.theirs.pop_front(),
                _ => None,
            };
            self.compare_batch(batch, blocks, segments);
        }
        self.finish_batches()
    }

    fn compare_batch(&mut self, batch: u64, blocks: Option<BlockHashes>, theirs: Option<Segments>) {
        let blocks = blocks.unwrap_or_else(|| vec![None; self.view.block_count(batch)]);
        let ours = self.keys.segments(&blocks);
        let is_told = theirs.is_some();
        let theirs = theirs.map(|theirs| theirs.segments).unwrap_or_default();
        let hash = |of: &Children, segment| {
            of.iter()
                .find(|(at, _)| *at == segment)
                .map(|(_, hash)| hash)
        };
        let mut differing = Vec::new();
        let mut cleared = Vec::new();
        for segment in bits(ours.mask | theirs.mask) {
            self.compared_bytes += self.segment_len(batch, segment);
            match (hash(&ours, segment), hash(&theirs, segment)) {
                (ours, theirs) if ours == theirs => {}
                (_, Some(_)) => differing.push((segment, self.keys.blocks(&blocks, segment))),
                (_, None) => {
                    let of_segment = segment * SEGMENT_BLOCKS..(segment + 1) * SEGMENT_BLOCKS;
                    let there =
                        |block: &u32| blocks.get(*block as usize).is_some_and(Option::is_some);
                    cleared.extend(of_segment.filter(there));
                }
            }
        }
        let asked = differing
            .iter()
            .fold(0, |mask, (segment, _)| mask | bit(*segment));
        if is_told {
            self.outbox.push_back(Message::Blocks(Blocks {
                batch,
                segments: differing,
            }));
        }
        let mut open = OpenBatch {
            blocks,
            state: if asked == 0 {
                BatchState::Told
            } else {
                BatchState::Asked(asked)
            },
            awaited: BTreeMap::new(),
            changing: 0,
        };
        if !cleared.is_empty() {
            open.changing += 1;
            self.tasks.push_back(TargetTask::Clear(batch, cleared));
        }
        self.open.insert(batch, open);
    }

    fn take_segments(&mut self, segments: Segments) -> Result<()> {
        let end = self.view.len().div_ceil(BATCH);
        let count = (0..64)
            .filter(|segment| self.segment_len(segments.batch, *segment) > 0)
            .count();
        let is_beyond = segments
            .segments
            .mask
            .checked_shr(count as u32)
            .unwrap_or(0)
            != 0;
        if segments.batch < self.theirs_next || segments.batch >= end || is_beyond {
            return Err(wrong(
                "a batch that is out of order or beyond the end of the disk",
            ));
        }
        if segments.segments.mask == 0 || self.their_root.is_some() {
            return Err(wrong("a batch that holds nothing"));
        }
        // What waits to be sent belongs to batches that the source has not heard of again.
        let unfinished = self.theirs.len() + self.open.len();
        if unfinished.max(self.outbox.len()) >= 2 * WINDOW_BATCHES {
            return Err(wrong("more batches than the window takes"));
        }
        self.theirs_next = segments.batch + 1;
        self.theirs.push_back(segments);
        self.compare()
    }

    /// Looks at what the source cannot read no more.
    fn take_gaps(&mut self, gaps: Vec<Range<u64>>) -> Result<()> {
        let (Some(first), Some(last)) = (gaps.first(), gaps.last()) else {
            return Err(wrong("gaps of nothing"));
        };
        let piece = first.start / PIECE;
        let (batch, end) = (piece / BATCH_PIECES, (piece + 1).saturating_mul(PIECE));
        let is_late = batch < self.theirs_next || self.their_root.is_some();
        let is_beyond = last.end > end.min(self.view.len());
        if !self.skips || is_late || is_beyond || piece < self.gaps_next {
            return Err(wrong("gaps that were not asked about or are out of order"));
        }
        self.gaps_next = piece + 1;
        for gap in gaps {
            self.view.gaps().add(gap)?;
        }
        self.ours.redo(piece);
        Ok(())
    }

    fn take_parts(&mut self, parts: Parts) -> Result<()> {
        let batch = parts.batch;
        let Some(open) = self.open.get_mut(&batch) else {
            return Err(wrong("parts of a batch that was not asked about"));
        };
        let BatchState::Asked(segments) = open.state else {
            return Err(wrong("parts of a batch that was not asked about"));
        };
        let (mut cleared, mut paged) = (Vec::new(), Vec::new());
        for (block, diff) in parts.blocks {
            let ours = match open.blocks.get(block as usize) {
                Some(ours) if segments & bit(block / SEGMENT_BLOCKS) != 0 => ours,
                _ => return Err(wrong("a block that was not asked about")),
            };
            match (diff, ours) {
                (BlockDiff::Zero, Some(_)) => cleared.push(block),
                (BlockDiff::Comes, None) => drop(open.awaited.insert(block, u16::MAX)),
                (BlockDiff::Parts(parts), Some(_)) => paged.push((block, parts)),
                _ => return Err(wrong("a block that cannot be what it is said to be")),
            }
        }
        open.state = BatchState::Told;
        if !cleared.is_empty() {
            open.changing += 1;
            self.tasks.push_back(TargetTask::Clear(batch, cleared));
        }
        if !paged.is_empty() {
            open.state = BatchState::Paging;
            self.tasks.push_back(TargetTask::Pages(batch, paged));
        }
        self.finish_batches()
    }

    fn take_data(&mut self, data: Data) -> Result<()> {
        let Some(open) = self.open.get_mut(&data.batch) else {
            return Err(wrong("data that was not asked for"));
        };
        for new in &data.blocks {
            let pages = new.data | new.zeros;
            match open.awaited.remove(&new.block) {
                Some(allowed) if pages & !allowed == 0 => {}
                _ => return Err(wrong("data that was not asked for")),
            }
        }
        open.changing += 1;
        self.tasks.push_back(TargetTask::Data(data));
        Ok(())
    }

    fn say_pages(&mut self, batch: u64, blocks: Vec<(u32, BlockPages)>) -> Result<()> {
        if let Some(open) = self.open.get_mut(&batch) {
            open.state = BatchState::Told;
            for (block, pages) in &blocks {
                if pages.differs != 0 {
                    let of_part = |part| 0xf_u16 << (part * PART_PAGES);
                    let allowed = bits(pages.differs).fold(0, |mask, part| mask | of_part(part));
                    open.awaited.insert(*block, allowed);
                }
            }
        }
        let blocks = blocks.into_iter().map(|(_, pages)| pages).collect();
        self.outbox
            .push_back(Message::Pages(Pages { batch, blocks }));
        self.finish_batches()
    }

    /// Gives the blocks of finished batches to the root, in their order.
    fn finish_batches(&mut self) -> Result<()> {
        while let Some(entry) = self.open.first_entry() {
            let open = entry.get();
            if open.state != BatchState::Told || !open.awaited.is_empty() || open.changing > 0 {
                break;
            }
            let (batch, open) = entry.remove_entry();
            if let Some(root) = &mut self.root {
                root.data(batch * u64::from(BATCH_BLOCKS), &open.blocks)?;
            }
            if let Some(also) = &mut self.also {
                also(batch * u64::from(BATCH_BLOCKS), &open.blocks)?;
            }
            self.finished_bytes = (batch + 1).saturating_mul(BATCH).min(self.view.len());
        }
        Ok(())
    }

    fn segment_len(&self, batch: u64, segment: u32) -> u64 {
        let start = batch
            .saturating_mul(BATCH)
            .saturating_add(u64::from(segment) * SEGMENT);
        self.view.len().saturating_sub(start).min(SEGMENT)
    }
}

impl Endpoint for TargetPeer<'_> {
    type Task = TargetTask;
    type Completion = TargetCompletion;

    const ONLY_ANSWERS: bool = false;

    fn next_output(&mut self, capacity: Capacity) -> Result<Option<Output<TargetTask>>> {
        if capacity.line
            && let Some(message) = self.outbox.pop_front()
        {
            return Ok(Some(Output::Send(message)));
        }
        if !capacity.tasks {
            return Ok(None);
        }
        if let Some(task) = self.tasks.pop_front() {
            return Ok(Some(Output::Run(task)));
        }
        if let Some(task) = self.hash_next()? {
            return Ok(Some(Output::Run(task)));
        }
        // That nothing is left to hash of a batch may have been the last thing to know of it.
        let message = capacity.line.then(|| self.outbox.pop_front()).flatten();
        let message = message.map(Output::Send);
        Ok(message.or_else(|| self.tasks.pop_front().map(Output::Run)))
    }

    fn receive(&mut self, message: Message) -> Result<()> {
        match message {
            Message::Segments(segments) => self.take_segments(segments),
            Message::Parts(parts) => self.take_parts(parts),
            Message::Data(data) => self.take_data(data),
            Message::Unreadable(gaps) => self.take_gaps(gaps),
            Message::Root(root) if self.their_root.is_none() => {
                self.their_root = Some(root);
                self.compare()
            }
            _ => Err(wrong("a message that has no place in a descent")),
        }
    }

    fn complete(&mut self, done: TargetCompletion) -> Result<()> {
        match done {
            TargetCompletion::Hashes(piece, hashes) => {
                self.ours.put(piece, hashes);
                self.compare()
            }
            TargetCompletion::Pages(batch, blocks) => self.say_pages(batch, blocks),
            TargetCompletion::Changed(batch, blocks, emitted) => {
                self.emitted.changed_bytes += emitted.changed_bytes;
                self.emitted.zeroed_bytes += emitted.zeroed_bytes;
                if let Some(open) = self.open.get_mut(&batch) {
                    open.changing = open.changing.saturating_sub(1);
                    for (block, hash) in blocks {
                        if let Some(slot) = open.blocks.get_mut(block as usize) {
                            *slot = hash;
                        }
                    }
                }
                self.finish_batches()
            }
        }
    }

    fn is_finished(&self) -> bool {
        let ours = self.ours.first().is_none() && self.ours.ahead().is_none();
        let nothing = ours && self.theirs.is_empty() && self.open.is_empty();
        self.their_root.is_some() && nothing && self.outbox.is_empty()
    }
}

const _: () = assert!(PAGE == PAGE_BYTES);
