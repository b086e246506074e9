//! The journal: what was acknowledged comes back after any crash, and no damage passes for a
//! shorter or another journal.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::ffi::OsStr;
use std::sync::Arc;

use diskdelta::ErrorKind;
use diskdelta::journal::{Entry, Reader, Writer};
use diskdelta::storage::fault::{CrashState, FaultDisk};
use diskdelta::storage::{
    Access, Directory, HostDirectory, MemoryDirectory, MemoryStorage, Storage,
};

#[test]
fn records_come_back_in_order_and_a_watcher_sees_each_as_it_is_added() {
    let directory = MemoryDirectory::new();
    let mut writer = Writer::create(&directory, name(), [7; 16]).unwrap();
    let mut watcher = Reader::open(directory.open(name(), Access::Read).unwrap()).unwrap();
    assert_eq!(watcher.job(), [7; 16]);
    assert_eq!(watcher.next_entry().unwrap(), None);
    for (index, text) in TEXTS.iter().enumerate() {
        assert_eq!(writer.append(text).unwrap(), index as u64 + 1);
        let entry = watcher.next_entry().unwrap().unwrap();
        assert_eq!(
            (entry.sequence, &entry.payload[..]),
            (index as u64 + 1, *text)
        );
        assert_eq!(watcher.next_entry().unwrap(), None);
    }
    let (_, entries) = Writer::open(&directory, name()).unwrap();
    assert_eq!(payloads(&entries), TEXTS);
}

#[test]
fn a_second_journal_of_the_same_name_is_refused() {
    let directory = MemoryDirectory::new();
    Writer::create(&directory, name(), [0; 16]).unwrap();
    let again = Writer::create(&directory, name(), [0; 16])
        .map(|_| ())
        .unwrap_err();
    assert_eq!(again.kind(), ErrorKind::AlreadyExists);
}

#[test]
fn a_record_of_more_than_a_mebibyte_is_refused_and_the_journal_goes_on() {
    let directory = MemoryDirectory::new();
    let mut writer = Writer::create(&directory, name(), [0; 16]).unwrap();
    let error = writer.append(&vec![0; (1 << 20) + 1]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
    writer.append(b"short").unwrap();
}

#[test]
fn every_truncation_is_an_error_that_names_the_record() {
    let whole = sample();
    let ends = ends(&whole);
    for len in 0..whole.len() {
        let error = read(whole[..len].to_vec()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Malformed, "{len}: {error}");
        if len >= ends[0] {
            let missing = ends.iter().position(|end| len < *end).unwrap();
            let text = format!("record {missing} of {}", TEXTS.len());
            assert!(error.to_string().contains(&text), "{len}: {error}");
        }
    }
}

#[test]
fn no_flipped_bit_makes_another_journal_of_it() {
    let whole = sample();
    let ends = ends(&whole);
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut damaged = whole.clone();
            damaged[at] ^= 1 << bit;
            match read(damaged) {
                // A seal that is damaged is not missed while the records are whole; and nobody
                // looks at the space between header, seals and records.
                Ok(entries) => {
                    assert!(at < ends[0], "byte {at:#x} of a record is not looked at");
                    assert_eq!(payloads(&entries), TEXTS, "byte {at:#x}");
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::Malformed, "{at:#x}: {error}"),
            }
        }
    }
}

