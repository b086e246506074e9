//! Files that break the format, or stretch it: each is refused, or read as the format says.

use std::sync::Arc;

use diskdelta::image::vhdx::{NewDisk, Vhdx};
use diskdelta::image::{Image, ImageMut, ImageOptions};
use diskdelta::storage::{MemoryStorage, Storage};
use diskdelta::{Advice, ErrorKind, Limits};

use super::craft::*;
use super::support::*;

fn refused(bytes: Vec<u8>) -> ErrorKind {
    match open_bytes(bytes) {
        Err(error) => error.kind(),
        Ok(_) => panic!("opened"),
    }
}

/// Refused both for reading and for writing, and not changed by either.
fn malformed(change: impl Fn(&mut Vec<u8>)) {
    let mut bytes = good();
    change(&mut bytes);
    assert_eq!(refused(bytes.clone()), ErrorKind::Malformed);
    let storage = Arc::new(MemoryStorage::new("bad", bytes.clone()));
    let error = Vhdx::open_mut(storage.clone(), &ImageOptions::default()).err();
    assert_eq!(error.unwrap().kind(), ErrorKind::Malformed);
    assert!(storage.to_vec() == bytes, "the file was changed");
}

fn reads_well(bytes: Vec<u8>) -> Vhdx {
    let image = open_bytes(bytes).unwrap();
    let found = contents(&image);
    assert!(found[..3 << 20] == pattern(1, 3 << 20));
    assert!(found[3 << 20..].iter().all(|byte| *byte == 0));
    check_extents(&image, &found);
    image
}

#[test]
fn the_good_file_is_good() {
    assert!(reads_well(good()).info().warnings.is_empty());
}

#[test]
fn one_damaged_header_is_made_up_for_by_the_other() {
    for at in HEADERS {
        let mut bytes = good();
        bytes[at + 100] ^= 1;
        let image = reads_well(bytes.clone());
        assert_eq!(image.info().warnings.len(), 1);
        // A writer mends it.
        let storage = Arc::new(MemoryStorage::new("h", bytes));
        let image = open_mut_over(storage.clone(), None).unwrap();
        image.write_all_at(&[5], 7 << 20).unwrap();
        image.sync().unwrap();
        drop(image);
        let image = open_bytes(storage.to_vec()).unwrap();
        assert!(image.info().warnings.is_empty());
    }
    malformed(|bytes| HEADERS.iter().for_each(|at| bytes[at + 100] ^= 1));
}

#[test]
fn one_damaged_region_table_is_made_up_for_by_the_other() {
    for at in REGION_TABLES {
        let mut bytes = good();
        bytes[at + 100] ^= 1;
        assert_eq!(reads_well(bytes).info().warnings.len(), 1);
    }
    malformed(|bytes| REGION_TABLES.iter().for_each(|at| bytes[at + 100] ^= 1));
}

#[test]
fn two_headers_of_one_sequence_number_must_be_the_same_header() {
    let same = |bytes: &mut Vec<u8>| {
        change_headers(bytes, |header| put(header, 8, &77u64.to_le_bytes()));
    };
    let mut bytes = good();
    same(&mut bytes);
    reads_well(bytes);
    malformed(|bytes| {
        same(bytes);
        bytes[HEADERS[1] + 20] ^= 1;
        seal(&mut bytes[HEADERS[1]..HEADERS[1] + 4096]);
    });
}

#[test]
fn a_header_checked_with_the_wrong_polynomial_is_not_valid() {
    malformed(|bytes| {
        for at in HEADERS {
            bytes[at + 4..at + 8].fill(0);
            let sum = ieee(&bytes[at..at + 4096]);
            put(bytes, at + 4, &sum.to_le_bytes());
        }
    });
}

fn ieee(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ (0xEDB8_8320 & 0u32.wrapping_sub(sum & 1))
        })
    })
}

