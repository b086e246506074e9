//! Which combinations of landings are tried at one cut.

use super::contents::to_usize;
use super::landing::Landing;
use super::noise::Numbers;
use super::op::Effect;
use super::tear::throw;

/// A numbered sequence of combinations: one landing for each pending operation.
///
/// First come the planned ones; every number beyond them is a throw.
#[derive(Debug)]
pub(super) struct Plan {
    torn: Vec<Vec<Landing>>,
    planned: Planned,
    states: u64,
}

#[derive(Debug)]
enum Planned {
    /// Sets of torn operations (one bit each) in order of size, with the count of combinations
    /// that each stands for: all torn variants of its members times all subsets of the others.
    Sets { sets: Vec<(u32, u64)>, depth: u32 },
    /// A count of simple combinations: a prefix landed, all but one, only one.
    Simple(u64),
}

impl Plan {
    pub(super) fn new(
        torn: Vec<Vec<Landing>>,
        exhaustive_ops: usize,
        limit: u64,
        samples: u64,
    ) -> Self {
        let sets = (torn.len() <= exhaustive_ops).then(|| sets_within(&torn, limit));
        let planned = match sets.flatten() {
            Some((sets, depth)) => Planned::Sets { sets, depth },
            None => Planned::Simple(simple_count(torn.len()).min(limit.div_ceil(2))),
        };
        let count = planned.count();
        let complete = match &planned {
            Planned::Sets { depth, .. } => *depth as usize >= torn.len(),
            Planned::Simple(_) => false,
        };
        let thrown = if complete {
            0
        } else {
            samples.min(limit.saturating_sub(count))
        };
        Plan {
            torn,
            states: count + thrown,
            planned,
        }
    }

    pub(super) fn states(&self) -> u64 {
        self.states
    }

    pub(super) fn ops(&self) -> usize {
        self.torn.len()
    }

    pub(super) fn tries_every_subset(&self) -> bool {
        match &self.planned {
            Planned::Sets { depth, .. } => *depth >= 1 || self.torn.is_empty(),
            Planned::Simple(_) => false,
        }
    }

    /// The landings of combination `number`.
    pub(super) fn landings<'a>(
        &self,
        number: u64,
        effects: impl Iterator<Item = &'a Effect>,
        numbers: &mut Numbers,
    ) -> Vec<Landing> {
        if number >= self.planned.count() {
            let bias = 1 + numbers.below(7);
            let each = effects.zip(&self.torn);
            let thrown = each.map(|(effect, torn)| throw(effect, torn, bias, numbers));
            return thrown.collect();
        }
        match &self.planned {
            Planned::Sets { sets, .. } => self.decode(sets, number),
            Planned::Simple(count) => {
                let all = u128::from(simple_count(self.torn.len()));
                let spread = u128::from(number) * all / u128::from((*count).max(1));
                // Below `all`, which fits.
                self.simple(spread as usize)
            }
        }
    }

    fn decode(&self, sets: &[(u32, u64)], number: u64) -> Vec<Landing> {
        let mut rest = number;
        let mut set = 0;
        for &(torn, count) in sets {
            set = torn;
            if rest < count {
                break;
            }
            rest -= count;
        }
        let choose = |(at, torn): (usize, &Vec<Landing>)| {
            let base = if set & 1 << at == 0 {
                2
            } else {
                torn.len() as u64
            };
            let choice = rest % base.max(1);
            rest /= base.max(1);
            match choice {
                _ if set & 1 << at != 0 => torn.get(to_usize(choice)).copied(),
                0 => Some(Landing::LOST),
                _ => None,
            }
            .unwrap_or(Landing::WHOLE)
        };
        self.torn.iter().enumerate().map(choose).collect()
    }

    /// A prefix (none to all), then all but one of those before the last, then only one of those
    /// after the first: the missing two are prefixes.
    fn simple(&self, number: usize) -> Vec<Landing> {
        let count = self.torn.len();
        let landed = |at: usize| match number.checked_sub(count + 1) {
            None => at < number,
            Some(one) if one + 1 < count => at != one,
            Some(one) => at + count == one + 2,
        };
        let landing = |at| {
            if landed(at) {
                Landing::WHOLE
            } else {
                Landing::LOST
            }
        };
        (0..count).map(landing).collect()
    }
}

