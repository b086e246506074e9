//! How one operation that was not synced reached the medium.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::log::Effect;
use super::noise::{Noise, Numbers, mix};
use super::row::{PAGE, PAGE_LEN, Page, Patch, Row, pieces, to_usize};

/// What became of one operation's bytes and of the length that it changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Landing {
    data: Data,
    space: Space,
}

/// What became of the sectors of a write, counted from its first one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Data {
    Lost,
    Whole,
    Garbage,
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
enum Space {
    Lost,
    /// Only up to where data landed.
    Short,
    Zeros,
    Garbage,
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

    /// The ways, other than lost and whole, in which an operation may land, most telling first.
    pub(super) fn torn(effect: &Effect, seed: u64) -> Vec<Landing> {
        match effect {
            Effect::SetLen { before, after, .. } if before < after => vec![Landing {
                data: Data::Lost,
                space: Space::Garbage,
            }],
            Effect::Write {
                patch, len_before, ..
            } => torn_write(&patch.range, *len_before, seed),
            _ => Vec::new(),
        }
    }

    /// Any way in which an operation may land; whole rather than lost in `bias` of 8 throws.
    pub(super) fn any(effect: &Effect, bias: u64, numbers: &mut Numbers) -> Landing {
        if numbers.below(4) > 0 {
            return if numbers.below(8) < bias {
                Landing::WHOLE
            } else {
                Landing::LOST
            };
        }
        let torn = Landing::torn(effect, numbers.next());
        let Effect::Write { patch, .. } = effect else {
            return pick(&torn, numbers).unwrap_or(Landing::WHOLE);
        };
        let count = sectors(&patch.range).end - sectors(&patch.range).start;
        let at = numbers.below(count);
        let data = match numbers.below(8) {
            0 => Data::First(at + 1),
            1 => Data::Last(at + 1),
            2 => Data::Only(at),
            3 => Data::GarbageAt(at),
            4 => Data::Mixed {
                seed: numbers.next(),
                grain: 1 << numbers.below(10),
            },
            _ => return pick(&torn, numbers).unwrap_or(Landing::WHOLE),
        };
        let space = match (numbers.below(3), data) {
            (0, Data::First(_)) => Space::Short,
            (1, _) => Space::Zeros,
            _ => Space::Garbage,
        };
        Landing { data, space }
    }

    pub(super) fn write(&self, row: &mut Row, patch: &Patch, len_before: u64, noise: &Noise) {
        let range = &patch.range;
        if len_before < range.end && row.len() < range.end {
            self.grow(row, self.short_end(range), range.end, noise);
        }
        self.data.each(range, |part, fate| match fate {
            Fate::New => row.take(patch, part),
            Fate::Garbage => garble(row, patch, part, noise),
        });
    }

    pub(super) fn set_len(&self, row: &mut Row, after: u64, noise: &Noise) {
        if after < row.len() {
            row.set_len(after);
        } else {
            self.grow(row, after, after, noise);
        }
    }

    fn grow(&self, row: &mut Row, short: u64, whole: u64, noise: &Noise) {
        let before = row.len();
        let after = match self.space {
            Space::Lost => before,
            Space::Short => short.max(before),
            Space::Zeros | Space::Garbage => whole,
        };
        row.set_len(after);
        if self.space == Space::Garbage {
            // Very long new space is noise at its ends only, where heads and tails lie.
            let head = after.min(before.saturating_add(NOISE_BYTES));
            let tail = head.max(after.saturating_sub(NOISE_BYTES));
            let hole = Patch::hole(before..before);
            garble(row, &hole, before..head, noise);
            garble(row, &hole, tail..after, noise);
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
            (_, Data::Garbage) => Ok(()),
            (Space::Lost, _) => f.write_str(", length lost"),
            (Space::Short, _) => f.write_str(", length short"),
            (Space::Garbage, _) => f.write_str(", new space garbage"),
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
}

fn torn_write(range: &Range<u64>, len_before: u64, seed: u64) -> Vec<Landing> {
    let count = sectors(range).end - sectors(range).start;
    let mut datas = vec![Data::Garbage];
    let mut add = |data| {
        if !datas.contains(&data) {
            datas.push(data);
        }
    };
    if count > 1 {
        let half = count / 2;
        [half, 1, count - 1]
            .into_iter()
            .map(Data::First)
            .for_each(&mut add);
        [half, 1, count - 1]
            .into_iter()
            .map(Data::Last)
            .for_each(&mut add);
        [0, half, count - 1]
            .into_iter()
            .map(Data::GarbageAt)
            .for_each(&mut add);
    }
    if count > 2 {
        add(Data::Only(count / 2));
        add(Data::Mixed { seed, grain: 1 });
    }
    if count > 64 {
        let grain = PAGE / SECTOR;
        add(Data::Mixed { seed, grain });
    }
    let grows = len_before < range.end;
    let landing = |data| Landing {
        data,
        space: if grows && data != Data::Garbage {
            Space::Garbage
        } else {
            Space::Zeros
        },
    };
    let mut all: Vec<Landing> = datas.into_iter().map(landing).collect();
    if grows {
        let (data, whole) = (Data::Lost, Data::Whole);
        all.push(Landing {
            data,
            space: Space::Zeros,
        });
        if range.start < len_before {
            all.push(Landing {
                data: whole,
                space: Space::Lost,
            });
        }
        if len_before < range.start {
            all.push(Landing {
                data: whole,
                space: Space::Garbage,
            });
        }
        if count > 1 {
            let data = Data::First(count / 2);
            all.push(Landing {
                data,
                space: Space::Short,
            });
            all.push(Landing {
                data,
                space: Space::Zeros,
            });
        }
    }
    all
}

/// Puts garbage into `range` that differs, sector by sector, from what was there and from what
/// `patch` would have put there. The length stays.
fn garble(row: &mut Row, patch: &Patch, range: Range<u64>, noise: &Noise) {
    for piece in pieces(range.start..range.end.min(row.len())) {
        let Some(garbage) = noise.page(piece.page) else {
            return;
        };
        let new = patch.page(piece.page);
        let old = row.page(piece.page);
        let clash = |other: Option<&Arc<Page>>| {
            let mut pairs = other
                .into_iter()
                .flat_map(|page| page.chunks(SECTOR_LEN).zip(garbage.chunks(SECTOR_LEN)));
            pairs.any(|(a, b)| a == b)
        };
        if piece.within.len() == PAGE_LEN && !clash(old) && !clash(new) {
            row.set_page(piece.page, Some(garbage.clone()));
            continue;
        }
        let mut at = piece.within.start;
        while at < piece.within.end {
            let end = piece.within.end.min((at / SECTOR_LEN + 1) * SECTOR_LEN);
            let there = row.edit(piece.page, at..end);
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
fn sectors(range: &Range<u64>) -> Range<u64> {
    range.start / SECTOR..range.end.div_ceil(SECTOR)
}

fn pick(landings: &[Landing], numbers: &mut Numbers) -> Option<Landing> {
    let at = numbers.below(landings.len() as u64);
    landings.get(to_usize(at)).copied()
}

const SECTOR_LEN: usize = 512;
const SECTOR: u64 = SECTOR_LEN as u64;
const NOISE_BYTES: u64 = 1 << 20;
