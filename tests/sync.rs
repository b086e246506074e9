//! A sync makes the target hold what the source holds, whatever the two held before.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::sync::Arc;

use diskdelta::image::{Format, Raw};
use diskdelta::manifest::{self, Manifest};
use diskdelta::storage::{Access, Folder, MemoryFolder, MemoryStorage, Place, Storage};
use diskdelta::sync::{
    Mode, Outcome, Recovered, Safety, Source, SyncOptions, Target, Verify, recover, sync,
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
