//! What a sync reports rests on what it read, and what it refuses is refused in time.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod watched;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use diskdelta::delta::{self, DeltaOptions};
use diskdelta::diff::{CompareOptions, compare};
use diskdelta::image::{
    CreateFormat, CreateOptions, Format, ImageOptions, Raw, create, open_storage, open_storage_mut,
};
use diskdelta::manifest;
use diskdelta::storage::fault::FaultDisk;
use diskdelta::storage::{Access, Directory, FileRef, MemoryDirectory, MemoryStorage, Storage};
use diskdelta::sync::{
    Marker, Mode, Outcome, Recovered, Safety, Source, SyncOptions, SyncReport, Target, Verified,
    Verify, recover, sync,
};
use diskdelta::{BlockSize, ErrorKind, Result, Work};
use watched::WatchedDirectory;

const PAGE: usize = 4096;
const LEN: usize = 600 * PAGE;

fn page(index: usize) -> Range<u64> {
    (index * PAGE) as u64..((index + 1) * PAGE) as u64
}

fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

/// `bytes` with another first byte in each of these pages.
fn changed(bytes: &[u8], pages: &[usize]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for page in pages {
        bytes[page * PAGE] ^= 1;
    }
    bytes
}

fn raw(bytes: &[u8]) -> Raw {
    Raw::open(Arc::new(MemoryStorage::new("image", bytes.to_vec()))).unwrap()
}

fn source(bytes: &[u8]) -> Source {
    Source::new(Arc::new(raw(bytes)))
}

fn directory(bytes: &[u8]) -> (WatchedDirectory, Target) {
    let directory = WatchedDirectory::new();
    directory.insert("t.raw", bytes.to_vec());
    let shared: Arc<dyn Directory> = Arc::new(directory.clone());
    (
        directory,
        Target::file(FileRef::new(shared, "t.raw"), Format::Raw),
    )
}

fn work() -> Work {
    Work::with_threads(2).unwrap()
}

#[test]
fn what_was_not_read_is_not_called_compared_written_or_identical() {
    let old = noise(LEN);
    let new = changed(&old, &[300, 400]);
    for safety in [Safety::Atomic, Safety::InPlace] {
        for (map, outcome) in [
            (vec![], Outcome::Unchanged),
            (vec![page(5)], Outcome::Unchanged),
            (vec![page(300)], Outcome::Synced),
        ] {
            for (verify, verified) in [
                (Verify::Written, Verified::Tracked),
                (Verify::None, Verified::No),
            ] {
                let (_, target) = directory(&old);
                let options = SyncOptions::default()
                    .with_safety(safety)
                    .with_verify(verify)
                    .with_change_map(Some(map.clone()));
                let report = sync(&source(&new), &target, &options, &work()).unwrap();
                let said = (report.outcome, report.verified);
                assert_eq!(said, (outcome, verified), "{safety:?} {map:?}");
                let options = options.with_dry_run(true);
                let (_, target) = directory(&old);
                let report = sync(&source(&new), &target, &options, &work()).unwrap();
                assert_ne!(report.outcome, Outcome::Identical);
            }
        }
    }
}

#[test]
fn a_change_map_that_misses_a_change_is_found_before_an_atomic_target_changes() {
    let old = noise(LEN);
    let new = changed(&old, &[300, 400]);
    let maps = [vec![], vec![page(300)], vec![page(5), page(400)]];
    for map in &maps {
        let (directory, target) = directory(&old);
        let options = SyncOptions::default()
            .with_verify(Verify::All)
            .with_change_map(Some(map.clone()));
        let error = sync(&source(&new), &target, &options, &work()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::VerifyFailed);
        assert!(error.to_string().contains("untouched"), "{error}");
        assert!(directory.bytes("t.raw").unwrap() == old);
        // The way on that it names.
        let options = options.with_change_map(None);
        let report = sync(&source(&new), &target, &options, &work()).unwrap();
        let said = (report.outcome, report.verified);
        assert_eq!(said, (Outcome::Synced, Verified::All));
        assert!(directory.bytes("t.raw").unwrap() == new);
        assert_eq!(directory.names().unwrap(), ["t.raw"]);
    }
}

