//! Looking at how a delta file begins without reading on.

use super::format::{FRAME_LEN, FrameHeader, FrameKind, HEADER_LEN, Header};
use super::reader::read_header;
use crate::error::Result;
use crate::limits::Limits;
use crate::storage::Storage;

/// How a delta file begins.
pub(crate) struct Peek {
    pub header: Header,
    /// Kind and bytes of the first frame, where it is intact and not compressed.
    pub first: Option<(FrameKind, Vec<u8>)>,
}

/// Reads how a delta file begins.
///
/// # Errors
/// `Malformed`, `Unsupported`, `LimitExceeded` for the header; `Io`.
pub(crate) fn peek(storage: &dyn Storage, limits: &Limits) -> Result<Peek> {
    let header = read_header(storage, limits)?;
    let first = first_frame(storage, &header, limits)?;
    Ok(Peek { header, first })
}

fn first_frame(
    storage: &dyn Storage,
    header: &Header,
    limits: &Limits,
) -> Result<Option<(FrameKind, Vec<u8>)>> {
    let at = HEADER_LEN as u64;
    let payload_at = at + FRAME_LEN as u64;
    let Some(most) = storage.len()?.checked_sub(payload_at) else {
        return Ok(None);
    };
    let mut head = [0; FRAME_LEN];
    storage.read_exact_at(&mut head, at)?;
    let Ok(frame) = FrameHeader::decode(&head) else {
        return Ok(None);
    };
    let stored_len = u64::from(frame.stored_len);
    if frame.stored_len > limits.frame_bytes || stored_len > most {
        return Ok(None);
    }
    let mut bytes = vec![0; usize::try_from(stored_len).unwrap_or(usize::MAX)];
    storage.read_exact_at(&mut bytes, payload_at)?;
    let is_right = !frame.compressed
        && frame.sequence == 0
        && frame.is_sealed(header.job, &head, &bytes)
        && blake3::hash(&bytes) == blake3::Hash::from_bytes(frame.new_hash);
    Ok(is_right.then_some((frame.kind, bytes)))
}