#[test]
fn two_blocks_never_share_a_range() {
    malformed(|bytes| {
        let first = entry(bytes, 0);
        set_entry(bytes, 5, first);
    });
}

#[test]
fn a_block_never_lies_over_header_log_tables_or_behind_the_end() {
    for mib in [0, 1, 2, 3, 7, 8, 1 << 30, (1 << 44) - 1] {
        malformed(|bytes| {
            assert_eq!(bytes.len(), 7 << 20);
            set_entry(bytes, 5, mib << 20 | 6);
        });
    }
}

#[test]
fn the_last_block_may_end_with_what_the_guest_sees() {
    let options = NewDisk::dynamic(4 * MIB + 4096).with_block_bytes(4 * MIB);
    let storage = new_image(&options);
    let image = open_mut_over(storage.clone(), None).unwrap();
    image.write_all_at(&pattern(3, 4096), 4 * MIB).unwrap();
    image.sync().unwrap();
    let mut bytes = storage.to_vec();
    assert_eq!(bytes.len(), 8 << 20);
    bytes.truncate((4 << 20) + 4096);
    let image = open_bytes(bytes.clone()).unwrap();
    assert!(contents(&image)[4 << 20..] == pattern(3, 4096));
    // What is written behind it does not lie on top of it.
    let storage = Arc::new(MemoryStorage::new("short", bytes.clone()));
    let image = open_mut_over(storage.clone(), None).unwrap();
    image.write_all_at(&[7; 4096], 0).unwrap();
    image.sync().unwrap();
    let found = contents(&open_bytes(storage.to_vec()).unwrap());
    assert!(found[4 << 20..] == pattern(3, 4096));
    bytes.truncate((4 << 20) + 4095);
    assert_eq!(refused(bytes), ErrorKind::Malformed);
}

#[test]
fn undefined_and_trimmed_blocks_read_as_zeros_also_in_fixed_files() {
    for fixed in [0, 1] {
        for entry in [
            1,
            3,
            1 | 6 << 20,
            3 | 6 << 20,
            3 | 1 << 40,
            2 | 6 << 20,
            5 << 20,
        ] {
            let mut bytes = good();
            let parameters = item_bytes_at(&bytes, FILE_PARAMETERS);
            bytes[parameters + 4] = fixed;
            set_entry(&mut bytes, 6, entry);
            reads_well(bytes);
        }
    }
}

#[test]
fn states_that_mean_nothing_are_refused() {
    for state in [4, 5, 7] {
        malformed(|bytes| set_entry(bytes, 6, state));
        malformed(|bytes| {
            let here = entry(bytes, 2) & !7;
            set_entry(bytes, 2, here | state);
        });
    }
}

#[test]
fn bits_that_must_be_zero_are() {
    for bit in 3..20 {
        malformed(|bytes| {
            let here = entry(bytes, 2);
            set_entry(bytes, 2, here | 1 << bit);
        });
    }
}

#[test]
fn the_block_table_covers_the_disk() {
    let size = |size: u64| {
        move |bytes: &mut Vec<u8>| {
            let at = item_bytes_at(bytes, DISK_SIZE);
            put(bytes, at, &size.to_le_bytes());
        }
    };
    malformed(size(64 << 40));
    malformed(size(131_105 << 20));
    malformed(size(1 << 63));
    malformed(size(u64::MAX - 511));
    malformed(size((64 << 40) + 512));
    malformed(size(0));
    malformed(size(8 * MIB + 1));
    let mut bytes = good();
    size(131_000 << 20)(&mut bytes);
    let image = open_bytes(bytes.clone()).unwrap();
    assert_eq!(image.disk_len(), 131_000 << 20);
    // Nor does a table that the file ends in.
    bytes.truncate(BAT + 4096);
    assert_eq!(refused(bytes), ErrorKind::Malformed);
}

