//! No room, and lengths that are not allowed: found before the target is touched, nothing kept.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::fixture::{COMMAND, Fixture, PAGE, Run, noise, write_at};
use crate::host::{LoopDevice, Mount, has_loop_devices, has_program, run};

const MIB: usize = 1 << 20;

/// A file system of its own, mounted at `small` in the fixture.
pub struct Small {
    _mount: Mount,
    _device: Option<LoopDevice>,
    point: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Ext4,
    Tmpfs,
    Btrfs,
    Xfs,
}

impl Small {
    pub fn new(fixture: &Fixture, kind: Kind, mib: u64) -> Option<Small> {
        let program = match kind {
            Kind::Ext4 => "mkfs.ext4",
            Kind::Tmpfs => "mount",
            Kind::Btrfs => "mkfs.btrfs",
            Kind::Xfs => "mkfs.xfs",
        };
        if !has_loop_devices() || (kind != Kind::Ext4 && !has_program(program)) {
            return None;
        }
        let point = fixture.path("small");
        if kind == Kind::Tmpfs {
            let size = format!("size={mib}M");
            let mount = Mount::new(&["-t", "tmpfs", "-o", &size, "none"], &point);
            return Some(Small {
                _mount: mount,
                _device: None,
                point,
            });
        }
        let under = fixture.path("small.fs");
        // The least that these are made on.
        let mib = match kind {
            Kind::Btrfs => mib.max(128),
            Kind::Xfs => mib.max(320),
            _ => mib,
        };
        File::create(&under).unwrap().set_len(mib << 20).unwrap();
        let name = under.to_str().unwrap();
        match kind {
            Kind::Ext4 => run(program, &["-q", "-m", "0", "-O", "^has_journal", name]),
            _ => run(program, &["-q", name]),
        };
        let device = LoopDevice::attach(&under);
        let mount = Mount::new(&[device.path().to_str().unwrap()], &point);
        Some(Small {
            _mount: mount,
            _device: Some(device),
            point,
        })
    }

    pub fn free(&self) -> u64 {
        let space = rustix::fs::statvfs(&self.point).unwrap();
        space.f_bavail * space.f_frsize
    }

    /// Takes space until so many bytes are left, or what is taken in one piece at least.
    pub fn leave(&self, bytes: u64) {
        let file = File::create(self.point.join("ballast")).unwrap();
        let mut at = 0;
        let mut step = 64 << 20;
        while self.free() > bytes && step >= 4096 {
            let piece = step.min((self.free() - bytes).next_multiple_of(4096));
            let flags = rustix::fs::FallocateFlags::empty();
            match rustix::fs::fallocate(&file, flags, at, piece) {
                Ok(()) => at += piece,
                Err(_) => step /= 2,
            }
            file.sync_all().unwrap();
        }
    }

    fn make_room(&self) {
        fs::remove_file(self.point.join("ballast")).unwrap();
        // Some file systems give space back with the next commit only.
        run("sync", &["-f", self.point.to_str().unwrap()]);
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.point.join(name)
    }

