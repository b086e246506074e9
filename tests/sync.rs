//! A sync makes the target hold what the source holds, whatever the two held before.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod watched;

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use diskdelta::delta::{Delta, DeltaWriter, Frame, Header, JobId, Old, Purpose, reverse};
use diskdelta::image::{
    self, CreateFormat, CreateOptions, Format, Image, ImageInfo, ImageOptions, Raw,
};
use diskdelta::manifest::{self, Manifest};
use diskdelta::storage::{Access, Directory, FileRef, MemoryStorage, Storage};
use diskdelta::sync::{
    BaseCheck, Marker, Mode, Outcome, Recovered, Safety, Source, SyncOptions, Target, Verified,
    Verify, apply_delta, recover, sample, sync,
};
use diskdelta::{
    Advice, BlockSize, CancelToken, Error, ErrorKind, Extent, Hash, Limits, Phase, Progress, Work,
};
use proptest::prelude::*;
use watched::WatchedDirectory;

const PAGE: usize = 4096;

fn source(bytes: &[u8]) -> Source {
    let storage = MemoryStorage::new("source", bytes.to_vec());
    Source::new(Arc::new(Raw::open(Arc::new(storage)).unwrap()))
}

fn target(directory: &WatchedDirectory) -> Target {
    let directory: Arc<dyn Directory> = Arc::new(directory.clone());
    Target::file(FileRef::new(directory, "t.raw"), Format::Raw)
}

/// A disk of pages from a small alphabet, so that equal, changed and zero pages all come up; the
/// last page may be short.
#[derive(Clone, Debug)]
struct Disk {
    pages: Vec<u8>,
    cut: usize,
}

impl Disk {
    fn any(most_pages: usize) -> impl Strategy<Value = Disk> {
        (prop::collection::vec(0u8..4, 1..most_pages), 0..PAGE)
            .prop_map(|(pages, cut)| Disk { pages, cut })
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..)
            .zip(&self.pages)
            .flat_map(|(index, kind)| match kind {
                0 => vec![0; PAGE],
                // A prime period, so that swapped pages show.
                kind => (0..PAGE)
                    .map(|at| ((at + index) % 251) as u8 ^ kind)
                    .collect(),
            })
            .collect();
        bytes.truncate(bytes.len() - self.cut);
        bytes
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn the_target_equals_the_source_and_a_second_run_writes_nothing(
        new in Disk::any(700),
        old in Disk::any(700),
        mode in prop::sample::select(vec![Mode::Auto, Mode::Delta, Mode::Full]),
        safety in prop::sample::select(vec![Safety::Atomic, Safety::InPlace]),
        verify in prop::sample::select(vec![Verify::Written, Verify::All, Verify::None]),
    ) {
        let (new, old) = (new.bytes(), old.bytes());
        let directory = WatchedDirectory::new();
        directory.insert("t.raw", old.clone());
        let work = Work::with_threads(2).unwrap();
        let options = SyncOptions::default()
            .with_mode(mode).with_safety(safety).with_verify(verify).with_allow_shrink(true);
        sync(&source(&new), &target(&directory), &options, &work).unwrap();
        prop_assert!(directory.bytes("t.raw").unwrap() == new);
        prop_assert_eq!(directory.names().unwrap(), vec!["t.raw"]);
        let options = options.with_mode(Mode::Delta);
        let again = sync(&source(&new), &target(&directory), &options, &work).unwrap();
        prop_assert_eq!(again.outcome, Outcome::Identical);
        prop_assert_eq!(again.written_bytes, 0);
        prop_assert_eq!(recover(&target(&directory), &work).unwrap(), Recovered::Nothing);
    }

