//! Disks to test on.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use diskdelta::image::{Format, Image, ImageInfo, Raw};
use diskdelta::manifest::{self, Manifest};
use diskdelta::storage::MemoryStorage;
use diskdelta::{BlockSize, Error, ErrorKind, Extent, Result, Work};
use proptest::prelude::*;

pub const BLOCK: usize = 4096;

pub fn raw(bytes: Vec<u8>) -> Raw {
    Raw::open(Arc::new(MemoryStorage::new("disk", bytes))).unwrap()
}

pub fn work() -> Work {
    Work::with_threads(2).unwrap()
}

pub fn manifest_of(bytes: Vec<u8>) -> Manifest {
    manifest::build(&raw(bytes), BlockSize::MIN, &work()).unwrap()
}

/// Bytes of prime period, so that swapped blocks show; never zero.
pub fn pattern(len: usize, seed: u8) -> Vec<u8> {
    let start = usize::from(seed) * 7;
    (start..start + len)
        .map(|n| u8::try_from(n % 251).unwrap() + 1)
        .collect()
}

/// A disk of runs of blocks, some zero, some not, ending anywhere.
pub fn sparse_disk() -> impl Strategy<Value = Vec<u8>> {
    let run = (any::<bool>(), 1..400usize, any::<u8>(), 0..BLOCK);
    (prop::collection::vec(run, 0..8), 0..2 * BLOCK).prop_map(|(runs, tail)| {
        let mut disk = Vec::new();
        for (data, blocks, seed, ragged) in runs {
            let len = blocks * BLOCK + if seed % 4 == 0 { ragged } else { 0 };
            match data {
                true => disk.extend(pattern(len, seed)),
                false => disk.extend(vec![0; len]),
            }
        }
        disk.extend(pattern(tail, 9));
        disk
    })
}

/// An old disk and a new one that has some runs of it changed, zeroed or cut.
pub fn disk_pair() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let edit = (any::<prop::sample::Index>(), 0..3 * BLOCK, any::<u8>());
    let edits = prop::collection::vec(edit, 0..12);
    let resize = prop_oneof![Just(None), any::<(bool, u16)>().prop_map(Some)];
    (sparse_disk(), edits, resize).prop_map(|(old, edits, resize)| {
        let mut new = old.clone();
        for (at, len, byte) in edits {
            if !new.is_empty() {
                let at = at.index(new.len());
                let end = (at + len).min(new.len());
                new[at..end].fill(byte & 3);
            }
        }
        match resize {
            Some((true, by)) => new.extend(vec![(by & 1) as u8; usize::from(by) * 40]),
            Some((false, by)) => new.truncate(new.len().saturating_sub(usize::from(by) * 40)),
            None => {}
        }
        (old, new)
    })
}

/// An image that gives its extents cut as the caller says, holes only where asked for.
pub struct Cut {
    pub disk: Vec<u8>,
    /// Extents end at multiples of this at the latest.
    pub step: u64,
    /// Whether zero steps are given as zero extents.
    pub holes: bool,
}

impl Image for Cut {
    fn disk_len(&self) -> u64 {
        self.disk.len() as u64
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let from = usize::try_from(offset).unwrap();
        buf.copy_from_slice(&self.disk[from..from + buf.len()]);
        Ok(())
    }

    fn next_extent(&self, offset: u64) -> Result<Option<Extent>> {
        if offset >= self.disk_len() {
            return Ok(None);
        }
        let end = ((offset / self.step + 1) * self.step).min(self.disk_len());
        let bytes = &self.disk[usize::try_from(offset).unwrap()..usize::try_from(end).unwrap()];
        Ok(Some(
            match self.holes && bytes.iter().all(|byte| *byte == 0) {
                true => Extent::zero(offset..end),
                false => Extent::data(offset..end),
            },
        ))
    }

    fn info(&self) -> ImageInfo {
        raw(Vec::new()).info()
    }
}

/// A huge disk that is one hole but for a few ranges, and counts what is asked of it.
#[derive(Default)]
pub struct Huge {
    pub disk_len: u64,
    pub data: Vec<Range<u64>>,
    pub unreadable: Option<u64>,
    pub read_bytes: AtomicU64,
    pub extents_asked: AtomicU64,
}

impl Image for Huge {
    fn disk_len(&self) -> u64 {
        self.disk_len
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.read_bytes
            .fetch_add(buf.len() as u64, Ordering::SeqCst);
        let range = offset..offset + buf.len() as u64;
        if self.unreadable.is_some_and(|at| range.contains(&at)) {
            return Err(Error::new(ErrorKind::Io, "bad sector"));
        }
        for (byte, at) in buf.iter_mut().zip(range) {
            *byte = match self.data.iter().any(|data| data.contains(&at)) {
                true => u8::try_from(at % 251).unwrap() + 1,
                false => 0,
            };
        }
        Ok(())
    }

    fn next_extent(&self, offset: u64) -> Result<Option<Extent>> {
        self.extents_asked.fetch_add(1, Ordering::SeqCst);
        if offset >= self.disk_len {
            return Ok(None);
        }
        let next = self.data.iter().find(|data| data.end > offset);
        Ok(Some(match next {
            Some(data) if data.start <= offset => Extent::data(offset..data.end),
            Some(data) => Extent::zero(offset..data.start),
            None => Extent::zero(offset..self.disk_len),
        }))
    }

    fn info(&self) -> ImageInfo {
        let mut info = raw(Vec::new()).info();
        info.format = Format::Raw;
        info
    }
}
