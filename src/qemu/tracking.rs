//! Which checkpoints there are, and what was written since them by QEMUs that are gone.
//!
//! A bitmap lives as long as its QEMU. When a VM was shut down its bitmaps are read and kept here;
//! when it is started again, new ones go on from there.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::snapshot::BITMAP;
use crate::image::nbd::Ranges;
use crate::vm::{Checkpoint, Token};

/// All checkpoints of a VM.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tracking {
    pub checkpoints: Vec<Tracked>,
}

/// A checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tracked {
    pub token: Token,
    pub record: Record,
    /// What was written since, up to when the VM was last shut down, by disk.
    pub written: BTreeMap<String, Vec<Range<u64>>>,
}

/// What becomes of writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Record {
    /// The VM is off and fenced: there are none.
    Closed,
    /// It is about to be let go: its QEMU is there, has not run, and gets bitmaps.
    Opening,
    /// They are in a bitmap of its QEMU. Without that bitmap they are lost.
    Live,
}

impl Tracking {
    pub(super) fn get(&self, checkpoint: Checkpoint) -> Option<&Tracked> {
        let is = |it: &&Tracked| it.token == checkpoint.0;
        self.checkpoints.iter().find(is)
    }

    /// Drops all checkpoints but `keep`, and `token` if it is there from an earlier try.
    pub(super) fn retain(&mut self, keep: Option<Checkpoint>, token: Token) {
        self.checkpoints
            .retain(|it| it.token == token || Some(Checkpoint(it.token)) == keep);
    }

    /// Adds a checkpoint of now, unless it is there.
    pub(super) fn add(&mut self, token: Token, record: Record) {
        if self.get(Checkpoint(token)).is_none() {
            self.checkpoints.push(Tracked {
                token,
                record,
                written: BTreeMap::new(),
            });
        }
    }

    /// Sets what becomes of writes from now on, for all checkpoints.
    pub(super) fn set(&mut self, record: Record) {
        for checkpoint in &mut self.checkpoints {
            checkpoint.record = record;
        }
    }
}

impl Tracked {
    /// The name of its bitmap.
    pub(super) fn bitmap(&self) -> String {
        bitmap(self.token)
    }

    /// What was written to a disk by QEMUs that are gone.
    pub(super) fn written(&self, disk: &str) -> &[Range<u64>] {
        self.written.get(disk).map_or(&[], Vec::as_slice)
    }

    /// Adds what a bitmap said at the end.
    pub(super) fn wrote(&mut self, disk: &str, ranges: &[Range<u64>]) {
        let all = Ranges::joined(self.written(disk), ranges);
        self.written.insert(disk.to_owned(), all);
    }
}

/// The name of a checkpoint's bitmap.
pub(super) fn bitmap(token: Token) -> String {
    format!("{BITMAP}{}", named(token))
}

/// A command's number as a part of names in a QEMU.
pub(super) fn named(token: Token) -> String {
    format!("{}-{}", token.epoch, token.sequence)
}
