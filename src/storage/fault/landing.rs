//! How one operation that was not synced reached the medium.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::contents::{FileBytes, Patch, pieces};
use super::noise::{Residue, mix};
use super::page::PAGE_LEN;
use super::page::Page;

/// What became of one operation's bytes and of the length that it changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Landing {
    pub(super) data: Data,
    pub(super) space: Space,
}

/// What became of the sectors of a write, counted from its first one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Data {
    Lost,
    Whole,
    Garbage,
    Zeros,
    First(u64),
    Last(u64),
    Only(u64),
    GarbageAt(u64),
    /// Every group of `grain` sectors old, new or garbage by its own throw.
    Mixed {
        seed: u64,
        grain: u64,
    },
}

/// What became of the length, and what new space reads as before its data lands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Space {
    Lost,
    /// Only up to where data landed.
    Short,
    Zeros,
    Garbage,
    /// What a file that is no more left there.
    Stale,
}

impl Landing {
    pub(super) const LOST: Landing = Landing {
        data: Data::Lost,
        space: Space::Lost,
    };

    pub(super) const WHOLE: Landing = Landing {
        data: Data::Whole,
        space: Space::Zeros,
    };

    pub(super) fn write(
        &self,
        contents: &mut FileBytes,
        patch: &Patch,
        len_before: u64,
        residue: &Residue,
    ) {
        let range = &patch.range;
        if len_before < range.end && contents.len() < range.end {
            self.grow(contents, self.short_end(range), range.end, residue);
        }
        self.data.each(range, |part, fate| match fate {
            Fate::New => contents.take(patch, part),
            Fate::Garbage => garble(contents, patch, part, residue),
            Fate::Zeros => contents.take(&Patch::hole(part.clone()), part),
        });
    }

    pub(super) fn set_len(&self, contents: &mut FileBytes, after: u64, residue: &Residue) {
        if after < contents.len() {
            contents.set_len(after);
        } else {
            self.grow(contents, after, after, residue);
        }
    }

    fn grow(&self, contents: &mut FileBytes, short: u64, whole: u64, residue: &Residue) {
        let before = contents.len();
        let after = match self.space {
            Space::Lost => before,
            Space::Short => short.max(before),
            Space::Zeros | Space::Garbage | Space::Stale => whole,
        };
        contents.set_len(after);
        match (self.space, &residue.stale) {
            (Space::Garbage, _) => {
                // Very long new space is noise at its ends only, where heads and tails lie.
                let head = after.min(before.saturating_add(NOISE_BYTES));
                let tail = head.max(after.saturating_sub(NOISE_BYTES));
                let hole = Patch::hole(before..before);
                garble(contents, &hole, before..head, residue);
                garble(contents, &hole, tail..after, residue);
            }
            (Space::Stale, Some(stale)) => {
                contents.take_contents(stale, before..after.min(stale.len()))
            }
            _ => {}
        }
    }

    fn short_end(&self, range: &Range<u64>) -> u64 {
        match self.data {
            Data::First(count) => ((sectors(range).start + count) * SECTOR).min(range.end),
            _ => range.end,
        }
    }
}

impl fmt::Display for Landing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Landing::LOST {
            return f.write_str("lost");
        }
        match self.data {
            Data::Lost => f.write_str("data lost")?,
            Data::Whole => f.write_str("landed")?,
            Data::Garbage => f.write_str("all garbage")?,
            Data::Zeros => f.write_str("all zeros")?,
            Data::First(count) => write!(f, "first {count} sectors landed")?,
            Data::Last(count) => write!(f, "last {count} sectors landed")?,
            Data::Only(at) => write!(f, "only sector {at} landed")?,
            Data::GarbageAt(at) => write!(f, "landed but for garbage in sector {at}")?,
            Data::Mixed { seed, grain } => {
                write!(
                    f,
                    "old, new and garbage by {grain} sectors (throw {seed:#x})"
                )?;
            }
        }
        match (self.space, self.data) {
            (_, Data::Garbage | Data::Zeros) => Ok(()),
            (Space::Lost, _) => f.write_str(", length lost"),
            (Space::Short, _) => f.write_str(", length short"),
            (Space::Garbage, _) => f.write_str(", new space garbage"),
            (Space::Stale, _) => f.write_str(", new space stale"),
            (Space::Zeros, Data::Whole) => Ok(()),
            (Space::Zeros, _) => f.write_str(", new space zeros"),
        }
    }
}

