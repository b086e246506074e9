//! The contract of [`Storage`], sentence by sentence.
#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

use std::ops::Range;
use std::sync::Arc;

use crate::error::{ErrorKind, Result};
use crate::storage::Storage;

/// Holds each sentence of the contract of [`Storage`] against a fresh storage.
///
/// `make` is called once a sentence, with the bytes that the storage is to hold; it returns what
/// must outlive the storage (a temporary directory, or `()`), and the storage. A storage of fixed
/// length may refuse to grow; all else is asked of every one.
///
/// # Panics
/// Where the storage breaks the contract.
///
/// # Examples
/// ```
/// use std::sync::Arc;
///
/// use diskdelta::{MemoryStorage, testing::storage_contract};
///
/// storage_contract(|bytes| ((), Arc::new(MemoryStorage::new("mine", bytes))));
/// ```
pub fn storage_contract<K>(make: impl Fn(Vec<u8>) -> (K, Arc<dyn Storage>)) {
    let sentences: [fn(&dyn Storage); 15] = [
        reads_give_the_bytes_at_any_offset_and_length,
        reads_past_the_end_are_an_io_error_and_nothing_is_read_short,
        empty_reads_and_writes_succeed_anywhere_and_change_nothing,
        writes_are_read_back_at_once_and_leave_their_neighbours,
        writes_past_the_end_extend_with_zeros_or_are_refused,
        ranges_beyond_2_to_the_64_are_refused,
        an_empty_hole_is_nothing_to_do,
        a_cut_and_regrown_row_reads_as_zeros_there,
        a_fixed_length_stays,
        a_hole_reads_as_zeros_and_its_neighbours_stay,
        a_hole_outside_the_row_is_refused,
        next_data_finds_every_byte_that_is_not_zero,
        reserving_keeps_contents_and_length,
        hints_and_sync_change_nothing_that_can_be_read,
        many_threads_may_use_it_at_once,
    ];
    for sentence in sentences {
        let (keep, storage) = make(content());
        sentence(&*storage);
        drop((storage, keep));
    }
}

fn reads_give_the_bytes_at_any_offset_and_length(storage: &dyn Storage) {
    assert_eq!(storage.len().unwrap(), LEN);
    assert!(!storage.is_empty().unwrap());
    let bytes = content();
    for range in ranges() {
        assert!(
            read(storage, &range).unwrap() == bytes[index(&range)],
            "{range:x?}"
        );
    }
}

fn reads_past_the_end_are_an_io_error_and_nothing_is_read_short(storage: &dyn Storage) {
    for range in [
        0..LEN + 1,
        LEN - 1..LEN + 1,
        LEN..LEN + 1,
        LEN + 8192..LEN + 8193,
    ] {
        let error = read(storage, &range).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io, "{range:x?}");
        assert_eq!(error.offset(), Some(LEN), "{range:x?}");
    }
    let far = storage
        .read_exact_at(&mut [0], u64::MAX - 4096)
        .unwrap_err();
    assert_eq!(far.kind(), ErrorKind::Io);
}

fn empty_reads_and_writes_succeed_anywhere_and_change_nothing(storage: &dyn Storage) {
    for offset in [0, 7, LEN, LEN + 1, LEN * 1000] {
        storage.read_exact_at(&mut [], offset).unwrap();
        storage.write_all_at(&[], offset).unwrap();
    }
    assert_holds(storage, &content());
}

fn writes_are_read_back_at_once_and_leave_their_neighbours(storage: &dyn Storage) {
    let mut bytes = content();
    for range in ranges() {
        bytes[index(&range)].fill(0xa5);
        storage
            .write_all_at(&bytes[index(&range)], range.start)
            .unwrap();
        assert_holds(storage, &bytes);
        let around = range.start.saturating_sub(5000)..(range.end + 5000).min(LEN);
        assert!(read(storage, &around).unwrap() == bytes[index(&around)]);
    }
    storage.sync().unwrap();
    assert_holds(storage, &bytes);
}

fn writes_past_the_end_extend_with_zeros_or_are_refused(storage: &dyn Storage) {
    let mut bytes = content();
    for offset in [LEN - 1, LEN + 1, LEN + 9000] {
        let outcome = storage.write_all_at(b"xyz", offset);
        if storage.has_fixed_len() {
            assert_eq!(outcome.unwrap_err().kind(), ErrorKind::InvalidInput);
        } else {
            outcome.unwrap();
            let end = offset as usize + 3;
            bytes.resize(end.max(bytes.len()), 0);
            bytes[end - 3..end].copy_from_slice(b"xyz");
        }
        assert_holds(storage, &bytes);
    }
}

