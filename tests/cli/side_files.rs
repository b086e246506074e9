//! The files that are made next to a target: planted ones, lost ones, shared ones, and their modes.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use diskdelta::Work;
use diskdelta::image::ImageOptions;
use diskdelta::storage::SourceOptions;
use diskdelta::sync::{HostSource, HostTarget, HostTargetOptions, SyncOptions, sync};

use crate::fixture::{Fixture, PAGE, ended, left_out, noise, oracle, signal, until, write_at};
use crate::interrupted::leave_marked;

/// Another user: 65534 is nobody everywhere.
const OTHER: u32 = 65534;

fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        left_out("files of other users: not root");
    }
    is_root
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A sidecar that, where it is trusted, gives `disk.raw` another first page.
fn evil_sidecar(fixture: &Fixture) -> PathBuf {
    let mut evil = fixture.bytes("disk.raw");
    evil[..PAGE].copy_from_slice(&noise(PAGE, 666));
    fs::write(fixture.path("evil.raw"), evil).unwrap();
    let work = Work::with_threads(1).unwrap();
    let held = HostTarget::open(fixture.path("evil.raw"), &HostTargetOptions::default()).unwrap();
    held.hold(&work).unwrap();
    let planted = fixture.path("planted");
    fs::copy(fixture.path(".evil.raw.diskdelta-log"), &planted).unwrap();
    held.release(&work).unwrap();
    fs::remove_file(fixture.path("evil.raw")).unwrap();
    planted
}

/// The same as a log that only waits to be applied: everything but the first page is in place.
fn evil_redo_log(fixture: &Fixture) -> PathBuf {
    let mut evil = fixture.bytes("disk.raw");
    evil[..PAGE].copy_from_slice(&noise(PAGE, 666));
    fs::write(fixture.path("evil.raw"), &evil).unwrap();
    fs::copy(fixture.path("disk.raw"), fixture.path("base.raw")).unwrap();
    leave_marked(
        &fixture.path("evil.raw"),
        &fixture.path("base.raw"),
        HostTargetOptions::default(),
    );
    let planted = fixture.path("planted");
    fs::rename(fixture.path(".base.raw.diskdelta-log"), &planted).unwrap();
    for name in ["base.raw", "evil.raw"] {
        fs::remove_file(fixture.path(name)).unwrap();
    }
    planted
}

/// Gives the file `planted` the name `at` in a way that keeps it from being taken for ours.
fn make_doubtful(how: &str, planted: &Path, at: &Path) {
    match how {
        "link" => symlink(planted, at).unwrap(),
        "names" => fs::hard_link(planted, at).unwrap(),
        _ => fs::rename(planted, at).unwrap(),
    }
    match how {
        "owner" => chown(at, Some(OTHER), None).unwrap(),
        "mode" => set_mode(at, 0o666),
        _ => {}
    }
}

#[test]
fn a_planted_log_is_not_believed() {
    for plant in [evil_sidecar, evil_redo_log] {
        for name in [
            ".disk.raw.diskdelta-log",
            "..disk.raw.diskdelta-log.previous",
            "..disk.raw.diskdelta-log.fresh",
        ] {
            for how in ["owner", "mode", "link", "names"] {
                if how == "owner" && !is_root() {
                    continue;
                }
                let fixture = Fixture::new();
                fixture.disk("disk.raw", 900, 1);
                let before = fixture.bytes("disk.raw");
                fixture.disk("new.raw", 900, 2);
                let (planted, at) = (plant(&fixture), fixture.path(name));
                make_doubtful(how, &planted, &at);
                let names = fixture.names();
                for words in [
                    "sync new.raw disk.raw --dry-run",
                    "sync new.raw disk.raw --mode delta",
                    "sync new.raw disk.raw --mode full",
                    "sync new.raw disk.raw --safety in-place",
                    "recover disk.raw",
                    "recover disk.raw --discard",
                ] {
                    let run = fixture.run(words);
                    assert!(run.status > 1, "{how} {words}: {run:?}");
                    assert!(run.stderr.contains(name), "{how} {words}: {run:?}");
                    assert!(fixture.bytes("disk.raw") == before, "{how} {words}");
                    assert_eq!(fixture.names(), names, "{how} {words}");
                }
                fixture.done("recover --list .");
                fixture.run("recover --all .");
                assert!(fixture.bytes("disk.raw") == before);
                fs::remove_file(&at).unwrap();
                fixture.done("sync new.raw disk.raw");
                assert!(fixture.bytes("disk.raw") == fixture.bytes("new.raw"));
            }
        }
    }
}

