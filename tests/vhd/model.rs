//! Random work on images, against plain bytes.

use std::ops::Range;
use std::sync::Arc;
use std::thread;

use diskdelta::Extent;
use diskdelta::image::{Change, CreateFormat, ImageMut, Patch};
use diskdelta::storage::{MemoryStorage, Storage};
use proptest::prelude::*;

use crate::support::{contents, new_image, open_bytes, open_mut, pattern, refusal};

const BLOCK: u64 = 4096;
/// The longest disk here; the images are created with it, so that a table has room.
const MAX_LEN: u64 = 24 * BLOCK;

#[test]
fn a_footer_that_moved_on_leaves_nothing_behind_in_a_later_block() {
    let (block, count) = (2u64 << 20, 90);
    let storage = new_image(CreateFormat::VhdDynamic, count * block, None);
    let disk = open_mut(&storage).unwrap();
    for index in 0..count {
        disk.write_all_at(&[7; 512], index * block).unwrap();
    }
    let mut bytes = vec![0; block as usize];
    for index in 0..count {
        disk.read_exact_at(&mut bytes, index * block).unwrap();
        let first = bytes[512..].iter().position(|byte| *byte != 0);
        assert_eq!(first, None, "in block {index}");
    }
}

#[derive(Debug, Clone)]
enum Step {
    Write(Range<u64>, u8),
    Zero(Range<u64>),
    Resize(u64),
    Sync,
    Reopen,
    /// New length, ranges of data, ranges of zeros.
    Prepared(u64, Vec<(Range<u64>, bool)>),
}

fn range() -> impl Strategy<Value = Range<u64>> {
    (0..MAX_LEN, prop_oneof![1u64..600, 1u64..3 * BLOCK])
        .prop_map(|(start, len)| start..(start + len).min(MAX_LEN))
}

fn len() -> impl Strategy<Value = u64> {
    (0..=MAX_LEN / 512).prop_map(|sectors| sectors * 512)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => (range(), 1u8..).prop_map(|(range, seed)| Step::Write(range, seed)),
        2 => range().prop_map(Step::Zero),
        1 => len().prop_map(Step::Resize),
        1 => Just(Step::Sync),
        1 => Just(Step::Reopen),
        2 => (len(), proptest::collection::vec((range(), any::<bool>()), 0..4))
            .prop_map(|(len, ranges)| Step::Prepared(len, ranges)),
    ];
    proptest::collection::vec(step, 1..12)
}

/// Ascending, disjoint extents inside a disk of `len` bytes.
fn extents(mut ranges: Vec<(Range<u64>, bool)>, len: u64) -> Vec<Extent> {
    ranges.sort_by_key(|(range, _)| range.start);
    let mut at = 0;
    let mut extents = Vec::new();
    for (range, data) in ranges {
        let range = range.start.max(at)..range.end.min(len);
        if !range.is_empty() {
            at = range.end;
            extents.push(match data {
                true => Extent::data(range),
                false => Extent::zero(range),
            });
        }
    }
    extents
}

/// Does what a caller of `prepare` does, on a medium whose new space holds garbage.
fn write_prepared(
    storage: &MemoryStorage,
    image: &dyn ImageMut,
    change: &Change<'_>,
    disk: &mut Vec<u8>,
) {
    let patches = image.prepare(change).unwrap();
    let structures: Vec<Range<u64>> = patches.iter().filter_map(place).collect();
    for patch in &patches {
        match patch {
            Patch::SetLen(len) => {
                let old = storage.len().unwrap();
                storage.set_len(*len).unwrap();
                if *len > old {
                    let garbage = vec![0xcc; (len - old) as usize];
                    storage.write_all_at(&garbage, old).unwrap();
                }
            }
            Patch::Zero(range) => storage.punch_hole(range.clone()).unwrap(),
            Patch::Write {
                offset,
                bytes,
                last: false,
            } => storage.write_all_at(bytes, *offset).unwrap(),
            _ => {}
        }
    }
    let before = storage.to_vec();
    disk.resize(change.disk_len as usize, 0);
    for extent in change.extents {
        let here = &mut disk[extent.offset as usize..extent.end() as usize];
        if extent.kind == diskdelta::ExtentKind::Data {
            here.copy_from_slice(&pattern(here.len(), 0x55));
            image.write_all_at(here, extent.offset).unwrap();
        } else {
            here.fill(0);
            image.write_zeroes_at(extent.range()).unwrap();
        }
    }
    // Nothing but payload was touched.
    let after = storage.to_vec();
    assert_eq!(before.len(), after.len());
    for range in structures {
        let range = range.start as usize..range.end as usize;
        assert_eq!(before[range.clone()], after[range]);
    }
    for patch in &patches {
        if let Patch::Write {
            offset,
            bytes,
            last: true,
        } = patch
        {
            storage.write_all_at(bytes, *offset).unwrap();
        }
    }
}

fn place(patch: &Patch) -> Option<Range<u64>> {
    match patch {
        Patch::Write { offset, bytes, .. } => Some(*offset..offset + bytes.len() as u64),
        _ => None,
    }
}

