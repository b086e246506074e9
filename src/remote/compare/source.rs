//! A descent, seen from the end with the source.

use std::collections::{BTreeMap, VecDeque};

use super::endpoint::{End, Room, Step};
use super::hashing::Hashing;
use super::keys::Keys;
use super::source_worker::{SourceDone, SourceTask, Wanted};
use super::view::{LeafHashes, View};
use crate::error::Result;
use crate::manifest::{ManifestWriter, Sink};
use crate::remote::wire::codec::wrong;
use crate::remote::wire::comparison::{Blocks, LeafFate, Leaves, Pages, Parts, bit, bits};
use crate::remote::wire::format::{
    BATCH, BATCH_LEAVES, BATCH_PIECES, BLOCK_LEAVES, DATA_MOST, LEAF, PAGE, PIECE, WINDOW_BATCHES,
};
use crate::remote::wire::message::Message;
use crate::units::BlockSize;

/// The end with the source, for one comparison.
pub struct SourceEnd<'a> {
    view: &'a View<'a>,
    keys: Keys,
    hashing: Hashing<'a>,
    /// Batches that are hashed and not settled, by number.
    open: BTreeMap<u64, Open>,
    outbox: VecDeque<Message>,
    parts: VecDeque<SourceTask>,
    data: VecDeque<SourceTask>,
    /// Takes the leaves in their order; `None` once the root is said.
    root: Option<ManifestWriter>,
}

/// What comes next for a batch.
enum Open {
    /// The target's leaves.
    Offered(LeafHashes),
    /// The parts of leaves.
    Parting,
    /// The target's pages of these leaves, `sending` data messages meanwhile.
    Asked { leaves: Vec<u32>, sending: usize },
    /// So many data messages.
    Sending(usize),
}

