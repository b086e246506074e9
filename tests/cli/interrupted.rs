//! Signals, markers, recovery.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::SystemTime;

use diskdelta::image::ImageOptions;
use diskdelta::storage::{FileRef, SourceOptions};
use diskdelta::sync::{HostSource, HostTarget, HostTargetOptions, Mode, SyncOptions, sync};
use diskdelta::{CancelToken, ErrorKind, Phase, Progress, Work};

use crate::fixture::{COMMAND, Fixture, PAGE, ended, send, signal, until, write_at};

/// Asks to stop at once as soon as the target is being written.
struct StopApplying(CancelToken);

impl Progress for StopApplying {
    fn begin(&self, phase: Phase, _total_bytes: Option<u64>) {
        if phase == Phase::Apply {
            self.0.cancel();
            self.0.cancel();
        }
    }

    fn advance(&self, _bytes: u64) {}
}

/// Leaves a target marked in the middle of an atomic sync.
pub fn leave_marked(source: &Path, target: &Path, options: HostTargetOptions) {
    let delta = SyncOptions::default().with_mode(Mode::Delta);
    stop_applying(source, target, &options, &delta);
}

fn stop_applying(
    source: &Path,
    target: &Path,
    options: &HostTargetOptions,
    sync_options: &SyncOptions,
) {
    let source =
        HostSource::open(source, &ImageOptions::default(), &SourceOptions::default()).unwrap();
    let target = HostTarget::open(target, options).unwrap();
    let cancel = CancelToken::new();
    let work = Work::with_threads(2)
        .unwrap()
        .with_cancel(cancel.clone())
        .with_progress(Arc::new(StopApplying(cancel)));
    let error = sync(&source.source(), target.target(), sync_options, &work).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert!(target.marker().unwrap().is_some());
}

pub fn marked() -> Fixture {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 900, 1);
    let old = fixture.disk("old.raw", 900, 2);
    leave_marked(&fixture.path("new.raw"), &old, HostTargetOptions::default());
    fixture
}

#[test]
fn ctrl_c_leaves_an_atomic_target_untouched_and_the_next_run_goes_on() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 4000, 1);
    fixture.disk("old.raw", 4000, 2);
    let before = fixture.bytes("old.raw");
    let redo_log = fixture.path(".old.raw.diskdelta-log");
    // Each run takes over what the ones before it logged, and gets further.
    for (more, name) in [(2 << 20, "INT"), (4 << 20, "TERM"), (6 << 20, "HUP")] {
        let begun = SystemTime::now();
        let slow = fixture.start("sync new.raw old.raw --mode delta --limit-rate 4M");
        until("a redo log of its own", || {
            let written = |it: &fs::Metadata| it.modified().is_ok_and(|at| at > begun);
            fs::metadata(&redo_log).is_ok_and(|it| written(&it) && it.len() > more)
        });
        let run = signal(slow, name);
        assert_eq!(run.status, 2, "{run:?}");
        assert!(run.stderr.contains("the target is untouched"), "{run:?}");
        assert!(fixture.bytes("old.raw") == before);
    }
    let (status, listed) = fixture.json("recover --list .");
    assert_eq!(status, 0);
    let pending = listed["pending"].as_array().unwrap();
    assert!(
        pending
            .iter()
            .all(|item| item["kind"] == "part_of_redo_log")
    );
    assert!(pending.iter().all(|item| item["state"] == "unmarked"));
    let (_, recovered) = fixture.json("recover old.raw");
    assert_eq!(recovered["outcome"], "old");
    let (status, report) = fixture.json("sync new.raw old.raw --mode delta");
    assert_eq!(status, 0);
    assert!(report["resumed_bytes"].as_u64().unwrap() > 5 << 20);
    assert!(fixture.bytes("old.raw") == fixture.bytes("new.raw"));
    assert_eq!(fixture.names(), ["new.raw", "old.raw"]);
}

#[test]
fn ctrl_c_in_a_full_copy_leaves_the_old_file_and_the_next_run_goes_on() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 4000, 1);
    fixture.disk("old.raw", 4000, 2);
    let before = fixture.bytes("old.raw");
    let slow = fixture.start("sync new.raw old.raw --mode full --limit-rate 4M");
    let copy = fixture.path(".old.raw.diskdelta-new");
    until("a copy", || copy.exists());
    let run = signal(slow, "INT");
    assert_eq!(run.status, 2, "{run:?}");
    assert!(run.stderr.contains("the target is untouched"), "{run:?}");
    assert!(fixture.bytes("old.raw") == before);
    let (_, listed) = fixture.json("recover --list .");
    assert_eq!(listed["pending"][0]["kind"], "copy");
    fixture.done("sync new.raw old.raw --mode full");
    assert!(fixture.bytes("old.raw") == fixture.bytes("new.raw"));
}

