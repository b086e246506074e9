//! What a replay of the log makes of a file: kept beside the file for reading, written into it
//! for writing.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::format::{FIRST_LOGGED, MAX_FILE_BYTES, PAGE, Page};
use super::header::Headers;
use super::log::{ActiveLog, Logged};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::{HostFile, Storage};

/// A file as it is after its log was replayed, for reading only; the file itself stays as it is.
pub(super) struct Replayed {
    below: Arc<dyn Storage>,
    below_len: u64,
    len: u64,
    /// By first byte; the pieces do not overlap.
    pieces: BTreeMap<u64, Piece>,
}

struct Piece {
    end: u64,
    /// `None` for zeros.
    page: Option<Box<Page>>,
}

impl Replayed {
    /// Replays `log` into memory. The memory taken follows the length of the log.
    ///
    /// # Errors
    /// `Malformed` when the log would change the headers, itself, or bytes beyond the end that it
    /// states; `Io`.
    pub(super) fn new(below: Arc<dyn Storage>, log: &ActiveLog) -> Result<Self> {
        let below_len = below.len()?;
        let mut replayed = Replayed {
            below: below.clone(),
            below_len,
            len: below_len.max(log.last_file()),
            pieces: BTreeMap::new(),
        };
        let own = log.region();
        log.replay(&*below, |logged| {
            let (range, page) = match logged {
                Logged::Zero(range) => (range, None),
                Logged::Page(at, page) => (at..at.saturating_add(PAGE), Some(page)),
            };
            if range.is_empty() {
                return Ok(());
            }
            let inside_log = range.start < own.end && own.start < range.end;
            if range.start < FIRST_LOGGED || range.end > replayed.len || inside_log {
                return Err(Error::malformed(
                    "the log would change the headers, itself, or bytes behind the end",
                )
                .in_field("log")
                .at_offset(range.start));
            }
            replayed.lay(range, page);
            Ok(())
        })?;
        Ok(replayed)
    }

    /// Writes what was replayed into the file, durably, and then marks the log as empty. A crash
    /// on the way leaves the log as it was, to be replayed again.
    ///
    /// # Errors
    /// `LimitExceeded` when the log wants the file longer than any that is of use; `Io`,
    /// `NoSpace`.
    pub(super) fn write_down(self, headers: &mut Headers) -> Result<()> {
        let storage = &*self.below;
        if self.len > MAX_FILE_BYTES {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                format!("the log wants the file to have {:#x} bytes", self.len),
            )
            .in_field("last_file_offset"));
        }
        headers.check_room()?;
        if self.len > self.below_len {
            storage.set_len(self.len)?;
        }
        for (&start, piece) in &self.pieces {
            match &piece.page {
                Some(page) => storage.write_all_at(&page[..], start)?,
                // What lies behind the old end is zeros already.
                None if start < self.below_len => {
                    storage.punch_hole(start..piece.end.min(self.below_len))?;
                }
                None => {}
            }
        }
        storage.sync()?;
        headers.update_both(storage, |header| header.log = super::Guid::NIL)
    }

    /// Lays a piece over those that are there. Pages are laid whole on page borders, so an older
    /// page is either kept or covered; older zeros may be cut.
    fn lay(&mut self, range: Range<u64>, page: Option<Box<Page>>) {
        let before = self.pieces.range_mut(..range.start).next_back();
        if let Some((_, piece)) = before
            && piece.end > range.start
        {
            let rest = range.end..piece.end;
            piece.end = range.start;
            if !rest.is_empty() {
                let zeros = Piece {
                    end: rest.end,
                    page: None,
                };
                self.pieces.insert(rest.start, zeros);
            }
        }
        let covered: Vec<u64> = self
            .pieces
            .range(range.clone())
            .map(|(&start, _)| start)
            .collect();
        for start in covered {
            if let Some(piece) = self.pieces.remove(&start)
                && piece.end > range.end
            {
                self.pieces.insert(range.end, piece);
            }
        }
        let piece = Piece {
            end: range.end,
            page,
        };
        self.pieces.insert(range.start, piece);
    }

    /// The piece that holds `offset`, or where the next one begins.
    fn find(&self, offset: u64) -> std::result::Result<(u64, &Piece), u64> {
        if let Some((&start, piece)) = self.pieces.range(..=offset).next_back()
            && piece.end > offset
        {
            return Ok((start, piece));
        }
        let next = self.pieces.range(offset..).next();
        Err(next.map_or(self.len, |(&start, _)| start))
    }
}

