//! The journal: what was acknowledged comes back after any crash, and no damage passes for a
//! shorter or another journal.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::ffi::OsStr;
use std::sync::Arc;

use diskdelta::ErrorKind;
use diskdelta::failback::journal::{Entry, Reader, Writer};
use diskdelta::storage::fault::{CrashState, FaultDisk};
use diskdelta::storage::{Access, Folder, MemoryFolder, MemoryStorage};

#[test]
fn records_come_back_in_order_and_a_watcher_sees_each_as_it_is_added() {
    let folder = MemoryFolder::new();
    let mut writer = Writer::create(&folder, name(), [7; 16]).unwrap();
    let mut watcher = Reader::open(folder.open(name(), Access::Read).unwrap()).unwrap();
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
    let (_, entries) = Writer::open(&folder, name()).unwrap();
    assert_eq!(payloads(&entries), TEXTS);
}

#[test]
fn a_second_journal_of_the_same_name_is_refused() {
    let folder = MemoryFolder::new();
    Writer::create(&folder, name(), [0; 16]).unwrap();
    let again = Writer::create(&folder, name(), [0; 16])
        .map(|_| ())
        .unwrap_err();
    assert_eq!(again.kind(), ErrorKind::AlreadyExists);
}

#[test]
fn a_record_of_more_than_a_mebibyte_is_refused_and_the_journal_goes_on() {
    let folder = MemoryFolder::new();
    let mut writer = Writer::create(&folder, name(), [0; 16]).unwrap();
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
    let other = MemoryFolder::new();
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
            if let Ok((mut writer, _)) = Writer::open(&again.folder(FOLDER), name()) {
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

const FOLDER: &str = "/jobs";
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
    let folder = MemoryFolder::new();
    let mut writer = Writer::create(&folder, name(), [7; 16]).unwrap();
    TEXTS.iter().for_each(|text| {
        writer.append(text).unwrap();
    });
    folder.bytes(name()).unwrap()
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
    disk.folder(FOLDER);
    disk.settle();
    let mut writer = Writer::create(&disk.folder(FOLDER), name(), [7; 16]).unwrap();
    disk.note("created");
    for (index, text) in TEXTS.iter().enumerate() {
        writer.append(text).unwrap();
        disk.note(format!("appended {index}"));
    }
}

/// How many records a crash left, all those that were acknowledged among them.
fn recovered(state: &CrashState, at_least: usize) -> Result<usize, String> {
    let folder = state.disk().folder(FOLDER);
    let there = folder.names().unwrap().iter().any(|there| there == name());
    if !there {
        let acknowledged = state.noted("created") || at_least > 0;
        return (!acknowledged)
            .then_some(0)
            .ok_or("the journal is lost".into());
    }
    let (_, entries) = Writer::open(&folder, name()).map_err(|e| e.to_string())?;
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
