//! The inputs that a corpus begins with, and inputs drawn by chance.

use diskdelta::BlockSize;
use diskdelta::delta::{Base, DeltaOptions, create};
use diskdelta::manifest;
use diskdelta::remote::{
    BlockDiff, Blocks, Children, Compare, FrameEncoder, Message, NewBlock, Nodes, NodesAre, Parts,
    Segments, Tree,
};
use diskdelta::storage::MemoryStorage;
use std::sync::Arc;

use super::craft::vhd::Vhd;
use super::craft::vhdx::{MIB, Vhdx};
use super::craft::vhdx_log;
use super::input::{Input, next_random};
use super::targets;
use super::targets::apply::raw;
use super::targets::vhdx::pack;
use super::work;

/// The first inputs of a target, always the same.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    let programs = (0..PROGRAMS).map(|number| program(target, number));
    match target {
        "vhd_raw" => programs.map(|it| vhd(&it)).collect(),
        "vhdx_raw" => programs.map(|it| vhdx(&it)).collect(),
        "manifest" => programs.chain(manifest_file()).collect(),
        "delta" => programs.chain(delta_file()).collect(),
        "remote_frames" => programs.chain([line()]).collect(),
        "change_map" => targets::change_map::seeds().collect(),
        "nbd_replies" => targets::nbd::seeds().to_vec(),
        "http_headers" => targets::http::seeds().to_vec(),
        _ => programs.collect(),
    }
}

/// Input number `number` of a target: bytes of which many are small, as programs like them.
pub fn program(target: &str, number: u64) -> Vec<u8> {
    let mut state = number + 1000 * u64::from(crc32fast::hash(target.as_bytes()));
    let len = next_random(&mut state) % 160;
    let byte = |state: &mut u64| {
        let word = next_random(state);
        match word % 4 {
            0 => 0,
            1 => (word >> 8) as u8 % 8,
            _ => (word >> 8) as u8,
        }
    };
    (0..len).map(|_| byte(&mut state)).collect()
}

/// A seed changed here and there.
pub fn mutated(seed: &[u8], state: &mut u64) -> Vec<u8> {
    let mut data = seed.to_vec();
    for _ in 0..1 + next_random(state) % 4 {
        let word = next_random(state);
        let at = (word >> 16) as usize % (data.len() + 1);
        match word % 5 {
            0 => data.insert(at, (word >> 8) as u8),
            1 => data.truncate(at.max(data.len() / 2)),
            _ if at == data.len() => data.push((word >> 8) as u8),
            2 => data[at] ^= 1 << ((word >> 8) % 8),
            _ => data[at] = (word >> 8) as u8,
        }
    }
    data
}

fn vhd(program: &[u8]) -> Vec<u8> {
    let mut input = Input(program);
    let disk_len = 512 * (1 + input.below(24));
    let vhd = Vhd::build(&mut input, 0, disk_len, None);
    let mut file = vhd.file.vec(0, vhd.file.len().min(40 << 10) as usize);
    if file.len() as u64 != vhd.file.len() {
        file.truncate(1 << 10);
    }
    file
}

fn vhdx(program: &[u8]) -> Vec<u8> {
    let mut input = Input(program);
    let len = MIB * (1 + program.len() as u64 % 3);
    let mut vhdx = Vhdx::build(&mut input, 0, (len, 512), None);
    if input.one_in(2) {
        vhdx_log::write(&mut vhdx, &mut input);
    }
    // Payload teaches nothing.
    vhdx.file.clear(4 * MIB..vhdx.file.len());
    pack(&vhdx.file)
}

fn manifest_file() -> Option<Vec<u8>> {
    let store = Arc::new(MemoryStorage::new("seed", Vec::new()));
    let disk: Vec<u8> = (0..300 * 4096).map(|at: usize| (at % 251) as u8).collect();
    manifest::build_to(&raw(&disk), BlockSize::MIN, work(), store.clone()).ok()?;
    Some([&[0], &store.to_vec()[..]].concat())
}

fn delta_file() -> Option<Vec<u8>> {
    let store = Arc::new(MemoryStorage::new("seed", Vec::new()));
    let (old, new) = (raw(&[1; 40_000]), raw(&[2; 30_000]));
    let options = DeltaOptions::default();
    create(Base::Image(&old), &new, store.clone(), &options, work()).ok()?;
    Some([&[0], &store.to_vec()[..]].concat())
}

/// What two ends say in a short session.
fn line() -> Vec<u8> {
    let block = |block| NewBlock {
        block,
        data: 1,
        zeros: 6,
    };
    let data = diskdelta::remote::Data {
        batch: 3,
        blocks: vec![block(2), block(900)],
        digest: [5; 32],
        is_packed: false,
        payload: vec![9; 40],
    };
    let messages = [
        Message::Windows(vec![0..4096, 8192..9000]),
        Message::Compare(Compare {
            disk_len: 9000,
            hash_len: 5,
            window_count: 2,
            from_manifest: true,
            counts_only: false,
            skips: false,
        }),
        Message::Tree(Tree {
            disk_len: 9000,
            root: [1; 32],
        }),
        Message::TreeIs(Some([2; 32])),
        Message::Nodes(Nodes {
            level: 2,
            indices: vec![0, 1, 300],
        }),
        Message::NodesAre(NodesAre(vec![
            vec![(0, [3; 16]), (200, [4; 16])],
            Vec::new(),
        ])),
        Message::Segments(Segments {
            batch: 3,
            segments: Children::default(),
        }),
        Message::Blocks(Blocks {
            batch: 3,
            segments: vec![(0, Children::default())],
        }),
        Message::Parts(Parts {
            batch: 3,
            blocks: vec![(2, BlockDiff::Comes), (900, BlockDiff::Zero)],
        }),
        Message::Data(data),
        Message::Root([4; 32]),
        Message::Check,
        Message::Answers(vec![true, false]),
        Message::Complete(None),
    ];
    let mut bytes = vec![0];
    let mut encoder = FrameEncoder::default();
    for message in messages {
        let frame = message.encode();
        encoder
            .encode(frame.kind, &frame.payload, &mut bytes)
            .unwrap();
    }
    bytes
}

const PROGRAMS: u64 = 12;
