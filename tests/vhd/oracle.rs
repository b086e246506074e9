//! qemu-img agrees: on what is created, on what is written, on what is read.

use std::path::Path;
use std::sync::Arc;

use diskdelta::image::{
    self, Change, CreateFormat, CreateOptions, Format, ImageMut, ImageOptions, Patch,
};
use diskdelta::storage::{FileStorage, Storage};
use diskdelta::{Extent, Result};

use crate::support::{BLOCK, contents, oracle, pattern, refusal};

/// Runs qemu-img, which must succeed; `None` where it is not there.
fn qemu_img(arguments: &[&str]) -> Option<String> {
    let output = oracle("qemu-img", arguments)?;
    assert!(
        output.status.success(),
        "qemu-img {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether qemu-img sees exactly `meant` in the VHD at `path`.
fn qemu_agrees(path: &Path, meant: &[u8]) {
    // QEMU takes the footer of a fixed disk without bytes for the head of a dynamic one.
    if std::fs::metadata(path).unwrap().len() == 512 {
        return;
    }
    let vhd = path.to_str().unwrap();
    let raw = path.with_extension("meant");
    std::fs::write(&raw, meant).unwrap();
    let raw = raw.to_str().unwrap();
    let Some(info) = qemu_img(&["info", "-f", "vpc", "--output=json", vhd]) else {
        return;
    };
    assert!(
        info.contains(&format!("\"virtual-size\": {},", meant.len())),
        "{info}"
    );
    // `compare` of images without bytes is an error of its own.
    if !meant.is_empty() {
        qemu_img(&["compare", "-f", "vpc", "-F", "raw", vhd, raw]);
    }
    let out = path.with_extension("out");
    let arguments = ["convert", "-f", "vpc", "-O", "raw", vhd];
    qemu_img(&[&arguments[..], &[out.to_str().unwrap()]].concat());
    assert!(std::fs::read(out).unwrap() == meant);
}

fn created(path: &Path, format: CreateFormat, disk_len: u64) -> Arc<dyn ImageMut> {
    let storage = FileStorage::create_new(path).unwrap();
    image::create(&storage, &CreateOptions::new(format, disk_len)).unwrap();
    reopened(path).unwrap()
}

fn reopened(path: &Path) -> Result<Arc<dyn ImageMut>> {
    let storage = Arc::new(FileStorage::open_write(path)?);
    image::open_storage_mut(storage, Format::Vhd, &ImageOptions::default())
}

fn read(path: &Path) -> Vec<u8> {
    let image = image::open(path, &ImageOptions::default()).unwrap();
    contents(&*image).unwrap()
}

const KINDS: [CreateFormat; 2] = [CreateFormat::VhdFixed, CreateFormat::VhdDynamic];

#[test]
fn what_is_created_and_written_is_what_qemu_sees_at_every_boundary() {
    let directory = tempfile::tempdir().unwrap();
    let lens = [
        0,
        512,
        BLOCK - 512,
        BLOCK,
        BLOCK + 512,
        3 * BLOCK - 512,
        3 * BLOCK + 1024,
    ];
    for format in KINDS {
        for len in lens {
            let path = directory.path().join(format!("{format:?}-{len}.vhd"));
            let image = created(&path, format, len);
            let mut meant = vec![0; len as usize];
            qemu_agrees(&path, &meant);
            // The first and the last byte, and a run over every block's end.
            let edges = [0, BLOCK - 300, 2 * BLOCK - 1, len.saturating_sub(700)];
            for (seed, at) in edges.into_iter().enumerate() {
                let end = (at + 700).min(len);
                if at < end {
                    let bytes = pattern((end - at) as usize, seed as u8);
                    image.write_all_at(&bytes, at).unwrap();
                    meant[at as usize..end as usize].copy_from_slice(&bytes);
                }
            }
            let zeros = BLOCK - 100..BLOCK + 100;
            if zeros.end <= len {
                image.write_zeroes_at(zeros.clone()).unwrap();
                meant[zeros.start as usize..zeros.end as usize].fill(0);
            }
            image.sync().unwrap();
            drop(image);
            qemu_agrees(&path, &meant);
            assert!(read(&path) == meant);
        }
    }
}

#[test]
fn a_fixed_vhd_for_azure_is_whole_mebibytes_and_a_footer() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("azure.vhd");
    let storage = FileStorage::create_new(&path).unwrap();
    let options = CreateOptions::new(CreateFormat::VhdFixed, (30 << 20) - 7).with_align(1 << 20);
    assert_eq!(image::create(&storage, &options).unwrap(), 30 << 20);
    assert_eq!(storage.len().unwrap(), (30 << 20) + 512);
    qemu_agrees(&path, &vec![0; 30 << 20]);
}

#[test]
fn images_that_qemu_makes_and_writes_read_as_qemu_reads_them() {
    let directory = tempfile::tempdir().unwrap();
    for (subformat, size) in [("dynamic", 5 * BLOCK + 7680), ("fixed", 3 << 20)] {
        let path = directory.path().join(format!("{subformat}.vhd"));
        let vhd = path.to_str().unwrap();
        let options = format!("subformat={subformat},force_size");
        let size = size.to_string();
        if qemu_img(&["create", "-q", "-f", "vpc", "-o", &options, vhd, &size]).is_none() {
            return;
        }
        let commands = ["write -P 7 1000448 70000", "write -P 9 2096640 3072"];
        for command in commands {
            let output = oracle("qemu-io", &["-f", "vpc", "-c", command, vhd]);
            assert!(output.is_some_and(|it| it.status.success()), "{command}");
        }
        let out = directory.path().join("out.raw");
        let convert = ["convert", "-f", "vpc", "-O", "raw", vhd];
        qemu_img(&[&convert[..], &[out.to_str().unwrap()]].concat());
        let mut meant = std::fs::read(out).unwrap();
        assert!(read(&path) == meant);

        // And what is then written into QEMU's file is what QEMU sees.
        let image = reopened(&path).unwrap();
        let at = meant.len() - 3000;
        image.write_all_at(&pattern(3000, 3), at as u64).unwrap();
        image.write_all_at(&[5; 100], 0).unwrap();
        image.sync().unwrap();
        meant[at..].copy_from_slice(&pattern(3000, 3));
        meant[..100].fill(5);
        qemu_agrees(&path, &meant);
        assert!(read(&path) == meant);
    }
}

#[test]
fn a_prepared_change_is_what_qemu_sees_once_patches_and_data_are_written() {
    let directory = tempfile::tempdir().unwrap();
    for format in KINDS {
        let path = directory.path().join(format!("{format:?}.vhd"));
        let old_len = 5 * BLOCK + 512;
        let image = created(&path, format, old_len);
        image.write_all_at(&pattern(3 << 20, 1), 1 << 20).unwrap();
        image.sync().unwrap();
        let mut meant = read(&path);
        // A dynamic table has room for six blocks.
        for new_len in [6 * BLOCK, 3 * BLOCK + 512, 4 * BLOCK] {
            let ranges = [512..1536, BLOCK..BLOCK + 5, 3 * BLOCK - 9..new_len];
            let extents: Vec<Extent> = ranges.into_iter().map(Extent::data).collect();
            let change = Change {
                disk_len: new_len,
                extents: &extents,
            };
            let patches = image.prepare(&change).unwrap();
            assert_eq!(image.disk_len(), new_len);
            let storage = FileStorage::open_write(&path).unwrap();
            apply(&storage, &patches, false);
            meant.resize(new_len as usize, 0);
            for extent in &extents {
                let bytes = pattern(extent.len as usize, 77);
                image.write_all_at(&bytes, extent.offset).unwrap();
                meant[extent.offset as usize..extent.end() as usize].copy_from_slice(&bytes);
            }
            apply(&storage, &patches, true);
            image.sync().unwrap();
            qemu_agrees(&path, &meant);
            assert!(read(&path) == meant);
            assert!(contents(&*image).unwrap() == meant);
        }
    }
}

#[test]
fn a_resized_disk_has_its_new_length_for_qemu_too() {
    let directory = tempfile::tempdir().unwrap();
    for format in KINDS {
        let path = directory.path().join(format!("{format:?}.vhd"));
        let image = created(&path, format, 3 * BLOCK);
        image
            .write_all_at(&pattern(3 * BLOCK as usize, 1), 0)
            .unwrap();
        let mut meant = pattern(3 * BLOCK as usize, 1);
        for len in [
            BLOCK + 512,
            2 * BLOCK + 512,
            3 * BLOCK,
            512,
            0,
            3 * BLOCK - 512,
        ] {
            image.set_disk_len(len).unwrap();
            image.sync().unwrap();
            meant.resize(len as usize, 0);
            qemu_agrees(&path, &meant);
            assert!(contents(&*image).unwrap() == meant);
            assert!(read(&path) == meant);
        }
        refusal(image.set_disk_len(100));
    }
}

fn apply(storage: &dyn Storage, patches: &[Patch], footers: bool) {
    for patch in patches {
        match patch {
            Patch::Write {
                offset,
                bytes,
                last,
            } if *last == footers => storage.write_all_at(bytes, *offset).unwrap(),
            Patch::SetLen(len) if !footers => storage.set_len(*len).unwrap(),
            Patch::Zero(range) if !footers => storage.punch_hole(range.clone()).unwrap(),
            _ => {}
        }
    }
}
