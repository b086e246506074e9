//! Every state that a crash may leave, one after another.

use std::fmt;
use std::sync::Arc;

use super::disk::FaultDisk;
use super::landing::Landing;
use super::log::Log;
use super::noise::{Numbers, Residue, mix};
use super::op::{Op, OpKind};
use super::order::Violation;
use super::plan::Plan;
use super::replay::{Hold, Replay};
use super::tear::torn;

/// The states that a crash may leave of what a log did.
///
/// Cuts are made where they matter: before every sync that makes something durable, before every
/// note, and at the end. What a crash at any other moment may leave is among the states of the
/// next cut.
///
/// At a cut with few pending operations (up to seven, see
/// [`with_exhaustive_ops`](Crashes::with_exhaustive_ops)) every subset of them is tried, each with
/// as many torn operations at once as the limit admits, and beyond that a seeded sample. At a cut
/// with more, states in which a prefix landed, or all but one, or only one, and a seeded sample.
#[derive(Debug, Clone)]
pub struct Crashes {
    log: Log,
    seed: u64,
    residue: Residue,
    limit: u64,
    samples: u64,
    exhaustive_ops: usize,
}

impl Crashes {
    /// The crashes of what `log` did.
    pub fn of(log: Log) -> Self {
        Crashes {
            log,
            seed: 1,
            residue: Residue::new(1),
            limit: 8192,
            samples: 256,
            exhaustive_ops: 7,
        }
    }

    /// Replaces the seed (1) that garbage and samples follow from. Crashes of a recovery should
    /// have another seed than the crash they recover from, so that its garbage is new.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self.residue = Residue::new(seed);
        self
    }

    /// Replaces the limit (8192) of states at one cut.
    #[must_use]
    pub fn with_limit(mut self, states: u64) -> Self {
        self.limit = states;
        self
    }

    /// Replaces the count (256) of sampled states at one cut, where not all are tried.
    #[must_use]
    pub fn with_samples(mut self, states: u64) -> Self {
        self.samples = states;
        self
    }

    /// Replaces the count (7) of pending operations up to which every subset is tried; 20 at
    /// most.
    #[must_use]
    pub fn with_exhaustive_ops(mut self, count: usize) -> Self {
        self.exhaustive_ops = count.min(20);
        self
    }

    /// Where cuts matter: counts of operations done before them.
    pub fn cuts(&self) -> Vec<usize> {
        self.replays().map(|(cut, _)| cut).collect()
    }

    /// All states at all cuts that matter.
    pub fn states(&self) -> impl Iterator<Item = CrashState> + '_ {
        let cuts = self
            .replays()
            .map(|(cut, replay)| self.prepare(cut, replay));
        cuts.flat_map(|cut| (0..cut.plan.states()).map(move |number| cut.state(number)))
    }

    /// All states of a crash after the first `cut` operations, whether that cut matters or not.
    pub fn states_at(&self, cut: usize) -> impl Iterator<Item = CrashState> + '_ {
        let cut = self.prepare_at(cut);
        (0..cut.plan.states()).map(move |number| cut.state(number))
    }

    /// One state again, by the numbers that a report of it names.
    pub fn state(&self, cut: usize, number: u64) -> CrashState {
        self.prepare_at(cut).state(number)
    }

    /// `count` states thrown by the seed, over all cuts that matter.
    pub fn sample(&self, count: usize) -> impl Iterator<Item = CrashState> + '_ {
        let cuts: Vec<_> = self
            .replays()
            .map(|(cut, replay)| self.prepare(cut, replay))
            .collect();
        let mut numbers = Numbers::new(self.seed ^ 0x0073_616d_706c);
        (0..count).filter_map(move |_| {
            let at = numbers.below(cuts.len() as u64);
            let cut = cuts.get(usize::try_from(at).ok()?)?;
            // Beyond the plan every number is one more throw.
            Some(cut.state(cut.plan.states().saturating_add(numbers.next() >> 1)))
        })
    }

    /// How much [`states`](Crashes::states) covers.
    pub fn coverage(&self) -> Coverage {
        let mut coverage = Coverage::default();
        for (cut, replay) in self.replays() {
            let cut = self.prepare(cut, replay);
            coverage.cuts += 1;
            coverage.exhaustive_cuts += u64::from(cut.plan.tries_every_subset());
            coverage.states += cut.plan.states();
            coverage.most_pending = coverage.most_pending.max(cut.plan.ops());
        }
        coverage
    }

    /// Runs `check` on every state.
    ///
    /// # Errors
    /// The first violation, which names the state.
    pub fn check<E: fmt::Display>(
        &self,
        mut check: impl FnMut(&CrashState) -> Result<(), E>,
    ) -> Result<Coverage, Violation> {
        for state in self.states() {
            check(&state).map_err(|what| Violation::new(format!("{what}\n  after {state}")))?;
        }
        Ok(self.coverage())
    }

    /// The cuts that matter, and what is durable and pending at each.
    fn replays(&self) -> impl Iterator<Item = (usize, Replay)> + '_ {
        let mut replay = Replay::new(&self.log);
        let ops = self.log.ops.iter().map(Some).chain([None]).enumerate();
        ops.filter_map(move |(cut, op)| {
            let matters = op.is_none_or(|op| op.kind == OpKind::Note || replay.narrows(op));
            let before = matters.then(|| (cut, replay.clone()));
            if let Some(op) = op {
                replay.step(op);
            }
            before
        })
    }

    fn prepare_at(&self, cut: usize) -> Cut<'_> {
        let mut replay = Replay::new(&self.log);
        self.log.ops.iter().take(cut).for_each(|op| replay.step(op));
        self.prepare(cut, replay)
    }

    fn prepare(&self, cut: usize, replay: Replay) -> Cut<'_> {
        let residue = self.residue.with_stale(replay.stale());
        let open = replay
            .pending
            .iter()
            .filter(|pending| pending.hold != Hold::Sure);
        let ways = open.map(|pending| {
            let seed = mix(self.seed ^ mix(pending.op.number as u64));
            torn(&pending.op.effect, residue.stale.is_some(), seed)
        });
        let plan = Plan::new(
            ways.collect(),
            self.exhaustive_ops,
            self.limit,
            self.samples,
        );
        Cut {
            crashes: self,
            cut,
            replay,
            residue,
            plan,
        }
    }
}

