use std::ffi::{OsStr, OsString};
use std::ops::Range;
use std::path::Path;
use std::slice;
use std::sync::{Arc, Mutex};

use diskdelta::manifest::{self, Manifest, TargetManifest};
use diskdelta::storage::{
    Access, Directory, FileId, FileRef, FileStorage, MemoryDirectory, MemoryStorage, Privacy,
    Storage,
};
use diskdelta::{BlockSize, Error, ErrorKind, Limits, Result};

use crate::samples::{BLOCK, manifest_of, pattern, raw, work};

fn bytes_of(disk: Vec<u8>) -> Vec<u8> {
    let storage = Arc::new(MemoryStorage::default());
    manifest::build_to(&raw(disk), BlockSize::MIN, &work(), storage.clone()).unwrap();
    storage.to_vec()
}

fn open(bytes: Vec<u8>) -> (TargetManifest, Arc<MemoryStorage>) {
    let storage = Arc::new(MemoryStorage::new("kept", bytes));
    let kept = TargetManifest::open(storage.clone(), &Limits::default()).unwrap();
    (kept, storage)
}

fn is_all_in_doubt(kept: &TargetManifest) -> bool {
    kept.intents() == slice::from_ref(&(0..u64::MAX))
}

#[test]
fn intents_are_there_on_the_next_open() {
    let (mut kept, storage) = open(bytes_of(pattern(20 * BLOCK, 1)));
    assert_eq!(kept.intents(), []);
    kept.record_intent([10..20, 4096..5000]).unwrap();
    kept.record_intent([15..30, 7..7]).unwrap();
    assert_eq!(kept.intents(), [10..30, 4096..5000]);
    assert!(kept.has_intent(4999..5001) && !kept.has_intent(30..4096));
    let (again, _) = open(storage.to_vec());
    assert_eq!(again.intents(), kept.intents());
    assert_eq!(again.manifest().root(), kept.manifest().root());
}

#[test]
fn an_intent_torn_at_any_byte_puts_everything_in_doubt() {
    let body = bytes_of(pattern(20 * BLOCK, 1));
    let (mut kept, storage) = open(body.clone());
    kept.record_intent(Some(10..20)).unwrap();
    let first = storage.to_vec();
    kept.record_intent([4096..5000, 9000..9001]).unwrap();
    let whole = storage.to_vec();
    for cut in body.len()..whole.len() {
        let (kept, _) = open(whole[..cut].to_vec());
        if cut == body.len() {
            assert_eq!(kept.intents(), []);
        } else if cut == first.len() {
            assert_eq!(kept.intents(), slice::from_ref(&(10..20)));
        } else {
            assert!(is_all_in_doubt(&kept), "{cut}");
        }
        let mut garbage = whole.clone();
        garbage[cut] ^= 0x10;
        let (kept, _) = open(garbage);
        assert!(is_all_in_doubt(&kept), "{cut}");
        let mut zeros = whole.clone();
        zeros[cut..].fill(0);
        let (kept, _) = open(zeros);
        let covered = |range: Range<u64>| kept.has_intent(range);
        assert!(
            covered(4096..4097) && covered(4999..5000) && covered(9000..9001),
            "{cut}"
        );
    }
}

#[test]
fn an_intent_after_a_torn_one_leaves_everything_in_doubt() {
    let mut bytes = bytes_of(pattern(20 * BLOCK, 1));
    bytes.extend(b"torn");
    let (mut kept, storage) = open(bytes);
    kept.record_intent(Some(10..20)).unwrap();
    assert!(kept.has_intent(1 << 50..(1 << 50) + 1));
    let (again, _) = open(storage.to_vec());
    assert!(again.has_intent(1 << 50..(1 << 50) + 1));
}

#[test]
fn an_intent_of_another_manifest_puts_everything_in_doubt() {
    let body = bytes_of(pattern(20 * BLOCK, 1));
    let (mut kept, storage) = open(body.clone());
    kept.record_intent(Some(10..20)).unwrap();
    let intent = storage.to_vec().split_off(body.len());
    let other = [bytes_of(pattern(20 * BLOCK, 2)), intent].concat();
    let (kept, _) = open(other);
    assert!(is_all_in_doubt(&kept));
}

