//! The same files seen by qemu-img.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use diskdelta::image::ImageMut;
use diskdelta::image::vhdx::{NewDisk, Vhdx, create};
use diskdelta::storage::{FileStorage, Storage};

use super::readers;
use super::support::*;

fn qemu_img(arguments: &[&str]) -> Option<Output> {
    match Command::new("qemu-img").args(arguments).output() {
        Ok(output) => Some(output),
        Err(_) => {
            left_out("qemu-img");
            None
        }
    }
}

fn agrees(arguments: &[&str]) -> Option<String> {
    let output = qemu_img(arguments)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "qemu-img {arguments:?}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Some(text)
}

fn seen_by_others(path: &Path, contents: &[u8]) {
    assert!(readers::wxtla(path).unwrap() == contents, "wxtla");
    if let Some(seen) = readers::libvhdi(&[path]) {
        assert!(seen == contents, "libvhdi");
    }
}

fn open_path(path: &Path) -> diskdelta::Result<Vhdx> {
    open_over(Arc::new(FileStorage::open_read(path)?), None)
}

/// qemu-img finds no fault with the file, and the same bytes in it.
fn checked(path: &Path, contents: &[u8]) {
    let name = path.to_str().unwrap();
    let raw = path.with_extension("raw");
    std::fs::write(&raw, contents).unwrap();
    agrees(&["check", "-f", "vhdx", name]);
    let raw = raw.to_str().unwrap();
    agrees(&["compare", "-f", "vhdx", "-F", "raw", name, raw]);
}

#[test]
fn files_we_create_and_write_are_good_to_qemu() {
    let directory = tempfile::tempdir().unwrap();
    for (name, options) in [
        ("dynamic", NewDisk::dynamic(100 * MIB)),
        (
            "blocks-1m",
            NewDisk::dynamic(37 * MIB + 512).with_block_bytes(MIB),
        ),
        (
            "blocks-256m",
            NewDisk::dynamic(300 * MIB).with_block_bytes(256 * MIB),
        ),
        ("fixed", NewDisk::fixed(9 * MIB + 4096)),
    ] {
        let path = directory.path().join(format!("{name}.vhdx"));
        let storage = Arc::new(FileStorage::create_new(&path).unwrap());
        create(&*storage, &options).unwrap();
        let info = agrees(&[
            "info",
            "--output=json",
            "-f",
            "vhdx",
            path.to_str().unwrap(),
        ]);
        let Some(info) = info else { return };
        assert!(
            info.contains(&format!("\"virtual-size\": {}", options.disk_bytes)),
            "{info}"
        );
        let mut model = vec![0; options.disk_bytes as usize];
        checked(&path, &model);
        seen_by_others(&path, &model);
        let image = open_mut_over(storage, None).unwrap();
        for (seed, at) in [0, 1 << 20, 5_000_001, 9_437_100].into_iter().enumerate() {
            let bytes = pattern(seed as u64, 77_777.min(model.len() - at));
            image.write_all_at(&bytes, at as u64).unwrap();
            model[at..at + bytes.len()].copy_from_slice(&bytes);
        }
        image.write_zeroes_at(5 * MIB..6 * MIB).unwrap();
        model[5 << 20..6 << 20].fill(0);
        image.sync().unwrap();
        checked(&path, &model);
        seen_by_others(&path, &model);
        image.write_zeroes_at(0..2 * MIB).unwrap();
        model[..2 << 20].fill(0);
        image.write_all_at(&[8; 999], 8 * MIB).unwrap();
        model[8 << 20..(8 << 20) + 999].fill(8);
        if name == "dynamic" {
            image.set_disk_len(90 * MIB).unwrap();
            model.truncate(90 << 20);
        }
        image.sync().unwrap();
        checked(&path, &model);
        seen_by_others(&path, &model);
        check_extents(&image, &model);
    }
}