#[test]
fn a_planted_copy_is_neither_filled_nor_put_in_place() {
    for what in ["new", "old"] {
        for how in ["owner", "mode", "link", "names"] {
            if how == "owner" && !is_root() {
                continue;
            }
            let fixture = Fixture::new();
            fixture.disk("new.raw", 900, 2);
            set_mode(&fixture.path("new.raw"), 0o600);
            if what == "old" {
                fixture.disk("disk.raw", 900, 3);
            }
            let (planted, at) = (
                fixture.path("planted"),
                fixture.path(".disk.raw.diskdelta-new"),
            );
            fs::write(&planted, vec![0; 900 * PAGE]).unwrap();
            make_doubtful(how, &planted, &at);
            let run = fixture.run("sync new.raw disk.raw --mode full");
            assert!(run.status > 1, "{what} {how}: {run:?}");
            assert!(run.stderr.contains(".disk.raw.diskdelta-new"), "{run:?}");
            let held = fs::read(if planted.exists() { &planted } else { &at }).unwrap();
            assert!(
                held.iter().all(|byte| *byte == 0),
                "{what} {how}: it was filled"
            );
            fs::remove_file(&at).unwrap();
            fixture.done("sync new.raw disk.raw --mode full");
            assert!(fixture.bytes("disk.raw") == fixture.bytes("new.raw"));
        }
    }
}

#[test]
fn a_log_that_the_operator_answers_for_is_taken_over() {
    if !is_root() {
        return;
    }
    let fixture = Fixture::new();
    fixture.disk("new.raw", 900, 1);
    let old = fixture.disk("old.raw", 900, 2);
    leave_marked(&fixture.path("new.raw"), &old, HostTargetOptions::default());
    let log = fixture.path(".old.raw.diskdelta-log");
    chown(&log, Some(OTHER), None).unwrap();
    let (_, listed) = fixture.json("recover --list .");
    assert_eq!(listed["pending"][0]["state"], "untrusted");
    let run = fixture.run("recover old.raw");
    assert!(run.stderr.contains("--trust-log"), "{run:?}");
    fixture.done("recover old.raw --trust-log .old.raw.diskdelta-log");
    assert!(fixture.bytes("old.raw") == fixture.bytes("new.raw"));
    assert_eq!(fixture.names(), ["new.raw", "old.raw"]);
}

#[test]
fn a_target_is_not_marked_once_its_log_has_no_name_any_more() {
    for replaced in [false, true] {
        let fixture = Fixture::new();
        fixture.disk("new.raw", 4000, 1);
        fixture.disk("old.raw", 4000, 2);
        let before = fixture.bytes("old.raw");
        let slow = fixture.start("sync new.raw old.raw --mode delta --limit-rate 12M");
        let log = fixture.path(".old.raw.diskdelta-log");
        until("a log", || log.exists());
        fs::remove_file(&log).unwrap();
        if replaced {
            fs::write(&log, b"another file").unwrap();
        }
        let run = ended(slow);
        run.fails(
            2,
            ".old.raw.diskdelta-log: the file was removed or replaced",
        );
        assert!(run.stderr.contains("the target is untouched"), "{run:?}");
        assert!(fixture.bytes("old.raw") == before);
        let _ = fs::remove_file(&log);
        fixture.done("sync new.raw old.raw --mode delta");
        assert!(fixture.bytes("old.raw") == fixture.bytes("new.raw"));
    }
}

#[test]
fn the_only_log_of_a_marked_disk_is_never_said_to_be_removed() {
    for how in ["mode", "link", "owner"] {
        let fixture = Fixture::new();
        fixture.disk("new.raw", 900, 1);
        let old = fixture.disk("old.raw", 900, 2);
        leave_marked(&fixture.path("new.raw"), &old, HostTargetOptions::default());
        let log = fixture.path(".old.raw.diskdelta-log");
        match how {
            "mode" => fs::set_permissions(&log, fs::Permissions::from_mode(0o666)).unwrap(),
            "link" => fs::hard_link(&log, fixture.path("second")).unwrap(),
            _ if !is_root() => continue,
            _ => chown(&log, Some(OTHER), None).unwrap(),
        }
        for words in [
            "recover old.raw",
            "recover old.raw --discard",
            "recover old.raw --release",
            "recover old.raw --forget --zero-guarded",
            "sync new.raw old.raw",
            "recover --all .",
        ] {
            let run = fixture.run(words);
            assert_eq!(run.status, 3, "{how}, {words}: {run:?}");
            let said = format!("{}{}", run.stdout, run.stderr);
            for text in ["--trust-log", "do not remove", ".old.raw.diskdelta-log"] {
                assert!(said.contains(text), "{how}, {words}: {run:?}");
            }
            assert!(!said.contains("; remove it"), "{how}, {words}: {run:?}");
        }
        let listed = fixture.done("recover --list .");
        assert!(!listed.stdout.contains("remove"), "{listed:?}");
        fixture.done("recover old.raw --trust-log .old.raw.diskdelta-log");
        assert!(fixture.bytes("old.raw") == fixture.bytes("new.raw"));
    }
}

