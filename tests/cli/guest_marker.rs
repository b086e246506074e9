//! Disks whose guest has written what looks like the marker of an unfinished sync.

use std::fs;
use std::path::Path;

use diskdelta::storage::{Access, Directory, FileRef, HostDirectory, Storage};
use diskdelta::sync::Marker;

use crate::fixture::{Fixture, PAGE};
use crate::remote::shell;

const PAGES: usize = 1024;

/// The marker that a sync sets on its target, for that sector.
pub fn marker(sector: usize, redo_log: &str) -> Vec<u8> {
    let mut out = vec![0; 512];
    out[..16].copy_from_slice(b"\0diskdelta mark1");
    out[16..32].copy_from_slice(&[b'J'; 16]);
    out[32] = 1;
    out[40..48].copy_from_slice(&((PAGES * PAGE) as u64).to_le_bytes());
    out[48..56].copy_from_slice(&(sector as u64 * 512).to_le_bytes());
    out[56..58].copy_from_slice(&(redo_log.len() as u16).to_le_bytes());
    out[58..58 + redo_log.len()].copy_from_slice(redo_log.as_bytes());
    let crc = crc32fast::hash(&out[..508]);
    out[508..].copy_from_slice(&crc.to_le_bytes());
    out
}

/// Has the guest of a raw disk write a marker to one sector.
fn plant(path: &Path, sector: usize) {
    let mut bytes = fs::read(path).unwrap();
    let at = sector * 512;
    bytes[at..at + 512].copy_from_slice(&marker(sector, "/no/such/log"));
    fs::write(path, bytes).unwrap();
}

fn storage(path: &Path) -> std::sync::Arc<dyn Storage> {
    let directory = HostDirectory::open(path.parent().unwrap()).unwrap();
    let directory: std::sync::Arc<dyn Directory> = std::sync::Arc::new(directory);
    FileRef::new(directory, path.file_name().unwrap())
        .open(Access::Read)
        .unwrap()
}

/// An honest guest's disk in a VHDX, an evil one's in another, and a raw replica of the first.
fn replicated(sector: usize) -> Fixture {
    let fixture = Fixture::new();
    fixture.disk("honest.raw", PAGES, 1);
    fs::copy(fixture.path("honest.raw"), fixture.path("evil.raw")).unwrap();
    plant(&fixture.path("evil.raw"), sector);
    let mut bytes = fixture.bytes("evil.raw");
    // More than the marker changes, so that an order of writes shows.
    let at = 900 * PAGE;
    bytes[at..at + PAGE].fill(7);
    fs::write(fixture.path("evil.raw"), bytes).unwrap();
    for name in ["honest", "evil"] {
        fixture.done(&format!(
            "sync --quiet --marker-is-data {name}.raw {name}.vhdx"
        ));
    }
    fixture.done("sync --quiet honest.vhdx replica.raw");
    fixture.done("sync --quiet honest.vhdx replica.vhd --create vhd-fixed");
    fixture
}

#[test]
fn a_guests_marker_does_not_brick_its_replica() {
    for sector in [0, 3, 7] {
        let fixture = replicated(sector);
        for target in ["replica.raw", "replica.vhd"] {
            let before = fixture.bytes(target);
            let names = fixture.names();
            for options in [
                "--mode delta",
                "--mode full",
                "--mode delta --dry-run",
                "--safety in-place",
                "--safety in-place --hold",
            ] {
                let run = fixture.run(&format!("sync {options} evil.vhdx {target}"));
                assert_eq!(run.status, 2, "{options}: {run:?}");
                assert!(run.stderr.contains("marker"), "{options}: {run:?}");
                assert!(fixture.bytes(target) == before, "{options}: changed");
            }
            assert_eq!(fixture.names(), names, "{target}: something was left");
            fixture.done(&format!("sync --mode delta honest.vhdx {target}"));
            assert!(fixture.bytes(target) == before);
        }
    }
}

#[test]
fn a_new_raw_target_is_not_made_of_a_guests_marker() {
    let fixture = replicated(7);
    for target in ["new.raw", "new.vhd --create vhd-fixed"] {
        let run = fixture.run(&format!("sync evil.vhdx {target}"));
        assert_eq!(run.status, 2, "{run:?}");
        assert!(run.stderr.contains("marker"), "{run:?}");
    }
    assert!(!fixture.path("new.raw").exists() && !fixture.path("new.vhd").exists());
}

#[test]
fn a_guests_marker_goes_into_images_that_do_not_begin_with_guest_data() {
    let fixture = replicated(0);
    for target in ["copy.vhdx", "copy.vhd"] {
        fixture.done(&format!("sync evil.vhdx {target}"));
        fixture.done(&format!("diff evil.vhdx {target}"));
        fixture.done(&format!("sync --mode delta honest.vhdx {target}"));
        fixture.done(&format!("sync --mode delta evil.vhdx {target}"));
        fixture.done(&format!("sync --safety in-place honest.vhdx {target}"));
        fixture.done(&format!("sync --safety in-place evil.vhdx {target}"));
    }
}

