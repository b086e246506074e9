//! The ways in which an operation may land, other than whole or not at all.

use super::contents::{PAGE, Patch, to_usize};
use super::landing::{Data, Landing, SECTOR, Space, sectors};
use super::noise::Numbers;
use super::op::Effect;

/// All torn landings of an operation, the most telling ones first; `stale` tells whether new
/// space may hold what a removed file left.
pub(super) fn torn(effect: &Effect, stale: bool, seed: u64) -> Vec<Landing> {
    match effect {
        Effect::Write {
            patch, len_before, ..
        } => {
            let mut all = torn_sectors(patch, *len_before, seed);
            if *len_before < patch.range.end {
                all.extend(torn_space(patch, *len_before, stale));
            }
            all
        }
        Effect::SetLen { before, after, .. } if before < after => {
            let spaces = [Some(Space::Garbage), stale.then_some(Space::Stale)];
            let landing = |space| Landing {
                data: Data::Lost,
                space,
            };
            spaces.into_iter().flatten().map(landing).collect()
        }
        _ => Vec::new(),
    }
}

/// Any landing of an operation whose torn ones are given; whole rather than lost in `bias` of 8
/// throws.
pub(super) fn throw(
    effect: &Effect,
    torn: &[Landing],
    bias: u64,
    numbers: &mut Numbers,
) -> Landing {
    if torn.is_empty() || numbers.below(4) > 0 {
        return match numbers.below(8) < bias {
            true => Landing::WHOLE,
            false => Landing::LOST,
        };
    }
    let one = to_usize(numbers.below(torn.len() as u64));
    let one = torn.get(one).copied().unwrap_or(Landing::WHOLE);
    let Effect::Write { patch, .. } = effect else {
        return one;
    };
    let at = numbers.below(count(patch));
    let data = match numbers.below(8) {
        0 => Data::First(at + 1),
        1 => Data::Last(at + 1),
        2 => Data::Only(at),
        3 => Data::GarbageAt(at),
        4 => Data::Mixed {
            seed: numbers.next(),
            grain: (1 << numbers.below(10)).max(least_grain(patch)),
        },
        _ => return one,
    };
    let space = match (numbers.below(3), data) {
        (0, Data::First(_)) => Space::Short,
        (1, _) => Space::Zeros,
        _ => Space::Garbage,
    };
    Landing { data, space }
}

fn torn_sectors(patch: &Patch, len_before: u64, seed: u64) -> Vec<Landing> {
    let count = count(patch);
    let (half, last) = (count / 2, count.saturating_sub(1));
    let mut datas = vec![Data::Garbage];
    if !patch.is_hole() {
        datas.push(Data::Zeros);
    }
    if count > 1 {
        datas.extend([half, 1, last].map(Data::First));
        datas.extend([half, 1, last].map(Data::Last));
        datas.extend([0, half, last].map(Data::GarbageAt));
    }
    if count > 2 {
        let grain = least_grain(patch);
        datas.extend([Data::Only(half), Data::Mixed { seed, grain }]);
    }
    if count > 64 {
        let grain = least_grain(patch).max(PAGE / SECTOR);
        datas.push(Data::Mixed { seed: !seed, grain });
    }
    let grows = len_before < patch.range.end;
    let mut all = Vec::with_capacity(datas.len());
    for data in datas {
        let covered = matches!(data, Data::Garbage | Data::Zeros) || !grows;
        let space = match covered {
            true => Space::Zeros,
            false => Space::Garbage,
        };
        let landing = Landing { data, space };
        if !all.contains(&landing) {
            all.push(landing);
        }
    }
    all
}

/// The landings of a write that extends its file in which the length plays a part.
fn torn_space(patch: &Patch, len_before: u64, stale: bool) -> Vec<Landing> {
    let half = count(patch) / 2;
    let mut all = Vec::new();
    let mut add = |data, space| all.push(Landing { data, space });
    if half > 0 {
        add(Data::First(half), Space::Short);
        add(Data::First(half), Space::Zeros);
    }
    if patch.range.start < len_before {
        add(Data::Whole, Space::Lost);
        add(Data::Lost, Space::Zeros);
    }
    if len_before < patch.range.start {
        add(Data::Whole, Space::Garbage);
    }
    if stale {
        add(Data::Lost, Space::Stale);
        if half > 0 {
            add(Data::First(half), Space::Stale);
        }
    }
    all
}

fn count(patch: &Patch) -> u64 {
    let sectors = sectors(&patch.range);
    sectors.end - sectors.start
}

/// Very long writes are thrown in coarser groups, so that a state stays cheap.
fn least_grain(patch: &Patch) -> u64 {
    (count(patch) / GROUPS).max(1)
}

const GROUPS: u64 = 8192;