impl FaultDisk {
    /// The states that a crash may leave of what was done since the disk was last made durable.
    pub fn crashes(&self) -> Crashes {
        Crashes::of(self.log())
    }
}

/// A disk as a crash may have left it.
#[derive(Debug)]
pub struct CrashState {
    disk: FaultDisk,
    cut: usize,
    number: u64,
    before: Option<Arc<Op>>,
    landings: Vec<(Arc<Op>, Landing)>,
    notes: Vec<Arc<Op>>,
}

impl CrashState {
    /// The disk after the restart: sound, all of it durable, with an empty log.
    pub fn disk(&self) -> &FaultDisk {
        &self.disk
    }

    /// How many operations were done before the crash.
    pub fn cut(&self) -> usize {
        self.cut
    }

    /// Its number among the states of its cut, for [`Crashes::state`].
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Whether a note with this text was written before the crash.
    pub fn noted(&self, text: &str) -> bool {
        self.notes.iter().any(|op| op.note() == Some(text))
    }
}

impl fmt::Display for CrashState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "crash state {} at cut {}", self.number, self.cut)?;
        match &self.before {
            Some(op) => write!(f, ", before {op}")?,
            None => f.write_str(", at the end")?,
        }
        for (op, landing) in &self.landings {
            write!(f, "\n    {op}: {landing}")?;
        }
        Ok(())
    }
}

/// How much an enumeration covers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Coverage {
    /// Cuts that matter.
    pub cuts: u64,
    /// Cuts at which every subset of the pending operations is tried, and each of them torn in
    /// every way that the harness knows, against every subset of the others.
    pub exhaustive_cuts: u64,
    /// States.
    pub states: u64,
    /// Most operations pending at one cut.
    pub most_pending: usize,
}

struct Cut<'a> {
    crashes: &'a Crashes,
    cut: usize,
    replay: Replay,
    residue: Residue,
    plan: Plan,
}

impl Cut<'_> {
    fn state(&self, number: u64) -> CrashState {
        let Crashes { log, seed, .. } = self.crashes;
        let mut state = self.replay.durable.clone();
        let seed = mix(seed ^ mix(self.cut as u64) ^ mix(!number));
        let effects = self
            .replay
            .pending
            .iter()
            .filter(|pending| pending.hold != Hold::Sure);
        let effects = effects.map(|pending| &pending.op.effect);
        let chosen = self.plan.landings(number, effects, &mut Numbers::new(seed));
        let mut next = chosen.iter();
        let mut landings = Vec::with_capacity(chosen.len());
        for pending in &self.replay.pending {
            let landing = match pending.hold {
                Hold::Sure => Landing::WHOLE,
                _ => next.next().copied().unwrap_or(Landing::WHOLE),
            };
            state.apply(&pending.op, &landing, &self.residue);
            landings.push((pending.op.clone(), landing));
        }
        state.restart();
        let done = &log.ops[..self.cut.min(log.ops.len())];
        let notes = done.iter().filter(|op| op.kind == OpKind::Note).cloned();
        CrashState {
            disk: FaultDisk::holding(state, log.next_file),
            cut: self.cut,
            number,
            before: log.ops.get(self.cut).cloned(),
            landings,
            notes: notes.collect(),
        }
    }
}
