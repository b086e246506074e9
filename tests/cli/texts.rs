//! What the command prints when names, images and logs hold what a terminal would obey.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use diskdelta::sync::HostTargetOptions;
use diskdelta::text::is_unsafe;

use crate::fixture::{Fixture, write_at};
use crate::guest_marker::marker;
use crate::interrupted::leave_marked;

/// Sets a title, begins a line, uses C1, turns the direction of writing, and is no UTF-8.
const HOSTILE: &[u8] = b"a\x1b]0;owned\x07\nforged: line\xc2\x9b31m\xe2\x80\xae\xff";

fn hostile(extension: &str) -> OsString {
    OsString::from_vec([HOSTILE, b".", extension.as_bytes()].concat())
}

/// Words with `@EXT` for a hostile name of that extension.
fn words(text: &str) -> Vec<OsString> {
    let words = text.split_whitespace();
    words
        .map(|word| match word.split_once('@') {
            Some((before, extension)) => {
                let mut word = OsString::from(before);
                word.push(hostile(extension));
                word
            }
            None => word.into(),
        })
        .collect()
}

/// Runs the command and returns its status; what it printed stays on its lines.
fn printed(fixture: &Fixture, text: &str) -> (i32, String) {
    let output = assert_cmd::Command::new(env!("CARGO_BIN_EXE_diskdelta"))
        .current_dir(fixture.path("."))
        .args(words(text))
        .output()
        .unwrap();
    let mut all = String::new();
    for bytes in [output.stdout, output.stderr] {
        let printed = String::from_utf8(bytes).unwrap();
        for line in printed.split_terminator('\n') {
            assert!(!line.contains(is_unsafe), "{text}: {line:?}");
            assert!(!line.starts_with("forged"), "{text}: {printed}");
        }
        assert!(printed.is_empty() || printed.ends_with('\n'), "{text}");
        all += &printed;
    }
    (output.status.code().unwrap_or(-1), all)
}

fn fixture() -> Fixture {
    let fixture = Fixture::new();
    for (name, seed) in [("raw", 1), ("old", 2)] {
        let path = fixture.disk("new", 900, seed);
        fs::rename(path, fixture.path(".").join(hostile(name))).unwrap();
    }
    fixture
}

fn path(fixture: &Fixture, extension: &str) -> PathBuf {
    fixture.path(".").join(hostile(extension))
}

#[test]
fn no_verb_prints_what_a_terminal_would_obey() {
    let fixture = fixture();
    for json in ["", " --json"] {
        let run = |text: &str| printed(&fixture, &format!("{text}{json}"));
        for (verb, status) in [
            ("info @raw", 0),
            ("info @none", 2),
            ("sync @raw @vhdx", 0),
            ("info @vhdx", 0),
            ("info @raw --format vhdx", 2),
            ("sync @none @new", 2),
            ("sync @raw @none/x", 2),
            ("sync @old @old", 2),
            ("sync @raw host:@raw --rsh ./@none", 2),
            ("sync @raw ssh://host/@raw --rsh ./@none", 2),
            ("sync @raw diskdelta://localhost:1/@raw", 2),
            ("sync @raw @old --create raw", 2),
            ("sync @raw @old --dry-run", 0),
            ("sync @raw @old --log-dir @none/x", 2),
            ("sync @raw @old --undo @raw", 2),
            ("sync @raw @old --target-manifest @old --mode delta", 2),
            ("manifest @raw -o @manifest", 0),
            ("manifest @raw -o @manifest", 2),
            ("verify @raw @manifest", 0),
            ("verify @raw @old", 2),
            ("diff @raw @old", 1),
            ("diff @raw @none", 2),
            ("delta create @old @raw -o @delta", 0),
            ("delta create @old @raw -o @delta", 2),
            ("delta info @delta", 0),
            ("delta info @raw", 2),
            ("delta apply @delta @raw --base-check touched", 0),
            ("delta apply @raw @old", 2),
            ("undo @delta @none", 2),
            ("undo @none @raw", 2),
            ("recover @raw", 0),
            ("recover @none", 2),
            ("recover @raw --trust-log @none", 0),
            ("recover --list .", 0),
            ("recover --all @none", 2),
            ("failback check @raw", 2),
            ("failback check @none", 2),
            ("failback status @none --state-dir @none", 2),
            ("failback status --state-dir @none", 2),
            ("info @raw @none", 2),
            ("@none", 2),
            ("info --@none", 2),
            ("sync @raw @old --mode @none", 2),
            ("sync @raw @old --limit-rate @none", 2),
        ] {
            let (found, text) = run(verb);
            // A few verbs find what an earlier one has made, or a feature missing.
            assert!(found == status || found <= 3, "{verb}: {found}: {text}");
            if json.is_empty() && verb == "info @none" {
                assert!(
                    text.contains("a\\x1b]0;owned\\x07\\nforged: line\\u{9b}31m"),
                    "{text}"
                );
                assert!(text.contains("\\u{202e}\\xff.none"), "{text}");
            }
        }
        for name in ["manifest", "delta", "vhdx"] {
            let _ = fs::remove_file(path(&fixture, name));
        }
    }
}

