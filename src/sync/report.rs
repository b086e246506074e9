//! What a sync did.

use std::ops::Range;
use std::time::Duration;

use super::options::{Mode, Safety, SyncOptions, Verify};
use crate::hash::Hash;

/// How a sync ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum Outcome {
    /// All of source and target was compared, and is equal; nothing was written.
    Identical,
    /// Nothing was found to differ and nothing was written, but not all was compared: a change map
    /// or a manifest stood for reading (`verified`), or ranges were skipped (`unreadable`).
    Unchanged,
    /// What was found to differ was written; `verified` names the evidence for the rest.
    Synced,
    /// As `Synced`, but for the source ranges that could not be read: `unreadable` lists them.
    SyncedWithGaps,
    /// Nothing was written: the numbers are those of the sync that would follow.
    DryRun,
}

/// On what evidence the target is said to hold the source's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum Verified {
    /// Nothing was read back.
    No,
    /// What was written was read back from the medium, the rest was compared in this run.
    Written,
    /// What was written was read back from the medium; manifests kept of source or target stood for
    /// reading the rest.
    Cached,
    /// What was written was read back from the medium; a change map named where to look, and the
    /// rest was not read.
    Tracked,
    /// What was written was held against a checksum by the storage that took it, and not read back.
    Sent,
    /// The whole target was read after the sync and compared with the source.
    All,
}

/// What went over a connection, framing counted, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Traffic {
    /// To the other end.
    pub sent_bytes: u64,
    /// From it.
    pub received_bytes: u64,
}

/// What a sync did. Byte counts are guest bytes unless said otherwise.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
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
    /// Whether what was written went to a clone, of the target or, for a full copy, of the source.
    pub cloned: bool,
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
    /// Bytes of the redo log, of its file.
    pub logged_bytes: u64,
    /// Bytes taken over from the redo log of an earlier run.
    pub resumed_bytes: u64,
    /// Bytes of a larger device that lie beyond the source and were left alone.
    pub untouched_tail_bytes: u64,
    /// How finely differences were told.
    pub granularity_bytes: u64,
    /// On what evidence the target is right.
    pub verified: Verified,
    /// Source ranges that could not be read and were left alone.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serialize::ranges"))]
    pub unreadable: Vec<Range<u64>>,
    /// Root of the source, where it was computed.
    pub root: Option<Hash>,
    /// What else a person should know of source and target.
    #[cfg_attr(feature = "serde", serde(rename = "warnings"))]
    pub notes: Vec<String>,
    /// How long it took.
    #[cfg_attr(feature = "serde", serde(rename = "elapsed_seconds"))]
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serialize::seconds"))]
    pub elapsed: Duration,
    /// What went over the connection to another host, where there was one.
    #[cfg_attr(feature = "serde", serde(flatten))]
    pub traffic: Option<Traffic>,
    /// Whether a manifest stood for reading source or target.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub(crate) trusts_manifest: bool,
    /// Whether a change map stood for comparing.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub(crate) trusts_map: bool,
}

impl SyncReport {
    /// Names the evidence, once the work is done: the weakest that was used.
    pub(super) fn conclude(&mut self, options: &SyncOptions) {
        let trusted = match (self.trusts_map, self.mode) {
            (true, Mode::Delta) => Some(Verified::Tracked),
            _ if self.trusts_manifest => Some(Verified::Cached),
            _ => None,
        };
        let is_unread = self.outcome == Outcome::Identical && options.verify != Verify::None;
        if self.verified == Verified::No && is_unread {
            // Nothing had to be read back; what was compared is the evidence.
            self.verified = Verified::Written;
        }
        if let Some(trusted) = trusted
            && self.verified == Verified::Written
        {
            self.verified = trusted;
        }
        let is_trusted = trusted.is_some() && self.verified != Verified::All;
        let has_gaps = !self.unreadable.is_empty();
        self.outcome = match self.outcome {
            Outcome::Identical if has_gaps || is_trusted => Outcome::Unchanged,
            Outcome::Synced if has_gaps => Outcome::SyncedWithGaps,
            outcome => outcome,
        };
    }

    pub(super) fn new(mode: Mode, safety: Safety, disk_bytes: u64) -> Self {
        SyncReport {
            outcome: Outcome::Identical,
            mode,
            reason: String::new(),
            safety,
            cloned: false,
            disk_bytes,
            compared_bytes: 0,
            changed_bytes: 0,
            zeroed_bytes: 0,
            written_bytes: 0,
            logged_bytes: 0,
            resumed_bytes: 0,
            untouched_tail_bytes: 0,
            granularity_bytes: crate::units::PAGE_BYTES,
            verified: Verified::No,
            unreadable: Vec::new(),
            root: None,
            notes: Vec::new(),
            elapsed: Duration::ZERO,
            traffic: None,
            trusts_manifest: false,
            trusts_map: false,
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