#[test]
fn a_given_up_sync_leaves_nothing_behind() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 4000, 1);
    fixture.disk("old.raw", 4000, 2);
    let before = fixture.bytes("old.raw");
    let slow = fixture.start("sync new.raw old.raw --mode delta --limit-rate 4M");
    let redo_log = fixture.path(".old.raw.diskdelta-log");
    until("a redo log", || redo_log.exists());
    signal(slow, "INT");
    let (status, recovered) = fixture.json("recover old.raw --discard");
    assert_eq!((status, &recovered["outcome"]), (0, &"old".into()));
    assert_eq!(fixture.names(), ["new.raw", "old.raw"]);
    assert!(fixture.bytes("old.raw") == before);
    let run = fixture.done("recover old.raw");
    assert!(run.stdout.contains("nothing to recover"), "{run:?}");
}

#[test]
fn an_interrupted_in_place_sync_says_so_until_it_has_run_again() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 4000, 1);
    fixture.disk("old.raw", 4000, 2);
    let slow = fixture.start("sync new.raw old.raw --safety in-place --limit-rate 4M");
    until("a marker", || {
        fixture.bytes("old.raw").starts_with(b"\0diskdelta mark")
    });
    let run = signal(slow, "INT");
    assert_eq!(run.status, 3, "{run:?}");
    assert!(run.stderr.contains("run the same sync again"), "{run:?}");
    let (_, listed) = fixture.json("recover --list .");
    assert_eq!(listed["pending"][0]["kind"], "sidecar");
    assert_eq!(listed["pending"][0]["state"], "rerun");
    fixture
        .run("sync new.raw old.raw")
        .fails(3, "run the same sync again");
    fixture.run("info old.raw").fails(3, "incomplete");
    fixture.run("sync old.raw copy.raw").fails(3, "incomplete");
    fixture
        .run("recover old.raw --discard")
        .fails(3, "incomplete");
    let (status, recovered) = fixture.json("recover old.raw");
    assert_eq!((status, &recovered["outcome"]), (3, &"rerun".into()));
    let (status, recovered) = fixture.json("recover --all .");
    assert_eq!(status, 3);
    assert_eq!(recovered["recovered"][0]["outcome"], "rerun");
    // Whoever holds a target does not take over what somebody else began, nor lets it go.
    fixture
        .run("sync new.raw old.raw --safety in-place --hold")
        .fails(3, "run the same sync again");
    fixture
        .run("recover old.raw --release")
        .fails(3, "run the same sync again");
    fixture.done("sync new.raw old.raw --safety in-place");
    assert!(fixture.bytes("old.raw") == fixture.bytes("new.raw"));
    assert_eq!(fixture.names(), ["new.raw", "old.raw"]);
}

#[test]
fn a_dry_run_onto_what_an_in_place_sync_left_incomplete_writes_nothing() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 4000, 1);
    fixture.disk("old.raw", 4000, 2);
    let slow = fixture.start("sync new.raw old.raw --safety in-place --limit-rate 4M");
    until("a marker", || {
        fixture.bytes("old.raw").starts_with(b"\0diskdelta mark")
    });
    signal(slow, "INT");
    let before = fixture.bytes("old.raw");
    fixture
        .run("sync new.raw old.raw --safety in-place --dry-run")
        .fails(3, "run the same sync again");
    assert!(fixture.bytes("old.raw") == before);
}