#[test]
fn records_cannot_be_exchanged_left_out_or_taken_from_another_job() {
    let whole = sample();
    let ends = ends(&whole);
    let record = |index: usize| whole[ends[index - 1]..ends[index]].to_vec();
    let with = |order: &[usize]| {
        let mut bytes = whole[..ends[0]].to_vec();
        order.iter().for_each(|index| bytes.extend(record(*index)));
        read(bytes)
    };
    assert_eq!(payloads(&with(&[1, 2, 3, 4]).unwrap()), TEXTS);
    for order in [
        &[2, 1, 3, 4][..],
        &[1, 3, 4],
        &[1, 2, 4, 3],
        &[1, 1, 2, 3],
        &[2, 3, 4],
    ] {
        assert_eq!(
            with(order).unwrap_err().kind(),
            ErrorKind::Malformed,
            "{order:?}"
        );
    }
    let other = MemoryDirectory::new();
    let mut writer = Writer::create(&other, name(), [8; 16]).unwrap();
    TEXTS.iter().for_each(|text| {
        writer.append(text).unwrap();
    });
    let mut mixed = other.bytes(name()).unwrap();
    mixed[ends[0]..].copy_from_slice(&whole[ends[0]..]);
    assert_eq!(read(mixed).unwrap_err().kind(), ErrorKind::Malformed);
}

#[test]
fn what_was_acknowledged_survives_every_crash_and_every_crash_after_it() {
    let disk = FaultDisk::new();
    write(&disk);
    let coverage = disk
        .crashes()
        .check(|state| {
            let held = recovered(state, 0)?;
            // Go on after the crash, and crash again.
            let again = state.disk();
            if let Ok((mut writer, _)) = Writer::open(&again.directory(DIRECTORY), name()) {
                writer.append(b"after the crash").unwrap();
                again.note("again");
                again
                    .crashes()
                    .with_limit(40)
                    .check(|state| recovered(state, held).map(drop))
                    .map_err(|violation| violation.to_string())?;
            }
            Ok::<(), String>(())
        })
        .unwrap();
    println!("journal: {coverage:?}");
}

#[test]
fn every_sync_of_the_journal_is_needed() {
    let disk = FaultDisk::new();
    write(&disk);
    for sync in disk.log().syncs() {
        let disk = FaultDisk::new();
        let dropped = sync.clone();
        disk.drop_syncs(move |call| *call == dropped);
        write(&disk);
        let found = disk.crashes().check(|state| recovered(state, 0).map(drop));
        assert!(found.is_err(), "nothing noticed that {sync} was dropped");
    }
}

#[test]
fn a_compacted_journal_holds_its_first_record_and_its_newest_and_goes_on() {
    let directory = MemoryDirectory::new();
    let mut writer = Writer::create(&directory, name(), [7; 16]).unwrap();
    for number in 1..=20u32 {
        writer.append(&number.to_le_bytes()).unwrap();
    }
    for (keep, expected, left_out) in [
        (100, (1..=20).collect::<Vec<u32>>(), 0),
        (3, vec![1, 18, 19, 20], 16),
        (2, vec![1, 19, 20], 17),
    ] {
        writer.compact(&directory, name(), keep).unwrap();
        assert_eq!(numbers(&directory), (expected, left_out));
    }
    assert_eq!(writer.append(&21u32.to_le_bytes()).unwrap(), 4);
    assert_eq!(numbers(&directory), (vec![1, 19, 20, 21], 17));
    let (mut writer, _) = Writer::open(&directory, name()).unwrap();
    writer.append(&22u32.to_le_bytes()).unwrap();
    assert_eq!(numbers(&directory), (vec![1, 19, 20, 21, 22], 17));
    assert_eq!(directory.names().unwrap(), [name()]);
}

#[test]
fn a_journal_that_is_compacted_now_and_then_stays_short_and_its_end_is_read_alone() {
    let directory = MemoryDirectory::new();
    let mut writer = Writer::create(&directory, name(), [7; 16]).unwrap();
    let mut longest = 0;
    for number in 0..100_000u32 {
        writer
            .append(&[&number.to_le_bytes()[..], &[0; 96]].concat())
            .unwrap();
        if writer.count() >= 1000 {
            writer.compact(&directory, name(), 100).unwrap();
        }
        longest = longest.max(writer.len_bytes());
    }
    assert!(longest < 4096 + 1001 * 148, "{longest}");
    let mut whole = Counted::open(&directory);
    let records = whole.reader.rest().unwrap();
    let mut end = Counted::open(&directory);
    assert_eq!(end.reader.next_entry().unwrap(), Some(records[0].clone()));
    assert_eq!(end.reader.last_entry().unwrap(), records.last().cloned());
    assert_eq!(end.reader.next_entry().unwrap(), None);
    let (all, few) = (whole.bytes(), end.bytes());
    assert!(few < 1000 && few < all / 20, "{few} of {all} bytes");
    // And the first of all, if it is asked for alone.
    let mut alone = Counted::open(&directory);
    assert_eq!(alone.reader.last_entry().unwrap(), records.last().cloned());
}

