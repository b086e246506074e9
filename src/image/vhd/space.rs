//! Where new blocks of a dynamic file go.
//!
//! New blocks come behind everything that is there, from the footer's place on: what lies between
//! the last known block and the footer may be in use (XenServer keeps a map there), and
//! space that a crash has left behind may hold garbage. Payload is aligned to 4 KiB and its bitmap
//! lies right before it, as Windows does; so the old footer's place becomes bitmap or gap, never
//! payload.

use crate::error::{Error, ErrorKind, Result};

use super::format::{FOOTER_BYTES, SECTOR_BYTES, UNALLOCATED};
use super::layout::Shape;

/// The end of a dynamic file: what is used, what is ready to be used, where the footer lies.
#[derive(Debug, Clone)]
pub(super) struct Space {
    /// New blocks go here or behind.
    next: u64,
    /// Up to here the file is long enough, its footer behind, and unused space zero.
    ready: u64,
    /// Where the footer at the end lies, if there is a good one.
    pub tail_at: Option<u64>,
}

impl Space {
    /// The space of a file whose footer, if there is one, is at `tail_at`, and which holds nothing
    /// that is known from `data_end` on.
    pub(super) fn new(tail_at: Option<u64>, data_end: u64) -> Self {
        Space {
            next: data_end,
            ready: data_end,
            tail_at,
        }
    }

    /// The entry of the next new block.
    ///
    /// # Errors
    /// `Unsupported` when an entry could not name the place.
    pub(super) fn place(&self, shape: Shape) -> Result<u32> {
        let payload = (self.next + shape.bitmap_bytes).next_multiple_of(PAYLOAD_ALIGN);
        u32::try_from((payload - shape.bitmap_bytes) / SECTOR_BYTES)
            .ok()
            .filter(|entry| *entry != UNALLOCATED)
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::Unsupported,
                    "a VHD cannot name places beyond 2 TiB in its file",
                )
                .at_offset(payload)
                .advise("use a VHDX, or blocks of 2M")
            })
    }

    /// Takes the place that [`file_ref`](Space::place) named.
    pub(super) fn take(&mut self, entry: u32, shape: Shape) {
        self.next = shape.end(entry);
    }

    /// Whether a block at `entry` lies in space that is ready.
    pub(super) fn is_ready(&self, entry: u32, shape: Shape) -> bool {
        shape.end(entry) <= self.ready
    }

    /// Whether the file is longer than it need be because blocks were made ready and not taken.
    pub(super) fn has_slack(&self) -> bool {
        self.ready > self.next
    }

    /// Where a footer right behind the last block goes; the file then ends on a page.
    pub(super) fn tight_tail(&self) -> u64 {
        tail_behind(self.next)
    }

    /// Where the footer goes when `bytes` more are made ready, and a block at least: right behind
    /// a block, so that the next one passes over it.
    pub(super) fn grown_tail(&self, bytes: u64, shape: Shape) -> u64 {
        let step = shape.block_bytes + shape.bitmap_bytes.next_multiple_of(PAYLOAD_ALIGN);
        let first = (self.next + shape.bitmap_bytes).next_multiple_of(PAYLOAD_ALIGN);
        let more = bytes / step * step;
        tail_behind(first + shape.block_bytes + more)
    }

    /// Notes that a good footer lies at `tail_at` and that all space before it is ready.
    pub(super) fn grown_to(&mut self, tail_at: u64) {
        self.tail_at = Some(tail_at);
        self.ready = tail_at;
    }

    /// Notes that the footer at the end lies at `tail_at` and nothing before it is spare.
    pub(super) fn trimmed_to(&mut self, tail_at: u64) {
        self.tail_at = Some(tail_at);
        self.ready = self.next;
    }
}

/// The footer's place at or behind `end`, so that the file ends on a page.
pub(super) fn tail_behind(end: u64) -> u64 {
    let footer = FOOTER_BYTES as u64;
    (end + footer).next_multiple_of(PAYLOAD_ALIGN) - footer
}

const PAYLOAD_ALIGN: u64 = 4096;
