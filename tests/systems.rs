//! Files that the command makes on one system, read on another: the command of this system, and one
//! for Windows under Wine. `.ci/windows` builds that and names it; without it this is left out.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]
#![cfg(unix)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

const HERE: &str = env!("CARGO_BIN_EXE_diskdelta");

/// The command of one system.
struct System {
    program: Vec<String>,
}

impl System {
    /// That of this system, and that for Windows; `None`, loudly, without the latter.
    fn both() -> Option<[System; 2]> {
        let named = |name: &str| std::env::var(name).ok();
        let windows = (named("DISKDELTA_WINE"), named("DISKDELTA_WINDOWS"));
        let (Some(wine), Some(windows)) = windows else {
            eprintln!("LEFT OUT: there is no command for Windows (.ci/windows)");
            return None;
        };
        Some([
            System {
                program: vec![HERE.to_owned()],
            },
            System {
                program: vec![wine, windows],
            },
        ])
    }

    fn command(&self, directory: &Path, words: &str) -> Command {
        let mut command = Command::new(&self.program[0]);
        command
            .args(&self.program[1..])
            .args(words.split_whitespace())
            .current_dir(directory)
            .stdin(Stdio::null());
        command
    }

    fn run(&self, directory: &Path, words: &str) -> Output {
        self.command(directory, words).output().unwrap()
    }