#[test]
fn the_end_of_every_journal_is_found_from_every_seal() {
    for len in 0..5 {
        let directory = MemoryDirectory::new();
        let mut writer = Writer::create(&directory, name(), [7; 16]).unwrap();
        for text in &TEXTS[..len.min(4)] {
            writer.append(text).unwrap();
        }
        let whole = directory.bytes(name()).unwrap();
        // A seal that is lost leaves the one before it.
        for lost in [None, Some(512), Some(1024)] {
            let mut bytes = whole.clone();
            if let Some(at) = lost {
                bytes[at..at + 64].fill(0);
            }
            let Ok(mut reader) = Reader::open(Arc::new(MemoryStorage::new("journal", bytes)))
            else {
                assert!(len == 0, "{len} {lost:?}");
                continue;
            };
            let last = reader.last_entry().unwrap();
            let expected = TEXTS[..len.min(4)].last().map(|text| text.to_vec());
            assert_eq!(last.map(|entry| entry.payload), expected, "{len} {lost:?}");
        }
    }
}

#[test]
fn a_journal_of_the_first_version_is_read_gone_on_with_and_compacted() {
    let directory = MemoryDirectory::new();
    directory.insert(name(), first_version());
    let read = |directory: &MemoryDirectory| {
        let mut reader = Reader::open(directory.open(name(), Access::Read).unwrap()).unwrap();
        let last = reader.last_entry().unwrap().unwrap();
        (reader.job(), last.payload)
    };
    assert_eq!(read(&directory), ([7; 16], b"two".to_vec()));
    let (mut writer, entries) = Writer::open(&directory, name()).unwrap();
    assert_eq!(payloads(&entries), [&b"one"[..], b"two"]);
    writer.append(b"three").unwrap();
    assert_eq!(read(&directory), ([7; 16], b"three".to_vec()));
    assert_eq!(directory.bytes(name()).unwrap()[8], 1);
    writer.compact(&directory, name(), 1).unwrap();
    assert_eq!(directory.bytes(name()).unwrap()[8], 2);
    writer.append(b"four").unwrap();
    let (_, entries) = Writer::open(&directory, name()).unwrap();
    assert_eq!(payloads(&entries), [&b"one"[..], b"three", b"four"]);
}

#[test]
fn a_compaction_that_a_crash_ends_leaves_the_journal_as_it_was_or_the_shorter_one() {
    let disk = FaultDisk::new();
    compact(&disk);
    let coverage = disk.crashes().check(compacted).unwrap();
    println!("compaction: {coverage:?}");
    let before = FaultDisk::new();
    write(&before);
    for sync in disk
        .log()
        .syncs()
        .into_iter()
        .skip(before.log().syncs().len())
    {
        let disk = FaultDisk::new();
        let dropped = sync.clone();
        disk.drop_syncs(move |call| *call == dropped);
        compact(&disk);
        let found = disk.crashes().check(compacted);
        assert!(found.is_err(), "nothing noticed that {sync} was dropped");
    }
}

