//! Manifests of dense and sparse images, their files, and what differs between two.
//!
//! `cargo bench --bench manifest` first races a sparse image of 4 TiB against a dense one with as
//! much data (1G, or `DISKDELTA_BENCH_SIZE`), turn by turn, and prints medians and memory.
//! Criterion's figures follow. `DISKDELTA_BENCH_DIR` says where the files lie. Run as a test it
//! only shows that it works.
#![allow(clippy::unwrap_used, reason = "a panic is how this fails")]

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use criterion::{Criterion, Throughput};
use diskdelta::image::Raw;
use diskdelta::manifest::{Manifest, ManifestWriter};
use diskdelta::storage::FileStorage;
use diskdelta::units::format_size;
use diskdelta::{BlockSize, Limits, Work, diff, manifest};

mod setting;

use setting::Setting;

fn main() {
    let setting = Setting::new();
    let work = Work::with_threads(2).unwrap();
    let dense = setting.dense("dense.raw", setting.size);
    let sparse = setting.sparse("sparse.raw", 4 << 40, setting.size);
    let out = setting.path("out.manifest");
    let build = |path: &Path| {
        let _ = std::fs::remove_file(&out);
        let storage = FileStorage::create_new(&out).unwrap();
        let image = Raw::open(Arc::new(FileStorage::open_read(path).unwrap())).unwrap();
        manifest::build_to(&image, BlockSize::default(), &work, Arc::new(storage)).unwrap()
    };
    let title = format!("{} of data, two threads", format_size(setting.size));
    setting.race(
        &title,
        &[
            ("dense", &|| drop(build(&dense))),
            ("sparse, 4 TiB", &|| drop(build(&sparse))),
        ],
    );
    let mut criterion = Criterion::default().sample_size(10).configure_from_args();
    let mut group = criterion.benchmark_group("build to a file");
    group.throughput(Throughput::Bytes(setting.size));
    group.bench_function("dense", |bencher| bencher.iter(|| build(&dense)));
    group.bench_function("sparse, 4 TiB", |bencher| bencher.iter(|| build(&sparse)));
    group.finish();
    compare(&mut criterion, &setting);
    criterion.final_summary();
}

/// Two manifests of a dense TiB that differ in no block, in a thousand, and in all.
fn compare(criterion: &mut Criterion, setting: &Setting) {
    let disk_len = 1024 * setting.size;
    let same = written(setting, "same", disk_len, u64::MAX);
    let few = written(setting, "few", disk_len, 16_000);
    let all = written(setting, "all", disk_len, 1);
    let mut group = criterion.benchmark_group("diff of 16 M blocks");
    for (name, other) in [("none", &same), ("one in 16000", &few), ("all", &all)] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let diff = diff::manifests(&same, other).unwrap();
                black_box(diff.map(|extent| extent.unwrap().len).sum::<u64>())
            });
        });
    }
    group.bench_function("full check", |bencher| {
        bencher.iter(|| same.verify().unwrap())
    });
}

/// A manifest of a dense disk of which each `step`-th block is unlike that of the others.
fn written(setting: &Setting, name: &str, disk_len: u64, step: u64) -> Manifest {
    let path = setting.path(name);
    let storage = Arc::new(FileStorage::create_new(&path).unwrap());
    let size = BlockSize::default();
    let mut writer = ManifestWriter::create(storage, disk_len, size).unwrap();
    for block in 0..size.count(disk_len) {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&block.to_le_bytes());
        bytes[8] = u8::from(block % step == step - 1);
        writer
            .push(block, &diskdelta::Hash::from_bytes(bytes))
            .unwrap();
    }
    writer.finish().unwrap();
    Manifest::open_with(path, &Limits::default()).unwrap()
}
