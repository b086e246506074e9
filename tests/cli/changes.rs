//! Change maps: where they are read from, and when they are used.

use std::fs;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use crate::fixture::{COMMAND, Fixture, PAGE, left_out, until, write_at};

const SYNC: &str = "sync new.raw old.raw --target-manifest kept.manifest";

/// A source and a target that a target manifest describes.
fn synced() -> Fixture {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 300, 1);
    fixture.disk("old.raw", 300, 2);
    fixture.done(SYNC);
    fixture
}

#[test]
fn a_change_map_is_read_from_a_file_and_from_standard_input() {
    let fixture = synced();
    write_at(&fixture.path("new.raw"), 5 * PAGE as u64, b"first");
    write_at(&fixture.path("new.raw"), 200 * PAGE as u64, b"second");
    let diff = fixture.run("diff new.raw old.raw --json");
    fs::write(fixture.path("diff.json"), diff.stdout).unwrap();
    let (_, report) = fixture.json(&format!("{SYNC} --changes diskdelta:diff.json"));
    assert_eq!(report["verified"], "tracked", "{report}");
    assert_eq!(report["changed_bytes"], 2 * PAGE);
    assert_eq!(report["compared_bytes"], 2 << 16, "two blocks");
    assert_eq!(fixture.bytes("old.raw"), fixture.bytes("new.raw"));

    write_at(&fixture.path("new.raw"), 7 * PAGE as u64, b"third");
    fs::write(fixture.path("pairs.json"), "[[28672, 4096]]").unwrap();
    let output = Command::new(COMMAND)
        .current_dir(fixture.path(""))
        .args(SYNC.split(' '))
        .args(["--changes", "pairs:-"])
        .stdin(fs::File::open(fixture.path("pairs.json")).unwrap())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(fixture.bytes("old.raw"), fixture.bytes("new.raw"));
}

#[test]
fn a_change_map_needs_something_that_finds_later_what_it_leaves_out() {
    let fixture = synced();
    fs::write(fixture.path("map"), "[[0, 4096]]").unwrap();
    let lone = "sync new.raw old.raw --changes pairs:map";
    fixture.run(lone).fails(2, "--target-manifest");
    let (_, report) = fixture.json(&format!("{lone} --trust-target"));
    assert_eq!(report["verified"], "tracked");
    for (changes, part) in [
        ("map", "KIND:FILE"),
        ("qemu-img:map", "nbdinfo"),
        ("aws:map", "ebs"),
        ("nbdinfo:map", "no change map"),
        ("pairs:none", "none"),
    ] {
        let run = fixture.run(&format!("{SYNC} --changes {changes}"));
        assert!(run.stderr.contains(part), "{changes}: {run:?}");
        assert_eq!(run.status, 2, "{changes}: {run:?}");
    }
    // Another program wrote to the target: what the map leaves out is not known to be equal.
    write_at(&fixture.path("old.raw"), 100 * PAGE as u64, b"guest");
    let (_, report) = fixture.json(&format!("{SYNC} --changes pairs:map"));
    assert_eq!(report["verified"], "written", "{report}");
    assert!(
        report["warnings"].to_string().contains("change map"),
        "{report}"
    );
    assert_eq!(fixture.bytes("old.raw"), fixture.bytes("new.raw"));
}

#[test]
fn a_change_map_narrows_a_diff_and_a_delta_from_a_manifest() {
    let fixture = synced();
    fixture.done("manifest old.raw -o old.manifest");
    write_at(&fixture.path("new.raw"), 5 * PAGE as u64, b"first");
    write_at(&fixture.path("new.raw"), 200 * PAGE as u64, b"second");
    fs::write(fixture.path("one"), "[[20480, 4096]]").unwrap();
    fs::write(fixture.path("both"), "[[20480, 4096], [819200, 4096]]").unwrap();
    let (status, found) = fixture.json("diff new.raw old.raw --changes pairs:one");
    assert_eq!(
        (status, &found["changed_bytes"]),
        (1, &PAGE.into()),
        "{found}"
    );
    let (_, found) = fixture.json("diff new.raw old.raw --changes pairs:both");
    assert_eq!(found["changed_bytes"], 2 * PAGE, "{found}");
    fixture
        .run("diff new.raw old.manifest --changes pairs:one")
        .fails(2, "between two images");
    fixture
        .run("delta create old.raw new.raw -o up.delta --changes pairs:both")
        .fails(2, "manifest of the base");
    fixture.done("delta create old.manifest new.raw -o up.delta --changes pairs:both");
    fixture.done("delta apply up.delta old.raw");
    assert_eq!(fixture.bytes("old.raw"), fixture.bytes("new.raw"));
}

#[test]
fn every_verb_that_reads_takes_certificates_for_an_nbd_server() {
    let fixture = synced();
    fixture.done("manifest old.raw -o old.manifest");
    for words in [
        "info nbds://localhost:1/x",
        "map nbds://localhost:1/x",
        "manifest nbds://localhost:1/x -o m",
        "verify nbds://localhost:1/x old.manifest",
        "diff nbds://localhost:1/x old.raw",
        "diff old.raw nbds://localhost:1/x",
        "delta create old.raw nbds://localhost:1/x -o d",
    ] {
        fixture.run(words).fails(2, "--tls-cert");
        let given = "--tls-cert no.pem --tls-key no.key --tls-ca no.ca";
        let run = fixture.run(&format!("{words} {given}"));
        assert!(
            run.status == 2 && !run.stderr.contains("--tls-cert"),
            "{run:?}"
        );
    }
}

#[test]
fn a_dirty_bitmap_that_the_address_names_is_the_change_map() {
    let fixture = Fixture::new();
    let tool = |program: &str, words: &str| {
        let done = Command::new(program)
            .args(words.split(' '))
            .current_dir(fixture.path(""))
            .output();
        done.is_ok_and(|it| it.status.success())
    };
    if !tool("qemu-img", "create -q -f qcow2 new.qcow2 16M") {
        return left_out("qemu-img is not here");
    }
    let write = |text: &str| {
        let done = Command::new("qemu-io")
            .args(["-f", "qcow2", "-c", text, "new.qcow2"])
            .current_dir(fixture.path(""))
            .output()
            .unwrap();
        assert!(done.status.success(), "{done:?}");
    };
    write("write -P 1 0 8M");
    assert!(tool("qemu-img", "convert -q -O raw new.qcow2 old.raw"));
    assert!(tool("qemu-img", "bitmap --add -g 65536 new.qcow2 since"));
    write("write -P 2 1M 4096");
    let socket = fixture.path("nbd.sock");
    let mut server = Command::new("qemu-nbd")
        .args(["-r", "-t", "-f", "qcow2", "-x", "disk", "-B", "since", "-k"])
        .arg(&socket)
        .arg(fixture.path("new.qcow2"))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    until("the server", || UnixStream::connect(&socket).is_ok());
    let from = format!("nbd+unix:///disk?socket={}&bitmap=since", socket.display());
    let run = fixture.run(&format!("sync {from} old.raw"));
    let (_, report) = fixture.json(&format!("sync {from} old.raw --trust-target"));
    server.kill().unwrap();
    server.wait().unwrap();
    run.fails(2, "--target-manifest");
    assert_eq!(report["verified"], "tracked", "{report}");
    assert_eq!(report["compared_bytes"], 65536, "{report}");
    assert_eq!(report["changed_bytes"], 4096, "{report}");
    assert_eq!(fixture.bytes("old.raw")[1 << 20], 2);
}
