//! Symbolic links on the way to what is written: only those of root and of this process's user are
//! followed.

use std::collections::VecDeque;
use std::env;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::{fs, io};

use rustix::io::Errno;

use super::own::is_own;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::host::unix::host_file::HostFile;

/// The path with every symbolic link followed; its last part may be missing, also where a link
/// leads to it.
///
/// # Errors
/// `NotFound` when a directory on the way is missing; `Io`.
pub fn resolve(path: impl AsRef<Path>) -> Result<PathBuf> {
    let given = path.as_ref();
    let failed = |cause: io::Error| Error::io("resolve", cause).at_path(given);
    if given.as_os_str().as_encoded_bytes().ends_with(b"/") && !given.is_dir() {
        let what = "a path that ends with a slash names a directory";
        return Err(Error::new(ErrorKind::InvalidInput, what)
            .at_path(given)
            .advise("name a file or a block device"));
    }
    if let Ok(facts) = fs::metadata(given)
        && !facts.is_dir()
    {
        // Pipes, sockets and files that were removed have no path, though they have handles
        // (`/dev/stdin`): what they are is to be said, and not where they are not.
        HostFile::at(given)?;
        return match fs::canonicalize(given) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Err(Error::new(
                ErrorKind::Unsupported,
                "the file that this leads to has no name any more",
            )
            .at_path(given)
            .advise("name a regular file or a block device")),
            outcome => outcome.map_err(failed),
        };
    }
    let mut path = given.to_owned();
    for _ in 0..LINK_COUNT {
        match fs::canonicalize(&path) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
            outcome => return outcome.map_err(failed),
        }
        let Some(name) = path.file_name() else {
            return Err(failed(io::ErrorKind::NotFound.into()));
        };
        let directory = match path.parent() {
            Some(directory) if !directory.as_os_str().is_empty() => directory,
            _ => Path::new("."),
        };
        let directory = fs::canonicalize(directory).map_err(failed)?;
        let missing = directory.join(name);
        match fs::read_link(&missing) {
            // An absolute link replaces the directory.
            Ok(link) => path = directory.join(link),
            Err(_) => return Ok(missing),
        }
    }
    Err(failed(rustix::io::Errno::LOOP.into()))
}

/// As [`resolve`], for what is written: files that are made, replaced or changed, and directories
/// in which files are made. A symbolic link of another user, anywhere on the way, is refused: that
/// user would choose the file. Nothing is changed.
///
/// # Errors
/// `Untrusted` for a link of a user who is neither root nor the user of this process; `InUse` for
/// a path that changes meanwhile; those of [`resolve`].
pub fn resolve_to_write(path: impl AsRef<Path>) -> Result<PathBuf> {
    let path = path.as_ref();
    let followed = follow(path)?;
    // Says what else is wrong with it.
    match resolve(path)? == followed {
        true => Ok(followed),
        false => Err(changed(path)),
    }
}

/// Refuses links of other users on the way to `path`, which need not be there.
///
/// # Errors
/// `Untrusted`, `Io`.
pub(in crate::storage) fn refuse_foreign_links(path: &Path) -> Result<()> {
    follow(path).map(drop)
}

/// A path that held no links a moment ago leads through one.
pub(in crate::storage) fn changed(path: &Path) -> Error {
    Error::new(
        ErrorKind::InUse,
        "a directory or link on the way was replaced",
    )
    .at_path(path)
    .advise("try again")
}

/// The path with its links followed, as far as it is there.
fn follow(path: &Path) -> Result<PathBuf> {
    let failed = |cause| Error::io("resolve", cause).at_path(path);
    let mut left = parts(path);
    let mut at = match path.is_absolute() {
        true => PathBuf::from("/"),
        false => env::current_dir().map_err(failed)?,
    };
    let mut links = 0;
    while let Some(part) = left.pop_front() {
        if part == ".." {
            at.pop();
            continue;
        }
        // An absolute part, the root, replaces all.
        let next = at.join(part);
        let Some(facts) = fs::symlink_metadata(&next)
            .ok()
            .filter(|it| it.is_symlink())
        else {
            at = next;
            continue;
        };
        if !is_own(facts.uid()) {
            return Err(foreign(&next, facts.uid()));
        }
        links += 1;
        if links > LINK_COUNT {
            return Err(failed(Errno::LOOP.into()));
        }
        let target = fs::read_link(&next).map_err(failed)?;
        for part in parts(&target).into_iter().rev() {
            left.push_front(part);
        }
    }
    Ok(at)
}

