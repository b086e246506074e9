//! Garbage that is the same for the same seed, and a small generator of numbers.

use std::sync::Arc;

use super::contents::{FileBytes, to_usize};
use super::page::PAGE_LEN;
use super::page::Page;

/// Spreads a number over all 64 bits (splitmix64's finisher).
pub(super) fn mix(n: u64) -> u64 {
    let mut z = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A sequence of numbers that follow from a seed.
#[derive(Debug, Clone)]
pub(super) struct Numbers(u64);

impl Numbers {
    pub(super) fn new(seed: u64) -> Self {
        Numbers(mix(seed))
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(1);
        mix(self.0)
    }

    /// A number below `bound`, or 0.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next().checked_rem(bound).unwrap_or(0)
    }
}

/// What spoiled sectors and new space read as.
#[derive(Debug, Clone, Default)]
pub(super) struct Residue {
    /// A few pages of garbage, shared by all states of one enumeration; none where everything
    /// lands whole.
    noise: Arc<Vec<Arc<Page>>>,
    /// A file that is no more, whose space a new one may get: its bytes may be valid records of
    /// an earlier run.
    pub(super) stale: Option<FileBytes>,
}

impl Residue {
    pub(super) fn new(seed: u64) -> Self {
        let mut numbers = Numbers::new(seed ^ 0x006e_6f69_7365);
        let page = |_| {
            let mut page = [0; PAGE_LEN];
            for word in page.chunks_exact_mut(8) {
                word.copy_from_slice(&numbers.next().to_le_bytes());
            }
            Arc::new(Page::new(page))
        };
        Residue {
            noise: Arc::new((0..NOISE_PAGES).map(page).collect()),
            stale: None,
        }
    }

    pub(super) fn with_stale(&self, stale: Option<FileBytes>) -> Self {
        let noise = self.noise.clone();
        Residue { noise, stale }
    }

    pub(super) fn noise(&self, number: u64) -> Option<&Arc<Page>> {
        let at = mix(number).checked_rem(self.noise.len() as u64)?;
        self.noise.get(to_usize(at))
    }
}

const NOISE_PAGES: u64 = 16;