#[test]
fn a_delta_or_undo_does_not_bring_a_guests_marker_onto_a_target() {
    let fixture = replicated(5);
    fixture.done("delta create honest.vhdx evil.vhdx --output there.delta");
    let before = fixture.bytes("replica.raw");
    let run = fixture.run("delta apply there.delta replica.raw");
    assert_eq!(run.status, 2, "{run:?}");
    assert!(run.stderr.contains("marker"), "{run:?}");
    assert!(fixture.bytes("replica.raw") == before);
    fixture.done("sync --mode delta honest.vhdx replica.raw");

    // The way back from an honest disk to one that held a marker as data.
    fixture.done("sync --quiet evil.vhdx kept.vhdx");
    fixture.done("sync --mode delta --undo back.undo honest.vhdx kept.vhdx");
    fixture.done("sync honest.vhdx plain.raw");
    let run = fixture.run("undo back.undo plain.raw");
    assert_eq!(run.status, 2, "{run:?}");
    assert!(run.stderr.contains("marker"), "{run:?}");
    assert_eq!(
        Marker::find(&*storage(&fixture.path("plain.raw"))).unwrap(),
        None
    );
}

#[test]
fn a_disk_whose_guest_wrote_a_marker_is_read_where_that_is_declared() {
    let fixture = replicated(2);
    for verb in [
        "info evil.raw",
        "manifest evil.raw --output evil.manifest",
        "delta create honest.raw evil.raw --output a.delta",
    ] {
        let run = fixture.run(verb);
        assert_eq!(run.status, 3, "{verb}: {run:?}");
        assert!(run.stderr.contains("--marker-is-data"), "{verb}: {run:?}");
        fixture.done(&format!("{verb} --marker-is-data"));
    }
    let run = fixture.run("diff honest.raw evil.raw --marker-is-data");
    assert_eq!(run.status, 1, "{run:?}");
    let run = fixture.run("sync evil.raw replica.raw --marker-is-data");
    assert_eq!(run.status, 2, "{run:?}");
    fixture.done("sync evil.raw evil-again.vhdx --marker-is-data");
}

#[test]
fn a_file_too_short_for_a_marker_takes_no_guests_marker_either() {
    let fixture = Fixture::new();
    fs::write(fixture.path("short.raw"), marker(0, "/x")).unwrap();
    fs::write(fixture.path("old.raw"), [1; 512]).unwrap();
    for target in ["old.raw", "new.raw"] {
        let run = fixture.run(&format!("sync --marker-is-data short.raw {target}"));
        assert_eq!(run.status, 2, "{run:?}");
    }
    assert_eq!(fixture.bytes("old.raw"), [1; 512]);
    assert!(!fixture.path("new.raw").exists());
}

#[test]
fn a_guests_marker_does_not_come_from_or_go_to_another_host() {
    let fixture = replicated(4);
    shell(&fixture, "--root .");
    let before = fixture.bytes("replica.raw");
    for (from, to) in [
        ("ssh://host/evil.vhdx", "replica.raw"),
        ("evil.vhdx", "ssh://host/replica.raw"),
    ] {
        for options in ["--mode delta", "--mode full", "--safety in-place"] {
            let run = fixture.run(&format!("sync {options} {from} {to} --rsh ./rsh"));
            assert_eq!(run.status, 2, "{from} {options}: {run:?}");
            assert!(run.stderr.contains("marker"), "{from} {options}: {run:?}");
            assert!(fixture.bytes("replica.raw") == before, "{from} {options}");
        }
        for options in ["--mode delta", "--mode full", "--safety in-place"] {
            fixture.done(&format!(
                "sync {options} {} {to} --rsh ./rsh",
                from.replace("evil", "honest")
            ));
        }
        assert!(fixture.bytes("replica.raw") == before);
        let vhdx = to.replace("replica.raw", "remote-copy.vhdx");
        fixture.done(&format!("sync {from} {vhdx} --rsh ./rsh"));
        fixture.done("diff evil.vhdx remote-copy.vhdx");
    }
}

#[test]
fn a_disk_of_another_host_whose_guest_wrote_a_marker_is_read_where_that_is_declared() {
    let fixture = replicated(4);
    shell(&fixture, "--root . --read-only");
    for options in [
        "--mode delta",
        "--mode full",
        "--safety in-place",
        "--dry-run",
    ] {
        fixture.done("sync --quiet honest.vhdx there.vhdx");
        let words = format!("sync {options} ssh://host/evil.raw there.vhdx --rsh ./rsh");
        let run = fixture.run(&words);
        assert_eq!(run.status, 3, "{run:?}");
        assert!(run.stderr.contains("--marker-is-data"), "{run:?}");
        fixture.done("diff honest.vhdx there.vhdx");
        fixture.done(&format!("{words} --marker-is-data"));
        let same = fixture
            .run("diff evil.raw there.vhdx --marker-is-data")
            .status;
        assert_eq!(same, i32::from(options == "--dry-run"), "{options}");
    }
    fixture.done("sync ssh://host/evil.raw new.vhdx --rsh ./rsh --marker-is-data");
    fixture.done("diff evil.raw new.vhdx --marker-is-data");
    // A raw target cannot take it, however it is declared.
    let before = fixture.bytes("replica.raw");
    fixture
        .run("sync ssh://host/evil.raw replica.raw --rsh ./rsh --marker-is-data")
        .fails(2, "marker");
    assert!(fixture.bytes("replica.raw") == before);
}