    #[test]
    fn undo_brings_the_old_bytes_back(new in Disk::any(600), old in Disk::any(600)) {
        let (new, old) = (new.bytes(), old.bytes());
        let directory = WatchedDirectory::new();
        directory.insert("t.raw", old.clone());
        let work = Work::with_threads(2).unwrap();
        let file_ref = FileRef::new(Arc::new(directory.clone()), "t.undo");
        let options = SyncOptions::default()
            .with_mode(Mode::Delta).with_undo(Some(file_ref.clone())).with_allow_shrink(true);
        if old.len() < PAGE {
            return Ok(());
        }
        let report = sync(&source(&new), &target(&directory), &options, &work).unwrap();
        if report.outcome == Outcome::Synced {
            diskdelta::sync::undo(&file_ref, &target(&directory), &work).unwrap();
            prop_assert!(directory.bytes("t.raw").unwrap() == old);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_target_manifest_stands_for_reading_the_target(
        disks in prop::collection::vec(Disk::any(700), 2..4),
        old in Disk::any(700),
        safety in prop::sample::select(vec![Safety::Atomic, Safety::InPlace]),
    ) {
        let directory = WatchedDirectory::new();
        let mut now = old.bytes();
        if now.len() < PAGE {
            return Ok(());
        }
        directory.insert("t.raw", now.clone());
        let work = Work::with_threads(2).unwrap();
        let kept = FileRef::new(Arc::new(directory.clone()), "t.manifest");
        let options = SyncOptions::default()
            .with_safety(safety)
            .with_allow_shrink(true)
            .with_block_size(BlockSize::MIN)
            .with_target_manifest(Some(kept.clone()));
        for disk in disks {
            now = disk.bytes();
            sync(&source(&now), &target(&directory), &options, &work).unwrap();
            prop_assert!(directory.bytes("t.raw").unwrap() == now);
            prop_assert_eq!(directory.names().unwrap(), vec!["t.manifest", "t.raw"]);
            let storage = kept.open(Access::Read).unwrap();
            let manifest = Manifest::from_storage(storage, &Limits::default()).unwrap();
            let image = Raw::open(Arc::new(MemoryStorage::new("now", now.clone()))).unwrap();
            let root = manifest::root_of(&image, BlockSize::MIN, &work).unwrap();
            prop_assert_eq!(manifest.root(), root);
            if now.len() < PAGE {
                return Ok(());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_change_map_is_all_that_is_looked_at(
        new in Disk::any(400),
        old in Disk::any(400),
        map in prop::collection::vec((0u64..400, 0u64..60), 0..6),
        safety in prop::sample::select(vec![Safety::Atomic, Safety::InPlace]),
    ) {
        let (mut new, old) = (new.bytes(), old.bytes());
        new.resize(old.len(), 7);
        // Shorter ones are replaced, not written to.
        if old.len() < 8 * PAGE {
            return Ok(());
        }
        let len = old.len() as u64;
        let end = |page: u64| (page * PAGE as u64).min(len);
        let map: Vec<Range<u64>> = map
            .into_iter()
            .map(|(page, pages)| end(page)..end(page + pages))
            .collect();
        let mut expected = old.clone();
        for range in &map {
            let range = (range.start as usize).min(old.len())..(range.end as usize).min(old.len());
            expected[range.clone()].copy_from_slice(&new[range]);
        }
        let directory = WatchedDirectory::new();
        directory.insert("t.raw", old);
        let work = Work::with_threads(2).unwrap();
        let options = SyncOptions::default().with_safety(safety).with_change_map(Some(map));
        sync(&source(&new), &target(&directory), &options, &work).unwrap();
        prop_assert!(directory.bytes("t.raw").unwrap() == expected);
    }
}

#[test]
fn a_change_map_goes_with_a_delta_only() {
    let directory = WatchedDirectory::new();
    directory.insert("t.raw", vec![1; 100_000]);
    let options = SyncOptions::default()
        .with_mode(Mode::Full)
        .with_change_map(Some(Vec::new()));
    let work = Work::with_threads(1).unwrap();
    let error = sync(&source(&[2; 100_000]), &target(&directory), &options, &work).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(directory.bytes("t.raw").unwrap(), vec![1; 100_000]);
}

#[test]
fn a_target_that_would_shrink_is_left_alone_unless_that_is_allowed() {
    let directory = WatchedDirectory::new();
    directory.insert("t.raw", vec![1; 3 * PAGE]);
    let work = Work::with_threads(1).unwrap();
    let options = SyncOptions::default();
    let error = sync(&source(&[2; PAGE]), &target(&directory), &options, &work).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.advice().contains(&Advice::AllowShrink), "{error}");
    assert_eq!(directory.bytes("t.raw").unwrap(), vec![1; 3 * PAGE]);
}

#[test]
fn a_missing_target_is_created() {
    let directory = WatchedDirectory::new();
    let work = Work::with_threads(1).unwrap();
    sync(
        &source(&[2; 5000]),
        &target(&directory),
        &SyncOptions::default(),
        &work,
    )
    .unwrap();
    assert_eq!(directory.bytes("t.raw").unwrap(), vec![2; 5000]);
}

/// Storage that knows the longest read, and may not take what is written to it.
struct Watched {
    below: MemoryStorage,
    longest: AtomicUsize,
    /// Takes no write, and says so.
    broken: AtomicBool,
    /// Loses writes that begin here, and says that all is well.
    forgets: Range<u64>,
    /// What was dropped from the cache.
    dropped: Mutex<Vec<Range<u64>>>,
}

impl Watched {
    fn new(name: &str, bytes: Vec<u8>) -> Watched {
        Watched {
            below: MemoryStorage::new(name, bytes),
            longest: AtomicUsize::new(0),
            broken: AtomicBool::new(false),
            forgets: 0..0,
            dropped: Mutex::default(),
        }
    }
}

impl Storage for Watched {
    fn path(&self) -> &Path {
        self.below.path()
    }

    fn len(&self) -> diskdelta::Result<u64> {
        self.below.len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> diskdelta::Result<()> {
        self.longest.fetch_max(buf.len(), Ordering::Relaxed);
        self.below.read_exact_at(buf, offset)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> diskdelta::Result<()> {
        if self.broken.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Io, "broken"));
        }
        for (at, sector) in (offset..).step_by(512).zip(buf.chunks(512)) {
            if !self.forgets.contains(&at) {
                self.below.write_all_at(sector, at)?;
            }
        }
        Ok(())
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

    fn drop_cache(&self, range: Range<u64>) {
        self.dropped.lock().unwrap().push(range);
    }
}

#[test]
fn what_is_read_back_is_dropped_from_the_cache_first() {
    let (len, page) = (4u64 << 20, PAGE as u64);
    let mut new = vec![9; len as usize];
    new[3 * PAGE..4 * PAGE].fill(5);
    new[2 << 20..(2 << 20) + PAGE].fill(5);
    for safety in [Safety::Atomic, Safety::InPlace] {
        let directory: Arc<dyn Directory> = Arc::new(WatchedDirectory::new());
        let device = Arc::new(Watched::new("device", vec![9; len as usize]));
        let redo_log = FileRef::new(directory, "device-redo_log");
        let target = Target::device(device.clone(), Format::Raw, redo_log);
        let options = SyncOptions::default()
            .with_mode(Mode::Delta)
            .with_safety(safety);
        sync(
            &source(&new),
            &target,
            &options,
            &Work::with_threads(1).unwrap(),
        )
        .unwrap();
        let dropped = device.dropped.lock().unwrap();
        for range in [
            2 << 20..(2 << 20) + page,
            // What the marker covers, but for the first page, which comes last.
            page..1 << 20,
            len - (1 << 20)..len,
        ] {
            assert!(dropped.contains(&range), "{range:?}: {dropped:?}");
        }
    }
}

/// A VHD without blocks: zeros as one extent.
fn empty_vhd(len: u64) -> Arc<dyn Image> {
    let empty = Arc::new(MemoryStorage::new("empty", Vec::new()));
    image::create(&*empty, &CreateOptions::new(CreateFormat::VhdDynamic, len)).unwrap();
    image::open_storage(empty, Format::Vhd, &ImageOptions::default()).unwrap()
}

#[test]
fn long_zeros_over_unread_bytes_are_read_back_in_pieces() {
    let directory: Arc<dyn Directory> = Arc::new(WatchedDirectory::new());
    let device = Arc::new(Watched::new("device", vec![9; 40 << 20]));
    let redo_log = FileRef::new(directory.clone(), "device-redo_log");
    let target = Target::device(device.clone(), Format::Raw, redo_log);
    let options = SyncOptions::default().with_mode(Mode::Full);
    let work = Work::with_threads(1).unwrap();
    let empty = Source::new(empty_vhd(40 << 20));
    // It may also find them in a redo log that was only waiting for its target.
    device.broken.store(true, Ordering::Relaxed);
    sync(&empty, &target, &options, &work).unwrap_err();
    device.broken.store(false, Ordering::Relaxed);
    let delta = SyncOptions::default().with_mode(Mode::Delta);
    sync(&empty, &target, &delta, &work).unwrap();
    device.below.write_all_at(&[9; 5 << 20], 3 << 20).unwrap();
    sync(&empty, &target, &options, &work).unwrap();
    assert!(device.below.to_vec().iter().all(|byte| *byte == 0));
    let longest = device.longest.load(Ordering::Relaxed);
    assert!(longest <= 16 << 20, "{longest} bytes were read at once");
}

#[test]
fn the_way_back_from_long_zeros_is_read_in_pieces() {
    let header = Header {
        purpose: Purpose::Portable,
        job: JobId([1; 16]),
        base_len: 40 << 20,
        result_len: 40 << 20,
        block_size: BlockSize::MIN,
    };
    let file = Arc::new(MemoryStorage::new("delta", Vec::new()));
    let mut writer = DeltaWriter::create(file.clone(), header).unwrap();
    writer
        .push(&Frame::zero(5, (40 << 20) - 5, Old::Unknown))
        .unwrap();
    writer.finish(None, None).unwrap();
    let delta = Delta::from_storage(file, &Limits::default()).unwrap();
    let base = Arc::new(Watched::new("base", vec![9; 40 << 20]));
    let undo = Arc::new(MemoryStorage::new("undo", Vec::new()));
    let writer = DeltaWriter::create(undo.clone(), header).unwrap();
    let work = Work::with_threads(1).unwrap();
    let trailer = reverse(&delta, &Raw::open(base.clone()).unwrap(), writer, &work).unwrap();
    assert_eq!(trailer.data_bytes, (40 << 20) - 5);
    let undo = Delta::from_storage(undo, &Limits::default()).unwrap();
    undo.verify(&work, &|frame| {
        assert!(frame.bytes().iter().all(|byte| *byte == 9) && frame.header().old == Old::Zeros);
        Ok(())
    })
    .unwrap();
    let longest = base.longest.load(Ordering::Relaxed);
    assert!(longest <= 16 << 20, "{longest} bytes were read at once");
}

#[test]
fn the_way_back_is_not_made_from_another_base_than_the_deltas() {
    const LEN: usize = 3 << 20;
    let header = Header {
        purpose: Purpose::RedoLog,
        job: JobId([1; 16]),
        base_len: LEN as u64,
        result_len: LEN as u64,
        block_size: BlockSize::MIN,
    };
    let file = Arc::new(MemoryStorage::new("delta", Vec::new()));
    let mut writer = DeltaWriter::create(file.clone(), header).unwrap();
    let old = Old::Hash(diskdelta::Hash::from_bytes(
        blake3::hash(&vec![9; LEN - 4096]).into(),
    ));
    let new = vec![5; LEN - 4096];
    writer.push(&Frame::data(4096, &new, old, None)).unwrap();
    writer.finish(None, None).unwrap();
    let delta = Delta::from_storage(file, &Limits::default()).unwrap();
    let work = Work::with_threads(1).unwrap();
    let back = |base: Vec<u8>| {
        let undo = Arc::new(MemoryStorage::new("undo", Vec::new()));
        let writer = DeltaWriter::create(undo, header).unwrap();
        let base = Raw::open(Arc::new(MemoryStorage::new("base", base))).unwrap();
        reverse(&delta, &base, writer, &work)
    };
    back(vec![9; LEN]).unwrap();
    let error = back(vec![8; LEN]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BaseMismatch);
}

#[test]
fn a_larger_device_keeps_its_tail_only_where_that_is_allowed() {
    let directory: Arc<dyn Directory> = Arc::new(WatchedDirectory::new());
    let device = Arc::new(MemoryStorage::new("device", vec![9; 4 << 20]));
    let redo_log = FileRef::new(directory, "device-redo_log");
    let storage: Arc<dyn Storage> = device.clone();
    let target = Target::device(storage, Format::Raw, redo_log);
    let work = Work::with_threads(1).unwrap();
    let new = vec![5; 3 << 20];
    let error = sync(&source(&new), &target, &SyncOptions::default(), &work).unwrap_err();
    assert!(error.advice() == [Advice::AllowLarger], "{error}");
    let options = SyncOptions::default().with_allow_larger(true);
    let report = sync(&source(&new), &target, &options, &work).unwrap();
    assert_eq!(report.untouched_tail_bytes, 1 << 20);
    let bytes = device.to_vec();
    assert!(bytes[..3 << 20] == new && bytes[3 << 20..].iter().all(|byte| *byte == 9));
}

#[test]
fn a_sample_counts_pages_of_data_and_those_that_differ() {
    let image = |bytes: &[u8]| -> Raw {
        Raw::open(Arc::new(MemoryStorage::new("image", bytes.to_vec()))).unwrap()
    };
    let (new, mut old) = (noise(64 * PAGE), noise(64 * PAGE));
    for page in [3, 5, 40] {
        old[page * PAGE] ^= 1;
    }
    let work = Work::with_threads(2).unwrap();
    let sample = sample(&image(&new), &image(&old), BlockSize::MIN, &work).unwrap();
    assert_eq!((sample.looked, sample.changed), (64, 3));
}

#[test]
fn auto_copies_a_file_that_differs_and_never_a_device_or_in_place() {
    let (new, old) = (noise(1 << 20), vec![7; 1 << 20]);
    let work = Work::with_threads(2).unwrap();
    let options = SyncOptions::default();
    let choice = |old: &[u8], options: &SyncOptions| {
        let directory = WatchedDirectory::new();
        directory.insert("t.raw", old.to_vec());
        let report = sync(&source(&new), &target(&directory), options, &work).unwrap();
        assert!(directory.bytes("t.raw").unwrap() == new);
        report.mode
    };
    assert_eq!(choice(&old, &options), Mode::Full);
    let mut like = new.clone();
    like[PAGE] ^= 1;
    assert_eq!(choice(&like, &options), Mode::Delta);
    let in_place = options.clone().with_safety(Safety::InPlace);
    assert_eq!(choice(&old, &in_place), Mode::Delta);
    // A copy that is not read back is worth less of a difference.
    let mut third = new.clone();
    for page in (0..new.len() / PAGE).step_by(3) {
        third[page * PAGE] ^= 1;
    }
    assert_eq!(choice(&third, &options), Mode::Delta);
    let unread = options.clone().with_verify(Verify::None);
    assert_eq!(choice(&third, &unread), Mode::Full);

    let directory: Arc<dyn Directory> = Arc::new(WatchedDirectory::new());
    let device = Arc::new(MemoryStorage::new("device", old));
    let redo_log = FileRef::new(directory, "device-redo_log");
    let device_target = Target::device(device.clone(), Format::Raw, redo_log);
    let report = sync(&source(&new), &device_target, &options, &work).unwrap();
    assert_eq!(report.mode, Mode::Delta);
    assert!(report.reason.contains("device"), "{}", report.reason);
    assert!(device.to_vec() == new);
}

#[test]
fn of_a_block_that_becomes_zeros_only_what_is_not_yet_zero_is_written() {
    let mut old = vec![0; 32 * PAGE];
    old[3 * PAGE..4 * PAGE].fill(9);
    old[20 * PAGE..21 * PAGE].fill(9);
    let mut new = old.clone();
    new[3 * PAGE..4 * PAGE].fill(0);
    let directory = WatchedDirectory::new();
    directory.insert("t.raw", old.clone());
    let work = Work::with_threads(2).unwrap();
    let kept = FileRef::new(Arc::new(directory.clone()), "t.manifest");
    let options = SyncOptions::default().with_target_manifest(Some(kept));
    sync(&source(&old), &target(&directory), &options, &work).unwrap();
    let report = sync(&source(&new), &target(&directory), &options, &work).unwrap();
    assert_eq!((report.changed_bytes, report.zeroed_bytes), (4096, 4096));
    // The source, and the one block of the target that is not what its manifest should say.
    assert_eq!(report.compared_bytes, 3 * 16 * 4096);
    assert!(directory.bytes("t.raw").unwrap() == new);
}

#[test]
fn a_file_too_short_for_a_marker_is_replaced_as_a_whole_or_left_alone() {
    let work = Work::with_threads(1).unwrap();
    for safety in [Safety::Atomic, Safety::InPlace] {
        let directory = WatchedDirectory::new();
        directory.insert("t.raw", vec![1; 1000]);
        let options = SyncOptions::default()
            .with_mode(Mode::Delta)
            .with_safety(safety);
        let new = [2; 1200];
        let report = sync(&source(&new), &target(&directory), &options, &work).unwrap();
        assert_eq!((report.outcome, report.mode), (Outcome::Synced, Mode::Full));
        assert!(directory.bytes("t.raw").unwrap() == new);
        let report = sync(&source(&new), &target(&directory), &options, &work).unwrap();
        assert_eq!(report.outcome, Outcome::Identical);
        assert_eq!(report.written_bytes, 0);
        assert_eq!(directory.names().unwrap(), vec!["t.raw"]);
    }
}

#[test]
fn a_dry_run_says_identical_of_equal_disks_only() {
    let old = noise(8 * PAGE);
    let directory = WatchedDirectory::new();
    directory.insert("t.raw", old.clone());
    let work = Work::with_threads(1).unwrap();
    let options = SyncOptions::default().with_dry_run(true);
    let look = |new: &[u8], options: &SyncOptions| {
        let report = sync(&source(new), &target(&directory), options, &work).unwrap();
        assert!(directory.bytes("t.raw").unwrap() == old);
        report
    };
    let mut changed = old.clone();
    changed[3 * PAGE] ^= 1;
    let longer = [&old[..], &[0; PAGE]].concat();
    for (new, outcome, verified) in [
        (&old, Outcome::Identical, Verified::Written),
        (&changed, Outcome::DryRun, Verified::No),
        (&longer, Outcome::DryRun, Verified::No),
    ] {
        let report = look(new, &options);
        assert_eq!((report.outcome, report.verified), (outcome, verified));
    }
    let report = look(&old, &options.with_verify(Verify::None));
    assert_eq!(report.verified, Verified::No);
}

#[test]
fn a_full_copy_keeps_the_kind_of_container_that_it_replaces() {
    let work = Work::with_threads(1).unwrap();
    let options = SyncOptions::default().with_mode(Mode::Full);
    let new = noise(1 << 20);
    for kind in [
        CreateFormat::VhdFixed,
        CreateFormat::VhdDynamic,
        CreateFormat::VhdxFixed,
        CreateFormat::VhdxDynamic,
    ] {
        let old = Arc::new(MemoryStorage::new("old", Vec::new()));
        let mut create = CreateOptions::new(kind, 1 << 20);
        if kind.format() == Format::Vhdx {
            create = create.with_block_size(2 << 20);
        }
        image::create(&*old, &create).unwrap();
        let directory = WatchedDirectory::new();
        directory.insert("t", old.to_vec());
        let file_ref = FileRef::new(Arc::new(directory.clone()), "t");
        let target = Target::file(file_ref.clone(), kind.format());
        let info = || {
            let storage = file_ref.open(Access::Read).unwrap();
            let opened = image::open_storage(storage, kind.format(), &ImageOptions::default());
            opened.unwrap().info()
        };
        let before = info();
        let report = sync(&source(&new), &target, &options, &work).unwrap();
        assert_eq!(report.mode, Mode::Full);
        let after = info();
        assert_eq!(after.layout, before.layout, "{kind:?}");
        assert_eq!(after.block_bytes, before.block_bytes, "{kind:?}");
        assert_eq!(after.sector_bytes, before.sector_bytes, "{kind:?}");
    }
}

/// A target whose target manifest says what it holds.
fn kept_target(old: &[u8], work: &Work) -> (WatchedDirectory, SyncOptions) {
    let directory = WatchedDirectory::new();
    directory.insert("t.raw", old.to_vec());
    let file_ref = FileRef::new(Arc::new(directory.clone()), "t.manifest");
    let options = SyncOptions::default()
        .with_mode(Mode::Delta)
        .with_block_size(BlockSize::MIN)
        .with_target_manifest(Some(file_ref));
    sync(&source(old), &target(&directory), &options, work).unwrap();
    (directory, options)
}

fn manifest_of(bytes: &[u8], work: &Work) -> Manifest {
    let image = Raw::open(Arc::new(MemoryStorage::new("image", bytes.to_vec()))).unwrap();
    manifest::build(&image, BlockSize::MIN, work).unwrap()
}

#[test]
fn a_copy_is_chosen_where_most_differs_whether_or_not_a_target_manifest_is_kept() {
    let work = Work::with_threads(1).unwrap();
    let old = noise(1000 * PAGE);
    for (pages, mode) in [(1000, Mode::Full), (600, Mode::Full), (100, Mode::Delta)] {
        let (directory, options) = kept_target(&old, &work);
        let options = options.with_mode(Mode::Auto);
        let mut new = old.clone();
        for page in 0..pages {
            new[page * PAGE] ^= 1;
        }
        for options in [options.clone(), options.with_target_manifest(None)] {
            directory.insert("t.raw", old.clone());
            let report = sync(&source(&new), &target(&directory), &options, &work).unwrap();
            assert_eq!(report.mode, mode, "{pages}: {}", report.reason);
            assert!(directory.bytes("t.raw").unwrap() == new);
        }
    }
}

#[test]
fn where_manifests_stand_for_both_disks_only_blocks_that_differ_are_read() {
    let work = Work::with_threads(2).unwrap();
    let old = noise(1000 * PAGE);
    let mut new = old.clone();
    // More in a row than are read at once, of either kind.
    for page in [1, 999].into_iter().chain(100..400) {
        new[page * PAGE] ^= 1;
    }
    new[5 * PAGE..7 * PAGE].fill(0);
    new[500 * PAGE..800 * PAGE].fill(0);
    let (directory, options) = kept_target(&old, &work);
    let known = source(&new).with_manifest(manifest_of(&new, &work));
    let way_back = FileRef::new(Arc::new(directory.clone()), "t.undo");
    let undoable = options.clone().with_undo(Some(way_back.clone()));
    let report = sync(&known, &target(&directory), &undoable, &work).unwrap();
    assert_eq!(report.compared_bytes, 604 * PAGE as u64);
    assert_eq!(report.changed_bytes, 604 * PAGE as u64);
    assert_eq!(report.zeroed_bytes, 302 * PAGE as u64);
    assert!(directory.bytes("t.raw").unwrap() == new);
    // One of another length or of other blocks does not say what this disk holds.
    for wrong in [manifest_of(&new[PAGE..], &work), {
        let image = Raw::open(Arc::new(MemoryStorage::new("image", new.clone()))).unwrap();
        manifest::build(&image, BlockSize::default(), &work).unwrap()
    }] {
        let unknown = source(&new).with_manifest(wrong);
        let report = sync(&unknown, &target(&directory), &options, &work).unwrap();
        assert_eq!(report.outcome, Outcome::Unchanged);
        assert_eq!(report.compared_bytes, new.len() as u64);
    }
    diskdelta::sync::undo(&way_back, &target(&directory), &work).unwrap();
    assert!(directory.bytes("t.raw").unwrap() == old);
}

#[test]
fn a_source_that_does_not_hold_what_its_manifest_says_is_named_where_it_differs() {
    let work = Work::with_threads(2).unwrap();
    let old = noise(600 * PAGE);
    let mut new = old.clone();
    new[298 * PAGE..302 * PAGE].fill(7);
    let said = manifest_of(&new, &work);
    let (directory, options) = kept_target(&old, &work);
    for (page, byte) in [(300, 8), (301, 0)] {
        let mut other = new.clone();
        other[page * PAGE..(page + 1) * PAGE].fill(byte);
        let known = source(&other).with_manifest(said.clone());
        let error = sync(&known, &target(&directory), &options, &work).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::SourceChanged);
        assert_eq!(error.offset(), Some((page * PAGE) as u64));
        assert!(directory.bytes("t.raw").unwrap() == old);
    }
}

#[test]
fn what_a_medium_has_lost_is_found_before_the_target_counts_as_whole() {
    let work = Work::with_threads(1).unwrap();
    let (len, page) = (4u64 << 20, PAGE as u64);
    for (forgets, under_the_marker) in [
        (2 * page..3 * page, true),
        (2 << 20..(2 << 20) + page, false),
        (len - page..len, true),
    ] {
        for safety in [Safety::Atomic, Safety::InPlace] {
            for verify in [Verify::Written, Verify::None] {
                let directory: Arc<dyn Directory> = Arc::new(WatchedDirectory::new());
                let device = Arc::new(Watched {
                    forgets: forgets.clone(),
                    ..Watched::new("device", vec![9; len as usize])
                });
                let redo_log = FileRef::new(directory, "device-redo_log");
                let target = Target::device(device.clone(), Format::Raw, redo_log);
                let options = SyncOptions::default()
                    .with_mode(Mode::Delta)
                    .with_safety(safety)
                    .with_verify(verify);
                let new = vec![5; len as usize];
                let done = sync(&source(&new), &target, &options, &work);
                let what = format!("{forgets:?} {safety:?} {verify:?}");
                // What the marker covers is read back in any case, for it is the last write.
                if verify == Verify::None && !under_the_marker {
                    done.unwrap();
                    continue;
                }
                assert_eq!(done.unwrap_err().kind(), ErrorKind::VerifyFailed, "{what}");
                assert!(Marker::find(&*device).unwrap().is_some(), "{what}");
            }
        }
    }
}

#[test]
fn no_number_of_scattered_changes_is_too_many() {
    // Room for four ranges; all others are rounded out or written to a temporary file.
    let limits = Limits::default().with_table_bytes(128);
    let old = vec![1; 600 * PAGE];
    let mut new = old.clone();
    for page in (0..600).step_by(2) {
        new[page * PAGE] = 2;
    }
    for safety in [Safety::Atomic, Safety::InPlace] {
        for threads in [1, 4] {
            let directory = WatchedDirectory::new();
            directory.insert("t.raw", old.clone());
            let work = Work::with_threads(threads).unwrap();
            let options = SyncOptions::default()
                .with_mode(Mode::Delta)
                .with_safety(safety);
            let options_of_image = ImageOptions::default().with_limits(limits.clone());
            let strict = target(&directory).with_image_options(options_of_image);
            let report = sync(&source(&new), &strict, &options, &work).unwrap();
            assert_eq!(report.changed_bytes, (300 * PAGE) as u64, "{safety:?}");
            assert!(directory.bytes("t.raw").unwrap() == new, "{safety:?}");
        }
    }
}

/// A source that stops the sync after so many bytes were compared.
struct StopsAfter(AtomicU64, CancelToken);

impl Progress for StopsAfter {
    fn begin(&self, _phase: Phase, _total_bytes: Option<u64>) {}

    fn advance(&self, bytes: u64) {
        let left = &self.0;
        let before = left.fetch_sub(bytes, Ordering::SeqCst);
        if before <= bytes {
            self.1.cancel();
        }
    }
}

#[test]
fn an_interrupted_sync_of_more_changes_than_memory_accounts_for_goes_on() {
    let old = vec![1; 2000 * PAGE];
    let mut new = old.clone();
    for page in (0..2000).step_by(2) {
        new[page * PAGE] = 2;
    }
    let directory = WatchedDirectory::new();
    directory.insert("t.raw", old);
    let options = SyncOptions::default().with_mode(Mode::Delta);
    let cancel = CancelToken::new();
    let stops = StopsAfter((1200 * PAGE as u64).into(), cancel.clone());
    let work = Work::with_threads(1).unwrap().with_cancel(cancel);
    let work = work.with_progress(Arc::new(stops));
    let error = sync(&source(&new), &target(&directory), &options, &work).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    // Room for 100 ranges that are taken over.
    let limits = Limits::default().with_table_bytes(4 * 40 * 100);
    let strict = target(&directory).with_image_options(ImageOptions::default().with_limits(limits));
    let work = Work::with_threads(1).unwrap();
    let report = sync(&source(&new), &strict, &options, &work).unwrap();
    assert_eq!(report.resumed_bytes, 100 * PAGE as u64);
    assert_eq!(report.changed_bytes, 1000 * PAGE as u64);
    assert!(directory.bytes("t.raw").unwrap() == new);
}

/// A disk that answers with an error.
struct Failing(Raw, ErrorKind);

impl Image for Failing {
    fn disk_len(&self) -> u64 {
        self.0.disk_len()
    }

    fn read_exact_at(&self, _buf: &mut [u8], offset: u64) -> diskdelta::Result<()> {
        Err(Error::new(self.1, "it fails").at_offset(offset))
    }

    fn next_extent(&self, offset: u64) -> diskdelta::Result<Option<Extent>> {
        self.0.next_extent(offset)
    }

    fn info(&self) -> ImageInfo {
        self.0.info()
    }
}

#[test]
fn a_sample_passes_over_what_cannot_be_read_and_not_over_damage() {
    let image = || Raw::open(Arc::new(MemoryStorage::new("image", noise(8 * PAGE)))).unwrap();
    let work = Work::with_threads(1).unwrap();
    let of = |kind| {
        let source = Failing(image(), kind);
        sample(&source, &image(), BlockSize::MIN, &work)
    };
    let sample = of(ErrorKind::Io).unwrap();
    assert_eq!((sample.looked, sample.changed), (0, 0));
    let error = of(ErrorKind::Malformed).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Malformed);
}

#[test]
fn what_stops_a_full_copy_says_itself_what_to_do() {
    let directory = WatchedDirectory::new();
    directory.insert("t.raw", vec![1; 5 * PAGE]);
    let changed = || {
        let error = Error::new(ErrorKind::SourceChanged, "it changed");
        Err(error.advise("stop the guest"))
    };
    let source = source(&[2; 5 * PAGE]).with_check(Arc::new(changed));
    let options = SyncOptions::default().with_mode(Mode::Full);
    let work = Work::with_threads(1).unwrap();
    let error = sync(&source, &target(&directory), &options, &work).unwrap_err();
    assert_eq!(error.advice(), ["stop the guest".into()]);
    assert!(directory.bytes("t.raw").unwrap() == [1; 5 * PAGE]);
}

#[test]
fn a_source_that_changed_is_named_rather_than_the_read_that_failed_for_it() {
    let image = || Raw::open(Arc::new(MemoryStorage::new("image", noise(8 * PAGE)))).unwrap();
    let work = Work::with_threads(1).unwrap();
    for changed in [true, false] {
        for mode in [Mode::Delta, Mode::Full] {
            let directory = WatchedDirectory::new();
            directory.insert("t.raw", vec![1; 8 * PAGE]);
            let failing = Source::new(Arc::new(Failing(image(), ErrorKind::Io)));
            let source = failing.with_check(Arc::new(move || match changed {
                true => Err(Error::new(ErrorKind::SourceChanged, "it was cut")),
                false => Ok(()),
            }));
            let options = SyncOptions::default().with_mode(mode);
            let error = sync(&source, &target(&directory), &options, &work).unwrap_err();
            let expected = match changed {
                true => ErrorKind::SourceChanged,
                false => ErrorKind::Unreadable,
            };
            assert_eq!(error.kind(), expected, "{mode:?}");
            assert!(directory.bytes("t.raw").unwrap() == [1; 8 * PAGE]);
        }
    }
}

#[test]
fn what_only_the_longer_disk_has_is_looked_at_whatever_the_change_map_says() {
    let work = Work::with_threads(1).unwrap();
    for safety in [Safety::Atomic, Safety::InPlace] {
        let old = noise(16 * PAGE);
        let mut new = [&old[..], &noise(3 * PAGE)].concat();
        let directory = WatchedDirectory::new();
        directory.insert("t.raw", old);
        let options = SyncOptions::default()
            .with_safety(safety)
            .with_change_map(Some(Vec::new()));
        sync(&source(&new), &target(&directory), &options, &work).unwrap();
        assert!(directory.bytes("t.raw").unwrap() == new, "{safety:?}");
        new.truncate(5 * PAGE);
        let options = options.with_allow_shrink(true);
        sync(&source(&new), &target(&directory), &options, &work).unwrap();
        assert!(directory.bytes("t.raw").unwrap() == new, "{safety:?}");
    }
}

#[test]
fn how_far_a_sync_is_verified_is_said() {
    let work = Work::with_threads(1).unwrap();
    let (old, new) = (noise(64 * PAGE), vec![5; 64 * PAGE]);
    let verified = |keep: bool, mode, safety, verify| {
        let (directory, options) = kept_target(&old, &work);
        let mut options = options
            .with_mode(mode)
            .with_safety(safety)
            .with_verify(verify);
        if !keep {
            options = options.with_target_manifest(None);
        }
        let report = sync(&source(&new), &target(&directory), &options, &work).unwrap();
        assert!(directory.bytes("t.raw").unwrap() == new);
        assert_eq!((report.outcome, report.mode), (Outcome::Synced, mode));
        report.verified
    };
    use Safety::{Atomic, InPlace};
    use Verified::{All, Cached, No, Written};
    for (keep, mode, safety, written) in [
        (false, Mode::Delta, Atomic, Written),
        (false, Mode::Delta, InPlace, Written),
        (true, Mode::Delta, Atomic, Cached),
        (true, Mode::Delta, InPlace, Cached),
        // The copy is compared with the source as a whole.
        (false, Mode::Full, Atomic, All),
        (true, Mode::Full, Atomic, All),
        (false, Mode::Full, InPlace, Written),
        (true, Mode::Full, InPlace, Written),
    ] {
        let what = format!("{keep} {mode:?} {safety:?}");
        let of = |verify| verified(keep, mode, safety, verify);
        assert_eq!(of(Verify::Written), written, "{what}");
        assert_eq!(of(Verify::All), All, "{what}");
        assert_eq!(of(Verify::None), No, "{what}");
    }
}

#[test]
fn pages_that_become_zeros_inside_a_block_of_data_are_cleared_and_not_written() {
    let work = Work::with_threads(1).unwrap();
    let old = noise(32 * PAGE);
    let mut new = old.clone();
    new[20 * PAGE..22 * PAGE].fill(0);
    new[24 * PAGE] ^= 1;
    let (directory, options) = kept_target(&old, &work);
    directory.remove("t.manifest".as_ref()).unwrap();
    let options = options.with_block_size(BlockSize::default());
    sync(&source(&old), &target(&directory), &options, &work).unwrap();
    let report = sync(&source(&new), &target(&directory), &options, &work).unwrap();
    assert_eq!((report.written_bytes, report.zeroed_bytes), (4096, 8192));
    assert_eq!(
        report.changed_bytes,
        3 * 4096,
        "the rest of the block is equal"
    );
    assert!(directory.bytes("t.raw").unwrap() == new);
}

#[test]
fn neighbouring_pages_that_a_target_manifest_finds_are_moved_together() {
    let work = Work::with_threads(1).unwrap();
    let old = noise(64 * PAGE);
    let mut new = old.clone();
    new[10 * PAGE..13 * PAGE].fill(7);
    new[13 * PAGE..16 * PAGE].fill(0);
    new[20 * PAGE] ^= 1;
    let (directory, options) = kept_target(&old, &work);
    let file_ref = FileRef::new(Arc::new(directory.clone()), "t.undo");
    let options = options
        .with_block_size(BlockSize::default())
        .with_undo(Some(file_ref.clone()));
    directory.remove("t.manifest".as_ref()).unwrap();
    sync(&source(&old), &target(&directory), &options, &work).unwrap();
    sync(&source(&new), &target(&directory), &options, &work).unwrap();
    let undo =
        Delta::from_storage(file_ref.open(Access::Read).unwrap(), &Limits::default()).unwrap();
    assert_eq!(undo.trailer().frame_count, 3);
}

/// A delta of one frame, with no roots.
fn delta_of(len: u64, frame: &Frame<'_>) -> Delta {
    let header = Header {
        purpose: Purpose::Portable,
        job: JobId([1; 16]),
        base_len: len,
        result_len: len,
        block_size: BlockSize::MIN,
    };
    let file = Arc::new(MemoryStorage::new("delta", Vec::new()));
    let mut writer = DeltaWriter::create(file.clone(), header).unwrap();
    writer.push(frame).unwrap();
    writer.finish(None, None).unwrap();
    Delta::from_storage(file, &Limits::default()).unwrap()
}

#[test]
fn a_delta_that_is_told_by_what_it_touches_fits_only_disks_of_its_base_s_length() {
    let old = noise(16 * PAGE);
    let hash = Old::Hash(Hash::from_bytes(blake3::hash(&old[..PAGE]).into()));
    let delta = delta_of(old.len() as u64, &Frame::data(0, &[3; PAGE], hash, None));
    let work = Work::with_threads(1).unwrap();
    let apply = |base: &[u8], verify| {
        let directory = WatchedDirectory::new();
        directory.insert("t.raw", base.to_vec());
        let check = BaseCheck::Touched;
        let done = apply_delta(&delta, &target(&directory), check, verify, &work);
        (done, directory.bytes("t.raw").unwrap())
    };
    for base in [&old[..8 * PAGE], &[&old[..], &old[..]].concat()] {
        let (done, after) = apply(base, Verify::Written);
        assert_eq!(done.unwrap_err().kind(), ErrorKind::BaseMismatch);
        assert!(after == base);
    }
    for (verify, verified) in [
        (Verify::Written, Verified::Written),
        (Verify::None, Verified::No),
    ] {
        let (done, after) = apply(&old, verify);
        let report = done.unwrap();
        assert_eq!(report.changed_bytes, PAGE as u64);
        assert_eq!(
            (report.outcome, report.verified),
            (Outcome::Synced, verified)
        );
        assert!(after[..PAGE] == [3; PAGE] && after[PAGE..] == old[PAGE..]);
    }
}

#[test]
fn long_zeros_are_told_from_their_base_by_one_hash_of_all_of_it() {
    let old = noise(3 << 20);
    let hash = Old::Hash(Hash::from_bytes(blake3::hash(&old[PAGE..]).into()));
    let zeros = Frame::zero(PAGE as u64, (old.len() - PAGE) as u64, hash);
    let delta = delta_of(old.len() as u64, &zeros);
    let directory = WatchedDirectory::new();
    directory.insert("t.raw", old.clone());
    let work = Work::with_threads(1).unwrap();
    let (check, verify) = (BaseCheck::Touched, Verify::Written);
    let report = apply_delta(&delta, &target(&directory), check, verify, &work).unwrap();
    assert_eq!(report.outcome, Outcome::Synced);
    let now = directory.bytes("t.raw").unwrap();
    assert!(now[..PAGE] == old[..PAGE] && now[PAGE..].iter().all(|byte| *byte == 0));
}

#[test]
fn only_reading_all_of_a_target_finds_that_its_target_manifest_is_wrong() {
    let work = Work::with_threads(1).unwrap();
    let old = noise(64 * PAGE);
    let (directory, options) = kept_target(&old, &work);
    let mut other = old.clone();
    other[30 * PAGE] ^= 1;
    directory.insert("t.raw", other.clone());
    let report = sync(&source(&old), &target(&directory), &options, &work).unwrap();
    assert_eq!(
        (report.outcome, report.verified),
        (Outcome::Unchanged, Verified::Cached)
    );
    let all = options.clone().with_verify(Verify::All);
    let error = sync(&source(&old), &target(&directory), &all, &work).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::VerifyFailed);
    assert!(directory.bytes("t.raw").unwrap() == other);
}

#[test]
fn the_last_sector_of_a_container_is_filled_up_with_zeros() {
    let work = Work::with_threads(1).unwrap();
    let new = noise(3 * PAGE + 77);
    let directory: Arc<dyn Directory> = Arc::new(WatchedDirectory::new());
    let file_ref = FileRef::new(directory, "t.vhd");
    let target = Target::file(file_ref.clone(), Format::Vhd);
    for outcome in [Outcome::Synced, Outcome::Identical] {
        let options = SyncOptions::default().with_mode(Mode::Delta);
        let report = sync(&source(&new), &target, &options, &work).unwrap();
        assert_eq!(report.outcome, outcome);
        let storage = file_ref.open(Access::Read).unwrap();
        let options = ImageOptions::default();
        let image = image::open_storage(storage, Format::Vhd, &options).unwrap();
        assert_eq!(image.disk_len(), 3 * PAGE as u64 + 512);
        let mut bytes = vec![9; 3 * PAGE + 512];
        image.read_exact_at(&mut bytes, 0).unwrap();
        assert!(bytes[..new.len()] == new && bytes[new.len()..].iter().all(|byte| *byte == 0));
    }
}

/// What each phase announced, and how far it came.
#[derive(Default)]
struct Phases(Mutex<Vec<(Phase, Option<u64>, u64)>>);

impl Progress for Phases {
    fn begin(&self, phase: Phase, total_bytes: Option<u64>) {
        self.0.lock().unwrap().push((phase, total_bytes, 0));
    }