#[test]
fn a_disk_longer_than_the_callers_limit_is_refused() {
    let storage = Arc::new(MemoryStorage::new("good", good()));
    let limits = Limits::default().with_disk_bytes(8 * MIB - 1);
    let error = Vhdx::open(storage, &ImageOptions::default().with_limits(limits)).err();
    assert_eq!(error.unwrap().kind(), ErrorKind::LimitExceeded);
}

#[test]
fn block_sizes_are_powers_of_two_from_1_to_256_mib() {
    for size in [0, 1, 512, 1 << 19, 3 << 20, 512 << 20, u32::MAX] {
        malformed(|bytes| {
            let at = item_bytes_at(bytes, FILE_PARAMETERS);
            put(bytes, at, &size.to_le_bytes());
        });
    }
}

#[test]
fn sector_sizes_are_512_and_4096() {
    for size in [0u32, 1, 520, 1024, 8192, u32::MAX] {
        malformed(|bytes| {
            let at = item_bytes_at(bytes, LOGICAL_SECTOR);
            put(bytes, at, &size.to_le_bytes());
        });
    }
}

#[test]
fn regions_lie_apart_on_whole_mib() {
    let region = |offset: u64, len: u32| {
        malformed(|bytes| {
            let at = region_at(bytes, BAT_ID);
            change_regions(bytes, |bytes| {
                put(bytes, at + 16, &offset.to_le_bytes());
                put(bytes, at + 24, &len.to_le_bytes());
            });
        });
    };
    region(METADATA as u64, 1 << 20);
    region(LOG as u64, 1 << 20);
    region(0, 1 << 20);
    region(3 * MIB + 4096, 1 << 20);
    region(3 * MIB, 4096);
    region(3 * MIB, 0);
    region(1 << 50, 1 << 20);
    region(u64::MAX - MIB + 1, 1 << 20);
    region(u64::MAX - 2 * MIB + 1, 1 << 20);
}

#[test]
fn a_region_comes_once_and_both_known_ones_are_there() {
    malformed(|bytes| {
        let at = region_at(bytes, BAT_ID);
        change_regions(bytes, |bytes| {
            put(bytes, at, &guid(7));
            bytes[at + 28] = 0;
        });
    });
    malformed(|bytes| {
        change_regions(bytes, |bytes| {
            let at = REGION_TABLES[0] + 16 + 64;
            put(bytes, at, &guid(BAT_ID));
            put(bytes, at + 16, &(9 * MIB).to_le_bytes());
            put(bytes, at + 24, &(MIB as u32).to_le_bytes());
            bytes[REGION_TABLES[0] + 8] = 3;
        });
    });
}

#[test]
fn unknown_regions_matter_only_when_they_are_required() {
    let with = |required: u32| {
        let mut bytes = good();
        bytes.resize(9 << 20, 0);
        change_regions(&mut bytes, |bytes| {
            let at = REGION_TABLES[0] + 16 + 64;
            put(bytes, at, &guid(7));
            put(bytes, at + 16, &(7 * MIB).to_le_bytes());
            put(bytes, at + 24, &(MIB as u32).to_le_bytes());
            put(bytes, at + 28, &required.to_le_bytes());
            bytes[REGION_TABLES[0] + 8] = 3;
        });
        bytes
    };
    reads_well(with(0));
    assert_eq!(refused(with(1)), ErrorKind::Unsupported);
    // It is not ours to write over.
    let storage = Arc::new(MemoryStorage::new("r", with(0)));
    let image = open_mut_over(storage.clone(), None).unwrap();
    image.write_all_at(&vec![9; 5 << 20], 3 * MIB).unwrap();
    image.sync().unwrap();
    assert!(
        storage.to_vec()[7 << 20..8 << 20]
            .iter()
            .all(|byte| *byte == 0)
    );
}

