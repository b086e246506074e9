//! Files to measure on, races, and memory.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use diskdelta::units::parse_size;

/// Where the files lie, how long they are, and how often a race is run.
pub struct Setting {
    dir: tempfile::TempDir,
    pub size: u64,
    rounds: usize,
}

impl Setting {
    /// From the environment; small and once where nothing is measured.
    pub fn new() -> Self {
        let given = |name: &str| std::env::args().any(|arg| arg == name);
        let measuring = given("--bench") && !given("--test");
        let dir = std::env::var_os("DISKDELTA_BENCH_DIR");
        let dir = dir.map_or_else(std::env::temp_dir, PathBuf::from);
        let size = match std::env::var("DISKDELTA_BENCH_SIZE") {
            Ok(text) => parse_size(&text).unwrap(),
            Err(_) if measuring => 1 << 30,
            Err(_) => 8 << 20,
        };
        Setting {
            dir: tempfile::tempdir_in(dir).unwrap(),
            size,
            rounds: if measuring { 9 } else { 1 },
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A file without holes and without zeros.
    pub fn dense(&self, name: &str, len: u64) -> PathBuf {
        let path = self.path(name);
        let mut file = File::create(&path).unwrap();
        for at in (0..len).step_by(RUN) {
            file.write_all(&noise(at)[..RUN.min((len - at) as usize)])
                .unwrap();
        }
        file.sync_all().unwrap();
        path
    }

    /// A file of `len` bytes with `data` bytes in runs of 1 MiB, evenly spread, holes between.
    #[allow(dead_code, reason = "one of the two benches needs it")]
    pub fn sparse(&self, name: &str, len: u64, data: u64) -> PathBuf {
        let path = self.path(name);
        let file = File::create(&path).unwrap();
        file.set_len(len).unwrap();
        let runs = data / RUN as u64;
        for run in 0..runs {
            // On page boundaries, as a file system would, not on boundaries of blocks.
            let at = len / runs * run / 4096 * 4096;
            file.write_all_at(&noise(at), at).unwrap();
        }
        file.sync_all().unwrap();
        path
    }

    /// Runs all contenders turn by turn and prints medians, ratios to the first, and memory.
    pub fn race(&self, title: &str, contenders: &[(&str, &dyn Fn())]) {
        let mut times = vec![Vec::new(); contenders.len()];
        let mut peaks = vec![0; contenders.len()];
        for round in 0..=self.rounds {
            for (index, (_, run)) in contenders.iter().enumerate() {
                let start = Instant::now();
                let peak = watching_memory(run);
                // The first round warms the cache.
                if round > 0 {
                    times[index].push(start.elapsed());
                }
                peaks[index] = peaks[index].max(peak);
            }
        }
        println!("{title}");
        let median = |times: &mut Vec<Duration>| {
            times.sort_unstable();
            times[times.len() / 2].as_secs_f64()
        };
        let first = median(&mut times[0]);
        for ((name, _), (times, peak)) in contenders.iter().zip(times.iter_mut().zip(peaks)) {
            let median = median(times);
            let ratio = median / first;
            println!("  {name:<24} {median:>9.4} s  x{ratio:<6.3} RssAnon {peak} KiB at most");
        }
    }
}

/// Runs `run`; returns the most anonymous memory seen meanwhile, in KiB.
fn watching_memory(run: &dyn Fn()) -> u64 {
    let done = AtomicBool::new(false);
    let peak = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                peak.fetch_max(anonymous_kib(), Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        run();
        done.store(true, Ordering::SeqCst);
    });
    peak.into_inner()
}

fn anonymous_kib() -> u64 {
    let status = std::fs::read_to_string(Path::new("/proc/self/status")).unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// `RUN` bytes that differ from place to place.
fn noise(at: u64) -> Vec<u8> {
    let mut bytes = vec![0; RUN];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&at.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

const RUN: usize = 1 << 20;
