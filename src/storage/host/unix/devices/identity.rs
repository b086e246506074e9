//! Names for devices that stay when the kernel numbers them anew.

use std::fmt;
use std::path::{Path, PathBuf};

use rustix::fs::{major, minor};

use super::kernel::{Kernel, device_number_at};
use crate::error::{Error, ErrorKind, Result};

/// Which device it is, across reboots and renumbering; safe as part of a file name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DeviceIdentity {
    name: String,
    is_stable: bool,
}

impl DeviceIdentity {
    /// At most 100 characters, all of them letters, digits, `.`, `_`, `+` and `-`.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// Whether another device cannot come to bear this name; if not, it is made of the kernel's
    /// number and the length, because the device tells nothing about itself.
    pub fn is_stable(&self) -> bool {
        self.is_stable
    }
}

impl fmt::Display for DeviceIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// The identity of the block device at `path`.
///
/// Asked in this order: device-mapper and RAID ids, the world-wide name, the serial number, for a
/// loop device its file and offset there. A partition is its disk's identity and its first sector.
///
/// # Errors
/// `InvalidInput` when `path` is no block device; `NotFound`, `Io`.
pub fn identity(path: impl AsRef<Path>) -> Result<DeviceIdentity> {
    let path = path.as_ref();
    if let Err(cause) = std::fs::metadata(path) {
        return Err(Error::io("inspect device", cause).at_path(path));
    }
    match device_number_at(path) {
        Some(number) => Ok(identify(&Kernel::host(), number)),
        None => Err(Error::new(ErrorKind::InvalidInput, "this is no block device").at_path(path)),
    }
}

/// The block devices of this host that bear a lasting name now, wherever the kernel put them. A
/// disk with two ways to it may be there twice.
pub fn devices_named(name: &str) -> Vec<PathBuf> {
    let kernel = Kernel::host();
    let bears = |number: &u64| {
        let identity = identify(&kernel, *number);
        identity.is_stable && identity.name == name
    };
    let mut found: Vec<PathBuf> = kernel
        .devices()
        .into_iter()
        .filter(bears)
        // The kernel writes a slash of such a name as an exclamation mark.
        .filter_map(|number| kernel.name(number)?.into_string().ok())
        .map(|name| Path::new("/dev").join(name.replace('!', "/")))
        .collect();
    found.sort();
    found
}

fn identify(kernel: &Kernel, number: u64) -> DeviceIdentity {
    if let Some(disk) = kernel.disk_of(number) {
        let whole = identify(kernel, disk);
        if let Some(start) = kernel.fact(number, "start") {
            return DeviceIdentity {
                name: safe_name(&format!("{}+{start}", whole.name)),
                is_stable: whole.is_stable,
            };
        }
    }
    for (prefix, file) in ID_FILES {
        if let Some(id) = kernel.fact(number, file) {
            return DeviceIdentity {
                name: safe_name(&format!("{prefix}-{id}")),
                is_stable: true,
            };
        }
    }
    if let Some(backing) = kernel.backing_file(number) {
        let offset = kernel.fact(number, "loop/offset").unwrap_or_default();
        let text = backing.to_string_lossy();
        let stem = backing.file_name().unwrap_or_default().to_string_lossy();
        let digest = blake3::hash(backing.as_os_str().as_encoded_bytes()).to_hex();
        let digest = digest.get(..16).unwrap_or_default();
        return DeviceIdentity {
            name: safe_name(&format!("loop-{stem}-{digest}-{offset}")),
            // A deleted file has given up its name.
            is_stable: !text.ends_with(" (deleted)"),
        };
    }
    let sectors = kernel.fact(number, "size").unwrap_or_default();
    DeviceIdentity {
        name: safe_name(&format!(
            "number-{}-{}-{sectors}",
            major(number),
            minor(number)
        )),
        is_stable: false,
    }
}

/// Replaces what is not safe in a file name; where anything was lost, a hash of the whole text
/// keeps two different ones apart.
fn safe_name(text: &str) -> String {
    let is_safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+');
    let mut name: String = text
        .chars()
        .map(|c| if is_safe(c) { c } else { '_' })
        .collect();
    if name != text || name.len() > NAME_BYTES {
        name.truncate(NAME_BYTES - HASH_CHARS - 1);
        let digest = blake3::hash(text.as_bytes()).to_hex();
        name.push('-');
        name.push_str(digest.get(..HASH_CHARS).unwrap_or_default());
    }
    name
}

const NAME_BYTES: usize = 100;
const HASH_CHARS: usize = 12;

/// Where a device's directory tells who it is: a prefix for the name, and the file.
const ID_FILES: [(&str, &str); 9] = [
    ("dm", "dm/uuid"),
    ("md", "md/uuid"),
    ("dmname", "dm/name"),
    ("wwid", "wwid"),
    ("wwid", "device/wwid"),
    ("cid", "device/cid"),
    ("serial", "serial"),
    ("serial", "device/serial"),
    ("nbd", "backend"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn device(root: &Path, facts: &[(&str, &str)]) -> DeviceIdentity {
        let directory = root.join("sys/dev/block/8:16");
        let _ = fs::remove_dir_all(&directory);
        for (file, text) in facts {
            let path = directory.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        identify(&Kernel::at(root), rustix::fs::makedev(8, 16))
    }

    #[test]
    fn the_strongest_fact_names_the_device() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let plain = device(root, &[("size", "2048\n"), ("dm/uuid", "\n")]);
        assert_eq!(plain.as_str(), "number-8-16-2048");
        assert!(!plain.is_stable());
        let serial = device(root, &[("size", "2048\n"), ("serial", "QM00001\n")]);
        assert_eq!(serial.as_str(), "serial-QM00001");
        assert_eq!(serial.to_string(), "serial-QM00001");
        assert!(serial.is_stable());
        let world = device(root, &[("serial", "x\n"), ("device/wwid", "naa.5000c5\n")]);
        assert_eq!(world.as_str(), "wwid-naa.5000c5");
        let volume = device(root, &[("dm/uuid", "LVM-abc\n"), ("wwid", "x\n")]);
        assert_eq!(volume.as_str(), "dm-LVM-abc");
    }

    #[test]
    fn names_are_safe_short_and_still_different() {
        let one = safe_name("wwid-t10.ATA  DISK/1");
        let two = safe_name("wwid-t10.ATA  DISK 1");
        assert_ne!(one, two);
        for name in [
            &one,
            &two,
            &safe_name(&"x".repeat(500)),
            &safe_name("../../etc"),
        ] {
            assert!(name.len() <= NAME_BYTES);
            assert!(!name.contains('/') && !name.contains(' '), "{name}");
        }
        let longest = "x".repeat(NAME_BYTES);
        assert_eq!(safe_name(&longest), longest);
        assert_eq!(safe_name(&"x".repeat(500)).len(), NAME_BYTES);
    }
}
