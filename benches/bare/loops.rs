//! What is left of comparing, mending and hashing when everything but the work itself is left out.
//!
//! These are the measures that the crate's own speed is held against: positioned reads of one
//! size, two or more threads that take the next piece of the files in turn, and nothing else.

use std::cell::RefCell;
use std::fs::File;
use std::hint::black_box;
use std::io::Result;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::ThreadPool;
use rayon::prelude::*;

/// Reads both files `unit` bytes at a time and counts the pages that differ, as far as both reach.
///
/// # Errors
/// Those of the reads.
#[allow(dead_code, reason = "not every program that shares this file compares")]
pub fn compare(old: &File, new: &File, unit: usize, threads: usize) -> Result<u64> {
    for_pages(old, new, unit, threads, &|_, _| Ok(()))
}

/// As [`compare`], and writes the pages that differ from `new` to `old`, durably.
///
/// # Errors
/// Those of the reads, the writes and the sync.
#[allow(dead_code, reason = "not every program that shares this file mends")]
pub fn mend(old: &File, new: &File, unit: usize, threads: usize) -> Result<u64> {
    let pages = for_pages(old, new, unit, threads, &|page, at| {
        old.write_all_at(page, at)
    })?;
    old.sync_all()?;
    Ok(pages)
}

/// Reads a file block by block and hashes each.
///
/// # Errors
/// Those of the reads.
#[allow(dead_code, reason = "not every program that shares this file hashes")]
pub fn hash(file: &File, block_size: usize, pool: &ThreadPool) -> Result<()> {
    thread_local! {
        static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    let len = file.metadata()?.len();
    let blocks = len.div_ceil(block_size as u64);
    pool.install(|| {
        (0..blocks).into_par_iter().try_for_each(|block| {
            BUFFER.with_borrow_mut(|buffer| {
                buffer.resize(block_size, 0);
                let offset = block * block_size as u64;
                let len = (len - offset).min(block_size as u64) as usize;
                file.read_exact_at(&mut buffer[..len], offset)?;
                black_box(blake3::hash(&buffer[..len]));
                Ok(())
            })
        })
    })
}

type Differing<'a> = &'a (dyn Fn(&[u8], u64) -> Result<()> + Sync);

fn for_pages(
    old: &File,
    new: &File,
    unit: usize,
    threads: usize,
    differing: Differing<'_>,
) -> Result<u64> {
    let size = old.metadata()?.len().min(new.metadata()?.len());
    let next = AtomicU64::new(0);
    let run = || -> Result<u64> {
        let (mut a, mut b) = (vec![0; unit], vec![0; unit]);
        let mut count = 0;
        loop {
            let at = next.fetch_add(unit as u64, Ordering::Relaxed);
            let len = size.saturating_sub(at).min(unit as u64) as usize;
            if len == 0 {
                return Ok(count);
            }
            old.read_exact_at(&mut a[..len], at)?;
            new.read_exact_at(&mut b[..len], at)?;
            let pages = a[..len].chunks(PAGE).zip(b[..len].chunks(PAGE));
            for (index, (a, b)) in pages.enumerate() {
                if a != b {
                    count += 1;
                    differing(b, at + (index * PAGE) as u64)?;
                }
            }
        }
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(run)).collect();
        let mut count = run()?;
        for other in others {
            count += other
                .join()
                .map_err(|_| std::io::Error::other("a thread panicked"))??;
        }
        Ok(count)
    })
}

const PAGE: usize = 4096;
