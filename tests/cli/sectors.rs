//! Disks with sectors of 4096 bytes, which only VHDX and devices have.

use diskdelta::image::{CreateFormat, CreateOptions, ImageOptions, create, open_storage_mut};
use diskdelta::storage::FileStorage;
use std::sync::Arc;

use crate::fixture::{Fixture, PAGE, noise};

/// A VHDX with sectors of 4096 bytes.
fn large_sectors(fixture: &Fixture, name: &str, disk_len: u64) {
    let storage = Arc::new(FileStorage::create_new(fixture.path(name)).unwrap());
    let options = CreateOptions::new(CreateFormat::VhdxDynamic, disk_len).with_sector_size(4096);
    create(&*storage, &options).unwrap();
    let format = CreateFormat::VhdxDynamic.format();
    let image = open_storage_mut(storage, format, &ImageOptions::default()).unwrap();
    image.write_all_at(&noise(3 * PAGE, 1), 5000).unwrap();
    image.sync().unwrap();
}

#[test]
fn a_sync_onto_smaller_sectors_is_done_and_said() {
    let fixture = Fixture::new();
    large_sectors(&fixture, "new.vhdx", 8 << 20);
    fixture.done("sync new.vhdx t.vhd");
    let text = fixture.done("sync new.vhdx u.vhd").stdout;
    assert!(
        text.contains("note: the source has sectors of 4096"),
        "{text}"
    );
    let (_, report) = fixture.json("sync new.vhdx t.vhd");
    assert_eq!(report["outcome"], "identical");
    let warnings = report["warnings"].to_string();
    assert!(warnings.contains("sectors of 4096"), "{warnings}");
    fixture.done("diff new.vhdx t.vhd");
    fixture.done("sync new.vhdx copy.vhdx");
    let (_, info) = fixture.json("info copy.vhdx");
    assert_eq!(info["facts"]["logical_sector_bytes"], "4096");
}

#[test]
fn a_sync_that_would_leave_a_part_of_a_sector_is_refused() {
    let fixture = Fixture::new();
    large_sectors(&fixture, "t.vhdx", 8 << 20);
    std::fs::write(fixture.path("new.raw"), noise((8 << 20) + 512, 2)).unwrap();
    let before = fixture.bytes("t.vhdx");
    for mode in ["auto", "delta", "full"] {
        fixture
            .run(&format!("sync new.raw t.vhdx --mode {mode}"))
            .fails(2, "--align 4096");
    }
    fixture
        .run("sync new.raw t.vhdx --dry-run")
        .fails(2, "sector");
    assert!(fixture.bytes("t.vhdx") == before);
    fixture.done("sync new.raw t.vhdx --align 4096");
    fixture.done("sync t.vhdx back.raw");
    let back = fixture.bytes("back.raw");
    let (disk, padding) = back.split_at((8 << 20) + 512);
    assert!(disk == fixture.bytes("new.raw"));
    assert!(padding.len() == 4096 - 512 && padding.iter().all(|byte| *byte == 0));
}
