//! Syncs across hosts: what comes over the line, and ends that lie.

use std::collections::VecDeque;
use std::sync::Arc;

use diskdelta::Hash;
use diskdelta::diff::{Content, Difference};
use diskdelta::image::{Image, ImageMut, Raw};
use diskdelta::manifest::{Manifest, ManifestWriter};
use diskdelta::remote::{
    Capacity, Endpoint, FrameDecoder, FrameEncoder, Keys, Known, Message, Output, SourcePeer,
    SourceWorker, TargetPeer, TargetWorker, TreePeer, View, Windows, Worker, children_of,
};
use diskdelta::storage::MemoryStorage;
use diskdelta::{BlockSize, ErrorKind, Limits, Result, manifest};

use super::super::input::Input;
use super::super::meter::{bound, within};
use super::super::{Depth, work};

/// Bytes of a line: as they come, or frames that a program makes and damages.
pub fn frames(data: &[u8]) -> Depth {
    let mut input = Input(data);
    let (bytes, cut) = match input.u8() % 4 {
        0 => (input.0.to_vec(), 64),
        _ => framed(&mut input),
    };
    within(bound(bytes.len() as u64), || decode(&bytes, cut))
}

/// The end with the source, and one with a target whose messages a program changes.
pub fn source(data: &[u8]) -> Depth {
    within(bound(8 * LEN_MOST), || meet(data, Liar::Target))
}

/// The end with the target, and one with a source whose messages a program changes.
pub fn target(data: &[u8]) -> Depth {
    within(bound(8 * LEN_MOST), || match data.last() {
        Some(how) if how % 4 == 3 => descend(&mut Input(data)),
        _ => meet(data, Liar::Source),
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Liar {
    Source,
    Target,
}

fn framed(input: &mut Input<'_>) -> (Vec<u8>, usize) {
    let mut encoder = FrameEncoder::default();
    let mut bytes = Vec::new();
    let cut = 1 + input.below(100) as usize;
    while !input.is_empty() {
        let kind = input.pick(&KINDS);
        let len = input.below(80) as usize;
        encoder.encode(kind, input.bytes(len), &mut bytes).unwrap();
        if input.one_in(16) {
            let at = input.below(bytes.len() as u64) as usize;
            bytes[at] = input.u8();
        }
    }
    (bytes, cut)
}

fn decode(bytes: &[u8], cut: usize) -> Depth {
    let mut decoder = FrameDecoder::default();
    let mut depth = Depth::Refused;
    for mut piece in bytes.chunks(cut) {
        while !piece.is_empty() {
            let frame = match decoder.decode(&mut piece) {
                Ok(frame) => frame,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Malformed);
                    assert!(
                        decoder.decode(&mut &[0][..]).is_err(),
                        "goes on after an error"
                    );
                    return depth;
                }
            };
            let Some(frame) = frame else { continue };
            for hash_len in [1, 5, 16] {
                let Ok(message) = Message::decode(&frame, hash_len) else {
                    continue;
                };
                let again = Message::decode(&message.encode(), hash_len).unwrap();
                assert!(message == again, "said again it means something else");
                depth = Depth::Taken;
            }
        }
    }
    depth
}

fn meet(data: &[u8], liar: Liar) -> Depth {
    let mut input = Input(data);
    let len = 1 + input.below(LEN_MOST);
    let (source, target) = (disk(&mut input, len), disk(&mut input, len));
    let keys = Keys::new(&[3; 32], 1, 5);
    // The last byte says what stands in for reading; what the rest of a program means stays.
    let how = data.last().copied().unwrap_or(0);
    let known = |disk: &Raw, bit: u8| {
        let manifest = manifest::build(disk, BlockSize::default(), work()).unwrap();
        Known::whole(&manifest, len).filter(|_| how & bit != 0)
    };
    let counts_only = how & 0x40 != 0;
    let skips = how & 0x80 != 0;
    let source_view = View::new(&source, Windows::whole(len))
        .with_known(known(&source, 0x10))
        .with_skips(skips);
    let target_view = View::new(&target, Windows::whole(len)).with_known(known(&target, 0x20));
    let visit = |difference: Difference<'_>| match difference.new {
        Content::Bytes(bytes) => target.write_all_at(bytes, difference.offset),
        Content::Zeros(_) => target.write_zeroes_at(difference.range()),
    };
    let mut one = Player::new(
        SourcePeer::new(&source_view, keys.clone()).unwrap(),
        SourceWorker::new(&source_view, keys.clone(), true).with_counts_only(counts_only),
    );
    let mut other = Player::new(
        TargetPeer::new(&target_view, keys.clone())
            .unwrap()
            .with_counts_only(counts_only)
            .with_skips(skips),
        TargetWorker::new(&target_view, keys, &visit).with_counts_only(counts_only),
    );
    let mut root = None;
    loop {
        let before = (one.moves, other.moves);
        let from_source = one.play();
        let from_target = other.play();
        for message in from_source {
            let told = tampered(message, liar == Liar::Source, &mut input);
            for message in &told {
                if let Message::Root(it) = message {
                    root = Some(*it);
                }
            }
            other.incoming.extend(told);
        }
        for message in from_target {
            one.incoming
                .extend(tampered(message, liar == Liar::Target, &mut input));
        }
        if before == (one.moves, other.moves) {
            break;
        }
    }
    match liar {
        Liar::Target => one.depth(),
        Liar::Source => {
            let depth = other.depth();
            let report = (depth == Depth::Taken).then(|| other.end.report());
            // A source that says that it cannot read something is trusted.
            if let Some(Ok(report)) = report
                && !counts_only
                && report.unreadable.is_empty()
            {
                let now = manifest::root_of(&target, BlockSize::default(), work()).unwrap();
                assert_eq!(root, Some(*now.as_bytes()), "a wrong target counts as done");
            }
            depth
        }
    }
}

