//! Portable deltas: made, applied and merged.
//!
//! `cargo bench --bench apply` first races applying a delta of 1 % of an image's pages against a
//! bare loop that finds the same pages by comparing and writes them, each ending durably, and
//! prints medians. Criterion's figures follow. `DISKDELTA_BENCH_DIR` says where the files lie,
//! `DISKDELTA_BENCH_SIZE` how long the image is (1G by default). Run as a test it only shows that
//! it works.
#![allow(clippy::unwrap_used, reason = "a panic is how this fails")]

use std::cell::Cell;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput};
use diskdelta::delta::{Base, Delta, DeltaOptions, create, merge};
use diskdelta::image::{Format, Raw};
use diskdelta::storage::{FileRef, FileStorage};
use diskdelta::sync::{BaseCheck, Outcome, Target, Verify, apply_delta};
use diskdelta::units::format_size;
use diskdelta::{Limits, Work};

#[path = "bare/loops.rs"]
mod loops;
#[path = "manifest/setting.rs"]
mod setting;

use setting::Setting;

fn main() {
    let setting = Setting::new();
    let work = Work::with_threads(2).unwrap();
    let pair = Pair::make(&setting, &work, 100);
    let title = format!("1 % of {}, two threads", format_size(setting.size));
    setting.race(
        &title,
        &[
            ("compare and write", &|| pair.mend()),
            ("touched base", &|| {
                pair.apply(BaseCheck::Touched, Verify::None);
            }),
            ("whole base", &|| {
                pair.apply(BaseCheck::Whole, Verify::None);
            }),
        ],
    );
    let mut criterion = Criterion::default().sample_size(10).configure_from_args();
    applying(&mut criterion, &setting, &work);
    making(&mut criterion, &setting, &pair);
    criterion.final_summary();
}

/// By how much changed, with and without reading back.
fn applying(criterion: &mut Criterion, setting: &Setting, work: &Work) {
    let mut group = criterion.benchmark_group("apply");
    group.throughput(Throughput::Bytes(setting.size));
    for one_in in [100, 4, 1] {
        let pair = Pair::make(setting, work, one_in);
        let percent = 100 / one_in;
        for (name, verify) in [("unverified", Verify::None), ("verified", Verify::Written)] {
            let id = BenchmarkId::new(name, format!("{percent} %"));
            group.bench_function(id, |bencher| {
                bencher.iter(|| pair.apply(BaseCheck::Touched, verify));
            });
        }
    }
    group.finish();
}

fn making(criterion: &mut Criterion, setting: &Setting, pair: &Pair) {
    let mut group = criterion.benchmark_group("make");
    group.throughput(Throughput::Bytes(setting.size));
    for (name, level) in [("stored", None), ("zstd 3", Some(3))] {
        group.bench_function(BenchmarkId::new("create", name), |bencher| {
            bencher.iter(|| pair.delta("made", &pair.old, &pair.new, level));
        });
    }
    let chain = [pair.there.clone(), pair.back.clone(), pair.there.clone()];
    group.bench_function("merge three", |bencher| {
        bencher.iter(|| {
            let file = new_file(&pair.dir.join("merged"));
            merge(&chain, file, &Limits::default(), None, &pair.work).unwrap()
        });
    });
    group.finish();
}

/// Two images, the deltas between them both ways, and a target that goes to and fro.
struct Pair {
    dir: PathBuf,
    old: PathBuf,
    new: PathBuf,
    target: PathBuf,
    there: Delta,
    back: Delta,
    is_new: Cell<bool>,
    work: Work,
}

impl Pair {
    /// One page of `one_in` differs, evenly spread.
    fn make(setting: &Setting, work: &Work, one_in: u64) -> Pair {
        let name = |name: &str| format!("{name}-{one_in}.raw");
        let old = setting.dense(&name("old"), setting.size);
        let (new, target) = (setting.path(&name("new")), setting.path(&name("target")));
        std::fs::copy(&old, &new).unwrap();
        std::fs::copy(&old, &target).unwrap();
        let file = OpenOptions::new().write(true).open(&new).unwrap();
        for page in (0..setting.size / PAGE).step_by(one_in as usize) {
            file.write_all_at(&page.to_le_bytes(), page * PAGE + 1024)
                .unwrap();
        }
        file.sync_all().unwrap();
        let dir = old.parent().unwrap().to_owned();
        let make = |name: &str, from: &Path, to: &Path| {
            let path = dir.join(format!("{name}-{one_in}"));
            delta_between(&path, from, to, None, work)
        };
        Pair {
            there: make("there", &old, &new),
            back: make("back", &new, &old),
            dir,
            old,
            new,
            target,
            is_new: Cell::new(false),
            work: work.clone(),
        }
    }

    /// Applies the delta that fits what the target holds now.
    fn apply(&self, check: BaseCheck, verify: Verify) -> Outcome {
        let file_ref = FileRef::host(&self.target).unwrap();
        let target = Target::file(file_ref, Format::Raw);
        let delta = if self.is_new.get() {
            &self.back
        } else {
            &self.there
        };
        let report = apply_delta(delta, &target, check, verify, &self.work).unwrap();
        assert_eq!(report.outcome, Outcome::Synced);
        self.is_new.set(!self.is_new.get());
        report.outcome
    }

    /// Does by comparing what [`apply`](Pair::apply) does by a delta.
    fn mend(&self) {
        let wanted = if self.is_new.get() {
            &self.old
        } else {
            &self.new
        };
        let [target, wanted] = [&self.target, wanted].map(|path| {
            let mut open = OpenOptions::new();
            open.read(true).write(true).open(path).unwrap()
        });
        let pages = loops::mend(&target, &wanted, 128 << 10, 2).unwrap();
        assert!(pages > 0);
        self.is_new.set(!self.is_new.get());
    }

    fn delta(&self, name: &str, from: &Path, to: &Path, level: Option<i32>) -> Delta {
        delta_between(&self.dir.join(name), from, to, level, &self.work)
    }
}

fn delta_between(path: &Path, from: &Path, to: &Path, level: Option<i32>, work: &Work) -> Delta {
    let [from, to] =
        [from, to].map(|path| Raw::open(Arc::new(FileStorage::open_read(path).unwrap())).unwrap());
    let options = DeltaOptions::default().with_level(level);
    create(Base::Image(&from), &to, new_file(path), &options, work).unwrap();
    let file = FileStorage::open_read(path).unwrap();
    Delta::from_storage(Arc::new(file), &Limits::default()).unwrap()
}

fn new_file(path: &Path) -> Arc<FileStorage> {
    let _ = std::fs::remove_file(path);
    Arc::new(FileStorage::create_new(path).unwrap())
}

const PAGE: u64 = 4096;