/// Everything that can be seen of a directory's files.
fn looks(fixture: &Fixture) -> Vec<String> {
    let facts = |path: &Path| {
        let it = fs::symlink_metadata(path).unwrap();
        let held = match it.is_file() {
            true => blake3::hash(&fs::read(path).unwrap()).to_hex().to_string(),
            false => String::new(),
        };
        let times = (it.mtime(), it.mtime_nsec(), it.ctime(), it.ctime_nsec());
        format!(
            "{path:?} {} {:o} {} {times:?} {held}",
            it.ino(),
            it.mode(),
            it.len()
        )
    };
    let directory = fixture.path(".");
    let names = fixture.names();
    let files = names.iter().map(|name| facts(&fixture.path(name)));
    [facts(&directory)].into_iter().chain(files).collect()
}

#[test]
fn a_dry_run_changes_nothing_whatever_earlier_runs_have_left() {
    type Leave = fn(&Fixture);
    let leave: [(&str, Leave); 8] = [
        ("nothing", |_| ()),
        ("torn", |fixture| {
            // Ours, so a sync mends the first page.
            let planted = evil_sidecar(fixture);
            fs::rename(planted, fixture.path(".disk.raw.diskdelta-log")).unwrap();
        }),
        ("foreign", |fixture| {
            let planted = evil_redo_log(fixture);
            fs::rename(planted, fixture.path(".disk.raw.diskdelta-log")).unwrap();
        }),
        ("part", |fixture| {
            let part = noise(5 * PAGE, 5);
            fs::write(fixture.path(".disk.raw.diskdelta-log"), part).unwrap();
        }),
        ("previous", |fixture| {
            let planted = evil_redo_log(fixture);
            fs::rename(planted, fixture.path("..disk.raw.diskdelta-log.previous")).unwrap();
        }),
        ("fresh", |fixture| {
            fs::write(fixture.path("..disk.raw.diskdelta-log.fresh"), "x").unwrap();
        }),
        ("copy", |fixture| {
            fs::write(fixture.path(".disk.raw.diskdelta-new"), noise(PAGE, 5)).unwrap();
        }),
        ("manifest", |fixture| {
            drop(fixture.done("manifest disk.raw -o kept.manifest"));
        }),
    ];
    for (what, leave) in leave {
        let fixture = Fixture::new();
        fixture.disk("disk.raw", 900, 1);
        fixture.disk("new.raw", 900, 2);
        leave(&fixture);
        for file in [".disk.raw.diskdelta-log", ".disk.raw.diskdelta-new"] {
            if fixture.path(file).exists() {
                set_mode(&fixture.path(file), 0o600);
            }
        }
        let before = looks(&fixture);
        for words in [
            "disk.raw",
            "disk.raw --mode delta",
            "disk.raw --mode full",
            "disk.raw --safety in-place",
            "disk.raw --mode delta --undo undo --target-manifest kept.manifest",
            "disk.raw --target-manifest kept.manifest --manifest-cache cache",
            "disk.raw --log-dir logs/below",
            "missing.raw",
            "missing.raw --log-dir logs/below",
        ] {
            let run = fixture.run(&format!("sync new.raw {words} --dry-run"));
            assert_eq!(run.status, 0, "{what}: {words}: {run:?}");
            assert_eq!(looks(&fixture), before, "{what}: {words}");
        }
    }
}

#[test]
fn the_log_of_a_marked_disk_that_was_moved_is_kept_and_named() {
    for (first, words) in [
        ("--mode delta", "--mode delta"),
        ("--safety in-place", "--mode delta"),
        ("--mode delta", "--safety in-place"),
        ("--mode delta", "--mode full"),
    ] {
        for new_name in [true, false] {
            let fixture = Fixture::new();
            fixture.disk("new.raw", 900, 1);
            let old = fixture.disk("disk.raw", 900, 2);
            fixture.disk("other.raw", 900, 4);
            if first == "--mode delta" {
                leave_marked(&fixture.path("new.raw"), &old, HostTargetOptions::default());
            } else {
                let slow = fixture.start(&format!("sync new.raw disk.raw {first} --limit-rate 1M"));
                until("a marker", || {
                    fixture.bytes("disk.raw")[1..10] == *b"diskdelta"
                });
                signal(slow, "KILL");
            }
            fs::rename(&old, fixture.path("moved.raw")).unwrap();
            if new_name {
                fixture.disk("disk.raw", 900, 3);
            }
            let (status, report) = fixture.json(&format!("sync other.raw disk.raw {words}"));
            assert_eq!(status, 0, "{report}");
            assert!(fixture.bytes("disk.raw") == fixture.bytes("other.raw"));
            let names = fixture.names();
            let kept = names
                .iter()
                .find(|name| name.ends_with("diskdelta-log"))
                .unwrap();
            assert_ne!(kept, ".disk.raw.diskdelta-log");
            assert!(report["warnings"].to_string().contains(kept), "{report}");
            let (_, listed) = fixture.json("recover --list .");
            let file = listed["pending"][0]["file"].as_str().unwrap();
            assert!(file.ends_with(kept), "{listed}");
            // Once more, and the kept one stays.
            fixture.done(&format!("sync new.raw disk.raw {words}"));
            match first {
                "--mode delta" => drop(fixture.done("recover moved.raw")),
                _ => drop(fixture.done("sync new.raw moved.raw --safety in-place")),
            }
            assert!(fixture.bytes("moved.raw") == fixture.bytes("new.raw"));
            assert_eq!(
                fixture.names(),
                ["disk.raw", "moved.raw", "new.raw", "other.raw"]
            );
        }
    }
}

