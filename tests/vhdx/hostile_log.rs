//! Logs: dirty, torn, stale, wrapped, hostile.

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use diskdelta::image::vhdx::Vhdx;
use diskdelta::image::{ImageMut, ImageOptions};
use diskdelta::storage::{MemoryStorage, Storage};
use diskdelta::{ErrorKind, Limits, Result};

use super::craft::*;
use super::support::*;

/// The first page of the good file's block table.
fn table() -> Vec<u8> {
    static TABLE: LazyLock<Vec<u8>> = LazyLock::new(|| good()[BAT..BAT + 4096].to_vec());
    TABLE.clone()
}

/// The block table's first page, with the third block gone and a page of zeros after it.
fn new_table() -> LogChange {
    let mut bytes = table();
    bytes[16..24].fill(0);
    LogChange::Page {
        offset: BAT as u64,
        bytes,
    }
}

/// A file whose log drops the third block, in one entry at `at`.
fn dirty(entries: &[(usize, LogEntry)]) -> Vec<u8> {
    let mut bytes = good();
    bytes[LOG..LOG + (1 << 20)].fill(0);
    for (at, entry) in entries {
        put_log(&mut bytes, *at, &entry.encode());
    }
    mark_dirty(&mut bytes);
    bytes
}

/// How many MiB of data are left of three, once the log is replayed; the same for reading and
/// for writing.
fn replayed(bytes: Vec<u8>) -> Result<usize> {
    let storage = Arc::new(MemoryStorage::new("dirty", bytes.clone()));
    let read_only = Vhdx::open(storage.clone(), &ImageOptions::default());
    assert!(storage.to_vec() == bytes, "opening for reading wrote");
    let writing = Vhdx::open_mut(storage.clone(), &ImageOptions::default());
    let image = match (read_only, writing) {
        (Ok(read_only), Ok(writing)) => {
            assert!(contents(&read_only) == contents(&writing));
            drop(writing);
            // Clean now, for a reader that knows no logs.
            let after = storage.to_vec();
            for at in HEADERS {
                assert_eq!(after[at + 48..at + 64], [0; 16]);
            }
            assert!(contents(&open_bytes(after).unwrap()) == contents(&read_only));
            read_only
        }
        (Err(error), Err(other)) => {
            assert_eq!(error.kind(), other.kind());
            assert!(storage.to_vec() == bytes, "a refused file was changed");
            return Err(error);
        }
        (read_only, writing) => panic!("{:?} but {:?}", read_only.err(), writing.err()),
    };
    let found = contents(&image);
    check_extents(&image, &found);
    let data = found
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(found.len());
    assert!(found[..data] == pattern(1, data));
    assert!(found[data..].iter().all(|byte| *byte == 0));
    Ok(data >> 20)
}

fn malformed(bytes: Vec<u8>) {
    match replayed(bytes) {
        Err(error) => assert_eq!(error.kind(), ErrorKind::Malformed, "{error}"),
        Ok(_) => panic!("opened"),
    }
}

fn one() -> LogEntry {
    LogEntry::new(1, 0, vec![new_table()])
}

/// Replays of these drop one more block each.
fn drop_block(sequence: u64, tail: u32, block: usize) -> LogEntry {
    let mut bytes = table();
    bytes[block * 8..24].fill(0);
    let offset = BAT as u64;
    LogEntry::new(sequence, tail, vec![LogChange::Page { offset, bytes }])
}

#[test]
fn a_dirty_log_is_replayed_wherever_it_lies() {
    assert_eq!(replayed(good()).unwrap(), 3);
    for at in [0, 4096, 500 << 10, (1 << 20) - 4096] {
        let mut entry = one();
        entry.tail = at as u32;
        assert_eq!(replayed(dirty(&[(at, entry)])).unwrap(), 2, "at {at:#x}");
    }
}

