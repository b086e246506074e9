//! Where a disk stands: under its own name, where a VM finds it, or under one that no VM has.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::error::{Error, ErrorKind, Result};
use crate::image::Format;
use crate::location::Location;
use crate::storage::{Directory, FileRef, HostDirectory, HostFile, resolve_to_write};

/// The names that a job gives a disk's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DiskPath {
    /// What the VM knows it by, symbolic links followed.
    pub own: PathBuf,
    /// Its name while it may not be booted from. The extension stays. A block device, which
    /// has no name to take away, is held by the sync layer instead.
    pub blocked: PathBuf,
    /// Whether it is a block device, or would be if it were there.
    pub is_device: bool,
    /// A second name of the file that a full copy takes the place of: the way back.
    pub before: PathBuf,
    /// How its image is read and written.
    pub format: Format,
    prefix: OsString,
}

/// Under which name a disk stands now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FoundName {
    /// Its own.
    Own,
    /// The one that this job gave it.
    Blocked,
    /// One that an earlier job gave it and left it with.
    Left(PathBuf),
    /// There is no such file.
    Missing,
}

/// The address of a disk while its VM must not boot from it.
pub(in crate::failback) fn blocked_address(at: &Location, format: Format, job: &str) -> String {
    let path = at.path().map(|path| DiskPath::new(path, format, job));
    let path = match path {
        Some(Ok(disk_path)) => disk_path.blocked,
        _ => named(Path::new(&at.to_string()), job, PARTIAL),
    };
    path.display().to_string()
}

/// The name that a job gives a disk's file.
fn named(own: &Path, job: &str, kind: &str) -> PathBuf {
    let mut name = own.file_name().unwrap_or_default().to_owned();
    name.push(format!("{MIDDLE}{job}.{kind}"));
    if let Some(extension) = own.extension() {
        name.push(".");
        name.push(extension);
    }
    own.with_file_name(name)
}

impl DiskPath {
    /// The names of the disk at `path`, for a job of this name.
    ///
    /// # Errors
    /// `Io`; `InvalidInput` for a path without a file name; `Untrusted` for a symbolic link of
    /// another user.
    pub(super) fn new(path: &Path, format: Format, job: &str) -> Result<Self> {
        let own = resolve_to_write(path)?;
        let name = own.file_name().ok_or_else(|| {
            Error::new(ErrorKind::InvalidInput, "a path without a file name").at_path(path)
        })?;
        let is_device = match fs::metadata(&own) {
            Ok(found) => found.file_type().is_block_device(),
            Err(_) => own.starts_with("/dev"),
        };
        let mut prefix = name.to_owned();
        prefix.push(MIDDLE);
        let blocked = match is_device {
            true => own.clone(),
            false => named(&own, job, PARTIAL),
        };
        Ok(DiskPath {
            blocked,
            is_device,
            before: named(&own, job, "before"),
            own,
            format,
            prefix,
        })
    }

    /// Looks which name is in use.
    ///
    /// # Errors
    /// `AlreadyExists` where two are; `Io`.
    pub(super) fn found_name(&self) -> Result<FoundName> {
        let mut found = Vec::new();
        if exists(&self.own)? {
            found.push((self.own.clone(), FoundName::Own));
        }
        if !self.is_device && exists(&self.blocked)? {
            found.push((self.blocked.clone(), FoundName::Blocked));
        }
        for path in self.left_behind()? {
            found.push((path.clone(), FoundName::Left(path)));
        }
        // One file under both names: a rename that was cut off, where it takes two steps.
        if let [(own, FoundName::Own), (blocked, FoundName::Blocked)] = &found[..]
            && is_same(own, blocked)?
        {
            return Ok(FoundName::Blocked);
        }
        match found.len() {
            0 => Ok(FoundName::Missing),
            1 => Ok(found.swap_remove(0).1),
            _ => {
                let names: Vec<_> = found.iter().map(|it| it.0.display().to_string()).collect();
                let text = format!("this disk stands under several names: {}", names.join(", "));
                Err(Error::new(ErrorKind::AlreadyExists, text)
                    .at_path(&self.own)
                    .advise("find out which one is right, and move the others away"))
            }
        }
    }

    /// The path that the disk is at now; `None` where it is missing.
    pub(super) fn path(&self) -> Result<Option<PathBuf>> {
        Ok(match self.found_name()? {
            FoundName::Own => Some(self.own.clone()),
            FoundName::Blocked => Some(self.blocked.clone()),
            FoundName::Left(path) => Some(path),
            FoundName::Missing => None,
        })
    }

    /// The path that the disk is at now.
    ///
    /// # Errors
    /// `NotFound`, saying under which names it was looked for.
    pub(super) fn there(&self) -> Result<PathBuf> {
        self.path()?.ok_or_else(|| self.gone())
    }

    /// The error for a disk that is not there.
    pub(super) fn gone(&self) -> Error {
        if self.is_device {
            return Error::new(ErrorKind::NotFound, "the block device is not there")
                .at_path(&self.own)
                .advise("attach it again, then retry");
        }
        let text = "the disk is neither there nor under the name that the job gave it";
        Error::new(ErrorKind::NotFound, text)
            .at_path(&self.own)
            .advise(format!(
                "if it was moved, move it back to {}, then retry",
                self.blocked.display()
            ))
    }