#[test]
fn files_qemu_creates_and_writes_read_as_it_reads_them() {
    let directory = tempfile::tempdir().unwrap();
    let raw = directory.path().join("model.raw");
    let mut model = vec![0; 45 << 20];
    model[..3 << 20].copy_from_slice(&pattern(1, 3 << 20));
    model[20 << 20..21 << 20].copy_from_slice(&pattern(2, 1 << 20));
    std::fs::write(&raw, &model).unwrap();
    let raw = raw.to_str().unwrap();
    for options in [
        "subformat=dynamic",
        "subformat=dynamic,block_size=1M,log_size=8M",
        "subformat=dynamic,block_size=256M,block_state_zero=off",
        "subformat=fixed",
        "subformat=fixed,block_size=4M",
    ] {
        let path = directory.path().join("q.vhdx");
        let name = path.to_str().unwrap();
        let arguments = [
            "convert", "-f", "raw", "-O", "vhdx", "-o", options, raw, name,
        ];
        if agrees(&arguments).is_none() {
            return;
        }
        let image = open_path(&path).unwrap();
        let found = contents(&image);
        assert!(found == model, "{options}");
        check_extents(&image, &found);
        drop(image);
        // And we write to it in turn.
        let storage = Arc::new(FileStorage::open_write(&path).unwrap());
        let image = open_mut_over(storage, None).unwrap();
        let mut changed = model.clone();
        image.write_all_at(&[7; 70_000], 30 * MIB - 5).unwrap();
        changed[(30 << 20) - 5..][..70_000].fill(7);
        image.write_zeroes_at(0..MIB).unwrap();
        changed[..1 << 20].fill(0);
        image.sync().unwrap();
        checked(&path, &changed);
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn what_a_log_of_ours_says_qemu_replays_alike() {
    // A commit that stopped after the entry counted: the tables are still the old ones.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("dirty.vhdx");
    let storage = new_image(&NewDisk::dynamic(20 * MIB).with_block_bytes(MIB));
    let before = storage.to_vec();
    let image = open_mut_over(storage.clone(), None).unwrap();
    image.write_all_at(&pattern(4, 5 << 20), 3 * MIB).unwrap();
    image.sync().unwrap();
    let model = contents(&image);
    let mut dirty = storage.to_vec();
    dirty[3 << 20..4 << 20].copy_from_slice(&before[3 << 20..4 << 20]);
    // The last log GUID stands in the entry.
    let log: [u8; 16] = dirty[(1 << 20) + 32..(1 << 20) + 48].try_into().unwrap();
    super::craft::change_headers(&mut dirty, |header| header[48..64].copy_from_slice(&log));
    std::fs::write(&path, &dirty).unwrap();
    assert!(contents(&open_path(&path).unwrap()) == model);
    let name = path.to_str().unwrap();
    if agrees(&["check", "-r", "all", "-f", "vhdx", name]).is_none() {
        return;
    }
    checked(&path, &model);
    assert!(contents(&open_path(&path).unwrap()) == model);
}

#[test]
fn images_that_qemu_does_not_read_are_good_to_other_readers() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let create_at = |name: &str, layout: &NewDisk| {
        let storage = Arc::new(FileStorage::create_new(path(name)).unwrap());
        create(&*storage, layout).unwrap();
        storage
    };
    for sector in [512, 4096] {
        let parent = format!("parent-{sector}.vhdx");
        let layout = NewDisk::dynamic(21 * MIB + sector)
            .with_sector_bytes(sector)
            .with_block_bytes(MIB);
        let storage: Arc<dyn Storage> = create_at(&parent, &layout);
        let image = open_mut_over(storage.clone(), None).unwrap();
        let mut model = vec![0; layout.disk_bytes as usize];
        for (seed, at) in [700, 5 << 20, 20_000_000].into_iter().enumerate() {
            let bytes = pattern(seed as u64, 1_300_000);
            image.write_all_at(&bytes, at as u64).unwrap();
            model[at..at + bytes.len()].copy_from_slice(&bytes);
        }
        image.sync().unwrap();
        seen_by_others(&path(&parent), &model);
        let child = format!("child-{sector}.vhdx");
        let layout = {
            let parent_image = open_over(storage.clone(), None).unwrap();
            NewDisk::child_of(&parent_image, &format!(".\\{parent}")).with_block_bytes(2 * MIB)
        };
        let image = open_mut_over(create_at(&child, &layout), Some(&storage)).unwrap();
        // Parts of blocks over data and over nothing, a whole block, zeros of both kinds.
        for (seed, at, len) in [
            (7, 4096 * 3, 4096 * 9),
            (8, 14 << 20, 8192),
            (9, 8 << 20, 2 << 20),
        ] {
            let bytes = pattern(seed, len);
            image.write_all_at(&bytes, at as u64).unwrap();
            model[at..at + len].copy_from_slice(&bytes);
        }
        for zeros in [81_920..163_840, 18 << 20..20 << 20] {
            image
                .write_zeroes_at(zeros.start as u64..zeros.end as u64)
                .unwrap();
            model[zeros].fill(0);
        }
        image.sync().unwrap();
        assert!(contents(&image) == model);
        assert!(readers::wxtla(&path(&child)).unwrap() == model, "{sector}");
        if let Some(mut seen) = readers::libvhdi(&[&path(&child), &path(&parent)]) {
            // It shows the parent where a block of the child says zeros.
            seen[18 << 20..20 << 20].fill(0);
            assert!(seen == model, "{sector}");
        }
    }
}