#[test]
fn entries_are_replayed_from_the_tail_of_the_last_one() {
    let all = [
        (0, drop_block(5, 0, 2)),
        (8192, drop_block(6, 0, 1)),
        (16384, drop_block(7, 8192, 2)),
    ];
    // The last one wins, whatever came before.
    assert_eq!(replayed(dirty(&all)).unwrap(), 2);
    assert_eq!(replayed(dirty(&all[..2])).unwrap(), 1);
    // Its tail is not in the sequence.
    malformed(dirty(&all[2..]));
    // A hole in the numbers ends a sequence; of two, the later one counts.
    let mut gap = all.to_vec();
    gap[2].1 = drop_block(9, 16384, 0);
    assert_eq!(replayed(dirty(&gap)).unwrap(), 0);
    gap[2].1 = drop_block(4, 16384, 0);
    assert_eq!(replayed(dirty(&gap)).unwrap(), 1);
}

#[test]
fn a_torn_or_stale_last_entry_leaves_the_ones_before() {
    let all = [(0, drop_block(5, 0, 2)), (8192, drop_block(6, 0, 1))];
    for spoiled in [
        8192,
        8192 + 40,
        8192 + 70,
        8192 + 4096,
        8192 + 5000,
        8192 + 8188,
    ] {
        let mut bytes = dirty(&all);
        bytes[LOG + spoiled] ^= 1;
        assert_eq!(replayed(bytes).unwrap(), 2, "byte {spoiled}");
    }
}

#[test]
fn a_sequence_wraps_around_the_end_of_the_log() {
    let start = (1 << 20) - 12288;
    let tail = start as u32;
    let all = [
        (start, drop_block(5, tail, 2)),
        (start + 8192, drop_block(6, tail, 1)),
        (4096, drop_block(7, tail, 0)),
    ];
    assert_eq!(replayed(dirty(&all)).unwrap(), 0);
    assert_eq!(replayed(dirty(&all[..2])).unwrap(), 1);
}

#[test]
fn a_log_that_counts_but_holds_nothing_is_refused() {
    malformed(dirty(&[]));
    let mut bytes = dirty(&[(0, one())]);
    change_headers(&mut bytes, |header| put(header, 48, &guid(99)));
    malformed(bytes);
}

#[test]
fn a_log_that_is_exactly_full_is_replayed() {
    let entry = |index: usize| (index * 8192, drop_block(index as u64 + 1, 0, 2));
    let entries: Vec<_> = (0..128).map(entry).collect();
    assert_eq!(replayed(dirty(&entries)).unwrap(), 2);
    // One entry that fills it, too.
    let pages = (1..254).map(|index| LogChange::Page {
        offset: BAT as u64 + index * 4096,
        bytes: vec![0; 4096],
    });
    let mut changes = vec![new_table()];
    changes.extend(pages);
    let mut entry = LogEntry::new(1, 0, changes);
    assert_eq!(entry.encode().len(), 1 << 20);
    assert_eq!(replayed(dirty(&[(0, entry.clone())])).unwrap(), 2);
    entry.tail = 4096;
    assert_eq!(replayed(dirty(&[(4096, entry)])).unwrap(), 2);
}

/// Counts the bytes that are read.
struct Counted {
    below: MemoryStorage,
    read_bytes: AtomicU64,
}

impl Storage for Counted {
    fn path(&self) -> &Path {
        self.below.path()
    }
    fn len(&self) -> Result<u64> {
        self.below.len()
    }
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.read_bytes
            .fetch_add(buf.len() as u64, Ordering::Relaxed);
        self.below.read_exact_at(buf, offset)
    }
    fn write_all_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.below.write_all_at(buf, offset)
    }
    fn set_len(&self, len: u64) -> Result<()> {
        self.below.set_len(len)
    }
    fn sync(&self) -> Result<()> {
        self.below.sync()
    }
    fn punch_hole(&self, range: Range<u64>) -> Result<()> {
        self.below.punch_hole(range)
    }
    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>> {
        self.below.next_data(offset)
    }
}

/// A log of `pages` pages behind the blocks of the good file.
fn long_log(pages: usize, page: impl Fn(usize) -> Vec<u8>) -> Vec<u8> {
    let mut bytes = good();
    let start = bytes.len();
    for index in 0..pages {
        let entry = page(index);
        assert_eq!(entry.len(), 4096);
        bytes.extend(entry);
    }
    change_headers(&mut bytes, |header| {
        put(header, 68, &((pages * 4096) as u32).to_le_bytes());
        put(header, 72, &(start as u64).to_le_bytes());
    });
    mark_dirty(&mut bytes);
    bytes
}