/// A disk that was left marked as `words` do it and then renamed, and another under its name.
fn moved(words: &str) -> Fixture {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 900, 1);
    let old = fixture.disk("disk.raw", 900, 2);
    let before = fixture.bytes("disk.raw");
    if words == "--mode delta" {
        leave_marked(&fixture.path("new.raw"), &old, HostTargetOptions::default());
    } else {
        let slow = fixture.start(&format!("sync new.raw disk.raw {words} --limit-rate 1M"));
        until("a marker", || {
            fixture.bytes("disk.raw")[1..10] == *b"diskdelta"
        });
        signal(slow, "KILL");
    }
    fs::rename(&old, fixture.path("moved.raw")).unwrap();
    fs::write(&old, before).unwrap();
    fixture
}

#[test]
fn the_log_of_a_marked_disk_that_was_moved_is_not_discarded() {
    for (first, same) in [
        ("--mode delta", true),
        ("--mode delta", false),
        ("--safety in-place", true),
        ("--safety in-place", false),
    ] {
        let fixture = moved(first);
        if !same {
            fixture.disk("disk.raw", 900, 3);
        }
        let before = fixture.bytes("disk.raw");
        let run = fixture.run("recover disk.raw");
        assert_eq!(run.status, 2, "{run:?}");
        assert!(run.stderr.contains("keep the log"), "{run:?}");
        let (status, report) = fixture.json("recover disk.raw --discard");
        assert_eq!((status, &report["outcome"]), (0, &"kept".into()), "{first}");
        let names = fixture.names();
        let kept = names.iter().find(|name| name.ends_with("diskdelta-log"));
        let kept = kept.unwrap();
        assert_ne!(kept, ".disk.raw.diskdelta-log");
        assert!(report["notes"][0].to_string().contains(kept), "{report}");
        assert!(fixture.bytes("disk.raw") == before);
        fixture.done("recover disk.raw --discard");
        match first {
            "--mode delta" => drop(fixture.done("recover moved.raw")),
            _ => drop(fixture.done("sync new.raw moved.raw --safety in-place")),
        }
        assert!(
            fixture.bytes("moved.raw") == fixture.bytes("new.raw"),
            "{first}"
        );
        assert_eq!(fixture.names(), ["disk.raw", "moved.raw", "new.raw"]);
    }
}

#[test]
fn a_discarded_log_that_was_kept_is_named_on_standard_error() {
    let fixture = moved("--mode delta");
    let run = fixture.done("recover disk.raw --discard");
    let names = fixture.names();
    let kept = names.iter().find(|name| name.ends_with("diskdelta-log"));
    assert!(run.stderr.contains(kept.unwrap().as_str()), "{run:?}");
    assert!(!run.stdout.contains("given up"), "{run:?}");
}

#[test]
fn a_damaged_log_of_a_moved_disk_is_not_consumed() {
    for words in [
        "recover disk.raw --discard",
        "sync other.raw disk.raw --mode delta",
        "sync other.raw disk.raw --safety in-place",
        "delta apply there.delta disk.raw",
    ] {
        let fixture = moved("--mode delta");
        fixture.disk("other.raw", 900, 4);
        fixture.done("delta create disk.raw other.raw -o there.delta");
        let mut log = fixture.bytes(".disk.raw.diskdelta-log");
        let at = log.len() / 2;
        log[at] ^= 1;
        fs::write(fixture.path(".disk.raw.diskdelta-log"), &log).unwrap();
        fixture.done(words);
        let names = fixture.names();
        let kept = names.iter().find(|name| name.ends_with("diskdelta-log"));
        let kept = kept.unwrap_or_else(|| panic!("{words}: {names:?}"));
        assert!(fixture.bytes(kept) == log, "{words}");
    }
}

#[test]
fn a_missing_target_whose_log_is_there_is_not_said_to_have_nothing_pending() {
    let log = ".disk.raw.diskdelta-log";
    for first in ["--mode delta", "--safety in-place"] {
        let fixture = moved(first);
        fs::remove_file(fixture.path("disk.raw")).unwrap();
        for words in ["recover disk.raw", "recover disk.raw --discard"] {
            fixture.run(words).fails(2, log);
        }
        // What was left of a copy is given up, and the log is not.
        fs::write(fixture.path(".disk.raw.diskdelta-new"), [1; 5000]).unwrap();
        set_mode(&fixture.path(".disk.raw.diskdelta-new"), 0o600);
        fixture.done("recover disk.raw --discard");
        match first {
            "--mode delta" => drop(fixture.done("recover moved.raw")),
            _ => drop(fixture.done("sync new.raw moved.raw --safety in-place")),
        }
        assert_eq!(fixture.names(), ["moved.raw", "new.raw"]);
        fs::write(fixture.path(log), b"a part of a log").unwrap();
        set_mode(&fixture.path(log), 0o600);
        fixture.run("recover disk.raw --discard").fails(2, log);
    }
}

