//! Reading a delta file, trusting nothing in it.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use super::format::{
    FRAME_LEN, FrameHeader, FrameKind, HEADER_LEN, Hash, Header, Old, TRAILER_LEN, Trailer,
    digest_hasher,
};
use super::ranges::Ranges;
use crate::control::Work;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::Limits;
use crate::storage::Storage;

/// A complete delta file: header and trailer are there and fit each other.
///
/// That says nothing yet of the frames between; [`verify`](Delta::verify) does.
#[derive(Clone)]
pub struct Delta {
    storage: Arc<dyn Storage>,
    limits: Limits,
    header: Header,
    trailer: Trailer,
    frames_end: u64,
}

impl Delta {
    /// Opens a complete delta file.
    ///
    /// # Errors
    /// `Malformed` (also for a file that ends without a trailer), `Unsupported`,
    /// `LimitExceeded`, `Io`.
    pub fn open(storage: Arc<dyn Storage>, limits: &Limits) -> Result<Self> {
        let header = read_header(&*storage, limits)?;
        let len = storage.len()?;
        let tail_len = (FRAME_LEN + TRAILER_LEN) as u64;
        let frames_end = len
            .checked_sub(tail_len)
            .filter(|end| *end >= HEADER_LEN as u64)
            .ok_or_else(|| no_trailer(&*storage, len))?;
        let mut tail = [0; FRAME_LEN + TRAILER_LEN];
        storage.read_exact_at(&mut tail, frames_end)?;
        let (head, payload) = split::<FRAME_LEN, TRAILER_LEN>(&tail);
        let frame = FrameHeader::decode(&head).map_err(|_| no_trailer(&*storage, len))?;
        if frame.kind != FrameKind::Trailer || !frame.is_sealed(header.job, &head, &payload) {
            return Err(no_trailer(&*storage, len));
        }
        let trailer = Trailer::decode(&payload)
            .map_err(|e| e.at_path(storage.path()).at_offset(frames_end))?;
        if trailer.frame_count != frame.sequence {
            return Err(
                Error::malformed("the trailer counts other frames than its own place")
                    .in_field("frame_count")
                    .at_offset(frames_end)
                    .at_path(storage.path()),
            );
        }
        Ok(Delta {
            storage,
            limits: limits.clone(),
            header,
            trailer,
            frames_end,
        })
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The trailer.
    pub fn trailer(&self) -> &Trailer {
        &self.trailer
    }

    /// Where it lies.
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    /// Reads the whole file and checks every seal, every hash, the digest, the counts, and that
    /// guest ranges lie inside the result and nowhere overlap. `visit` sees each frame, as in
    /// [`for_each`](Delta::for_each).
    ///
    /// # Errors
    /// `Malformed` with the place; `LimitExceeded` when checking for overlaps would take more
    /// memory than [`Limits::table_bytes`]; `Io`, `Cancelled`, and whatever `visit` returns.
    pub fn verify(
        &self,
        work: &Work,
        visit: &(dyn Fn(&VerifiedFrame<'_>) -> Result<()> + Sync),
    ) -> Result<()> {
        let mut digest = digest_hasher();
        digest.update(&self.header.encode());
        let (mut count, mut data_bytes, mut zero_bytes) = (0u64, 0u64, 0u64);
        let mut ranges = Ranges::new(self.limits.table_bytes);
        let (mut scanner, mut batch) = (self.scanner(), Batch::default());
        while scanner.next_batch(&mut batch)? {
            work.cancel().check()?;
            for raw in &batch.frames {
                digest.update(&raw.head);
                count += 1;
                let range = raw.header.offset..raw.header.offset.saturating_add(raw.header.len);
                match raw.header.kind {
                    FrameKind::Data => data_bytes = data_bytes.saturating_add(raw.header.len),
                    FrameKind::Zero => zero_bytes = zero_bytes.saturating_add(raw.header.len),
                    // A stranger's file must not reach past the guest's bytes.
                    _ if !self.header.purpose.has_tables() => {
                        return Err(raw.wrong("a frame that only a stage may hold", &*self.storage));
                    }
                    _ => continue,
                }
                if range.end > self.header.result_len || range.is_empty() {
                    return Err(raw.wrong("a frame lies outside the disk", &*self.storage));
                }
                ranges
                    .insert(range)
                    .map_err(|e| e.at_path(self.storage.path()))?;
            }
            batch.verified(work, &self.limits, &*self.storage, visit)?;
        }
        if scanner.at != self.frames_end {
            return Err(self.damaged("a damaged frame", scanner.at));
        }
        if let Some(overlap) = ranges.first_overlap() {
            return Err(self
                .damaged("two frames cover the same bytes", self.frames_end)
                .caused_by(std::io::Error::other(format!("disk offset {overlap:#x}"))));
        }
        let trailer = &self.trailer;
        if digest.finalize() != blake3::Hash::from_bytes(trailer.digest)
            || (count, data_bytes, zero_bytes)
                != (trailer.frame_count, trailer.data_bytes, trailer.zero_bytes)
        {
            return Err(self.damaged("frames and trailer do not fit", self.frames_end));
        }
        Ok(())
    }

    /// Hands every frame to `visit`, hashed and found right, from the threads of `work`'s pool:
    /// frames of one batch in any order.
    ///
    /// # Errors
    /// `Malformed`, `Io`, and whatever `visit` returns.
    pub fn for_each(
        &self,
        work: &Work,
        visit: &(dyn Fn(&VerifiedFrame<'_>) -> Result<()> + Sync),
    ) -> Result<()> {
        let (mut scanner, mut batch) = (self.scanner(), Batch::default());
        while scanner.next_batch(&mut batch)? {
            batch.verified(work, &self.limits, &*self.storage, visit)?;
        }
        if scanner.at != self.frames_end {
            return Err(self.damaged("a damaged frame", scanner.at));
        }
        Ok(())
    }

    fn scanner(&self) -> Scanner<'_> {
        Scanner::new(&*self.storage, &self.header, self.frames_end, &self.limits)
    }

    fn damaged(&self, what: &'static str, offset: u64) -> Error {
        Error::malformed(what)
            .at_offset(offset)
            .at_path(self.storage.path())
            .advise("make the delta again; nothing was changed by it")
    }
}

/// A frame whose payload was hashed in this process and found right.
#[derive(Debug)]
pub struct VerifiedFrame<'a> {
    header: &'a FrameHeader,
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

    /// First byte.
    pub fn offset(&self) -> u64 {
        self.header.offset
    }

    /// The range it covers; the bounds were checked when the frame was read.
    pub fn range(&self) -> Range<u64> {
        self.header.offset..self.header.offset.saturating_add(self.header.len)
    }
}

/// The part of an unfinished delta file that can be believed: frames up to the first damage.
///
/// # Errors
/// `Malformed`, `Unsupported` for the header; `Io`, and whatever `visit` returns.
pub fn for_each_intact(
    storage: &Arc<dyn Storage>,
    limits: &Limits,
    work: &Work,
    visit: &(dyn Fn(&VerifiedFrame<'_>) -> Result<()> + Sync),
) -> Result<Header> {
    let header = read_header(&**storage, limits)?;
    let mut scanner = Scanner::new(&**storage, &header, storage.len()?, limits);
    let mut batch = Batch::default();
    while scanner.next_batch(&mut batch)? {
        for raw in &batch.frames {
            // A damaged payload ends what can be believed, as a damaged header does.
            let Ok(frame) = raw.verified(&batch.payloads, limits, &**storage) else {
                return Ok(header);
            };
            work.cancel().check()?;
            visit(&frame)?;
        }
    }
    Ok(header)
}

pub(super) fn read_header(storage: &dyn Storage, limits: &Limits) -> Result<Header> {
    let mut bytes = [0; HEADER_LEN];
    if storage.len()? < HEADER_LEN as u64 {
        return Err(Error::malformed("too short for a delta file").at_path(storage.path()));
    }
    storage.read_exact_at(&mut bytes, 0)?;
    let header = Header::decode(&bytes).map_err(|e| e.at_path(storage.path()))?;
    if header.base_len.max(header.result_len) > limits.disk_bytes {
        return Err(
            Error::new(ErrorKind::LimitExceeded, "the disk is longer than allowed")
                .in_field("result_len")
                .at_offset(40)
                .at_path(storage.path()),
        );
    }
    Ok(header)
}

fn no_trailer(storage: &dyn Storage, len: u64) -> Error {
    Error::malformed("the delta file is not complete: it ends without a trailer")
        .in_field("trailer")
        .at_offset(len)
        .at_path(storage.path())
        .advise("make it again, or transfer it again")
}

/// Walks frames in file order, some MiB at a time.
struct Scanner<'a> {
    storage: &'a dyn Storage,
    header: &'a Header,
    limits: &'a Limits,
    at: u64,
    end: u64,
    sequence: u64,
}

/// Some frames that follow each other, with their payloads. Used again for the next ones: fresh
/// memory costs more than reading into it.
#[derive(Default)]
struct Batch {
    frames: Vec<RawFrame>,
    payloads: Vec<u8>,
}

struct RawFrame {
    header: FrameHeader,
    head: [u8; FRAME_LEN],
    at: u64,
    payload: Range<usize>,
}

impl<'a> Scanner<'a> {
    fn new(storage: &'a dyn Storage, header: &'a Header, end: u64, limits: &'a Limits) -> Self {
        Scanner {
            storage,
            header,
            limits,
            at: HEADER_LEN as u64,
            end,
            sequence: 0,
        }
    }

    /// Fills `batch` with the next frames whose seals are right; `false` at the end or at the
    /// first damage, where `at` then points.
    fn next_batch(&mut self, batch: &mut Batch) -> Result<bool> {
        let mut want = BATCH_BYTES;
        loop {
            let window_len = want.min(self.end - self.at);
            // At most a batch, or a frame of the length that the limits allow.
            let window_len = usize::try_from(window_len).unwrap_or(usize::MAX);
            batch.frames.clear();
            batch.payloads.resize(window_len, 0);
            self.storage.read_exact_at(&mut batch.payloads, self.at)?;
            let mut used = 0;
            while let Some(raw) = self.parse(&batch.payloads, used) {
                used = raw.payload.end;
                batch.frames.push(raw);
            }
            let whole = self.frame_len(&batch.payloads);
            if used == 0 && want < whole && want < self.end - self.at {
                want = whole;
                continue;
            }
            self.at += used as u64;
            return Ok(!batch.frames.is_empty());
        }
    }

    /// How long the frame is that `window` begins with, as far as that may be believed: no more
    /// than is allowed.
    fn frame_len(&self, window: &[u8]) -> u64 {
        let most = u64::from(self.limits.frame_bytes);
        window
            .first_chunk::<FRAME_LEN>()
            .and_then(|head| FrameHeader::decode(head).ok())
            .map_or(0, |header| u64::from(header.stored_len).min(most))
            + FRAME_LEN as u64
    }

    fn parse(&mut self, window: &[u8], used: usize) -> Option<RawFrame> {
        let rest = window.get(used..)?;
        let head: [u8; FRAME_LEN] = rest.get(..FRAME_LEN)?.try_into().ok()?;
        let header = FrameHeader::decode(&head).ok()?;
        let stored_len = usize::try_from(header.stored_len).ok()?;
        let payload = rest.get(FRAME_LEN..)?.get(..stored_len)?;
        let fits = header.kind != FrameKind::Trailer
            && header.sequence == self.sequence
            && header.is_sealed(self.header.job, &head, payload);
        if !fits {
            return None;
        }
        self.sequence += 1;
        let start = used + FRAME_LEN;
        let at = self.at + used as u64;
        Some(RawFrame {
            header,
            head,
            at,
            payload: start..start + stored_len,
        })
    }
}

impl Batch {
    fn verified(
        &self,
        work: &Work,
        limits: &Limits,
        storage: &dyn Storage,
        visit: &(dyn Fn(&VerifiedFrame<'_>) -> Result<()> + Sync),
    ) -> Result<()> {
        work.pool().install(|| {
            self.frames
                .par_iter()
                .with_min_len(FRAMES_A_TASK)
                .try_for_each(|raw| visit(&raw.verified(&self.payloads, limits, storage)?))
        })
    }
}

impl RawFrame {
    fn verified<'a>(
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
            let empty = stored.is_empty() && !header.compressed && header.new_hash == [0; 32];
            return if empty {
                Ok(VerifiedFrame {
                    header,
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
        if blake3::hash(&bytes) != blake3::Hash::from_bytes(header.new_hash) {
            return Err(self.wrong("a frame's bytes do not fit its hash", storage));
        }
        Ok(VerifiedFrame { header, bytes })
    }

    fn wrong(&self, what: &'static str, storage: &dyn Storage) -> Error {
        Error::malformed(what)
            .at_offset(self.at)
            .at_path(storage.path())
    }
}

/// Whether `bytes` are what a frame says it replaces; unknown old bytes fit nothing.
pub(crate) fn fits_old(old: &Old, bytes: &[u8]) -> bool {
    match old {
        Old::Unknown => false,
        Old::Hash(hash) => blake3::hash(bytes) == blake3::Hash::from_bytes(*hash),
        Old::Zeros => is_zero(bytes),
    }
}

/// Whether `bytes` are what a frame puts in their place.
pub(crate) fn fits_new(kind: FrameKind, new_hash: &Hash, bytes: &[u8]) -> bool {
    match kind {
        FrameKind::Zero => is_zero(bytes),
        _ => blake3::hash(bytes) == blake3::Hash::from_bytes(*new_hash),
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

fn split<const A: usize, const B: usize>(bytes: &[u8]) -> ([u8; A], [u8; B]) {
    let (mut head, mut tail) = ([0; A], [0; B]);
    head.copy_from_slice(&bytes[..A]);
    tail.copy_from_slice(&bytes[A..A + B]);
    (head, tail)
}

/// Enough that all threads have work between two reads.
const BATCH_BYTES: u64 = 4 << 20;
/// Small frames are hashed by the handful, not one a task.
const FRAMES_A_TASK: usize = 16;
