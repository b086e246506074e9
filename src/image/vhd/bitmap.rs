//! Sector bitmaps: read when first needed, kept in bounded memory.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::Result;
use crate::image::gate::Chain;

use super::format::{SECTOR_BYTES, bit};

/// What a block's bitmap says.
#[derive(Clone)]
pub(super) enum Bits {
    /// All sectors are in this file.
    Full,
    /// Those whose bit is set.
    Some(Arc<[u8]>),
}

/// The bitmaps read so far. A full one costs a bit, the others are bounded to 4 MiB in all, of
/// which every image of a chain has its share.
pub(super) struct Bitmaps(Mutex<Cache>);

struct Cache {
    most_partial_bytes: usize,
    full: Vec<u64>,
    partial: HashMap<u64, Arc<[u8]>>,
    partial_bytes: usize,
}

impl Bitmaps {
    /// None yet, of an image under `chain`.
    pub(super) fn new(chain: &Chain) -> Self {
        Bitmaps(Mutex::new(Cache {
            most_partial_bytes: chain.share(MAX_PARTIAL_BYTES),
            full: Vec::new(),
            partial: HashMap::new(),
            partial_bytes: 0,
        }))
    }

    /// The bitmap of block `index`, read by `read` unless it is known.
    ///
    /// # Errors
    /// What `read` returns.
    pub(super) fn of_block(
        &self,
        index: u64,
        sectors: u64,
        read: impl FnOnce() -> Result<Vec<u8>>,
    ) -> Result<Bits> {
        {
            let cache = self.lock();
            if cache.is_full(index) {
                return Ok(Bits::Full);
            }
            if let Some(bits) = cache.partial.get(&index) {
                return Ok(Bits::Some(bits.clone()));
            }
        }
        let bytes = read()?;
        if runs(&bytes, 0..sectors * SECTOR_BYTES).all(|(_, set)| set) {
            self.set_full(index);
            return Ok(Bits::Full);
        }
        let bits: Arc<[u8]> = bytes.into();
        self.lock().keep(index, bits.clone());
        Ok(Bits::Some(bits))
    }

    /// Notes that all bits of block `index` are set.
    pub(super) fn set_full(&self, index: u64) {
        let mut cache = self.lock();
        // The index of a table entry, and the table is in memory.
        let word = (index / 64) as usize;
        if cache.full.len() <= word {
            cache.full.resize(word + 1, 0);
        }
        if let Some(word) = cache.full.get_mut(word) {
            *word |= 1 << (index % 64);
        }
        if let Some(bits) = cache.partial.remove(&index) {
            cache.partial_bytes -= bits.len();
        }
    }

    /// Forgets blocks from `index` on: the disk ends there now.
    pub(super) fn cut(&self, index: u64) {
        let mut cache = self.lock();
        // Only what is known to be full is worth carrying over.
        cache.partial.clear();
        cache.partial_bytes = 0;
        cache.full.truncate((index / 64) as usize);
    }

    fn lock(&self) -> MutexGuard<'_, Cache> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cache {
    fn is_full(&self, index: u64) -> bool {
        self.full
            .get((index / 64) as usize)
            .is_some_and(|word| word & (1 << (index % 64)) != 0)
    }

    fn keep(&mut self, index: u64, bits: Arc<[u8]>) {
        if self.partial_bytes + bits.len() > self.most_partial_bytes {
            self.partial.clear();
            self.partial_bytes = 0;
        }
        self.partial_bytes += bits.len();
        if let Some(old) = self.partial.insert(index, bits) {
            self.partial_bytes -= old.len();
        }
    }
}

/// The stretches of `range`, in bytes from the block's start, whose sectors have the same bit.
pub(super) fn runs(bits: &[u8], range: Range<u64>) -> impl Iterator<Item = (Range<u64>, bool)> {
    let mut at = range.start;
    std::iter::from_fn(move || {
        if at >= range.end {
            return None;
        }
        let start = at;
        let mut sector = start / SECTOR_BYTES;
        let set = bit(bits, sector);
        let end_sector = range.end.div_ceil(SECTOR_BYTES);
        while sector < end_sector && bit(bits, sector) == set {
            sector += 1;
        }
        at = (sector * SECTOR_BYTES).min(range.end);
        Some((start..at, set))
    })
}

const MAX_PARTIAL_BYTES: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_cover_a_range_in_order_and_split_where_the_bit_changes() {
        let bits = [0b1100_0001, 0xff];
        let found: Vec<_> = runs(&bits, 100..16 * 512 - 7).collect();
        assert_eq!(
            found,
            [
                (100..1024, true),
                (1024..7 * 512, false),
                (7 * 512..16 * 512 - 7, true)
            ]
        );
        assert_eq!(runs(&bits, 5..5).count(), 0);
    }

    #[test]
    fn a_bitmap_is_read_once_and_memory_stays_bounded() {
        let bitmaps = Bitmaps::new(&Chain::default());
        let of = |index, bytes: Vec<u8>| {
            let mut reads = 0;
            let bits = bitmaps.of_block(index, 4096, || {
                reads += 1;
                Ok(bytes)
            });
            (matches!(bits.unwrap(), Bits::Full), reads)
        };
        assert_eq!(of(70, vec![0xff; 512]), (true, 1));
        assert_eq!(of(70, vec![0; 512]), (true, 0));
        for index in 100..20_000 {
            assert_eq!(of(index, vec![0; 512]), (false, 1));
            assert_eq!(of(index, vec![0xff; 512]), (false, 0));
        }
        assert!(bitmaps.lock().partial_bytes <= MAX_PARTIAL_BYTES);
        bitmaps.set_full(19_999);
        assert_eq!(of(19_999, vec![0; 512]), (true, 0));
        bitmaps.cut(70);
        assert_eq!(of(70, vec![0; 512]), (false, 1));
    }
}
