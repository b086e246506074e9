//! Which of several deltas says last what a range holds.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::error::{Error, ErrorKind, Result};
use crate::limits::Limits;

/// Ranges that are apart, each with who covers it last.
pub(super) struct Layers<T> {
    pieces: BTreeMap<u64, (u64, T)>,
    most: usize,
}

impl<T: Copy> Layers<T> {
    /// As many pieces as [`Limits::table_bytes`] holds.
    pub fn new(limits: &Limits) -> Self {
        let most = limits.table_bytes / PIECE_BYTES;
        Layers {
            pieces: BTreeMap::new(),
            most: usize::try_from(most).unwrap_or(usize::MAX),
        }
    }

    /// Lays `by` over a range, whatever lies there.
    ///
    /// # Errors
    /// `LimitExceeded`.
    pub fn lay(&mut self, range: Range<u64>, by: T) -> Result<()> {
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
        if self.pieces.len() >= self.most {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                "too many scattered frames to keep an index of",
            )
            .advise("raise the limit for tables, or take fewer deltas at once"));
        }
        self.pieces.insert(range.start, (range.end, by));
        Ok(())
    }

    /// Everything from `len` on is gone, and `by`, which is zero, if it comes back.
    ///
    /// # Errors
    /// `LimitExceeded`.
    pub fn cut(&mut self, len: u64, by: T) -> Result<()> {
        self.lay(len..u64::MAX, by)
    }

    /// All pieces, ascending.
    pub fn pieces(&self) -> impl Iterator<Item = (Range<u64>, T)> {
        self.pieces
            .iter()
            .map(|(start, (end, by))| (*start..*end, *by))
    }

    /// The pieces of a range, ascending; what lies between them nobody covers.
    pub fn pieces_in(&self, range: Range<u64>) -> impl Iterator<Item = (Range<u64>, T)> {
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

/// About what an entry takes.
const PIECE_BYTES: u64 = 64;
