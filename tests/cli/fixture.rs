//! A directory to work in, and the command.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

pub const PAGE: usize = 4096;

/// A throw-away directory with disks in it.
pub struct Fixture {
    directory: tempfile::TempDir,
}

/// What a run of the command left.
#[derive(Debug)]
pub struct Run {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Fixture {
    pub fn new() -> Self {
        Fixture {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A raw disk of `pages` pages that hold data made from `seed`.
    pub fn disk(&self, name: &str, pages: usize, seed: u64) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, noise(pages * PAGE, seed)).unwrap();
        path
    }

    pub fn bytes(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    /// The names of all files, hidden ones too.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Runs the command in the directory; words that name files in it need no directory.
    pub fn run(&self, words: &str) -> Run {
        let mut command = assert_cmd::Command::new(COMMAND);
        let output = command
            .current_dir(self.directory.path())
            .args(words.split_whitespace())
            .output()
            .unwrap();
        Run {
            status: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Runs the command and expects it to be done.
    pub fn done(&self, words: &str) -> Run {
        let run = self.run(words);
        assert_eq!(run.status, 0, "{words}: {run:?}");
        run
    }

    /// Runs the command with `--json` and reads the one object it prints.
    pub fn json(&self, words: &str) -> (i32, Value) {
        let run = self.run(&format!("{words} --json"));
        let value: Value = serde_json::from_str(&run.stdout).unwrap_or_else(|e| {
            panic!("{words}: {e}: {run:?}");
        });
        assert_eq!(run.stdout.lines().count(), 1, "{words}");
        assert!(value.is_object(), "{words}");
        (run.status, value)
    }

    /// Starts the command and returns while it runs.
    pub fn start(&self, words: &str) -> Child {
        Command::new(COMMAND)
            .current_dir(self.directory.path())
            .args(words.split_whitespace())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }
}

impl Run {
    /// Expects status and a part of the error text, which is one or two lines long.
    pub fn fails(&self, status: i32, part: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert!(self.stderr.contains(part), "{part}: {self:?}");
        assert!(self.stderr.lines().count() <= 2, "{self:?}");
    }
}

/// Sends a signal and waits for the end.
pub fn signal(child: Child, name: &str) -> Run {
    send(&child, name);
    ended(child)
}

pub fn send(child: &Child, name: &str) {
    let sent = Command::new("kill")
        .args([&format!("-{name}"), &child.id().to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
}

pub fn ended(child: Child) -> Run {
    let output = child.wait_with_output().unwrap();
    Run {
        status: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Waits until something holds.
pub fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..3000 {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("never came: {what}");
}

/// Bytes that no compression or zero check takes for anything else.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new_derive_key("diskdelta command tests")
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

/// Overwrites bytes of a file.
pub fn write_at(path: &Path, offset: u64, bytes: &[u8]) {
    let file = File::options().write(true).open(path).unwrap();
    file.write_all_at(bytes, offset).unwrap();
}

/// Runs a program that knows better; `None`, loudly, where it is not there.
pub fn oracle(program: &str, args: &[&str]) -> Option<bool> {
    match Command::new(program).args(args).output() {
        Ok(output) => {
            if !output.status.success() {
                eprintln!(
                    "{program} {args:?}: {}",
                    String::from_utf8_lossy(&output.stderr)
                );
            }
            Some(output.status.success())
        }
        Err(_) => {
            left_out(&format!("{program} is not here"));
            None
        }
    }
}

/// Says that a test was left out, which must not happen where oracles are required.
pub fn left_out(why: &str) {
    eprintln!("LEFT OUT: {why}");
    let required = std::env::var("DISKDELTA_REQUIRE_ORACLES");
    assert!(required.as_deref() != Ok("1"), "required, but {why}");
}

/// A loop device over a file of the fixture; detached when dropped.
pub struct Loop(pub String);

impl Loop {
    pub fn over(file: &Path) -> Option<Loop> {
        let output = Command::new("losetup")
            .args(["--find", "--show"])
            .arg(file)
            .output();
        match output {
            Ok(output) if output.status.success() => {
                let name = String::from_utf8(output.stdout).unwrap();
                Some(Loop(name.trim().to_owned()))
            }
            _ => {
                left_out("no loop devices here");
                None
            }
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        fs::read(&self.0).unwrap()
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        // Partitions outlive their device.
        if Path::new(&format!("{}p1", self.0)).exists() {
            let _ = Command::new("partx").args(["--delete", &self.0]).status();
        }
        let _ = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}

pub const COMMAND: &str = env!("CARGO_BIN_EXE_diskdelta");