#[test]
fn very_many_intents_are_rounded_out_and_none_is_lost() {
    let (mut kept, storage) = open(bytes_of(pattern(20 * BLOCK, 1)));
    let before = storage.len().unwrap();
    let many = || (0..200_000u64).map(|n| n * 8192..n * 8192 + 1);
    kept.record_intent(many()).unwrap();
    assert!(storage.len().unwrap() - before < 2 << 20);
    let (again, _) = open(storage.to_vec());
    assert!(many().all(|range| again.has_intent(range)));
}

#[test]
fn more_intents_than_memory_allows_put_everything_in_doubt() {
    let (mut kept, storage) = open(bytes_of(pattern(20 * BLOCK, 1)));
    kept.record_intent((0..100u64).map(|n| n * 8192..n * 8192 + 1))
        .unwrap();
    let limits = Limits::default().with_table_bytes(1000);
    let kept = TargetManifest::open(storage, &limits).unwrap();
    assert!(is_all_in_doubt(&kept));
}

#[test]
fn a_kept_file_takes_intents_while_it_is_mapped() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("kept");
    std::fs::write(&path, bytes_of(pattern(20 * BLOCK, 1))).unwrap();
    let mut kept = TargetManifest::open_path(&path, &Limits::default()).unwrap();
    kept.record_intent(Some(1..2)).unwrap();
    kept.manifest().verify().unwrap();
    let storage = Arc::new(FileStorage::open_read(&path).unwrap());
    let mut read_only = TargetManifest::open(storage, &Limits::default()).unwrap();
    assert_eq!(read_only.intents(), slice::from_ref(&(1..2)));
    let error = read_only.record_intent(Some(5..6)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert_eq!(read_only.intents(), slice::from_ref(&(1..2)));
}

#[test]
fn saving_replaces_the_old_file_and_what_a_crash_left() {
    let temp = tempfile::tempdir().unwrap();
    let file_ref = FileRef::host(temp.path().join("m")).unwrap();
    std::fs::write(temp.path().join("m"), b"old").unwrap();
    let left = format!(".m.{}.new", "0a".repeat(16));
    std::fs::write(temp.path().join(left), b"left by a crash").unwrap();
    let image = raw(pattern(3 * BLOCK, 1));
    let built = manifest::save(&file_ref, |storage| {
        manifest::build_to(&image, BlockSize::MIN, &work(), storage)
    })
    .unwrap();
    let read = Manifest::open_with(temp.path().join("m"), &Limits::default()).unwrap();
    assert_eq!(read.root(), built.root());
    assert_eq!(file_ref.directory().names().unwrap(), ["m"]);
}

#[test]
fn a_manifest_that_is_cut_while_it_is_used_is_an_error_and_no_signal() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("m");
    let bytes = bytes_of(pattern(2000 * BLOCK, 1));
    let cut = |len: u64| {
        std::fs::write(&path, &bytes).unwrap();
        let opened = (
            Manifest::open_with(&path, &Limits::default()).unwrap(),
            TargetManifest::open_path(&path, &Limits::default()).unwrap(),
        );
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_len(len).unwrap();
        opened
    };
    for len in [0, 1, bytes.len() as u64 / 2] {
        let (read, kept) = cut(len);
        for manifest in [&read, kept.manifest()] {
            assert_eq!(manifest.verify().unwrap_err().kind(), ErrorKind::Io);
            assert!(manifest.hash(0).is_err());
        }
        let image = raw(pattern(2000 * BLOCK, 2));
        let newer = diskdelta::diff::Newer::Image;
        let error = diskdelta::diff::with_manifest(&image, &read, newer, &work()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        let delta = Arc::new(MemoryStorage::default());
        let base = diskdelta::delta::Base::Manifest(&read);
        let options = diskdelta::delta::DeltaOptions::default();
        let error = diskdelta::delta::create(base, &image, delta, &options, &work()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
    }
}

#[test]
fn a_failed_save_leaves_the_old_file() {
    let directory = MemoryDirectory::new();
    directory.insert("m", b"old".to_vec());
    let file_ref = FileRef::new(Arc::new(directory.clone()), "m");
    let error = manifest::save(&file_ref, |storage| -> Result<()> {
        storage.write_all_at(b"half", 0)?;
        Err(Error::new(ErrorKind::NoSpace, "full"))
    })
    .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace);
    assert_eq!(directory.bytes("m").unwrap(), b"old");
    assert_eq!(directory.names().unwrap(), ["m"]);
}

