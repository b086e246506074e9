//! Block devices as targets and sources. Needs root and loop devices.

use std::fs::{self, File};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::process::Command;

use crate::fixture::{Fixture, Loop, PAGE, left_out, noise, write_at};
use crate::remote::shell;

#[test]
fn a_device_is_synced_with_its_redo_log_in_the_redo_log_directory() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 1000, 1);
    let under = fixture.disk("under.raw", 1000, 2);
    let Some(device) = Loop::over(&under) else {
        return;
    };
    let target = &device.0;
    fixture
        .run(&format!("sync new.raw {target} --log-dir /dev/shm"))
        .fails(2, "--log-dir");
    fixture.done(&format!("sync new.raw {target} --log-dir logs"));
    assert!(device.bytes() == fixture.bytes("new.raw"));
    assert_eq!(fs::read_dir(fixture.path("logs")).unwrap().count(), 0);
    fixture.done(&format!("diff new.raw {target}"));
    fixture.disk("back.raw", 1000, 3);
    fixture.done(&format!("sync {target} back.raw"));
    assert!(fixture.bytes("back.raw") == fixture.bytes("new.raw"));
    // The file below and the device are the same bytes.
    fixture
        .run(&format!("sync under.raw {target} --log-dir logs"))
        .fails(2, "name two different disks");
    fixture
        .run("sync new.raw under.raw")
        .fails(2, &target.replace("/dev/", "attached to "));
}

#[test]
fn a_full_copy_onto_a_device_comes_from_another_host_and_goes_to_one() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 1000, 1);
    write_at(
        &fixture.path("new.raw"),
        300 * PAGE as u64,
        &[0; 200 * PAGE],
    );
    let under = fixture.disk("under.raw", 1000, 2);
    let Some(device) = Loop::over(&under) else {
        return;
    };
    let target = &device.0;
    shell(&fixture, "--log-dir logs");
    let new = fixture.path("new.raw");
    let sides = [
        format!("ssh://host{} {target} --log-dir logs", new.display()),
        format!("{} ssh://host{target}", new.display()),
    ];
    for sides in sides {
        for safety in ["atomic", "in-place"] {
            let words = format!("sync {sides} --rsh ./rsh --mode full --safety {safety}");
            let (status, report) = fixture.json(&words);
            assert_eq!(status, 0, "{report}");
            assert_eq!(report["mode"], "full");
            assert_eq!(report["changed_bytes"], 1000 * PAGE);
            assert_eq!(report["zeroed_bytes"], 200 * PAGE);
            assert!(device.bytes() == fixture.bytes("new.raw"));
            assert_eq!(fs::read_dir(fixture.path("logs")).unwrap().count(), 0);
            write_at(Path::new(target), 0, &noise(1000 * PAGE, 2));
        }
    }
}

#[test]
fn lengths_of_devices_are_minded() {
    let fixture = Fixture::new();
    fixture.disk("small.raw", 900, 1);
    fixture.disk("large.raw", 1100, 1);
    let under = fixture.disk("under.raw", 1000, 2);
    let Some(device) = Loop::over(&under) else {
        return;
    };
    let target = &device.0;
    fixture
        .run(&format!("sync large.raw {target} --log-dir logs"))
        .fails(2, "at least as large");
    fixture
        .run(&format!("sync small.raw {target} --log-dir logs"))
        .fails(2, "--allow-larger");
    let words = format!("sync small.raw {target} --log-dir logs --allow-larger");
    let (status, report) = fixture.json(&words);
    assert_eq!(status, 0);
    assert_eq!(report["untouched_tail_bytes"], 100 * PAGE);
    let bytes = device.bytes();
    assert!(bytes[..900 * PAGE] == fixture.bytes("small.raw"));
    assert!(bytes[900 * PAGE..] == noise(1000 * PAGE, 2)[900 * PAGE..]);
}

