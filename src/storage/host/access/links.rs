//! Symbolic links on the way to what is written: only those of root and of this process's user are
//! followed.

use std::collections::VecDeque;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use rustix::io::Errno;

use super::own::is_own;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::host::host_file::resolve;

/// As [`resolve`], for what is written: files that are made, replaced or changed, and directories in
/// which files are made. A symbolic link of another user, anywhere on the way, is refused: that
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
pub(in crate::storage) const LINK_COUNT: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{lchown, symlink};

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
