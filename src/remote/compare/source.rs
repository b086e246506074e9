//! A descent, seen from the end with the source.

use std::collections::{BTreeMap, VecDeque};

use super::endpoint::{Capacity, Endpoint, Output};
use super::hashing::Hashing;
use super::keys::Keys;
use super::source_worker::{SourceCompletion, SourceTask, Wanted};
use super::view::View;
use super::windows::BlockHashes;
use crate::error::Result;
use crate::manifest::{ManifestWriter, Sink};
use crate::remote::wire::codec::wrong;
use crate::remote::wire::comparison::{BlockDiff, Blocks, Pages, Parts, Segments, bit, bits};
use crate::remote::wire::format::{
    BATCH, BATCH_BLOCKS, BATCH_PIECES, BLOCK, DATA_MOST, PAGE, PIECE, SEGMENT_BLOCKS,
    WINDOW_BATCHES,
};
use crate::remote::wire::message::Message;
use crate::units::BlockSize;

/// The end with the source, for one comparison.
pub struct SourcePeer<'a> {
    view: &'a View<'a>,
    keys: Keys,
    hashing: Hashing<'a>,
    /// Batches that are hashed and not finished, by number.
    open: BTreeMap<u64, Open>,
    outbox: VecDeque<Message>,
    parts: VecDeque<SourceTask>,
    data: VecDeque<SourceTask>,
    /// Takes the blocks in their order; `None` once the root is said.
    root: Option<ManifestWriter>,
}

