//! What is refused, and how that is said: what, where, what to do.

use std::fs;

use crate::fixture::{COMMAND, Fixture, PAGE, noise, write_at};

#[test]
fn bad_input_gets_a_text_that_says_where_and_what_to_do() {
    let fixture = Fixture::new();
    fixture.disk("a.raw", 600, 1);
    fixture.disk("short.raw", 10, 1);
    fs::write(fixture.path("bad.vhd"), [7; 5000]).unwrap();
    fs::write(fixture.path("bad.manifest"), [7; 5000]).unwrap();
    fs::create_dir(fixture.path("directory")).unwrap();
    fixture.done("sync a.raw a.vhd");
    fixture.done("manifest a.raw -o a.manifest");
    fs::copy(fixture.path("a.vhd"), fixture.path("vhd.img")).unwrap();
    fs::copy(fixture.path("a.manifest"), fixture.path("manifest.img")).unwrap();
    let cases = [
        ("sync none.raw a.raw", "none.raw"),
        ("sync a.raw none/b.raw", "none/b.raw"),
        ("sync a.raw a.raw", "name two different disks"),
        ("sync directory a.raw", "a directory"),
        ("sync a.raw directory", "a directory"),
        ("sync /dev/zero a.raw", "a character device"),
        ("sync a.raw a.vhd --create vhd", "leave out --create"),
        ("sync bad.vhd b.raw", "bad.vhd"),
        ("sync vhd.img b.raw", "--source-format raw"),
        ("sync short.raw a.raw", "--allow-shrink"),
        ("sync a.raw b.raw --align 3", "power of two"),
        (
            "sync a.raw short.raw --safety in-place --undo u",
            "--safety atomic",
        ),
        ("info none.raw", "none.raw"),
        ("info bad.vhd", "bad.vhd"),
        ("manifest a.raw -o a.vhd", "name another file"),
        ("verify a.raw bad.manifest", "bad.manifest"),
        ("verify a.raw none.manifest", "none.manifest"),
        ("diff a.raw bad.manifest", "bad.manifest"),
        ("diff a.raw manifest.img", "--source-format manifest"),
        ("delta show a.raw", "a.raw"),
        ("delta apply a.raw a.vhd", "not a delta file"),
        ("undo none a.raw", "none"),
        ("recover none.raw", "no such target"),
        ("recover a.raw a.vhd", "one target at a time"),
        ("recover --list none", "none"),
    ];
    let before: Vec<_> = fixture
        .names()
        .iter()
        .map(|name| (name.clone(), fixture.path(name)))
        .collect();
    for (words, part) in cases {
        let run = fixture.run(words);
        run.fails(2, part);
        assert!(run.stdout.is_empty(), "{words}: {run:?}");
        let (status, object) = fixture.json(words);
        assert_eq!((status, &object["status"]), (2, &2.into()), "{words}");
        let message = object["error"]["message"].as_str().unwrap();
        assert!(message.contains(part), "{words}: {message}");
        assert!(object["error"]["kind"].is_string());
    }
    for (name, path) in before {
        assert!(path.exists(), "{name}");
    }
    assert!(!fixture.path("b.raw").exists());
}

#[test]
fn a_malformed_file_is_named_with_field_and_offset() {
    let fixture = Fixture::new();
    fixture.disk("a.raw", 600, 1);
    fixture.done("manifest a.raw -o a.manifest");
    write_at(&fixture.path("a.manifest"), 40, b"damage");
    let (status, object) = fixture.json("verify a.raw a.manifest");
    assert_eq!(status, 2);
    assert_eq!(object["error"]["kind"], "malformed");
    let path = object["error"]["path"].as_str().unwrap();
    assert!(path.ends_with("a.manifest"), "{path}");
}

#[test]
fn wrong_words_end_with_status_2() {
    let fixture = Fixture::new();
    for words in [
        "sync",
        "sync a.raw b.raw --mode fast",
        "sync a.raw b.raw --limit-rate 4X",
        "manifest a.raw -o m --block-size 5000",
        "manifest a.raw",
        "recover",
        "recover a.raw --discard --list",
        "completions nushell",
        "frobnicate",
    ] {
        assert_eq!(fixture.run(words).status, 2, "{words}");
    }
}

