//! Who else uses a target: mounts, swap, devices built upon it, loop devices, open handles; and
//! whether source and target are the same bytes.

use std::fs;
use std::ops::Range;
use std::path::Path;

use super::kernel::{Kernel, device_number_at};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::host::file_id::FileId;
use crate::storage::host::unix::host_file::{HostFile, Node, id_of};

/// Refuses a target that is used already: mounted, swap, under another device, attached to a loop
/// device, or open for writing in another process. A disk is used when one of its partitions is, a
/// partition when its whole disk is, a loop device when its file is.
///
/// What the system does not show is not found: handles of processes that may not be looked at
/// (without root those of other users), mappings whose handle was closed, servers in the kernel
/// that do not hold the device exclusively, other hosts. What other mount namespaces hold shows
/// through the exclusive open of a device only.
///
/// # Errors
/// `InUse`, naming the use.
pub fn refuse_in_use(host: &HostFile) -> Result<()> {
    refuse(&Kernel::host(), host)
}

/// Refuses a target that shares bytes with a source: the same file or device under another name,
/// a loop device and its file, a partition and its disk, a device and what it is built upon.
///
/// # Errors
/// `InUse`.
pub fn refuse_overlap(source: &HostFile, target: &HostFile) -> Result<()> {
    let kernel = Kernel::host();
    if !source.is_same(target)
        && !stands_on(&kernel, source, target)
        && !stands_on(&kernel, target, source)
    {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InUse,
        format!(
            "source and target share their bytes: {} is the source",
            source.path().display()
        ),
    )
    .at_path(target.path())
    .advise("name two different disks"))
}

/// What uses a file or device, in words; `None` when no use is known.
pub(in crate::storage) fn use_of(kernel: &Kernel, host: &HostFile) -> Option<String> {
    let shared = Shared::of(kernel, host);
    let parts = shared.parts.iter();
    parts
        .copied()
        .find_map(|number| use_of_device(kernel, number))
        .or_else(|| shared.below.iter().find_map(|it| mount_of(kernel, *it)))
        .or_else(|| shared.disks.iter().find_map(|it| holder_of(kernel, *it)))
        .or_else(|| use_of_bytes(kernel, &shared))
        .or_else(|| {
            let nodes: Vec<Node> = shared.nodes().collect();
            let (writer, node) = kernel.writer_of(&nodes)?;
            let what = match node {
                _ if node == host.node() => "it".to_owned(),
                Node::Device(number) => name_of(kernel, number),
                Node::File(_) => "the file under it".to_owned(),
            };
            let (process, command) = (writer.process, writer.command);
            Some(format!(
                "process {process} ({command}) has {what} open for writing"
            ))
        })
}

/// What holds the bytes of a file or device, as far as writing there writes to it: itself, its
/// partitions, the whole disk of a partition, and what a loop device is attached to.
///
/// What a device-mapper or RAID device is built upon is left out: daemons of those hold it.
struct Shared {
    /// The device and its partitions.
    parts: Vec<u64>,
    /// The devices that the target lies on: whole disks, and devices under loop devices.
    below: Vec<u64>,
    /// Those of them that are whole disks of partitions.
    disks: Vec<u64>,
    /// The target where it is a file, and files under loop devices, with the bytes that count.
    files: Vec<(FileId, Range<u64>)>,
}

impl Shared {
    fn of(kernel: &Kernel, host: &HostFile) -> Self {
        let mut shared = Shared {
            parts: Vec::new(),
            below: Vec::new(),
            disks: Vec::new(),
            files: Vec::new(),
        };
        let Some(number) = host.device_number() else {
            shared.files.push((host.id(), 0..u64::MAX));
            return shared;
        };
        shared.parts.push(number);
        shared.parts.extend(kernel.partitions(number));
        let mut pending = vec![number];
        while let Some(number) = pending.pop() {
            if let Some(disk) = kernel.disk_of(number) {
                shared.disks.push(disk);
                shared.go_below(disk, &mut pending);
            }
            // Where the backing file is out of sight, or this is no loop device, nothing more
            // shows.
            let Some(Ok(under)) = kernel.backing_file(number).map(HostFile::at) else {
                continue;
            };
            if let Some(device) = under.device_number() {
                shared.below.extend(kernel.partitions(device));
                shared.go_below(device, &mut pending);
            } else {
                let range = kernel.backed_range(number);
                shared.files.push((under.id(), range));
            }
        }
        shared
    }

