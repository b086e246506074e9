//! Which MiB of a file are taken: a bit for each.

use std::ops::Range;

use super::format::{MAX_FILE_BYTES, MIB};
use crate::error::{Error, Result};

/// What lies where in a file, in whole MiB.
#[derive(Debug, Default)]
pub(super) struct Space {
    /// Held by the layout or by a block that is there.
    taken: Bits,
    /// Named by a block that is not there (trimmed): free for reading, not for new blocks.
    named: Bits,
    /// Everything from here on is free, in bytes.
    end: u64,
    /// No free stretch worth trying lies before this MiB.
    cursor: u64,
}

impl Space {
    /// How much memory it takes, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.taken.bytes() + self.named.bytes()
    }

    /// A file of `file_len` bytes of which nothing is taken but its first MiB.
    pub(super) fn new(file_len: u64) -> Self {
        let mut space = Space {
            end: file_len.next_multiple_of(MIB),
            ..Space::default()
        };
        space.taken.set(0..1);
        space
    }

    /// Takes a range, which must be free.
    ///
    /// # Errors
    /// `Malformed` when something else holds a part of it, or it lies farther out than any file
    /// of use is long.
    pub(super) fn claim(&mut self, range: Range<u64>) -> Result<()> {
        if range.end > MAX_FILE_BYTES {
            return Err(Error::malformed("a block is beyond any file of use")
                .in_field("bat_entry")
                .at_offset(range.start));
        }
        let mibs = mibs(&range);
        if self.taken.any(mibs.clone()) {
            return Err(Error::malformed(
                "two blocks, or a block and a table, claim the same range",
            )
            .in_field("bat_entry")
            .at_offset(range.start));
        }
        self.taken.set(mibs);
        self.end = self.end.max(range.end.next_multiple_of(MIB));
        Ok(())
    }

    /// Keeps new blocks away from a range that may be taken or not.
    pub(super) fn name(&mut self, range: Range<u64>) {
        if range.end <= MAX_FILE_BYTES {
            self.named.set(mibs(&range));
        }
    }

    /// Forgets that a range was named.
    pub(super) fn unname(&mut self, range: Range<u64>) {
        if range.end <= MAX_FILE_BYTES {
            self.cursor = self.cursor.min(mibs(&range).start);
            self.named.clear(mibs(&range));
        }
    }

    /// Gives a range back that was claimed or allocated.
    pub(super) fn release(&mut self, range: Range<u64>) {
        self.cursor = self.cursor.min(mibs(&range).start);
        self.taken.clear(mibs(&range));
    }

    /// Takes `len` bytes (whole MiB): the first free stretch before the end of the file, or what
    /// lies behind the end. What lies in the stretch is unknown.
    ///
    /// # Errors
    /// `Malformed` where the file would get too long.
    pub(super) fn allocate(&mut self, len: u64) -> Result<u64> {
        let want = len / MIB;
        let end = self.end / MIB;
        let mut at = self.cursor;
        while let Some(free) = self.free_from(at, end, want) {
            at = free.end;
            if free.end - free.start == want {
                self.cursor = at;
                self.claim(free.start * MIB..free.end * MIB)?;
                return Ok(free.start * MIB);
            }
        }
        // Nothing before the end is long enough for a block. Sector bitmaps, which are shorter,
        // do not try again either: appending is cheap.
        let start = self.end;
        self.claim(start..start.saturating_add(len))?;
        self.cursor = self.end / MIB;
        Ok(start)
    }

    /// The first byte behind everything, in whole MiB.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// The first stretch of free MiB at or after `at` and before `end`, up to `want` of them.
    fn free_from(&self, at: u64, end: u64, want: u64) -> Option<Range<u64>> {
        let start = (at..end).find(|&mib| !self.is_used(mib))?;
        let end = end.min(start + want);
        let stop = (start..end).find(|&mib| self.is_used(mib)).unwrap_or(end);
        Some(start..stop)
    }

    fn is_used(&self, mib: u64) -> bool {
        self.taken.any(mib..mib + 1) || self.named.any(mib..mib + 1)
    }
}

