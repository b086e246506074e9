//! What is compared of a disk: its windows, laid one behind the other.
//!
//! Both ends lay the same windows in the same way, so the messages of a descent need not know of
//! them: offsets in messages are offsets in a view.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::gaps::Gaps;
use super::known::Known;
use super::windows::{BlockHashes, Windows};
use crate::error::{Error, ErrorKind, Result};
use crate::hash::Hash;
use crate::image::{Image, read_padded_at};
use crate::manifest::RangeSet;
use crate::remote::wire::format::{BATCH, BLOCK, PAGE, PIECE};
use crate::storage::AlignedBuf;
use crate::units::{ExtentKind, is_zero};

/// An image seen through windows, with zeros behind its end.
pub struct View<'a> {
    image: &'a dyn Image,
    /// As it was at the start: what is written to a target must not change the comparison.
    image_len: u64,
    windows: Windows,
    /// What stands for reading it.
    known: Option<Known>,
    /// What is not looked at.
    gaps: Gaps,
    /// Whether what cannot be read becomes a gap.
    skips: bool,
    /// Buffers that are free now.
    buffers: Mutex<Vec<AlignedBuf>>,
}

opaque!(View<'_>);

impl<'a> View<'a> {
    /// `image` through `windows`.
    pub fn new(image: &'a dyn Image, windows: Windows) -> Self {
        View {
            image,
            image_len: image.disk_len(),
            windows,
            known: None,
            gaps: Gaps::default(),
            skips: false,
            buffers: Mutex::default(),
        }
    }

    /// Has `known` stand for reading whole blocks; windows that cut blocks are read all the same.
    #[must_use]
    pub fn with_known(mut self, known: Option<Known>) -> Self {
        self.known = known.filter(|known| self.windows.are_blocks(known.manifest().disk_len()));
        self
    }

    /// Has pages that cannot be hashed become gaps, which read as zeros.
    #[must_use]
    pub fn with_skips(mut self, skips: bool) -> Self {
        self.skips = skips;
        self
    }

    /// What is not looked at.
    pub(in crate::remote) fn gaps(&self) -> &Gaps {
        &self.gaps
    }

    /// The gaps as ranges of the disk, ascending.
    pub(in crate::remote) fn gaps_on_disk(&self) -> Vec<Range<u64>> {
        let gaps = self.gaps.inside(0..self.len()).into_iter();
        let pieces = gaps.flat_map(|gap| self.windows.pieces(gap));
        RangeSet::of(pieces.map(|(_, piece)| piece)).into_vec()
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.windows.len()
    }

    /// Whether there is nothing to see.
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }

    /// The windows.
    pub fn windows(&self) -> &Windows {
        &self.windows
    }

    /// Where block `block` of batch `batch` lies in the view; empty behind the end.
    pub fn block(&self, batch: u64, block: u32) -> Range<u64> {
        let start = batch
            .saturating_mul(BATCH)
            .saturating_add(u64::from(block) * BLOCK);
        start.min(self.len())..start.saturating_add(BLOCK).min(self.len())
    }

    /// The bytes of a range, which is short.
    ///
    /// # Errors
    /// `Unreadable`, with the offset on the disk; those of the image.
    pub fn read(&self, range: Range<u64>) -> Result<Vec<u8>> {
        let len = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let mut bytes = vec![0; len];
        self.read_into(range, &mut bytes, false)?;
        Ok(bytes)
    }

    /// Reads around gaps; where one `may_begin`, what cannot be read becomes one.
    fn read_into(&self, range: Range<u64>, bytes: &mut [u8], may_begin: bool) -> Result<()> {
        let start = range.start;
        match self.read_all(range, bytes) {
            Err(error) if self.skips && error.kind() == ErrorKind::Unreadable => {}
            read => {
                read?;
                self.gaps.blank(start, bytes);
                return Ok(());
            }
        }
        let mut at = start;
        for page in bytes.chunks_mut(PAGE as usize) {
            let range = at..at + page.len() as u64;
            at = range.end;
            if !self.gaps.inside(range.clone()).is_empty() {
                page.fill(0);
                continue;
            }
            match self.read_all(range.clone(), page) {
                Err(error) if may_begin && error.kind() == ErrorKind::Unreadable => {
                    page.fill(0);
                    self.gaps.add(range)?;
                }
                read => read?,
            }
        }
        Ok(())
    }

    fn read_all(&self, range: Range<u64>, bytes: &mut [u8]) -> Result<()> {
        let mut rest = bytes;
        for (_, piece) in self.windows.pieces(range) {
            let len = usize::try_from(piece.end - piece.start).unwrap_or(usize::MAX);
            let (now, after) = rest.split_at_mut(len.min(rest.len()));
            read_padded_at(self.image, now, piece.start).map_err(|error| match error.kind() {
                ErrorKind::Io => Error::new(ErrorKind::Unreadable, "cannot read the disk")
                    .at_offset(piece.start)
                    .caused_by(error),
                _ => error,
            })?;
            rest = after;
        }
        Ok(())
    }

    /// How many blocks batch `batch` has.
    pub fn block_count(&self, batch: u64) -> usize {
        let start = batch.saturating_mul(BATCH).min(self.len());
        let count = (self.len() - start).min(BATCH).div_ceil(BLOCK);
        usize::try_from(count).unwrap_or(0)
    }

    /// The first piece from `piece` on that may hold data.
    ///
    /// # Errors
    /// Those of [`Image::next_extent`].
    pub fn next_piece(&self, piece: u64) -> Result<Option<u64>> {
        let from = piece.saturating_mul(PIECE);
        let data = self.next_data(from..self.len())?;
        Ok(data.map(|data| data.start / PIECE))
    }

    /// The first stretch in `range` that may hold data, as far as it is known at once.
    fn next_data(&self, range: Range<u64>) -> Result<Option<Range<u64>>> {
        for (at, piece) in self.windows.pieces(range) {
            let mut real = piece.start;
            while real < piece.end.min(self.image_len) {
                let Some(extent) = self.image.next_extent(real)? else {
                    break;
                };
                let end = extent.end().max(real + 1);
                if extent.kind == ExtentKind::Data {
                    let end = end.min(piece.end);
                    return Ok(Some(at + (real - piece.start)..at + (end - piece.start)));
                }
                real = end;
            }
        }
        Ok(None)
    }

    /// The hashes of the blocks of a piece; `None` where one is zero.
    ///
    /// # Errors
    /// As [`read`](View::read).
    pub fn hash_piece(&self, piece: u64) -> Result<BlockHashes> {
        let start = piece.saturating_mul(PIECE).min(self.len());
        let end = start.saturating_add(PIECE).min(self.len());
        let count = usize::try_from((end - start).div_ceil(BLOCK)).unwrap_or(0);
        let mut hashes = vec![None; count];
        if let Some(known) = &self.known {
            self.look_up(known, start..end, &mut hashes)?;
            return Ok(hashes);
        }
        let buffer = self.lock_buffers().pop();
        let mut buffer = buffer.unwrap_or_else(|| AlignedBuf::new(READ_BYTES as usize));
        let mut at = start;
        while let Some(data) = self.next_data(at..end)? {
            // Whole blocks.
            let mut block = (data.start - start) / BLOCK;
            at = (start + (data.end - start).next_multiple_of(BLOCK)).min(end);
            while start + block * BLOCK < at {
                let most = match self.image.reads_from_memory() {
                    true => BLOCK,
                    false => READ_BYTES,
                };
                let from = start + block * BLOCK;
                let to = (from + most).min(at);
                let bytes = &mut buffer[..(to - from) as usize]; // at most `READ_BYTES`
                self.read_into(from..to, bytes, true)?;
                let index = usize::try_from(block).unwrap_or(usize::MAX);
                let slots = hashes.iter_mut().skip(index);
                for (slot, bytes) in slots.zip(bytes.chunks(BLOCK as usize)) {
                    *slot = hash_block(bytes);
                }
                block += most / BLOCK;
            }
        }
        self.lock_buffers().push(buffer);
        Ok(hashes)
    }

    /// The hashes of a range of whole blocks, from a manifest.
    fn look_up(&self, known: &Known, range: Range<u64>, hashes: &mut [Option<Hash>]) -> Result<()> {
        let start = range.start;
        for (at, piece) in self.windows.pieces(range) {
            let blocks = piece.start / BLOCK..piece.end.div_ceil(BLOCK);
            let index = usize::try_from((at - start) / BLOCK).unwrap_or(usize::MAX);
            let hashes = hashes.get_mut(index..).unwrap_or_default();
            let first = blocks.start;
            known.blocks(blocks, hashes, &|block| {
                let from = at + (block - first) * BLOCK;
                let block = from..(from + BLOCK).min(self.len());
                Ok(hash_block(&self.read(block)?))
            })?;
        }
        Ok(())
    }

    fn lock_buffers(&self) -> MutexGuard<'_, Vec<AlignedBuf>> {
        self.buffers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The hash of a block as manifests have it.
pub(in crate::remote) fn hash_block(bytes: &[u8]) -> Option<Hash> {
    (!is_zero(bytes)).then(|| Hash::of(bytes))
}

/// What is read at once from a medium; from memory a block is, which stays in a near cache.
const READ_BYTES: u64 = 512 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Raw;
    use crate::storage::MemoryStorage;
    use std::sync::Arc;

    #[test]
    fn a_view_shows_its_windows_one_behind_the_other() {
        let bytes: Vec<u8> = (0..40_000u32).map(|at| (at % 251) as u8).collect();
        let image = Raw::open(Arc::new(MemoryStorage::new("disk", bytes.clone()))).unwrap();
        let ranges = [4096..8192, 12_288..20_480, 36_864..41_000];
        let view = View::new(&image, Windows::of(&ranges, 41_000).unwrap());
        assert_eq!(view.len(), 4096 + 8192 + 4136);
        let mut expected = bytes[4096..8192].to_vec();
        expected.extend_from_slice(&bytes[12_288..20_480]);
        expected.extend_from_slice(&bytes[36_864..]);
        expected.resize(16_424, 0);
        assert!(view.read(0..view.len()).unwrap() == expected);
        assert!(view.read(4000..4200).unwrap() == expected[4000..4200]);
        let pieces: Vec<_> = view.windows().pieces(4000..5000).collect();
        assert_eq!(pieces, [(4000, 8096..8192), (4096, 12_288..13_192)]);
        assert_eq!(view.hash_piece(0).unwrap(), [hash_block(&expected)]);
        for wrong in [0..0, 40_000..41_001] {
            assert!(Windows::of(&[1..5, wrong], 41_000).is_err());
        }
        assert!(Windows::of(&[5..9, 8..10], 41_000).is_err());
    }
}
