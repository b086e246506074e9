//! Opening a source or a target by path: what it is, who else uses it, and the locks.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::access::links::{resolve, resolve_to_write};
use super::access::lock::{self, Locked, Role};
use super::devices::in_use::{refuse_in_use, refuse_overlap, use_of};
use super::devices::kernel::Kernel;
use super::host_file::{HostFile, HostKind};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::{Allocation, DeviceStorage, FileStorage, Storage};

/// How a source is opened.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct SourceOptions {
    /// Bypasses the page cache.
    pub direct: bool,
    /// Reads also while another program writes to it; what is read may then never have been there
    /// at one moment.
    pub allow_writers: bool,
    /// Reads a disk that begins with the marker of an unfinished sync: the marker is data that the
    /// disk's own guest wrote.
    pub marker_is_data: bool,
}

/// How a target is opened.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct TargetOptions {
    /// Reads bypass the page cache; writes go through it.
    pub direct: bool,
    /// How zeros are stored.
    pub allocation: Allocation,
    /// Refuses a file with several names, because replacing it would separate them.
    pub single_link: bool,
    /// What will be read, to be refused as target.
    pub sources: Vec<HostFile>,
}

/// A source or target, open and locked.
#[derive(Clone)]
#[non_exhaustive]
pub struct Opened {
    /// The bytes. The locks last as long as this does.
    pub storage: Arc<dyn Storage>,
    /// What the path led to, with its symbolic links resolved.
    pub host: HostFile,
    /// Dangers that are no errors: locks that the file system does not have, other users of a
    /// source.
    pub warnings: Vec<String>,
}

opaque!(Opened);

impl SourceOptions {
    /// Replaces [`SourceOptions::direct`].
    #[must_use]
    pub fn with_direct(mut self, direct: bool) -> Self {
        self.direct = direct;
        self
    }

    /// Replaces [`SourceOptions::allow_writers`].
    #[must_use]
    pub fn with_allow_writers(mut self, allow: bool) -> Self {
        self.allow_writers = allow;
        self
    }

    /// Replaces [`SourceOptions::marker_is_data`].
    #[must_use]
    pub fn with_marker_is_data(mut self, is_data: bool) -> Self {
        self.marker_is_data = is_data;
        self
    }
}

impl TargetOptions {
    /// Replaces [`TargetOptions::direct`].
    #[must_use]
    pub fn with_direct(mut self, direct: bool) -> Self {
        self.direct = direct;
        self
    }

    /// Replaces [`TargetOptions::allocation`].
    #[must_use]
    pub fn with_allocation(mut self, allocation: Allocation) -> Self {
        self.allocation = allocation;
        self
    }

    /// Replaces [`TargetOptions::single_link`].
    #[must_use]
    pub fn with_single_link(mut self, single: bool) -> Self {
        self.single_link = single;
        self
    }

    /// Adds to [`TargetOptions::sources`].
    #[must_use]
    pub fn with_source(mut self, source: HostFile) -> Self {
        self.sources.push(source);
        self
    }
}

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

/// Looks at a conflict a few times within a third of a second: a child process between fork and
/// exec holds copies of all handles, so that a lock can outlive its owner for a moment; and tools
/// that look at every device open each for a moment.
pub(in crate::storage) fn patiently<T>(mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    for pause in PAUSES_MS {
        match attempt() {
            Err(error) if error.kind() == ErrorKind::InUse => {}
            outcome => return outcome,
        }
        std::thread::sleep(Duration::from_millis(pause));
    }
    attempt()
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

const PAUSES_MS: [u64; 5] = [10, 20, 40, 80, 160];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_choice_leaves_the_others_as_they_were_made() {
        let source = SourceOptions::default()
            .with_allow_writers(true)
            .with_direct(true);
        assert!(source.direct && source.allow_writers);
        let target = TargetOptions::default()
            .with_allocation(Allocation::Full)
            .with_direct(true);
        assert!(target.direct && target.allocation == Allocation::Full);
    }

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

    #[test]
    fn a_conflict_is_looked_at_again_and_nothing_else_is() {
        let attempts = |kind: ErrorKind, last: usize| {
            let mut count = 0;
            let outcome = patiently(|| {
                count += 1;
                match count < last {
                    true => Err(Error::new(kind, "not yet")),
                    false => Ok(()),
                }
            });
            (count, outcome.is_ok())
        };
        assert_eq!(attempts(ErrorKind::InUse, 3), (3, true));
        assert!(!attempts(ErrorKind::InUse, 99).1);
        assert_eq!(attempts(ErrorKind::Io, 3), (1, false));
    }
}
