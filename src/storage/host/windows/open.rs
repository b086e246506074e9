//! Opening a source or a target by path. Share modes are the locks: what others have open decides
//! whether a file can be opened, and what is open here decides for others.

use std::fs::{File, OpenOptions};
use std::os::windows::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use windows_sys::Win32::Storage::FileSystem::{
    FILE_FLAG_OPEN_REPARSE_POINT, FILE_SHARE_DELETE, FILE_SHARE_READ, FILE_SHARE_WRITE,
};

use super::access::links::{resolve, resolve_to_write};
use super::devices::in_use::refuse_overlap;
use super::file::FileStorage;
use super::host_file::HostFile;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::host::allocation::Allocation;
use crate::storage::host::options::{Opened, SourceOptions, TargetOptions};
use crate::storage::host::patience::patiently;

/// Opens a regular file for reading.
///
/// Other readers are welcome. While the handle lives no program can open it for writing, and it is
/// refused if one has it open for writing already, unless `allow_writers` says otherwise.
///
/// # Errors
/// `NotFound`, `Io`; `Unsupported` for anything but a regular file; `InUse` when another program
/// has it open for writing, as Hyper-V has the image of a virtual machine that runs.
pub fn open_source(path: impl AsRef<Path>, options: &SourceOptions) -> Result<Opened> {
    let path = resolve(path)?;
    let host = HostFile::at(&path)?;
    let share = match options.allow_writers {
        true => FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE,
        false => FILE_SHARE_READ | FILE_SHARE_DELETE,
    };
    let file = patiently(|| open_host(&host, OpenOptions::new().read(true).share_mode(share)))?;
    finish(host, file, Allocation::Keep, options.direct)
}

/// Opens an existing regular file for reading and writing. As long as the handle lives no other
/// program writes to it, and none opens it that shares no writing, as Hyper-V and this program do;
/// its name may be changed.
///
/// # Errors
/// `NotFound`, `Io`; `Unsupported` for anything but a regular file, and for a hard-linked file
/// where `single_link` is asked for; `InUse` when another program has it open, or it is one of the
/// sources.
pub fn open_target(path: impl AsRef<Path>, options: &TargetOptions) -> Result<Opened> {
    let path = resolve_to_write(path)?;
    let host = HostFile::at(&path)?;
    for source in &options.sources {
        refuse_overlap(source, &host)?;
    }
    if options.single_link && host.link_count() > 1 {
        let what = format!(
            "the file has {} names, and replacing it would separate them",
            host.link_count()
        );
        return Err(Error::new(ErrorKind::Unsupported, what)
            .at_path(&path)
            .advise("work in place, or remove the other hard links"));
    }
    let mut how = OpenOptions::new();
    how.read(true)
        .write(true)
        .share_mode(FILE_SHARE_READ | FILE_SHARE_DELETE);
    let file = patiently(|| open_host(&host, &how))?;
    // What had the name may have been replaced meanwhile.
    if !HostFile::at(&path)?.is_same(&host) {
        return Err(replaced(&path));
    }
    finish(host, file, options.allocation, options.direct)
}

/// Opens what `host` describes, and nothing that took its name since.
fn open_host(host: &HostFile, options: &OpenOptions) -> Result<File> {
    let path = host.path();
    let mut options = options.clone();
    options.custom_flags(FILE_FLAG_OPEN_REPARSE_POINT);
    let file = options.open(path).map_err(|cause| {
        let error = Error::io("open", cause).at_path(path);
        match error.kind() {
            ErrorKind::InUse => {
                error.advise("stop the virtual machine or the program that has it open")
            }
            _ => error,
        }
    })?;
    match HostFile::of(path.to_owned(), &file)?.is_same(host) {
        true => Ok(file),
        false => Err(replaced(path)),
    }
}

fn finish(host: HostFile, file: File, allocation: Allocation, direct: bool) -> Result<Opened> {
    let path = host.path().to_owned();
    Ok(Opened {
        storage: Arc::new(FileStorage::from_file(path, file, allocation, direct)?),
        host,
        warnings: Vec::new(),
    })
}

fn replaced(path: &Path) -> Error {
    Error::new(ErrorKind::InUse, "it was replaced while it was opened")
        .at_path(path)
        .advise("try again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_keeps_writers_out_and_a_target_all_who_share_no_writing() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("disk");
        std::fs::write(&path, b"disk").unwrap();
        let (as_source, as_target) = (SourceOptions::default(), TargetOptions::default());
        let kind = |opened: Result<Opened>| opened.err().map(|error| error.kind());
        let source = open_source(&path, &as_source).unwrap();
        assert!(open_source(&path, &as_source).is_ok());
        assert_eq!(kind(open_target(&path, &as_target)), Some(ErrorKind::InUse));
        assert!(OpenOptions::new().write(true).open(&path).is_err());
        drop(source);
        let target = open_target(&path, &as_target).unwrap();
        assert_eq!(kind(open_target(&path, &as_target)), Some(ErrorKind::InUse));
        assert_eq!(kind(open_source(&path, &as_source)), Some(ErrorKind::InUse));
        assert!(OpenOptions::new().write(true).open(&path).is_err());
        drop(target);
        let writer = OpenOptions::new().write(true).open(&path).unwrap();
        assert_eq!(kind(open_source(&path, &as_source)), Some(ErrorKind::InUse));
        let live = as_source.with_allow_writers(true);
        assert!(open_source(&path, &live).is_ok());
        drop(writer);
    }
}
