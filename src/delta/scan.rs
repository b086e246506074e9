//! The frames of a delta file in their order.

use rayon::prelude::*;

use super::format::{FRAME_LEN, FrameHeader, FrameKind, HEADER_LEN, Header};
use super::frame::{RawFrame, VerifiedFrame};
use super::sections::Section;
use crate::error::Result;
use crate::limits::Limits;
use crate::progress::Work;
use crate::storage::Storage;

/// Walks frames in file order, some MiB at a time.
pub(super) struct Scanner<'a> {
    storage: &'a dyn Storage,
    header: &'a Header,
    limits: &'a Limits,
    /// Where the next frame begins.
    pub at: u64,
    end: u64,
    sequence: u64,
}

/// Some frames that follow each other, with their payloads. Used again for the next ones: fresh
/// memory costs more than reading into it.
#[derive(Default)]
pub(super) struct Batch {
    pub frames: Vec<RawFrame>,
    pub payloads: Vec<u8>,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(
        storage: &'a dyn Storage,
        header: &'a Header,
        end: u64,
        limits: &'a Limits,
    ) -> Self {
        let at = HEADER_LEN as u64..end;
        Self::over(storage, header, Section { at, sequence: 0 }, limits)
    }

    /// The frames of one section of the file.
    pub(super) fn over(
        storage: &'a dyn Storage,
        header: &'a Header,
        section: Section,
        limits: &'a Limits,
    ) -> Self {
        Scanner {
            storage,
            header,
            limits,
            at: section.at.start,
            end: section.at.end,
            sequence: section.sequence,
        }
    }

    /// Fills `batch` with the next frames whose seals are right; `false` at the end or at the
    /// first damage, where `at` then points.
    pub(super) fn next_batch(&mut self, batch: &mut Batch) -> Result<bool> {
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

    /// How long the frame is that `window` begins with, as far as that may be trusted: no more
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
        let at = self.at + used as u64;
        let mut raw = RawFrame::parse(window.get(used..)?, at, self.header.job)?;
        if raw.header.kind == FrameKind::Trailer || raw.header.sequence != self.sequence {
            return None;
        }
        self.sequence += 1;
        raw.payload = used + raw.payload.start..used + raw.payload.end;
        Some(raw)
    }
}

impl Batch {
    /// Passes each frame to `visit` once its payload is found right; in any order.
    ///
    /// # Errors
    /// `Malformed`, `LimitExceeded`, and whatever `visit` returns.
    pub(super) fn verified(
        &self,
        work: &Work,
        limits: &Limits,
        storage: &dyn Storage,
        visit: &(dyn Fn(&VerifiedFrame<'_>) -> Result<()> + Sync),
    ) -> Result<()> {
        let one = |raw: &RawFrame| visit(&raw.verified(&self.payloads, limits, storage)?);
        let long = IN_HAND_BYTES / work.pool().current_num_threads().max(1) as u64;
        work.pool().install(|| {
            self.frames
                .par_iter()
                .with_min_len(FRAMES_A_TASK)
                .filter(|raw| raw.header.len <= long)
                .try_for_each(one)
        })?;
        // What a frame unpacks to, and what it replaces, is in memory while it is looked at; of
        // long ones only a few may be there at once.
        let mut long = self.frames.iter().filter(|raw| raw.header.len > long);
        long.try_for_each(one)
    }
}

/// Enough that all threads have work between two reads.
const BATCH_BYTES: u64 = 4 << 20;
/// Most bytes of frames that all threads have in hand.
const IN_HAND_BYTES: u64 = 32 << 20;
/// Small frames are hashed by the handful, not one a task.
const FRAMES_A_TASK: usize = 16;
