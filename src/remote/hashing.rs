//! The batches of a view, hashed in their order and piece by piece.
//!
//! A piece is much less than a batch, so that the rounds of batches that are hashed already never
//! wait long for a thread.

use std::collections::BTreeMap;

use super::format::{BATCH, LEAF};
use super::view::{LeafHashes, PIECE, View};
use crate::error::Result;

/// What is being hashed of a view, and what was and is not taken yet.
pub(super) struct Hashing<'a> {
    view: &'a View<'a>,
    /// The piece from which on none was dealt; `None` once all were.
    ahead: Option<u64>,
    batches: BTreeMap<u64, Batch>,
}

/// A batch that may hold data.
struct Batch {
    leaves: LeafHashes,
    /// Pieces that are being hashed.
    running: usize,
}

impl<'a> Hashing<'a> {
    /// Begins at the start of `view`.
    pub fn new(view: &'a View<'a>) -> Self {
        Hashing {
            view,
            ahead: Some(0),
            batches: BTreeMap::new(),
        }
    }

    /// The next piece to hash, if there is one; of another batch only where one `may_begin`.
    ///
    /// # Errors
    /// Those of [`View::next_piece`].
    pub fn deal(&mut self, may_begin: bool) -> Result<Option<u64>> {
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
            leaves: vec![None; self.view.leaf_count(batch)],
            running: 0,
        };
        self.batches.entry(batch).or_insert_with(empty).running += 1;
        self.ahead = Some(piece + 1);
        Ok(Some(piece))
    }

    /// Takes what came of a piece.
    pub fn put(&mut self, piece: u64, hashes: LeafHashes) {
        if let Some(batch) = self.batches.get_mut(&(piece / BATCH_PIECES)) {
            batch.running = batch.running.saturating_sub(1);
            let first = piece % BATCH_PIECES * (PIECE / LEAF);
            let slots = batch.leaves.iter_mut().skip(first as usize); // below `BATCH_LEAVES`
            slots.zip(hashes).for_each(|(slot, hash)| *slot = hash);
        }
    }

    /// The first batch that was begun and not taken.
    pub fn first(&self) -> Option<u64> {
        self.batches.keys().next().copied()
    }

    /// Whether all of `batch` is hashed, if it was begun at all.
    pub fn is_whole(&self, batch: u64) -> bool {
        let running = self.batches.get(&batch).map_or(0, |batch| batch.running);
        self.is_past(batch) && running == 0
    }

    /// The leaves of a batch, which is forgotten; `None` where it holds nothing.
    pub fn take(&mut self, batch: u64) -> Option<LeafHashes> {
        self.batches.remove(&batch).map(|batch| batch.leaves)
    }

    /// How many batches were begun and not taken.
    pub fn len(&self) -> usize {
        self.batches.len()
    }

    /// The first batch of which something is not dealt; `None` once all is.
    pub fn ahead(&self) -> Option<u64> {
        self.ahead.map(|piece| piece / BATCH_PIECES)
    }

    fn is_past(&self, batch: u64) -> bool {
        self.ahead().is_none_or(|ahead| ahead > batch)
    }
}

const BATCH_PIECES: u64 = BATCH / PIECE;
const _: () = assert!(BATCH.is_multiple_of(PIECE) && PIECE.is_multiple_of(LEAF));