#[test]
fn in_place_a_change_map_that_misses_a_change_leaves_the_target_old_or_marked() {
    let old = noise(LEN);
    let new = changed(&old, &[100, 300]);
    for map in [vec![], vec![page(100)], vec![page(300)]] {
        let (directory, target) = directory(&old);
        let options = SyncOptions::default()
            .with_safety(Safety::InPlace)
            .with_verify(Verify::All)
            .with_change_map(Some(map));
        let error = sync(&source(&new), &target, &options, &work()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::VerifyFailed);
        let now = directory.bytes("t.raw").unwrap();
        let storage = MemoryStorage::new("now", now.clone());
        assert!(now == old || Marker::find(&storage).unwrap().is_some());
        let options = options.with_change_map(None);
        sync(&source(&new), &target, &options, &work()).unwrap();
        assert!(directory.bytes("t.raw").unwrap() == new);
    }
}

#[test]
fn a_complete_change_map_passes_a_check_of_all() {
    let old = noise(LEN);
    let new = changed(&old, &[300, 400]);
    for safety in [Safety::Atomic, Safety::InPlace] {
        let options = SyncOptions::default()
            .with_safety(safety)
            .with_verify(Verify::All)
            // Whole pages count, in any order and overlapping.
            .with_change_map(Some(vec![
                page(400).start + 5..page(400).start + 6,
                page(300),
                page(300).start..page(302).end,
            ]));
        for outcome in [Outcome::Synced, Outcome::Identical] {
            let (directory, target) = directory(match outcome {
                Outcome::Synced => &old,
                _ => &new,
            });
            let report = sync(&source(&new), &target, &options, &work()).unwrap();
            let said = (report.outcome, report.verified);
            assert_eq!(said, (outcome, Verified::All), "{safety:?}");
            assert!(directory.bytes("t.raw").unwrap() == new);
        }
    }
}

#[test]
fn a_change_map_that_cannot_be_one_of_the_disk_is_refused_wherever_it_is_taken() {
    let old = noise(LEN);
    let new = changed(&old, &[300]);
    let len = LEN as u64;
    let reversed = Range {
        start: 9000,
        end: 10,
    };
    for wrong in [reversed, len..len + 1, 0..u64::MAX, len + 5..len + 2] {
        let map = vec![page(300), wrong.clone()];
        let refused = |error: diskdelta::Error| {
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            let named = format!("{:#x} to {:#x}", wrong.start, wrong.end);
            assert!(error.to_string().contains(&named), "{error}");
        };
        for safety in [Safety::Atomic, Safety::InPlace] {
            for dry_run in [false, true] {
                let (directory, target) = directory(&old);
                let options = SyncOptions::default()
                    .with_safety(safety)
                    .with_dry_run(dry_run)
                    .with_change_map(Some(map.clone()));
                refused(sync(&source(&new), &target, &options, &work()).unwrap_err());
                assert!(directory.bytes("t.raw").unwrap() == old);
                assert_eq!(directory.names().unwrap(), ["t.raw"]);
            }
        }
        let options = CompareOptions::default().with_change_map(map.clone());
        let seen = compare(&raw(&new), &raw(&old), &options, &work(), &|_| Ok(()));
        refused(seen.unwrap_err());
        let base = manifest::build(&raw(&old), BlockSize::MIN, &work()).unwrap();
        let (to, next) = (MemoryStorage::default(), MemoryStorage::default());
        let updated = manifest::update_to(&base, &raw(&new), map.clone(), &work(), Arc::new(to));
        refused(updated.err().unwrap());
        let to = MemoryStorage::default();
        let link = delta::create_link(
            &base,
            &raw(&new),
            Some(map),
            Arc::new(to),
            Arc::new(next),
            &DeltaOptions::default(),
            &work(),
        );
        refused(link.err().unwrap());
    }
}