#[test]
fn unknown_items_matter_only_when_they_are_required() {
    for (flags, fine) in [(0u32, true), (1, true), (2, true), (4, false), (5, false)] {
        let mut bytes = good();
        let at = METADATA + 32 + 5 * 32;
        put(&mut bytes, at, &guid(7));
        put(&mut bytes, at + 16, &0x20000u32.to_le_bytes());
        put(&mut bytes, at + 20, &8u32.to_le_bytes());
        put(&mut bytes, at + 24, &flags.to_le_bytes());
        bytes[METADATA + 10] = 6;
        match fine {
            true => drop(reads_well(bytes)),
            false => assert_eq!(refused(bytes), ErrorKind::Unsupported),
        }
    }
}

#[test]
fn versions_that_nobody_defined_are_refused() {
    let mut bytes = good();
    change_headers(&mut bytes, |header| header[66] = 2);
    assert_eq!(refused(bytes), ErrorKind::Unsupported);
    let mut bytes = good();
    change_headers(&mut bytes, |header| header[64] = 1);
    reads_well(bytes.clone());
    mark_dirty(&mut bytes);
    assert_eq!(refused(bytes), ErrorKind::Unsupported);
}

#[test]
fn tables_count_no_more_entries_than_fit() {
    for count in [2048u32, 65535, u32::MAX] {
        malformed(|bytes| {
            change_regions(bytes, |bytes| {
                put(bytes, REGION_TABLES[0] + 8, &count.to_le_bytes());
            });
        });
    }
    for count in [2048u16, 65535] {
        malformed(|bytes| put(bytes, METADATA + 10, &count.to_le_bytes()));
    }
}

#[test]
fn items_lie_apart_inside_their_region() {
    let place = |offset: u32, len: u32| {
        malformed(|bytes| {
            let at = item_at(bytes, DISK_SIZE);
            put(bytes, at + 16, &offset.to_le_bytes());
            put(bytes, at + 20, &len.to_le_bytes());
        });
    };
    place(0, 8);
    place(0xFFFF, 8);
    place(0x10000, 8);
    place(0x10008, 0);
    place(0, 0);
    place(0x10008, 4);
    place(0xFFFFC, 8);
    place(0x20000, (1 << 20) + 1);
    place(u32::MAX, 8);
    place(u32::MAX, u32::MAX);
    malformed(|bytes| {
        let at = item_at(bytes, DISK_SIZE);
        put(bytes, at, &guid(FILE_PARAMETERS));
    });
}

#[test]
fn a_log_that_lies_nowhere_is_no_matter_while_it_is_empty() {
    let mut bytes = good();
    change_headers(&mut bytes, |header| header[68..80].fill(0));
    reads_well(bytes.clone());
    let storage = Arc::new(MemoryStorage::new("nolog", bytes.clone()));
    let error = Vhdx::open_mut(storage, &ImageOptions::default()).err();
    assert_eq!(error.unwrap().kind(), ErrorKind::Unsupported);
    mark_dirty(&mut bytes);
    assert_eq!(refused(bytes), ErrorKind::Malformed);
}

#[test]
fn a_header_that_can_take_no_update_is_not_written_to() {
    let mut bytes = good();
    change_headers(&mut bytes, |header| put(header, 8, &u64::MAX.to_le_bytes()));
    reads_well(bytes.clone());
    let storage = Arc::new(MemoryStorage::new("spent", bytes));
    let error = Vhdx::open_mut(storage, &ImageOptions::default()).err();
    assert_eq!(error.unwrap().kind(), ErrorKind::Unsupported);
}