#[test]
fn a_long_log_of_good_entries_with_a_bad_tail_is_read_once_and_refused() {
    let pages = (64 << 20) / 4096;
    let bytes = long_log(pages, |index| {
        // Every entry is good and the next of the one before; the tail is that of none of them.
        LogEntry::new(index as u64 + 2, 4096, Vec::new()).encode()
    });
    let mut cut = bytes.clone();
    cut[(7 << 20) + 4096..(7 << 20) + 8192].fill(0);
    let len = cut.len() as u64;
    let storage = Arc::new(Counted {
        below: MemoryStorage::new("long log", cut),
        read_bytes: AtomicU64::new(0),
    });
    let error = open_over(storage.clone(), None).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Malformed);
    // Once for each possible start would be thousands of times.
    assert!(storage.read_bytes.load(Ordering::Relaxed) < 3 * len);
    assert_eq!(replayed(bytes).unwrap(), 3);
}

#[test]
fn a_log_longer_than_the_callers_limit_is_refused() {
    let storage = Arc::new(MemoryStorage::new("dirty", dirty(&[(0, one())])));
    let limits = Limits::default().with_log_bytes(MIB - 1);
    let error = Vhdx::open(storage, &ImageOptions::default().with_limits(limits)).err();
    assert_eq!(error.unwrap().kind(), ErrorKind::LimitExceeded);
}

#[test]
fn a_log_that_does_not_lie_inside_the_file_is_refused() {
    for (offset, len) in [
        (MIB, 0u32),
        (0, 1 << 20),
        (MIB + 4096, 1 << 20),
        (7 * MIB, 1 << 20),
        (6 * MIB, 2 << 20),
        (u64::MAX - MIB + 1, 1 << 20),
        (MIB, u32::MAX),
    ] {
        let mut bytes = dirty(&[(0, one())]);
        change_headers(&mut bytes, |header| {
            put(header, 68, &len.to_le_bytes());
            put(header, 72, &offset.to_le_bytes());
        });
        malformed(bytes);
    }
}

#[test]
fn zeroed_ranges_are_bounded_by_the_file() {
    let zero = |offset: u64, len: u64| {
        let changes = vec![LogChange::Zero { offset, len }];
        dirty(&[(0, LogEntry::new(1, 0, changes))])
    };
    // The whole table.
    assert_eq!(replayed(zero(BAT as u64, MIB)).unwrap(), 0);
    assert_eq!(replayed(zero(BAT as u64, 0)).unwrap(), 3);
    malformed(zero(BAT as u64, 1 << 40));
    malformed(zero(BAT as u64, u64::MAX - 4095));
    malformed(zero(u64::MAX - 4095, 4096));
    malformed(zero(7 * MIB, 4096));
}

#[test]
fn a_log_never_changes_headers_or_itself() {
    for offset in [0, 4096, 64 << 10, 188 << 10, MIB, 2 * MIB - 4096] {
        let changes = vec![LogChange::Zero { offset, len: 4096 }];
        malformed(dirty(&[(0, LogEntry::new(1, 0, changes))]));
        let bytes = vec![1; 4096];
        let changes = vec![LogChange::Page { offset, bytes }];
        malformed(dirty(&[(0, LogEntry::new(1, 0, changes))]));
    }
    let changes = vec![LogChange::Zero {
        offset: 188 << 10,
        len: 8192,
    }];
    malformed(dirty(&[(0, LogEntry::new(1, 0, changes))]));
}

#[test]
fn the_region_tables_may_be_changed_by_the_log() {
    let mut bytes = dirty(&[]);
    let good_tables = bytes[REGION_TABLES[0]..REGION_TABLES[0] + 8192].to_vec();
    bytes[REGION_TABLES[0]..REGION_TABLES[1] + (64 << 10)].fill(0xAA);
    let changes = vec![
        LogChange::Zero {
            offset: REGION_TABLES[0] as u64,
            len: 64 << 10,
        },
        LogChange::Page {
            offset: REGION_TABLES[0] as u64,
            bytes: good_tables[..4096].to_vec(),
        },
    ];
    put_log(&mut bytes, 0, &LogEntry::new(1, 0, changes).encode());
    assert_eq!(replayed(bytes).unwrap(), 3);
}