/// A medium that writes to the wrong place once: what goes to one page damages another one too.
struct Misdirecting {
    below: MemoryStorage,
    written: Range<u64>,
    damaged: u64,
    has_struck: AtomicBool,
}

impl Misdirecting {
    fn strike(&self, range: Range<u64>) -> diskdelta::Result<()> {
        let touches = range.start < self.written.end && self.written.start < range.end;
        if touches && !self.has_struck.swap(true, Ordering::Relaxed) {
            self.below.write_all_at(&[0xbd; 512], self.damaged)?;
        }
        Ok(())
    }
}

impl Storage for Misdirecting {
    fn path(&self) -> &Path {
        self.below.path()
    }

    fn len(&self) -> diskdelta::Result<u64> {
        self.below.len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> diskdelta::Result<()> {
        self.below.read_exact_at(buf, offset)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> diskdelta::Result<()> {
        self.below.write_all_at(buf, offset)?;
        self.strike(offset..offset + buf.len() as u64)
    }

    fn set_len(&self, len: u64) -> diskdelta::Result<()> {
        self.below.set_len(len)
    }

    fn sync(&self) -> diskdelta::Result<()> {
        self.below.sync()
    }

    fn punch_hole(&self, range: Range<u64>) -> diskdelta::Result<()> {
        self.below.punch_hole(range)
    }

    fn next_data(&self, offset: u64) -> diskdelta::Result<Option<Range<u64>>> {
        self.below.next_data(offset)
    }
}

#[test]
fn a_target_that_does_not_hold_the_source_keeps_its_marker_and_the_way_on_works() {
    let old = noise(LEN);
    let new = changed(&old, &[300]);
    for safety in [Safety::Atomic, Safety::InPlace] {
        for mode in [Mode::Delta, Mode::Full] {
            let medium = Arc::new(Misdirecting {
                below: MemoryStorage::new("device", old.clone()),
                written: page(300),
                damaged: page(280).start,
                has_struck: AtomicBool::new(false),
            });
            let logs: Arc<dyn Directory> = Arc::new(WatchedDirectory::new());
            let redo_log = FileRef::new(logs.clone(), "device-redo_log");
            let target = Target::device(medium.clone(), Format::Raw, redo_log);
            let options = SyncOptions::default()
                .with_mode(mode)
                .with_safety(safety)
                .with_verify(Verify::All);
            let what = format!("{safety:?} {mode:?}");
            let first = sync(&source(&new), &target, &options, &work());
            if mode == Mode::Full && first.is_ok() {
                // Written after it was damaged.
                continue;
            }
            let error = first.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::VerifyFailed, "{what}");
            assert!(Marker::find(&*medium).unwrap().is_some(), "{what}: {error}");
            let rerun = |options: &SyncOptions| {
                let report = sync(&source(&new), &target, options, &work()).unwrap();
                assert_eq!(report.verified, Verified::All, "{what}");
                assert!(medium.below.to_vec() == new, "{what}");
                assert!(Marker::find(&*medium).unwrap().is_none(), "{what}");
            };
            match safety {
                Safety::Atomic => {
                    assert!(error.to_string().contains("recover"), "{error}");
                    assert_eq!(recover(&target, &work()).unwrap(), Recovered::New);
                    rerun(&options);
                }
                _ => {
                    assert!(error.to_string().contains("run the sync again"), "{error}");
                    rerun(&options);
                }
            }
        }
    }
}

#[test]
fn cancelling_a_check_of_all_never_calls_a_complete_target_untouched() {
    // The check comes last, so a cancel is seen there first where it is asked for late.
    let old = noise(LEN);
    let new = changed(&old, &[300]);
    for safety in [Safety::Atomic, Safety::InPlace] {
        let (directory, target) = directory(&old);
        let work = work();
        let cancel = work.cancel().clone();
        let phases = Arc::new(CancelAtVerify(cancel));
        let work = work.with_progress(phases);
        let options = SyncOptions::default()
            .with_mode(Mode::Delta)
            .with_safety(safety)
            .with_verify(Verify::All);
        let error = sync(&source(&new), &target, &options, &work).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
        let now = MemoryStorage::new("now", directory.bytes("t.raw").unwrap());
        assert!(Marker::find(&now).unwrap().is_some());
        assert!(error.to_string().contains("marked"), "{error}");
        let work = Work::with_threads(1).unwrap();
        match safety {
            Safety::Atomic => assert_eq!(recover(&target, &work).unwrap(), Recovered::New),
            _ => drop(sync(&source(&new), &target, &options, &work).unwrap()),
        }
        assert!(directory.bytes("t.raw").unwrap() == new);
    }
}

/// Cancels as soon as something is read back.
struct CancelAtVerify(diskdelta::CancelToken);

impl diskdelta::Progress for CancelAtVerify {
    fn begin(&self, phase: diskdelta::Phase, _total_bytes: Option<u64>) {
        if phase == diskdelta::Phase::Verify {
            self.0.cancel();
        }
    }