#[test]
fn a_partial_block_needs_its_sector_bitmap_at_every_border_of_a_chunk() {
    // Blocks of 256 MiB and sectors of 512 bytes: 16 blocks a chunk.
    let parent = new_image(&NewDisk::dynamic(40 * 256 * MIB).with_block_bytes(256 * MIB));
    let parent: Arc<dyn Storage> = parent;
    for block in [0, 15, 16, 17, 31, 32] {
        let options = child_of(&parent, 256 * MIB);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("child.vhdx");
        let storage = Arc::new(diskdelta::storage::FileStorage::create_new(&path).unwrap());
        diskdelta::image::vhdx::create(&*storage, &options).unwrap();
        let image = open_mut_over(storage.clone(), Some(&parent)).unwrap();
        let at = block * 256 * MIB + 512 * 77;
        image.write_all_at(&pattern(block, 512), at).unwrap();
        image.sync().unwrap();
        drop(image);
        let image = open_over(storage.clone(), Some(&parent)).unwrap();
        let mut found = vec![0; 1536];
        image.read_exact_at(&mut found, at - 512).unwrap();
        assert!(found[512..1024] == pattern(block, 512));
        assert!(
            found[..512]
                .iter()
                .chain(&found[1024..])
                .all(|byte| *byte == 0)
        );
        let extent = image.next_extent(at).unwrap().unwrap();
        assert_eq!((extent.offset, extent.len), (at, 512));
        // The bitmap of the chunk, taken away.
        let bitmap_entry = BAT as u64 + ((block / 16 + 1) * 16 + block / 16) * 8;
        storage.write_all_at(&[0; 8], bitmap_entry).unwrap();
        let error = open_over(storage.clone(), Some(&parent)).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Malformed);
        storage.write_all_at(&[2], bitmap_entry).unwrap();
        assert!(open_over(storage, Some(&parent)).is_err());
    }
}

fn file(bytes: Vec<u8>) -> Arc<dyn Storage> {
    Arc::new(MemoryStorage::new("parent.vhdx", bytes))
}

fn parent_error(child: &Arc<MemoryStorage>, parent: Option<&Arc<dyn Storage>>) -> String {
    let error = open_over(child.clone(), parent).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Parent);
    error.to_string()
}

#[test]
fn a_parent_is_the_one_that_is_meant_or_is_refused() {
    let parent = file(good());
    let child = new_image(&child_of(&parent, MIB));
    let image = open_over(child.clone(), Some(&parent)).unwrap();
    assert!(contents(&image)[..3 << 20] == pattern(1, 3 << 20));
    assert_eq!(image.allocated_bytes().unwrap(), 0);
    assert_eq!(image.info().layout.name(), "differencing");
    let locator = image.parent_locator().unwrap();
    assert_eq!(locator.relative_path.as_deref(), Some(".\\parent.vhdx"));
    assert!(parent_error(&child, None).contains(&Advice::Parent.to_string()));
    assert!(parent_error(&child, Some(&file(vec![0; 99]))).contains("is no VHDX"));
    // One that was written to since.
    let changed = file(good());
    let image = open_mut_over(changed.clone(), None).unwrap();
    image.write_all_at(&[1], 0).unwrap();
    image.sync().unwrap();
    assert!(parent_error(&child, Some(&changed)).contains("data write GUID"));
    // The right one among others.
    let several = Offer(vec![changed, file(Vec::new()), parent.clone()]);
    let options = ImageOptions::default().with_gate(Arc::new(several));
    Vhdx::open(child.clone(), &options).unwrap();
    // Other sectors under the GUID that is asked for.
    let mut bytes = good();
    let at = item_bytes_at(&bytes, LOGICAL_SECTOR);
    put(&mut bytes, at, &4096u32.to_le_bytes());
    assert!(parent_error(&child, Some(&file(bytes))).contains("sectors"));
    // A disk id that was reset, as tools do to attach a copy: the linkage is what counts.
    let mut bytes = good();
    let at = item_bytes_at(&bytes, DISK_ID);
    put(&mut bytes, at, &0u32.to_le_bytes());
    let image = open_over(child.clone(), Some(&file(bytes))).unwrap();
    assert!(image.info().warnings[0].contains("disk id"));
    assert!(contents(&image)[..3 << 20] == pattern(1, 3 << 20));
}

const DISK_ID: u128 = 0xBECA12AB_B2E6_4523_93EF_C309E000C746;