fn mibs(range: &Range<u64>) -> Range<u64> {
    range.start / MIB..range.end.div_ceil(MIB)
}

/// A row of bits that grows to the highest one set.
#[derive(Debug, Default)]
pub(super) struct Bits(Vec<u64>);

impl Bits {
    /// How much memory they take, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.0.len() as u64 * size_of::<u64>() as u64
    }

    /// Sets a range. The caller bounds it: memory follows its end.
    pub(super) fn set(&mut self, range: Range<u64>) {
        let words = range.end.div_ceil(64) as usize;
        if self.0.len() < words {
            self.0.resize(words, 0);
        }
        self.each(range, |word, mask| *word |= mask);
    }

    /// Clears a range.
    pub(super) fn clear(&mut self, range: Range<u64>) {
        self.each(range, |word, mask| *word &= !mask);
    }

    /// Whether one of a range is set.
    pub(super) fn any(&self, range: Range<u64>) -> bool {
        masks(range).any(|(index, mask)| self.0.get(index).is_some_and(|word| word & mask != 0))
    }

    /// The first set bit at or after `at`.
    pub(super) fn next(&self, at: u64) -> Option<u64> {
        let first = (at / 64) as usize;
        let mut mask = u64::MAX << (at % 64);
        for (index, word) in self.0.iter().enumerate().skip(first) {
            if word & mask != 0 {
                return Some(index as u64 * 64 + u64::from((word & mask).trailing_zeros()));
            }
            mask = u64::MAX;
        }
        None
    }

    fn each(&mut self, range: Range<u64>, mut change: impl FnMut(&mut u64, u64)) {
        for (index, mask) in masks(range) {
            if let Some(word) = self.0.get_mut(index) {
                change(word, mask);
            }
        }
    }
}

/// The words that a range of bits touches, each with the bits of the range in it.
fn masks(range: Range<u64>) -> impl Iterator<Item = (usize, u64)> {
    let words = range.start / 64..range.end.div_ceil(64);
    words.map(move |word| {
        let from = range.start.max(word * 64) - word * 64;
        let to = range.end.min(word * 64 + 64) - word * 64;
        let mask = if from < to {
            (u64::MAX << from) & (u64::MAX >> (64 - to))
        } else {
            0
        };
        (word as usize, mask)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bits_are_those_that_were_set(
            sets in prop::collection::vec((0u64..300, 0u64..90, any::<bool>()), 0..20),
            probe in (0u64..400, 0u64..100),
        ) {
            let mut bits = Bits::default();
            let mut model = vec![false; 600];
            for (start, len, set) in sets {
                let range = start..start + len;
                model[start as usize..(start + len) as usize].fill(set);
                if set { bits.set(range) } else { bits.clear(range) }
            }
            let (start, len) = probe;
            let expect = model[start as usize..(start + len) as usize].contains(&true);
            prop_assert_eq!(bits.any(start..start + len), expect);
            let next = model.iter().skip(start as usize).position(|set| *set);
            prop_assert_eq!(bits.next(start), next.map(|next| next as u64 + start));
        }
    }

    #[test]
    fn free_space_is_taken_before_the_file_grows() {
        let mut space = Space::new(8 * MIB);
        space.claim(MIB..3 * MIB).unwrap();
        space.claim(5 * MIB..6 * MIB).unwrap();
        assert!(space.claim(2 * MIB..3 * MIB).is_err());
        assert_eq!(space.allocate(2 * MIB).unwrap(), 3 * MIB);
        assert_eq!(space.allocate(2 * MIB).unwrap(), 6 * MIB);
        assert_eq!(space.allocate(2 * MIB).unwrap(), 8 * MIB);
        space.release(3 * MIB..5 * MIB);
        assert_eq!(space.allocate(MIB).unwrap(), 3 * MIB);
        assert_eq!(space.allocate(2 * MIB).unwrap(), 10 * MIB);
        assert_eq!(space.end(), 12 * MIB);
    }
}
