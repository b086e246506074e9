//! Garbage that is the same for the same seed, and a small generator of numbers.

use std::sync::Arc;

use super::row::{PAGE_LEN, Page, to_usize};

/// Spreads a number over all 64 bits (splitmix64's finisher).
pub(super) fn mix(n: u64) -> u64 {
    let mut z = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A row of numbers that follow from a seed.
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

/// A few pages of garbage, shared by all states of one enumeration.
#[derive(Debug)]
pub(super) struct Noise {
    pages: Vec<Arc<Page>>,
}

impl Noise {
    pub(super) fn new(seed: u64) -> Self {
        let mut numbers = Numbers::new(seed ^ 0x006e_6f69_7365);
        let page = |_| {
            let mut page = [0; PAGE_LEN];
            for word in page.chunks_exact_mut(8) {
                word.copy_from_slice(&numbers.next().to_le_bytes());
            }
            Arc::new(page)
        };
        Noise {
            pages: (0..NOISE_PAGES).map(page).collect(),
        }
    }

    /// No garbage at all, where everything lands whole.
    pub(super) fn none() -> Self {
        Noise { pages: Vec::new() }
    }

    pub(super) fn page(&self, number: u64) -> Option<&Arc<Page>> {
        let at = mix(number).checked_rem(self.pages.len() as u64)?;
        self.pages.get(to_usize(at))
    }
}

const NOISE_PAGES: u64 = 16;
