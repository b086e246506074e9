//! Storages of a caller's own: what is easy to forget with them, and what they may answer.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use diskdelta::storage::{MemoryStorage, Storage};
use diskdelta::sync::{Mode, Recovered};
use diskdelta::{
    CancelToken, CreateFormat, Delta, Disk, ErrorKind, Format, Phase, Progress, Result, SyncTarget,
    TargetState, Work,
};

const BLOCK: usize = 64 << 10;

struct Fixture {
    directory: tempfile::TempDir,
    work: Work,
}

impl Fixture {
    fn new() -> Self {
        Fixture {
            directory: tempfile::tempdir().unwrap(),
            work: Work::with_threads(2).unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn raw(&self, name: &str, byte: u8) -> PathBuf {
        let mut disk = vec![7; 40 * BLOCK];
        disk[2 * BLOCK..3 * BLOCK].fill(byte);
        fs::write(self.path(name), disk).unwrap();
        self.path(name)
    }
}

fn store(bytes: Vec<u8>) -> Arc<dyn Storage> {
    Arc::new(MemoryStorage::new("own", bytes))
}

#[test]
fn a_file_that_is_no_redo_log_is_not_removed_as_one() {
    let at = Fixture::new();
    let new = Disk::open(at.raw("new.raw", 9)).unwrap();
    let target = store(vec![1; 40 * BLOCK]);
    fs::write(at.path("notes.txt"), "notes of a person").unwrap();
    let onto = || SyncTarget::storage(target.clone(), Format::Raw, at.path("notes.txt"));
    let error = new.sync_to(onto()).run(&at.work).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    assert_eq!(error.target_state(), Some(TargetState::Untouched));
    for ended in [
        diskdelta::discard(onto(), &at.work),
        diskdelta::recover(onto(), &at.work),
    ] {
        assert_eq!(ended.unwrap_err().kind(), ErrorKind::AlreadyExists);
    }
    let kept = fs::read_to_string(at.path("notes.txt")).unwrap();
    assert_eq!(kept, "notes of a person");
    // What an earlier run began and a crash left empty, or as zeros, is a log.
    for left in [0, 3, 4096] {
        fs::write(at.path("log"), vec![0; left]).unwrap();
        let onto = SyncTarget::storage(target.clone(), Format::Raw, at.path("log"));
        new.sync_to(onto).run(&at.work).unwrap();
        assert!(!at.path("log").exists());
    }
}

#[test]
fn one_storage_is_not_both_source_and_target() {
    let at = Fixture::new();
    at.raw("new.raw", 9);
    let image = at.path("new.vhdx");
    let made = Disk::open(at.path("new.raw")).unwrap();
    made.sync_to(&image).run(&at.work).unwrap();
    let bytes = fs::read(&image).unwrap();
    for (format, target_format) in [
        (Format::Vhdx, Format::Raw),
        (Format::Vhdx, Format::Vhdx),
        (Format::Raw, Format::Raw),
    ] {
        let own = store(bytes.clone());
        let source = Disk::from_storage(own.clone(), format).unwrap();
        let onto = SyncTarget::storage(own.clone(), target_format, at.path("log"));
        let error = source
            .sync_to(onto)
            .allow_larger()
            .run(&at.work)
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InUse, "{error}");
        let mut now = vec![0; bytes.len()];
        own.read_exact_at(&mut now, 0).unwrap();
        assert!(now == bytes);
    }
}

/// Cancels, twice, where changes are about to be written.
struct CancelAtApply(CancelToken);

impl Progress for CancelAtApply {
    fn begin(&self, phase: Phase, _total_bytes: Option<u64>) {
        if phase == Phase::Apply {
            self.0.cancel();
            self.0.cancel();
        }
    }

    fn advance(&self, _bytes: u64) {}
}

#[test]
fn an_incomplete_storage_is_not_opened_as_a_disk() {
    let at = Fixture::new();
    let new = Disk::open(at.raw("new.raw", 9)).unwrap();
    let target = store(vec![1; 40 * BLOCK]);
    let onto = || SyncTarget::storage(target.clone(), Format::Raw, at.path("log"));
    let cancel = CancelToken::new();
    let work = at.work.clone().with_cancel(cancel.clone());
    let work = work.with_progress(Arc::new(CancelAtApply(cancel)));
    let error = new
        .sync_to(onto())
        .mode(Mode::Delta)
        .run(&work)
        .unwrap_err();
    assert_eq!(error.target_state(), Some(TargetState::Recover), "{error}");
    let opened = Disk::from_storage(target.clone(), Format::Raw).unwrap_err();
    assert_eq!(opened.kind(), ErrorKind::Incomplete, "{opened}");
    // A guest may have written it: then that is declared.
    let declared = Disk::options()
        .marker_is_data()
        .open_storage(target.clone());
    assert_eq!(declared.unwrap().len(), 40 * BLOCK as u64);
    assert_eq!(
        diskdelta::recover(onto(), &at.work).unwrap(),
        Recovered::New
    );
    let whole = Disk::from_storage(target, Format::Raw).unwrap();
    assert_eq!(whole.root(&at.work).unwrap(), new.root(&at.work).unwrap());
}

/// Names ranges as the next data that are none.
struct Liar(MemoryStorage, Range<u64>);

impl Storage for Liar {
    fn path(&self) -> &Path {
        self.0.path()
    }

