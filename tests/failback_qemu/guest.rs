//! A small Linux: Debian's kernel for clouds, and one program, built here, as all its user space.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// A kernel and an initial file system that QEMU can boot.
pub struct Guest {
    pub kernel: PathBuf,
    pub initrd: PathBuf,
}

/// The guest, made once; `None` where QEMU or a kernel cannot be had.
pub fn guest() -> Option<&'static Guest> {
    static GUEST: OnceLock<Result<Guest, String>> = OnceLock::new();
    match GUEST.get_or_init(make) {
        Ok(guest) => Some(guest),
        Err(why) => {
            eprintln!("LEFT OUT: a real guest under QEMU: {why}");
            None
        }
    }
}

/// Whether QEMU is there; if not, that is said.
pub fn qemu_is_there() -> bool {
    let is = output(Command::new("qemu-system-x86_64").arg("--version")).is_ok();
    if !is {
        eprintln!("LEFT OUT: qemu-system-x86_64 is not there");
    }
    is
}

fn make() -> Result<Guest, String> {
    if !qemu_is_there() {
        return Err("qemu-system-x86_64 is not there".to_owned());
    }
    let cache = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("guest-linux");
    fs::create_dir_all(&cache).map_err(|e| e.to_string())?;
    let unpacked = match unpacked(&cache) {
        Ok(there) => there,
        Err(_) => fetch(&cache)?,
    };
    // From here on everything is there: what fails is the test's fault.
    let init = cache.join(format!("init-{}", std::process::id()));
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/failback_qemu/init.c");
    let mut cc = Command::new("cc");
    cc.args(["-static", "-Os", "-Wall", "-Wextra", "-Werror", "-o"]);
    output(cc.arg(&init).arg(source)).unwrap();
    let initrd = cache.join(format!("initrd-{}", std::process::id()));
    fs::write(&initrd, archive(&init, &unpacked.modules)).unwrap();
    fs::remove_file(init).unwrap();
    Ok(Guest {
        kernel: unpacked.kernel,
        initrd,
    })
}

struct Unpacked {
    kernel: PathBuf,
    modules: Vec<PathBuf>,
}

/// The newest package of the kernel that apt knows, unpacked into the cache.
fn fetch(cache: &Path) -> Result<Unpacked, String> {
    let depends = output(Command::new("apt-cache").args(["depends", "linux-image-cloud-amd64"]))?;
    let text = String::from_utf8_lossy(&depends.stdout).into_owned();
    let package = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with("linux-image-"))
        .ok_or("apt knows no kernel")?;
    let new = cache.join(format!("new-{}", std::process::id()));
    fs::create_dir_all(&new).map_err(|e| e.to_string())?;
    output(
        Command::new("apt-get")
            .args(["download", package])
            .current_dir(&new),
    )?;
    let archive = find(&new, "", ".deb").ok_or("apt-get has brought nothing")?;
    output(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&new))?;
    // One of several that do this at once wins; they are all alike.
    if fs::rename(&new, cache.join(UNPACKED)).is_err() {
        let _ = fs::remove_dir_all(&new);
    }
    unpacked(cache)
}

fn unpacked(cache: &Path) -> Result<Unpacked, String> {
    let root = cache.join(UNPACKED);
    let kernel = find(&root.join("boot"), "vmlinuz", "").ok_or("no kernel")?;
    let modules = MODULES.iter().map(|name| {
        let file = format!("{name}.ko");
        find(&root, &file, ".ko").ok_or_else(|| format!("the kernel has no {file}"))
    });
    Ok(Unpacked {
        kernel,
        modules: modules.collect::<Result<_, _>>()?,
    })
}

fn find(directory: &Path, begin: &str, end: &str) -> Option<PathBuf> {
    for entry in fs::read_dir(directory).ok()? {
        let path = entry.ok()?.path();
        let name = path.file_name()?.to_str()?;
        if path.is_dir() && !path.is_symlink() {
            if let Some(found) = find(&path, begin, end) {
                return Some(found);
            }
        } else if name.starts_with(begin) && name.ends_with(end) {
            return Some(path);
        }
    }
    None
}

/// An archive as the kernel unpacks it: cpio, "newc".
fn archive(init: &Path, modules: &[PathBuf]) -> Vec<u8> {
    let mut all = Vec::new();
    add(&mut all, "modules", 0o040_755, &[]);
    add(&mut all, "init", 0o100_755, &fs::read(init).unwrap());
    for (number, module) in modules.iter().enumerate() {
        let name = module.file_name().unwrap().to_str().unwrap();
        let name = format!("modules/{number}-{name}");
        add(&mut all, &name, 0o100_644, &fs::read(module).unwrap());
    }
    add(&mut all, "TRAILER!!!", 0, &[]);
    all
}

fn add(all: &mut Vec<u8>, name: &str, mode: usize, bytes: &[u8]) {
    let fields = [
        0,
        mode,
        0,
        0,
        1,
        0,
        bytes.len(),
        0,
        0,
        0,
        0,
        name.len() + 1,
        0,
    ];
    all.extend(b"070701");
    for field in fields {
        all.extend(format!("{field:08X}").bytes());
    }
    all.extend(name.bytes());
    all.push(0);
    all.resize(all.len().next_multiple_of(4), 0);
    all.extend(bytes);
    all.resize(all.len().next_multiple_of(4), 0);
}

fn output(command: &mut Command) -> Result<Output, String> {
    let output = command.output().map_err(|e| format!("{command:?}: {e}"))?;
    match output.status.success() {
        true => Ok(output),
        false => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(format!("{command:?}: {said}"))
        }
    }
}

/// In the order in which they need each other.
const MODULES: [&str; 8] = [
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "virtio_blk",
    "button",
    "evdev",
];
const UNPACKED: &str = "unpacked";