#[test]
fn unreadable_ranges_are_named_or_skipped_with_status_4() {
    let fixture = Fixture::new();
    let under = fixture.disk("under.raw", 1000, 1);
    let Some(device) = Loop::over(&under) else {
        return;
    };
    // What the device has lost below cannot be read any more.
    let file = File::options().write(true).open(&under).unwrap();
    file.set_len(900 * PAGE as u64).unwrap();
    fixture.disk("old.raw", 1000, 2);
    let before = fixture.bytes("old.raw");
    let source = &device.0;
    shell(&fixture, "");
    let ways = [
        format!("{source} old.raw"),
        format!("ssh://host{source} old.raw --rsh ./rsh"),
        format!(
            "{source} ssh://host{}/old.raw --rsh ./rsh",
            fixture.path("").display()
        ),
    ];
    let hows = [
        ("atomic", "auto"),
        ("atomic", "delta"),
        ("atomic", "full"),
        ("in-place", "auto"),
    ];
    let ways = ways.iter();
    for (way, (safety, mode)) in ways.flat_map(|way| hows.map(|how| (way, how))) {
        let is_here = !way.contains("ssh:");
        let words = format!("sync {way} --mode {mode} --safety {safety}");
        let (status, object) = fixture.json(&words);
        if object["outcome"] == "synced" {
            return left_out("this kernel reads zeros behind the end of a loop device's file");
        }
        assert_eq!(object["error"]["kind"], "unreadable");
        if is_here {
            let offset = object["error"]["offset"].as_u64().unwrap();
            assert!((900 * PAGE as u64..1000 * PAGE as u64).contains(&offset));
            assert_eq!(status, if safety == "atomic" { 2 } else { 3 });
        }
        if safety == "atomic" {
            assert!(fixture.bytes("old.raw") == before);
        }
        let (status, report) = fixture.json(&format!("{words} --skip-unreadable"));
        assert_eq!(status, 4, "{report}");
        assert_eq!(report["outcome"], "synced_with_gaps");
        assert_eq!(report["unreadable"][0]["offset"], 900 * PAGE);
        assert_eq!(report["unreadable"][0]["length"], 100 * PAGE);
        let after = fixture.bytes("old.raw");
        assert!(after[..900 * PAGE] == noise(1000 * PAGE, 1)[..900 * PAGE]);
        assert!(after[900 * PAGE..] == before[900 * PAGE..]);
        fixture.disk("old.raw", 1000, 2);
    }
}

#[test]
fn a_device_that_is_mounted_is_refused() {
    let fixture = Fixture::new();
    let under = fixture.path("under.raw");
    File::create(&under).unwrap().set_len(16 << 20).unwrap();
    let Some(device) = Loop::over(&under) else {
        return;
    };
    let made = Command::new("mkfs.ext4").args(["-q", &device.0]).status();
    let point = fixture.path("point");
    fs::create_dir(&point).unwrap();
    let mounted = Command::new("mount").arg(&device.0).arg(&point).status();
    if !made.is_ok_and(|it| it.success()) || !mounted.is_ok_and(|it| it.success()) {
        return left_out("cannot make and mount a file system");
    }
    File::create(fixture.path("new.raw"))
        .unwrap()
        .set_len(16 << 20)
        .unwrap();
    let onto_device = fixture.run(&format!("sync new.raw {} --log-dir logs", device.0));
    let onto_file = fixture.run("sync new.raw under.raw");
    let unmounted = Command::new("umount").arg(&point).status().unwrap();
    assert!(unmounted.success());
    onto_device.fails(2, "is mounted on");
    onto_file.fails(2, "is mounted on");
}

#[test]
fn a_target_manifest_of_a_device_is_not_trusted_once_anybody_else_wrote_to_it() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 1000, 1);
    let under = fixture.disk("under.raw", 1000, 2);
    let Some(device) = Loop::over(&under) else {
        return;
    };
    let target = &device.0;
    let words = format!("sync new.raw {target} --log-dir logs --target-manifest kept.manifest");
    fixture.done(&words);
    assert_eq!(fixture.json(&words).1["verified"], "cached");
    write_at(Path::new(target), 5 * PAGE as u64, b"guest");
    assert_eq!(fixture.json(&words).1["verified"], "written");
    assert!(device.bytes() == fixture.bytes("new.raw"));
    assert_eq!(fixture.json(&words).1["verified"], "cached");
}

#[test]
fn no_file_is_made_among_device_nodes() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 600, 1);
    fixture.disk("old.raw", 600, 2);
    shell(&fixture, "");
    let device = Path::new("/dev/diskdelta-no-such-disk");
    let directory = Path::new("/dev/diskdelta-no-such-directory");
    std::os::unix::fs::symlink(device, fixture.path("by-id")).unwrap();
    fixture.done("delta create old.raw new.raw -o way.delta");
    let name = device.display();
    for words in [
        format!("sync new.raw {name}"),
        format!("sync new.raw {name} --dry-run"),
        format!("sync new.raw {name} --create raw"),
        format!("sync new.raw {name} --create vhdx"),
        format!("sync new.raw {name} --target-format raw"),
        "sync new.raw by-id".to_owned(),
        "sync new.raw by-id --safety in-place".to_owned(),
        "sync new.raw /dev/./diskdelta-no-such-disk".to_owned(),
        format!("sync new.raw ssh://host{name} --rsh ./rsh"),
        format!(
            "sync ssh://host{}/new.raw {name} --rsh ./rsh",
            fixture.path("").display()
        ),
        format!(
            "sync new.raw ssh://host{}/by-id --rsh ./rsh",
            fixture.path("").display()
        ),
        format!("manifest new.raw -o {name}"),
        format!("delta create old.raw new.raw -o {name}"),
        format!("delta merge way.delta -o {name}"),
        format!("sync new.raw old.raw --mode delta --undo {name}"),
        format!("sync new.raw old.raw --mode delta --undo {name} --dry-run"),
        format!("sync new.raw old.raw --target-manifest {name}"),
        format!("sync new.raw old.raw --log-dir {}", directory.display()),
    ] {
        let run = fixture.run(&words);
        assert_eq!(run.status, 2, "{words}: {run:?}");
        assert!(run.stderr.contains("for device nodes"), "{words}: {run:?}");
        assert!(!device.exists() && !directory.exists(), "{words}");
    }
    assert!(fixture.bytes("old.raw") == noise(600 * PAGE, 2));
    let nodes = fs::read_dir("/dev").unwrap();
    let nodes = nodes.map(|node| node.unwrap().file_name().into_string().unwrap());
    assert_eq!(nodes.filter(|node| node.contains("diskdelta")).count(), 0);
}

