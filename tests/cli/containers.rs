//! Containers that would be taken for raw disks: neither read nor overwritten without a word.

use std::fs;
use std::path::Path;

use crate::fixture::{Fixture, Loop, PAGE, noise, write_at};
use crate::remote::shell;

/// Names of containers, where their signatures are, and the signatures.
const SIGNED: &[(&str, usize, &[u8])] = &[
    ("qcow2", 0, b"QFI\xfb\0\0\0\x03"),
    ("VMDK", 0, b"KDMV\x01\0\0\0"),
    ("VDI", 0x40, b"\x7f\x10\xda\xbe"),
    ("VHDX", 0, b"vhdxfile"),
    ("VHD", 0, b"conectix"),
    ("VHD", 600 * PAGE - 512, b"conectix"),
    ("LUKS", 0, b"LUKS\xba\xbe\0\x02"),
    ("QED", 0, b"QED\0"),
    ("gzip", 0, b"\x1f\x8b\x08\0"),
    ("xz", 0, b"\xfd7zXZ\0"),
    ("zstd", 0, b"\x28\xb5\x2f\xfd"),
    ("bzip2", 0, b"BZh91AY&SY"),
];

fn container(at: usize, signature: &[u8]) -> Vec<u8> {
    let mut bytes = noise(600 * PAGE, 9);
    bytes[at..at + signature.len()].copy_from_slice(signature);
    bytes
}

#[test]
fn a_container_under_a_neutral_name_is_not_overwritten_as_raw() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 600, 1);
    fixture.disk("base.raw", 600, 2);
    fixture.done("delta create base.raw new.raw -o way.delta");
    fixture.done("sync new.raw base.raw --mode delta --undo way.back");
    shell(&fixture, "");
    let there = format!(
        "ssh://host{}/vm.img --rsh ./rsh",
        fixture.path("").display()
    );
    let deeds = [
        "sync new.raw vm.img".to_owned(),
        "sync new.raw vm.img --mode delta".to_owned(),
        "sync new.raw vm.img --mode full".to_owned(),
        "sync new.raw vm.img --safety in-place".to_owned(),
        "sync new.raw vm.img --safety in-place --hold".to_owned(),
        "sync new.raw vm.img --dry-run".to_owned(),
        format!("sync new.raw {there}"),
        "delta apply way.delta vm.img --base touched".to_owned(),
        "undo way.back vm.img".to_owned(),
    ];
    for (name, at, signature) in SIGNED {
        let bytes = container(*at, signature);
        fs::write(fixture.path("vm.img"), &bytes).unwrap();
        let side_files = || {
            fixture
                .names()
                .into_iter()
                .filter(|name| name.starts_with('.'))
        };
        for deed in &deeds {
            let run = fixture.run(deed);
            run.fails(2, "--target-format raw");
            assert!(run.stderr.contains(name), "{name}: {run:?}");
            assert!(fixture.bytes("vm.img") == bytes, "{name}: {deed}");
            assert_eq!(side_files().count(), 0, "{name}: {deed}");
        }
        let run = fixture.run("sync vm.img new-disk.raw");
        run.fails(2, "--source-format raw");
        assert!(run.stderr.contains(name), "{name}: {run:?}");
        fixture.done("sync new.raw vm.img --target-format raw");
        assert!(fixture.bytes("vm.img") == fixture.bytes("new.raw"));
    }
}

#[test]
fn a_raw_disk_with_partitions_a_file_system_or_our_marker_is_no_container() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 600, 1);
    let signs: [(usize, &[u8]); 4] = [
        (510, b"\x55\xaa"),
        (512, b"EFI PART"),
        (1080, b"\x53\xef"),
        (0, b"XFSB"),
    ];
    for (at, sign) in signs {
        fs::write(fixture.path("old.img"), container(at, sign)).unwrap();
        fixture.done("sync new.raw old.img --safety in-place --hold");
        fixture.done("sync new.raw old.img --safety in-place --hold");
        fixture.done("recover old.img --release");
        assert!(fixture.bytes("old.img") == fixture.bytes("new.raw"));
    }
}

