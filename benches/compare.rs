//! Comparing two images, beside `cmp`, a plain read-and-compare loop, and `dd` on a cold cache.
//!
//! `cargo bench --bench compare` makes two dense files with 1 % of their 4 KiB pages changed, and
//! prints each contender's median. `DISKDELTA_BENCH_DIR` says where the files lie (the system's
//! directory for throw-away files by default), `DISKDELTA_BENCH_SIZE` how long each is (1G by
//! default). Run as a test it only shows that it works.
#![allow(clippy::unwrap_used, reason = "a panic is how this fails")]

use std::fs::File;
use std::hint::black_box;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use diskdelta::diff::{CompareOptions, compare};
use diskdelta::image::{ImageOptions, open};
use diskdelta::units::{format_size, parse_size};
use diskdelta::{Result, Work};

#[path = "bare/loops.rs"]
mod loops;

fn main() -> Result<()> {
    let given = |name: &str| std::env::args().any(|arg| arg == name);
    let measuring = given("--bench") && !given("--test");
    let (size, rounds) = match std::env::var("DISKDELTA_BENCH_SIZE") {
        Ok(text) => (parse_size(&text)?, 7),
        Err(_) if measuring => (1 << 30, 7),
        Err(_) => (4 << 20, 1),
    };
    let dir = std::env::var_os("DISKDELTA_BENCH_DIR");
    let dir = dir.map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = tempfile::tempdir_in(dir).unwrap();
    let pair = Pair::make(dir.path(), size);

    println!("two files of {}, two threads", format_size(size));
    let plain = |kib: usize| move |pair: &Pair| pair.plain(kib << 10);
    pair.race(
        "in the page cache",
        rounds,
        Pair::warm,
        &[
            ("diskdelta", &Pair::ours),
            ("cmp, equal files", &Pair::cmp),
            ("plain loop, 64 KiB", &plain(64)),
            ("plain loop, 128 KiB", &plain(128)),
            ("plain loop, 256 KiB", &plain(256)),
            ("plain loop, 512 KiB", &plain(512)),
            ("plain loop, 1 MiB", &plain(1024)),
        ],
    );
    pair.race(
        "cold",
        rounds.min(3),
        Pair::cool,
        &[("diskdelta", &Pair::ours), ("two direct dd", &Pair::dd)],
    );
    Ok(())
}

/// Two files that differ in one page of a hundred, and a copy of the first.
struct Pair {
    old: PathBuf,
    new: PathBuf,
    old_copy: PathBuf,
    size: u64,
    work: Work,
}

type Contender<'a> = (&'a str, &'a dyn Fn(&Pair));

impl Pair {
    fn make(dir: &Path, size: u64) -> Pair {
        let pair = Pair {
            old: dir.join("old"),
            new: dir.join("new"),
            old_copy: dir.join("old-copy"),
            size,
            work: Work::with_threads(2).unwrap(),
        };
        let mut files =
            [&pair.old, &pair.new, &pair.old_copy].map(|path| File::create(path).unwrap());
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let mut chunk = vec![0; 1 << 20];
        let mut left = size;
        while left > 0 {
            for word in chunk.chunks_exact_mut(8) {
                word.copy_from_slice(&random.next().to_le_bytes());
            }
            let len = left.min(1 << 20) as usize;
            files[0].write_all(&chunk[..len]).unwrap();
            files[2].write_all(&chunk[..len]).unwrap();
            for page in chunk.chunks_exact_mut(4096) {
                if random.next().is_multiple_of(100) {
                    page[random.next() as usize % 4096] ^= 0x55;
                }
            }
            files[1].write_all(&chunk[..len]).unwrap();
            left -= len as u64;
        }
        for file in files {
            file.sync_all().unwrap();
        }
        pair
    }

    /// Times the contenders in turn, so that whatever else the machine does hits all of them.
    fn race(&self, title: &str, rounds: usize, prepare: fn(&Pair), contenders: &[Contender<'_>]) {
        let mut seconds = vec![Vec::new(); contenders.len()];
        for _ in 0..rounds {
            for ((_, run), seconds) in contenders.iter().zip(&mut seconds) {
                prepare(self);
                let start = Instant::now();
                run(self);
                seconds.push(start.elapsed().as_secs_f64());
            }
        }
        let medians = Vec::from_iter(seconds.iter_mut().map(|seconds| {
            seconds.sort_by(f64::total_cmp);
            seconds[seconds.len() / 2]
        }));
        println!("{title}:");
        for ((name, _), median) in contenders.iter().zip(&medians) {
            let rate = 2.0 * self.size as f64 / median / 1e9;
            let share = medians[0] / median;
            println!("  {name:<20} {median:>7.3} s {rate:>6.2} GB/s   ours takes {share:.2} of it");
        }
    }

    fn warm(&self) {}

    /// Drops all that the page cache holds of the files.
    fn cool(&self) {
        for path in [&self.old, &self.new, &self.old_copy] {
            let image = open(path, &ImageOptions::default()).unwrap();
            image.drop_cache(0..self.size);
        }
    }

    fn ours(&self) {
        let old = open(&self.old, &ImageOptions::default()).unwrap();
        let new = open(&self.new, &ImageOptions::default()).unwrap();
        let report = compare(
            &*new,
            &*old,
            &CompareOptions::default(),
            &self.work,
            &|found| {
                black_box(found);
                Ok(())
            },
        );
        assert_eq!(report.unwrap().compared_bytes, self.size);
    }

    /// Equal files, because `cmp` stops at the first difference.
    fn cmp(&self) {
        let mut command = Command::new("cmp");
        let status = command.arg(&self.old).arg(&self.old_copy).status();
        assert!(status.unwrap().success());
    }

    fn plain(&self, unit: usize) {
        let old = File::open(&self.old).unwrap();
        let new = File::open(&self.new).unwrap();
        black_box(loops::compare(&old, &new, unit, 2).unwrap());
    }

    fn dd(&self) {
        let running = [&self.old, &self.new].map(|path| {
            Command::new("dd")
                .arg(format!("if={}", path.display()))
                .args(["of=/dev/null", "iflag=direct", "bs=1M"])
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        });
        for mut dd in running {
            assert!(dd.wait().unwrap().success());
        }
    }
}

/// Xorshift: any bytes will do that do not compress.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