    fn advance(&self, _bytes: u64) {}
}

#[test]
fn a_dry_run_counts_what_the_sync_onto_a_missing_target_writes() {
    let mut new = noise(LEN);
    new[100 * PAGE..200 * PAGE].fill(0);
    let directory = WatchedDirectory::new();
    let shared: Arc<dyn Directory> = Arc::new(directory.clone());
    for (name, format) in [("t.raw", Format::Raw), ("t.vhd", Format::Vhd)] {
        let target = Target::file(FileRef::new(shared.clone(), name), format);
        let options = SyncOptions::default();
        let dry = options.clone().with_dry_run(true);
        let report = sync(&source(&new), &target, &dry, &work()).unwrap();
        assert_eq!(report.outcome, Outcome::DryRun);
        assert!(directory.bytes(name).is_none());
        let done = sync(&source(&new), &target, &options, &work()).unwrap();
        let numbers = |of: &SyncReport| (of.changed_bytes, of.zeroed_bytes, of.written_bytes);
        assert_eq!(numbers(&report), numbers(&done));
        assert_eq!(report.written_bytes, (LEN - 100 * PAGE) as u64);
    }
}

#[test]
fn ranges_that_were_skipped_are_never_called_identical() {
    let new = noise(LEN);
    let disk = FaultDisk::new();
    disk.put("/s/s", new.clone());
    disk.make_unreadable("/s/s", page(300)).unwrap();
    let storage = disk.open("/s/s", Access::Read).unwrap();
    let source = Source::new(Arc::new(Raw::open(Arc::new(storage)).unwrap()));
    for (old, outcome) in [
        (new.clone(), Outcome::Unchanged),
        (changed(&new, &[300]), Outcome::Unchanged),
        (changed(&new, &[30]), Outcome::SyncedWithGaps),
    ] {
        for (dry_run, safety) in [
            (false, Safety::Atomic),
            (false, Safety::InPlace),
            (true, Safety::Atomic),
        ] {
            for verify in [Verify::Written, Verify::All] {
                let (directory, target) = directory(&old);
                let options = SyncOptions::default()
                    .with_mode(Mode::Delta)
                    .with_safety(safety)
                    .with_verify(verify)
                    .with_dry_run(dry_run)
                    .with_skip_unreadable(true);
                let report = sync(&source, &target, &options, &work()).unwrap();
                let wanted = match outcome {
                    Outcome::SyncedWithGaps if dry_run => Outcome::DryRun,
                    outcome => outcome,
                };
                assert_eq!(report.outcome, wanted, "{safety:?} {verify:?} {dry_run}");
                assert_eq!(report.unreadable, [page(300)]);
                assert!(outcome != Outcome::Unchanged || directory.bytes("t.raw").unwrap() == old);
            }
        }
    }
}

#[test]
fn what_a_sync_of_another_mode_left_is_gone_when_one_ends_well() {
    let old = noise(LEN);
    let new = changed(&old, &[300]);
    for left in [
        ".t.raw.diskdelta-new",
        ".t.raw.diskdelta-log",
        "..t.raw.diskdelta-log.previous",
        "..t.raw.diskdelta-log.fresh",
    ] {
        for (mode, before) in [
            (Mode::Delta, &old),
            (Mode::Delta, &new),
            (Mode::Full, &old),
            (Mode::Auto, &new),
        ] {
            for safety in [Safety::Atomic, Safety::InPlace] {
                let (directory, target) = directory(before);
                directory.insert(left, noise(5 * PAGE));
                let options = SyncOptions::default().with_mode(mode).with_safety(safety);
                let dry = options.clone().with_dry_run(true);
                let what = format!("{left} {mode:?} {safety:?}");
                sync(&source(&new), &target, &dry, &work()).unwrap();
                assert_eq!(directory.names().unwrap().len(), 2, "{what}");
                sync(&source(&new), &target, &options, &work()).unwrap();
                assert!(directory.bytes("t.raw").unwrap() == new);
                assert_eq!(directory.names().unwrap(), ["t.raw"], "{what}");
                assert_eq!(recover(&target, &work()).unwrap(), Recovered::Nothing);
            }
        }
    }
}

/// Bytes that the system calls one hole.
struct WrongHole(Arc<MemoryStorage>);

impl Storage for WrongHole {
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
        Ok(None)
    }
}

