//! Plain writes, cut at every operation: what is found afterwards follows the format, and every
//! sector is as it was at the last sync or as it was written since.

use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};

use diskdelta::Result;
use diskdelta::image::ImageMut;
use diskdelta::image::vhdx::{CreateOptions, Vhdx, VhdxMut};
use diskdelta::storage::{MemoryStorage, Storage};

use super::support::*;

#[derive(Debug, Clone)]
enum Op {
    Write(u64, Vec<u8>),
    SetLen(u64),
    Punch(Range<u64>),
    Sync,
}

/// Notes all that changes the storage below.
struct Recorded {
    below: MemoryStorage,
    ops: Mutex<Vec<Op>>,
}

impl Recorded {
    fn note(&self, op: Op) {
        self.ops.lock().unwrap().push(op);
    }
}

impl Storage for Recorded {
    fn path(&self) -> &Path {
        self.below.path()
    }
    fn len(&self) -> Result<u64> {
        self.below.len()
    }
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.below.read_exact_at(buf, offset)
    }
    fn write_all_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.note(Op::Write(offset, buf.to_vec()));
        self.below.write_all_at(buf, offset)
    }
    fn set_len(&self, len: u64) -> Result<()> {
        self.note(Op::SetLen(len));
        self.below.set_len(len)
    }
    fn sync(&self) -> Result<()> {
        self.note(Op::Sync);
        Ok(())
    }
    fn punch_hole(&self, range: Range<u64>) -> Result<()> {
        self.note(Op::Punch(range.clone()));
        self.below.punch_hole(range)
    }
    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>> {
        self.below.next_data(offset)
    }
}

/// What each sector may hold: the fill it had at the last sync, and those it got since.
struct Model {
    allowed: Vec<Vec<u8>>,
}

const SECTOR: u64 = 512;

impl Model {
    fn fill(&mut self, range: Range<u64>, fill: u8) {
        for sector in range.start / SECTOR..range.end / SECTOR {
            self.allowed[sector as usize].push(fill);
        }
    }

    fn sync(&mut self) {
        for allowed in &mut self.allowed {
            allowed.drain(..allowed.len() - 1);
        }
    }
}

/// What happened, and after how many operations of the storage.
struct History {
    storage: Arc<Recorded>,
    start: Vec<u8>,
    model: Model,
    /// For each number of operations from which it holds, what each sector may hold.
    states: Vec<(usize, Vec<Vec<u8>>)>,
}

impl History {
    fn at(&self) -> usize {
        self.storage.ops.lock().unwrap().len()
    }

    /// Before it is asked for: from here on the new fill may be found.
    fn write(&mut self, image: &VhdxMut, range: Range<u64>, fill: u8) {
        self.model.fill(range.clone(), fill);
        self.states.push((self.at(), self.model.allowed.clone()));
        if fill == 0 {
            image.write_zeroes_at(range).unwrap();
        } else {
            let bytes = vec![fill; (range.end - range.start) as usize];
            image.write_all_at(&bytes, range.start).unwrap();
        }
    }

    fn sync(&mut self, image: &VhdxMut) {
        image.sync().unwrap();
        self.model.sync();
        self.states.push((self.at(), self.model.allowed.clone()));
    }

    /// Cuts after every operation and looks at what a machine might find.
    fn check(&self, parent: Option<&Arc<Vhdx>>) {
        self.check_seeded(1, |bytes, allowed, at| {
            let found = check_found(&bytes, allowed, parent, at);
            check_going_on(bytes, found, parent);
        });
    }

    fn check_seeded(&self, mut random: u64, look: impl Fn(Vec<u8>, &[Vec<u8>], (usize, u64))) {
        let ops = self.storage.ops.lock().unwrap().clone();
        let mut durable = self.start.clone();
        let mut pending: Vec<&Op> = Vec::new();
        for cut in 0..=ops.len() {
            let held = self.states.iter().rev().find(|(from, _)| *from <= cut);
            let allowed = &held.unwrap().1;
            for variant in 0..4 {
                let mut bytes = durable.clone();
                for op in &pending {
                    let keep = match variant {
                        0 => 0,
                        1 => 2,
                        _ => next(&mut random) % 3,
                    };
                    land(&mut bytes, op, keep, &mut random);
                }
                look(bytes, allowed, (cut, variant));
                if pending.is_empty() {
                    break;
                }
            }
            match ops.get(cut) {
                Some(Op::Sync) => {
                    for op in pending.drain(..) {
                        land(&mut durable, op, 2, &mut random);
                    }
                }
                Some(op) => pending.push(op),
                None => {}
            }
        }
    }
}

/// Lets nothing (0), some sectors (1) or all (2) of an operation reach the medium.
fn land(bytes: &mut Vec<u8>, op: &Op, keep: u64, random: &mut u64) {
    match op {
        _ if keep == 0 => {}
        Op::Write(offset, data) => {
            let end = *offset as usize + data.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            let mut sectors = data.chunks(SECTOR as usize).enumerate();
            for (index, sector) in &mut sectors {
                let at = *offset as usize + index * SECTOR as usize;
                if keep == 2 || next(random) % 2 == 0 {
                    bytes[at..at + sector.len()].copy_from_slice(sector);
                } else if (*offset as usize) < (4 << 20) && next(random) % 3 == 0 {
                    // A torn sector of headers, log or tables may hold anything.
                    bytes[at..at + sector.len()].fill(0xA5);
                }
            }
        }
        Op::SetLen(len) => bytes.resize(*len as usize, 0),
        Op::Punch(range) => {
            let end = (range.end as usize).min(bytes.len());
            bytes[(range.start as usize).min(end)..end].fill(0);
        }
        Op::Sync => {}
    }
}

