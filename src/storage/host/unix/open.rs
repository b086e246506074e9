//! Opening a source or a target by path: what it is, who else uses it, and the locks.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::access::links::{resolve, resolve_to_write};
use super::access::lock::{self, Locked, Role};
use super::devices::in_use::{refuse_in_use, refuse_overlap, use_of};
use super::devices::kernel::Kernel;
use super::host_file::HostFile;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::host::allocation::Allocation;
use crate::storage::host::file_id::HostKind;
use crate::storage::host::options::{Opened, SourceOptions, TargetOptions};
use crate::storage::host::patience::patiently;
use crate::storage::{DeviceStorage, FileStorage, Storage};

/// Opens a regular file or block device for reading.
///
/// Other readers are welcome. QEMU cannot open it for writing while the handle lives, and is
/// refused the same way if it writes already, unless `allow_writers` says otherwise. Other uses,
/// such as a mount, are told in the warnings.
///
/// # Errors
/// `NotFound`, `Io`; `Unsupported` for anything but a regular file or a block device; `InUse` when
/// another program holds QEMU's lock for writing.
pub fn open_source(path: impl AsRef<Path>, options: &SourceOptions) -> Result<Opened> {
    let path = resolve(path)?;
    let host = HostFile::at(&path)?;
    let mut warnings = Vec::new();
    let kernel = Kernel::host();
    if let Some(what) = use_of(&kernel, &host) {
        warnings.push(format!(
            "{}: {what}; what is read may change meanwhile",
            path.display()
        ));
    }
    let role = if options.allow_writers {
        Role::LiveSource
    } else {
        Role::Source
    };
    let (file, locked) = patiently(|| {
        let file = open_host(&host, OpenOptions::new().read(true), OFlags::empty())?;
        let locked = lock::take(&file, role).map_err(|e| e.at_path(&path))?;
        Ok((file, locked))
    })?;
    warn_of_missing_locks(locked, &path, &mut warnings);
    finish(host, file, Allocation::Keep, options.direct, warnings)
}

/// Opens an existing regular file or block device for reading and writing, and keeps everybody
/// else out as long as the handle lives.
///
/// Symbolic links are followed first, so that a later replacement replaces the file and not the
/// link. A block device is opened exclusively.
///
/// # Errors
/// `NotFound`, `Io`; `Untrusted` for a symbolic link of another user; `Unsupported` for anything
/// but a regular file or a block device, and for a hard-linked file where `single_link` is asked
/// for; `InUse` when it is mounted, swap, part of another device, attached to a loop device, open
/// for writing elsewhere, locked by QEMU or another handle of ours, or one of the sources.
pub fn open_target(path: impl AsRef<Path>, options: &TargetOptions) -> Result<Opened> {
    let path = resolve_to_write(path)?;
    let host = HostFile::at(&path)?;
    for source in &options.sources {
        refuse_overlap(source, &host)?;
    }
    if options.single_link && host.link_count() > 1 && host.kind() == HostKind::File {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "the file has {} names, and replacing it would separate them",
                host.link_count()
            ),
        )
        .at_path(&path)
        .advise("work in place, or remove the other hard links"));
    }
    refuse_read_only(&Kernel::host(), &host)?;
    let mut warnings = Vec::new();
    if !Kernel::host().is_there() {
        warnings.push("/sys or /proc is missing: cannot see who else uses the target".into());
    }
    let exclusive = match host.kind() {
        HostKind::Device => OFlags::EXCL,
        HostKind::File => OFlags::empty(),
    };
    let (file, locked) = patiently(|| {
        refuse_in_use(&host)?;
        let file = open_host(&host, OpenOptions::new().read(true).write(true), exclusive)?;
        let locked = lock::take(&file, Role::Target).map_err(|e| e.at_path(&path))?;
        Ok((file, locked))
    })?;
    warn_of_missing_locks(locked, &path, &mut warnings);
    // An earlier holder of the lock may have put a new file in its place.
    if !HostFile::at(&path)?.is_same(&host) {
        return Err(replaced(&path));
    }
    finish(host, file, options.allocation, options.direct, warnings)
}

/// Refuses a device that opens for writing and then fails every write.
fn refuse_read_only(kernel: &Kernel, host: &HostFile) -> Result<()> {
    match host.device_number() {
        Some(number) if kernel.is_read_only(number) => {
            Err(Error::io("open for writing", Errno::ROFS)
                .at_path(host.path())
                .advise("the device is read-only; have it writable (blockdev --setrw) first"))
        }
        _ => Ok(()),
    }
}

/// Opens what `host` describes, and nothing that took its name since.
fn open_host(host: &HostFile, options: &OpenOptions, more: OFlags) -> Result<File> {
    let path = host.path();
    let mut options = options.clone();
    // No waiting for a FIFO and no following of a link that came in between.
    options.custom_flags((OFlags::NONBLOCK | OFlags::NOFOLLOW | more).bits() as i32);
    let file = options.open(path).map_err(|cause| {
        if is_busy(&cause) {
            let what = "the system uses it, or another program has it open exclusively";
            Error::new(ErrorKind::InUse, what)
                .at_path(path)
                .caused_by(cause)
        } else {
            Error::io("open", cause).at_path(path)
        }
    })?;
    if HostFile::of(path.to_owned(), &file)?.is_same(host) {
        Ok(file)
    } else {
        Err(replaced(path))
    }
}

fn finish(
    host: HostFile,
    file: File,
    allocation: Allocation,
    direct: bool,
    warnings: Vec<String>,
) -> Result<Opened> {
    let path: PathBuf = host.path().to_owned();
    let storage: Arc<dyn Storage> = match host.kind() {
        HostKind::Device => Arc::new(DeviceStorage::from_file(path, file, allocation, direct)?),
        HostKind::File => Arc::new(FileStorage::from_file(path, file, allocation, direct)?),
    };
    Ok(Opened {
        storage,
        host,
        warnings,
    })
}

fn warn_of_missing_locks(locked: Locked, path: &Path, warnings: &mut Vec<String>) {
    if locked == Locked::NotSupported {
        warnings.push(format!(
            "{}: this file system has no locks of the kind QEMU uses; make sure that nothing \
             else writes to it",
            path.display()
        ));
    }
}

fn replaced(path: &Path) -> Error {
    Error::new(ErrorKind::InUse, "it was replaced while it was opened")
        .at_path(path)
        .advise("try again")
}

fn is_busy(cause: &std::io::Error) -> bool {
    matches!(
        Errno::from_io_error(cause),
        Some(Errno::BUSY | Errno::TXTBSY)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_holds_is_busy_and_what_is_not_allowed_is_not() {
        for (cause, busy) in [
            (Errno::BUSY, true),
            (Errno::TXTBSY, true),
            (Errno::ACCESS, false),
        ] {
            assert_eq!(is_busy(&cause.into()), busy, "{cause}");
        }
    }
}
