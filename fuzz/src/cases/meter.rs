//! How much memory a call takes at most. The allocator that counts belongs to the fuzz binaries;
//! where it is not installed nothing is counted and every bound holds.

use std::sync::atomic::{AtomicI64, Ordering};

use diskdelta::Limits;

/// Bytes allocated now.
pub static LIVE: AtomicI64 = AtomicI64::new(0);
/// The most there were since somebody began to measure.
pub static PEAK: AtomicI64 = AtomicI64::new(0);

/// Runs `work` and panics if it took more memory than `most` at any moment.
pub fn within<T>(most: u64, work: impl FnOnce() -> T) -> T {
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let value = work();
    let taken = PEAK.load(Ordering::Relaxed) - before;
    assert!(
        taken <= i64::try_from(most).unwrap_or(i64::MAX),
        "{taken} bytes of memory were taken, {most} are allowed"
    );
    value
}

/// Limits small enough that exceeding them shows.
pub fn limits() -> Limits {
    let mut limits = Limits::default()
        .with_table_bytes(4 << 20)
        .with_log_bytes(4 << 20)
        .with_chain_count(16);
    limits.frame_bytes = 1 << 20;
    limits
}

/// What work on files that hold `stored` bytes may take under [`limits`]: tables while they grow
/// and are sorted, a bit for each MiB of the longest file, buffers of a fixed size, and the files.
pub fn bound(stored: u64) -> u64 {
    4 * limits().table_bytes + 2 * (16 << 20) + (40 << 20) + 4 * stored
}