#[test]
fn what_is_prepared_is_in_place_only_after_the_commit_which_may_be_repeated() {
    let directory = MemoryDirectory::new();
    directory.insert("m", b"old".to_vec());
    let file_ref = FileRef::new(Arc::new(directory.clone()), "m");
    let (_, prepared) =
        manifest::prepare(&file_ref, |storage| storage.write_all_at(b"new", 0)).unwrap();
    assert_eq!(directory.bytes("m").unwrap(), b"old");
    for _ in 0..2 {
        prepared.commit().unwrap();
        assert_eq!(directory.bytes("m").unwrap(), b"new");
    }
    assert_eq!(directory.names().unwrap(), ["m"]);
}

#[test]
fn saving_syncs_the_file_then_renames_then_syncs_the_directory() {
    let directory = Arc::new(Logged {
        directory: MemoryDirectory::new(),
        log: Arc::default(),
    });
    let file_ref = FileRef::new(directory.clone(), "m");
    manifest::save(&file_ref, |storage| storage.write_all_at(b"x", 0)).unwrap();
    let log = directory.log.lock().unwrap();
    assert_eq!(
        *log,
        [
            "write",
            "sync",
            "sync directory",
            "rename",
            "sync directory"
        ]
    );
}

#[test]
fn an_intent_is_synced_before_it_returns() {
    let log = Arc::default();
    let storage = Arc::new(LoggedStorage {
        storage: Arc::new(MemoryStorage::new("kept", bytes_of(pattern(9, 1)))),
        log: Arc::clone(&log),
    });
    let mut kept = TargetManifest::open(storage, &Limits::default()).unwrap();
    kept.record_intent(Some(0..1)).unwrap();
    assert_eq!(*log.lock().unwrap(), ["write", "sync"]);
    assert_eq!(kept.manifest().root(), manifest_of(pattern(9, 1)).root());
}

type Log = Arc<Mutex<Vec<&'static str>>>;

struct Logged {
    directory: MemoryDirectory,
    log: Log,
}

impl Directory for Logged {
    fn path(&self) -> &Path {
        self.directory.path()
    }
    fn open(&self, name: &OsStr, access: Access) -> Result<Arc<dyn Storage>> {
        self.directory.open(name, access)
    }
    fn create(&self, name: &OsStr, privacy: Privacy) -> Result<Arc<dyn Storage>> {
        Ok(Arc::new(LoggedStorage {
            storage: self.directory.create(name, privacy)?,
            log: Arc::clone(&self.log),
        }))
    }
    fn rename(&self, from: &OsStr, to: &OsStr) -> Result<()> {
        self.log.lock().unwrap().push("rename");
        self.directory.rename(from, to)
    }
    fn rename_new(&self, from: &OsStr, to: &OsStr) -> Result<()> {
        self.log.lock().unwrap().push("rename");
        self.directory.rename_new(from, to)
    }
    fn remove(&self, name: &OsStr) -> Result<()> {
        self.directory.remove(name)
    }
    fn remove_unused(&self, name: &OsStr) -> Result<bool> {
        self.directory.remove_unused(name)
    }
    fn file_id(&self, name: &OsStr) -> Result<Option<FileId>> {
        self.directory.file_id(name)
    }
    fn names(&self) -> Result<Vec<OsString>> {
        self.directory.names()
    }
    fn sync(&self) -> Result<()> {
        self.log.lock().unwrap().push("sync directory");
        self.directory.sync()
    }
}

struct LoggedStorage {
    storage: Arc<dyn Storage>,
    log: Log,
}

impl Storage for LoggedStorage {
    fn path(&self) -> &Path {
        self.storage.path()
    }
    fn len(&self) -> Result<u64> {
        self.storage.len()
    }
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.storage.read_exact_at(buf, offset)
    }
    fn write_all_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.log.lock().unwrap().push("write");
        self.storage.write_all_at(buf, offset)
    }
    fn set_len(&self, len: u64) -> Result<()> {
        self.storage.set_len(len)
    }
    fn sync(&self) -> Result<()> {
        self.log.lock().unwrap().push("sync");
        self.storage.sync()
    }
    fn punch_hole(&self, range: Range<u64>) -> Result<()> {
        self.storage.punch_hole(range)
    }
    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>> {
        self.storage.next_data(offset)
    }
}