fn parts(path: &Path) -> VecDeque<OsString> {
    let parts = path.components().filter(|it| *it != Component::CurDir);
    parts.map(|it| it.as_os_str().to_owned()).collect()
}

fn foreign(link: &Path, uid: u32) -> Error {
    let what = format!("this symbolic link belongs to user {uid}, who chooses what it leads to");
    Error::new(ErrorKind::Untrusted, what)
        .at_path(link)
        .advise("name the file or directory itself that it leads to")
}

/// As many as the kernel follows.
const LINK_COUNT: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{lchown, symlink};

    #[test]
    fn a_link_to_a_missing_file_resolves_to_where_the_file_would_be() {
        let directory = tempfile::tempdir().unwrap();
        let home = fs::canonicalize(directory.path()).unwrap();
        fs::create_dir(home.join("deep")).unwrap();
        symlink("deep/second", home.join("first")).unwrap();
        symlink(home.join("missing"), home.join("deep/second")).unwrap();
        assert_eq!(resolve(home.join("first")).unwrap(), home.join("missing"));
        fs::write(home.join("missing"), "").unwrap();
        assert_eq!(resolve(home.join("first")).unwrap(), home.join("missing"));
        let nowhere = resolve(home.join("no/where")).unwrap_err();
        assert_eq!(nowhere.kind(), ErrorKind::NotFound);
        let below_a_file = resolve(home.join("missing/below")).unwrap_err();
        assert_ne!(below_a_file.kind(), ErrorKind::NotFound);
        symlink("b", home.join("a")).unwrap();
        symlink("a", home.join("b")).unwrap();
        assert!(resolve(home.join("a")).is_err());
    }

    #[test]
    fn a_way_without_links_of_others_leads_where_every_way_leads() {
        let directory = tempfile::tempdir().unwrap();
        let home = fs::canonicalize(directory.path()).unwrap();
        fs::create_dir_all(home.join("deep/er")).unwrap();
        fs::write(home.join("deep/disk"), "").unwrap();
        symlink("deep/er", home.join("down")).unwrap();
        symlink(home.join("down/../new"), home.join("deep/to-new")).unwrap();
        symlink("loop", home.join("loop")).unwrap();
        for name in [
            "deep/disk",
            "down/../disk",
            "down/x",
            "deep/to-new",
            "./down/.",
        ] {
            let path = home.join(name);
            assert_eq!(resolve_to_write(&path).unwrap(), resolve(&path).unwrap());
        }
        assert!(resolve_to_write(home.join("loop")).is_err());
        let below = resolve_to_write(home.join("no/where")).unwrap_err();
        assert_eq!(below.kind(), ErrorKind::NotFound);
        assert!(resolve_to_write("Cargo.toml").unwrap().is_absolute());
    }

    #[test]
    fn a_link_of_another_user_is_refused_wherever_it_stands() {
        let directory = tempfile::tempdir().unwrap();
        let home = fs::canonicalize(directory.path()).unwrap();
        fs::create_dir(home.join("real")).unwrap();
        symlink("real", home.join("theirs")).unwrap();
        symlink("theirs/new", home.join("mine")).unwrap();
        if lchown(home.join("theirs"), Some(65534), None).is_err() {
            return eprintln!("LEFT OUT: links of other users: not root");
        }
        for name in ["theirs", "theirs/new", "theirs/no/where", "mine"] {
            let error = resolve_to_write(home.join(name)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Untrusted, "{name}");
            assert_eq!(error.path(), Some(&*home.join("theirs")));
        }
    }
}