#[test]
fn a_held_target_is_used_by_nobody_until_it_is_released() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 4000, 1);
    fixture.disk("newer.raw", 4000, 3);
    fixture.disk("old.raw", 4000, 2);
    fixture
        .run("sync new.raw old.raw --hold")
        .fails(2, "--safety in-place");
    fixture
        .run("sync new.raw missing.raw --safety in-place --hold")
        .fails(2, "no target yet");
    fixture.done("sync new.raw old.raw --safety in-place --hold");
    for used in [
        "info old.raw",
        "sync old.raw copy.raw",
        "sync new.raw old.raw",
        "sync new.raw old.raw --safety in-place",
        "recover old.raw --discard",
    ] {
        fixture.run(used).fails(3, "held");
    }
    let (status, recovered) = fixture.json("recover old.raw");
    assert_eq!((status, &recovered["outcome"]), (0, &"held".into()));
    let (_, listed) = fixture.json("recover --list .");
    assert_eq!(listed["pending"][0]["state"], "held");
    let (status, recovered) = fixture.json("recover --all .");
    assert_eq!(status, 0);
    assert_eq!(recovered["recovered"], serde_json::json!([]));

    // Its holder goes on, and is stopped half way.
    fixture.done("sync newer.raw old.raw --safety in-place --hold --dry-run");
    let whole = fixture.bytes("old.raw");
    let slow = fixture.start("sync newer.raw old.raw --safety in-place --hold --limit-rate 4M");
    until("a change", || fixture.bytes("old.raw") != whole);
    assert_eq!(signal(slow, "INT").status, 3);
    let (status, recovered) = fixture.json("recover old.raw");
    assert_eq!((status, &recovered["outcome"]), (3, &"rerun".into()));
    let (_, listed) = fixture.json("recover --list .");
    assert_eq!(listed["pending"][0]["state"], "rerun");
    fixture
        .run("recover old.raw --release")
        .fails(3, "did not finish");
    fixture
        .run("sync newer.raw old.raw --safety in-place")
        .fails(3, "held");

    fixture.done("sync newer.raw old.raw --safety in-place --hold --verify all");
    let (status, recovered) = fixture.json("recover old.raw --release");
    assert_eq!((status, &recovered["outcome"]), (0, &"new".into()));
    assert!(fixture.bytes("old.raw") == fixture.bytes("newer.raw"));
    assert_eq!(fixture.names(), ["new.raw", "newer.raw", "old.raw"]);
    fixture.done("recover old.raw --release");
}

#[test]
fn a_held_target_without_its_sidecar_is_given_to_nobody() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 4000, 1);
    fixture.disk("old.raw", 4000, 2);
    fixture.done("sync new.raw old.raw --safety in-place --hold");
    let (sidecar, away) = (fixture.path(".old.raw.diskdelta-log"), fixture.path("away"));
    fs::rename(&sidecar, &away).unwrap();
    let held = fixture.bytes("old.raw");
    for used in [
        "recover old.raw",
        "recover old.raw --release",
        "recover old.raw --discard",
        "sync new.raw old.raw --safety in-place --hold",
    ] {
        assert_eq!(fixture.run(used).status, 3, "{used}");
    }
    assert!(fixture.bytes("old.raw") == held);
    fs::rename(&away, &sidecar).unwrap();
    fixture.done("recover old.raw --release");
    assert!(fixture.bytes("old.raw") == fixture.bytes("new.raw"));
}

#[test]
fn recover_finishes_a_marked_target() {
    let fixture = marked();
    fixture
        .run("sync new.raw old.raw")
        .fails(3, "diskdelta recover");
    fixture
        .run("recover old.raw --discard")
        .fails(3, "diskdelta recover");
    let (_, listed) = fixture.json("recover --list .");
    assert_eq!(listed["pending"][0]["kind"], "redo_log");
    assert_eq!(listed["pending"][0]["state"], "marked");
    let target = listed["pending"][0]["target"].as_str().unwrap();
    assert!(target.ends_with("/old.raw"), "{target}");
    let (status, recovered) = fixture.json("recover old.raw");
    assert_eq!((status, &recovered["outcome"]), (0, &"new".into()));
    assert!(fixture.bytes("old.raw") == fixture.bytes("new.raw"));
    assert_eq!(fixture.names(), ["new.raw", "old.raw"]);
}

#[test]
fn a_damaged_successor_of_a_target_manifest_does_not_keep_a_target_from_being_finished() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 900, 1);
    let old = fixture.disk("old.raw", 900, 2);
    fixture.done("manifest old.raw -o kept.manifest");
    let file_ref = FileRef::host(fixture.path("kept.manifest")).unwrap();
    let options = SyncOptions::default()
        .with_mode(Mode::Delta)
        .with_target_manifest(Some(file_ref));
    stop_applying(
        &fixture.path("new.raw"),
        &old,
        &HostTargetOptions::default(),
        &options,
    );
    let names = fixture.names();
    let next = names.iter().find(|name| name.ends_with(".new")).unwrap();
    write_at(&fixture.path(next), 20, b"damage");
    let kept = fixture.bytes("kept.manifest");
    fixture.done("recover old.raw");
    assert!(fixture.bytes("old.raw") == fixture.bytes("new.raw"));
    assert!(fixture.bytes("kept.manifest") == kept);
    // What it says of the target is marked, and so it is not trusted.
    fixture.disk("newer.raw", 900, 2);
    fixture.done("sync newer.raw old.raw --target-manifest kept.manifest");
    assert!(fixture.bytes("old.raw") == fixture.bytes("newer.raw"));
}

