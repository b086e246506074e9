//! Looking at how a delta file begins without reading on.

use super::format::{FRAME_LEN, FrameHeader, FrameKind, HEADER_LEN, Header};
use super::reader::read_header;
use crate::error::Result;
use crate::limits::Limits;
use crate::storage::Storage;

/// The header, and kind and bytes of the first frame where that one is intact and carries its
/// bytes as they are.
///
/// # Errors
/// `Malformed`, `Unsupported`, `LimitExceeded` for the header; `Io`.
pub(crate) fn peek(
    storage: &dyn Storage,
    limits: &Limits,
) -> Result<(Header, Option<(FrameKind, Vec<u8>)>)> {
    let header = read_header(storage, limits)?;
    let len = storage.len()?;
    let at = HEADER_LEN as u64;
    let payload_at = at + FRAME_LEN as u64;
    if len < payload_at {
        return Ok((header, None));
    }
    let mut head = [0; FRAME_LEN];
    storage.read_exact_at(&mut head, at)?;
    let Ok(frame) = FrameHeader::decode(&head) else {
        return Ok((header, None));
    };
    let stored_len = u64::from(frame.stored_len);
    if frame.stored_len > limits.frame_bytes || stored_len > len - payload_at {
        return Ok((header, None));
    }
    let mut bytes = vec![0; usize::try_from(stored_len).unwrap_or(usize::MAX)];
    storage.read_exact_at(&mut bytes, payload_at)?;
    let is_right = !frame.compressed
        && frame.sequence == 0
        && frame.is_sealed(header.job, &head, &bytes)
        && blake3::hash(&bytes) == blake3::Hash::from_bytes(frame.new_hash);
    Ok((header, is_right.then_some((frame.kind, bytes))))
}
