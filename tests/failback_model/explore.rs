//! Walks through models: all of them within bounds, or long random ones.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write;
use std::hash::{Hash, Hasher};

use diskdelta::failback::machine::JobPhase;

use crate::model::{Kind, Model, Move, Setup};

/// What an exploration found.
pub struct Explored {
    pub states: usize,
    pub moves: usize,
    pub violation: Option<Violation>,
    /// All states within the bounds were seen.
    pub complete: bool,
}

pub struct Violation {
    pub rule: &'static str,
    /// How to get there.
    pub path: String,
}

/// Looks at all models that can come about, nearest first, up to about `limit` of them.
pub fn exhaust(setup: &Setup, limit: usize) -> Explored {
    let start = Model::new(setup);
    let mut seen: HashMap<u128, u32> = HashMap::new();
    let mut from: Vec<(u32, Move)> = vec![(0, Move::RetryDue)];
    let mut calm: Vec<(u32, u32)> = Vec::new();
    let mut runs: Vec<bool> = vec![start.somebody_runs()];
    seen.insert(fingerprint(setup, &start), 0);
    let mut frontier = vec![(0u32, start)];
    let mut moves = 0;
    while !frontier.is_empty() && from.len() <= limit {
        let mut next_frontier = Vec::new();
        for (id, model) in frontier {
            for happens in model.moves(setup) {
                let Some(next) = model.after(setup, happens) else {
                    continue;
                };
                moves += 1;
                let count = u32::try_from(from.len()).unwrap();
                let to = *seen.entry(fingerprint(setup, &next)).or_insert(count);
                if happens.is_calm() && !runs[id as usize] {
                    calm.push((to, id));
                }
                if to < count {
                    continue;
                }
                from.push((id, happens));
                runs.push(next.somebody_runs());
                if let Some(rule) = next.violation(setup) {
                    let path = path(setup, &from, to);
                    return found(from.len(), moves, Violation { rule, path });
                }
                next_frontier.push((to, next));
            }
        }
        frontier = next_frontier;
    }
    // Where nobody has looked any further, nothing is known to be stuck.
    frontier
        .iter()
        .for_each(|(id, _)| runs[*id as usize] = true);
    if let Some(stuck) = stuck(&runs, calm) {
        let rule = STUCK;
        let path = path(setup, &from, stuck);
        return found(from.len(), moves, Violation { rule, path });
    }
    Explored {
        states: from.len(),
        moves,
        violation: None,
        complete: frontier.is_empty(),
    }
}

/// Random walks from the beginning, one for each seed, until a rule is broken.
pub fn hunt(setup: &Setup, seeds: std::ops::Range<u64>, length: usize) -> Option<(u64, Violation)> {
    seeds
        .into_iter()
        .find_map(|seed| Some((seed, walk(setup, seed, length).err()?)))
}

/// One long random walk from the beginning; gives the phases it came through.
pub fn walk(setup: &Setup, seed: u64, length: usize) -> Result<BTreeSet<&'static str>, Violation> {
    let mut random = Random::new(seed);
    let mut model = Model::new(setup);
    let mut path = Vec::new();
    let mut phases = BTreeSet::new();
    for _ in 0..length {
        let mut moves = model.moves(setup);
        // Faults are many, and going back is always possible; without a bias a walk never gets far.
        let wanted = match random.below(100) {
            0..60 => Kind::Work,
            60..85 => Kind::Forward,
            85..87 => Kind::Back,
            _ => Kind::Fault,
        };
        moves.retain(|happens| happens.kind() == wanted);
        let possible = std::iter::from_fn(|| match moves.len() {
            0 => None,
            left => Some(moves.swap_remove(random.below(left))),
        })
        .find_map(|happens| Some((happens, model.after(setup, happens)?)));
        let Some((happens, next)) = possible else {
            continue;
        };
        path.push((next.state.phase, happens));
        model = next;
        phases.insert(model.state.phase.name());
        if model.state.phase.is_final() && random.below(30) == 0 {
            break;
        }
        if let Some(rule) = model.violation(setup) {
            return Err(walked(rule, &path));
        }
    }
    match can_run(setup, model, &mut random) {
        true => Ok(phases),
        false => Err(walked(STUCK, &path)),
    }
}