#[test]
fn a_compaction_that_fails_changes_nothing_and_the_journal_goes_on() {
    let temporary = tempfile::tempdir().unwrap();
    let directory = HostDirectory::open(temporary.path()).unwrap();
    let mut writer = Writer::create(&directory, name(), [7; 16]).unwrap();
    for text in TEXTS {
        writer.append(text).unwrap();
    }
    // Something that cannot be removed has the name.
    std::fs::create_dir(temporary.path().join("job.journal.new")).unwrap();
    writer.compact(&directory, name(), 1).unwrap_err();
    writer.append(b"five").unwrap();
    drop(writer);
    let (_, entries) = Writer::open(&directory, name()).unwrap();
    assert_eq!(entries.len(), 5);
}

/// The records' numbers, and how many were left out.
fn numbers(directory: &MemoryDirectory) -> (Vec<u32>, u64) {
    let mut reader = Reader::open(directory.open(name(), Access::Read).unwrap()).unwrap();
    let entries = reader.rest().unwrap();
    let number = |entry: &Entry| u32::from_le_bytes(entry.payload[..4].try_into().unwrap());
    (entries.iter().map(number).collect(), reader.left_out())
}

fn compact(disk: &FaultDisk) {
    disk.directory(DIRECTORY);
    disk.make_durable();
    let directory = disk.directory(DIRECTORY);
    let mut writer = Writer::create(&directory, name(), [7; 16]).unwrap();
    for text in TEXTS {
        writer.append(text).unwrap();
    }
    disk.note("written");
    writer.compact(&directory, name(), 1).unwrap();
    disk.note("compacted");
    writer.append(b"after it").unwrap();
    disk.note("appended");
}

fn compacted(state: &CrashState) -> Result<(), String> {
    if !state.noted("written") {
        return Ok(());
    }
    let directory = state.disk().directory(DIRECTORY);
    let (_, entries) = Writer::open(&directory, name()).map_err(|e| e.to_string())?;
    let is_right = match &payloads(&entries)[..] {
        all if all == TEXTS => !state.noted("compacted"),
        [b"one", b"four"] => !state.noted("appended"),
        [b"one", b"four", b"after it"] => true,
        _ => false,
    };
    is_right
        .then_some(())
        .ok_or(format!("{:?}", payloads(&entries)))
}

/// Counts what is read of a journal.
struct Counted {
    reader: Reader,
    read: Arc<std::sync::atomic::AtomicU64>,
}

impl Counted {
    fn open(directory: &MemoryDirectory) -> Self {
        let read = Arc::default();
        let storage = Counting(
            directory.open(name(), Access::Read).unwrap(),
            Arc::clone(&read),
        );
        Counted {
            reader: Reader::open(Arc::new(storage)).unwrap(),
            read,
        }
    }

    fn bytes(&self) -> u64 {
        self.read.load(std::sync::atomic::Ordering::SeqCst)
    }
}

struct Counting(Arc<dyn Storage>, Arc<std::sync::atomic::AtomicU64>);

impl Storage for Counting {
    fn path(&self) -> &std::path::Path {
        self.0.path()
    }