/// A disk of two partitions of 4 MiB on a loop device.
fn partitioned(fixture: &Fixture) -> Option<(Loop, [String; 2])> {
    let under = fixture.path("under.raw");
    let mut bytes = noise(4096 * PAGE, 7);
    let table = &mut bytes[446..512];
    table.fill(0);
    for (entry, first) in [(0, 2048_u32), (16, 10240)] {
        table[entry + 4] = 0x83;
        table[entry + 8..entry + 12].copy_from_slice(&first.to_le_bytes());
        table[entry + 12..entry + 16].copy_from_slice(&8192_u32.to_le_bytes());
    }
    table[64..].copy_from_slice(b"\x55\xaa");
    fs::write(&under, bytes).unwrap();
    let device = Loop::over(&under)?;
    let made = Command::new("partx").args(["--add", &device.0]).status();
    let parts = [1, 2].map(|part| format!("{}p{part}", device.0));
    // A file of that name, which something made when no partition was there, is no partition.
    let is_device =
        |part: &String| fs::metadata(part).is_ok_and(|it| it.file_type().is_block_device());
    if !made.is_ok_and(|it| it.success()) || !parts.iter().all(is_device) {
        left_out("cannot make partitions on a loop device");
        return None;
    }
    Some((device, parts))
}

#[test]
fn a_disk_is_in_use_when_a_part_of_it_or_what_it_lies_on_is_written_elsewhere() {
    let fixture = Fixture::new();
    let Some((disk, [one, two])) = partitioned(&fixture) else {
        return;
    };
    fs::copy(fixture.path("under.raw"), fixture.path("whole.raw")).unwrap();
    fixture.disk("part.raw", 1024, 3);
    let under = fixture.path("under.raw").display().to_string();
    let sides = |target: &str| match target == disk.0 {
        true => format!("sync whole.raw {target} --log-dir logs"),
        false => format!("sync part.raw {target} --log-dir logs"),
    };
    let cases = [
        (&two, &disk.0, true),
        (&disk.0, &one, true),
        (&under, &disk.0, true),
        (&under, &one, true),
        (&one, &two, false),
    ];
    for (written, target, is_refused) in cases {
        // A process that holds it open for writing until it is told to end.
        let mut writer = Command::new("sh")
            .args([
                "-c",
                "test -e \"$1\" && exec 7<>\"$1\"; echo; read end",
                "sh",
                written,
            ])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0];
        std::io::Read::read_exact(writer.stdout.as_mut().unwrap(), &mut ready).unwrap();
        let run = fixture.run(&sides(target));
        drop(writer.stdin.take());
        writer.wait().unwrap();
        match is_refused {
            true => run.fails(2, "open for writing"),
            false => assert_eq!(run.status, 0, "{written} {target}: {run:?}"),
        }
    }
    // Swap, mounts and further loop devices count in both directions, too.
    for (attached, target, is_refused) in [
        (&disk.0, &one, true),
        (&one, &disk.0, true),
        (&under, &disk.0, true),
        (&under, &two, true),
        (&one, &two, false),
    ] {
        let Some(other) = Loop::over(Path::new(attached)) else {
            return;
        };
        let run = fixture.run(&sides(target));
        match is_refused {
            true => run.fails(2, &other.0.replace("/dev/", "attached to ")),
            false => assert_eq!(run.status, 0, "{attached} {target}: {run:?}"),
        }
        drop(other);
    }
    for target in [&one, &disk.0] {
        let text = fixture.done(&sides(target)).stdout;
        assert_eq!(
            text.contains("blockdev --rereadpt"),
            *target == disk.0,
            "{text}"
        );
    }
}