    fn go_below(&mut self, number: u64, pending: &mut Vec<u64>) {
        if !self.below.contains(&number) {
            self.below.push(number);
            pending.push(number);
        }
    }

    fn devices(&self) -> impl Iterator<Item = u64> {
        self.parts.iter().chain(&self.below).copied()
    }

    fn nodes(&self) -> impl Iterator<Item = Node> {
        let files = self.files.iter().map(|(id, _)| Node::File(*id));
        self.devices().map(Node::Device).chain(files)
    }

    /// The bytes of the file or device at `path` that count, where they are among these.
    fn range_at(&self, path: &Path) -> Option<Range<u64>> {
        if let Some(number) = device_number_at(path) {
            return self.devices().any(|it| it == number).then_some(0..u64::MAX);
        }
        let id = id_of(&fs::metadata(path).ok()?);
        let file = self.files.iter().find(|(file, _)| *file == id);
        file.map(|(_, range)| range.clone())
    }
}

fn refuse(kernel: &Kernel, host: &HostFile) -> Result<()> {
    match use_of(kernel, host) {
        None => Ok(()),
        Some(what) => Err(Error::new(ErrorKind::InUse, format!("in use: {what}"))
            .at_path(host.path())
            .advise("stop that use first")),
    }
}

/// Mounts of a device and devices built upon it.
fn use_of_device(kernel: &Kernel, number: u64) -> Option<String> {
    mount_of(kernel, number).or_else(|| holder_of(kernel, number))
}

fn mount_of(kernel: &Kernel, number: u64) -> Option<String> {
    let mount = kernel.mounts().into_iter().find(|mount| {
        // File systems over several devices have a number of their own.
        let by_source =
            || mount.source.is_absolute() && device_number_at(&mount.source) == Some(number);
        mount.number == number || by_source()
    })?;
    let (name, point) = (name_of(kernel, number), mount.point.display());
    Some(format!("{name} is mounted on {point}"))
}

fn holder_of(kernel: &Kernel, number: u64) -> Option<String> {
    let holder = kernel.holders(number).into_iter().next()?;
    let (name, holder) = (name_of(kernel, number), holder.display());
    Some(format!("{name} is part of {holder}"))
}

fn name_of(kernel: &Kernel, number: u64) -> String {
    let name = kernel.name(number).unwrap_or_default();
    name.display().to_string()
}

/// Swap and loop devices, which take files as well as devices.
fn use_of_bytes(kernel: &Kernel, shared: &Shared) -> Option<String> {
    let swaps = kernel.swaps();
    if let Some(swap) = swaps.iter().find(|path| shared.range_at(path).is_some()) {
        return Some(format!("{} is swap space", swap.display()));
    }
    let own: Vec<u64> = shared.devices().collect();
    let own_disks: Vec<u64> = own.iter().filter_map(|it| kernel.disk_of(*it)).collect();
    let device = kernel.loop_devices().into_iter().find(|device| {
        // One of those that the target lies on itself shows no use by others.
        let is_own = own.contains(&device.number) || own_disks.contains(&device.number);
        let meets =
            |range: Range<u64>| range.start < device.range.end && device.range.start < range.end;
        !is_own && shared.range_at(&device.backing).is_some_and(meets)
    })?;
    let mut numbers = vec![device.number];
    numbers.extend(kernel.partitions(device.number));
    let further = numbers
        .iter()
        .find_map(|&number| use_of_device(kernel, number));
    Some(match further {
        Some(text) => format!("attached to {}, and {text}", device.name.display()),
        None => format!("attached to {}", device.name.display()),
    })
}

