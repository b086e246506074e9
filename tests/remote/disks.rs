//! Disks that cost no memory to speak of.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;

use diskdelta::diff::{Content, Difference};
use diskdelta::image::{Format, Image, ImageInfo};
use diskdelta::{Error, ErrorKind, Extent, Result};

pub const PAGE: u64 = 4096;

/// A disk of which only the pages that were written exist.
pub struct PageDisk {
    len: u64,
    pages: Mutex<BTreeMap<u64, Vec<u8>>>,
}

impl PageDisk {
    pub fn new(len: u64) -> Self {
        PageDisk {
            len,
            pages: Mutex::default(),
        }
    }

    /// Fills a page, or what of it lies on the disk, from a seed; 0 makes it zero.
    pub fn put(&self, page: u64, seed: u64) {
        let len = (self.len - page * PAGE).min(PAGE) as usize;
        self.pages.lock().unwrap().insert(page, noise(len, seed));
    }

    /// Takes a difference over.
    pub fn take(&self, difference: &Difference<'_>) {
        assert!(difference.offset.is_multiple_of(PAGE));
        let mut pages = self.pages.lock().unwrap();
        let zeros;
        let bytes = match difference.new {
            Content::Bytes(bytes) => bytes,
            Content::Zeros(len) => {
                zeros = vec![0; len as usize];
                &zeros
            }
        };
        for (page, bytes) in (difference.offset / PAGE..).zip(bytes.chunks(PAGE as usize)) {
            pages.insert(page, bytes.to_vec());
        }
    }

    /// The pages that are not zero.
    pub fn contents(&self) -> BTreeMap<u64, Vec<u8>> {
        let mut pages = self.pages.lock().unwrap().clone();
        pages.retain(|_, bytes| bytes.iter().any(|byte| *byte != 0));
        pages
    }

    pub fn copy(&self) -> PageDisk {
        PageDisk {
            len: self.len,
            pages: Mutex::new(self.pages.lock().unwrap().clone()),
        }
    }
}

impl Image for PageDisk {
    fn disk_len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let end = offset + buf.len() as u64;
        if end > self.len {
            return Err(Error::new(ErrorKind::Io, "a read past the end").at_offset(offset));
        }
        buf.fill(0);
        let pages = self.pages.lock().unwrap();
        for (page, bytes) in pages.range(offset / PAGE..end.div_ceil(PAGE)) {
            copy_overlap(buf, offset, bytes, page * PAGE);
        }
        Ok(())
    }

    fn next_extent(&self, offset: u64) -> Result<Option<Extent>> {
        if offset >= self.len {
            return Ok(None);
        }
        let pages = self.pages.lock().unwrap();
        let next = pages
            .range(offset / PAGE..)
            .next()
            .map(|(page, _)| page * PAGE);
        Ok(Some(match next {
            Some(start) if start <= offset => Extent::data(offset..(start + PAGE).min(self.len)),
            next => Extent::zero(offset..next.unwrap_or(self.len)),
        }))
    }

    fn info(&self) -> ImageInfo {
        info(self.len)
    }
}

/// A disk full of noise, some pages of which come from another seed.
pub struct NoiseDisk {
    pub len: u64,
    pub seeds: BTreeMap<u64, u64>,
}

impl Image for NoiseDisk {
    fn disk_len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        for page in offset / PAGE..(offset + buf.len() as u64).div_ceil(PAGE) {
            let seed = self.seeds.get(&page).copied().unwrap_or(page + 1);
            copy_overlap(buf, offset, &noise(PAGE as usize, seed), page * PAGE);
        }
        Ok(())
    }

    fn next_extent(&self, offset: u64) -> Result<Option<Extent>> {
        Ok((offset < self.len).then(|| Extent::data(offset..self.len)))
    }

    fn info(&self) -> ImageInfo {
        info(self.len)
    }
}

/// The next number of a fixed sequence.
pub fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *state;
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ mixed >> 31
}

/// Bytes that nothing compresses; zeros for 0.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    if seed == 0 {
        return vec![0; len];
    }
    let mut state = seed.wrapping_mul(0x5851_F42D_4C95_7F2D);
    let words = (0..len.div_ceil(8)).flat_map(|_| next_random(&mut state).to_le_bytes());
    words.take(len).collect()
}

/// Any range of a disk.
pub fn copy_overlap(buf: &mut [u8], buf_at: u64, bytes: &[u8], bytes_at: u64) {
    let Range { start, end } =
        buf_at.max(bytes_at)..(buf_at + buf.len() as u64).min(bytes_at + bytes.len() as u64);
    if start < end {
        let from = (start - bytes_at) as usize..(end - bytes_at) as usize;
        buf[(start - buf_at) as usize..(end - buf_at) as usize].copy_from_slice(&bytes[from]);
    }
}

/// `ImageInfo` cannot be made up outside of the crate, so one is borrowed.
fn info(len: u64) -> ImageInfo {
    let storage = diskdelta::storage::MemoryStorage::new("disk", Vec::new());
    let mut info = diskdelta::image::Raw::open(std::sync::Arc::new(storage))
        .unwrap()
        .info();
    assert_eq!(info.format, Format::Raw);
    info.disk_bytes = len;
    info
}