    fn len(&self) -> diskdelta::Result<u64> {
        self.0.len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> diskdelta::Result<()> {
        let len = buf.len() as u64;
        self.1.fetch_add(len, std::sync::atomic::Ordering::SeqCst);
        self.0.read_exact_at(buf, offset)
    }

    fn write_all_at(&self, _: &[u8], _: u64) -> diskdelta::Result<()> {
        unreachable!()
    }

    fn set_len(&self, _: u64) -> diskdelta::Result<()> {
        unreachable!()
    }

    fn sync(&self) -> diskdelta::Result<()> {
        unreachable!()
    }

    fn punch_hole(&self, _: std::ops::Range<u64>) -> diskdelta::Result<()> {
        unreachable!()
    }

    fn next_data(&self, offset: u64) -> diskdelta::Result<Option<std::ops::Range<u64>>> {
        self.0.next_data(offset)
    }
}

/// A journal with two records, as the first version wrote it.
fn first_version() -> Vec<u8> {
    let crc = |bytes: &[u8]| crc32fast::hash(bytes).to_le_bytes();
    let mut header = [&b"DDJRNL\r\n"[..], &1u32.to_le_bytes(), &[7; 16]].concat();
    header.extend(crc(&header));
    let mut link = *blake3::hash(&header).as_bytes();
    let mut records = Vec::new();
    for (number, text) in [(1u64, &b"one"[..]), (2, b"two")] {
        let rest = [&number.to_le_bytes()[..], &link].concat();
        let len = u32::try_from(text.len()).unwrap().to_le_bytes();
        let checked = crc(&[&rest[..], text].concat());
        let record = [&len[..], &checked, &rest, text].concat();
        link = *blake3::hash(&record).as_bytes();
        records.extend(record);
    }
    let end = 4096 + records.len() as u64;
    let mut seal = [&2u64.to_le_bytes()[..], &end.to_le_bytes(), &link].concat();
    seal.extend(crc(&seal));
    seal.extend(b"SEAL");
    let mut whole = vec![0; 4096];
    whole[..header.len()].copy_from_slice(&header);
    whole[512..512 + seal.len()].copy_from_slice(&seal);
    whole.extend(records);
    whole
}

const DIRECTORY: &str = "/jobs";
const TEXTS: [&[u8]; 4] = [
    b"one",
    b"",
    b"a third record, longer than the others",
    b"four",
];

fn name() -> &'static OsStr {
    OsStr::new("job.journal")
}

fn sample() -> Vec<u8> {
    let directory = MemoryDirectory::new();
    let mut writer = Writer::create(&directory, name(), [7; 16]).unwrap();
    TEXTS.iter().for_each(|text| {
        writer.append(text).unwrap();
    });
    directory.bytes(name()).unwrap()
}

/// Where the records begin, and where each ends.
fn ends(whole: &[u8]) -> Vec<usize> {
    let entries = read(whole.to_vec()).unwrap();
    let begins = entries
        .iter()
        .map(|entry| usize::try_from(entry.offset).unwrap());
    begins.chain([whole.len()]).collect()
}

fn read(bytes: Vec<u8>) -> diskdelta::Result<Vec<Entry>> {
    Reader::open(Arc::new(MemoryStorage::new("journal", bytes)))?.rest()
}

fn payloads(entries: &[Entry]) -> Vec<&[u8]> {
    entries.iter().map(|entry| &entry.payload[..]).collect()
}

fn write(disk: &FaultDisk) {
    disk.directory(DIRECTORY);
    disk.make_durable();
    let mut writer = Writer::create(&disk.directory(DIRECTORY), name(), [7; 16]).unwrap();
    disk.note("created");
    for (index, text) in TEXTS.iter().enumerate() {
        writer.append(text).unwrap();
        disk.note(format!("appended {index}"));
    }
}

/// How many records a crash left, all those that were acknowledged among them.
fn recovered(state: &CrashState, at_least: usize) -> Result<usize, String> {
    let directory = state.disk().directory(DIRECTORY);
    let there = directory
        .names()
        .unwrap()
        .iter()
        .any(|there| there == name());
    if !there {
        let acknowledged = state.noted("created") || at_least > 0;
        return (!acknowledged)
            .then_some(0)
            .ok_or("the journal is lost".into());
    }
    let (_, entries) = Writer::open(&directory, name()).map_err(|e| e.to_string())?;
    let noted = (0..TEXTS.len()).filter(|index| state.noted(&format!("appended {index}")));
    let least = (noted.count() + usize::from(state.noted("again"))).max(at_least);
    let right = entries
        .iter()
        .zip(TEXTS)
        .all(|(entry, text)| entry.payload == text || entry.payload == b"after the crash");
    match (entries.len() >= least, right) {
        (true, true) => Ok(entries.len()),
        (false, _) => Err(format!("{} records instead of {least}", entries.len())),
        (_, false) => Err("other records than were written".into()),
    }
}
