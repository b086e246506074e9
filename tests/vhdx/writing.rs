//! Writing, against a model that is a plain byte store.

use std::sync::Arc;

use diskdelta::image::vhdx::{NewDisk, create};
use diskdelta::image::{Change, Image, ImageMut, Patch};
use diskdelta::storage::{MemoryStorage, Storage};
use diskdelta::{ErrorKind, Extent};
use proptest::prelude::*;

use super::craft::HEADERS;
use super::support::*;

#[derive(Debug, Clone)]
enum Op {
    Write(u64, usize),
    Zero(u64, u64),
    Sync,
    Reopen,
    Prepare(Vec<(u64, u64, bool)>),
    Resize(u64),
}

fn ops(disk: u64) -> impl Strategy<Value = Vec<Op>> {
    let place = move || {
        (
            0..disk,
            prop_oneof![1u64..5000, 1u64..3 * MIB, Just(2 * MIB)],
            any::<[bool; 2]>(),
        )
            .prop_map(move |(start, len, [round_start, round_len])| {
                let start = if round_start {
                    start / MIB * MIB
                } else {
                    start
                };
                let len = if round_len {
                    len.next_multiple_of(MIB)
                } else {
                    len
                };
                (start, len.min(disk - start))
            })
    };
    let op = prop_oneof![
        4 => place().prop_map(|(at, len)| Op::Write(at, len as usize)),
        3 => place().prop_map(|(at, len)| Op::Zero(at, len)),
        2 => Just(Op::Sync),
        1 => Just(Op::Reopen),
        2 => prop::collection::vec((place(), any::<bool>()), 1..4).prop_map(|list| {
            Op::Prepare(list.into_iter().map(|((at, len), zero)| (at, len, zero)).collect())
        }),
        1 => (1..disk / 4096).prop_map(|pages| Op::Resize(pages * 4096)),
    ];
    prop::collection::vec(op, 1..16)
}

/// Ascending and disjoint, sector-aligned or not.
fn extents(list: &[(u64, u64, bool)], disk: u64) -> Vec<Extent> {
    let mut list = list.to_vec();
    list.sort_by_key(|(at, ..)| *at);
    let mut end = 0;
    let mut extents = Vec::new();
    for (at, len, zero) in list {
        let range = at.max(end)..(at + len).min(disk);
        if range.start < range.end {
            end = range.end;
            extents.push(match zero {
                true => Extent::zero(range),
                false => Extent::data(range),
            });
        }
    }
    extents
}