    fn advance(&self, bytes: u64) {
        if let Some(last) = self.0.lock().unwrap().last_mut() {
            last.2 += bytes;
        }
    }
}

#[test]
fn what_is_applied_and_read_back_is_told_from_its_begin_to_its_end() {
    let old = noise(64 * PAGE);
    let mut new = old.clone();
    new[3 * PAGE..5 * PAGE].fill(7);
    new[30 * PAGE..31 * PAGE].fill(0);
    let (changed, all) = (3 * PAGE as u64, 64 * PAGE as u64);
    for (mode, safety, applied, verified) in [
        (Mode::Delta, Safety::Atomic, Some(changed), changed),
        (Mode::Delta, Safety::InPlace, None, changed),
        (Mode::Full, Safety::Atomic, None, all),
    ] {
        let directory = WatchedDirectory::new();
        directory.insert("t.raw", old.clone());
        let phases = Arc::new(Phases::default());
        let work = Work::with_threads(1).unwrap().with_progress(phases.clone());
        let options = SyncOptions::default().with_mode(mode).with_safety(safety);
        sync(&source(&new), &target(&directory), &options, &work).unwrap();
        let seen = phases.0.lock().unwrap();
        let of = |wanted| seen.iter().find(|(phase, ..)| *phase == wanted).copied();
        let whole = |phase, total| (phase, Some(total), total);
        let what = format!("{mode:?} {safety:?}: {seen:?}");
        let apply = applied.map(|total| whole(Phase::Apply, total));
        assert_eq!(of(Phase::Apply), apply, "{what}");
        let verify = Some(whole(Phase::Verify, verified));
        assert_eq!(of(Phase::Verify), verify, "{what}");
    }
}

fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}