#[test]
fn a_listing_tells_a_target_that_is_used_from_one_that_is_not_there() {
    let fixture = marked();
    let states = || {
        let (status, listed) = fixture.json("recover --list .");
        assert_eq!(status, 0);
        let pending = listed["pending"].as_array().unwrap();
        assert_eq!(pending.len(), 1, "disks are not listed");
        listed["pending"][0]["state"].as_str().unwrap().to_owned()
    };
    assert_eq!(states(), "marked");
    let used = HostTarget::open(fixture.path("old.raw"), &HostTargetOptions::default()).unwrap();
    assert_eq!(states(), "in_use");
    drop(used);
    fs::remove_file(fixture.path("old.raw")).unwrap();
    assert_eq!(states(), "missing");
    fs::create_dir(fixture.path("old.raw")).unwrap();
    assert_eq!(states(), "missing");
}

#[test]
fn a_listing_does_not_say_that_a_damaged_log_finishes_its_target() {
    let fixture = marked();
    let log = ".old.raw.diskdelta-log";
    let whole = fixture.bytes(log);
    for (at, len) in [(whole.len() / 2, whole.len()), (0, whole.len() - 100)] {
        let mut bytes = whole[..len].to_vec();
        if at > 0 {
            bytes[at] ^= 1;
        }
        fs::write(fixture.path(log), bytes).unwrap();
        let (_, listed) = fixture.json("recover --list .");
        assert_eq!(listed["pending"][0]["state"], "damaged", "{listed}");
        let run = fixture.done("recover --list .");
        assert!(!run.stdout.contains("finishes it"), "{run:?}");
        assert_eq!(fixture.run("recover --all .").status, 3);
    }
    fs::write(fixture.path(log), whole).unwrap();
    let (_, listed) = fixture.json("recover --list .");
    assert_eq!(listed["pending"][0]["state"], "marked", "{listed}");
}

#[test]
fn recover_all_finishes_what_it_finds() {
    let fixture = marked();
    fixture.disk("more.raw", 900, 3);
    leave_marked(
        &fixture.path("new.raw"),
        &fixture.path("more.raw"),
        HostTargetOptions::default(),
    );
    let (status, recovered) = fixture.json("recover --all .");
    assert_eq!(status, 0);
    assert_eq!(recovered["recovered"].as_array().unwrap().len(), 2);
    for name in ["old.raw", "more.raw"] {
        assert!(fixture.bytes(name) == fixture.bytes("new.raw"), "{name}");
    }
    let run = fixture.done("recover --all .");
    assert!(run.stdout.contains("nothing to recover"), "{run:?}");
}

#[test]
fn a_marked_target_that_was_moved_is_finished_and_a_copy_is_refused() {
    let fixture = marked();
    fs::copy(fixture.path("old.raw"), fixture.path("copy.raw")).unwrap();
    fixture
        .run("recover copy.raw")
        .fails(3, "this is a copy of");
    fs::rename(fixture.path("old.raw"), fixture.path("moved.raw")).unwrap();
    fixture.done("recover moved.raw");
    assert!(fixture.bytes("moved.raw") == fixture.bytes("new.raw"));
    assert_eq!(fixture.names(), ["copy.raw", "moved.raw", "new.raw"]);
    fixture
        .run("recover copy.raw")
        .fails(3, "bring the log back");
}

#[test]
fn a_moved_target_is_no_copy_of_another_that_has_taken_its_name() {
    let fixture = marked();
    fs::rename(fixture.path("old.raw"), fixture.path("moved.raw")).unwrap();
    let old = fixture.disk("old.raw", 900, 3);
    let options = HostTargetOptions::default().with_log_dir(Some(fixture.path("logs")));
    leave_marked(&fixture.path("new.raw"), &old, options);
    // The marker that old.raw carries is not that of the redo log beside it.
    let (_, listed) = fixture.json("recover --list .");
    assert_eq!(listed["pending"][0]["state"], "unmarked");
    for (name, options) in [("moved.raw", ""), ("old.raw", "--log-dir logs")] {
        fixture.done(&format!("recover {name} {options}"));
        assert!(fixture.bytes(name) == fixture.bytes("new.raw"), "{name}");
    }
}