impl<'a> SourceEnd<'a> {
    /// Begins to compare what `view` shows.
    ///
    /// # Errors
    /// `InvalidInput` never in practice: a leaf is a block of a manifest.
    pub fn new(view: &'a View<'a>, keys: Keys) -> Result<Self> {
        let root = ManifestWriter::root_only(view.len(), BlockSize::new(LEAF)?);
        Ok(SourceEnd {
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

    /// Takes the leaves in their order instead of what only finds their root; fresh, and as long
    /// as the view.
    #[must_use]
    pub fn with_writer(mut self, writer: Option<ManifestWriter>) -> Self {
        self.root = writer.or(self.root);
        self
    }

    /// The first byte of the view that is not settled, for progress.
    pub fn settled_bytes(&self) -> u64 {
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
            && let Some(leaves) = self.hashing.take(batch)
        {
            for piece in batch * BATCH_PIECES..(batch + 1) * BATCH_PIECES {
                let gaps = self.view.gaps().inside(piece * PIECE..(piece + 1) * PIECE);
                if !gaps.is_empty() {
                    self.outbox.push_back(Message::Unreadable(gaps));
                }
            }
            let blocks = self.keys.blocks(&leaves);
            if blocks.mask == 0 {
                continue;
            }
            if let Some(root) = &mut self.root {
                root.data(batch * LEAVES, &leaves)?;
            }
            self.open.insert(batch, Open::Offered(leaves));
            self.outbox
                .push_back(Message::Blocks(Blocks { batch, blocks }));
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

    fn take_leaves(&mut self, theirs: &Leaves) -> Result<()> {
        let batch = theirs.batch;
        let Some(Open::Offered(ours)) = self.open.get(&batch) else {
            return Err(wrong("leaves of a batch that nobody asked about"));
        };
        let blocks = self.keys.blocks(ours).mask;
        let mut fates = Vec::new();
        for (block, theirs) in &theirs.blocks {
            if blocks & bit(*block) == 0 {
                return Err(wrong("leaves of a block that holds nothing"));
            }
            let ours = self.keys.leaves(ours, *block);
            let short = self.view.leaf(batch, block * BLOCK_LEAVES).start;
            let here = self.view.len().saturating_sub(short).div_ceil(LEAF);
            if theirs
                .mask
                .checked_shr(u32::try_from(here).unwrap_or(64))
                .unwrap_or(0)
                != 0
            {
                return Err(wrong("leaves behind the end of the disk"));
            }
            let mut theirs = theirs.iter().peekable();
            let mut mine = ours.iter().peekable();
            for index in 0..BLOCK_LEAVES {
                let there = theirs.next_if(|(at, _)| *at == index).map(|(_, hash)| hash);
                let here = mine.next_if(|(at, _)| *at == index).map(|(_, hash)| hash);
                let fate = match (here, there) {
                    (None, None) => continue,
                    (None, Some(_)) => LeafFate::Zero,
                    (Some(_), None) => LeafFate::Comes,
                    (Some(here), Some(there)) if here == there => continue,
                    (Some(_), Some(_)) => LeafFate::Parts(Default::default()),
                };
                fates.push((block * BLOCK_LEAVES + index, fate));
            }
        }
        if theirs.blocks.is_empty() {
            self.open.remove(&batch);
            return Ok(());
        }
        self.open.insert(batch, Open::Parting);
        match fates
            .iter()
            .any(|(_, fate)| matches!(fate, LeafFate::Parts(_)))
        {
            true => self.parts.push_back(SourceTask::Parts(batch, fates)),
            false => self.say_parts(batch, fates),
        }
        Ok(())
    }

    fn say_parts(&mut self, batch: u64, leaves: Vec<(u32, LeafFate)>) {
        let mut asked = Vec::new();
        let mut comes = Vec::new();
        for (leaf, fate) in &leaves {
            match fate {
                LeafFate::Zero => {}
                LeafFate::Comes => comes.push((*leaf, Wanted::All)),
                LeafFate::Parts(_) => asked.push(*leaf),
            }
        }
        self.outbox
            .push_back(Message::Parts(Parts { batch, leaves }));
        let sending = self.want(batch, comes);
        let next = match asked.is_empty() {
            true => Open::Sending(sending),
            false => Open::Asked {
                leaves: asked,
                sending,
            },
        };
        self.open.insert(batch, next);
        self.settle(batch);
    }

    fn take_pages(&mut self, pages: Pages) -> Result<()> {
        let batch = pages.batch;
        let Some(Open::Asked { leaves, sending }) = self.open.get(&batch) else {
            return Err(wrong("pages of a batch that nobody asked about"));
        };
        if leaves.len() != pages.leaves.len() {
            return Err(wrong("pages of other leaves than those asked about"));
        }
        let mut sending = *sending;
        let mut wanted = Vec::new();
        for (leaf, pages) in leaves.clone().into_iter().zip(pages.leaves) {
            let range = self.view.leaf(batch, leaf);
            let count = (range.end - range.start).div_ceil(PAGE);
            let beyond = |mask: u64, count: u64| bits(mask).any(|it| u64::from(it) >= count);
            if beyond(pages.pages.mask, count) {
                return Err(wrong("pages behind the end of the disk"));
            }
            if pages.differs != 0 {
                wanted.push((leaf, Wanted::Pages(pages)));
            }
        }
        sending += self.want(batch, wanted);
        self.open.insert(batch, Open::Sending(sending));
        self.settle(batch);
        Ok(())
    }

    /// Queues the data of leaves, in messages that are not too long; says how many.
    fn want(&mut self, batch: u64, wanted: Vec<(u32, Wanted)>) -> usize {
        let mut count = 0;
        let mut group = Vec::new();
        let mut bytes = 0;
        for (leaf, wanted) in wanted {
            if bytes + wanted.bytes_most() > DATA_MOST {
                self.data
                    .push_back(SourceTask::Data(batch, std::mem::take(&mut group)));
                (count, bytes) = (count + 1, 0);
            }
            bytes += wanted.bytes_most();
            group.push((leaf, wanted));
        }
        if !group.is_empty() {
            self.data.push_back(SourceTask::Data(batch, group));
            count += 1;
        }
        count
    }

    fn settle(&mut self, batch: u64) {
        if matches!(self.open.get(&batch), Some(Open::Sending(0))) {
            self.open.remove(&batch);
        }
    }
}

impl End for SourceEnd<'_> {
    type Task = SourceTask;
    type Done = SourceDone;

    const ONLY_ANSWERS: bool = true;

    fn step(&mut self, room: Room) -> Result<Option<Step<SourceTask>>> {
        if room.line
            && let Some(message) = self.outbox.pop_front()
        {
            return Ok(Some(Step::Send(message)));
        }
        if !room.tasks {
            return Ok(None);
        }
        if let Some(task) = self.parts.pop_front() {
            return Ok(Some(Step::Run(task)));
        }
        if room.line
            && let Some(task) = self.data.pop_front()
        {
            return Ok(Some(Step::Run(task)));
        }
        if let Some(task) = self.hash_next()? {
            return Ok(Some(Step::Run(task)));
        }
        let message = self.outbox.pop_front_if(|_| room.line);
        Ok(message.map(Step::Send))
    }

    fn receive(&mut self, message: Message) -> Result<()> {
        match message {
            Message::Leaves(leaves) => self.take_leaves(&leaves),
            Message::Pages(pages) => self.take_pages(pages),
            _ => Err(wrong("a message that has no place in a descent")),
        }
    }

    fn done(&mut self, done: SourceDone) -> Result<()> {
        match done {
            SourceDone::Hashes(piece, hashes) => {
                self.hashing.put(piece, hashes);
                self.say_hashed()
            }
            SourceDone::Parts(batch, leaves) => {
                self.say_parts(batch, leaves);
                Ok(())
            }
            SourceDone::Data(data) => {
                let batch = data.batch;
                self.outbox.push_back(Message::Data(data));
                if let Some(Open::Asked { sending, .. } | Open::Sending(sending)) =
                    self.open.get_mut(&batch)
                {
                    *sending -= 1;
                }
                self.settle(batch);
                Ok(())
            }
        }
    }

    fn is_finished(&self) -> bool {
        self.root.is_none() && self.open.is_empty() && self.outbox.is_empty()
    }
}

const LEAVES: u64 = BATCH_LEAVES as u64;
