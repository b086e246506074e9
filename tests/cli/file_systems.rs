//! Disks with a file system on them, made and changed by the system's own tools.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::lab::{Lab, Loop, left_out, noise, oracle};

/// The tree that the file systems hold at first: this crate's own sources.
const TREE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
const DISK: &str = "96M";

#[test]
fn a_changed_file_system_is_whole_in_every_format_it_passes_through() {
    let lab = Lab::new();
    let (old, new) = (lab.path("old.raw"), lab.path("new.raw"));
    let made = oracle("mkfs.ext4", &["-q", "-F", "-d", TREE, text(&old), DISK]);
    if made.is_none() {
        return;
    }
    assert_eq!(made, Some(true));
    lab.done("sync old.raw a.vhd");
    lab.done("sync a.vhd back.raw");
    whole(&lab.path("back.raw"));
    fs::copy(&old, &new).unwrap();
    let changes = [change_unmounted, change_mounted];
    for (round, change) in changes.into_iter().enumerate() {
        if !change(&lab, &new) {
            continue;
        }
        whole(&new);
        let differs = lab.json("diff a.vhd new.raw").1;
        assert_eq!(differs["identical"], false, "the tools changed nothing");
        lab.done("sync new.raw a.vhd");
        assert_ne!(
            oracle(
                "qemu-img",
                &["compare", text(&new), text(&lab.path("a.vhd"))]
            ),
            Some(false)
        );
        let safety = ["atomic", "in-place"][round % 2];
        lab.done(&format!("sync a.vhd back.raw --safety {safety}"));
        whole(&lab.path("back.raw"));
        assert!(lab.bytes("back.raw") == lab.bytes("new.raw"));
        fs::copy(&old, lab.path("under.raw")).unwrap();
        let Some(device) = Loop::over(&lab.path("under.raw")) else {
            return;
        };
        lab.done(&format!(
            "sync back.raw {} --log-dir logs --safety {safety}",
            device.0
        ));
        whole(Path::new(&device.0));
        assert!(device.bytes() == lab.bytes("new.raw"));
        same_files(&lab, &device);
    }
}

/// Adds, removes and renames files behind the kernel's back.
fn change_unmounted(lab: &Lab, disk: &Path) -> bool {
    fs::write(lab.path("big"), noise(5_000_000, 1)).unwrap();
    let requests = format!(
        "mkdir added\nwrite {} added/big\nrm lib.rs\nln main.rs added/main.rs\nunlink main.rs\n",
        text(&lab.path("big"))
    );
    fs::write(lab.path("requests"), requests).unwrap();
    let done = oracle(
        "debugfs",
        &["-w", "-f", text(&lab.path("requests")), text(disk)],
    );
    done == Some(true)
}

/// Changes files as a guest would: the journal, times and bitmaps change with them.
fn change_mounted(lab: &Lab, disk: &Path) -> bool {
    let at = lab.path("mounted");
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
fn same_files(lab: &Lab, device: &Loop) {
    let (one, other) = (lab.path("one"), lab.path("other"));
    let new = lab.path("new.raw");
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
