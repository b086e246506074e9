//! Disks with sectors of 4096 bytes beside disks with sectors of 512.

use std::sync::Arc;

use diskdelta::image::vhdx::{NewDisk, create};
use diskdelta::image::{self, CreateFormat, CreateOptions, Format, ImageMut, ImageOptions, Raw};
use diskdelta::storage::{Access, Directory, FileRef, MemoryDirectory, MemoryStorage};
use diskdelta::sync::{Mode, Outcome, Source, SyncOptions, SyncReport, Target, sync};
use diskdelta::{Advice, ErrorKind, Result, Work};

use super::support::*;

/// A disk with sectors of `sector` bytes that holds something in its first and last bytes.
fn source(disk_len: u64, sector: u64) -> (Source, Vec<u8>) {
    let storage = new_image(&NewDisk::dynamic(disk_len).with_sector_bytes(sector));
    let image = open_mut_over(storage.clone(), None).unwrap();
    for (seed, at) in [0, disk_len - 5000].into_iter().enumerate() {
        image.write_all_at(&pattern(seed as u64, 5000), at).unwrap();
    }
    image.sync().unwrap();
    let image = open_over(storage, None).unwrap();
    let bytes = contents(&image);
    (Source::new(Arc::new(image)), bytes)
}

struct Fixture {
    directory: MemoryDirectory,
}

impl Fixture {
    fn new() -> Self {
        Fixture {
            directory: MemoryDirectory::new(),
        }
    }

    fn place(&self, name: &str) -> FileRef {
        let directory: Arc<dyn Directory> = Arc::new(self.directory.clone());
        FileRef::new(directory, name)
    }

    fn vhdx(&self, name: &str, layout: &NewDisk) {
        create(&*self.place(name).create_new().unwrap(), layout).unwrap();
    }

    fn target(&self, name: &str) -> Target {
        Target::file(self.place(name), Format::from_path(name.as_ref()))
    }

    fn open(&self, name: &str) -> Arc<dyn image::Image> {
        let storage = self.place(name).open(Access::Read).unwrap();
        let format = Format::from_path(name.as_ref());
        image::open_storage(storage, format, &ImageOptions::default()).unwrap()
    }
}

fn run(source: &Source, target: &Target, mode: Mode) -> Result<SyncReport> {
    let options = SyncOptions::default().with_mode(mode);
    sync(source, target, &options, &Work::with_threads(1).unwrap())
}

#[test]
fn large_sectors_go_onto_small_ones_and_the_report_says_so() {
    let (source, bytes) = source(9 * MIB + 4096, 4096);
    let fixture = Fixture::new();
    for mode in [Mode::Delta, Mode::Full] {
        let name = format!("{mode:?}.vhdx");
        fixture.vhdx(&name, &NewDisk::dynamic(9 * MIB).with_block_bytes(MIB));
        let report = run(&source, &fixture.target(&name), mode).unwrap();
        assert_eq!(report.outcome, Outcome::Synced);
        let note = report.notes.concat();
        assert!(note.contains("4096") && note.contains("512"), "{note}");
        let info = fixture.open(&name).info();
        assert_eq!(info.sector_bytes, Some(512));
        assert_eq!(info.block_bytes, Some(MIB));
        assert!(contents(&*fixture.open(&name)) == bytes);
    }
    // A new VHD has no other sectors to offer.
    let create = CreateOptions::new(CreateFormat::VhdDynamic, 0);
    let target = fixture.target("new.vhd").with_create(create);
    let report = run(&source, &target, Mode::Auto).unwrap();
    assert_eq!(report.notes.len(), 1);
    assert!(contents(&*fixture.open("new.vhd")) == bytes);
}

#[test]
fn a_new_image_has_the_sectors_of_its_source() {
    let fixture = Fixture::new();
    for sector in [512, 4096] {
        let (source, bytes) = source(9 * MIB + sector * 8, sector);
        let name = format!("{sector}.vhdx");
        let report = run(&source, &fixture.target(&name), Mode::Auto).unwrap();
        assert!(report.notes.is_empty(), "{:?}", report.notes);
        assert_eq!(fixture.open(&name).info().sector_bytes, Some(sector));
        assert!(contents(&*fixture.open(&name)) == bytes);
    }
}

#[test]
fn what_would_end_inside_a_sector_of_the_target_is_refused_before_it_changes() {
    let fixture = Fixture::new();
    let (odd, bytes) = source(9 * MIB + 512, 512);
    let raw = MemoryStorage::new("raw", bytes.clone());
    let raw = Source::new(Arc::new(Raw::open(Arc::new(raw)).unwrap()));
    let layout = NewDisk::dynamic(9 * MIB).with_sector_bytes(4096);
    fixture.vhdx("t.vhdx", &layout);
    let before = fixture.directory.bytes("t.vhdx");
    for source in [&odd, &raw] {
        for mode in [Mode::Auto, Mode::Delta, Mode::Full] {
            let error = run(source, &fixture.target("t.vhdx"), mode).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
            assert!(error.advice() == [Advice::Align(4096)], "{error}");
        }
    }
    assert!(fixture.directory.bytes("t.vhdx") == before);
    let new = CreateOptions::new(CreateFormat::VhdxDynamic, 0).with_sector_size(4096);
    let error = run(
        &raw,
        &fixture.target("new.vhdx").with_create(new),
        Mode::Auto,
    )
    .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(fixture.directory.bytes("new.vhdx").is_none());

    // Zeros behind the end are for the caller to ask for; whole sectors need none.
    let aligned = fixture.target("t.vhdx").with_align(4096);
    let report = run(&raw, &aligned, Mode::Delta).unwrap();
    assert!(report.notes.is_empty());
    let padded = [&bytes[..], &[0; 4096 - 512]].concat();
    assert!(contents(&*fixture.open("t.vhdx")) == padded);
    let (whole, bytes) = self::source(10 * MIB, 512);
    let report = run(&whole, &fixture.target("t.vhdx"), Mode::Delta).unwrap();
    assert_eq!(report.notes.len(), 1);
    assert!(contents(&*fixture.open("t.vhdx")) == bytes);
}
