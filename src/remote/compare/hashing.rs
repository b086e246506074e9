//! The batches of a view, hashed in their order and piece by piece.
//!
//! A piece is much less than a batch, so that the messages about batches that are hashed already
//! never wait long for a thread.

use std::collections::{BTreeMap, BTreeSet};

use super::view::View;
use super::windows::BlockHashes;
use crate::error::Result;
use crate::remote::wire::format::{BATCH_PIECES, BLOCK, PIECE};

/// What is being hashed of a view, and what was and is not taken yet.
pub(in crate::remote) struct Hashing<'a> {
    view: &'a View<'a>,
    /// The piece from which on none was given out; `None` once all were.
    ahead: Option<u64>,
    /// Pieces that have to be hashed again.
    again: BTreeSet<u64>,
    batches: BTreeMap<u64, Batch>,
}

/// A batch that may hold data.
struct Batch {
    blocks: BlockHashes,
    /// Pieces that are being hashed, each with whether what comes of it still counts.
    running: BTreeMap<u64, bool>,
}

impl<'a> Hashing<'a> {
    /// Begins at the start of `view`.
    pub(crate) fn new(view: &'a View<'a>) -> Self {
        Hashing {
            view,
            ahead: Some(0),
            again: BTreeSet::new(),
            batches: BTreeMap::new(),
        }
    }

    /// The next piece to hash, if there is one; of another batch only where one `may_begin`.
    ///
    /// # Errors
    /// Those of [`View::next_piece`].
    pub(crate) fn deal(&mut self, may_begin: bool) -> Result<Option<u64>> {
        if let Some(piece) = self.again.pop_first() {
            if let Some(batch) = self.batches.get_mut(&(piece / BATCH_PIECES)) {
                batch.running.insert(piece, true);
            }
            return Ok(Some(piece));
        }
        let Some(from) = self.ahead else {
            return Ok(None);
        };
        self.ahead = self.view.next_piece(from)?;
        let Some(piece) = self.ahead else {
            return Ok(None);
        };
        let batch = piece / BATCH_PIECES;
        if !may_begin && !self.batches.contains_key(&batch) {
            return Ok(None);
        }
        let empty = || Batch {
            blocks: vec![None; self.view.block_count(batch)],
            running: BTreeMap::new(),
        };
        let running = &mut self.batches.entry(batch).or_insert_with(empty).running;
        running.insert(piece, true);
        self.ahead = Some(piece + 1);
        Ok(Some(piece))
    }

    /// Takes what came of a piece.
    pub(crate) fn put(&mut self, piece: u64, hashes: BlockHashes) {
        if let Some(batch) = self.batches.get_mut(&(piece / BATCH_PIECES)) {
            if batch.running.remove(&piece) == Some(false) {
                self.again.insert(piece);
                return;
            }
            let first = piece % BATCH_PIECES * (PIECE / BLOCK);
            let slots = batch.blocks.iter_mut().skip(first as usize); // below `BATCH_BLOCKS`
            slots.zip(hashes).for_each(|(slot, hash)| *slot = hash);
        }
    }

    /// Has a piece that was given out be hashed once more.
    pub(crate) fn redo(&mut self, piece: u64) {
        let is_given_out = self.ahead.is_none_or(|ahead| ahead > piece);
        let Some(batch) = self.batches.get_mut(&(piece / BATCH_PIECES)) else {
            return;
        };
        match batch.running.get_mut(&piece) {
            Some(counts) => *counts = false,
            None if is_given_out => drop(self.again.insert(piece)),
            None => {}
        }
    }

    /// The first batch that was begun and not taken.
    pub(crate) fn first(&self) -> Option<u64> {
        self.batches.keys().next().copied()
    }

    /// Whether all of `batch` is hashed, if it was begun at all.
    pub(crate) fn is_whole(&self, batch: u64) -> bool {
        let pieces = batch.saturating_mul(BATCH_PIECES)..(batch + 1).saturating_mul(BATCH_PIECES);
        let begun = self.batches.get(&batch);
        let is_running = begun.is_some_and(|batch| !batch.running.is_empty());
        self.is_past(batch) && !is_running && self.again.range(pieces).next().is_none()
    }

    /// The blocks of a batch, which is forgotten; `None` where it holds nothing.
    pub(crate) fn take(&mut self, batch: u64) -> Option<BlockHashes> {
        self.batches.remove(&batch).map(|batch| batch.blocks)
    }

    /// How many batches were begun and not taken.
    pub(crate) fn len(&self) -> usize {
        self.batches.len()
    }

    /// The first batch of which something is not given out; `None` once all is.
    pub(crate) fn ahead(&self) -> Option<u64> {
        self.ahead.map(|piece| piece / BATCH_PIECES)
    }

    fn is_past(&self, batch: u64) -> bool {
        self.ahead().is_none_or(|ahead| ahead > batch)
    }
}
