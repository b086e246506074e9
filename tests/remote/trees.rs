//! Manifests in place of disks, and their trees against each other.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use diskdelta::diff::{self, Difference};
use diskdelta::image::{Image, ImageInfo};
use diskdelta::manifest::Manifest;
use diskdelta::remote::{
    FrameDecoder, FrameEncoder, Keys, Known, Message, NodesAre, TreePeer, Windows, WireFrame,
    children_of,
};
use diskdelta::{BlockSize, Extent, Result, Work, manifest};

use crate::disks::{PAGE, PageDisk, next_random};
use crate::pair::{Plan, run};
use crate::rounds;

const MIB: u64 = 1 << 20;
const BLOCK: u64 = 64 << 10;
/// The children of the lowest nodes that are compared.
const GROUP: u64 = 16 * MIB;

/// A source and a target that share much of their pages; long, so that their trees are high.
fn disks(rng: &mut u64) -> (PageDisk, PageDisk) {
    let lens = [4096, GROUP, GROUP + 1, 5 << 30, (4 << 30) + 70_000, 3 << 40];
    let len = lens[next_random(rng) as usize % lens.len()];
    let (source, target) = (PageDisk::new(len), PageDisk::new(len));
    let count = len.div_ceil(PAGE);
    for _ in 0..next_random(rng) % 30 {
        let page = next_random(rng) % count;
        let (new, old) = (next_random(rng) % 3, next_random(rng) % 3);
        source.put(page, new * (page + 1));
        target.put(page, old * (page + 1));
    }
    (source, target)
}

fn manifest_of(disk: &dyn Image) -> Manifest {
    manifest::build(disk, BlockSize::default(), &Work::with_threads(1).unwrap()).unwrap()
}

/// What goes over the line, and what it is there.
fn carried(message: &Message) -> Result<Message> {
    let frame = message.encode();
    let mut bytes = Vec::new();
    FrameEncoder::default().encode(frame.kind, &frame.payload, &mut bytes)?;
    let frame = FrameDecoder::default().decode(&mut &bytes[..])?;
    Message::decode(&frame.unwrap(), 5)
}

/// Goes down both trees; answers pass through `lie`.
fn descend(
    source: &Manifest,
    target: &Manifest,
    lie: &mut dyn FnMut(Message) -> Option<Message>,
) -> Result<(Vec<Range<u64>>, u64)> {
    let keys = Keys::new(&[7; 32], 1, 16);
    let mut end = TreePeer::new(target, keys.clone());
    let mut questions = 0;
    while !end.is_finished() {
        let mut answers = Vec::new();
        while let Some(question) = end.next_output() {
            let Message::Nodes(nodes) = carried(&question)? else {
                panic!("{question:?}");
            };
            questions += 1;
            assert!(questions < 10_000, "it goes on for ever");
            answers.push(Message::NodesAre(children_of(source, &keys, &nodes)?));
        }
        for answer in answers {
            if let Some(answer) = lie(answer) {
                end.receive(carried(&answer)?)?;
            }
        }
    }
    Ok((end.into_differing(), questions))
}

#[test]
fn two_trees_lead_to_every_group_that_differs_and_to_no_other() {
    let mut questions = 0;
    for seed in 0..rounds(300) {
        let mut rng = seed;
        let (source, target) = disks(&mut rng);
        let (new, old) = (manifest_of(&source), manifest_of(&target));
        let (found, asked) = descend(&new, &old, &mut Some).unwrap();
        questions += asked;
        let groups = |range: Range<u64>| range.start / GROUP..range.end.div_ceil(GROUP);
        let differing: BTreeSet<u64> = diff::manifests(&old, &new)
            .unwrap()
            .map(|extent| extent.unwrap())
            .flat_map(|extent| groups(extent.offset..extent.end()))
            .collect();
        let found: Vec<u64> = found.into_iter().flat_map(groups).collect();
        let told: BTreeSet<u64> = found.iter().copied().collect();
        assert_eq!(told.len(), found.len(), "seed {seed}: one twice");
        assert!(told.is_superset(&differing), "seed {seed}");
        if source.disk_len() <= GROUP {
            // One group is all there is, and nobody asks about it.
            continue;
        }
        // A node that only one of the two has is not gone down.
        let empty = |group: u64, of: &Manifest| {
            let first = group * (GROUP / BLOCK);
            of.groups(first..first + GROUP / BLOCK).next().is_none()
        };
        for group in told.difference(&differing) {
            let beyond = *group * GROUP >= source.disk_len();
            assert!(
                empty(*group, &new) && empty(*group, &old) || beyond,
                "seed {seed}"
            );
        }
    }
    eprintln!("{questions} questions");
}

#[test]
fn a_source_that_lies_about_its_nodes_ends_nothing_but_the_session() {
    let (mut refused, mut taken) = (0, 0);
    for seed in 0..rounds(600) {
        let mut rng = seed;
        let (source, target) = disks(&mut rng);
        let (new, old) = (manifest_of(&source), manifest_of(&target));
        let mut lie = |message: Message| {
            if !next_random(&mut rng).is_multiple_of(3) {
                return Some(message);
            }
            let WireFrame { kind, mut payload } = message.encode();
            for _ in 0..1 + next_random(&mut rng) % 3 {
                let at = next_random(&mut rng) as usize % payload.len();
                payload[at] = next_random(&mut rng) as u8;
            }
            Message::decode(&WireFrame { kind, payload }, 5)
                .ok()
                .or(Some(message))
        };
        match descend(&new, &old, &mut lie) {
            Ok((found, _)) => {
                assert!(found.iter().all(|range| range.end <= target.disk_len()));
                assert!(Windows::of(&sorted(found), target.disk_len()).is_ok());
                taken += 1;
            }
            Err(_) => refused += 1,
        }
    }
    eprintln!("{refused} lies refused, {taken} taken");
}