#[test]
fn a_hidden_disk_does_not_take_the_log_of_its_twin() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 900, 1);
    let old = fixture.disk("disk.raw", 900, 2);
    leave_marked(&fixture.path("new.raw"), &old, HostTargetOptions::default());
    fixture.disk(".disk.raw", 900, 3);
    fixture.done("sync new.raw .disk.raw --mode delta");
    fixture.done("recover disk.raw");
    assert!(fixture.bytes("disk.raw") == fixture.bytes("new.raw"));
}

#[test]
fn two_syncs_at_once_onto_a_missing_target_leave_what_the_one_that_ended_well_wrote() {
    let fixture = Fixture::new();
    fixture.disk("a.raw", 2000, 1);
    fixture.disk("b.raw", 2000, 2);
    let mut done = 0;
    for round in 0..12 {
        let both =
            ["a", "b"].map(|name| (name, fixture.start(&format!("sync -q {name}.raw t.raw"))));
        let ends = both.map(|(name, child)| (name, ended(child)));
        let good: Vec<_> = ends.iter().filter(|(_, run)| run.status == 0).collect();
        assert!(!good.is_empty(), "{round}: {ends:?}");
        if let [(name, _)] = good[..] {
            assert!(
                fixture.bytes("t.raw") == fixture.bytes(&format!("{name}.raw")),
                "{round}"
            );
            done += 1;
        }
        fs::remove_file(fixture.path("t.raw")).unwrap();
        assert!(
            fixture.names().iter().all(|name| !name.starts_with('.')),
            "{:?}",
            fixture.names()
        );
    }
    eprintln!("{done} rounds with one that failed");
}

#[test]
fn a_target_that_appears_while_its_copy_is_made_is_left_as_it_is() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 2000, 1);
    let slow = fixture.start("sync new.raw t.raw --limit-rate 8M");
    until("a copy", || fixture.path(".t.raw.diskdelta-new").exists());
    fs::write(fixture.path("t.raw"), "another file").unwrap();
    let run = ended(slow);
    assert_eq!(run.status, 2, "{run:?}");
    assert!(
        run.stderr.contains("another process made the target"),
        "{run:?}"
    );
    assert_eq!(fixture.bytes("t.raw"), b"another file");
}

#[test]
fn two_that_write_one_output_at_once_never_mix() {
    let fixture = Fixture::new();
    fixture.disk("base.raw", 4000, 1);
    for (name, seed) in [("a.raw", 2), ("b.raw", 3)] {
        fs::copy(fixture.path("base.raw"), fixture.path(name)).unwrap();
        write_at(&fixture.path(name), 0, &noise(3000 * PAGE, seed));
    }
    for name in ["a", "b"] {
        fixture.done(&format!("delta create base.raw {name}.raw -o {name}.delta"));
        fixture.done(&format!("manifest {name}.raw -o {name}.manifest"));
    }
    let whole = |name: &str| fixture.bytes(name);
    for _ in 0..4 {
        let both = ["a", "b"].map(|name| {
            let words = format!("delta create base.raw {name}.raw -o out.delta");
            (name, fixture.start(&words))
        });
        let ends = both.map(|(name, child)| (name, ended(child).status));
        let good: Vec<_> = ends.iter().filter(|(_, status)| *status == 0).collect();
        let [(name, _)] = good[..] else {
            panic!("{ends:?}");
        };
        let shown = fixture.json("delta show out.delta").1;
        let wanted = fixture.json(&format!("delta show {name}.delta")).1;
        assert_eq!(shown["root"], wanted["root"]);
        fs::remove_file(fixture.path("out.delta")).unwrap();
        let both = ["a", "b"].map(|name| {
            (
                name,
                fixture.start(&format!("manifest {name}.raw -o out.manifest")),
            )
        });
        let ends = both.map(|(name, child)| (name, ended(child).status));
        let good: Vec<_> = ends.iter().filter(|(_, status)| *status == 0).collect();
        // One that begins when the other has ended takes the place of an older manifest.
        assert!(!good.is_empty(), "{ends:?}");
        let made = whole("out.manifest");
        let is_of = |(name, _): &&(&str, i32)| made == whole(&format!("{name}.manifest"));
        assert!(good.iter().any(is_of), "{ends:?}");
        fs::remove_file(fixture.path("out.manifest")).unwrap();
        assert!(
            fixture.names().iter().all(|name| !name.starts_with('.')),
            "{:?}",
            fixture.names()
        );
    }
}