impl Data {
    /// Calls back with the parts of a write that are not old any more.
    fn each(self, range: &Range<u64>, mut visit: impl FnMut(Range<u64>, Fate)) {
        let all = sectors(range);
        let count = all.end - all.start;
        let mut part = |part: Range<u64>, fate| {
            let start = ((all.start + part.start) * SECTOR).max(range.start);
            let end = ((all.start + part.end.min(count)) * SECTOR).min(range.end);
            if start < end {
                visit(start..end, fate);
            }
        };
        match self {
            Data::Lost => {}
            Data::Whole => part(0..count, Fate::New),
            Data::Garbage => part(0..count, Fate::Garbage),
            Data::Zeros => part(0..count, Fate::Zeros),
            Data::First(landed) => part(0..landed, Fate::New),
            Data::Last(landed) => part(count.saturating_sub(landed)..count, Fate::New),
            Data::Only(at) => part(at..at + 1, Fate::New),
            Data::GarbageAt(at) => {
                part(0..at, Fate::New);
                part(at..at + 1, Fate::Garbage);
                part(at + 1..count, Fate::New);
            }
            Data::Mixed { seed, grain } => {
                for group in 0..count.div_ceil(grain) {
                    let sectors = group * grain..(group + 1) * grain;
                    match mix(seed ^ mix(group)) % 8 {
                        0..=2 => {}
                        3..=5 => part(sectors, Fate::New),
                        _ => part(sectors, Fate::Garbage),
                    }
                }
            }
        }
    }
}

enum Fate {
    New,
    Garbage,
    Zeros,
}

/// Puts garbage into `range` that differs, sector by sector, from what was there and from what
/// `patch` would have put there. The length stays.
fn garble(contents: &mut FileBytes, patch: &Patch, range: Range<u64>, residue: &Residue) {
    for piece in pieces(range.start..range.end.min(contents.len())) {
        let Some(garbage) = residue.noise(piece.page) else {
            return;
        };
        let new = patch.page(piece.page);
        let old = contents.page(piece.page);
        let clash = |other: Option<&Arc<Page>>| {
            let mut pairs = other
                .into_iter()
                .flat_map(|page| page.chunks(SECTOR_LEN).zip(garbage.chunks(SECTOR_LEN)));
            pairs.any(|(a, b)| a == b)
        };
        if piece.within.len() == PAGE_LEN && !clash(old) && !clash(new) {
            contents.set_page(piece.page, Some(garbage.clone()));
            continue;
        }
        let mut at = piece.within.start;
        while at < piece.within.end {
            let end = piece.within.end.min((at / SECTOR_LEN + 1) * SECTOR_LEN);
            let there = contents.edit(piece.page, at..end);
            let mut bytes = garbage[at..end].to_vec();
            while *there == *bytes || new.is_some_and(|new| new[at..end] == *bytes) {
                bytes[0] = bytes[0].wrapping_add(1);
            }
            there.copy_from_slice(&bytes);
            at = end;
        }
    }
}

/// The sectors that a range touches.
pub(super) fn sectors(range: &Range<u64>) -> Range<u64> {
    range.start / SECTOR..range.end.div_ceil(SECTOR)
}

const SECTOR_LEN: usize = 512;
pub(super) const SECTOR: u64 = SECTOR_LEN as u64;
const NOISE_BYTES: u64 = 1 << 20;