#[test]
fn a_child_longer_than_its_parent_has_zeros_there() {
    for len in [2 * MIB + 512, 12 * MIB] {
        let parent = file(good());
        let child = new_image(&child_of(&parent, MIB));
        let mut bytes = child.to_vec();
        let at = item_bytes_at(&bytes, DISK_SIZE);
        put(&mut bytes, at, &len.to_le_bytes());
        let image = open_over(file(bytes), Some(&parent)).unwrap();
        assert_eq!(image.info().warnings.len(), 1);
        let found = contents(&image);
        let data = found.len().min(3 << 20);
        assert!(found[..data] == pattern(1, data));
        assert!(found[data..].iter().all(|byte| *byte == 0));
        check_extents(&image, &found);
    }
}

#[test]
fn the_cost_of_extents_does_not_multiply_along_a_chain() {
    let base = new_image(&NewDisk::dynamic(24 * MIB).with_block_bytes(MIB));
    let image = open_mut_over(base.clone(), None).unwrap();
    // Neighbours that do not lie in one row, so that each is an extent to be merged.
    for block in (0..24).rev() {
        image
            .write_all_at(&pattern(block, 4096), block * MIB)
            .unwrap();
    }
    image.sync().unwrap();
    drop(image);
    let mut files: Vec<Arc<dyn Storage>> = vec![base];
    for _ in 0..12 {
        let options = ImageOptions::default().with_gate(Arc::new(Offer(files.clone())));
        let parent = Vhdx::open(files[files.len() - 1].clone(), &options).unwrap();
        let layout = NewDisk::child_of(&parent, "p.vhdx").with_block_bytes(MIB);
        files.push(new_image(&layout));
    }
    let child = files.pop().unwrap();
    let options = ImageOptions::default().with_gate(Arc::new(Offer(files)));
    let image = Vhdx::open(child, &options).unwrap();
    check_extents(&image, &contents(&image));
}

#[test]
fn an_entry_behind_the_end_of_the_disk_names_no_byte_of_it() {
    let parent = file(good());
    let child = new_image(&child_of(&parent, MIB)).to_vec();
    // The last chunk of a child has entries for blocks that the disk does not reach.
    for (place, opens) in [(child.len() as u64, true), (99 * MIB, false)] {
        let mut bytes = child.clone();
        set_entry(&mut bytes, 20, place | 6);
        match open_over(file(bytes), Some(&parent)) {
            Ok(image) => {
                assert!(opens);
                check_extents(&image, &contents(&image));
            }
            Err(error) => assert!(!opens && error.kind() == ErrorKind::Malformed, "{error}"),
        }
    }
}

#[test]
fn a_chain_of_parents_ends_at_the_limit_and_where_it_comes_back_to_itself() {
    let mut files = vec![file(good())];
    let limits = Limits::default().with_chain_count(4);
    let options = |files: &[Arc<dyn Storage>]| {
        ImageOptions::default()
            .with_limits(limits.clone())
            .with_gate(Arc::new(Offer(files.to_vec())))
    };
    for depth in 1..=5 {
        let parent = files.last().unwrap().clone();
        let layout = NewDisk::child_of(&Vhdx::open(parent, &options(&files)).unwrap(), "p.vhdx");
        let child: Arc<dyn Storage> = new_image(&layout);
        match Vhdx::open(child.clone(), &options(&files)) {
            Ok(image) => assert!(contents(&image)[..3 << 20] == pattern(1, 3 << 20)),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::LimitExceeded);
                assert_eq!(depth, 5);
                break;
            }
        }
        files.push(child);
    }
    assert_eq!(files.len(), 5);
    // A child that is its own parent.
    let mut bytes = new_image(&child_of(&files[0], MIB)).to_vec();
    let own = open_over(files[0].clone(), None).unwrap().data_write_guid();
    change_headers(&mut bytes, |header| put(header, 32, &own.to_disk()));
    let ring = file(bytes);
    let error = Vhdx::open(ring.clone(), &options(&[ring])).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Malformed);
}

