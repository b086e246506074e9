//! Several deltas in a row, made one.

use std::sync::{Arc, Mutex, PoisonError};

use super::layers::Layers;
use super::{Delta, DeltaWriter, Frame, FrameKind, Header, JobId, Old, Purpose, Trailer};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::Limits;
use crate::progress::Work;
use crate::storage::{FileRef, Privacy, Storage};

/// Writes into empty storage the delta that does what `deltas` do one after the other. Durable
/// when it returns, but for the file's name.
///
/// Each delta's base must be the result of the one before it. The newest bytes win. Payloads are
/// read twice for each window of the disk whose pieces [`Limits::table_bytes`] holds: one window
/// where there are up to a million.
///
/// # Errors
/// `InvalidInput` for no delta at all; `BaseMismatch` when two do not follow each other;
/// `Malformed`, `Io`, `NoSpace`, `Cancelled`.
pub fn merge(
    deltas: &[Delta],
    storage: Arc<dyn Storage>,
    limits: &Limits,
    level: Option<i32>,
    work: &Work,
) -> Result<Trailer> {
    let (Some(first), Some(last)) = (deltas.first(), deltas.last()) else {
        return Err(Error::new(ErrorKind::InvalidInput, "nothing to merge"));
    };
    for delta in deltas {
        delta.require(Purpose::Portable)?;
    }
    for pair in deltas.windows(2) {
        check_chain(&pair[0], &pair[1])?;
    }
    for delta in deltas {
        delta.verify(work, &|_| Ok(()))?;
    }
    let header = Header {
        purpose: Purpose::Portable,
        job: JobId::random()?,
        base_len: first.header().base_len,
        ..*last.header()
    };
    let writer = Mutex::new(DeltaWriter::create(storage, header)?);
    let mut at = 0;
    while at < header.result_len {
        let index = index(deltas, at, limits, work)?;
        merge_window(deltas, &index, header.result_len, &writer, level, work)?;
        at = index.window().end;
    }
    let writer = writer.into_inner().unwrap_or_else(PoisonError::into_inner);
    writer.finish(first.trailer().base_root, last.trailer().result_root)
}

/// As [`merge`], into a new file that is complete and durable when it is there at all, and that no
/// one may read who may not read all of `deltas`.
///
/// # Errors
/// Those of [`merge`]; `AlreadyExists`.
pub fn merge_to(
    deltas: &[Delta],
    to: &FileRef,
    limits: &Limits,
    level: Option<i32>,
    work: &Work,
) -> Result<Trailer> {
    let mut privacy = Privacy::USUAL;
    for delta in deltas {
        privacy = privacy.and(delta.storage().privacy()?);
    }
    to.create_whole(privacy, |storage| {
        merge(deltas, storage, limits, level, work)
    })
}

/// Which delta says last what the bytes from `start` on hold.
fn index(deltas: &[Delta], start: u64, limits: &Limits, work: &Work) -> Result<Layers<By>> {
    let index = Mutex::new(Layers::new(start, limits));
    for (number, delta) in deltas.iter().enumerate() {
        let lock = || index.lock().unwrap_or_else(PoisonError::into_inner);
        // What a delta cuts off is zero if a later one grows the disk again.
        lock().cut(delta.header().result_len, By::Zeros(number));
        delta.for_each(work, &|frame| {
            work.cancel().check()?;
            let by = match frame.header().kind {
                FrameKind::Data => By::Frame(number),
                FrameKind::Zero => By::Zeros(number),
                _ => return Ok(()),
            };
            lock().lay(frame.range(), by);
            Ok(())
        })?;
    }
    Ok(index.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Writes what the deltas make of the bytes that `index` knows.
fn merge_window(
    deltas: &[Delta],
    index: &Layers<By>,
    result_len: u64,
    writer: &Mutex<DeltaWriter>,
    level: Option<i32>,
    work: &Work,
) -> Result<()> {
    for (range, by) in index.pieces() {
        let range = range.start..range.end.min(result_len);
        if let (By::Zeros(_), false) = (by, range.is_empty()) {
            let frame = Frame::zero(range.start, range.end - range.start, Old::Unknown);
            writer
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(&frame)?;
        }
    }
    for (number, delta) in deltas.iter().enumerate() {
        delta.for_each(work, &|frame| {
            work.cancel().check()?;
            if frame.header().kind != FrameKind::Data {
                return Ok(());
            }
            for (range, by) in index.pieces_in(frame.range()) {
                let range = range.start..range.end.min(result_len);
                if by != By::Frame(number) || range.is_empty() {
                    continue;
                }
                let start = within(range.start - frame.offset());
                let end = within(range.end - frame.offset());
                let whole = deltas.len() == 1 && range == frame.range();
                let old = if whole {
                    frame.header().old
                } else {
                    Old::Unknown
                };
                let frame = Frame::data(range.start, &frame.bytes()[start..end], old, level);
                writer
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(&frame)?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn check_chain(before: &Delta, after: &Delta) -> Result<()> {
    let (ends, begins) = (before.trailer().result_root, after.trailer().base_root);
    let follows = ends.is_some()
        && ends == begins
        && before.header().result_len == after.header().base_len
        && before.header().block_size == after.header().block_size;
    if follows {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::BaseMismatch,
        format!("it does not follow {}", before.storage().path().display()),
    )
    .at_path(after.storage().path())
    .advise("give the deltas in the order in which they were made, none left out"))
}

/// Who says what a range holds in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Frame(usize),
    Zeros(usize),
}

/// Offsets inside a frame, whose length memory holds.
fn within(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}