#[test]
fn a_hard_linked_target_is_written_to_itself_or_refused() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 600, 1);
    let old = fixture.disk("old.raw", 600, 2);
    fs::hard_link(&old, fixture.path("other.raw")).unwrap();
    fixture
        .run("sync new.raw old.raw --mode full")
        .fails(2, "2 names");
    for way in ["--safety in-place", "--mode delta", ""] {
        fixture.disk("new.raw", 600, way.len() as u64);
        // All pages differ, and a copy would be less work.
        fixture.done(&format!("sync new.raw old.raw {way}"));
        assert!(
            fixture.bytes("other.raw") == fixture.bytes("new.raw"),
            "{way}"
        );
    }
}

#[test]
fn the_source_under_another_name_is_no_target() {
    let fixture = Fixture::new();
    let disk = fixture.disk("disk.raw", 600, 1);
    fs::hard_link(&disk, fixture.path("hard.raw")).unwrap();
    std::os::unix::fs::symlink("disk.raw", fixture.path("soft.raw")).unwrap();
    for name in ["hard.raw", "soft.raw"] {
        fixture
            .run(&format!("sync disk.raw {name} --safety in-place"))
            .fails(2, "name two different disks");
    }
}

#[test]
fn a_redo_log_in_memory_is_refused() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 600, 1);
    fixture.disk("old.raw", 600, 2);
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    if !mounts.contains(" /dev/shm tmpfs ") {
        return crate::fixture::left_out("/dev/shm is no tmpfs");
    }
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let words = format!(
        "sync new.raw old.raw --log-dir {}",
        directory.path().display()
    );
    fixture.run(&words).fails(2, "--log-dir");
}

#[test]
fn a_delta_onto_another_base_changes_nothing() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 600, 1);
    fixture.disk("old.raw", 600, 2);
    fixture.done("sync new.raw old.raw --mode delta --undo way.back");
    let old = fixture.path("old.raw");
    write_at(&old, 9 * PAGE as u64, b"guest");
    let before = fixture.bytes("old.raw");
    fixture
        .run("undo way.back old.raw")
        .fails(2, "nothing was changed");
    assert!(fixture.bytes("old.raw") == before);
    let mut bytes = fixture.bytes("way.back");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(fixture.path("way.back"), bytes).unwrap();
    fixture.run("undo way.back new.raw").fails(2, "way.back");
    fixture.run("delta show way.back").fails(2, "way.back");
}

#[test]
fn a_full_or_closed_standard_error_does_not_change_the_exit_status() {
    let fixture = Fixture::new();
    std::fs::write(fixture.path("new.raw"), noise(PAGE, 1)).unwrap();
    for (words, status) in [
        ("sync missing.raw t.raw", 2),
        ("diff new.raw missing.raw --json", 2),
        ("sync new.raw", 2),
        ("recover missing.raw --json", 2),
    ] {
        let full = std::fs::File::options()
            .write(true)
            .open("/dev/full")
            .unwrap();
        let run = std::process::Command::new(COMMAND)
            .args(words.split(' '))
            .current_dir(fixture.path("."))
            .stderr(full)
            .output()
            .unwrap();
        assert_eq!(run.status.code(), Some(status), "{words}");
        assert_eq!(run.stdout.is_empty(), !words.contains("--json"), "{words}");
    }
}

#[test]
fn a_target_manifest_is_not_kept_of_a_target_with_gaps() {
    let fixture = Fixture::new();
    std::fs::write(fixture.path("new.raw"), noise(16 * PAGE, 1)).unwrap();
    std::fs::write(fixture.path("t.raw"), noise(16 * PAGE, 2)).unwrap();
    for target in ["t.raw", "missing.raw"] {
        let words = format!("sync new.raw {target} --skip-unreadable --target-manifest kept");
        let run = fixture.run(&words);
        assert_eq!(run.status, 2, "{run:?}");
        assert!(
            run.stderr.contains("leave out --skip-unreadable"),
            "{run:?}"
        );
    }
    assert_eq!(fixture.names(), ["new.raw", "t.raw"]);
    assert!(fixture.bytes("t.raw") == noise(16 * PAGE, 2));
}
