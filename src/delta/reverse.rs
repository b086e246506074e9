//! The way back from a delta.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use super::{Delta, DeltaWriter, Frame, FrameKind, Old, Trailer};
use crate::error::{Error, ErrorKind, Result};
use crate::hash::Hash;
use crate::image::Image;
use crate::progress::Work;

/// Writes into `writer` the delta that leads from `delta`'s result back to `base`, an image that
/// still holds what it held before `delta`. Durable when it returns, but for the file's name.
///
/// # Errors
/// `BaseMismatch` when `base` holds something else where `delta` changes it; `Malformed`, `Io`,
/// `NoSpace`, `Cancelled`.
pub fn reverse(
    delta: &Delta,
    base: &dyn Image,
    writer: DeltaWriter,
    work: &Work,
) -> Result<Trailer> {
    let writer = Mutex::new(writer);
    let lock = || writer.lock().unwrap_or_else(PoisonError::into_inner);
    delta.for_each(work, &|frame| {
        work.cancel().check()?;
        let header = frame.header();
        // What lies beyond the base's end is cut off on the way back.
        let end = frame.range().end.min(base.disk_len());
        let len = end.saturating_sub(frame.offset());
        let guest = matches!(header.kind, FrameKind::Data | FrameKind::Zero);
        if !guest || len == 0 {
            return Ok(());
        }
        let new = |range: Range<u64>| {
            let local = |at: u64| usize::try_from(at - frame.offset()).unwrap_or(usize::MAX);
            match frame.bytes().get(local(range.start)..local(range.end)) {
                Some(bytes) => Old::Hash(Hash::of(bytes)),
                // A frame of zeros has none.
                None => Old::Zeros,
            }
        };
        if header.old == Old::Zeros {
            let new = new(frame.offset()..end);
            return lock().push(&Frame::zero(frame.offset(), len, new));
        }
        // Only a hash of the old bytes needs all of them at once, and bounds their length.
        let step = match header.old {
            Old::Hash(_) => len,
            _ => STEP_BYTES,
        };
        let whole = end == frame.range().end;
        let mut at = frame.offset();
        while at < end {
            let stop = end.min(at.saturating_add(step));
            let mut bytes = vec![0; usize::try_from(stop - at).unwrap_or(usize::MAX)];
            base.read_exact_at(&mut bytes, at)?;
            if whole && header.old != Old::Unknown && !super::fits_old(&header.old, &bytes) {
                return Err(
                    Error::new(ErrorKind::BaseMismatch, "the base holds something else")
                        .at_offset(at),
                );
            }
            lock().push(&Frame::data(at, &bytes, new(at..stop), None))?;
            at = stop;
        }
        Ok(())
    })?;
    let mut at = delta.header().result_len;
    while at < base.disk_len() {
        work.cancel().check()?;
        let len = STEP_BYTES.min(base.disk_len() - at);
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        base.read_exact_at(&mut bytes, at)?;
        lock().push(&Frame::data(at, &bytes, Old::Zeros, None))?;
        at += len;
    }
    let trailer = delta.trailer();
    let writer = writer.into_inner().unwrap_or_else(PoisonError::into_inner);
    writer.finish(trailer.result_root, trailer.base_root)
}

const STEP_BYTES: u64 = 1 << 20;