#[test]
fn what_is_made_of_a_private_disk_is_private() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 40, 1);
    fixture.disk("old.raw", 40, 2);
    for (source, other, wanted) in [
        (0o600, 0o644, 0o600),
        (0o644, 0o644, 0o644),
        (0o644, 0o600, 0o600),
    ] {
        set_mode(&fixture.path("new.raw"), source);
        set_mode(&fixture.path("old.raw"), other);
        fixture.done("sync new.raw made.raw");
        fixture.done("sync new.raw made.vhdx");
        fixture.done("delta create old.raw new.raw -o made.delta");
        fixture.done("delta merge made.delta -o merged.delta");
        let of_source = source & !0o022;
        assert_eq!(mode(&fixture.path("made.raw")), of_source);
        assert_eq!(mode(&fixture.path("made.vhdx")), of_source);
        for name in ["made.delta", "merged.delta"] {
            assert_eq!(mode(&fixture.path(name)), wanted, "{name}");
        }
        // One that is there keeps its own.
        set_mode(&fixture.path("made.raw"), 0o640);
        write_at(&fixture.path("new.raw"), 0, &noise(PAGE, u64::from(source)));
        fixture.done("sync new.raw made.raw --mode full");
        assert_eq!(mode(&fixture.path("made.raw")), 0o640);
        for name in ["made.raw", "made.vhdx", "made.delta", "merged.delta"] {
            fs::remove_file(fixture.path(name)).unwrap();
        }
    }
}

#[test]
fn a_full_copy_keeps_the_flags_of_the_file() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 40, 1);
    let old = fixture.disk("old.raw", 40, 2);
    if oracle("chattr", &["+d", old.to_str().unwrap()]) != Some(true) {
        return left_out("this file system keeps no flags");
    }
    let flags = || {
        let output = Command::new("lsattr").arg(&old).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.split_whitespace().next().unwrap().to_owned()
    };
    let before = flags();
    fixture.done("sync new.raw old.raw --mode full");
    assert_eq!(flags(), before);
}

#[test]
fn a_log_directory_that_others_may_change_is_refused() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 40, 1);
    fixture.disk("old.raw", 40, 2);
    let logs = fixture.path("logs");
    fs::create_dir(&logs).unwrap();
    set_mode(&logs, 0o777);
    fixture
        .run("sync new.raw old.raw --log-dir logs")
        .fails(2, "others may write to the directory");
    if is_root() {
        set_mode(&logs, 0o755);
        chown(&logs, Some(OTHER), None).unwrap();
        fixture
            .run("sync new.raw old.raw --log-dir logs")
            .fails(2, "belongs to user 65534");
        chown(&logs, Some(0), None).unwrap();
    }
    set_mode(&logs, 0o755);
    fixture.done("sync new.raw old.raw --log-dir logs");
}

#[test]
fn a_sync_onto_files_that_show_another_owner_is_done_and_goes_on_when_told() {
    if !is_root() {
        return;
    }
    let fixture = Fixture::new();
    let [below, above] = ["below", "above"].map(|name| fixture.path(name));
    for path in [&below, &above] {
        fs::create_dir(path).unwrap();
    }
    let options = [
        "--force-user=nobody",
        "--perms=a+rw",
        "--chown-ignore",
        "--chmod-ignore",
    ];
    let mut args = options.to_vec();
    args.extend([below.to_str().unwrap(), above.to_str().unwrap()]);
    if oracle("bindfs", &args) != Some(true) {
        return;
    }
    let ended = std::panic::catch_unwind(|| onto_changed_owners(&fixture));
    let unmounted = Command::new("umount").arg(&above).status();
    assert!(unmounted.is_ok_and(|status| status.success()));
    ended.unwrap();
}

