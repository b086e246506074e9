//! Disks with a file system on them, made and changed by the system's own tools.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::fixture::{Fixture, Loop, left_out, noise, oracle};

/// The tree that the file systems hold at first: this crate's own sources.
const TREE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
const DISK: &str = "96M";

#[test]
fn a_changed_file_system_is_whole_in_every_format_it_passes_through() {
    let fixture = Fixture::new();
    let (old, new) = (fixture.path("old.raw"), fixture.path("new.raw"));
    let made = oracle("mkfs.ext4", &["-q", "-F", "-d", TREE, text(&old), DISK]);
    if made.is_none() {
        return;
    }
    assert_eq!(made, Some(true));
    fixture.done("sync old.raw a.vhd");
    fixture.done("sync a.vhd back.raw");
    whole(&fixture.path("back.raw"));
    fs::copy(&old, &new).unwrap();
    let changes = [change_unmounted, change_mounted];
    for (round, change) in changes.into_iter().enumerate() {
        if !change(&fixture, &new) {
            continue;
        }
        whole(&new);
        let differs = fixture.json("diff a.vhd new.raw").1;
        assert_eq!(differs["identical"], false, "the tools changed nothing");
        fixture.done("sync new.raw a.vhd");
        assert_ne!(
            oracle(
                "qemu-img",
                &["compare", text(&new), text(&fixture.path("a.vhd"))]
            ),
            Some(false)
        );
        let safety = ["atomic", "in-place"][round % 2];
        fixture.done(&format!("sync a.vhd back.raw --safety {safety}"));
        whole(&fixture.path("back.raw"));
        assert!(fixture.bytes("back.raw") == fixture.bytes("new.raw"));
        fs::copy(&old, fixture.path("under.raw")).unwrap();
        let Some(device) = Loop::over(&fixture.path("under.raw")) else {
            return;
        };
        fixture.done(&format!(
            "sync back.raw {} --log-dir logs --safety {safety}",
            device.0
        ));
        whole(Path::new(&device.0));
        assert!(device.bytes() == fixture.bytes("new.raw"));
        same_files(&fixture, &device);
    }
}

/// Adds, removes and renames files behind the kernel's back.
fn change_unmounted(fixture: &Fixture, disk: &Path) -> bool {
    fs::write(fixture.path("big"), noise(5_000_000, 1)).unwrap();
    let requests = format!(
        "mkdir added\nwrite {} added/big\nrm lib.rs\nln main.rs added/main.rs\nunlink main.rs\n",
        text(&fixture.path("big"))
    );
    fs::write(fixture.path("requests"), requests).unwrap();
    let done = oracle(
        "debugfs",
        &["-w", "-f", text(&fixture.path("requests")), text(disk)],
    );
    done == Some(true)
}

/// Changes files as a guest would: the journal, times and bitmaps change with them.
fn change_mounted(fixture: &Fixture, disk: &Path) -> bool {
    let at = fixture.path("mounted");
    fs::create_dir_all(&at).unwrap();
    let mounted = oracle("mount", &["-o", "loop", text(disk), text(&at)]);
    if mounted != Some(true) {
        left_out("nothing can be mounted here");
        return false;
    }
    fs::remove_dir_all(at.join("image")).unwrap();
    fs::write(at.join("notes"), noise(300_000, 2)).unwrap();
    fs::create_dir(at.join("copy")).unwrap();
    for entry in fs::read_dir(Path::new(TREE).join("sync/commit")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), at.join("copy").join(entry.file_name())).unwrap();
    }
    assert_eq!(oracle("umount", &[text(&at)]), Some(true));
    true
}

/// The file system has no fault, as its own checker sees it; nothing is repaired.
fn whole(disk: &Path) {
    let checked = Command::new("e2fsck")
        .args(["-f", "-n", text(disk)])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(checked.status.success(), "{}: {said}", disk.display());
}

/// Files read through the kernel from the device are those of the changed disk.
fn same_files(fixture: &Fixture, device: &Loop) {
    let (one, other) = (fixture.path("one"), fixture.path("other"));
    let new = fixture.path("new.raw");
    for (disk, at) in [(device.0.as_str(), &one), (text(&new), &other)] {
        let _ = fs::remove_dir_all(at);
        fs::create_dir(at).unwrap();
        let request = format!("rdump / {}", text(at));
        assert_ne!(oracle("debugfs", &["-R", &request, disk]), Some(false));
    }
    assert!(
        fs::read_dir(&one).unwrap().count() > 3,
        "the disk has no files"
    );
    assert_ne!(
        oracle("diff", &["-r", text(&one), text(&other)]),
        Some(false)
    );
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