fn next(random: &mut u64) -> u64 {
    *random = random
        .wrapping_mul(6364136223846793005)
        .wrapping_add(1442695040888963407);
    *random >> 33
}

fn check_found(
    bytes: &[u8],
    allowed: &[Vec<u8>],
    parent: Option<&Arc<Vhdx>>,
    at: (usize, u64),
) -> Vec<u8> {
    let storage = Arc::new(MemoryStorage::new("after a crash", bytes.to_vec()));
    let image = open_over(storage, parent)
        .unwrap_or_else(|error| panic!("cut and variant {at:?}: {error}"));
    let found = contents(&image);
    let sectors = found.chunks(SECTOR as usize).zip(allowed);
    for (index, (bytes, allowed)) in sectors.enumerate() {
        let fill = bytes[0];
        assert!(
            bytes.iter().all(|byte| *byte == fill) && allowed.contains(&fill),
            "cut and variant {at:?}, sector {index}: {fill} is none of {allowed:?}"
        );
    }
    found
}

/// Replays into the file, and writes on.
fn check_going_on(bytes: Vec<u8>, mut found: Vec<u8>, parent: Option<&Arc<Vhdx>>) {
    let storage = Arc::new(MemoryStorage::new("after a crash", bytes));
    let image = open_mut_over(storage.clone(), parent).unwrap();
    assert!(contents(&image) == found, "replay on disk differs");
    image.write_all_at(&[0xEE; 512], 3 * MIB).unwrap();
    image.sync().unwrap();
    let image = open_over(storage, parent).unwrap();
    found[3 << 20..(3 << 20) + 512].fill(0xEE);
    assert!(contents(&image) == found, "writing after a crash");
}

fn start(options: &CreateOptions, parent: Option<&Arc<Vhdx>>) -> (History, VhdxMut) {
    let start = new_image(options).to_vec();
    let storage = Arc::new(Recorded {
        below: MemoryStorage::new("recorded", start.clone()),
        ops: Mutex::new(Vec::new()),
    });
    let image = open_mut_over(storage.clone(), parent).unwrap();
    let allowed: Vec<Vec<u8>> = contents(&image)
        .chunks(SECTOR as usize)
        .map(|sector| vec![sector[0]])
        .collect();
    let history = History {
        storage,
        start,
        states: vec![(0, allowed.clone())],
        model: Model { allowed },
    };
    (history, image)
}

fn write_some(history: &mut History, image: &VhdxMut) {
    history.write(image, 0..MIB, 1);
    history.write(image, MIB + 4096..MIB + 8192, 2);
    history.sync(image);
    history.write(image, 2 * MIB..4 * MIB, 3);
    history.write(image, 0..MIB, 0);
    history.write(image, MIB + 8192..MIB + 9216, 4);
    history.sync(image);
    history.write(image, 512..1024, 5);
    history.write(image, 3 * MIB..4 * MIB, 0);
    history.write(image, 4 * MIB - 512..5 * MIB, 6);
    history.sync(image);
    history.write(image, MIB..2 * MIB, 0);
    history.write(image, MIB + 512..MIB + 1024, 7);
    history.sync(image);
}

#[test]
fn a_dynamic_image_is_old_or_new_wherever_it_is_cut() {
    let options = CreateOptions::dynamic(5 * MIB).with_block_bytes(MIB);
    let (mut history, image) = start(&options, None);
    write_some(&mut history, &image);
    history.check(None);
}

#[test]
fn a_fixed_image_is_old_or_new_wherever_it_is_cut() {
    let (mut history, image) = start(&CreateOptions::fixed(5 * MIB), None);
    write_some(&mut history, &image);
    history.check(None);
}

#[test]
fn a_differencing_image_is_old_or_new_wherever_it_is_cut() {
    let parent = new_image(&CreateOptions::dynamic(5 * MIB).with_block_bytes(MIB));
    let image = open_mut_over(parent.clone(), None).unwrap();
    image.write_all_at(&vec![9; 4 << 20], 0).unwrap();
    image.sync().unwrap();
    let parent = Arc::new(open_bytes(parent.to_vec()).unwrap());
    let options = CreateOptions::child_of(&parent, "p").with_block_bytes(MIB);
    let (mut history, image) = start(&options, Some(&parent));
    write_some(&mut history, &image);
    history.check(Some(&parent));
}

#[test]
fn every_sync_of_a_commit_is_needed() {
    let options = CreateOptions::dynamic(MIB + 4096).with_block_bytes(MIB);
    let (mut history, image) = start(&options, None);
    history.write(&image, 4096..8192, 1);
    history.sync(&image);
    let ops = history.storage.ops.lock().unwrap().clone();
    let states = history.states.clone();
    let is_sync = |at: &usize| matches!(ops[*at], Op::Sync);
    let syncs: Vec<usize> = (0..ops.len()).filter(is_sync).collect();
    // The new name; then payload with entry, header, tables, header.
    assert_eq!(syncs.len(), 5);
    for gone in syncs {
        let mut fewer = ops.clone();
        fewer.remove(gone);
        *history.storage.ops.lock().unwrap() = fewer;
        history.states = states.clone();
        for (from, _) in &mut history.states {
            *from -= usize::from(*from > gone);
        }
        let noticed = (1..100).any(|seed| {
            let check = || {
                history.check_seeded(seed, |bytes, allowed, at| {
                    check_found(&bytes, allowed, None, at);
                });
            };
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(check)).is_err()
        });
        assert!(noticed, "nothing went wrong without the sync at {gone}");
    }
}