impl Planned {
    fn count(&self) -> u64 {
        match self {
            Planned::Sets { sets, .. } => sets.iter().map(|(_, count)| count).sum(),
            Planned::Simple(count) => *count,
        }
    }
}

/// All sets of torn operations up to the greatest size whose combinations stay within `limit`,
/// and that size; `None` where the subsets alone exceed it.
fn sets_within(torn: &[Vec<Landing>], limit: u64) -> Option<(Vec<(u32, u64)>, u32)> {
    let count = |set: u32| {
        let bases = torn.iter().enumerate();
        let bases = bases.map(|(at, torn)| {
            if set & 1 << at == 0 {
                2
            } else {
                torn.len() as u64
            }
        });
        bases.fold(1, u64::saturating_mul)
    };
    let all = 1u32.checked_shl(u32::try_from(torn.len()).ok()?)?;
    let mut sets = Vec::new();
    let mut total = 0u64;
    let mut depth = None;
    for size in 0..=all.trailing_zeros() {
        let of_size = (0..all).filter(|set| set.count_ones() == size);
        let of_size: Vec<_> = of_size.map(|set| (set, count(set))).collect();
        total = of_size
            .iter()
            .fold(total, |total, (_, count)| total.saturating_add(*count));
        if total > limit {
            break;
        }
        sets.extend(of_size.into_iter().filter(|(_, count)| *count > 0));
        depth = Some(size);
    }
    depth.map(|depth| (sets, depth))
}

fn simple_count(ops: usize) -> u64 {
    (3 * ops as u64).saturating_sub(1).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::fault::contents::Patch;
    use crate::storage::fault::op::FileId;
    use crate::storage::fault::tear;
    use std::collections::HashSet;

    fn torn(counts: &[usize]) -> Vec<Vec<Landing>> {
        let kinds = [
            tear::torn(&write(8, 0), false, 1),
            tear::torn(&write(100, 1 << 20), false, 2),
        ]
        .concat();
        counts
            .iter()
            .map(|&count| kinds[..count].to_vec())
            .collect()
    }

    fn write(sectors: u64, len_before: u64) -> Effect {
        Effect::Write {
            file: FileId(1),
            patch: Patch::hole(0..sectors * 512),
            len_before,
        }
    }

    fn all(plan: &Plan) -> HashSet<String> {
        let number = |number| {
            let none = std::iter::empty();
            format!(
                "{:?}",
                plan.landings(number, none, &mut Numbers::new(number))
            )
        };
        (0..plan.states()).map(number).collect()
    }

    #[test]
    fn few_operations_get_every_combination_once() {
        let plan = Plan::new(torn(&[3, 0, 5]), 7, 10_000, 0);
        assert_eq!(plan.states(), 5 * 2 * 7);
        assert_eq!(all(&plan).len(), 5 * 2 * 7);
        assert!(plan.tries_every_subset());
    }

    #[test]
    fn a_low_limit_keeps_every_subset_and_single_tears_first() {
        let plan = Plan::new(torn(&[3; 5]), 7, 400, 0);
        assert_eq!(plan.states(), 32 + 5 * 3 * 16);
        assert_eq!(all(&plan).len() as u64, plan.states());
        assert!(plan.tries_every_subset());
        assert!(!Plan::new(torn(&[3; 5]), 7, 40, 0).tries_every_subset());
    }

    #[test]
    fn many_operations_get_prefixes_and_single_losses_within_the_limit() {
        let plan = Plan::new(torn(&[2; 30]), 7, 1000, 0);
        assert_eq!(plan.states(), 31 + 29 + 29);
        assert_eq!(all(&plan).len() as u64, plan.states());
        assert!(Plan::new(torn(&[2; 3000]), 7, 100, 1000).states() <= 100);
    }

    #[test]
    fn nothing_pending_is_one_state() {
        assert_eq!(Plan::new(Vec::new(), 7, 100, 50).states(), 1);
    }
}