#[test]
fn locators_of_another_kind_or_without_linkage_are_refused() {
    let parent = file(good());
    let child = new_image(&child_of(&parent, MIB)).to_vec();
    let at = item_bytes_at(&child, LOCATOR);
    // Kind, first character of the first key, first digit of the linkage, of the path's key.
    for spoiled in [at, at + 44, at + 20 + 24 + 28 + 2, at + 20 + 24 + 28 + 76] {
        let mut bytes = child.clone();
        bytes[spoiled] = b'x';
        let storage = Arc::new(MemoryStorage::new("c", bytes));
        let error = open_over(storage, Some(&parent)).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Malformed, "{}", spoiled - at);
    }
    // Flagged as differencing without any locator.
    malformed(|bytes| {
        let parameters = item_bytes_at(bytes, FILE_PARAMETERS);
        bytes[parameters + 4] = 2;
    });
}

#[test]
fn counts_and_places_in_a_locator_are_held_against_its_length() {
    let parent = file(good());
    let child = new_image(&child_of(&parent, MIB)).to_vec();
    let at = item_bytes_at(&child, LOCATOR);
    let pair = at + 20;
    // Pairs; where key and value begin; how long they are: too much, nothing, half a character.
    let spoiled: [(usize, &[u8]); 10] = [
        (at + 18, &[0xff, 0xff]),
        (at + 18, &[0x01, 0x01]),
        (pair, &[0xff, 0xff, 0xff, 0xff]),
        (pair, &[0xfe, 0xff, 0x0f, 0x00]),
        (pair + 4, &[0xff, 0xff, 0xff, 0x7f]),
        (pair + 8, &[0, 0]),
        (pair + 8, &[0xff, 0xff]),
        (pair + 10, &[0, 0]),
        (pair + 10, &[75, 0]),
        (pair + 10, &[0xfe, 0xff]),
    ];
    for (place, value) in spoiled {
        let mut bytes = child.clone();
        put(&mut bytes, place, value);
        let storage = Arc::new(MemoryStorage::new("c", bytes));
        let error = open_over(storage, Some(&parent)).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Malformed, "{}", place - at);
    }
    // The same key twice.
    let mut bytes = child;
    bytes.copy_within(pair..pair + 12, pair + 12);
    let storage = Arc::new(MemoryStorage::new("c", bytes));
    let error = open_over(storage, Some(&parent)).err().unwrap();
    assert!(error.to_string().contains("comes twice"), "{error}");
}

#[test]
fn every_cut_and_every_flipped_byte_of_the_structures_is_an_error_or_harmless() {
    let good = good();
    let expect = pattern(1, 3 << 20);
    for len in (0..good.len()).step_by(37 * 1024) {
        assert_eq!(refused(good[..len].to_vec()), ErrorKind::Malformed);
    }
    let storage = Arc::new(MemoryStorage::new("flip", good.clone()));
    let places = [
        (0, 16),
        (HEADERS[1], 96),
        (REGION_TABLES[0], 96),
        (METADATA, 224),
        (METADATA + (64 << 10), 40),
        (BAT, 64),
    ];
    for (start, len) in places {
        for (at, was) in good.iter().enumerate().skip(start).take(len) {
            for bit in [0, 3, 7] {
                storage.write_all_at(&[was ^ 1 << bit], at as u64).unwrap();
                if let Ok(image) = open_over(storage.clone(), None) {
                    let mut found = vec![0; 4096];
                    let len = image.disk_len().min(4096) as usize;
                    image.read_exact_at(&mut found[..len], 0).unwrap();
                    if start < METADATA {
                        assert!(found == expect[..4096]);
                    }
                }
                storage.write_all_at(&[*was], at as u64).unwrap();
            }
        }
    }
}
