//! What several of these tests need.

use std::path::PathBuf;
use std::sync::Arc;

use diskdelta::image::vhdx::{NewDisk, Vhdx, VhdxMut, create};
use diskdelta::image::{Image, ImageOptions, ParentGate, ParentRequest, Patch};
use diskdelta::storage::{MemoryStorage, Storage};
use diskdelta::units::ExtentKind;

pub const MIB: u64 = 1 << 20;

/// Says loudly that a test was left out, or fails where nothing may be.
pub fn left_out(what: &str) {
    let strict = std::env::var_os("DISKDELTA_REQUIRE_ORACLES").is_some_and(|v| v == "1");
    assert!(!strict, "not found: {what}");
    eprintln!("LEFT OUT: {what} not found");
}

/// The directory of images that other software made.
pub fn samples() -> Option<PathBuf> {
    let directory = std::env::var_os("DISKDELTA_SAMPLES").map(PathBuf::from);
    let directory = directory.filter(|directory| directory.join("SAMPLES.tsv").is_file());
    if directory.is_none() {
        left_out("the directory of samples (DISKDELTA_SAMPLES)");
    }
    directory
}

/// Offers these files as parents, whatever the child says.
pub struct Offer(pub Vec<Arc<dyn Storage>>);

impl std::fmt::Debug for Offer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} files", self.0.len())
    }
}

impl ParentGate for Offer {
    fn candidates(&self, request: &ParentRequest<'_>) -> diskdelta::Result<Vec<Arc<dyn Storage>>> {
        assert!(!request.hints.is_empty());
        Ok(self.0.clone())
    }
}

/// Options that offer `parent`, if there is one.
pub fn offering(parent: Option<&Arc<dyn Storage>>) -> ImageOptions {
    ImageOptions::default().with_gate(Arc::new(Offer(parent.into_iter().cloned().collect())))
}

/// Opens bytes as an image without parent.
pub fn open_bytes(bytes: Vec<u8>) -> diskdelta::Result<Vhdx> {
    open_over(Arc::new(MemoryStorage::new("bytes", bytes)), None)
}

/// Opens storage for reading over `parent`.
pub fn open_over(
    storage: Arc<dyn Storage>,
    parent: Option<&Arc<dyn Storage>>,
) -> diskdelta::Result<Vhdx> {
    Vhdx::open(storage, &offering(parent))
}

/// Opens storage for writing over `parent`.
pub fn open_mut_over(
    storage: Arc<dyn Storage>,
    parent: Option<&Arc<dyn Storage>>,
) -> diskdelta::Result<VhdxMut> {
    Vhdx::open_mut(storage, &offering(parent))
}

/// A new image in memory.
pub fn new_image(layout: &NewDisk) -> Arc<MemoryStorage> {
    let storage = Arc::new(MemoryStorage::new("new.vhdx", Vec::new()));
    create(&*storage, layout).unwrap();
    storage
}

/// A new, empty image over the one in `parent`.
pub fn child_of(parent: &Arc<dyn Storage>, block_bytes: u64) -> NewDisk {
    let parent = open_over(parent.clone(), None).unwrap();
    NewDisk::child_of(&parent, ".\\parent.vhdx").with_block_bytes(block_bytes)
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
            Patch::Zero(range) if !want_last => storage.punch_hole(range.clone()).unwrap(),
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