/// A target's end that goes down its manifest's tree, and a source that lies about its own.
fn descend(input: &mut Input<'_>) -> Depth {
    let len = 1 + input.below(1 << 42);
    let (source, target) = (tree(input, len), tree(input, len));
    let keys = Keys::new(&[3; 32], 1, 16);
    let mut end = TreePeer::new(&target, keys.clone());
    let mut told = VecDeque::new();
    loop {
        while let Some(Message::Nodes(nodes)) = end.next_output() {
            // A node of the target's may be none of the source's, but never beyond its disk.
            let children = children_of(&source, &keys, &nodes).unwrap();
            told.extend(tampered(Message::NodesAre(children), true, input));
        }
        let Some(message) = told.pop_front() else {
            break;
        };
        if end.receive(message).is_err() {
            return Depth::Refused;
        }
    }
    if !end.is_finished() {
        return Depth::Refused;
    }
    let mut differing = end.into_differing();
    differing.sort_unstable_by_key(|range| range.start);
    assert!(Windows::of(&differing, len).is_ok(), "{differing:?}");
    Depth::Taken
}

/// A manifest with few blocks, some of which any two share.
fn tree(input: &mut Input<'_>, len: u64) -> Manifest {
    let storage = Arc::new(MemoryStorage::new("manifest", Vec::new()));
    let block_size = BlockSize::default();
    let mut writer = ManifestWriter::create(storage.clone(), len, block_size).unwrap();
    let count = block_size.count(len);
    let mut block = 0;
    for _ in 0..input.below(12) {
        block += match input.one_in(2) {
            true => input.below(4),
            false => input.below(count),
        };
        if block >= count {
            break;
        }
        let hash = Hash::from_bytes([input.u8() % 2; 32]);
        writer.push(block, &hash).unwrap();
        block += 1;
    }
    writer.finish().unwrap();
    Manifest::from_storage(storage, &Limits::default()).unwrap()
}

struct Player<E, W> {
    end: E,
    worker: W,
    incoming: VecDeque<Message>,
    moves: u64,
    failed: bool,
}

impl<E: Endpoint, W: Worker<Task = E::Task, Completion = E::Completion>> Player<E, W> {
    fn new(end: E, worker: W) -> Self {
        Player {
            end,
            worker,
            incoming: VecDeque::new(),
            moves: 0,
            failed: false,
        }
    }

    /// Takes what has come, and does all there is to do.
    fn play(&mut self) -> Vec<Message> {
        let mut told = Vec::new();
        if !self.failed && self.try_play(&mut told).is_err() {
            self.failed = true;
        }
        told
    }

    fn try_play(&mut self, told: &mut Vec<Message>) -> Result<()> {
        let capacity = Capacity {
            tasks: true,
            line: true,
        };
        loop {
            while let Some(step) = self.end.next_output(capacity)? {
                self.moves += 1;
                match step {
                    Output::Send(message) => told.push(message),
                    Output::Run(task) => self.end.complete(self.worker.perform(task)?)?,
                }
            }
            match self.incoming.pop_front() {
                Some(message) => {
                    self.moves += 1;
                    self.end.receive(message)?;
                }
                None => return Ok(()),
            }
        }
    }

    fn depth(&self) -> Depth {
        match !self.failed && self.end.is_finished() {
            true => Depth::Taken,
            false => Depth::Refused,
        }
    }
}

/// What a liar makes of a message: others, it twice, another one as well, nothing.
fn tampered(message: Message, lies: bool, input: &mut Input<'_>) -> Vec<Message> {
    if !lies || !input.one_in(3) {
        return vec![message];
    }
    match input.u8() % 8 {
        0 => Vec::new(),
        1 => vec![message.clone(), message],
        2 => {
            let kind = input.pick(&KINDS);
            let len = input.below(80) as usize;
            let payload = input.bytes(len).to_vec();
            let other = Message::decode(&diskdelta::remote::WireFrame { kind, payload }, 5);
            other.into_iter().chain([message]).collect()
        }
        _ => {
            let mut frame = message.encode();
            for _ in 0..1 + input.below(3) {
                let at = input.below(frame.payload.len().max(1) as u64) as usize;
                match (input.u8() % 4, frame.payload.get_mut(at)) {
                    (0, _) => frame.payload.truncate(at),
                    (1, Some(byte)) => *byte ^= 1 << (input.u8() % 8),
                    (2, Some(byte)) => *byte = input.u8(),
                    (_, Some(_)) => frame.payload.insert(at, input.u8()),
                    (_, None) => {}
                }
            }
            Message::decode(&frame, 5).into_iter().collect()
        }
    }
}

/// A disk with some pages, of a few kinds so that two disks share some.
fn disk(input: &mut Input<'_>, len: u64) -> Raw {
    let mut bytes = vec![0; len as usize];
    for _ in 0..input.below(12) {
        let first = input.below(len.div_ceil(4096)) as usize;
        let (count, kind) = (1 + input.below(20) as usize, input.u8() % 4);
        for page in bytes.chunks_mut(4096).skip(first).take(count) {
            page.fill(kind);
        }
    }
    let raw = Raw::open(Arc::new(MemoryStorage::new("disk", bytes))).unwrap();
    assert_eq!(raw.disk_len(), len);
    raw
}

const LEN_MOST: u64 = 300 << 10;
const KINDS: [u8; 23] = [
    1, 2, 3, 4, 5, 6, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 32, 33, 34, 35, 36, 37, 38,
];
