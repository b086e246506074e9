//! Who else uses a target: mounts, swap, devices built upon it, loop devices, open handles; and
//! whether source and target are the same bytes.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use super::host_file::{FileId, HostFile, HostKind};
use super::kernel::{Kernel, device_number_at};
use crate::error::{Error, ErrorKind, Result};

/// Refuses a target that somebody else uses: mounted, swap, under another device, attached to a
/// loop device, or open for writing in another process.
///
/// What other mount namespaces hold shows through the exclusive open of a device only.
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

/// What uses a file or device, in words; `None` when nobody is known to.
pub(super) fn use_of(kernel: &Kernel, host: &HostFile) -> Option<String> {
    let mut parts = Vec::new();
    if let Some(number) = host.device_number() {
        parts.push(number);
        parts.extend(kernel.partitions(number));
    }
    parts
        .iter()
        .find_map(|&number| use_of_device(kernel, number))
        .or_else(|| use_of_bytes(kernel, host, &parts))
        .or_else(|| {
            let writer = kernel.writer_of(host)?;
            Some(format!(
                "process {} ({}) has it open for writing",
                writer.process, writer.command
            ))
        })
}

fn refuse(kernel: &Kernel, host: &HostFile) -> Result<()> {
    match use_of(kernel, host) {
        None => Ok(()),
        Some(what) => Err(Error::new(ErrorKind::InUse, format!("in use: {what}"))
            .at_path(host.path())
            .advise("end that use first")),
    }
}

/// Mounts of a device and devices built upon it.
fn use_of_device(kernel: &Kernel, number: u64) -> Option<String> {
    let name = kernel.name(number).unwrap_or_default();
    if let Some(text) = mount_of(kernel, number, &name) {
        return Some(text);
    }
    let holder = kernel.holders(number).into_iter().next()?;
    Some(format!(
        "{} is part of {}",
        name.display(),
        holder.display()
    ))
}

fn mount_of(kernel: &Kernel, number: u64, name: &OsStr) -> Option<String> {
    let mount = kernel.mounts().into_iter().find(|mount| {
        // File systems over several devices have a number of their own.
        let by_source =
            || mount.source.is_absolute() && device_number_at(&mount.source) == Some(number);
        mount.number == number || by_source()
    })?;
    Some(format!(
        "{} is mounted on {}",
        name.display(),
        mount.point.display()
    ))
}

/// Swap and loop devices, which take files as well as devices; `parts` are the device and its
/// partitions.
fn use_of_bytes(kernel: &Kernel, host: &HostFile, parts: &[u64]) -> Option<String> {
    let is_it = |path: &Path| match host.kind() {
        HostKind::Device => device_number_at(path).is_some_and(|number| parts.contains(&number)),
        HostKind::File => fs::metadata(path).is_ok_and(|facts| FileId::of(&facts) == host.id()),
    };
    if let Some(swap) = kernel.swaps().iter().find(|path| is_it(path)) {
        return Some(format!("{} is swap space", swap.display()));
    }
    let device = kernel
        .loop_devices()
        .into_iter()
        .find(|device| is_it(&device.backing))?;
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
        for (folder, number) in [("", "7:100"), ("xda1", "7:101"), ("xda2", "7:102")] {
            let folder = disk.join(folder);
            fs::create_dir_all(folder.join("holders")).unwrap();
            fs::create_dir_all(folder.join("slaves")).unwrap();
            fs::write(folder.join("dev"), format!("{number}\n")).unwrap();
            let by_number = root.path().join("sys/dev/block");
            fs::create_dir_all(&by_number).unwrap();
            symlink(&folder, by_number.join(number)).unwrap();
            if number != "7:100" {
                fs::write(folder.join("partition"), "1\n").unwrap();
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