fn run(format: CreateFormat, first_len: u64, steps: Vec<Step>) {
    let storage = new_image(
        format,
        MAX_LEN,
        (format == CreateFormat::VhdDynamic).then_some(BLOCK),
    );
    let mut image = open_mut(&storage).unwrap();
    image.set_disk_len(first_len).unwrap();
    let mut disk = vec![0; first_len as usize];
    for step in steps {
        let len = disk.len() as u64;
        match step {
            Step::Write(range, seed) if range.end <= len => {
                let bytes = pattern((range.end - range.start) as usize, seed);
                image.write_all_at(&bytes, range.start).unwrap();
                disk[range.start as usize..range.end as usize].copy_from_slice(&bytes);
            }
            Step::Write(range, _) => {
                let bytes = vec![1; (range.end - range.start) as usize];
                refusal(image.write_all_at(&bytes, range.start));
            }
            Step::Zero(range) if range.end <= len => {
                image.write_zeroes_at(range.clone()).unwrap();
                disk[range.start as usize..range.end as usize].fill(0);
            }
            Step::Zero(range) => drop(refusal(image.write_zeroes_at(range))),
            Step::Resize(len) => {
                image.set_disk_len(len).unwrap();
                disk.resize(len as usize, 0);
            }
            Step::Sync => image.sync().unwrap(),
            Step::Reopen => {
                image.sync().unwrap();
                image = open_mut(&storage).unwrap();
            }
            Step::Prepared(len, ranges) => {
                image.sync().unwrap();
                let extents = extents(ranges, len);
                let change = Change {
                    disk_len: len,
                    extents: &extents,
                };
                write_prepared(&storage, &*image, &change, &mut disk);
                // The same again has nothing left to decide.
                assert!(image.prepare(&change).unwrap().is_empty());
            }
        }
        assert!(contents(&*image).unwrap() == disk);
    }
    image.sync().unwrap();
    let again = open_bytes(storage.to_vec()).unwrap();
    assert!(contents(&*again).unwrap() == disk);
    assert!(again.info().warnings.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_dynamic_image_holds_what_was_written(len in len(), steps in steps()) {
        run(CreateFormat::VhdDynamic, len, steps);
    }

    #[test]
    fn a_fixed_image_holds_what_was_written(len in len(), steps in steps()) {
        run(CreateFormat::VhdFixed, len, steps);
    }
}

#[test]
fn zeros_over_what_is_not_allocated_allocate_nothing() {
    let storage = new_image(CreateFormat::VhdDynamic, 64 << 20, None);
    let before = storage.to_vec();
    let image = open_mut(&storage).unwrap();
    image.write_zeroes_at(0..64 << 20).unwrap();
    image.sync().unwrap();
    assert_eq!(storage.to_vec(), before);
    assert_eq!(image.allocated_bytes().unwrap(), 0);
    let zero = [Extent::zero(0..64 << 20)];
    let change = Change {
        disk_len: 64 << 20,
        extents: &zero,
    };
    assert!(image.prepare(&change).unwrap().is_empty());
}

#[test]
fn a_written_file_is_no_longer_than_its_blocks_need() {
    let storage = new_image(CreateFormat::VhdDynamic, 64 << 20, None);
    let image = open_mut(&storage).unwrap();
    for block in [7, 3, 12] {
        image.write_all_at(&[1; 100], (block << 21) + 5).unwrap();
    }
    image.sync().unwrap();
    // Header page, and for each block its payload and the page that holds its bitmap.
    assert_eq!(storage.len().unwrap(), 4096 + 3 * ((2 << 20) + 4096));
    assert_eq!(image.allocated_bytes().unwrap(), 3 << 21);
}

#[test]
fn plain_writes_must_be_synced_before_a_change_is_prepared() {
    let storage = new_image(CreateFormat::VhdDynamic, 64 << 20, None);
    let image = open_mut(&storage).unwrap();
    image.write_all_at(&[1], 0).unwrap();
    let change = Change {
        disk_len: 64 << 20,
        extents: &[],
    };
    refusal(image.prepare(&change));
    image.sync().unwrap();
    assert!(image.prepare(&change).unwrap().is_empty());
}

#[test]
fn a_table_without_room_refuses_to_grow_and_says_what_to_do() {
    let storage = new_image(CreateFormat::VhdDynamic, 4 << 20, None);
    let image = open_mut(&storage).unwrap();
    let before = storage.to_vec();
    let error = refusal(image.set_disk_len((4 << 20) + 512));
    assert_eq!(error.kind(), diskdelta::ErrorKind::Unsupported);
    assert!(!error.advice().is_empty());
    let change = Change {
        disk_len: (4 << 20) + 512,
        extents: &[],
    };
    refusal(image.prepare(&change));
    assert_eq!(storage.to_vec(), before);
    assert_eq!(image.disk_len(), 4 << 20);
}

#[test]
fn many_threads_write_one_image_at_once() {
    let len = 64 * BLOCK;
    let storage = new_image(CreateFormat::VhdDynamic, len, Some(BLOCK));
    let image = open_mut(&storage).unwrap();
    let meant = pattern(len as usize, 9);
    thread::scope(|scope| {
        for thread in 0..8 {
            let (image, meant): (&Arc<dyn ImageMut>, _) = (&image, &meant);
            // Pieces of 700 bytes, so that threads meet in every block.
            scope.spawn(move || {
                for (piece, bytes) in meant.chunks(700).enumerate() {
                    if piece % 8 == thread {
                        image.write_all_at(bytes, piece as u64 * 700).unwrap();
                    }
                    if piece % 100 == thread {
                        image.sync().unwrap();
                    }
                }
            });
        }
    });
    image.sync().unwrap();
    assert!(contents(&*image).unwrap() == meant);
    assert!(contents(&*open_bytes(storage.to_vec()).unwrap()).unwrap() == meant);
}