#[test]
fn a_log_and_its_target_are_listed_without_what_a_terminal_would_obey() {
    let fixture = fixture();
    let old = path(&fixture, "old");
    leave_marked(&path(&fixture, "raw"), &old, HostTargetOptions::default());
    for json in ["", " --json"] {
        let (_, text) = printed(&fixture, &format!("recover --list .{json}"));
        assert!(text.contains("owned"), "{text}");
        for verb in ["info @old", "sync @old @raw", "recover @old --discard"] {
            printed(&fixture, &format!("{verb}{json}"));
        }
    }
    let (status, _) = printed(&fixture, "recover --all .");
    assert_eq!(status, 0);
}

#[test]
fn the_path_in_a_guests_marker_is_printed_without_what_a_terminal_would_obey() {
    let fixture = Fixture::new();
    let disk = fixture.disk("disk.raw", 1024, 1);
    fixture.disk("new.raw", 1024, 2);
    let log = "/tmp/\u{1b}[2J\nforged: line\u{9b}\u{202e}.diskdelta-log";
    write_at(&disk, 0, &marker(0, log));
    for verb in [
        "info disk.raw",
        "sync new.raw disk.raw",
        "sync new.raw disk.raw --safety in-place",
        "sync disk.raw new.raw",
        "recover disk.raw",
        "recover disk.raw --discard",
        "recover disk.raw --release",
    ] {
        for json in ["", " --json"] {
            let (status, text) = printed(&fixture, &format!("{verb}{json}"));
            assert_eq!(status, 3, "{verb}: {text}");
        }
    }
}

#[test]
fn the_creator_of_an_image_is_printed_without_what_a_terminal_would_obey() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 16, 1);
    fixture.done("sync new.raw new.vhdx");
    let creator = "x\u{1b}[2J\nforged: line\u{9b}\u{202e}\0tail";
    let bytes: Vec<u8> = creator.encode_utf16().flat_map(u16::to_le_bytes).collect();
    write_at(&fixture.path("new.vhdx"), 8, &bytes);
    let (status, text) = printed(&fixture, "info new.vhdx");
    assert_eq!(status, 0, "{text}");
    assert!(text.contains("forged"), "{text}");
    let (_, json) = printed(&fixture, "info new.vhdx --json");
    let object: serde_json::Value = serde_json::from_str(&json).unwrap();
    let found = object["facts"]["creator"].as_str().unwrap();
    assert!(
        found.starts_with("x\u{1b}[2J\nforged: line\u{9b}\u{202e}"),
        "{found:?}"
    );
}

#[test]
fn json_stays_exact_whatever_the_names_are() {
    let fixture = Fixture::new();
    let name = "a\u{1b}\u{9b}\n\u{202e}.raw";
    let disk = fixture.disk("new.raw", 16, 1);
    fs::rename(disk, fixture.path(name)).unwrap();
    let output = assert_cmd::Command::new(env!("CARGO_BIN_EXE_diskdelta"))
        .current_dir(fixture.path("."))
        .args([
            OsStr::new("recover"),
            OsStr::new(name),
            OsStr::new("--json"),
        ])
        .output()
        .unwrap();
    let object: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(object["target"], name);
}