/// Whether some side runs once nothing goes wrong any more.
fn can_run(setup: &Setup, mut model: Model, random: &mut Random) -> bool {
    for _ in 0..CALM_MOVES {
        if model.somebody_runs() {
            return true;
        }
        let mut moves = model.moves(setup);
        // Who gives up or takes over begins again; a blind walk would hardly ever arrive.
        moves.retain(|happens| happens.is_calm() && !happens.is_relapse());
        if moves.is_empty() {
            return false;
        }
        let happens = moves.swap_remove(random.below(moves.len()));
        model = model.after(setup, happens).unwrap_or(model);
    }
    false
}

fn walked(rule: &'static str, path: &[(JobPhase, Move)]) -> Violation {
    let mut text = String::new();
    for (phase, happens) in path {
        let _ = writeln!(text, "{:>20}  {happens:?}", phase.name());
    }
    Violation { rule, path: text }
}

/// A state from which no calm moves lead to one where a side runs.
fn stuck(runs: &[bool], mut calm: Vec<(u32, u32)>) -> Option<u32> {
    calm.sort_unstable();
    let mut fine = runs.to_vec();
    let mut work: Vec<u32> = (0..runs.len() as u32)
        .filter(|id| runs[*id as usize])
        .collect();
    while let Some(id) = work.pop() {
        let begin = calm.partition_point(|(to, _)| *to < id);
        for (_, before) in calm[begin..].iter().take_while(|(to, _)| *to == id) {
            if !std::mem::replace(&mut fine[*before as usize], true) {
                work.push(*before);
            }
        }
    }
    fine.iter().position(|fine| !fine).map(|id| id as u32)
}

fn found(states: usize, moves: usize, violation: Violation) -> Explored {
    Explored {
        states,
        moves,
        violation: Some(violation),
        complete: false,
    }
}

fn path(setup: &Setup, from: &[(u32, Move)], mut id: u32) -> String {
    let mut moves = Vec::new();
    while id != 0 {
        let (before, happens) = from[id as usize];
        moves.push(happens);
        id = before;
    }
    let mut model = Model::new(setup);
    let mut text = String::new();
    for happens in moves.into_iter().rev() {
        // Tokens of a path are those of the model it was found in, number by number.
        if let Some(next) = model.after(setup, happens) {
            model = next;
        }
        let _ = writeln!(text, "{:>20}  {happens:?}", model.state.phase.name());
    }
    text
}

fn fingerprint(setup: &Setup, model: &Model) -> u128 {
    let mut lanes = Lanes(0x9e37_79b9_7f4a_7c15, 0xc2b2_ae3d_27d4_eb4f);
    model.canonical(setup).hash(&mut lanes);
    u128::from(lanes.finish()) << 64 | u128::from(lanes.1)
}

/// Two 64-bit hashes at once, so that two different models among millions do not look the same.
struct Lanes(u64, u64);

impl Hasher for Lanes {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        let mix = |lane: u64, by: u64| {
            let mixed = u128::from(lane ^ word) * u128::from(by);
            (mixed as u64 ^ (mixed >> 64) as u64).rotate_left(23)
        };
        *self = Lanes(
            mix(self.0, 0xa076_1d64_78bd_642f) ^ 0x1337,
            mix(self.1.wrapping_add(word), 0xe703_7ed1_a0b4_28db) ^ 0x7331,
        );
    }

    fn write_u8(&mut self, byte: u8) {
        self.write_u64(u64::from(byte));
    }

    fn write_isize(&mut self, word: isize) {
        self.write_u64(word as u64);
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }
}

/// Random numbers that are the same everywhere (xorshift64*).
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let value = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        value as usize % bound
    }
}

const STUCK: &str = "L1: no side can run again";
/// Very many more than it takes, as moves are chosen blindly.
const CALM_MOVES: usize = 5_000;
