//! Block checksums by block size and threads, beside bare positioned reads and BLAKE3.
//!
//! `cargo bench --bench hash` first races the root of a dense image against a plain loop and, where
//! it is installed, `b3sum`, turn by turn so that a busy machine is as hard on each, and prints
//! medians. Criterion's figures follow. `DISKDELTA_BENCH_DIR` says where the file lies,
//! `DISKDELTA_BENCH_SIZE` how long it is (1G by default). Run as a test it only shows that it
//! works.
#![allow(clippy::unwrap_used, reason = "a panic is how this fails")]

use std::fs::File;
use std::hint::black_box;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput};
use diskdelta::image::Raw;
use diskdelta::storage::FileStorage;
use diskdelta::units::format_size;
use diskdelta::{BlockSize, Work, manifest};

#[path = "bare/loops.rs"]
mod loops;
#[path = "manifest/setting.rs"]
mod setting;

use setting::Setting;

fn main() {
    let setting = Setting::new();
    let path = setting.dense("dense.raw", setting.size);
    race(&setting, &path);
    let mut criterion = Criterion::default().sample_size(10).configure_from_args();
    by_block_size_and_threads(&mut criterion, &setting, &path);
    criterion.final_summary();
}

/// Two threads, blocks of 64 KiB, in the page cache.
fn race(setting: &Setting, path: &Path) {
    let work = Work::with_threads(2).unwrap();
    let root = || {
        black_box(root(path, BlockSize::default(), &work));
    };
    let bare = || bare(path, 64 << 10, &work);
    let b3sum = || {
        let mut command = Command::new("b3sum");
        let output = command.arg("--num-threads=2").arg(path).output().unwrap();
        assert!(output.status.success());
    };
    let mut contenders: Vec<(&str, &dyn Fn())> = vec![("pread + BLAKE3", &bare), ("root", &root)];
    if Command::new("b3sum").arg("--version").output().is_ok() {
        contenders.push(("b3sum", &b3sum));
    }
    let title = format!("dense {}, two threads", format_size(setting.size));
    setting.race(&title, &contenders);
}

fn by_block_size_and_threads(criterion: &mut Criterion, setting: &Setting, path: &Path) {
    for threads in [1, 2] {
        let work = Work::with_threads(threads).unwrap();
        let mut group = criterion.benchmark_group(format!("hash, {threads} threads"));
        group.throughput(Throughput::Bytes(setting.size));
        for bits in [12, 14, 16, 18, 20, 24] {
            let size = BlockSize::new(1 << bits).unwrap();
            group.bench_function(BenchmarkId::new("root", size), |bencher| {
                bencher.iter(|| root(path, size, &work));
            });
            group.bench_function(BenchmarkId::new("pread + BLAKE3", size), |bencher| {
                bencher.iter(|| bare(path, 1 << bits, &work));
            });
        }
    }
}

fn root(path: &Path, block_size: BlockSize, work: &Work) -> diskdelta::Hash {
    let storage = Arc::new(FileStorage::open_read(path).unwrap());
    let image = Raw::open(storage).unwrap();
    manifest::root_of(&image, block_size, work).unwrap()
}

/// The least that must be done: read each block and hash it.
fn bare(path: &Path, block_size: usize, work: &Work) {
    loops::hash(&File::open(path).unwrap(), block_size, work.pool()).unwrap();
}
