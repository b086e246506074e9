//! Two ends of a descent, and a line between them that a rng rules.

use std::collections::VecDeque;
use std::sync::Mutex;

use diskdelta::diff::{CompareReport, Difference};
use diskdelta::image::Image;
use diskdelta::remote::{
    Capacity, Endpoint, FrameDecoder, FrameEncoder, Keys, Known, Message, Output, SourcePeer,
    SourceWorker, TargetPeer, TargetWorker, View, Visit, Windows, Worker,
};
use diskdelta::{Error, Result};

use crate::disks::next_random;

/// What the line does to frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing but what is to come is lost.
    Cut,
    /// A frame comes twice.
    Twice,
    /// A frame overtakes the one before it.
    Late,
    /// A bit flips.
    Flip,
    /// A frame is lost.
    Lost,
}

/// How one run goes.
pub struct Plan<'a> {
    pub seed: u64,
    pub windows: Windows,
    pub hash_len: usize,
    /// What happens to which frame, counted over both directions.
    pub fault: Option<(u64, Fault)>,
    /// Changes messages of the source, or of the target, before they are framed.
    pub lie: Option<(Side, &'a Lie<'a>)>,
    /// What stands for reading the source, and the target.
    pub known: [Option<Known>; 2],
    pub counts_only: bool,
    /// Whether what the source cannot read is passed over.
    pub skips: bool,
}

pub type Lie<'a> = dyn Fn(&mut Message) + 'a;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Source,
    Target,
}

impl Plan<'_> {
    pub fn new(seed: u64, disk_len: u64) -> Self {
        Plan {
            seed,
            windows: Windows::whole(disk_len),
            hash_len: 5,
            fault: None,
            lie: None,
            known: [None, None],
            counts_only: false,
            skips: false,
        }
    }
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// Of the end with the target.
    pub target: Result<CompareReport>,
    /// Of the end with the source.
    pub source: Result<()>,
    /// The root that the source told.
    pub root: Option<[u8; 32]>,
    pub bytes: u64,
    pub steps: u64,
}

/// Runs both ends until they are finished, or nothing can happen any more.
pub fn run(source: &dyn Image, target: &dyn Image, visit: &Visit<'_>, plan: &Plan<'_>) -> Outcome {
    let [of_source, of_target] = plan.known.clone();
    let source = View::new(source, plan.windows.clone())
        .with_known(of_source)
        .with_skips(plan.skips);
    let target = View::new(target, plan.windows.clone()).with_known(of_target);
    let keys = Keys::new(&[7; 32], plan.seed, plan.hash_len);
    let mut rng = plan.seed;
    let line = Line {
        plan,
        frames: 0,
        bytes: 0,
        is_cut: false,
        root: None,
    };
    let line = Mutex::new(line);
    let source_worker = SourceWorker::new(&source, keys.clone(), plan.seed.is_multiple_of(2))
        .with_counts_only(plan.counts_only);
    let target_worker =
        TargetWorker::new(&target, keys.clone(), visit).with_counts_only(plan.counts_only);
    let mut one = Player::new(
        SourcePeer::new(&source, keys.clone()).unwrap(),
        source_worker,
    );
    let mut other = Player::new(
        TargetPeer::new(&target, keys)
            .unwrap()
            .with_counts_only(plan.counts_only)
            .with_skips(plan.skips),
        target_worker,
    );
    let mut steps = 0;
    // An end that has failed says nothing more; the other one then waits in vain.
    loop {
        let moves = [one.can_move(&other.outgoing), other.can_move(&one.outgoing)];
        steps += 1;
        let which = match moves {
            [true, true] => next_random(&mut rng) % 2,
            [true, false] => 0,
            [false, true] => 1,
            [false, false] => break,
        };
        assert!(steps < 1_000_000, "they go on for ever, seed {}", plan.seed);
        // Who has failed reads nothing more, which the line takes in.
        one.is_heard = other.failed.is_none();
        other.is_heard = one.failed.is_none();
        match which {
            0 => one.play(&mut other.outgoing, Side::Source, &line, plan, &mut rng),
            _ => other.play(&mut one.outgoing, Side::Target, &line, plan, &mut rng),
        }
    }
    let line = line.into_inner().unwrap();
    let stuck = || Error::new(diskdelta::ErrorKind::Io, "nothing comes any more");
    let source = match one.failed {
        Some(error) => Err(error),
        None if one.end.is_finished() => Ok(()),
        None => Err(stuck()),
    };
    let target = match other.failed {
        Some(error) => Err(error),
        None if other.end.is_finished() => other.end.report(),
        None => Err(stuck()),
    };
    Outcome {
        target,
        source,
        root: line.root,
        bytes: line.bytes,
        steps,
    }
}

