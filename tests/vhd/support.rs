//! What the tests share: images in memory, forged fields, content checks, oracles.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use diskdelta::image::{self, CreateFormat, CreateOptions, Format, Image, ImageMut, ImageOptions};
use diskdelta::storage::MemoryStorage;
use diskdelta::{Error, ExtentKind, Result};

pub const BLOCK: u64 = 2 << 20;

/// A new image in memory.
pub fn new_image(format: CreateFormat, disk_len: u64, block: Option<u64>) -> Arc<MemoryStorage> {
    let storage = Arc::new(MemoryStorage::new("disk.vhd", Vec::new()));
    let mut options = CreateOptions::new(format, disk_len);
    options.block_size = block;
    image::create(&*storage, &options).unwrap();
    storage
}

/// A dynamic image of `disk_len` bytes with small blocks that holds `writes`.
pub fn dynamic_with(disk_len: u64, writes: &[(u64, &[u8])]) -> Vec<u8> {
    let storage = new_image(CreateFormat::VhdDynamic, disk_len, Some(4096));
    let image = open_mut(&storage).unwrap();
    for (offset, bytes) in writes {
        image.write_all_at(bytes, *offset).unwrap();
    }
    image.sync().unwrap();
    storage.to_vec()
}

pub fn open_mut(storage: &Arc<MemoryStorage>) -> Result<Arc<dyn ImageMut>> {
    image::open_storage_mut(storage.clone(), Format::Vhd, &ImageOptions::default())
}

pub fn open_bytes(bytes: Vec<u8>) -> Result<Arc<dyn Image>> {
    open_with(bytes, &ImageOptions::default())
}

pub fn open_with(bytes: Vec<u8>, options: &ImageOptions) -> Result<Arc<dyn Image>> {
    let storage = Arc::new(MemoryStorage::new("disk.vhd", bytes));
    image::open_storage(storage, Format::Vhd, options)
}

pub fn lenient() -> ImageOptions {
    ImageOptions::default().with_lenient(true)
}

/// The error of a result that must be one.
pub fn refusal<T>(result: Result<T>) -> Error {
    match result {
        Ok(_) => panic!("this must be refused"),
        Err(error) => error,
    }
}

/// All guest bytes, after checking that extents, whole reads and split reads agree.
pub fn contents(image: &dyn Image) -> Result<Vec<u8>> {
    let len = image.disk_len();
    let mut whole = vec![0xaa; usize::try_from(len).unwrap()];
    image.read_exact_at(&mut whole, 0)?;
    let mut split = vec![0xbb; whole.len()];
    let mut at = 0;
    while at < split.len() {
        // A prime step meets every phase of sectors and blocks.
        let end = (at + 7919).min(split.len());
        image.read_exact_at(&mut split[at..end], at as u64)?;
        at = end;
    }
    assert!(whole == split, "a read must not depend on how it is split");
    let mut at = 0;
    while let Some(extent) = image.next_extent(at)? {
        assert_eq!(extent.offset, at, "extents must follow each other");
        assert!(extent.len > 0 && extent.end() <= len);
        let bytes = &whole[extent.offset as usize..extent.end() as usize];
        assert!(
            extent.kind == ExtentKind::Data || bytes.iter().all(|byte| *byte == 0),
            "a zero extent must read as zeros"
        );
        at = extent.end();
    }
    assert_eq!(at, len, "extents must cover the disk");
    assert!(image.read_exact_at(&mut [0], len).is_err());
    assert!(image.read_exact_at(&mut [0; 2], u64::MAX).is_err());
    Ok(whole)
}

/// Bytes that show where they belong: the period shares no factor with any block.
pub fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len)
        .map(|at| ((at % 251) as u8).wrapping_add(seed) | 1)
        .collect()
}

/// A file whose fields can be changed and its checksums made right again.
#[derive(Clone)]
pub struct Forge(pub Vec<u8>);

impl Forge {
    pub fn put(mut self, at: usize, bytes: &[u8]) -> Self {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// Changes a field of the footer and of its copy at the head.
    pub fn footers(self, field: usize, bytes: &[u8]) -> Self {
        let tail = self.tail();
        self.put(field, bytes).put(tail + field, bytes).seal()
    }

    /// Changes a field of the dynamic header.
    pub fn header(self, field: usize, bytes: &[u8]) -> Self {
        self.put(512 + field, bytes).seal()
    }

    /// Changes an entry of the table.
    pub fn entry(self, index: usize, sector: u32) -> Self {
        self.put(1536 + 4 * index, &sector.to_be_bytes())
    }

    pub fn tail(&self) -> usize {
        self.0.len() - 512
    }

    /// Makes all checksums right.
    pub fn seal(mut self) -> Self {
        let tail = self.tail();
        for (at, len, field) in [(0, 512, 64), (512, 1024, 36), (tail, 512, 64)] {
            if at + len <= self.0.len() {
                seal(&mut self.0[at..at + len], field);
            }
        }
        self
    }

    pub fn open(&self) -> Result<Arc<dyn Image>> {
        open_bytes(self.0.clone())
    }

    pub fn open_leniently(&self) -> Result<Arc<dyn Image>> {
        open_with(self.0.clone(), &lenient())
    }
}

/// Puts a structure's checksum right: the complement of the sum of its other bytes.
pub fn seal(bytes: &mut [u8], field: usize) {
    bytes[field..field + 4].fill(0);
    let sum: u32 = bytes.iter().map(|byte| u32::from(*byte)).sum();
    bytes[field..field + 4].copy_from_slice(&(!sum).to_be_bytes());
}

/// Runs a program that the tests compare with; `None`, said loudly, where it is not there.
pub fn oracle(program: &str, arguments: &[&str]) -> Option<Output> {
    match Command::new(program).args(arguments).output() {
        Ok(output) => Some(output),
        Err(error) => {
            left_out(&format!("{program} cannot be run: {error}"));
            None
        }
    }
}

/// Where the sample images lie; `None`, said loudly, where they are not there.
pub fn samples() -> Option<PathBuf> {
    match std::env::var_os("DISKDELTA_SAMPLES") {
        Some(directory) if Path::new(&directory).join("SAMPLES.tsv").is_file() => {
            Some(directory.into())
        }
        _ => {
            left_out("DISKDELTA_SAMPLES names no directory with SAMPLES.tsv");
            None
        }
    }
}

fn left_out(why: &str) {
    let required = std::env::var("DISKDELTA_REQUIRE_ORACLES").is_ok_and(|it| it == "1");
    assert!(!required, "{why}");
    eprintln!("LEFT OUT: {why}");
}
