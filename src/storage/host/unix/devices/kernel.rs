//! What the kernel tells about devices: `/sys` and `/proc`, read and not interpreted further.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::ops::Range;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{major, makedev, minor};

use crate::storage::host::file_id::FileId;
use crate::storage::host::unix::host_file::Node;

/// The two trees; tests bring their own.
#[derive(Debug, Clone)]
pub(in crate::storage) struct Kernel {
    sys: PathBuf,
    proc: PathBuf,
}

/// A loop device that is attached to something.
#[derive(Debug, Clone)]
pub(in crate::storage) struct LoopDevice {
    pub(in crate::storage) number: u64,
    pub(in crate::storage) name: OsString,
    pub(in crate::storage) backing: PathBuf,
    /// The bytes of the backing file that it shows.
    pub(in crate::storage) range: Range<u64>,
}

/// One line of the mount table.
#[derive(Debug, Clone)]
pub(in crate::storage) struct Mount {
    /// The device, or an invented number for file systems over several.
    pub(in crate::storage) number: u64,
    pub(in crate::storage) point: PathBuf,
    pub(in crate::storage) source: PathBuf,
    /// The kind of file system.
    pub(in crate::storage) kind: OsString,
}

/// A process that has a file open for writing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::storage) struct Writer {
    pub(in crate::storage) process: u32,
    pub(in crate::storage) command: String,
}

impl Kernel {
    pub(in crate::storage) fn host() -> Self {
        Kernel {
            sys: "/sys".into(),
            proc: "/proc".into(),
        }
    }

    #[cfg(test)]
    pub(in crate::storage) fn at(root: &Path) -> Self {
        Kernel {
            sys: root.join("sys"),
            proc: root.join("proc"),
        }
    }

    /// Whether both trees are there; without them nothing can be said about others.
    pub(in crate::storage) fn is_there(&self) -> bool {
        self.sys.join("dev/block").is_dir() && self.proc.join("self/mountinfo").is_file()
    }

    /// The directory of a device, by its number.
    pub(in crate::storage) fn device_directory(&self, number: u64) -> Option<PathBuf> {
        let name = format!("{}:{}", major(number), minor(number));
        fs::canonicalize(self.sys.join("dev/block").join(name)).ok()
    }

    /// The kernel's name of a device, such as `sda1`.
    pub(in crate::storage) fn name(&self, number: u64) -> Option<OsString> {
        Some(self.device_directory(number)?.file_name()?.to_owned())
    }