fn onto_changed_owners(fixture: &Fixture) {
    fixture.disk("new.raw", 900, 1);
    for words in [
        "--mode delta",
        "--mode full",
        "--safety in-place",
        "--mode delta --undo above/undo",
    ] {
        fs::write(fixture.path("above/disk.raw"), noise(900 * PAGE, 2)).unwrap();
        fixture.done(&format!("sync new.raw above/disk.raw {words}"));
        assert!(
            fixture.bytes("above/disk.raw") == fixture.bytes("new.raw"),
            "{words}"
        );
        let left = fs::read_dir(fixture.path("above")).unwrap().count();
        assert_eq!(left, 1 + usize::from(words.contains("undo")), "{words}");
    }
    // What is kept of a target goes on too, in the target's directory and elsewhere.
    fs::create_dir(fixture.path("above/kept")).unwrap();
    for kept in ["above/k", "above/kept/k"] {
        let sync = format!("--mode delta above/disk.raw --target-manifest {kept}");
        fixture.done(&format!("sync new.raw {sync}"));
        fs::copy(fixture.path("new.raw"), fixture.path("newer.raw")).unwrap();
        write_at(&fixture.path("newer.raw"), 77, b"newer");
        fixture
            .run(&format!("sync newer.raw {sync}"))
            .fails(2, "--trust-log");
        let (status, report) = fixture.json(&format!("sync newer.raw {sync} --trust-log {kept}"));
        assert_eq!(status, 0, "{report}");
        assert!(fixture.bytes("above/disk.raw") == fixture.bytes("newer.raw"));
        // The advice's other way.
        fs::remove_file(fixture.path(kept)).unwrap();
        fixture.done(&format!("sync new.raw {sync}"));
        assert!(fixture.bytes("above/disk.raw") == fixture.bytes("new.raw"));
    }
    fs::write(fixture.path("above/disk.raw"), noise(900 * PAGE, 2)).unwrap();
    let target = fixture.path("above/disk.raw");
    leave_marked(
        &fixture.path("new.raw"),
        &target,
        HostTargetOptions::default(),
    );
    let run = fixture.run("recover above/disk.raw");
    assert!(run.stderr.contains("--trust-log"), "{run:?}");
    fixture.done("recover above/disk.raw --trust-log above/.disk.raw.diskdelta-log");
    assert!(fixture.bytes("above/disk.raw") == fixture.bytes("new.raw"));
}

#[test]
fn a_name_of_the_greatest_length_takes_every_kind_of_sync() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 900, 1);
    let name = format!("{}.raw", "n".repeat(251));
    let other = format!("{}.raw", "m".repeat(251));
    for words in ["--mode delta", "--mode full", "--safety in-place"] {
        fixture.disk(&name, 900, 2);
        fixture.done(&format!("sync new.raw {name} {words}"));
        assert!(fixture.bytes(&name) == fixture.bytes("new.raw"), "{words}");
    }
    fixture.done(&format!("sync new.raw {other}"));
    let source = HostSource::open(
        fixture.path("new.raw"),
        &ImageOptions::default(),
        &SourceOptions::default(),
    )
    .unwrap();
    let long = HostTarget::open(fixture.path(&other), &HostTargetOptions::default()).unwrap();
    let options = SyncOptions::default();
    sync(
        &source.source(),
        long.target(),
        &options,
        &Work::with_threads(1).unwrap(),
    )
    .unwrap();
    assert_eq!(fixture.names().len(), 3);
}

/// A directory that only root may enter, and one that all may write to, where another user made
/// links that lead into the first.
fn fixture_with_links_of_another_user() -> Fixture {
    let fixture = Fixture::new();
    for (name, mode) in [("own", 0o700), ("all", 0o1777), ("own/directory", 0o700)] {
        fs::create_dir(fixture.path(name)).unwrap();
        set_mode(&fixture.path(name), mode);
    }
    fixture.disk("own/there.raw", 40, 4);
    for name in ["new.manifest", "new.raw", "there.raw", "directory"] {
        let link = fixture.path("all").join(name);
        symlink(fixture.path("own").join(name), &link).unwrap();
        lchown(&link, Some(OTHER), None).unwrap();
    }
    fixture
}

#[test]
fn what_is_written_does_not_go_where_a_link_of_another_user_leads() {
    if !is_root() {
        return;
    }
    let fixture = fixture_with_links_of_another_user();
    fixture.disk("new.raw", 40, 1);
    fixture.disk("disk.raw", 40, 2);
    fixture.done("delta create disk.raw new.raw -o d.delta");
    fixture.done("manifest disk.raw -o kept");
    fixture.done("manifest new.raw -o own/directory/kept");
    let kept = fixture.bytes("own/directory/kept");
    let look = || {
        let names = |name: &str| {
            let entries = fs::read_dir(fixture.path(name)).unwrap();
            let mut names: Vec<_> = entries.map(|it| it.unwrap().file_name()).collect();
            names.sort();
            names
        };
        let bytes = (fixture.bytes("disk.raw"), fixture.bytes("own/there.raw"));
        (names("own"), names("own/directory"), names("all"), bytes)
    };
    let before = look();
    for words in [
        "manifest new.raw -o all/new.manifest",
        "manifest new.raw -o all/directory/m",
        "delta create disk.raw new.raw -o all/new.raw",
        "delta merge d.delta -o all/new.raw",
        "delta export d.delta --parent disk.raw --to all/new.raw",
        "sync new.raw disk.raw --undo all/new.raw",
        "sync new.raw disk.raw --target-manifest all/new.manifest",
        "sync new.raw disk.raw --target-manifest all/directory/kept",
        "sync new.raw disk.raw --log-dir all/directory",
        "sync new.raw disk.raw --log-dir all/directory/deeper",
        "sync new.raw disk.raw --target-manifest kept --manifest-cache all/directory",
        "sync new.raw disk.raw --target-manifest kept --manifest-cache all/new.raw",
        "sync new.raw all/new.raw",
        "sync new.raw all/there.raw",
        "sync new.raw all/there.raw --mode full",
        "sync new.raw all/there.raw --safety in-place",
        "sync new.raw all/directory/disk.raw",
        "delta apply d.delta all/there.raw",
        "recover all/there.raw",
    ] {
        let run = fixture.run(words);
        assert!(run.status > 1, "{words}: {run:?}");
        assert!(run.stderr.contains("user 65534"), "{words}: {run:?}");
        assert!(look() == before, "{words}");
        assert!(fixture.bytes("own/directory/kept") == kept, "{words}");
    }
    // What is only read may be reached by any link.
    fixture.done("manifest all/there.raw -o m");
    fixture.done("diff all/there.raw own/there.raw");
}