fn run(options: &NewDisk, parent: Option<Arc<dyn Storage>>, ops: &[Op]) {
    let storage = new_image(options);
    let mut image = open_mut_over(storage.clone(), parent.as_ref()).unwrap();
    let mut model = contents(&image);
    for (seed, op) in ops.iter().enumerate() {
        let disk = model.len() as u64;
        match op {
            Op::Write(at, len) => {
                let at = *at.min(&disk);
                let bytes = pattern(seed as u64, (*len).min((disk - at) as usize));
                image.write_all_at(&bytes, at).unwrap();
                model[at as usize..at as usize + bytes.len()].copy_from_slice(&bytes);
            }
            Op::Zero(at, len) => {
                let range = *at.min(&disk)..(at + len).min(disk);
                image.write_zeroes_at(range.clone()).unwrap();
                model[range.start as usize..range.end as usize].fill(0);
            }
            Op::Sync => image.sync().unwrap(),
            Op::Reopen => {
                image.sync().unwrap();
                drop(image);
                image = open_mut_over(storage.clone(), parent.as_ref()).unwrap();
            }
            Op::Prepare(list) => {
                let extents = extents(list, disk);
                let before = storage.to_vec();
                let change = Change {
                    disk_len: disk,
                    extents: &extents,
                };
                let patches = image.prepare(&change).unwrap();
                assert!(storage.to_vec() == before, "prepare wrote");
                apply(&*storage, &patches, false);
                let tables = metadata_of(&storage.to_vec());
                for extent in &extents {
                    let range = extent.offset as usize..extent.end() as usize;
                    if extent.kind == diskdelta::ExtentKind::Zero {
                        image.write_zeroes_at(extent.range()).unwrap();
                        model[range].fill(0);
                        continue;
                    }
                    // In pieces, as a redo log would.
                    let bytes = pattern(seed as u64, range.len());
                    for (index, piece) in bytes.chunks(700_001).enumerate() {
                        let at = extent.offset + index as u64 * 700_001;
                        image.write_all_at(piece, at).unwrap();
                    }
                    model[range].copy_from_slice(&bytes);
                }
                assert!(
                    metadata_of(&storage.to_vec()) == tables,
                    "a write touched tables"
                );
                apply(&*storage, &patches, true);
                image.sync().unwrap();
                // The same patches once more change nothing but what was written since.
                drop(image);
                image = open_mut_over(storage.clone(), parent.as_ref()).unwrap();
            }
            Op::Resize(len) if parent.is_none() => {
                image.set_disk_len(*len).unwrap();
                model.resize(*len as usize, 0);
            }
            Op::Resize(len) => {
                let error = image.set_disk_len(*len).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Unsupported);
            }
        }
        assert!(contents(&image) == model, "after {op:?}");
    }
    check_extents(&image, &model);
    image.sync().unwrap();
    let storage = Arc::new(MemoryStorage::new("copy", storage.to_vec()));
    let image = open_over(storage, parent.as_ref()).unwrap();
    assert!(contents(&image) == model, "after opening again");
    assert!(image.info().warnings.is_empty());
    check_extents(&image, &model);
}

/// Log, metadata and block table; the headers are the last patches and so not yet in place.
fn metadata_of(bytes: &[u8]) -> Vec<u8> {
    bytes[1 << 20..4 << 20].to_vec()
}

fn parent_of(block_bytes: u64, sector_bytes: u64) -> Arc<dyn Storage> {
    let options = NewDisk::dynamic(7 * MIB + 8192)
        .with_block_bytes(block_bytes)
        .with_sector_bytes(sector_bytes);
    let storage = new_image(&options);
    let image = open_mut_over(storage.clone(), None).unwrap();
    image.write_all_at(&pattern(77, 3 << 20), MIB / 2).unwrap();
    image
        .write_all_at(&pattern(78, 9000), 7 * MIB - 808)
        .unwrap();
    image.sync().unwrap();
    storage
}

const DISK: u64 = 7 * MIB + 8192;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_dynamic_image_holds_what_was_written(ops in ops(DISK), big in any::<bool>()) {
        let block = if big { 2 * MIB } else { MIB };
        run(&NewDisk::dynamic(DISK).with_block_bytes(block), None, &ops);
    }

    #[test]
    fn a_fixed_image_holds_what_was_written(
        ops in ops(DISK),
        sector in prop_oneof![Just(512u64), Just(4096)],
    ) {
        run(&NewDisk::fixed(DISK).with_sector_bytes(sector), None, &ops);
    }

    #[test]
    fn a_differencing_image_holds_what_was_written_over_its_parent(
        ops in ops(DISK),
        sector in prop_oneof![Just(512u64), Just(4096)],
        block in prop_oneof![Just(MIB), Just(2 * MIB)],
    ) {
        let parent = parent_of(2 * MIB, sector);
        let options = child_of(&parent, block);
        run(&options, Some(parent), &ops);
    }
}