    fn len(&self) -> Result<u64> {
        self.0.len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.0.read_exact_at(buf, offset)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.0.write_all_at(buf, offset)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.0.set_len(len)
    }

    fn sync(&self) -> Result<()> {
        self.0.sync()
    }

    fn punch_hole(&self, range: Range<u64>) -> Result<()> {
        self.0.punch_hole(range)
    }

    fn next_data(&self, _offset: u64) -> Result<Option<Range<u64>>> {
        Ok(Some(self.1.clone()))
    }
}

#[test]
fn data_before_the_offset_that_was_asked_for_are_an_error_and_no_panic() {
    let at = Fixture::new();
    at.raw("new.raw", 9);
    for format in [
        CreateFormat::Raw,
        CreateFormat::VhdFixed,
        CreateFormat::VhdDynamic,
        CreateFormat::VhdxDynamic,
    ] {
        let path = at.path("image");
        let made = Disk::open(at.path("new.raw")).unwrap();
        made.sync_to(&path).create(format).run(&at.work).unwrap();
        let bytes = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        #[allow(clippy::reversed_empty_ranges, reason = "a lie")]
        for lie in [0..1, 5..5, 9..3, 0..0] {
            let own = Liar(MemoryStorage::new("own", bytes.clone()), lie.clone());
            let kind = match format {
                CreateFormat::Raw => Format::Raw,
                CreateFormat::VhdxDynamic => Format::Vhdx,
                _ => Format::Vhd,
            };
            let read = Disk::from_storage(Arc::new(own), kind).and_then(|disk| disk.root(&at.work));
            let error = read.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Io, "{format:?} {lie:?}: {error}");
        }
    }
}

#[test]
fn an_error_before_anything_was_written_leaves_the_target_untouched() {
    let at = Fixture::new();
    let new = Disk::open(at.raw("new.raw", 9)).unwrap();
    at.raw("old.raw", 1);
    // Cancelled before it began.
    let cancel = CancelToken::new();
    cancel.cancel();
    let stopped = at.work.clone().with_cancel(cancel);
    let error = new.sync_to(at.path("old.raw")).run(&stopped).unwrap_err();
    assert_eq!(
        error.target_state(),
        Some(TargetState::Untouched),
        "{error}"
    );
    // It would shrink.
    fs::write(at.path("long.raw"), vec![3; 50 * BLOCK]).unwrap();
    let error = new.sync_to(at.path("long.raw")).run(&at.work).unwrap_err();
    assert_eq!(
        error.target_state(),
        Some(TargetState::Untouched),
        "{error}"
    );
    // Nothing can be made of a disk of no bytes.
    let nothing = Disk::from_storage(store(Vec::new()), Format::Raw).unwrap();
    let error = nothing
        .sync_to(at.path("x.vhdx"))
        .run(&at.work)
        .unwrap_err();
    assert_eq!(
        error.target_state(),
        Some(TargetState::Untouched),
        "{error}"
    );
    assert!(!at.path("x.vhdx").exists());
    // The wrong base.
    let old = Disk::open(at.path("old.raw")).unwrap();
    new.delta_from(&old, at.path("d"), &at.work).unwrap();
    drop(old);
    fs::write(at.path("other.raw"), vec![3; 40 * BLOCK]).unwrap();
    let delta = Delta::open(at.path("d")).unwrap();
    let error = delta
        .apply_to(at.path("other.raw"))
        .run(&at.work)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BaseMismatch);
    assert_eq!(
        error.target_state(),
        Some(TargetState::Untouched),
        "{error}"
    );
}

#[test]
fn notes_reach_a_callers_function_whatever_else_watches() {
    let at = Fixture::new();
    let new = Disk::open(at.raw("new.raw", 9)).unwrap();
    let old = at.raw("old.raw", 1);
    let notes: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = notes.clone();
    let work = at
        .work
        .clone()
        .on_note(move |text| seen.lock().unwrap().push(text.to_owned()));
    let ticks: Arc<Mutex<usize>> = Arc::default();
    let counted = ticks.clone();
    let work = work.on_progress(move |_| *counted.lock().unwrap() += 1);
    // A log of another disk under the target's name is kept, and a note names it.
    let cancel = CancelToken::new();
    let stopped = at.work.clone().with_cancel(cancel.clone());
    let stopped = stopped.with_progress(Arc::new(CancelAtApply(cancel)));
    let sync = new
        .sync_to(&old)
        .mode(Mode::Delta)
        .cloning(diskdelta::sync::Cloning::Never);
    sync.run(&stopped).unwrap_err();
    fs::rename(&old, at.path("moved.raw")).unwrap();
    let old = at.raw("old.raw", 2);
    assert_eq!(diskdelta::discard(&old, &work).unwrap(), Recovered::Kept);
    assert_eq!(notes.lock().unwrap().len(), 1, "{notes:?}");
    let moved = at.path("moved.raw");
    new.diff_from(&Disk::open(at.raw("old.raw", 1)).unwrap(), &work)
        .unwrap();
    assert!(*ticks.lock().unwrap() > 0);
    assert!(moved.exists());
}