#[test]
fn a_log_in_another_directory_is_used_where_the_caller_names_it() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 900, 1);
    let old = fixture.disk("old.raw", 900, 2);
    let options = HostTargetOptions::default().with_log_dir(Some(fixture.path("logs")));
    leave_marked(&fixture.path("new.raw"), &old, options);
    assert_eq!(fs::read_dir(fixture.path("logs")).unwrap().count(), 1);
    let (_, listed) = fixture.json("recover --list --log-dir logs");
    assert_eq!(listed["pending"][0]["state"], "marked");
    fs::copy(fixture.path("old.raw"), fixture.path("second.raw")).unwrap();
    let log = fs::read_dir(fixture.path("logs")).unwrap().next().unwrap();
    let log = log.unwrap().path();
    // The marker names the log; it is data, and is not followed.
    let run = fixture.run("recover old.raw");
    run.fails(3, &format!("--trust-log {}", log.display()));
    fixture
        .run("recover second.raw --log-dir logs")
        .fails(3, "this is a copy of");
    fixture.done("recover old.raw --log-dir logs");
    assert!(fixture.bytes("old.raw") == fixture.bytes("new.raw"));
    assert_eq!(fs::read_dir(fixture.path("logs")).unwrap().count(), 0);
}

#[test]
fn a_log_that_the_caller_names_is_used_wherever_it_is() {
    let fixture = marked();
    fs::create_dir_all(fixture.path("a/b")).unwrap();
    fs::rename(
        fixture.path(".old.raw.diskdelta-log"),
        fixture.path("a/b/some.log"),
    )
    .unwrap();
    fixture
        .run("recover old.raw")
        .fails(3, "bring the log back");
    fixture
        .run("recover old.raw --trust-log new.raw")
        .fails(3, "bring the log back");
    fixture.done("recover old.raw --trust-log a/b/some.log");
    assert!(fixture.bytes("old.raw") == fixture.bytes("new.raw"));
    assert!(!fixture.path("a/b/some.log").exists());
}

#[test]
fn a_moved_directory_of_target_and_log_is_recovered_and_a_copy_of_both_too() {
    let fixture = Fixture::new();
    fs::create_dir(fixture.path("vm")).unwrap();
    fixture.disk("new.raw", 900, 1);
    let old = fixture.disk("vm/old.raw", 900, 2);
    leave_marked(&fixture.path("new.raw"), &old, HostTargetOptions::default());
    fs::create_dir(fixture.path("copy")).unwrap();
    for name in ["old.raw", ".old.raw.diskdelta-log"] {
        let from = fixture.path("vm").join(name);
        fs::copy(from, fixture.path("copy").join(name)).unwrap();
    }
    fs::rename(fixture.path("vm"), fixture.path("moved")).unwrap();
    for name in ["copy/old.raw", "moved/old.raw"] {
        fixture.done(&format!("recover {name}"));
        assert!(fixture.bytes(name) == fixture.bytes("new.raw"), "{name}");
    }
}

#[test]
fn a_copy_in_another_directory_does_not_take_a_shared_log_away() {
    let fixture = Fixture::new();
    fs::create_dir(fixture.path("elsewhere")).unwrap();
    fixture.disk("new.raw", 900, 1);
    let old = fixture.disk("old.raw", 900, 2);
    let options = HostTargetOptions::default().with_log_dir(Some(fixture.path("logs")));
    leave_marked(&fixture.path("new.raw"), &old, options);
    fs::copy(&old, fixture.path("elsewhere/old.raw")).unwrap();
    let log = fs::read_dir(fixture.path("logs")).unwrap().next().unwrap();
    let log = log.unwrap().path();
    fixture
        .run("recover elsewhere/old.raw --log-dir logs")
        .fails(3, "not a copy of it: name it as the log");
    fixture
        .run(&format!(
            "recover elsewhere/old.raw --trust-log {}",
            log.display()
        ))
        .fails(3, "this is a copy of");
    fs::remove_file(&old).unwrap();
    fixture.done(&format!(
        "recover elsewhere/old.raw --trust-log {}",
        log.display()
    ));
    assert!(fixture.bytes("elsewhere/old.raw") == fixture.bytes("new.raw"));
}