    /// A short text out of a device's directory, without the white space around it.
    pub(in crate::storage) fn fact(&self, number: u64, file: &str) -> Option<String> {
        let text = fs::read(self.device_directory(number)?.join(file)).ok()?;
        let text = String::from_utf8_lossy(&text);
        let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// Whether a device, or the disk that it is a partition of, takes no writes.
    pub(in crate::storage) fn is_read_only(&self, number: u64) -> bool {
        let devices = [Some(number), self.disk_of(number)];
        let mut facts = devices.into_iter().flatten();
        facts.any(|number| self.fact(number, "ro").as_deref() == Some("1"))
    }

    /// The numbers of all block devices, disks and partitions.
    pub(in crate::storage) fn devices(&self) -> Vec<u64> {
        entries(&self.sys.join("dev/block"))
            .filter_map(|entry| parse_number(entry.file_name()?.to_str()?))
            .collect()
    }

    /// The disk that a partition is part of; `None` for whole disks.
    pub(in crate::storage) fn disk_of(&self, number: u64) -> Option<u64> {
        let directory = self.device_directory(number)?;
        if !directory.join("partition").exists() {
            return None;
        }
        number_in(directory.parent()?)
    }

    /// The partitions of a disk.
    pub(in crate::storage) fn partitions(&self, number: u64) -> Vec<u64> {
        let Some(directory) = self.device_directory(number) else {
            return Vec::new();
        };
        entries(&directory)
            .filter(|entry| entry.join("partition").exists())
            .filter_map(|entry| number_in(&entry))
            .collect()
    }

    /// The names of the devices built upon this one.
    pub(in crate::storage) fn holders(&self, number: u64) -> Vec<OsString> {
        let Some(directory) = self.device_directory(number) else {
            return Vec::new();
        };
        entries(&directory.join("holders"))
            .filter_map(|entry| entry.file_name().map(OsStr::to_owned))
            .collect()
    }

    /// The devices that this one is built upon.
    pub(in crate::storage) fn slaves(&self, number: u64) -> Vec<u64> {
        let Some(directory) = self.device_directory(number) else {
            return Vec::new();
        };
        entries(&directory.join("slaves"))
            .filter_map(|entry| number_in(&entry))
            .collect()
    }

    /// What a loop device is attached to.
    pub(in crate::storage) fn backing_file(&self, number: u64) -> Option<PathBuf> {
        backing_file_in(&self.device_directory(number)?)
    }

    /// All attached loop devices.
    pub(in crate::storage) fn loop_devices(&self) -> Vec<LoopDevice> {
        entries(&self.sys.join("block"))
            .filter_map(|directory| {
                let number = number_in(&directory)?;
                Some(LoopDevice {
                    number,
                    backing: backing_file_in(&directory)?,
                    name: directory.file_name()?.to_owned(),
                    range: self.backed_range(number),
                })
            })
            .collect()
    }

    /// The bytes of its backing file that a loop device shows; all from its first on where the
    /// length does not show.
    pub(in crate::storage) fn backed_range(&self, number: u64) -> Range<u64> {
        let number_of = |file| self.fact(number, file)?.parse::<u64>().ok();
        let start = number_of("loop/offset").unwrap_or(0);
        let sectors = number_of("size").filter(|sectors| *sectors > 0);
        let len = sectors.map_or(u64::MAX, |sectors| sectors.saturating_mul(512));
        start..start.saturating_add(len)
    }

    /// All mounts that this process sees.
    pub(in crate::storage) fn mounts(&self) -> Vec<Mount> {
        let table = fs::read(self.proc.join("self/mountinfo")).unwrap_or_default();
        table.split(|&b| b == b'\n').filter_map(mount_in).collect()
    }

    /// All swap files and devices.
    pub(in crate::storage) fn swaps(&self) -> Vec<PathBuf> {
        let table = fs::read(self.proc.join("swaps")).unwrap_or_default();
        table
            .split(|&b| b == b'\n')
            .skip(1)
            .filter_map(|line| words(line).next().map(unescape))
            .collect()
    }

    /// The first other process found that has one of `nodes` open for writing, and which of them.
    /// Processes that may not be looked at are passed over.
    pub(in crate::storage) fn writer_of(&self, nodes: &[Node]) -> Option<(Writer, Node)> {
        let mine = std::process::id();
        entries(&self.proc)
            .filter_map(|directory| {
                let process: u32 = directory.file_name()?.to_str()?.parse().ok()?;
                (process != mine).then_some((process, directory))
            })
            .find_map(|(process, directory)| {
                let node = written(&directory, nodes)?;
                let command = fs::read_to_string(directory.join("comm"));
                let command = command.map(|name| name.trim_end().to_owned());
                let writer = Writer {
                    process,
                    command: command.unwrap_or_default(),
                };
                Some((writer, node))
            })
    }
}

/// The first of `nodes` that a process has open for writing.
fn written(process: &Path, nodes: &[Node]) -> Option<Node> {
    entries(&process.join("fd")).find_map(|link| {
        let node = node_without_waiting(&link).filter(|node| nodes.contains(node))?;
        let info = process.join("fdinfo").join(link.file_name()?);
        is_open_for_writing(&info).then_some(node)
    })
}

/// Looks at what the system holds in memory: a network file system that does not answer must not
/// hold up a look at other people's handles.
fn node_without_waiting(link: &Path) -> Option<Node> {
    use rustix::fs::{AtFlags, CWD, FileType, StatxFlags, statx};
    let wanted = StatxFlags::TYPE | StatxFlags::INO;
    let facts = statx(CWD, link, AtFlags::STATX_DONT_SYNC, wanted).ok()?;
    Some(match FileType::from_raw_mode(facts.stx_mode.into()) {
        FileType::BlockDevice => Node::Device(makedev(facts.stx_rdev_major, facts.stx_rdev_minor)),
        _ => Node::File(FileId {
            device: makedev(facts.stx_dev_major, facts.stx_dev_minor),
            inode: facts.stx_ino,
        }),
    })
}

/// The flags stand in octal; the last two bits are the access.
fn is_open_for_writing(info: &Path) -> bool {
    let text = fs::read_to_string(info).unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix("flags:"))
        .and_then(|flags| u64::from_str_radix(flags.trim(), 8).ok())
        .is_some_and(|flags| matches!(flags & 3, 1 | 2))
}

