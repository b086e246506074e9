//! A directory with disks, in which lines of the documentation are run.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

pub const COMMAND: &str = env!("CARGO_BIN_EXE_diskdelta");

/// A directory with disks: `web` is the newest disk, `old` and `base` an older copy of it.
pub struct Sandbox(tempfile::TempDir);

impl Sandbox {
    pub fn new() -> Sandbox {
        let sandbox = Sandbox(tempfile::tempdir().unwrap());
        let path = |name: &str| sandbox.0.path().join(name);
        for directory in ["srv", "dev", "log"] {
            fs::create_dir(path(directory)).unwrap();
        }
        disk(&path("old.img"), 0);
        disk(&path("new.img"), 40);
        let images = [
            ("new", "web.vhd"),
            ("new", "web.vhdx"),
            ("old", "old.vhd"),
            ("old", "base.vhd"),
        ];
        for (from, to) in images {
            sandbox.run("sample", &format!("diskdelta sync {from}.img {to}"));
        }
        for to in ["dev/web", "web.raw", "standby.raw"] {
            fs::copy(path("old.img"), path(to)).unwrap();
        }
        sandbox
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Runs a line of a shell there.
    pub fn run(&self, place: &str, line: &str) {
        let status = match line.split_once("# exit status ") {
            Some((_, status)) => status.trim().parse().unwrap(),
            None => 0,
        };
        let top = self.0.path().display().to_string();
        let line = line
            .replace("/dev/vg0/", &format!("{top}/dev/"))
            .replace("/srv/", &format!("{top}/srv/"));
        let bin = Path::new(COMMAND).parent().unwrap();
        let ran = Command::new("bash")
            .args(["-c", &line])
            .current_dir(self.0.path())
            .env("PATH", format!("{}:/usr/bin:/bin", bin.display()))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ran.stderr);
        assert_eq!(ran.status.code(), Some(status), "{place}: {line}\n{said}");
    }
}

/// A disk of 8 MiB, some of which is data, with some pages changed.
fn disk(path: &Path, changes: u64) {
    let file = fs::File::create(path).unwrap();
    file.set_len(8 << 20).unwrap();
    for page in 0..300_u64 {
        let seed = if page < changes { page + 1000 } else { page };
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let bytes = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        });
        let bytes: Vec<u8> = bytes.take(512).flatten().collect();
        file.write_all_at(&bytes, page * 3 * 4096).unwrap();
    }
}
