//! What several of these tests need.

use std::path::PathBuf;
use std::sync::Arc;

use diskdelta::image::vhdx::{CreateOptions, ParentLocator, Vhdx, VhdxMut, VhdxOptions, create};
use diskdelta::image::{Image, Patch};
use diskdelta::storage::{FileStorage, MemoryStorage, Storage};
use diskdelta::units::ExtentKind;

pub const MIB: u64 = 1 << 20;

/// Says loudly that a test was left out, or fails where nothing may be.
pub fn left_out(what: &str) {
    let strict = std::env::var_os("DISKDELTA_REQUIRE_ORACLES").is_some_and(|v| v == "1");
    assert!(!strict, "not found: {what}");
    eprintln!("LEFT OUT: {what} not found");
}

/// The folder of images that other software made.
pub fn samples() -> Option<PathBuf> {
    let folder = std::env::var_os("DISKDELTA_SAMPLES").map(PathBuf::from);
    let folder = folder.filter(|folder| folder.join("SAMPLES.tsv").is_file());
    if folder.is_none() {
        left_out("the folder of samples (DISKDELTA_SAMPLES)");
    }
    folder
}

/// Opens a file whose parent, if it has one, is `parent`.
pub fn open_file(path: PathBuf, parent: Option<PathBuf>) -> diskdelta::Result<Vhdx> {
    let opener = move |_: &ParentLocator| match &parent {
        Some(parent) => open_file(parent.clone(), None).map(Arc::new),
        None => panic!("nobody should ask for a parent"),
    };
    let options = VhdxOptions::default().with_parents(&opener);
    Vhdx::open(Arc::new(FileStorage::open_read(path)?), &options)
}

/// Opens bytes as an image without parent.
pub fn open_bytes(bytes: Vec<u8>) -> diskdelta::Result<Vhdx> {
    let storage = Arc::new(MemoryStorage::new("bytes", bytes));
    Vhdx::open(storage, &VhdxOptions::default())
}

/// Opens storage for reading over `parent`.
pub fn open_over(storage: Arc<dyn Storage>, parent: Option<&Arc<Vhdx>>) -> diskdelta::Result<Vhdx> {
    let opener = |_: &ParentLocator| Ok(parent.expect("a parent is asked for").clone());
    Vhdx::open(storage, &VhdxOptions::default().with_parents(&opener))
}

/// Opens storage for writing over `parent`.
pub fn open_mut_over(
    storage: Arc<dyn Storage>,
    parent: Option<&Arc<Vhdx>>,
) -> diskdelta::Result<VhdxMut> {
    let opener = |_: &ParentLocator| Ok(parent.expect("a parent is asked for").clone());
    Vhdx::open_mut(storage, &VhdxOptions::default().with_parents(&opener))
}

/// A new image in memory.
pub fn new_image(options: &CreateOptions) -> Arc<MemoryStorage> {
    let storage = Arc::new(MemoryStorage::new("new.vhdx", Vec::new()));
    create(&*storage, options).unwrap();
    storage
}

/// All guest bytes.
pub fn contents(image: &dyn Image) -> Vec<u8> {
    let mut bytes = vec![0xEE; usize::try_from(image.disk_len()).unwrap()];
    image.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// Checks that the extents cover the disk in order and that what they call zeros is zeros.
pub fn check_extents(image: &dyn Image, contents: &[u8]) {
    let mut at = 0;
    while let Some(extent) = image.next_extent(at).unwrap() {
        assert_eq!(extent.offset, at);
        assert!(extent.len > 0);
        if extent.kind == ExtentKind::Zero {
            let bytes = &contents[at as usize..extent.end() as usize];
            assert!(bytes.iter().all(|byte| *byte == 0), "zeros at {at:#x}");
        }
        at = extent.end();
    }
    assert_eq!(at, image.disk_len());
    assert!(image.next_extent(at).unwrap().is_none());
}

/// Does what a caller has to do with patches: first those that are not last, then the others.
pub fn apply(storage: &dyn Storage, patches: &[Patch], want_last: bool) {
    for patch in patches {
        match patch {
            Patch::Write {
                offset,
                bytes,
                last,
            } if *last == want_last => storage.write_all_at(bytes, *offset).unwrap(),
            Patch::SetLen(len) if !want_last => storage.set_len(*len).unwrap(),
            _ => {}
        }
    }
}

/// Bytes that differ from block to block and hold no zero.
pub fn pattern(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64)
        .map(|index| ((index + seed * 7919) % 251 + 1) as u8)
        .collect()
}