    /// All names but those given, side files among them.
    pub fn others(&self, known: &[&str]) -> Vec<String> {
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
    // A file's own list of what it takes may need a block more once it was long.
    let more = now.blocks.abs_diff(before.blocks);
    assert!(
        more <= 32,
        "{what}: {} blocks, and {} before",
        now.blocks,
        before.blocks
    );
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

/// What every refusal for lack of room is like.
fn refused(run: &Run) {
    assert_eq!(run.status, 2, "{run:?}");
    assert!(run.stderr.contains("No space left"), "{run:?}");
    assert!(run.stderr.contains("untouched"), "{run:?}");
}

#[test]
fn a_thick_target_that_cannot_grow_is_not_marked_and_gets_no_larger() {
    for kind in [Kind::Ext4, Kind::Tmpfs] {
        let fixture = Fixture::new();
        let Some(small) = Small::new(&fixture, kind, 64) else {
            return;
        };
        let old = noise(4 * MIB, 1);
        fs::write(fixture.path("src.raw"), &old).unwrap();
        let longer = |name: &str, len: u64| {
            let file = File::options()
                .write(true)
                .open(fixture.path(name))
                .unwrap();
            file.set_len(len).unwrap();
        };
        longer("src.raw", 400 << 20);
        let target = small.path("t.raw");
        fs::write(&target, &old).unwrap();
        let before = State::of(&target);
        let free = small.free();
        for words in [
            "--mode delta --log-dir logs",
            "--mode delta --log-dir logs --allocation full",
            "--safety in-place --log-dir logs",
            "--safety in-place --hold --log-dir logs",
        ] {
            let run = fixture.run(&format!("sync src.raw small/t.raw {words}"));
            refused(&run);
            assert!(run.stderr.contains("--allocation sparse"), "{run:?}");
            same(&target, &before, words);
            assert!(free.abs_diff(small.free()) <= 16384, "{words}");
            let run = fixture.run("recover --discard small/t.raw --log-dir logs");
            assert_eq!(run.status, 0, "{run:?}");
        }
        fixture.done("delta create small/t.raw src.raw -o d.delta");
        let run = fixture.run("delta apply d.delta small/t.raw --log-dir logs");
        refused(&run);
        same(&target, &before, "delta apply");
        // From exactly this state, as the error says.
        fixture.done("recover --discard small/t.raw --log-dir logs");
        fixture.done("sync src.raw small/t.raw --mode delta --log-dir logs --allocation sparse");
        fixture.done("diff src.raw small/t.raw");
        assert!(small.others(&["t.raw"]).is_empty());
    }
}

#[test]
fn the_marker_has_room_of_its_own_or_is_not_set() {
    for kind in [Kind::Ext4, Kind::Tmpfs, Kind::Xfs] {
        let fixture = Fixture::new();
        let Some(small) = Small::new(&fixture, kind, 64) else {
            continue;
        };
        // Both ends are holes, and what changes is not.
        let target = small.path("t.raw");
        sparse(&target, 24 * MIB, &[(12 * MIB, 64 * 1024)], 1);
        fs::copy(&target, fixture.path("new.raw")).unwrap();
        let new = File::options()
            .write(true)
            .open(fixture.path("new.raw"))
            .unwrap();
        new.write_all_at(&noise(PAGE, 2), (12 * MIB + 3 * PAGE) as u64)
            .unwrap();
        small.leave(1 << 20);
        let before = State::of(&target);
        for words in [
            "sync new.raw small/t.raw --mode delta --clone never",
            "sync new.raw small/t.raw --safety in-place",
            "sync new.raw small/t.raw --safety in-place --hold",
            "sync new.raw small/t.raw --mode delta --clone never --undo u.delta",
        ] {
            let run = fixture.run(&format!("{words} --log-dir logs"));
            refused(&run);
            same(&target, &before, words);
            assert!(!fixture.path("u.delta").exists());
        }
        small.make_room();
        fixture.done("sync new.raw small/t.raw --mode delta --log-dir logs");
        assert!(fixture.bytes("small/t.raw") == fixture.bytes("new.raw"));
    }
}

#[test]
fn data_over_holes_has_room_before_the_target_is_marked_whatever_the_format() {
    for kind in [Kind::Ext4, Kind::Tmpfs, Kind::Btrfs, Kind::Xfs] {
        let fixture = Fixture::new();
        let Some(small) = Small::new(&fixture, kind, 64) else {
            continue;
        };
        // One page of sixteen is there, so that no frame is all hole.
        let pages: Vec<_> = (0..64).map(|at| (8 * MIB + at * 65536, PAGE)).collect();
        let ends = [(0, MIB), (23 * MIB, MIB)];
        let data = [&pages[..], &ends[..]].concat();
        sparse(&fixture.path("old.raw"), 24 * MIB, &data, 1);
        sparse(&fixture.path("new.raw"), 24 * MIB, &data, 1);
        let new = File::options()
            .write(true)
            .open(fixture.path("new.raw"))
            .unwrap();
        new.write_all_at(&noise(12 * MIB, 3), 8 << 20).unwrap();
        let targets = [
            ("t.raw", "raw"),
            ("f.vhd", "vhd-fixed"),
            ("d.vhd", "vhd-dynamic"),
            ("f.vhdx", "vhdx-fixed"),
            ("d.vhdx", "vhdx-dynamic"),
        ];
        for (name, format) in targets {
            fixture.done(&format!("sync old.raw small/{name} --create {format}"));
        }
        small.leave(6 << 20);
        for (name, _) in targets {
            let target = small.path(name);
            let before = State::of(&target);
            let free = small.free();
            let words =
                format!("sync new.raw small/{name} --mode delta --clone never --log-dir logs");
            let run = fixture.run(&words);
            let what = format!("{kind:?} {name}");
            refused(&run);
            assert!(run.stderr.contains("make room"), "{run:?}");
            same(&target, &before, &what);
            if kind == Kind::Ext4 || kind == Kind::Tmpfs {
                assert!(free.abs_diff(small.free()) <= 16384, "{what}");
            }
            fixture.done(&format!("recover --discard small/{name} --log-dir logs"));
            assert!(
                small
                    .others(&["t.raw", "f.vhd", "d.vhd", "f.vhdx", "d.vhdx", "ballast"])
                    .is_empty()
            );
        }
        small.make_room();
        let words = "sync new.raw small/d.vhdx --mode delta --log-dir logs";
        fixture.done(words);
        fixture.done("diff new.raw small/d.vhdx");
    }
}

#[test]
fn what_ran_out_of_room_is_removed_so_that_each_way_that_is_named_works() {
    for kind in [Kind::Ext4, Kind::Tmpfs] {
        for (first, words) in [
            ("--mode full", "--mode delta --log-dir logs"),
            ("--mode full", "--safety in-place"),
            ("--mode delta", "--safety in-place"),
            ("--mode delta", "--mode delta --log-dir logs"),
        ] {
            let fixture = Fixture::new();
            let Some(small) = Small::new(&fixture, kind, 64) else {
                break;
            };
            fixture.disk("new.raw", 12 * MIB / PAGE, 1);
            let before = noise(12 * MIB, 2);
            fs::write(small.path("t.raw"), &before).unwrap();
            small.leave(8 << 20);
            let run = fixture.run(&format!("sync new.raw small/t.raw {first}"));
            refused(&run);
            assert!(fixture.bytes("small/t.raw") == before);
            assert_eq!(
                small.others(&["t.raw", "ballast"]),
                [""; 0],
                "{kind:?} {first}"
            );
            fixture.done(&format!("sync new.raw small/t.raw {words}"));
            assert!(fixture.bytes("small/t.raw") == fixture.bytes("new.raw"));
            assert_eq!(
                small.others(&["t.raw", "ballast"]),
                [""; 0],
                "{kind:?} {words}"
            );
        }
    }
}

#[test]
fn where_a_reservation_promises_nothing_the_target_is_recovered_once_there_is_room() {
    let fixture = Fixture::new();
    let Some(small) = Small::new(&fixture, Kind::Btrfs, 128) else {
        return;
    };
    fixture.disk("new.raw", 12 * MIB / PAGE, 1);
    for (words, sync_kind) in [
        (
            "--mode delta --clone never",
            "recover small/t.raw --log-dir logs",
        ),
        (
            "--safety in-place",
            "sync new.raw small/t.raw --safety in-place --log-dir logs",
        ),
    ] {
        let before = noise(12 * MIB, 2);
        fs::write(small.path("t.raw"), &before).unwrap();
        // What is there is written elsewhere when it changes.
        small.leave(4 << 20);
        let run = fixture.run(&format!("sync new.raw small/t.raw {words} --log-dir logs"));
        match run.status {
            0 => {}
            2 => assert!(fixture.bytes("small/t.raw") == before, "{run:?}"),
            _ => assert!(run.stderr.contains("make room"), "{run:?}"),
        }
        let was_marked = run.status == 3;
        small.make_room();
        if was_marked {
            fixture.done(sync_kind);
        } else {
            fixture.done(&format!("sync new.raw small/t.raw {words} --log-dir logs"));
        }
        assert!(fixture.bytes("small/t.raw") == fixture.bytes("new.raw"));
    }
}

#[test]
fn outputs_without_room_leave_nothing() {
    let fixture = Fixture::new();
    let Some(small) = Small::new(&fixture, Kind::Ext4, 64) else {
        return;
    };
    fixture.disk("new.raw", 8 * MIB / PAGE, 1);
    fixture.disk("t.raw", 8 * MIB / PAGE, 2);
    let before = fixture.bytes("t.raw");
    small.leave(2 << 20);
    for words in [
        "sync new.raw t.raw --mode delta --undo small/u.delta",
        "delta create t.raw new.raw -o small/d.delta",
        "sync new.raw small/n.raw",
        "sync new.raw small/n.vhdx",
        "sync new.raw small/n.vhd --create vhd-fixed --allocation full",
    ] {
        let run = fixture.run(words);
        assert_eq!(run.status, 2, "{run:?}");
        assert!(run.stderr.contains("No space left"), "{run:?}");
        assert_eq!(small.others(&["ballast"]), [""; 0], "{words}");
        assert!(fixture.bytes("t.raw") == before);
    }
    small.leave(8192);
    for words in [
        "manifest new.raw --block-size 4K -o small/m",
        "sync new.raw t.raw --mode delta --target-manifest small/m --block-size 4K",
    ] {
        let run = fixture.run(words);
        assert_eq!(run.status, 2, "{run:?}");
        assert_eq!(small.others(&["ballast"]), [""; 0], "{words}");
        assert!(fixture.bytes("t.raw") == before);
    }
}

#[test]
fn a_recovery_without_room_for_a_thick_tail_names_a_way_that_works() {
    let fixture = Fixture::new();
    let Some(small) = Small::new(&fixture, Kind::Ext4, 64) else {
        return;
    };
    let old = noise(4 * MIB, 1);
    fs::write(fixture.path("src.raw"), noise(4 * MIB, 2)).unwrap();
    let source = File::options()
        .write(true)
        .open(fixture.path("src.raw"))
        .unwrap();
    source.set_len(40 << 20).unwrap();
    // Marked where there was room, and moved to where there is none.
    fs::write(fixture.path("t.raw"), &old).unwrap();
    marked(&fixture, "sync src.raw t.raw --mode delta");
    // As long as it was when it was marked.
    let target = File::options()
        .write(true)
        .open(fixture.path("t.raw"))
        .unwrap();
    target.set_len(4 << 20).unwrap();
    small.leave(24 << 20);
    for name in ["t.raw", ".t.raw.diskdelta-log"] {
        fs::copy(fixture.path(name), small.path(name)).unwrap();
        fs::remove_file(fixture.path(name)).unwrap();
    }
    let free = small.free();
    let run = fixture.run("recover small/t.raw");
    assert_eq!(run.status, 3, "{run:?}");
    for part in ["marked and incomplete", "make room", "--allocation sparse"] {
        assert!(run.stderr.contains(part), "{part}: {run:?}");
    }
    assert!(free - small.free() < 3 << 20, "what was reserved is kept");
    fixture.done("recover small/t.raw --allocation sparse");
    fixture.done("diff src.raw small/t.raw");
}

/// Runs a sync and kills it once its target is marked.
fn marked(fixture: &Fixture, words: &str) {
    let target = words.split_whitespace().nth(2).unwrap();
    for _ in 0..200 {
        let mut child = fixture.start(words);
        while !is_marked(&fixture.path(target)) && child.try_wait().unwrap().is_none() {}
        let _ = child.kill();
        child.wait().unwrap();
        if is_marked(&fixture.path(target)) {
            return;
        }
        fs::write(fixture.path(target), noise(4 * MIB, 1)).unwrap();
    }
    panic!("never marked");
}

fn is_marked(path: &Path) -> bool {
    let mut head = [0; 15];
    let read = File::open(path).and_then(|file| file.read_exact_at(&mut head, 0));
    read.is_ok() && head == *b"\0diskdelta mark"
}

#[test]
fn a_length_that_the_file_system_cannot_hold_is_refused_at_once() {
    let fixture = Fixture::new();
    let Some(small) = Small::new(&fixture, Kind::Ext4, 64) else {
        return;
    };
    // Holes up to 20 TiB, on a file system that takes them.
    let big = fixture.path("big");
    let _big = Mount::new(&["-t", "tmpfs", "none"], &big);
    let source = File::create(big.join("s.raw")).unwrap();
    source.write_all_at(&noise(MIB, 1), 0).unwrap();
    source.set_len(20 << 40).unwrap();
    let target = small.path("t.raw");
    sparse(&target, 4 * MIB, &[(0, PAGE)], 1);
    let before = State::of(&target);
    let logs = "--log-dir logs";
    for words in [
        format!("sync big/s.raw small/t.raw {logs}"),
        format!("sync big/s.raw small/t.raw {logs} --dry-run"),
        format!("sync big/s.raw small/t.raw {logs} --mode delta --undo u.delta"),
        format!("sync big/s.raw small/t.raw {logs} --mode delta --allocation full"),
        format!("sync big/s.raw small/t.raw {logs} --safety in-place"),
        "sync big/s.raw small/t.raw --mode full".to_owned(),
        "sync big/s.raw small/t.raw --mode full --dry-run".to_owned(),
        "sync big/s.raw small/new.raw".to_owned(),
        "sync big/s.raw small/new.raw --dry-run".to_owned(),
        "sync big/s.raw small/new.vhd".to_owned(),
        "sync big/s.raw small/new.vhd --dry-run".to_owned(),
    ] {
        let run = fixture.run(&words);
        assert_eq!(run.status, 2, "{words}: {run:?}");
        assert!(!run.stderr.contains("run the same sync again"), "{run:?}");
        same(&target, &before, &words);
        assert_eq!(small.others(&["t.raw"]), [""; 0], "{words}");
        assert!(!fixture.path("u.delta").exists());
    }
}

#[test]
fn an_image_that_cannot_be_is_refused_before_anything_is_made() {
    let fixture = Fixture::new();
    fs::write(fixture.path("empty.raw"), "").unwrap();
    fixture.disk("page.raw", 1, 1);
    for words in [
        "sync empty.raw t.vhdx",
        "sync empty.raw t.vhdx --dry-run",
        "sync empty.raw t.vhdx --create vhdx-fixed",
    ] {
        let run = fixture.run(words);
        assert_eq!(run.status, 2, "{run:?}");
        assert!(!run.stderr.contains("again"), "{run:?}");
        assert_eq!(fixture.names(), ["empty.raw", "page.raw"], "{words}");
    }
}

/// Runs the command with a limit on the length of files, in KiB; the signal as programs have it.
fn limited(fixture: &Fixture, kib: u64, words: &str) -> Run {
    let script = format!("ulimit -f {kib} && exec {COMMAND} {words}");
    let output = Command::new("bash")
        .args(["-c", &script])
        .current_dir(fixture.path("."))
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
    let fixture = Fixture::new();
    let names = ["little.raw", "new.raw", "t.raw"];
    fixture.disk("new.raw", 8 * MIB / PAGE, 1);
    let source = File::options()
        .write(true)
        .open(fixture.path("new.raw"))
        .unwrap();
    source.set_len(64 << 20).unwrap();
    fixture.disk("t.raw", 4 * MIB / PAGE, 2);
    fixture.disk("little.raw", 4 * MIB / PAGE, 2);
    write_at(&fixture.path("little.raw"), MIB as u64, &noise(PAGE, 3));
    let before = State::of(&fixture.path("t.raw"));
    for (kib, words) in [
        // One page differs, and the marker at the end is beyond the limit.
        (3072, "sync little.raw t.raw --mode delta"),
        (3072, "sync little.raw t.raw --mode delta --dry-run"),
        // Less than the target has already, than it will have, than a copy or a redo log needs.
        (2048, "sync new.raw t.raw --mode delta"),
        (2048, "sync new.raw t.raw --safety in-place"),
        (20480, "sync new.raw t.raw --mode delta"),
        (20480, "sync new.raw t.raw --mode delta --dry-run"),
        (20480, "sync new.raw t.raw --mode delta --allocation sparse"),
        (20480, "sync new.raw t.raw --safety in-place"),
        (20480, "sync new.raw t.raw --mode full"),
        (20480, "sync new.raw n.raw"),
        (20480, "sync new.raw n.raw --dry-run"),
        (3072, "sync t.raw n.vhdx"),
        (2048, "delta create t.raw new.raw -o d.delta"),
    ] {
        let run = limited(&fixture, kib, words);
        assert_eq!(run.status, 2, "{kib} {words}: {run:?}");
        assert!(run.stderr.contains("ulimit -f"), "{words}: {run:?}");
        same(&fixture.path("t.raw"), &before, words);
        assert_eq!(fixture.names(), names, "{words}");
    }
}

#[test]
fn programs_that_the_command_starts_have_the_file_size_signal_as_it_is_by_default() {
    let fixture = Fixture::new();
    fixture.disk("t.raw", 4, 1);
    let rsh = "#!/bin/sh\ngrep -E 'Sig(Ign|Blk)' /proc/self/status > seen\nexit 1\n";
    fs::write(fixture.path("rsh"), rsh).unwrap();
    run("chmod", &["+x", fixture.path("rsh").to_str().unwrap()]);
    let run = fixture.run("sync t.raw ssh://h/t.raw --rsh ./rsh");
    assert_eq!(run.status, 2, "{run:?}");
    let seen = fs::read_to_string(fixture.path("seen")).unwrap();
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
    let fixture = Fixture::new();
    fixture.disk("under", 4 * MIB / PAGE, 1);
    fixture.disk("new.raw", 4 * MIB / PAGE, 2);
    let before = fixture.bytes("under");
    let device = LoopDevice::attach_with(&fixture.path("under"), &["--read-only"]);
    let device = device.path().to_str().unwrap();
    for words in [
        "",
        "--dry-run",
        "--safety in-place",
        "--safety in-place --hold",
    ] {
        let run = fixture.run(&format!("sync new.raw {device} --log-dir logs {words}"));
        run.fails(2, "read-only");
        assert!(!fixture.path("logs").exists(), "{words}");
    }
    assert!(fixture.bytes("under") == before);
}

#[test]
fn a_directory_that_cannot_be_written_is_found_at_once_and_another_one_named() {
    let fixture = Fixture::new();
    let Some(small) = Small::new(&fixture, Kind::Ext4, 32) else {
        return;
    };
    fixture.disk("new.raw", 600, 1);
    fs::create_dir(small.path("fixed")).unwrap();
    fs::write(small.path("fixed/t.raw"), noise(600 * PAGE, 2)).unwrap();
    let directory = small.path("fixed");
    run("chattr", &["+i", directory.to_str().unwrap()]);
    for words in [
        "--mode delta",
        "--mode delta --dry-run",
        "--mode full",
        "--mode full --dry-run",
        "--safety in-place",
        "--safety in-place --hold",
    ] {
        let run = fixture.run(&format!("sync new.raw small/fixed/t.raw {words}"));
        run.fails(2, "--log-dir");
        assert!(run.stderr.contains("the target is untouched"), "{run:?}");
    }
    let run = fixture.run("sync new.raw small/fixed/n.raw --dry-run");
    run.fails(2, "nothing was made");
    fixture.done("sync new.raw small/fixed/t.raw --mode delta --log-dir logs");
    assert!(fixture.bytes("small/fixed/t.raw") == fixture.bytes("new.raw"));
    self::run("chattr", &["-i", directory.to_str().unwrap()]);
}