#[test]
fn links_of_root_and_of_the_user_lead_to_what_is_written() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 40, 1);
    fs::create_dir(fixture.path("real")).unwrap();
    symlink("real", fixture.path("directory")).unwrap();
    symlink("directory/disk.raw", fixture.path("disk")).unwrap();
    for _ in 0..2 {
        fixture.done("sync new.raw disk --target-format raw --target-manifest directory/kept");
    }
    assert!(fixture.bytes("real/disk.raw") == fixture.bytes("new.raw"));
    fixture.done("manifest new.raw -o directory/m");
    fixture.done("recover directory/disk.raw --log-dir directory");
    for name in ["real/m", "real/kept"] {
        assert!(fixture.path(name).is_file(), "{name}");
    }
}

#[test]
fn a_mode_that_a_file_is_given_while_it_is_copied_is_kept() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 1500, 1);
    let old = fixture.disk("old.raw", 1500, 2);
    set_mode(&old, 0o666);
    let slow = fixture.start("sync new.raw old.raw --mode full --limit-rate 4M");
    let copy = fixture.path(".old.raw.diskdelta-new");
    until("a copy", || copy.exists() && mode(&copy) == 0o666);
    set_mode(&old, 0o600);
    let is_owned = is_root() && chown(&old, Some(OTHER), Some(OTHER)).is_ok();
    let run = ended(slow);
    assert_eq!(run.status, 0, "{run:?}");
    assert!(fixture.bytes("old.raw") == fixture.bytes("new.raw"));
    assert_eq!(mode(&old), 0o600);
    let facts = fs::metadata(&old).unwrap();
    assert_eq!(
        (facts.uid() == OTHER, facts.gid() == OTHER),
        (is_owned, is_owned)
    );
}

#[test]
fn files_of_one_sync_that_share_a_name_do_not_replace_each_other() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 300, 1);
    fixture.disk("t.raw", 300, 2);
    fs::create_dir(fixture.path("logs")).unwrap();
    set_mode(&fixture.path("logs"), 0o700);
    symlink(".", fixture.path("here")).unwrap();
    for name in [".t.raw.diskdelta-new", ".m.raw.diskdelta-new"] {
        fs::copy(fixture.path("new.raw"), fixture.path(name)).unwrap();
        set_mode(&fixture.path(name), 0o600);
    }
    let look = || {
        let names = fixture.names().into_iter();
        let held = names.filter(|name| fixture.path(name).is_file());
        held.map(|name| (fixture.bytes(&name), name))
            .collect::<Vec<_>>()
    };
    let before = look();
    for words in [
        "sync new.raw t.raw --undo same --target-manifest same",
        "sync new.raw t.raw --undo same --target-manifest here/same",
        "sync new.raw t.raw --target-manifest .t.raw.diskdelta-log",
        "sync new.raw t.raw --target-manifest here/..t.raw.diskdelta-log.previous",
        "sync new.raw t.raw --mode full --target-manifest .t.raw.diskdelta-new",
        "sync new.raw t.raw --undo .t.raw.diskdelta-log",
        "sync new.raw t.raw --log-dir logs --undo logs/.x.fresh",
        "sync new.raw t.raw --target-manifest t.raw",
        "sync new.raw m.raw --target-manifest m.raw",
        "sync new.raw m.raw --target-manifest here/m.raw",
        "sync new.raw t.raw --target-manifest new.raw",
        "sync new.raw t.raw --undo new.raw",
        "sync .t.raw.diskdelta-new t.raw --source-format raw --mode full",
        "sync .m.raw.diskdelta-new m.raw --source-format raw",
    ] {
        for more in ["", " --dry-run"] {
            let run = fixture.run(&format!("{words}{more}"));
            assert!(run.status > 1, "{words}{more}: {run:?}");
            assert!(run.stderr.contains("name"), "{words}{more}: {run:?}");
            assert!(look() == before, "{words}{more}");
        }
    }
    for name in [".t.raw.diskdelta-new", ".m.raw.diskdelta-new"] {
        fs::remove_file(fixture.path(name)).unwrap();
    }
    fixture.done("sync new.raw t.raw --mode delta --undo back --target-manifest kept");
    fixture.done("undo back t.raw");
    assert!(before.contains(&(fixture.bytes("t.raw"), "t.raw".to_owned())));
}