opaque!(SourcePeer<'_>);

/// What comes next for a batch.
enum Open {
    /// The target's blocks.
    Offered(BlockHashes),
    /// The parts of blocks.
    Parting,
    /// The target's pages of these blocks, `sending` data messages meanwhile.
    Asked { blocks: Vec<u32>, sending: usize },
    /// So many data messages.
    Sending(usize),
}

impl<'a> SourcePeer<'a> {
    /// Begins to compare what `view` shows.
    ///
    /// # Errors
    /// `InvalidInput` never in practice: a manifest may have such blocks.
    pub fn new(view: &'a View<'a>, keys: Keys) -> Result<Self> {
        let root = ManifestWriter::root_only(view.len(), BlockSize::new(BLOCK)?);
        Ok(SourcePeer {
            view,
            keys,
            hashing: Hashing::new(view),
            open: BTreeMap::new(),
            outbox: VecDeque::new(),
            parts: VecDeque::new(),
            data: VecDeque::new(),
            root: Some(root),
        })
    }

    /// Takes the blocks in their order instead of what only finds their root; fresh, and as long
    /// as the view.
    #[must_use]
    pub fn with_writer(mut self, writer: Option<ManifestWriter>) -> Self {
        self.root = writer.or(self.root);
        self
    }

    /// The first byte of the view that is not finished, for progress.
    pub fn finished_bytes(&self) -> u64 {
        let open = self.open.keys().next().copied();
        let behind = open.or(self.hashing.first()).or(self.hashing.ahead());
        let batch = behind.unwrap_or(u64::MAX);
        batch.saturating_mul(BATCH).min(self.view.len())
    }

    fn hash_next(&mut self) -> Result<Option<SourceTask>> {
        let has_room = self.open.len() + self.hashing.len() < WINDOW_BATCHES;
        let piece = self.hashing.deal(has_room)?;
        if piece.is_none() {
            self.say_hashed()?;
        }
        Ok(piece.map(SourceTask::Hash))
    }

    /// Sends the hashes that are there and have their turn; the root after the last.
    fn say_hashed(&mut self) -> Result<()> {
        while let Some(batch) = self.hashing.first()
            && self.hashing.is_whole(batch)
            && let Some(blocks) = self.hashing.take(batch)
        {
            for piece in batch * BATCH_PIECES..(batch + 1) * BATCH_PIECES {
                let gaps = self.view.gaps().inside(piece * PIECE..(piece + 1) * PIECE);
                if !gaps.is_empty() {
                    self.outbox.push_back(Message::Unreadable(gaps));
                }
            }
            let segments = self.keys.segments(&blocks);
            if segments.mask == 0 {
                continue;
            }
            if let Some(root) = &mut self.root {
                root.data(batch * BLOCKS, &blocks)?;
            }
            self.open.insert(batch, Open::Offered(blocks));
            self.outbox
                .push_back(Message::Segments(Segments { batch, segments }));
        }
        if self.hashing.ahead().is_none()
            && self.hashing.first().is_none()
            && let Some(root) = self.root.take()
        {
            let root = *root.finish()?.as_bytes();
            self.outbox.push_back(Message::Root(root));
        }
        Ok(())
    }

    fn take_blocks(&mut self, theirs: &Blocks) -> Result<()> {
        let batch = theirs.batch;
        let Some(Open::Offered(ours)) = self.open.get(&batch) else {
            return Err(wrong("blocks of a batch that was not asked about"));
        };
        let segments = self.keys.segments(ours).mask;
        let mut diffs = Vec::new();
        for (segment, theirs) in &theirs.segments {
            if segments & bit(*segment) == 0 {
                return Err(wrong("blocks of a segment that holds nothing"));
            }
            let ours = self.keys.blocks(ours, *segment);
            let short = self.view.block(batch, segment * SEGMENT_BLOCKS).start;
            let here = self.view.len().saturating_sub(short).div_ceil(BLOCK);
            if theirs
                .mask
                .checked_shr(u32::try_from(here).unwrap_or(64))
                .unwrap_or(0)
                != 0
            {
                return Err(wrong("blocks beyond the end of the disk"));
            }
            let mut theirs = theirs.iter().peekable();
            let mut mine = ours.iter().peekable();
            for index in 0..SEGMENT_BLOCKS {
                let there = theirs.next_if(|(at, _)| *at == index).map(|(_, hash)| hash);
                let here = mine.next_if(|(at, _)| *at == index).map(|(_, hash)| hash);
                let diff = match (here, there) {
                    (None, None) => continue,
                    (None, Some(_)) => BlockDiff::Zero,
                    (Some(_), None) => BlockDiff::Comes,
                    (Some(here), Some(there)) if here == there => continue,
                    (Some(_), Some(_)) => BlockDiff::Parts(Default::default()),
                };
                diffs.push((segment * SEGMENT_BLOCKS + index, diff));
            }
        }
        if theirs.segments.is_empty() {
            self.open.remove(&batch);
            return Ok(());
        }
        self.open.insert(batch, Open::Parting);
        match diffs
            .iter()
            .any(|(_, diff)| matches!(diff, BlockDiff::Parts(_)))
        {
            true => self.parts.push_back(SourceTask::Parts(batch, diffs)),
            false => self.say_parts(batch, diffs),
        }
        Ok(())
    }

    fn say_parts(&mut self, batch: u64, blocks: Vec<(u32, BlockDiff)>) {
        let mut asked = Vec::new();
        let mut comes = Vec::new();
        for (block, diff) in &blocks {
            match diff {
                BlockDiff::Zero => {}
                BlockDiff::Comes => comes.push((*block, Wanted::All)),
                BlockDiff::Parts(_) => asked.push(*block),
            }
        }
        self.outbox
            .push_back(Message::Parts(Parts { batch, blocks }));
        let sending = self.want(batch, comes);
        let next = match asked.is_empty() {
            true => Open::Sending(sending),
            false => Open::Asked {
                blocks: asked,
                sending,
            },
        };
        self.open.insert(batch, next);
        self.finish_batch(batch);
    }

    fn take_pages(&mut self, pages: Pages) -> Result<()> {
        let batch = pages.batch;
        let Some(Open::Asked { blocks, sending }) = self.open.get(&batch) else {
            return Err(wrong("pages of a batch that was not asked about"));
        };
        if blocks.len() != pages.blocks.len() {
            return Err(wrong("pages of other blocks than those asked about"));
        }
        let mut sending = *sending;
        let mut wanted = Vec::new();
        for (block, pages) in blocks.clone().into_iter().zip(pages.blocks) {
            let range = self.view.block(batch, block);
            let count = (range.end - range.start).div_ceil(PAGE);
            let beyond = |mask: u64, count: u64| bits(mask).any(|it| u64::from(it) >= count);
            if beyond(pages.pages.mask, count) {
                return Err(wrong("pages beyond the end of the disk"));
            }
            if pages.differs != 0 {
                wanted.push((block, Wanted::Pages(pages)));
            }
        }
        sending += self.want(batch, wanted);
        self.open.insert(batch, Open::Sending(sending));
        self.finish_batch(batch);
        Ok(())
    }

    /// Queues the data of blocks, in messages that are not too long; says how many.
    fn want(&mut self, batch: u64, wanted: Vec<(u32, Wanted)>) -> usize {
        let mut count = 0;
        let mut group = Vec::new();
        let mut bytes = 0;
        for (block, wanted) in wanted {
            if bytes + wanted.bytes_most() > DATA_MOST {
                self.data
                    .push_back(SourceTask::Data(batch, std::mem::take(&mut group)));
                (count, bytes) = (count + 1, 0);
            }
            bytes += wanted.bytes_most();
            group.push((block, wanted));
        }
        if !group.is_empty() {
            self.data.push_back(SourceTask::Data(batch, group));
            count += 1;
        }
        count
    }

    fn finish_batch(&mut self, batch: u64) {
        if matches!(self.open.get(&batch), Some(Open::Sending(0))) {
            self.open.remove(&batch);
        }
    }
}

impl Endpoint for SourcePeer<'_> {
    type Task = SourceTask;
    type Completion = SourceCompletion;

    const ONLY_ANSWERS: bool = true;

    fn next_output(&mut self, capacity: Capacity) -> Result<Option<Output<SourceTask>>> {
        if capacity.line
            && let Some(message) = self.outbox.pop_front()
        {
            return Ok(Some(Output::Send(message)));
        }
        if !capacity.tasks {
            return Ok(None);
        }
        if let Some(task) = self.parts.pop_front() {
            return Ok(Some(Output::Run(task)));
        }
        if capacity.line
            && let Some(task) = self.data.pop_front()
        {
            return Ok(Some(Output::Run(task)));
        }
        if let Some(task) = self.hash_next()? {
            return Ok(Some(Output::Run(task)));
        }
        let message = capacity.line.then(|| self.outbox.pop_front()).flatten();
        Ok(message.map(Output::Send))
    }

    fn receive(&mut self, message: Message) -> Result<()> {
        match message {
            Message::Blocks(blocks) => self.take_blocks(&blocks),
            Message::Pages(pages) => self.take_pages(pages),
            _ => Err(wrong("a message that has no place in a descent")),
        }
    }

    fn complete(&mut self, done: SourceCompletion) -> Result<()> {
        match done {
            SourceCompletion::Hashes(piece, hashes) => {
                self.hashing.put(piece, hashes);
                self.say_hashed()
            }
            SourceCompletion::Parts(batch, blocks) => {
                self.say_parts(batch, blocks);
                Ok(())
            }
            SourceCompletion::Data(data) => {
                let batch = data.batch;
                self.outbox.push_back(Message::Data(data));
                if let Some(Open::Asked { sending, .. } | Open::Sending(sending)) =
                    self.open.get_mut(&batch)
                {
                    *sending -= 1;
                }
                self.finish_batch(batch);
                Ok(())
            }
        }
    }

    fn is_finished(&self) -> bool {
        self.root.is_none() && self.open.is_empty() && self.outbox.is_empty()
    }
}

const BLOCKS: u64 = BATCH_BLOCKS as u64;