#[test]
fn a_target_manifest_elsewhere_is_not_written_because_a_log_names_it() {
    for named in [false, true] {
        let fixture = Fixture::new();
        fs::create_dir(fixture.path("kept")).unwrap();
        fixture.disk("new.raw", 900, 1);
        let old = fixture.disk("old.raw", 900, 1);
        fixture.done("sync new.raw old.raw --mode delta --target-manifest kept/m.manifest");
        crate::fixture::write_at(&fixture.path("new.raw"), 8192, &[7; 4096]);
        let kept = diskdelta::storage::FileRef::host(fixture.path("kept/m.manifest")).unwrap();
        stop_applying(
            &fixture.path("new.raw"),
            &old,
            &HostTargetOptions::default(),
            &SyncOptions::default()
                .with_mode(Mode::Delta)
                .with_target_manifest(Some(kept)),
        );
        let before = fixture.bytes("kept/m.manifest");
        let option = match named {
            true => "--target-manifest kept/m.manifest",
            false => "",
        };
        fixture.done(&format!("recover old.raw {option}"));
        assert!(fixture.bytes("old.raw") == fixture.bytes("new.raw"));
        assert_eq!(fixture.bytes("kept/m.manifest") != before, named);
        // What was about to change is read again.
        fixture.done("sync new.raw old.raw --mode delta --target-manifest kept/m.manifest");
        assert!(fixture.bytes("old.raw") == fixture.bytes("new.raw"));
    }
}

#[test]
fn two_syncs_onto_one_target_keep_apart() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 4000, 1);
    fixture.disk("old.raw", 4000, 2);
    for (words, file) in [
        (
            "sync new.raw old.raw --mode delta",
            ".old.raw.diskdelta-log",
        ),
        ("sync new.raw missing.raw", ".missing.raw.diskdelta-new"),
    ] {
        let slow = fixture.start(&format!("{words} --limit-rate 4M"));
        until(file, || fixture.path(file).exists());
        let second = fixture.run(words);
        send(&slow, "INT");
        assert_eq!(second.status, 2, "{second:?}");
        assert!(second.stderr.contains("open for writing"), "{second:?}");
        ended(slow);
    }
}

#[test]
fn a_source_that_changes_while_it_is_read_stops_the_sync() {
    let fixture = Fixture::new();
    let new = fixture.disk("new.raw", 1000, 1);
    fixture.disk("old.raw", 1000, 2);
    let before = fixture.bytes("old.raw");
    let slow = fixture.start("sync new.raw old.raw --mode delta --limit-rate 2M");
    until("a redo log", || {
        fixture.path(".old.raw.diskdelta-log").exists()
    });
    write_at(&new, 17 * PAGE as u64, b"late");
    let run = ended(slow);
    assert_eq!(run.status, 2, "{run:?}");
    assert!(run.stderr.contains("the source changed"), "{run:?}");
    assert!(fixture.bytes("old.raw") == before);
}

#[test]
fn a_sync_that_runs_out_of_open_files_does_not_call_an_unmarked_target_incomplete() {
    let run = |fixture: &Fixture, most: u32, words: &str| {
        let script = format!("ulimit -n {most} && exec {COMMAND} {words}");
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(script).current_dir(fixture.path(""));
        shell.output().unwrap()
    };
    let fixture = Fixture::new();
    fixture.disk("new.raw", 100, 1);
    let mut failed = 0;
    for words in [
        "sync new.raw old.raw --mode delta",
        "sync new.raw old.raw --mode full",
        "sync new.raw old.raw --safety in-place",
        "sync new.raw old.raw --target-manifest kept",
        "sync new.raw none.raw",
        "sync new.raw none.vhdx",
        "recover old.raw",
        "recover old.raw --discard",
    ] {
        for most in 3..16 {
            fixture.disk("old.raw", 100, 2);
            for name in ["none.raw", "none.vhdx"] {
                let _ = fs::remove_file(fixture.path(name));
            }
            let ended = run(&fixture, most, words);
            let status = ended.status.code().unwrap();
            let is_marked = fixture.bytes("old.raw")[1..10] == *b"diskdelta";
            let text = String::from_utf8_lossy(&ended.stderr);
            assert_eq!(status == 3, is_marked, "{words}, {most}: {text}");
            assert!(
                is_marked || !text.contains("is marked"),
                "{words}, {most}: {text}"
            );
            failed += u32::from(status != 0);
            if is_marked {
                let _ = fixture.run("recover old.raw");
                fixture.done("sync new.raw old.raw --safety in-place");
            }
        }
    }
    assert!(failed > 10, "{failed}");
}