#[test]
fn zeroed_blocks_are_given_back_and_their_space_is_used_again() {
    let storage = new_image(&NewDisk::dynamic(64 * MIB).with_block_bytes(2 * MIB));
    let image = open_mut_over(storage.clone(), None).unwrap();
    image.write_all_at(&vec![1; 16 << 20], 0).unwrap();
    image.sync().unwrap();
    let len = storage.len().unwrap();
    for round in 0..10 {
        let at = (round * 16 % 64) * MIB;
        image.write_zeroes_at(at..at + 16 * MIB).unwrap();
        image.sync().unwrap();
        assert!(image.next_extent(0).unwrap().unwrap().len >= 64 * MIB);
        let next = ((round + 1) * 16 % 64) * MIB;
        image
            .write_all_at(&[round as u8 + 2; 100], next + 5)
            .unwrap();
        let mut found = vec![9; 300];
        image.read_exact_at(&mut found, next).unwrap();
        assert!(
            found[105..]
                .iter()
                .chain(&found[..5])
                .all(|byte| *byte == 0)
        );
        image
            .write_all_at(&vec![round as u8 + 2; 16 << 20], next)
            .unwrap();
        image.sync().unwrap();
        assert_eq!(storage.len().unwrap(), len);
    }
}

#[test]
fn a_fixed_image_keeps_its_blocks() {
    let storage = new_image(&NewDisk::fixed(8 * MIB));
    let image = open_mut_over(storage.clone(), None).unwrap();
    let before = storage.to_vec()[3 << 20..4 << 20].to_vec();
    image.write_all_at(&vec![1; 8 << 20], 0).unwrap();
    image.write_zeroes_at(0..8 * MIB).unwrap();
    image.sync().unwrap();
    assert!(storage.to_vec()[3 << 20..4 << 20] == before);
    assert!(contents(&image).iter().all(|byte| *byte == 0));
    assert_eq!(image.info().layout.name(), "fixed");
}

#[test]
fn both_guids_change_before_the_first_write_and_only_then() {
    let storage = new_image(&NewDisk::dynamic(8 * MIB));
    let guids = || {
        let bytes = storage.to_vec();
        let sequence = |at: usize| u64::from_le_bytes(bytes[at + 8..at + 16].try_into().unwrap());
        let [first, second] = HEADERS;
        let at = if sequence(first) > sequence(second) {
            first
        } else {
            second
        };
        bytes[at + 16..at + 48].to_vec()
    };
    let before = guids();
    let image = open_mut_over(storage.clone(), None).unwrap();
    image.sync().unwrap();
    assert_eq!(guids(), before);
    image.write_all_at(&[1], 0).unwrap();
    let after = guids();
    assert_ne!(after[..16], before[..16]);
    assert_ne!(after[16..], before[16..]);
    image.write_all_at(&[1], 5 * MIB).unwrap();
    image.sync().unwrap();
    assert_eq!(guids(), after);
}

#[test]
fn patches_mend_the_tables_again_after_they_were_lost() {
    let storage = new_image(&NewDisk::dynamic(64 * MIB).with_block_bytes(MIB));
    let image = open_mut_over(storage.clone(), None).unwrap();
    image.write_all_at(&vec![3; 8 << 20], 0).unwrap();
    image.sync().unwrap();
    drop(image);
    let image = open_mut_over(storage.clone(), None).unwrap();
    let old = storage.to_vec();
    let extents = [
        Extent::zero(0..4 * MIB),
        Extent::data(20 * MIB + 4096..21 * MIB),
    ];
    let change = Change {
        disk_len: 60 * MIB,
        extents: &extents,
    };
    let patches = image.prepare(&change).unwrap();
    drop(image);
    let lasts = patches
        .iter()
        .filter(|patch| matches!(patch, Patch::Write { last: true, .. }));
    assert_eq!(lasts.count(), 2, "both headers come last");
    // The new space holds garbage, as after a crash; the headers hold a marker.
    let mut crashed = old.clone();
    crashed.resize(old.len() + (1 << 20), 0xAA);
    crashed[64 << 10..192 << 10].fill(0x55);
    let storage = Arc::new(MemoryStorage::new("crashed", crashed));
    for _ in 0..2 {
        apply(&*storage, &patches, false);
        apply(&*storage, &patches, true);
        let image = open_over(storage.clone(), None).unwrap();
        assert_eq!(image.disk_len(), 60 * MIB);
        let found = contents(&image);
        assert!(found[4 << 20..8 << 20].iter().all(|byte| *byte == 3));
        let data = 20 * MIB as usize + 4096..21 * MIB as usize;
        let before = found[..4 << 20].iter().chain(&found[8 << 20..data.start]);
        // Space that the data will not cover is zeros, whatever a crash has left there.
        let mut rest = before.chain(&found[data.end..]);
        assert!(rest.all(|byte| *byte == 0));
    }
}