#[test]
fn a_held_container_was_meant_and_is_not_asked_for_again() {
    let fixture = Fixture::new();
    fs::write(fixture.path("new.raw"), container(0, b"LUKS\xba\xbe\0\x02")).unwrap();
    fixture.disk("old.img", 600, 2);
    let words = "sync new.raw old.img --source-format raw --safety in-place --hold";
    fixture.done(words);
    fixture.done(words);
    fixture.done("recover old.img");
    fixture.done("recover old.img --release");
    assert!(fixture.bytes("old.img") == fixture.bytes("new.raw"));
    fixture.done("recover old.img");
    fixture.run(words).fails(2, "--target-format raw");
    fixture.done(&format!("{words} --target-format raw"));
}

#[test]
fn a_container_on_a_device_is_not_overwritten_as_raw() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 600, 1);
    for (name, at, signature) in SIGNED {
        let under = fixture.path("under.raw");
        fs::write(&under, container(*at, signature)).unwrap();
        let Some(device) = Loop::over(&under) else {
            return;
        };
        let words = format!("sync new.raw {} --log-dir logs", device.0);
        let run = fixture.run(&words);
        run.fails(2, "--target-format raw");
        assert!(run.stderr.contains(name), "{name}: {run:?}");
        assert!(device.bytes() == container(*at, signature));
        fixture.done(&format!("{words} --target-format raw"));
        assert!(device.bytes() == fixture.bytes("new.raw"));
    }
}

#[test]
fn a_name_of_a_container_is_not_given_to_a_raw_disk() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 600, 1);
    shell(&fixture, "");
    for name in [
        "d.qcow2", "d.vmdk", "d.vdi", "d.VDI", "d.qed", "d.qcow", "d.vhds", "d.img.gz", "d.xz",
        "d.zst", "d.bz2", "d.ova", "d.zip",
    ] {
        let path = fixture.path(name);
        let there = format!("ssh://host{} --rsh ./rsh", path.display());
        for words in [
            format!("sync new.raw {name}"),
            format!("sync new.raw {name} --dry-run"),
            format!("sync new.raw {there}"),
        ] {
            let run = fixture.run(&words);
            assert_eq!(run.status, 2, "{words}: {run:?}");
            assert!(run.stderr.contains(name), "{words}: {run:?}");
            assert!(!path.exists(), "{words}");
        }
        std::os::unix::fs::symlink(name, fixture.path("link.img")).unwrap();
        assert_eq!(fixture.run("sync new.raw link.img").status, 2, "{name}");
        fs::remove_file(fixture.path("link.img")).unwrap();
        assert!(!path.exists(), "{name}");
        fs::write(&path, noise(600 * PAGE, 3)).unwrap();
        assert_eq!(
            fixture.run(&format!("sync new.raw {name}")).status,
            2,
            "{name}"
        );
        assert!(fixture.bytes(name) == noise(600 * PAGE, 3));
        fixture.done(&format!("sync new.raw {name} --target-format raw"));
        fs::remove_file(&path).unwrap();
        fixture.done(&format!("sync new.raw {name} --create raw"));
        assert!(fixture.bytes(name) == fixture.bytes("new.raw"));
    }
}

#[test]
fn our_own_files_are_no_disks() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 600, 1);
    fixture.disk("old.raw", 600, 2);
    fixture.done("delta create old.raw new.raw -o way.delta");
    fixture.done("manifest new.raw -o kept.list");
    for name in ["way.delta", "kept.list"] {
        let before = fixture.bytes(name);
        fixture
            .run(&format!("sync new.raw {name} --allow-shrink"))
            .fails(2, "of diskdelta");
        fixture
            .run(&format!("sync {name} old.raw --allow-shrink"))
            .fails(2, "of diskdelta");
        assert!(fixture.bytes(name) == before);
    }
    fixture
        .run("delta apply way.delta way.delta")
        .fails(2, "name two different disks");
    write_at(Path::new(&fixture.path("old.raw")), 0, &[0; PAGE]);
}