    fn done(&self, directory: &Path, words: &str) -> String {
        let output = self.run(directory, words);
        assert_eq!(output.status.code(), Some(0), "{words}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

/// Bytes that no compression or zero check takes for anything else, with zeros of their own.
fn disk(pages: usize, index: u64) -> Vec<u8> {
    let noise = |seed: u64| {
        let mut bytes = vec![0; pages * 4096];
        let mut hasher = blake3::Hasher::new_derive_key("diskdelta tests of two systems");
        hasher.update(&seed.to_le_bytes());
        hasher.finalize_xof().fill(&mut bytes);
        bytes
    };
    let (mut bytes, own) = (noise(100), noise(index));
    for page in 0..pages {
        let range = page * 4096..(page + 1) * 4096;
        match (page as u64 / 5 + index) % 7 {
            0 => bytes[range.clone()].copy_from_slice(&own[range]),
            1 => bytes[range].fill(0),
            _ => {}
        }
    }
    bytes
}

fn home(disks: &[(&str, u64)]) -> (tempfile::TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    for (name, index) in disks {
        fs::write(home.path().join(name), disk(500, *index)).unwrap();
    }
    let path = home.path().to_owned();
    (home, path)
}

#[test]
fn manifests_and_images_are_the_same_byte_for_byte() {
    let Some(systems) = System::both() else {
        return;
    };
    let (_kept, home) = home(&[("a.raw", 1), ("b.raw", 2)]);
    for (index, system) in systems.iter().enumerate() {
        system.done(&home, &format!("manifest a.raw -o a{index}.manifest"));
        for kind in ["vhd", "vhdx"] {
            let name = format!("{kind}{index}.{kind}");
            system.done(&home, &format!("sync a.raw {name}"));
            system.done(&home, &format!("sync b.raw {name} --mode delta"));
            system.done(&home, &format!("manifest {name} -o {name}.manifest"));
        }
    }
    let read = |name: &str| fs::read(home.join(name)).unwrap();
    assert!(read("a0.manifest") == read("a1.manifest"));
    assert!(read("vhd0.vhd.manifest") == read("vhd1.vhd.manifest"));
    assert!(read("vhdx0.vhdx.manifest") == read("vhdx1.vhdx.manifest"));
    // Each reads what the other has written.
    for system in &systems {
        for name in ["vhd0.vhd", "vhd1.vhd", "vhdx0.vhdx", "vhdx1.vhdx"] {
            system.done(&home, &format!("diff b.raw {name}"));
        }
    }
}

#[test]
fn a_delta_of_one_is_applied_by_the_other() {
    let Some(systems) = System::both() else {
        return;
    };
    let (_kept, home) = home(&[("a.raw", 1), ("b.raw", 2)]);
    for (index, system) in systems.iter().enumerate() {
        system.done(&home, &format!("delta create a.raw b.raw -o {index}.delta"));
    }
    let read = |name: &str| fs::read(home.join(name)).unwrap();
    // But for the number of the run, which the hashes of all frames cover, nothing differs.
    assert_eq!(read("0.delta").len(), read("1.delta").len());
    for (index, system) in systems.iter().enumerate() {
        let other = 1 - index;
        fs::copy(home.join("a.raw"), home.join("t.raw")).unwrap();
        system.done(&home, &format!("delta apply {other}.delta t.raw"));
        assert!(read("t.raw") == read("b.raw"), "{index}");
    }
}

/// Ends syncs of one system at chance moments until some left a marked target, which the other
/// recovers.
#[test]
fn a_sync_that_one_began_is_recovered_by_the_other() {
    let Some(systems) = System::both() else {
        return;
    };
    let rounds = match std::env::var_os("DISKDELTA_LONG") {
        Some(_) => 150,
        None => 12,
    };
    for (began, recovers) in [(0, 1), (1, 0), (1, 1)] {
        let (_kept, home) = home(&[("old.raw", 1), ("new.raw", 2)]);
        let read = |name: &str| fs::read(home.join(name)).unwrap();
        let (old, new) = (read("old.raw"), read("new.raw"));
        let words = "sync new.raw t.raw --mode delta";
        fs::write(home.join("t.raw"), &old).unwrap();
        let begin = std::time::Instant::now();
        systems[began].done(&home, words);
        let usual = begin.elapsed();
        let mut counts = [0; 3];
        for round in 0..rounds {
            fs::write(home.join("t.raw"), &old).unwrap();
            let mut child = systems[began]
                .command(&home, words)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            // The later the more is written.
            std::thread::sleep(usual * (round + 2) / (rounds + 2) + Duration::from_millis(1));
            // Windows calls this TerminateProcess.
            child.kill().unwrap();
            child.wait().unwrap();
            let found = read("t.raw");
            let state = [&old, &new].iter().position(|it| **it == found);
            counts[state.unwrap_or(2)] += 1;
            systems[recovers].done(&home, "recover t.raw");
            let found = read("t.raw");
            match state {
                Some(0) => assert!(found == old, "{round}"),
                _ => assert!(found == new, "{round}"),
            }
        }
        eprintln!("{began} ended, {recovers} recovered: {counts:?} (old, new, marked)");
    }
}

#[test]
fn windows_is_the_remote_end_of_a_sync() {
    let Some([here, windows]) = System::both() else {
        return;
    };
    let (_kept, home) = home(&[("a.raw", 1), ("b.raw", 2)]);
    // A shell that leaves out the host and the program's name, and starts the one for Windows.
    let shell = home.join("shell");
    let program = windows.program.join(" ");
    let text = format!("#!/bin/sh\nshift\nshift\nexec {program} \"$@\"\n");
    fs::write(&shell, text).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&shell, mode).unwrap();
    let there = |name: &str| format!("ssh://host/Z:{}", home.join(name).to_str().unwrap());
    for (source, target) in [
        ("a.raw".to_owned(), there("pushed.vhdx")),
        ("b.raw".to_owned(), there("pushed.vhdx")),
        (there("b.raw"), "pulled.vhd".to_owned()),
    ] {
        let rsh = shell.to_str().unwrap();
        here.done(&home, &format!("sync {source} {target} --rsh {rsh}"));
    }
    for name in ["pushed.vhdx", "pulled.vhd"] {
        here.done(&home, &format!("diff b.raw {name}"));
    }
}

#[test]
fn what_windows_cannot_do_is_refused_in_words() {
    let Some([_, windows]) = System::both() else {
        return;
    };
    let (_kept, home) = home(&[("a.raw", 1)]);
    for words in [
        r"sync a.raw \\.\PhysicalDrive0",
        r"info \\.\PhysicalDrive0",
        "failback run plan.toml",
        "info nbd+unix:///disk?socket=/run/nbd",
    ] {
        let output = windows.run(&home, words);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{words}: {text}");
        assert!(text.contains("not supported on Windows"), "{words}: {text}");
    }
}
