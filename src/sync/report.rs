//! What a sync did.

use std::ops::Range;
use std::time::Duration;

use super::options::{Mode, Safety};
use crate::delta::Hash;

/// How a sync ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The target held what the source holds; nothing was written.
    Identical,
    /// The target now holds what the source holds.
    Synced,
    /// As `Synced`, but for the source ranges that could not be read.
    SyncedWithGaps,
    /// Only looked: the numbers say what a sync would do.
    DryRun,
}

/// On what evidence the target is said to hold the source's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verified {
    /// Nothing was read back.
    No,
    /// What was written was read back from the medium, the rest was compared in this run.
    Written,
    /// What was written was read back; a kept manifest stood for reading the rest.
    Cached,
    /// The whole target was read after the sync and compared with the source.
    All,
}

/// What a sync did. Byte counts are guest bytes unless said otherwise.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SyncReport {
    /// How it ended.
    pub outcome: Outcome,
    /// The mode that was used, never `Auto`.
    pub mode: Mode,
    /// Why that mode.
    pub reason: String,
    /// What held meanwhile.
    pub safety: Safety,
    /// Length of the source's disk.
    pub disk_bytes: u64,
    /// Bytes that had to be read to find differences, on one side or both.
    pub compared_bytes: u64,
    /// Bytes that differed.
    pub changed_bytes: u64,
    /// Those of them that became zeros.
    pub zeroed_bytes: u64,
    /// Guest bytes written to the target, zeroed ones not counted.
    pub written_bytes: u64,
    /// Bytes of the stage, of its file.
    pub staged_bytes: u64,
    /// Bytes taken over from the stage of an earlier run.
    pub resumed_bytes: u64,
    /// Bytes of a larger device that lie beyond the source and were left alone.
    pub untouched_tail_bytes: u64,
    /// How finely differences were told.
    pub granularity_bytes: u64,
    /// On what evidence the target is right.
    pub verified: Verified,
    /// Source ranges that could not be read and were left alone.
    pub unreadable: Vec<Range<u64>>,
    /// Root of the source, where it was computed.
    pub root: Option<Hash>,
    /// What else a person should know of source and target.
    pub notes: Vec<String>,
    /// How long it took.
    pub elapsed: Duration,
}

impl SyncReport {
    pub(super) fn new(mode: Mode, safety: Safety, disk_bytes: u64) -> Self {
        SyncReport {
            outcome: Outcome::Identical,
            mode,
            reason: String::new(),
            safety,
            disk_bytes,
            compared_bytes: 0,
            changed_bytes: 0,
            zeroed_bytes: 0,
            written_bytes: 0,
            staged_bytes: 0,
            resumed_bytes: 0,
            untouched_tail_bytes: 0,
            granularity_bytes: crate::units::REFINE_BYTES,
            verified: Verified::No,
            unreadable: Vec::new(),
            root: None,
            notes: Vec::new(),
            elapsed: Duration::ZERO,
        }
    }

    /// Takes over what a comparison counted.
    pub(super) fn count(&mut self, compared: crate::diff::CompareReport) {
        self.compared_bytes += compared.compared_bytes;
        self.changed_bytes += compared.changed_bytes;
        self.zeroed_bytes += compared.zeroed_bytes;
        self.granularity_bytes = compared.granularity_bytes;
        self.unreadable = compared.unreadable;
    }
}
