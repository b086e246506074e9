//! What the system does not allow is found before the target is touched.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::host::{LoopDevice, Mount, has_loop_devices, run};
use crate::lab::{COMMAND, Lab, PAGE, Run, noise};

const MIB: usize = 1 << 20;

/// An ext4 of its own, mounted at `small` in the lab.
struct Small {
    _mount: Mount,
    _device: LoopDevice,
    point: PathBuf,
}

impl Small {
    fn new(lab: &Lab, mib: u64) -> Option<Small> {
        if !has_loop_devices() {
            return None;
        }
        let point = lab.path("small");
        let under = lab.path("small.fs");
        File::create(&under).unwrap().set_len(mib << 20).unwrap();
        let name = under.to_str().unwrap();
        run("mkfs.ext4", &["-q", "-m", "0", "-O", "^has_journal", name]);
        let device = LoopDevice::attach(&under);
        let mount = Mount::new(&[device.path().to_str().unwrap()], &point);
        Some(Small {
            _mount: mount,
            _device: device,
            point,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.point.join(name)
    }

    /// All names but those given, side files among them.
    fn others(&self, known: &[&str]) -> Vec<String> {
        let names = fs::read_dir(&self.point).unwrap();
        let names = names.map(|it| it.unwrap().file_name().into_string().unwrap());
        let known = |name: &String| known.contains(&name.as_str()) || name == "lost+found";
        names.filter(|name| !known(name)).collect()
    }
}

/// Bytes and allocation of a file.
#[derive(PartialEq, Eq)]
struct State {
    bytes: Vec<u8>,
    blocks: u64,
}

impl State {
    fn of(path: &Path) -> State {
        File::open(path).unwrap().sync_all().unwrap();
        State {
            bytes: fs::read(path).unwrap(),
            blocks: fs::metadata(path).unwrap().blocks(),
        }
    }
}

fn same(path: &Path, before: &State, what: &str) {
    let now = State::of(path);
    assert!(now.bytes == before.bytes, "{what}: other bytes");
    assert_eq!(now.blocks, before.blocks, "{what}");
}

/// A file of `len` bytes with data at these places, and holes.
fn sparse(path: &Path, len: usize, data: &[(usize, usize)], seed: u64) {
    let file = File::create(path).unwrap();
    file.set_len(len as u64).unwrap();
    for (at, bytes) in data {
        let bytes = noise(*bytes, seed + *at as u64);
        file.write_all_at(&bytes, *at as u64).unwrap();
    }
    file.sync_all().unwrap();
}

#[test]
fn a_length_that_the_file_system_cannot_hold_is_refused_at_once() {
    let lab = Lab::new();
    let Some(small) = Small::new(&lab, 64) else {
        return;
    };
    // Holes up to 20 TiB, on a file system that takes them.
    let big = lab.path("big");
    let _big = Mount::new(&["-t", "tmpfs", "none"], &big);
    let source = File::create(big.join("s.raw")).unwrap();
    source.write_all_at(&noise(MIB, 1), 0).unwrap();
    source.set_len(20 << 40).unwrap();
    let target = small.path("t.raw");
    sparse(&target, 4 * MIB, &[(0, PAGE)], 1);
    let before = State::of(&target);
    let stages = "--stage-dir stages";
    for words in [
        format!("sync big/s.raw small/t.raw {stages}"),
        format!("sync big/s.raw small/t.raw {stages} --dry-run"),
        format!("sync big/s.raw small/t.raw {stages} --mode delta --undo u.delta"),
        format!("sync big/s.raw small/t.raw {stages} --mode delta --allocation full"),
        format!("sync big/s.raw small/t.raw {stages} --safety in-place"),
        "sync big/s.raw small/t.raw --mode full".to_owned(),
        "sync big/s.raw small/t.raw --mode full --dry-run".to_owned(),
        "sync big/s.raw small/new.raw".to_owned(),
        "sync big/s.raw small/new.raw --dry-run".to_owned(),
        "sync big/s.raw small/new.vhd".to_owned(),
        "sync big/s.raw small/new.vhd --dry-run".to_owned(),
    ] {
        let run = lab.run(&words);
        assert_eq!(run.status, 2, "{words}: {run:?}");
        assert!(!run.stderr.contains("run the same sync again"), "{run:?}");
        same(&target, &before, &words);
        assert_eq!(small.others(&["t.raw"]), [""; 0], "{words}");
        assert!(!lab.path("u.delta").exists());
    }
}

#[test]
fn an_image_that_cannot_be_is_refused_before_anything_is_made() {
    let lab = Lab::new();
    fs::write(lab.path("empty.raw"), "").unwrap();
    lab.disk("page.raw", 1, 1);
    for words in [
        "sync empty.raw t.vhdx",
        "sync empty.raw t.vhdx --dry-run",
        "sync empty.raw t.vhdx --create vhdx-fixed",
    ] {
        let run = lab.run(words);
        assert_eq!(run.status, 2, "{run:?}");
        assert!(!run.stderr.contains("again"), "{run:?}");
        assert_eq!(lab.names(), ["empty.raw", "page.raw"], "{words}");
    }
}

/// Runs the command with a limit on the length of files, in KiB; the signal as programs have it.
fn limited(lab: &Lab, kib: u64, words: &str) -> Run {
    let script = format!("ulimit -f {kib} && exec {COMMAND} {words}");
    let output = Command::new("bash")
        .args(["-c", &script])
        .current_dir(lab.path("."))
        .output()
        .unwrap();
    Run {
        status: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn a_limit_on_the_length_of_files_is_an_error_before_the_target_is_touched() {
    let lab = Lab::new();
    let names = ["new.raw", "t.raw"];
    lab.disk("new.raw", 8 * MIB / PAGE, 1);
    let source = File::options()
        .write(true)
        .open(lab.path("new.raw"))
        .unwrap();
    source.set_len(64 << 20).unwrap();
    lab.disk("t.raw", 4 * MIB / PAGE, 2);
    let before = State::of(&lab.path("t.raw"));
    for (kib, words) in [
        // Less than the target has already, than it will have, than a copy or a stage needs.
        (2048, "sync new.raw t.raw --mode delta"),
        (2048, "sync new.raw t.raw --safety in-place"),
        (20480, "sync new.raw t.raw --mode delta"),
        (20480, "sync new.raw t.raw --mode delta --dry-run"),
        (20480, "sync new.raw t.raw --mode delta --allocation sparse"),
        (20480, "sync new.raw t.raw --safety in-place"),
        (20480, "sync new.raw t.raw --mode full"),
        (20480, "sync new.raw n.raw"),
        (20480, "sync new.raw n.raw --dry-run"),
        (2048, "delta create t.raw new.raw -o d.delta"),
    ] {
        let run = limited(&lab, kib, words);
        assert_eq!(run.status, 2, "{kib} {words}: {run:?}");
        assert!(run.stderr.contains("ulimit -f"), "{words}: {run:?}");
        same(&lab.path("t.raw"), &before, words);
        assert_eq!(lab.names(), names, "{words}");
    }
}

#[test]
fn programs_that_the_command_starts_have_the_file_size_signal_as_it_is_by_default() {
    let lab = Lab::new();
    lab.disk("t.raw", 4, 1);
    let rsh = "#!/bin/sh\ngrep -E 'Sig(Ign|Blk)' /proc/self/status > seen\nexit 1\n";
    fs::write(lab.path("rsh"), rsh).unwrap();
    run("chmod", &["+x", lab.path("rsh").to_str().unwrap()]);
    let run = lab.run("sync t.raw ssh://h/t.raw --rsh ./rsh");
    assert_eq!(run.status, 2, "{run:?}");
    let seen = fs::read_to_string(lab.path("seen")).unwrap();
    let bit = 1u64 << (rustix::process::Signal::XFSZ.as_raw() - 1);
    assert_eq!(seen.lines().count(), 2, "{seen}");
    for line in seen.lines() {
        let set = u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap();
        assert_eq!(set & bit, 0, "{seen}");
    }
}

#[test]
fn a_read_only_device_is_refused_at_once() {
    if !has_loop_devices() {
        return;
    }
    let lab = Lab::new();
    lab.disk("under", 4 * MIB / PAGE, 1);
    lab.disk("new.raw", 4 * MIB / PAGE, 2);
    let before = lab.bytes("under");
    let device = LoopDevice::attach_with(&lab.path("under"), &["--read-only"]);
    let device = device.path().to_str().unwrap();
    for words in [
        "",
        "--dry-run",
        "--safety in-place",
        "--safety in-place --hold",
    ] {
        let run = lab.run(&format!("sync new.raw {device} --stage-dir stages {words}"));
        run.fails(2, "read-only");
        assert!(!lab.path("stages").exists(), "{words}");
    }
    assert!(lab.bytes("under") == before);
}

#[test]
fn a_folder_that_cannot_be_written_is_found_at_once_and_another_one_named() {
    let lab = Lab::new();
    let Some(small) = Small::new(&lab, 32) else {
        return;
    };
    lab.disk("new.raw", 600, 1);
    fs::create_dir(small.path("fixed")).unwrap();
    fs::write(small.path("fixed/t.raw"), noise(600 * PAGE, 2)).unwrap();
    fs::copy(small.path("fixed/t.raw"), small.path("fixed/same.raw")).unwrap();
    let folder = small.path("fixed");
    run("chattr", &["+i", folder.to_str().unwrap()]);
    for words in [
        "--mode delta",
        "--mode delta --dry-run",
        "--mode full",
        "--mode full --dry-run",
        "--safety in-place",
        "--safety in-place --hold",
    ] {
        let run = lab.run(&format!("sync new.raw small/fixed/t.raw {words}"));
        run.fails(2, "--stage-dir");
        assert!(run.stderr.contains("the target is untouched"), "{run:?}");
    }
    // Nothing is written where nothing differs.
    for words in ["", "--dry-run", "--safety in-place", "--undo small/fixed/u"] {
        lab.done(&format!(
            "sync small/fixed/same.raw small/fixed/t.raw {words}"
        ));
    }
    let run = lab.run("sync new.raw small/fixed/n.raw --dry-run");
    run.fails(2, "nothing was made");
    lab.done("sync new.raw small/fixed/t.raw --mode delta --stage-dir stages");
    assert!(lab.bytes("small/fixed/t.raw") == lab.bytes("new.raw"));
    self::run("chattr", &["-i", folder.to_str().unwrap()]);
}