/// As [`run`], with all differences dropped.
pub fn run_dry(source: &dyn Image, target: &dyn Image, plan: &Plan<'_>) -> Outcome {
    run(source, target, &|_: Difference<'_>| Ok(()), plan)
}

struct Line<'a> {
    plan: &'a Plan<'a>,
    frames: u64,
    bytes: u64,
    is_cut: bool,
    root: Option<[u8; 32]>,
}

struct Player<E: Endpoint, W> {
    end: E,
    worker: W,
    running: Vec<E::Task>,
    encoder: FrameEncoder,
    decoder: FrameDecoder,
    outgoing: VecDeque<Vec<u8>>,
    /// It was asked for a step and had none, and nothing has happened since.
    is_idle: bool,
    is_heard: bool,
    failed: Option<Error>,
}

impl<E: Endpoint, W: Worker<Task = E::Task, Completion = E::Completion>> Player<E, W> {
    fn new(end: E, worker: W) -> Self {
        Player {
            end,
            worker,
            running: Vec::new(),
            encoder: FrameEncoder::default(),
            decoder: FrameDecoder::default(),
            outgoing: VecDeque::new(),
            is_idle: false,
            is_heard: true,
            failed: None,
        }
    }

    fn can_move(&self, incoming: &VecDeque<Vec<u8>>) -> bool {
        let work = !self.is_idle || !self.running.is_empty() || !incoming.is_empty();
        self.failed.is_none() && work
    }

    fn play(
        &mut self,
        incoming: &mut VecDeque<Vec<u8>>,
        side: Side,
        line: &Mutex<Line<'_>>,
        plan: &Plan<'_>,
        rng: &mut u64,
    ) {
        let moved = self.try_play(incoming, side, line, plan, rng);
        if let Err(error) = moved {
            self.failed = Some(error);
        }
    }

    fn try_play(
        &mut self,
        incoming: &mut VecDeque<Vec<u8>>,
        side: Side,
        line: &Mutex<Line<'_>>,
        plan: &Plan<'_>,
        rng: &mut u64,
    ) -> Result<()> {
        let roll = next_random(rng);
        if roll.is_multiple_of(3) && !self.running.is_empty() {
            let index = (roll >> 8) as usize % self.running.len();
            let task = self.running.swap_remove(index);
            self.is_idle = false;
            let done = self.worker.perform(task)?;
            return self.end.complete(done);
        }
        if roll % 3 == 1
            && let Some(bytes) = incoming.pop_front()
        {
            self.is_idle = false;
            let mut bytes = &bytes[..];
            while !bytes.is_empty() {
                if let Some(frame) = self.decoder.decode(&mut bytes)? {
                    self.end.receive(Message::decode(&frame, plan.hash_len)?)?;
                }
            }
            return Ok(());
        }
        let capacity = Capacity {
            tasks: self.running.len() < 4,
            line: self.outgoing.len() < 3 || !self.is_heard,
        };
        match self.end.next_output(capacity)? {
            Some(Output::Send(message)) => self.send(message, side, &mut line.lock().unwrap(), rng),
            Some(Output::Run(task)) => self.running.push(task),
            // With other room there may be something.
            None => self.is_idle = capacity.tasks && capacity.line,
        }
        Ok(())
    }

    fn send(&mut self, mut message: Message, side: Side, line: &mut Line<'_>, rng: &mut u64) {
        if let Some((liar, lie)) = &line.plan.lie
            && *liar == side
        {
            lie(&mut message);
        }
        if let Message::Root(root) = &message {
            line.root = Some(*root);
        }
        let frame = message.encode();
        let mut bytes = Vec::new();
        self.encoder
            .encode(frame.kind, &frame.payload, &mut bytes)
            .unwrap();
        line.bytes += bytes.len() as u64;
        let number = line.frames;
        line.frames += 1;
        let fault = line.plan.fault.filter(|(at, _)| *at == number);
        if line.is_cut {
            return;
        }
        match fault.map(|(_, fault)| fault) {
            None => self.outgoing.push_back(bytes),
            Some(Fault::Cut) => {
                line.is_cut = true;
                bytes.truncate(next_random(rng) as usize % bytes.len());
                self.outgoing.push_back(bytes);
            }
            Some(Fault::Lost) => {}
            Some(Fault::Twice) => {
                self.outgoing.push_back(bytes.clone());
                self.outgoing.push_back(bytes);
            }
            Some(Fault::Late) => {
                let before = self.outgoing.pop_back();
                self.outgoing.push_back(bytes);
                self.outgoing.extend(before);
            }
            Some(Fault::Flip) => {
                let bit = next_random(rng) as usize % (bytes.len() * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
                self.outgoing.push_back(bytes);
            }
        }
    }
}