    /// Takes the disk's name away; a device keeps its own. Durable when it returns; `false` where
    /// there is no disk.
    pub(super) fn block(&self) -> Result<bool> {
        match self.found_name()? {
            FoundName::Missing => return Ok(false),
            FoundName::Own if self.is_device => return Ok(true),
            FoundName::Blocked if exists(&self.own)? => move_to(&self.own, &self.blocked)?,
            FoundName::Blocked => {}
            FoundName::Own => move_to(&self.own, &self.blocked)?,
            FoundName::Left(path) => move_to(&path, &self.blocked)?,
        }
        // A rename of an executor that died may not be durable yet.
        self.sync_directory()?;
        Ok(true)
    }

    /// Gives the disk its own name. Durable when it returns; `false` where there is no disk.
    pub(super) fn unblock(&self) -> Result<bool> {
        match self.found_name()? {
            FoundName::Missing => return Ok(false),
            FoundName::Own if self.is_device => return Ok(true),
            FoundName::Own => {}
            FoundName::Blocked => move_to(&self.blocked, &self.own)?,
            FoundName::Left(_) => return Err(self.gone()),
        }
        self.sync_directory()?;
        Ok(true)
    }

    /// Where the way back from the next pass is written.
    pub(super) fn next_undo(&self) -> Result<PathBuf> {
        let next = self.undos()?.last().map_or(1, |(number, _)| number + 1);
        Ok(self.undo_path(next))
    }

    /// The ways back that there are, oldest first.
    pub(super) fn undos(&self) -> Result<Vec<(u32, PathBuf)>> {
        let pattern = self.undo_path(0);
        let stem = pattern.file_name().unwrap_or_default().to_string_lossy();
        let stem = stem.trim_end_matches('0');
        let mut undos: Vec<_> = self
            .siblings()?
            .into_iter()
            .filter_map(|name| {
                let number = name.to_str()?.strip_prefix(stem)?.parse().ok()?;
                Some((number, self.own.with_file_name(&name)))
            })
            .collect();
        undos.sort_unstable();
        Ok(undos)
    }

    /// Makes earlier renames and removals durable.
    pub(super) fn sync_directory(&self) -> Result<()> {
        HostDirectory::open(self.directory())?.sync()
    }

    /// The directory that it lies in.
    pub(super) fn directory(&self) -> &Path {
        self.own.parent().unwrap_or(Path::new("/"))
    }

    /// The directory that tells how fast it can be written; none for a device.
    pub(super) fn medium(&self) -> Option<&Path> {
        (!self.is_device).then(|| self.directory())
    }

    fn undo_path(&self, number: u32) -> PathBuf {
        self.before.with_extension(format!("undo-{number}"))
    }

    /// Files that other jobs left of this disk.
    fn left_behind(&self) -> Result<Vec<PathBuf>> {
        if self.is_device {
            return Ok(Vec::new());
        }
        let prefix = self.prefix.to_string_lossy();
        let partial = format!(".{PARTIAL}");
        let mine = |name: &OsString| {
            let name = name.to_string_lossy();
            let rest = name.strip_prefix(&*prefix);
            rest.is_some_and(|rest| {
                rest.ends_with(&partial) || rest.contains(&format!("{partial}."))
            })
        };
        let others = self.siblings()?.into_iter().filter(mine);
        let paths = others.map(|name| self.own.with_file_name(name));
        Ok(paths.filter(|path| *path != self.blocked).collect())
    }

    fn siblings(&self) -> Result<Vec<OsString>> {
        HostDirectory::open(self.directory())?.names()
    }
}

/// Whether two paths lead to one file.
pub(super) fn is_same(one: &Path, other: &Path) -> Result<bool> {
    Ok(HostFile::at(one)?.is_same(&HostFile::at(other)?))
}

/// Whether anything has this name, a link that leads nowhere too.
pub(super) fn exists(path: &Path) -> Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(Error::io("look for", e).at_path(path)),
    }
}

/// How long ago a file was last written, where its clock makes sense.
pub(super) fn age(path: &Path) -> Option<Duration> {
    let written = std::fs::metadata(path).ok()?.modified().ok()?;
    SystemTime::now().duration_since(written).ok()
}

/// Gives a file another name in its directory, which nothing may have; one that has both already
/// loses the first.
fn move_to(from: &Path, to: &Path) -> Result<()> {
    if exists(to)? && is_same(from, to)? {
        return remove(from);
    }
    let (from, to) = (FileRef::host(from)?, FileRef::host(to)?);
    from.directory().rename_new(from.name(), to.name())
}

/// Renames a file, replacing one that is there.
pub(super) fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(|e| Error::io("rename", e).at_path(from))
}

/// Removes a file, if it is there.
pub(super) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("remove", e).at_path(path))
        }
        _ => Ok(()),
    }
}

const MIDDLE: &str = ".failback-";
const PARTIAL: &str = "partial";

#[cfg(test)]
#[path = "../../../tests/inside/failback/disk_path.rs"]
mod tests;