#[test]
fn a_range_beyond_the_disk_is_refused_and_nothing_is_written() {
    let storage = new_image(&NewDisk::dynamic(8 * MIB));
    let before = storage.to_vec();
    let image = open_mut_over(storage.clone(), None).unwrap();
    for at in [8 * MIB, 8 * MIB - 1, u64::MAX - 1, u64::MAX] {
        let error = image.write_all_at(&[1, 2], at).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let error = image.write_zeroes_at(at..at.saturating_add(2)).err();
        assert!(at == u64::MAX || error.unwrap().kind() == ErrorKind::InvalidInput);
        let error = image.read_exact_at(&mut [0; 2], at).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(image.next_extent(at.max(8 * MIB)).unwrap().is_none());
    }
    for len in [0, 511, (64 << 40) + 512, u64::MAX] {
        assert!(image.set_disk_len(len).is_err());
    }
    // 131072 entries fit, one of them is a bitmap's: 4 TiB of 32 MiB blocks, nearly.
    assert!(image.set_disk_len(5 << 40).is_err());
    drop(image);
    let after = storage.to_vec();
    assert!(after[1 << 20..] == before[1 << 20..]);
}

#[test]
fn options_outside_the_format_create_nothing() {
    let wrong = [
        NewDisk::dynamic(MIB).with_block_bytes(MIB / 2),
        NewDisk::dynamic(MIB).with_block_bytes(3 * MIB),
        NewDisk::dynamic(MIB).with_block_bytes(512 * MIB),
        NewDisk::dynamic(MIB).with_sector_bytes(1024),
    ];
    let long = [
        NewDisk::dynamic(0),
        NewDisk::dynamic(513),
        NewDisk::dynamic((64 << 40) + 512),
        NewDisk::dynamic(512).with_sector_bytes(4096),
    ];
    for layout in long {
        let storage = MemoryStorage::new("new", Vec::new());
        let error = create(&storage, &layout).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(storage.is_empty().unwrap());
    }
    for options in wrong {
        let storage = MemoryStorage::new("new", Vec::new());
        let error = create(&storage, &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(storage.is_empty().unwrap());
    }
    let storage = MemoryStorage::new("taken", vec![1]);
    let error = create(&storage, &NewDisk::dynamic(MIB)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(storage.to_vec(), [1]);
}

#[test]
fn many_threads_write_disjoint_ranges_of_the_same_blocks() {
    for over_parent in [false, true] {
        let parent = over_parent.then(|| parent_of(MIB, 512));
        let options = match &parent {
            Some(parent) => child_of(parent, 2 * MIB),
            None => NewDisk::dynamic(DISK).with_block_bytes(2 * MIB),
        };
        let storage = new_image(&options);
        let image = open_mut_over(storage.clone(), parent.as_ref()).unwrap();
        let wanted = pattern(5, DISK as usize);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (image, wanted) = (&image, &wanted);
                scope.spawn(move || {
                    for at in (thread * 5000..wanted.len()).step_by(4 * 5000) {
                        let end = (at + 5000).min(wanted.len());
                        image.write_all_at(&wanted[at..end], at as u64).unwrap();
                        if at % 700 == 0 {
                            image.sync().unwrap();
                        }
                    }
                });
            }
        });
        assert!(contents(&image) == wanted);
        image.sync().unwrap();
        assert!(contents(&open_over(storage, parent.as_ref()).unwrap()) == wanted);
    }
}
