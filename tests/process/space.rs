//! File systems and devices that fill up.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::fixture::{Fixture, PAGE, noise};
use crate::host::{LoopDevice, Mount, has_loop_devices, run};

/// A small file system of its own, mounted at `small` in the fixture.
struct Small {
    _mount: Mount,
    _device: LoopDevice,
    point: PathBuf,
}

impl Small {
    fn new(fixture: &Fixture, mib: u64) -> Option<Small> {
        if !has_loop_devices() {
            return None;
        }
        let under = fixture.path("small.fs");
        File::create(&under).unwrap().set_len(mib << 20).unwrap();
        let name = under.to_str().unwrap();
        run("mkfs.ext4", &["-q", "-m", "0", "-O", "^has_journal", name]);
        let device = LoopDevice::attach(&under);
        let point = fixture.path("small");
        let mount = Mount::new(&[device.path().to_str().unwrap()], &point);
        Some(Small {
            _mount: mount,
            _device: device,
            point,
        })
    }

    /// Takes space until about so much is left.
    fn leave(&self, mib: u64) {
        let space = rustix::fs::statvfs(&self.point).unwrap();
        let free = space.f_bavail * space.f_frsize;
        let ballast = free.saturating_sub(mib << 20);
        let file = File::create(self.point.join("ballast")).unwrap();
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, ballast).unwrap();
    }

    fn make_room(&self) {
        fs::remove_file(self.point.join("ballast")).unwrap();
    }
}

/// A file that has the length and no data but its ends.
fn hollow(path: &Path, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    bytes[..PAGE].copy_from_slice(&noise(PAGE, 50));
    bytes[len - PAGE..].copy_from_slice(&noise(PAGE, 51));
    let file = File::create(path).unwrap();
    file.set_len(len as u64).unwrap();
    file.write_all_at(&bytes[..PAGE], 0).unwrap();
    file.write_all_at(&bytes[len - PAGE..], (len - PAGE) as u64)
        .unwrap();
    bytes
}

#[test]
fn no_room_for_a_redo_log_is_found_before_the_target_is_touched_and_the_choices_are_named() {
    let fixture = Fixture::new();
    let Some(small) = Small::new(&fixture, 32) else {
        return;
    };
    fixture.disk("new.raw", PAGES, 1);
    let before = noise(PAGES * PAGE, 2);
    fs::write(small.point.join("t.raw"), &before).unwrap();
    small.leave(6);
    let run = fixture.run("sync new.raw small/t.raw --mode delta");
    assert_eq!(run.status, 2, "{run:?}");
    for part in ["the target is untouched", "--log-dir", "--safety in-place"] {
        assert!(run.stderr.contains(part), "{part}: {run:?}");
    }
    assert!(fixture.bytes("small/t.raw") == before);
    let run = fixture.run("sync new.raw small/t.raw --mode full");
    assert_eq!(run.status, 2, "{run:?}");
    for part in [
        "the target is untouched",
        "--mode delta",
        "--safety in-place",
    ] {
        assert!(run.stderr.contains(part), "{part}: {run:?}");
    }
    assert!(fixture.bytes("small/t.raw") == before);
    // Each choice that is named works.
    fixture.done("sync new.raw small/t.raw --mode delta --log-dir logs");
    assert!(fixture.bytes("small/t.raw") == fixture.bytes("new.raw"));
    fs::write(small.point.join("t.raw"), &before).unwrap();
    fixture.done("recover small/t.raw --discard");
    fixture.done("sync new.raw small/t.raw --safety in-place");
    assert!(fixture.bytes("small/t.raw") == fixture.bytes("new.raw"));
}

#[test]
fn no_room_where_the_target_has_holes_is_found_before_it_is_touched() {
    let fixture = Fixture::new();
    let Some(small) = Small::new(&fixture, 32) else {
        return;
    };
    fixture.disk("new.raw", PAGES, 1);
    let before = hollow(&small.point.join("t.raw"), PAGES * PAGE);
    fixture.done("sync new.raw model.vhd --create vhd-dynamic");
    fixture.done("sync small/t.raw small/t.vhd --create vhd-dynamic");
    small.leave(6);
    for target in ["small/t.raw", "small/t.vhd"] {
        let bytes = fixture.bytes(target);
        let run = fixture.run(&format!(
            "sync new.raw {target} --mode delta --log-dir logs"
        ));
        assert_eq!(run.status, 2, "{run:?}");
        assert!(run.stderr.contains("the target is untouched"), "{run:?}");
        assert!(run.stderr.contains("make room"), "{run:?}");
        assert!(fixture.bytes(target) == bytes);
    }
    assert!(fixture.bytes("small/t.raw") == before);
    small.make_room();
    fixture.done("sync new.raw small/t.raw --mode delta --log-dir logs");
    assert!(fixture.bytes("small/t.raw") == fixture.bytes("new.raw"));
}

#[test]
fn a_file_system_that_fills_up_under_an_in_place_sync_leaves_it_marked_and_resumable() {
    let fixture = Fixture::new();
    let Some(small) = Small::new(&fixture, 48) else {
        return;
    };
    fixture.disk("new.raw", PAGES, 1);
    hollow(&small.point.join("t.raw"), PAGES * PAGE);
    fixture.done("sync small/t.raw small/t.vhd --create vhd-dynamic");
    for target in ["small/t.raw", "small/t.vhd"] {
        small.leave(6);
        let words = format!("sync new.raw {target} --safety in-place --mode delta");
        for _ in 0..2 {
            let run = fixture.run(&words);
            assert_eq!(run.status, 3, "{run:?}");
            assert!(run.stderr.contains("No space left"), "{run:?}");
            assert!(run.stderr.contains("run the same sync again"), "{run:?}");
        }
        fixture
            .run(&format!("info {target}"))
            .fails(3, "incomplete");
        small.make_room();
        fixture.done(&words);
        fixture.done(&format!("diff new.raw {target}"));
        fs::remove_file(fixture.path(target)).unwrap();
    }
}

#[test]
fn a_thin_device_that_stops_taking_writes_stays_marked_until_it_takes_them_again() {
    let fixture = Fixture::new();
    let Some(small) = Small::new(&fixture, 32) else {
        return;
    };
    fixture.disk("new.raw", PAGES, 1);
    hollow(&small.point.join("under"), PAGES * PAGE);
    small.leave(6);
    // The device says nothing of what lies below it running full.
    let device = Thin::over(&small.point.join("under"));
    let words = format!("{} --log-dir logs", device.0);
    let run = fixture.run(&format!("sync new.raw {words} --mode delta"));
    assert_eq!(run.status, 3, "{run:?}");
    assert!(run.stderr.contains("diskdelta recover"), "{run:?}");
    fixture
        .run(&format!("recover {words}"))
        .fails(3, "diskdelta recover");
    small.make_room();
    fixture.done(&format!("recover {words}"));
    assert!(fs::read(&device.0).unwrap() == fixture.bytes("new.raw"));
    drop(device);
    assert!(fixture.bytes("small/under") == fixture.bytes("new.raw"));
}

/// A second loop device, which needs no turn of its own: the file system's device has it.
struct Thin(String);

impl Thin {
    fn over(file: &Path) -> Thin {
        let file = file.to_str().unwrap();
        Thin(run("losetup", &["--find", "--show", file]))
    }
}

impl Drop for Thin {
    fn drop(&mut self) {
        run("losetup", &["-d", &self.0]);
    }
}

const PAGES: usize = 4000;