#[test]
fn an_absurd_file_length_allocates_nothing_and_is_not_written() {
    let mut entry = one();
    entry.last = 1 << 62;
    let storage = Arc::new(MemoryStorage::new("dirty", dirty(&[(0, entry)])));
    let image = open_over(storage.clone(), None).unwrap();
    assert!(contents(&image)[..2 << 20] == pattern(1, 2 << 20));
    let error = open_mut_over(storage, None).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
}

#[test]
fn a_log_may_make_the_file_longer() {
    let mut entry = one();
    entry.last = 9 * MIB;
    assert_eq!(replayed(dirty(&[(0, entry.clone())])).unwrap(), 2);
    // A page behind the old end, and a block there.
    let LogChange::Page { bytes, .. } = &mut entry.changes[0] else {
        unreachable!()
    };
    put(bytes, 16, &((8 * MIB) | 6).to_le_bytes());
    let page = pattern(1, (2 << 20) + 4096)[2 << 20..].to_vec();
    entry.changes.push(LogChange::Page {
        offset: 8 * MIB,
        bytes: page,
    });
    let storage = Arc::new(MemoryStorage::new("dirty", dirty(&[(0, entry)])));
    let expect = pattern(1, (2 << 20) + 4096);
    let read_only = open_over(storage.clone(), None).unwrap();
    assert!(contents(&read_only)[..expect.len()] == expect);
    let writing = open_mut_over(storage, None).unwrap();
    assert!(contents(&writing) == contents(&read_only));
}

#[test]
fn a_file_that_was_cut_after_its_log_was_written_is_refused() {
    let mut entry = one();
    entry.flushed = 8 * MIB;
    malformed(dirty(&[(0, entry)]));
}

#[test]
fn counts_and_lengths_that_do_not_fit_make_an_entry_invalid() {
    let spoil = |at: usize, value: &[u8]| {
        let mut entry = one().encode();
        put(&mut entry, at, value);
        seal(&mut entry);
        let mut bytes = dirty(&[]);
        put_log(&mut bytes, 0, &entry);
        malformed(bytes);
    };
    for count in [0, 2, 127, 1 << 20, u32::MAX] {
        spoil(24, &u32::to_le_bytes(count));
    }
    for len in [
        0u32,
        1,
        4095,
        4096,
        12288,
        1 << 21,
        u32::MAX,
        u32::MAX - 4095,
    ] {
        spoil(8, &len.to_le_bytes());
    }
    for tail in [1u32, 4096, 1 << 20, u32::MAX] {
        spoil(12, &tail.to_le_bytes());
    }
    spoil(16, &0u64.to_le_bytes());
    spoil(64, b"what");
    spoil(64 + 16, &1u64.to_le_bytes());
    spoil(64 + 24, &2u64.to_le_bytes());
    spoil(4096, b"what");
    spoil(4096 + 4, &1u32.to_le_bytes());
    spoil(4096 + 4092, &2u32.to_le_bytes());
}

#[test]
fn sequence_numbers_at_the_end_of_their_range_do_not_overflow() {
    let all = [
        (0, drop_block(u64::MAX - 1, 0, 2)),
        (8192, drop_block(u64::MAX, 0, 1)),
        (16384, drop_block(1, 16384, 0)),
    ];
    assert_eq!(replayed(dirty(&all)).unwrap(), 1);
}

#[test]
fn a_dirty_file_is_clean_and_of_a_new_name_after_it_was_written_to() {
    let storage = Arc::new(MemoryStorage::new("dirty", dirty(&[(0, one())])));
    let before = open_over(storage.clone(), None).unwrap();
    let image = open_mut_over(storage.clone(), None).unwrap();
    assert_eq!(image.data_write_guid(), before.data_write_guid());
    image.write_all_at(&[9; 100], 5 * MIB).unwrap();
    image.sync().unwrap();
    assert_ne!(image.data_write_guid(), before.data_write_guid());
    let after = open_over(storage, None).unwrap();
    assert_eq!(after.data_write_guid(), image.data_write_guid());
    assert!(contents(&after) == contents(&image));
    assert_eq!(contents(&after)[5 << 20..][..100], [9; 100]);
}