/// Whether the bytes of `upper` lie in `lower`, over any number of steps.
fn stands_on(kernel: &Kernel, upper: &HostFile, lower: &HostFile) -> bool {
    let mut pending: Vec<u64> = upper.device_number().into_iter().collect();
    let mut seen = Vec::new();
    while let Some(number) = pending.pop() {
        if seen.contains(&number) {
            continue;
        }
        seen.push(number);
        if lower.device_number() == Some(number) && upper.device_number() != Some(number) {
            return true;
        }
        pending.extend(kernel.disk_of(number));
        pending.extend(kernel.slaves(number));
        let Some(backing) = kernel.backing_file(number) else {
            continue;
        };
        match HostFile::at(&backing) {
            Ok(file) if file.is_same(lower) => return true,
            Ok(file) => pending.extend(file.device_number()),
            // Out of sight, so it is no file that anybody named.
            Err(_) => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A tree as the kernel shows it, with one disk (7:100) of two partitions.
    fn tree() -> (tempfile::TempDir, Kernel) {
        let root = tempfile::tempdir().unwrap();
        let disk = root.path().join("sys/devices/xda");
        for (directory, number) in [("", "7:100"), ("xda1", "7:101"), ("xda2", "7:102")] {
            let directory = disk.join(directory);
            fs::create_dir_all(directory.join("holders")).unwrap();
            fs::create_dir_all(directory.join("slaves")).unwrap();
            fs::write(directory.join("dev"), format!("{number}\n")).unwrap();
            let by_number = root.path().join("sys/dev/block");
            fs::create_dir_all(&by_number).unwrap();
            symlink(&directory, by_number.join(number)).unwrap();
            if number != "7:100" {
                fs::write(directory.join("partition"), "1\n").unwrap();
            }
        }
        fs::create_dir_all(root.path().join("proc/self")).unwrap();
        fs::write(root.path().join("proc/self/mountinfo"), "").unwrap();
        let kernel = Kernel::at(root.path());
        assert!(kernel.is_there());
        (root, kernel)
    }

    #[test]
    fn a_device_under_another_device_is_in_use_and_so_is_its_disk() {
        let (root, kernel) = tree();
        let part = rustix::fs::makedev(7, 101);
        assert_eq!(use_of_device(&kernel, part), None);
        fs::write(root.path().join("sys/devices/xda/xda1/holders/dm-3"), "").unwrap();
        let text = use_of_device(&kernel, part).unwrap();
        assert_eq!(text, "xda1 is part of dm-3");
        let disk = rustix::fs::makedev(7, 100);
        assert_eq!(kernel.disk_of(part), Some(disk));
        assert_eq!(kernel.disk_of(disk), None);
        assert!(kernel.partitions(disk).contains(&part));
    }

    #[test]
    fn a_mounted_partition_is_in_use() {
        let (root, kernel) = tree();
        fs::write(
            root.path().join("proc/self/mountinfo"),
            "36 35 7:102 / /mnt/data rw - ext4 /dev/xda2 rw\n",
        )
        .unwrap();
        let text = use_of_device(&kernel, rustix::fs::makedev(7, 102)).unwrap();
        assert_eq!(text, "xda2 is mounted on /mnt/data");
        assert_eq!(use_of_device(&kernel, rustix::fs::makedev(7, 101)), None);
    }

    #[test]
    fn a_swap_file_is_in_use_under_any_of_its_names() {
        let (root, kernel) = tree();
        let file = root.path().join("swap");
        fs::write(&file, "x").unwrap();
        fs::hard_link(&file, root.path().join("other")).unwrap();
        fs::write(
            root.path().join("proc/swaps"),
            format!(
                "Filename Type Size Used Priority\n{} file 4 0 -2\n",
                file.display()
            ),
        )
        .unwrap();
        let host = HostFile::at(root.path().join("other")).unwrap();
        let error = refuse(&kernel, &host).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InUse);
        assert!(error.to_string().contains("swap"), "{error}");
    }
}
