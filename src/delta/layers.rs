//! Which of several deltas says last what a range holds.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::limits::Limits;

/// Ranges that are apart, each with what covers it last; of a window, which shrinks while there are
/// more than memory holds.
pub(super) struct Layers<T> {
    pieces: BTreeMap<u64, (u64, T)>,
    most: usize,
    window: Range<u64>,
}

impl<T: Copy> Layers<T> {
    /// The pieces from `start` on, as many as [`Limits::table_bytes`] holds.
    pub(super) fn new(start: u64, limits: &Limits) -> Self {
        let most = limits.table_bytes / PIECE_BYTES;
        Layers {
            pieces: BTreeMap::new(),
            most: usize::try_from(most)
                .unwrap_or(usize::MAX)
                .max(LEAST_PIECES),
            window: start..u64::MAX,
        }
    }

    /// The bytes of which all is known.
    pub(super) fn window(&self) -> Range<u64> {
        self.window.clone()
    }

    /// Lays `by` over that part of a range which is in the window, whatever is there.
    pub(super) fn lay(&mut self, range: Range<u64>, by: T) {
        let range = range.start.max(self.window.start)..range.end.min(self.window.end);
        if range.is_empty() {
            return;
        }
        let under: Vec<(u64, (u64, T))> = self
            .pieces
            .range(..range.end)
            .rev()
            .take_while(|(_, (end, _))| *end > range.start)
            .map(|(start, piece)| (*start, *piece))
            .collect();
        for (start, (end, old)) in under {
            self.pieces.remove(&start);
            if start < range.start {
                self.pieces.insert(start, (range.start, old));
            }
            if end > range.end {
                self.pieces.insert(range.end, (end, old));
            }
        }
        self.pieces.insert(range.start, (range.end, by));
        if self.pieces.len() > self.most {
            self.shrink();
        }
    }

    /// Everything from `len` on is gone, and `by`, which is zero, if it comes back.
    pub(super) fn cut(&mut self, len: u64, by: T) {
        self.lay(len..u64::MAX, by);
    }

    /// Gives up the second half of the pieces.
    fn shrink(&mut self) {
        let Some(middle) = self.pieces.keys().nth(self.pieces.len() / 2).copied() else {
            return;
        };
        self.pieces.split_off(&middle);
        self.window.end = middle;
    }

    /// All pieces, ascending.
    pub(super) fn pieces(&self) -> impl Iterator<Item = (Range<u64>, T)> {
        self.pieces
            .iter()
            .map(|(start, (end, by))| (*start..*end, *by))
    }

    /// The pieces of a range, ascending; the gaps between them are uncovered.
    pub(super) fn pieces_in(&self, range: Range<u64>) -> impl Iterator<Item = (Range<u64>, T)> {
        let first = self
            .pieces
            .range(..=range.start)
            .next_back()
            .map_or(0, |(start, _)| *start);
        self.pieces
            .range(first..range.end)
            .map(move |(start, (end, by))| ((*start).max(range.start)..(*end).min(range.end), *by))
            .filter(|(range, _)| !range.is_empty())
    }
}

/// So many make a window whatever the limit.
const LEAST_PIECES: usize = 2;
/// About what an entry takes.
const PIECE_BYTES: u64 = 64;