#[test]
fn bytes_that_the_system_calls_a_hole_are_read_where_that_is_asked_for() {
    let bytes = noise(LEN);
    for kind in [
        CreateFormat::Raw,
        CreateFormat::VhdFixed,
        CreateFormat::VhdDynamic,
        CreateFormat::VhdxFixed,
        CreateFormat::VhdxDynamic,
    ] {
        let file = Arc::new(MemoryStorage::new("image", Vec::new()));
        create(&*file, &CreateOptions::new(kind, LEN as u64)).unwrap();
        let plain = ImageOptions::default();
        let made = open_storage_mut(file.clone(), kind.format(), &plain).unwrap();
        made.write_all_at(&bytes, 0).unwrap();
        made.sync().unwrap();
        let root = |storage: Arc<dyn Storage>, read_holes| {
            let options = ImageOptions::default().with_read_holes(read_holes);
            let image = open_storage(storage, kind.format(), &options).unwrap();
            manifest::root_of(&*image, BlockSize::default(), &work()).unwrap()
        };
        let wanted = root(file.clone(), false);
        let holes = Arc::new(WrongHole(file));
        assert_ne!(root(holes.clone(), false), wanted, "{kind:?}");
        assert_eq!(root(holes, true), wanted, "{kind:?}");
    }
}

#[test]
fn a_target_that_is_verified_as_a_whole_is_read_where_the_system_shows_holes() {
    let bytes = noise(LEN);
    for safety in [Safety::Atomic, Safety::InPlace] {
        for mode in [Mode::Delta, Mode::Auto] {
            for verify in [Verify::Written, Verify::All] {
                let file = Arc::new(MemoryStorage::new("t.raw", bytes.clone()));
                let logs: Arc<dyn Directory> = Arc::new(MemoryDirectory::new());
                let redo_log = FileRef::new(logs, "redo_log");
                let storage = Arc::new(WrongHole(file.clone()));
                let target = Target::device(storage, Format::Raw, redo_log);
                let options = SyncOptions::default()
                    .with_safety(safety)
                    .with_mode(mode)
                    .with_verify(verify);
                let report = sync(&source(&[0; LEN]), &target, &options, &work()).unwrap();
                let what = format!("{safety:?} {mode:?} {verify:?}");
                if verify == Verify::All {
                    assert_eq!(report.outcome, Outcome::Synced, "{what}");
                    assert_eq!(report.verified, Verified::All, "{what}");
                }
                // Of what is not verified no more is read than what a marker covers.
                let is_clear = file.to_vec() == [0; LEN];
                assert_eq!(is_clear, verify == Verify::All, "{what}");
            }
        }
    }
}
