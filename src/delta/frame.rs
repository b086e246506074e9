//! One frame of a delta file, before and after its payload is known to be right.

use std::borrow::Cow;
use std::ops::Range;

use super::format::{FRAME_LEN, FrameHeader, FrameKind, JobId, Old};
use crate::error::{Error, ErrorKind, Result};
use crate::hash::Hash;
use crate::limits::Limits;
use crate::storage::Storage;
use crate::units::is_zero;

/// A frame whose payload was hashed in this process and found right.
#[derive(Debug)]
pub struct VerifiedFrame<'a> {
    header: &'a FrameHeader,
    at: u64,
    bytes: Cow<'a, [u8]>,
}

impl VerifiedFrame<'_> {
    /// The frame's header.
    pub fn header(&self) -> &FrameHeader {
        self.header
    }

    /// The new bytes; empty for kinds that carry none.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes.into_owned()
    }

    /// First byte.
    pub fn offset(&self) -> u64 {
        self.header.offset
    }

    /// Where it lies in its file.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// The range it covers; the bounds were checked when the frame was read.
    pub fn range(&self) -> Range<u64> {
        self.header.offset..self.header.offset.saturating_add(self.header.len)
    }
}

/// A frame whose seal is right; nothing is known of its payload.
pub(super) struct RawFrame {
    pub header: FrameHeader,
    pub head: [u8; FRAME_LEN],
    /// Where it lies in its file.
    pub at: u64,
    /// Where its payload lies in the bytes read with it.
    pub payload: Range<usize>,
}

impl RawFrame {
    /// Whether it is guest data, not bookkeeping.
    pub(super) fn is_guest_data(&self) -> bool {
        matches!(self.header.kind, FrameKind::Data | FrameKind::Zero)
    }

    /// Where the next frame begins.
    pub(super) fn end(&self) -> u64 {
        let len = FRAME_LEN as u64 + u64::from(self.header.stored_len);
        self.at.saturating_add(len)
    }

    /// The frame that `window`, which lies at `at` in the file, begins with, if its seal is right.
    pub(super) fn parse(window: &[u8], at: u64, job: JobId) -> Option<RawFrame> {
        let head: [u8; FRAME_LEN] = *window.first_chunk()?;
        let header = FrameHeader::decode(&head).ok()?;
        let end = FRAME_LEN.checked_add(usize::try_from(header.stored_len).ok()?)?;
        let payload = FRAME_LEN..end;
        let is_sealed = header.is_sealed(job, &head, window.get(payload.clone())?);
        is_sealed.then_some(RawFrame {
            header,
            head,
            at,
            payload,
        })
    }

    /// # Errors
    /// `Malformed`, `LimitExceeded`.
    pub(super) fn verified<'a>(
        &'a self,
        payloads: &'a [u8],
        limits: &Limits,
        storage: &dyn Storage,
    ) -> Result<VerifiedFrame<'a>> {
        let header = &self.header;
        let stored = payloads
            .get(self.payload.clone())
            .ok_or_else(|| self.wrong("a frame's payload is not there", storage))?;
        let carries = !matches!(
            header.kind,
            FrameKind::Zero
                | FrameKind::ZeroTable
                | FrameKind::Length
                | FrameKind::Commit
                | FrameKind::Trailer
        );
        let hashed = carries || matches!(header.old, Old::Hash(_));
        if hashed && header.len > u64::from(limits.frame_bytes) {
            return Err(
                Error::new(ErrorKind::LimitExceeded, "a frame is longer than allowed")
                    .in_field("len")
                    .at_offset(self.at)
                    .at_path(storage.path()),
            );
        }
        if !carries {
            let empty = stored.is_empty() && !header.compressed && header.new_hash == Hash::ZERO;
            return if empty {
                Ok(VerifiedFrame {
                    header,
                    at: self.at,
                    bytes: Cow::Borrowed(&[]),
                })
            } else {
                Err(self.wrong("a frame without payload has one", storage))
            };
        }
        let len = usize::try_from(header.len).unwrap_or(usize::MAX);
        let bytes = if header.compressed {
            // The capacity bounds what a hostile frame can make of itself.
            let plain = zstd::bulk::decompress(stored, len).map_err(|e| {
                self.wrong("a frame does not decompress", storage)
                    .caused_by(e)
            })?;
            Cow::Owned(plain)
        } else {
            Cow::Borrowed(stored)
        };
        if bytes.len() != len {
            return Err(self.wrong("a frame's payload has another length than it says", storage));
        }
        if Hash::of(&bytes) != header.new_hash {
            return Err(self.wrong("a frame's bytes do not fit its hash", storage));
        }
        Ok(VerifiedFrame {
            header,
            at: self.at,
            bytes,
        })
    }

    /// An error about this frame.
    pub(super) fn wrong(&self, what: &'static str, storage: &dyn Storage) -> Error {
        Error::malformed(what)
            .at_offset(self.at)
            .at_path(storage.path())
    }
}

/// Whether `bytes` are what a frame says it replaces; unknown old bytes fit nothing.
pub(crate) fn fits_old(old: &Old, bytes: &[u8]) -> bool {
    match old {
        Old::Unknown => false,
        Old::Hash(hash) => Hash::of(bytes) == *hash,
        Old::Zeros => is_zero(bytes),
    }
}

/// Whether `bytes` are what a frame puts in their place.
pub(crate) fn fits_new(kind: FrameKind, new_hash: &Hash, bytes: &[u8]) -> bool {
    match kind {
        FrameKind::Zero => is_zero(bytes),
        _ => Hash::of(bytes) == *new_hash,
    }
}
