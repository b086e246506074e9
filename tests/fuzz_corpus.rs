//! The fuzz targets without a fuzzer: every committed input, every input that once found
//! something, and a few thousand drawn by chance, always the same ones.
//!
//! `DISKDELTA_FUZZ_INPUTS` sets how many are drawn for each target; `DISKDELTA_MAKE_SEEDS=1`
//! writes the inputs that each corpus begins with instead of running anything.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

#[path = "../fuzz/src/cases/mod.rs"]
mod cases;

use std::fs;
use std::path::{Path, PathBuf};

use cases::{Depth, TARGETS, seeds};

fn replay(target: &str) {
    let directories = ["corpus", "regressions"];
    let committed: Vec<(PathBuf, Vec<u8>)> = directories
        .iter()
        .flat_map(|directory| inputs(&directory_of(directory, target)))
        .collect();
    if std::env::var_os("DISKDELTA_MAKE_SEEDS").is_some() {
        return write_seeds(target);
    }
    assert!(!committed.is_empty(), "{target} has no corpus");
    let mut taken = 0;
    for (path, data) in &committed {
        taken += run(target, data, &path.display().to_string());
    }
    let mut state = 1;
    let count = drawn_count();
    let mut drawn_taken = 0;
    for number in 0..count {
        let data = match number % 3 {
            0 => seeds::program(target, number),
            _ => {
                let (_, seed) = &committed[(number as usize) % committed.len()];
                seeds::mutated(seed, &mut state)
            }
        };
        drawn_taken += run(target, &data, &format!("input {number} drawn: {data:?}"));
    }
    eprintln!(
        "{target}: {taken} of {} committed and {drawn_taken} of {count} drawn inputs were taken",
        committed.len()
    );
    assert!(taken > 0, "no input of {target} leads anywhere");
}

/// 1 where the input was taken; says which input it was where the target panics.
fn run(target: &str, data: &[u8], name: &str) -> u64 {
    let result = std::panic::catch_unwind(|| cases::run(target, data));
    match result {
        Ok(depth) => u64::from(depth == Depth::Taken),
        Err(panic) => {
            eprintln!("{target} failed on {name}");
            std::panic::resume_unwind(panic)
        }
    }
}

fn drawn_count() -> u64 {
    let asked = std::env::var("DISKDELTA_FUZZ_INPUTS").ok();
    asked.map_or(300, |text| text.parse().expect("a count of inputs"))
}

fn directory_of(kind: &str, target: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    root.join(kind).join(target)
}

fn inputs(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let read = |path: PathBuf| {
        let data = fs::read(&path).unwrap();
        (path, data)
    };
    paths.into_iter().map(read).collect()
}

fn write_seeds(target: &str) {
    let directory = directory_of("corpus", target);
    fs::create_dir_all(&directory).unwrap();
    for (index, seed) in seeds::seeds(target).iter().enumerate() {
        fs::write(directory.join(format!("seed-{index:02}")), seed).unwrap();
    }
}

macro_rules! replays {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            replay(stringify!($name));
        })*

        #[test]
        fn every_target_is_replayed() {
            let replayed = [$(stringify!($name)),*];
            assert!(TARGETS.iter().map(|(name, _)| *name).eq(replayed));
        }
    };
}

replays! {
    vhd_raw vhd_structured vhdx_raw vhdx_structured vhdx_log
    chain manifest delta apply recover
    remote_frames remote_source remote_target
    change_map nbd_replies http_headers
}
