//! Throws that follow from a seed.

/// A sequence of numbers; the same seed gives the same sequence.
pub struct Rng(u64);

impl Rng {
    /// The rng of one test: `DISKDELTA_SEED` and the test's name decide.
    pub fn of(name: &str) -> Rng {
        let seed = std::env::var("DISKDELTA_SEED").map_or(1, |text| text.parse().unwrap());
        let digest = blake3::hash(format!("{name} {seed}").as_bytes());
        Rng(u64::from_le_bytes(
            digest.as_bytes()[..8].try_into().unwrap(),
        ))
    }

    /// A number below `count`.
    pub fn below(&mut self, count: u64) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut n = self.0;
        n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (n ^ (n >> 31)) % count.max(1)
    }

    /// Whether a throw hits that hits once in `count` times.
    pub fn once_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}
