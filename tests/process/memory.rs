//! Work that is longer than memory, under an address-space limit.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use diskdelta::image::ImageOptions;
use diskdelta::storage::SourceOptions;
use diskdelta::sync::{HostSource, HostTarget, HostTargetOptions, Mode, SyncOptions, sync};
use diskdelta::{CancelToken, ErrorKind, Phase, Progress, Work};

use crate::fixture::{COMMAND, Fixture, PAGE, noise};
use crate::host::{Mount, has_loop_devices};

/// Stops the work at once when it comes to the target.
struct StopsAtApply(CancelToken);

impl Progress for StopsAtApply {
    fn begin(&self, phase: Phase, _total_bytes: Option<u64>) {
        if phase == Phase::Apply {
            self.0.cancel();
            self.0.cancel();
        }
    }

    fn advance(&self, _bytes: u64) {}
}

/// Leaves the target marked, with a complete log of all of the source.
fn interrupted(fixture: &Fixture) {
    let cancel = CancelToken::new();
    let work = Work::with_threads(2).unwrap().with_cancel(cancel.clone());
    let work = work.with_progress(Arc::new(StopsAtApply(cancel)));
    let (image, options) = (ImageOptions::default(), SourceOptions::default());
    let source = HostSource::open(fixture.path("new.raw"), &image, &options).unwrap();
    let target = HostTarget::open(fixture.path("t.raw"), &HostTargetOptions::default()).unwrap();
    let options = SyncOptions::default().with_mode(Mode::Delta);
    let error = sync(&source.source(), target.target(), &options, &work).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
}

/// Runs the command in an address space of `LIMIT_KIB`.
fn limited(fixture: &Fixture, words: &str) {
    let script = format!("ulimit -v {LIMIT_KIB}; exec {COMMAND} {words}");
    let ended = Command::new("bash")
        .args(["-c", &script])
        // Each thread's arena takes address space that it does not use.
        .env("MALLOC_ARENA_MAX", "1")
        .current_dir(fixture.path("."))
        .output()
        .unwrap();
    assert!(ended.status.success(), "{words}: {ended:?}");
}

#[test]
fn a_log_longer_than_memory_is_finished() {
    let fixture = Fixture::new();
    let new = File::create(fixture.path("new.raw")).unwrap();
    let mut piece = noise(1 << 20, 1);
    for index in 0..LOG_BYTES >> 20 {
        piece[..8].copy_from_slice(&index.to_le_bytes());
        new.write_all_at(&piece, index << 20).unwrap();
    }
    for words in ["recover t.raw", "recover --all ."] {
        let target = File::create(fixture.path("t.raw")).unwrap();
        target.set_len(LOG_BYTES).unwrap();
        drop(target);
        interrupted(&fixture);
        let log = fs::metadata(fixture.path(".t.raw.diskdelta-log")).unwrap();
        assert!(log.len() > LOG_BYTES);
        limited(&fixture, &format!("{words} --threads 1"));
        let mut same = Command::new("cmp");
        same.args(["new.raw", "t.raw"])
            .current_dir(fixture.path("."));
        assert!(same.status().unwrap().success(), "{words}");
    }
}

/// A sparse disk on a file system that holds files so long, with a page of data at each place.
fn scattered(path: &Path, len: u64, pages: impl Iterator<Item = u64>, seed: u64) {
    let file = File::create(path).unwrap();
    file.set_len(len).unwrap();
    for at in pages {
        file.write_all_at(&noise(PAGE, seed ^ at), at).unwrap();
    }
}

#[test]
fn a_disk_of_64_tib_with_scattered_changes_is_synced_in_bounded_memory() {
    if !has_loop_devices() {
        return; // No mounts either.
    }
    let fixture = Fixture::new();
    let _mount = Mount::new(
        &["-t", "tmpfs", "-o", "size=200M", "none"],
        &fixture.path("tmpfs"),
    );
    // In the last page too, and nowhere near each other.
    let step = (VAST / 4000 + 1).next_multiple_of(PAGE as u64);
    let pages = || (0..VAST - PAGE as u64).step_by(step as usize);
    for words in [
        "--mode delta",
        "--safety in-place",
        "--mode delta --undo tmpfs/undo",
    ] {
        let ends = [VAST - PAGE as u64];
        scattered(
            &fixture.path("tmpfs/new"),
            VAST,
            pages().step_by(2).chain(ends),
            1,
        );
        scattered(
            &fixture.path("tmpfs/t"),
            VAST,
            pages().skip(1).step_by(3),
            2,
        );
        limited(
            &fixture,
            &format!("sync tmpfs/new tmpfs/t --threads 1 {words}"),
        );
        fixture.done("diff tmpfs/new tmpfs/t");
    }
    fixture.done("undo tmpfs/undo tmpfs/t");
    scattered(
        &fixture.path("tmpfs/old"),
        VAST,
        pages().skip(1).step_by(3),
        2,
    );
    fixture.done("diff tmpfs/old tmpfs/t");
}

const VAST: u64 = 64 << 40;
const LOG_BYTES: u64 = 96 << 20;
const LIMIT_KIB: u64 = 80 << 10;
