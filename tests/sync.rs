//! A sync makes the target hold what the source holds, whatever the two held before.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use diskdelta::delta::{Delta, DeltaWriter, Frame, Header, JobId, Old, Purpose, reverse};
use diskdelta::image::{self, CreateFormat, CreateOptions, Format, ImageOptions, Raw};
use diskdelta::manifest::{self, Manifest};
use diskdelta::storage::{Access, Folder, MemoryFolder, MemoryStorage, Place, Storage};
use diskdelta::sync::{
    Mode, Outcome, Recovered, Safety, Source, SyncOptions, Target, Verify, recover, sample, sync,
};
use diskdelta::{BlockSize, ErrorKind, Limits, Work};
use proptest::prelude::*;

const PAGE: usize = 4096;

fn source(bytes: &[u8]) -> Source {
    let storage = MemoryStorage::new("source", bytes.to_vec());
    Source::new(Arc::new(Raw::open(Arc::new(storage)).unwrap()))
}

fn target(folder: &MemoryFolder) -> Target {
    let folder: Arc<dyn Folder> = Arc::new(folder.clone());
    Target::file(Place::new(folder, "t.raw"), Format::Raw)
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
        let folder = MemoryFolder::new();
        folder.insert("t.raw", old.clone());
        let work = Work::new(2).unwrap();
        let options = SyncOptions::default()
            .with_mode(mode).with_safety(safety).with_verify(verify).with_allow_shrink(true);
        sync(&source(&new), &target(&folder), &options, &work).unwrap();
        prop_assert!(folder.bytes("t.raw").unwrap() == new);
        prop_assert_eq!(folder.names().unwrap(), vec!["t.raw"]);
        let options = options.with_mode(Mode::Delta);
        let again = sync(&source(&new), &target(&folder), &options, &work).unwrap();
        prop_assert_eq!(again.outcome, Outcome::Identical);
        prop_assert_eq!(again.written_bytes, 0);
        prop_assert_eq!(recover(&target(&folder), &work).unwrap(), Recovered::Nothing);
    }

    #[test]
    fn undo_brings_the_old_bytes_back(new in Disk::any(600), old in Disk::any(600)) {
        let (new, old) = (new.bytes(), old.bytes());
        let folder = MemoryFolder::new();
        folder.insert("t.raw", old.clone());
        let work = Work::new(2).unwrap();
        let place = Place::new(Arc::new(folder.clone()), "t.undo");
        let options = SyncOptions::default()
            .with_mode(Mode::Delta).with_undo(Some(place.clone())).with_allow_shrink(true);
        if old.len() < PAGE {
            return Ok(());
        }
        let report = sync(&source(&new), &target(&folder), &options, &work).unwrap();
        if report.outcome == Outcome::Synced {
            diskdelta::sync::undo(&place, &target(&folder), &work).unwrap();
            prop_assert!(folder.bytes("t.raw").unwrap() == old);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_kept_manifest_stands_for_reading_the_target(
        disks in prop::collection::vec(Disk::any(700), 2..4),
        old in Disk::any(700),
        safety in prop::sample::select(vec![Safety::Atomic, Safety::InPlace]),
    ) {
        let folder = MemoryFolder::new();
        let mut now = old.bytes();
        if now.len() < PAGE {
            return Ok(());
        }
        folder.insert("t.raw", now.clone());
        let work = Work::new(2).unwrap();
        let kept = Place::new(Arc::new(folder.clone()), "t.manifest");
        let options = SyncOptions::default()
            .with_safety(safety)
            .with_allow_shrink(true)
            .with_block_size(BlockSize::MIN)
            .with_target_manifest(Some(kept.clone()));
        for disk in disks {
            now = disk.bytes();
            sync(&source(&now), &target(&folder), &options, &work).unwrap();
            prop_assert!(folder.bytes("t.raw").unwrap() == now);
            prop_assert_eq!(folder.names().unwrap(), vec!["t.manifest", "t.raw"]);
            let storage = kept.open(Access::Read).unwrap();
            let manifest = Manifest::open(storage, &Limits::default()).unwrap();
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
        let map: Vec<Range<u64>> = map
            .into_iter()
            .map(|(page, pages)| page * PAGE as u64..(page + pages) * PAGE as u64)
            .collect();
        let mut expected = old.clone();
        for range in &map {
            let range = (range.start as usize).min(old.len())..(range.end as usize).min(old.len());
            expected[range.clone()].copy_from_slice(&new[range]);
        }
        let folder = MemoryFolder::new();
        folder.insert("t.raw", old);
        let work = Work::new(2).unwrap();
        let options = SyncOptions::default().with_safety(safety).with_change_map(Some(map));
        sync(&source(&new), &target(&folder), &options, &work).unwrap();
        prop_assert!(folder.bytes("t.raw").unwrap() == expected);
    }
}

#[test]
fn a_change_map_goes_with_a_delta_only() {
    let folder = MemoryFolder::new();
    folder.insert("t.raw", vec![1; 100_000]);
    let options = SyncOptions::default()
        .with_mode(Mode::Full)
        .with_change_map(Some(Vec::new()));
    let work = Work::new(1).unwrap();
    let error = sync(&source(&[2; 100_000]), &target(&folder), &options, &work).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(folder.bytes("t.raw").unwrap(), vec![1; 100_000]);
}

#[test]
fn a_target_that_would_shrink_is_left_alone_unless_that_is_allowed() {
    let folder = MemoryFolder::new();
    folder.insert("t.raw", vec![1; 3 * PAGE]);
    let work = Work::new(1).unwrap();
    let options = SyncOptions::default();
    let error = sync(&source(&[2; PAGE]), &target(&folder), &options, &work).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("--allow-shrink"), "{error}");
    assert_eq!(folder.bytes("t.raw").unwrap(), vec![1; 3 * PAGE]);
}

#[test]
fn a_missing_target_is_created() {
    let folder = MemoryFolder::new();
    let work = Work::new(1).unwrap();
    sync(
        &source(&[2; 5000]),
        &target(&folder),
        &SyncOptions::default(),
        &work,
    )
    .unwrap();
    assert_eq!(folder.bytes("t.raw").unwrap(), vec![2; 5000]);
}

/// Storage that knows the longest read.
struct Watched {
    below: MemoryStorage,
    longest: AtomicUsize,
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
        self.below.write_all_at(buf, offset)
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
fn long_zeros_over_unread_bytes_are_read_back_in_pieces() {
    let folder: Arc<dyn Folder> = Arc::new(MemoryFolder::new());
    let device = Arc::new(Watched {
        below: MemoryStorage::new("device", vec![9; 40 << 20]),
        longest: AtomicUsize::new(0),
    });
    let stage = Place::new(folder.clone(), "device-stage");
    let target = Target::device(device.clone(), Format::Raw, stage);
    let options = SyncOptions::default().with_mode(Mode::Full);
    let work = Work::new(1).unwrap();
    // A VHD without blocks: zeros as one extent.
    let empty = Arc::new(MemoryStorage::new("empty", Vec::new()));
    image::create(
        &*empty,
        &CreateOptions::new(CreateFormat::VhdDynamic, 40 << 20),
    )
    .unwrap();
    let empty = image::open_storage(empty, Format::Vhd, &ImageOptions::default()).unwrap();
    sync(&Source::new(empty), &target, &options, &work).unwrap();
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
    let delta = Delta::open(file, &Limits::default()).unwrap();
    let base = Arc::new(Watched {
        below: MemoryStorage::new("base", vec![9; 40 << 20]),
        longest: AtomicUsize::new(0),
    });
    let undo = Arc::new(MemoryStorage::new("undo", Vec::new()));
    let writer = DeltaWriter::create(undo.clone(), header).unwrap();
    let work = Work::new(1).unwrap();
    let trailer = reverse(&delta, &Raw::open(base.clone()).unwrap(), writer, &work).unwrap();
    assert_eq!(trailer.data_bytes, (40 << 20) - 5);
    let undo = Delta::open(undo, &Limits::default()).unwrap();
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
        purpose: Purpose::Stage,
        job: JobId([1; 16]),
        base_len: LEN as u64,
        result_len: LEN as u64,
        block_size: BlockSize::MIN,
    };
    let file = Arc::new(MemoryStorage::new("delta", Vec::new()));
    let mut writer = DeltaWriter::create(file.clone(), header).unwrap();
    let old = Old::Hash(blake3::hash(&vec![9; LEN - 4096]).into());
    let new = vec![5; LEN - 4096];
    writer.push(&Frame::data(4096, &new, old, None)).unwrap();
    writer.finish(None, None).unwrap();
    let delta = Delta::open(file, &Limits::default()).unwrap();
    let work = Work::new(1).unwrap();
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
    let folder: Arc<dyn Folder> = Arc::new(MemoryFolder::new());
    let device = Arc::new(MemoryStorage::new("device", vec![9; 4 << 20]));
    let stage = Place::new(folder, "device-stage");
    let storage: Arc<dyn Storage> = device.clone();
    let target = Target::device(storage, Format::Raw, stage);
    let work = Work::new(1).unwrap();
    let new = vec![5; 3 << 20];
    let error = sync(&source(&new), &target, &SyncOptions::default(), &work).unwrap_err();
    assert!(error.to_string().contains("--allow-larger"), "{error}");
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
    let work = Work::new(2).unwrap();
    let sample = sample(&image(&new), &image(&old), BlockSize::MIN, &work).unwrap();
    assert_eq!((sample.looked, sample.changed), (64, 3));
}

#[test]
fn auto_copies_a_file_that_differs_and_never_a_device_or_in_place() {
    let (new, old) = (noise(1 << 20), vec![7; 1 << 20]);
    let work = Work::new(2).unwrap();
    let options = SyncOptions::default();
    let choice = |old: &[u8], options: &SyncOptions| {
        let folder = MemoryFolder::new();
        folder.insert("t.raw", old.to_vec());
        let report = sync(&source(&new), &target(&folder), options, &work).unwrap();
        assert!(folder.bytes("t.raw").unwrap() == new);
        report.mode
    };
    assert_eq!(choice(&old, &options), Mode::Full);
    let mut like = new.clone();
    like[PAGE] ^= 1;
    assert_eq!(choice(&like, &options), Mode::Delta);
    let in_place = options.clone().with_safety(Safety::InPlace);
    assert_eq!(choice(&old, &in_place), Mode::Delta);

    let folder: Arc<dyn Folder> = Arc::new(MemoryFolder::new());
    let device = Arc::new(MemoryStorage::new("device", old));
    let stage = Place::new(folder, "device-stage");
    let device_target = Target::device(device.clone(), Format::Raw, stage);
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
    let folder = MemoryFolder::new();
    folder.insert("t.raw", old.clone());
    let work = Work::new(2).unwrap();
    let kept = Place::new(Arc::new(folder.clone()), "t.manifest");
    let options = SyncOptions::default().with_target_manifest(Some(kept));
    sync(&source(&old), &target(&folder), &options, &work).unwrap();
    let report = sync(&source(&new), &target(&folder), &options, &work).unwrap();
    assert_eq!((report.changed_bytes, report.zeroed_bytes), (4096, 4096));
    // The source, and the one block of the target that is not what its manifest should say.
    assert_eq!(report.compared_bytes, 3 * 16 * 4096);
    assert!(folder.bytes("t.raw").unwrap() == new);
}

fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}