fn entries(directory: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
}

/// `MAJOR:MINOR` out of a device's directory.
fn number_in(directory: &Path) -> Option<u64> {
    parse_number(fs::read_to_string(directory.join("dev")).ok()?.trim())
}

fn parse_number(text: &str) -> Option<u64> {
    let (major, minor) = text.split_once(':')?;
    Some(makedev(major.parse().ok()?, minor.parse().ok()?))
}

fn backing_file_in(directory: &Path) -> Option<PathBuf> {
    let mut path = fs::read(directory.join("loop/backing_file")).ok()?;
    if path.last() == Some(&b'\n') {
        path.pop();
    }
    (!path.is_empty()).then(|| OsString::from_vec(path).into())
}

/// Fields: id, parent, number, root, point, options, optional ones, `-`, type, source, options.
fn mount_in(line: &[u8]) -> Option<Mount> {
    let mut fields = words(line);
    let number = parse_number(std::str::from_utf8(fields.nth(2)?).ok()?)?;
    let point = unescape(fields.nth(1)?);
    fields.find(|field| *field == b"-")?;
    let kind = OsStr::from_bytes(fields.next()?).to_owned();
    let source = unescape(fields.next()?);
    Some(Mount {
        number,
        point,
        source,
        kind,
    })
}

fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|b| matches!(b, b' ' | b'\t'))
        .filter(|word| !word.is_empty())
}

/// White space and backslashes stand as three octal digits in the kernel's tables.
fn unescape(field: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let octal = after
            .get(..3)
            .filter(|_| first == b'\\')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        path.push(octal.unwrap_or(first));
        rest = after
            .get(if octal.is_some() { 3 } else { 0 }..)
            .unwrap_or_default();
    }
    OsStr::from_bytes(&path).into()
}

