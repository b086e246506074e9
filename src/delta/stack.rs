//! Several deltas in a row as the disk that they give, read where it is needed.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use super::layers::Layers;
use super::{Delta, FrameKind};
use crate::error::{Error, ErrorKind, Result};
use crate::image::{Image, ImageInfo};
use crate::limits::Limits;
use crate::progress::Work;
use crate::units::Extent;

/// What a row of deltas makes of a disk of zeros, as an image. Every frame is hashed again when
/// it is read; those that were read last are kept, one for each delta.
pub struct Stack {
    deltas: Vec<Delta>,
    layers: Layers<Piece>,
    near: Vec<Near>,
    disk_len: u64,
}

opaque!(Stack);

/// Who says what a range holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Piece {
    Zeros,
    Data(Frame),
}

/// A data frame, by its delta's number and its place in the file.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Frame {
    delta: usize,
    at: u64,
    offset: u64,
    len: u64,
}

/// The frame of a delta that was read last.
type Near = Mutex<Option<(Frame, Vec<u8>)>>;

impl Stack {
    /// Reads `deltas`, oldest first, and remembers where their frames lie, in memory. That they
    /// follow each other is for the caller to know.
    ///
    /// # Errors
    /// `InvalidInput` for no delta at all; `LimitExceeded` for more pieces than
    /// [`Limits::table_bytes`] holds; `Malformed`, `Io`, `Cancelled`.
    pub fn new(deltas: Vec<Delta>, limits: &Limits, work: &Work) -> Result<Self> {
        let disk_len = match deltas.last() {
            Some(last) => last.header().result_len,
            None => return Err(Error::new(ErrorKind::InvalidInput, "no delta to read")),
        };
        let layers = Mutex::new(Layers::new(0, limits));
        let lock = || layers.lock().unwrap_or_else(PoisonError::into_inner);
        for (number, delta) in deltas.iter().enumerate() {
            // What a delta cuts off is zero if a later one grows the disk again.
            lock().cut(delta.header().result_len, Piece::Zeros);
            delta.for_each(work, &|frame| {
                work.cancel().check()?;
                let range = frame.range();
                let piece = match frame.header().kind {
                    FrameKind::Zero => Piece::Zeros,
                    FrameKind::Data => Piece::Data(Frame {
                        delta: number,
                        at: frame.at(),
                        offset: range.start,
                        len: range.end - range.start,
                    }),
                    _ => return Ok(()),
                };
                lock().lay(range, piece);
                Ok(())
            })?;
        }
        let layers = layers.into_inner().unwrap_or_else(PoisonError::into_inner);
        if layers.window().end < disk_len {
            let what = "too many scattered frames to keep an index of";
            return Err(Error::new(ErrorKind::LimitExceeded, what)
                .advise("raise the limit for tables, or take fewer deltas at once"));
        }
        Ok(Stack {
            near: deltas.iter().map(|_| Mutex::default()).collect(),
            layers,
            deltas,
            disk_len,
        })
    }

    /// Copies a part of a frame.
    fn copy(&self, frame: Frame, range: Range<u64>, to: &mut [u8]) -> Result<()> {
        let (Some(delta), Some(near)) = (self.deltas.get(frame.delta), self.near.get(frame.delta))
        else {
            return Ok(());
        };
        let mut near = near.lock().unwrap_or_else(PoisonError::into_inner);
        if near.as_ref().is_none_or(|(kept, _)| *kept != frame) {
            *near = Some((frame, delta.data_at(frame.at, frame.len)?));
        }
        let start = usize::try_from(range.start - frame.offset).unwrap_or(usize::MAX);
        let bytes = near.as_ref().and_then(|(_, bytes)| bytes.get(start..));
        let bytes = bytes.and_then(|bytes| bytes.get(..to.len()));
        let bytes = bytes.ok_or_else(|| Error::malformed("a frame is not what it was"))?;
        to.copy_from_slice(bytes);
        Ok(())
    }
}

impl Image for Stack {
    fn disk_len(&self) -> u64 {
        self.disk_len
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let end = offset.checked_add(buf.len() as u64);
        let Some(end) = end.filter(|end| *end <= self.disk_len) else {
            let what = "a read past the end of the disk";
            return Err(Error::new(ErrorKind::Io, what).at_offset(offset));
        };
        buf.fill(0);
        for (range, piece) in self.layers.pieces_in(offset..end) {
            let Piece::Data(frame) = piece else {
                continue;
            };
            // Inside the buffer: pieces lie in the range that was asked for.
            let (from, to) = (range.start - offset, range.end - offset);
            if let Some(part) = buf.get_mut(from as usize..to as usize) {
                self.copy(frame, range, part)?;
            }
        }
        Ok(())
    }

    fn next_extent(&self, offset: u64) -> Result<Option<Extent>> {
        if offset >= self.disk_len {
            return Ok(None);
        }
        let window = offset..self.disk_len;
        let mut pieces = self.layers.pieces_in(window.clone());
        let data = pieces.find(|(_, piece)| *piece != Piece::Zeros);
        Ok(Some(Extent::first(window, data.map(|(range, _)| range))))
    }

    fn info(&self) -> ImageInfo {
        ImageInfo::raw(self.disk_len)
    }
}