fn sorted(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_unstable_by_key(|range| range.start);
    ranges
}

#[test]
fn answers_that_nobody_asked_for_and_nodes_that_are_not_there_are_refused() {
    let (mut rng, mut len) = (3, 0);
    let (mut source, mut target) = disks(&mut rng);
    while len != 5 << 30 {
        (source, target) = disks(&mut rng);
        len = source.disk_len();
    }
    source.put(0, 77);
    let (new, old) = (manifest_of(&source), manifest_of(&target));
    let keys = Keys::new(&[7; 32], 1, 16);
    let mut end = TreePeer::new(&old, keys.clone());
    let nothing = || Message::NodesAre(NodesAre(Vec::new()));
    assert!(end.receive(nothing()).is_err(), "before any question");
    let mut end = TreePeer::new(&old, keys.clone());
    end.next_output().unwrap();
    assert!(end.receive(nothing()).is_err(), "too few nodes");
    let mut end = TreePeer::new(&old, keys.clone());
    end.next_output().unwrap();
    let beyond = NodesAre(vec![vec![(200, [1; 16])]]);
    assert!(
        end.receive(Message::NodesAre(beyond)).is_err(),
        "behind the end"
    );
    let ask = |level, indices: &[u64]| {
        let indices = indices.to_vec();
        children_of(&new, &keys, &diskdelta::remote::Nodes { level, indices })
    };
    assert!(ask(2, &[0, 1]).is_ok());
    for (level, index) in [
        (0, 0),
        (1, 0),
        (2, 2),
        (3, 1),
        (4, 0),
        (15, 0),
        (2, u64::MAX - 1),
    ] {
        assert!(
            ask(level, &[index]).is_err(),
            "node {index} of level {level}"
        );
    }
}

/// A disk that counts what is read of it.
struct Counting<'a>(&'a PageDisk, AtomicU64);

impl Image for Counting<'_> {
    fn disk_len(&self) -> u64 {
        self.0.disk_len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.1.fetch_add(buf.len() as u64, Ordering::Relaxed);
        self.0.read_exact_at(buf, offset)
    }

    fn next_extent(&self, offset: u64) -> Result<Option<Extent>> {
        self.0.next_extent(offset)
    }

    fn info(&self) -> ImageInfo {
        self.0.info()
    }
}

#[test]
fn with_manifests_at_both_ends_only_leaves_that_differ_are_read() {
    for seed in 0..rounds(200) {
        let mut rng = seed;
        let (source, target) = disks(&mut rng);
        let len = source.disk_len();
        if len > 6 << 30 {
            continue;
        }
        let (new, old) = (manifest_of(&source), manifest_of(&target));
        let blocks: u64 = diff::manifests(&old, &new)
            .unwrap()
            .map(|extent| extent.unwrap().len.div_ceil(BLOCK))
            .sum();
        let result = target.copy();
        let visit = |difference: Difference<'_>| {
            result.take(&difference);
            Ok(())
        };
        let (source, target) = (
            Counting(&source, AtomicU64::new(0)),
            Counting(&target, AtomicU64::new(0)),
        );
        let mut plan = Plan::new(seed, len);
        plan.known = [Known::whole(&new, len), Known::whole(&old, len)];
        if seed % 2 == 0 {
            let (found, _) = descend(&new, &old, &mut Some).unwrap();
            plan.windows = Windows::of(&sorted(found), len).unwrap();
        }
        let outcome = run(&source, &target, &visit, &plan);
        outcome
            .target
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert!(result.contents() == source.0.contents(), "seed {seed}");
        for read in [source.1, target.1] {
            assert!(read.into_inner() <= 2 * blocks * BLOCK, "seed {seed}");
        }
    }
}

#[test]
fn a_source_that_is_not_what_its_manifest_says_is_found_out_where_it_is_read() {
    let len = 80 * MIB;
    let (source, target) = (PageDisk::new(len), PageDisk::new(len));
    source.put(3, 5);
    let (new, old) = (manifest_of(&source), manifest_of(&target));
    source.put(4, 6);
    let mut plan = Plan::new(1, len);
    plan.known = [Known::whole(&new, len), Known::whole(&old, len)];
    let outcome = run(&source, &target, &|_| Ok(()), &plan);
    let error = outcome.target.unwrap_err();
    assert_eq!(error.kind(), diskdelta::ErrorKind::VerifyFailed);
}

#[test]
fn a_count_moves_hashes_only_and_says_what_a_sync_would_move() {
    for seed in 0..rounds(200) {
        let mut rng = seed;
        let (source, target) = disks(&mut rng);
        let len = source.disk_len();
        let visit = |_: Difference<'_>| Ok(());
        let real = run(&source, &target, &visit, &Plan::new(seed, len));
        let real = real.target.unwrap();
        let mut plan = Plan::new(seed, len);
        plan.counts_only = true;
        let emitted = |_: Difference<'_>| panic!("emitted");
        let counted = run(&source, &target, &emitted, &plan);
        let report = counted.target.unwrap();
        assert_eq!(report.changed_bytes, real.changed_bytes, "seed {seed}");
        assert_eq!(report.zeroed_bytes, real.zeroed_bytes, "seed {seed}");
        assert!(
            counted.bytes < 20_000,
            "seed {seed}: {} bytes",
            counted.bytes
        );
    }
}