impl Storage for Replayed {
    fn path(&self) -> &Path {
        self.below.path()
    }

    fn len(&self) -> Result<u64> {
        Ok(self.len)
    }

    fn host_file(&self) -> Result<Option<HostFile>> {
        self.below.host_file()
    }

    fn read_exact_at(&self, mut buf: &mut [u8], mut offset: u64) -> Result<()> {
        let end = crate::storage::range_end(self.path(), offset, buf.len())?;
        if end > self.len {
            return Err(crate::storage::past_end(self.path(), end, self.len));
        }
        while !buf.is_empty() {
            let found = self.find(offset);
            let stop = match found {
                Ok((_, piece)) => piece.end,
                Err(next) if offset < self.below_len => next.min(self.below_len),
                Err(next) => next,
            };
            // No longer than `buf`, so it fits a usize.
            let len = (stop - offset).min(buf.len() as u64) as usize;
            let (part, rest) = buf.split_at_mut(len);
            match found {
                Ok((
                    start,
                    Piece {
                        page: Some(page), ..
                    },
                )) => {
                    let from = (offset - start) as usize;
                    part.copy_from_slice(&page[from..from + len]);
                }
                Err(_) if offset < self.below_len => self.below.read_exact_at(part, offset)?,
                Ok(_) | Err(_) => part.fill(0),
            }
            buf = rest;
            offset += len as u64;
        }
        Ok(())
    }

    fn write_all_at(&self, _buf: &[u8], _offset: u64) -> Result<()> {
        Err(self.read_only())
    }

    fn set_len(&self, _len: u64) -> Result<()> {
        Err(self.read_only())
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn punch_hole(&self, _range: Range<u64>) -> Result<()> {
        Err(self.read_only())
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>> {
        // Pages are few; a stretch may end early at the border of one.
        let mut offset = offset;
        while offset < self.len {
            match self.find(offset) {
                Ok((_, Piece { end, page: Some(_) })) => return Ok(Some(offset..*end)),
                Ok((_, Piece { end, page: None })) => offset = *end,
                Err(next) => {
                    let below = match self.below.next_data(offset)? {
                        Some(data) if data.start < next => data,
                        _ => {
                            offset = next;
                            continue;
                        }
                    };
                    return Ok(Some(below.start..below.end.min(next)));
                }
            }
        }
        Ok(None)
    }

    fn drop_cache(&self, range: Range<u64>) {
        self.below.drop_cache(range);
    }

    fn will_read(&self, range: Range<u64>) {
        self.below.will_read(range);
    }

    fn look_ahead_bytes(&self) -> u64 {
        self.below.look_ahead_bytes()
    }

    fn reads_from_memory(&self) -> bool {
        self.below.reads_from_memory()
    }
}

impl Replayed {
    fn read_only(&self) -> Error {
        Error::new(
            ErrorKind::InvalidInput,
            "a file with an unwritten log is open for reading only",
        )
        .at_path(self.path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryStorage;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_laid_over_each_other_read_as_if_written_in_turn(
            pieces in prop::collection::vec((0u64..40, 1u64..12, any::<Option<u8>>()), 0..40),
            reads in prop::collection::vec((0usize..200_000, 0usize..20_000), 8),
        ) {
            let mut model: Vec<u8> = (0..24 * PAGE).map(|i| (i % 251) as u8).collect();
            let below = Arc::new(MemoryStorage::new("base", model.clone()));
            let mut replayed = Replayed {
                below,
                below_len: model.len() as u64,
                len: 52 * PAGE,
                pieces: BTreeMap::new(),
            };
            model.resize(52 * PAGE as usize, 0);
            for (page, count, fill) in pieces {
                let start = page * PAGE;
                let end = start + if fill.is_some() { PAGE } else { count * PAGE };
                model[start as usize..end as usize].fill(fill.unwrap_or(0));
                replayed.lay(start..end, fill.map(|fill| Box::new([fill; 4096])));
            }
            for (start, len) in reads {
                let end = (start + len).min(model.len());
                let mut buf = vec![0xEE; end - start];
                replayed.read_exact_at(&mut buf, start as u64).unwrap();
                prop_assert_eq!(&buf[..], &model[start..end]);
            }
            let mut at = 0;
            while let Some(data) = replayed.next_data(at).unwrap() {
                prop_assert!(model[at as usize..data.start as usize].iter().all(|b| *b == 0));
                prop_assert!(data.start < data.end && data.end <= replayed.len);
                at = data.end;
            }
            prop_assert!(model[at as usize..].iter().all(|b| *b == 0));
        }
    }
}