/// The number of the device that a path leads to, if it leads to one.
pub(in crate::storage) fn device_number_at(path: &Path) -> Option<u64> {
    use std::os::unix::fs::FileTypeExt;
    let facts = fs::metadata(path).ok()?;
    facts.file_type().is_block_device().then(|| facts.rdev())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::host::unix::host_file::HostFile;

    #[test]
    fn nothing_can_be_said_where_one_of_the_trees_is_missing() {
        let root = tempfile::tempdir().unwrap();
        let kernel = Kernel::at(root.path());
        assert!(!kernel.is_there());
        fs::create_dir_all(root.path().join("sys/dev/block")).unwrap();
        assert!(!kernel.is_there());
        fs::create_dir_all(root.path().join("proc/self")).unwrap();
        fs::write(root.path().join("proc/self/mountinfo"), "").unwrap();
        assert!(kernel.is_there());
        fs::remove_dir_all(root.path().join("sys")).unwrap();
        assert!(!kernel.is_there());
    }

    #[test]
    fn the_devices_that_one_is_built_upon_are_told_by_their_numbers() {
        let root = tempfile::tempdir().unwrap();
        let kernel = Kernel::at(root.path());
        let number = makedev(253, 0);
        assert!(kernel.slaves(number).is_empty());
        for below in ["8:16", "8:33"] {
            let directory = root.path().join("sys/dev/block/253:0/slaves").join(below);
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join("dev"), format!("{below}\n")).unwrap();
        }
        let mut found = kernel.slaves(number);
        found.sort_unstable();
        assert_eq!(found, [makedev(8, 16), makedev(8, 33)]);
    }

    #[test]
    fn the_loop_devices_are_those_with_a_file_behind_them() {
        let root = tempfile::tempdir().unwrap();
        let kernel = Kernel::at(root.path());
        assert!(kernel.loop_devices().is_empty());
        for (name, number) in [("loop3", "7:3"), ("loop4", "7:4"), ("sda", "8:0")] {
            let directory = root.path().join("sys/block").join(name);
            fs::create_dir_all(directory.join("loop")).unwrap();
            fs::write(directory.join("dev"), format!("{number}\n")).unwrap();
        }
        let backing = root.path().join("sys/block/loop3/loop/backing_file");
        fs::write(backing, "/a disk\n").unwrap();
        let found = kernel.loop_devices();
        let [only] = &found[..] else {
            panic!("{found:?}");
        };
        assert_eq!(only.number, makedev(7, 3));
        assert_eq!(only.name, "loop3");
        assert_eq!(only.backing, Path::new("/a disk"));
    }

    /// A process that has `path` open with these flags, in octal.
    fn has_open(root: &Path, process: &str, path: &Path, flags: &str) {
        let directory = root.join("proc").join(process);
        for part in ["fd", "fdinfo"] {
            fs::create_dir_all(directory.join(part)).unwrap();
        }
        let _ = fs::remove_file(directory.join("fd/3"));
        std::os::unix::fs::symlink(path, directory.join("fd/3")).unwrap();
        let info = format!("pos:\t0\nflags:\t{flags}\n");
        fs::write(directory.join("fdinfo/3"), info).unwrap();
        fs::write(directory.join("comm"), "writer\n").unwrap();
    }

    #[test]
    fn who_has_a_file_or_device_open_for_writing_is_found() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let [file, other] = ["file", "other"].map(|name| root.join(name));
        for path in [&file, &other] {
            fs::write(path, "").unwrap();
        }
        let mut cases = vec![
            (file.clone(), other.clone()),
            (file.clone(), root.to_owned()),
        ];
        let mut devices = entries(Path::new("/dev")).filter(|it| device_number_at(it).is_some());
        match (devices.next(), devices.next()) {
            (Some(one), Some(two)) => cases.extend([(one.clone(), other), (one, two)]),
            _ => eprintln!("LEFT OUT: there are no two block devices"),
        }
        for (path, other) in cases {
            let host = HostFile::at(&path).unwrap();
            let found = |path: &Path, flags: &str| {
                has_open(root, "1", path, flags);
                Kernel::at(root)
                    .writer_of(&[host.node()])
                    .map(|(writer, _)| writer)
            };
            let writer = Writer {
                process: 1,
                command: "writer".to_owned(),
            };
            let what = path.display();
            assert_eq!(found(&path, "0100002"), Some(writer.clone()), "{what}");
            assert_eq!(found(&path, "0100001"), Some(writer), "{what}");
            assert_eq!(found(&path, "0100000"), None, "{what}");
            assert_eq!(found(&other, "0100002"), None, "{what}");
            // What is open here is no other's.
            let own = std::process::id().to_string();
            has_open(root, &own, &path, "0100002");
            assert_eq!(Kernel::at(root).writer_of(&[host.node()]), None, "{what}");
            fs::remove_dir_all(root.join("proc").join(own)).unwrap();
        }
    }

    #[test]
    fn a_mount_line_gives_number_point_and_source_with_its_spaces() {
        let line = br"36 35 98:0 /mnt1 /mnt\040a\134b rw,noatime master:1 - ext3 /dev/x\040y rw";
        let mount = mount_in(line).unwrap();
        assert_eq!(mount.number, makedev(98, 0));
        assert_eq!(mount.point, Path::new(r"/mnt a\b"));
        assert_eq!(mount.source, Path::new("/dev/x y"));
        assert_eq!(mount.kind, "ext3");
        for broken in [
            "",
            "1 2",
            "36 35 98:0 / /mnt rw",
            "36 35 98 / /mnt rw - ext3 x rw",
        ] {
            assert!(mount_in(broken.as_bytes()).is_none(), "{broken}");
        }
        assert_eq!(unescape(br"a\04"), Path::new(r"a\04"));
    }
}
