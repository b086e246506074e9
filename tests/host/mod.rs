//! Loop devices, mounts and other programs, for tests that need the real ones.
#![allow(dead_code)]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Says loudly that a test was left out; where everything must be there, fails instead.
pub fn left_out(why: &str) {
    assert!(
        std::env::var_os("DISKDELTA_REQUIRE_ORACLES").is_none_or(|value| value != "1"),
        "{why}, but DISKDELTA_REQUIRE_ORACLES=1"
    );
    eprintln!("LEFT OUT: {why}");
}

/// Whether loop devices can be attached here.
pub fn has_loop_devices() -> bool {
    let works = rustix::process::geteuid().is_root()
        && Path::new("/dev/loop-control").exists()
        && has_program("losetup");
    if !works {
        left_out("loop devices need root, /dev/loop-control and losetup");
    }
    works
}

/// Whether a program can be started.
pub fn has_program(name: &str) -> bool {
    let found = Command::new(name)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok();
    if !found {
        left_out(&format!("{name} is not installed"));
    }
    found
}

/// Runs a program that must succeed, and gives its output.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A file attached to a loop device until this is dropped.
///
/// One at a time: a losetup that looks for a free device opens those of others for a moment.
pub struct LoopDevice {
    path: PathBuf,
    _turn: MutexGuard<'static, ()>,
}

impl LoopDevice {
    pub fn attach(file: &Path) -> Self {
        Self::attach_with(file, &[])
    }

    /// With further options of `losetup`.
    pub fn attach_with(file: &Path, options: &[&str]) -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let arguments = [options, &["--find", "--show", file.to_str().unwrap()]].concat();
        LoopDevice {
            path: run("losetup", &arguments).into(),
            _turn: turn,
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        // Partitions that were added by hand would outlive the attachment.
        if Path::new(&format!("{}p1", self.path.display())).exists() {
            let _ = Command::new("partx").arg("-d").arg(&self.path).status();
        }
        let _ = Command::new("losetup").arg("-d").arg(&self.path).status();
    }
}

/// A mount that ends when this is dropped.
pub struct Mount {
    point: PathBuf,
}

impl Mount {
    pub fn new(arguments: &[&str], point: &Path) -> Self {
        std::fs::create_dir_all(point).unwrap();
        let mut arguments = arguments.to_vec();
        arguments.push(point.to_str().unwrap());
        run("mount", &arguments);
        Mount::made(point)
    }

    /// Ends a mount that was made already.
    pub fn made(point: &Path) -> Self {
        Mount {
            point: point.to_owned(),
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.point).status();
    }
}

/// A qemu-io that has an image open until this is dropped.
pub struct QemuIo {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl QemuIo {
    /// Starts it and waits until the image is open; `None` if it could not open the image.
    pub fn open(arguments: &[&str], image: &Path) -> Option<Self> {
        let mut child = Command::new("qemu-io")
            .args(arguments)
            .arg(image)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut qemu = QemuIo {
            stdin: child.stdin.take(),
            stdout: BufReader::new(child.stdout.take().unwrap()),
            child,
        };
        qemu.tell("length").then_some(qemu)
    }

    /// Gives a command; whether an answer came.
    fn tell(&mut self, command: &str) -> bool {
        let stdin = self.stdin.as_mut().unwrap();
        // A qemu-io that could not open the image is gone.
        let _ = writeln!(stdin, "{command}").and_then(|()| stdin.flush());
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap() > 0
    }
}

impl Drop for QemuIo {
    fn drop(&mut self) {
        // The end of its input ends it.
        self.stdin.take();
        let _ = self.child.wait();
    }
}