fn ranges_beyond_2_to_the_64_are_refused(storage: &dyn Storage) {
    for outcome in [
        storage.read_exact_at(&mut [0; 8], u64::MAX - 4),
        storage.write_all_at(&[0; 8], u64::MAX - 4),
    ] {
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}

fn a_cut_and_regrown_row_reads_as_zeros_there(storage: &dyn Storage) {
    if storage.has_fixed_len() {
        return;
    }
    let mut bytes = content();
    for len in [LEN - 1, LEN + 70_000, 4097, 5000, 0, 12_288] {
        storage.set_len(len).unwrap();
        bytes.resize(len as usize, 0);
        assert_holds(storage, &bytes);
    }
    storage.sync().unwrap();
}

fn a_fixed_length_stays(storage: &dyn Storage) {
    if !storage.has_fixed_len() {
        return;
    }
    storage.set_len(LEN).unwrap();
    for len in [0, LEN - 512, LEN + 512] {
        assert_eq!(
            storage.set_len(len).unwrap_err().kind(),
            ErrorKind::Unsupported
        );
    }
    assert_holds(storage, &content());
}

fn a_hole_reads_as_zeros_and_its_neighbours_stay(storage: &dyn Storage) {
    let mut bytes = content();
    for range in ranges() {
        storage.punch_hole(range.clone()).unwrap();
        bytes[index(&range)].fill(0);
        assert_holds(storage, &bytes);
    }
    storage.sync().unwrap();
    storage.drop_cache(0..LEN);
    assert_holds(storage, &bytes);
}

fn an_empty_hole_is_nothing_to_do(storage: &dyn Storage) {
    for at in [0, 4096, LEN] {
        storage.punch_hole(at..at).unwrap();
    }
    assert_holds(storage, &content());
}

fn a_hole_outside_the_row_is_refused(storage: &dyn Storage) {
    let backwards = Range {
        start: 8192,
        end: 4096,
    };
    for range in [LEN - 1..LEN + 1, LEN + 1..LEN + 2, 0..u64::MAX, backwards] {
        let error = storage.punch_hole(range.clone()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{range:x?}");
    }
    assert_holds(storage, &content());
}

fn next_data_finds_every_byte_that_is_not_zero(storage: &dyn Storage) {
    storage.punch_hole(4096..65536).unwrap();
    storage.punch_hole(200_000..700_001).unwrap();
    storage.punch_hole(LEN - 30_000..LEN).unwrap();
    storage.sync().unwrap();
    let mut rebuilt = vec![0; LEN as usize];
    let mut at = 0;
    while let Some(data) = storage.next_data(at).unwrap() {
        assert!(at <= data.start && data.start < data.end && data.end <= LEN);
        let bytes = read(storage, &data).unwrap();
        rebuilt[index(&data)].copy_from_slice(&bytes);
        at = data.end;
    }
    assert_holds(storage, &rebuilt);
    let inside = storage.next_data(100).unwrap().unwrap();
    assert_eq!(inside.start, 100);
    for offset in [LEN, LEN + 1, u64::MAX] {
        assert_eq!(storage.next_data(offset).unwrap(), None);
    }
}

fn reserving_keeps_contents_and_length(storage: &dyn Storage) {
    storage.reserve(4096..4096).unwrap();
    storage.punch_hole(4096..500_000).unwrap();
    let mut bytes = content();
    bytes[4096..500_000].fill(0);
    for range in [0..LEN, LEN - 5..LEN + 100_000, 5..5] {
        storage.reserve(range).unwrap();
        assert_holds(storage, &bytes);
    }
}

fn hints_and_sync_change_nothing_that_can_be_read(storage: &dyn Storage) {
    for range in [
        0..LEN,
        1..2,
        LEN..LEN + 5,
        0..u64::MAX,
        u64::MAX - 1..u64::MAX,
    ] {
        storage.will_read(range.clone());
        storage.drop_cache(range);
    }
    storage.sync().unwrap();
    storage.sync().unwrap();
    assert_holds(storage, &content());
}

fn many_threads_may_use_it_at_once(storage: &dyn Storage) {
    let bytes = content();
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let bytes = &bytes;
            scope.spawn(move || {
                for turn in 0..8 {
                    let at = 300_000 + u64::from(thread) * 50_001;
                    storage
                        .write_all_at(&vec![thread + turn; 50_001], at)
                        .unwrap();
                    let own = read(storage, &(at..at + 50_001)).unwrap();
                    assert!(own.iter().all(|&b| b == thread + turn));
                    assert!(read(storage, &(0..300_000)).unwrap() == bytes[..300_000]);
                }
            });
        }
    });
}

fn assert_holds(storage: &dyn Storage, bytes: &[u8]) {
    let len = storage.len().unwrap();
    assert_eq!(len, bytes.len() as u64);
    assert!(
        read(storage, &(0..len)).unwrap() == bytes,
        "the contents differ"
    );
}

fn read(storage: &dyn Storage, range: &Range<u64>) -> Result<Vec<u8>> {
    let mut buf = vec![0xee; (range.end - range.start) as usize];
    storage.read_exact_at(&mut buf, range.start)?;
    Ok(buf)
}

fn ranges() -> Vec<Range<u64>> {
    let mut ranges = vec![0..LEN, 0..1, LEN - 1..LEN, 511..513, 4096..8192, 1..LEN - 1];
    ranges.extend([
        131_072..393_216,
        131_073..393_215,
        LEN - 140_000..LEN,
        700_000..700_100,
    ]);
    ranges
}

fn index(range: &Range<u64>) -> Range<usize> {
    range.start as usize..range.end as usize
}

/// No zeros, and a period that shows swapped blocks.
fn content() -> Vec<u8> {
    (0..LEN).map(|n| (n % 251) as u8 + 1).collect()
}

/// Whole sectors, as devices have them, but no whole page at the end.
const LEN: u64 = (1 << 20) + 3 * 512;
