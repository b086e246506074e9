//! Locks that keep QEMU and us, and two of us, apart.
//!
//! QEMU puts its permissions on an image into byte locks (OFD locks, always shared ones): holding
//! byte `100 + n` says "I use permission n", holding `200 + n` says "no other process may use
//! permission n". Permission 0 is reading consistent contents, 1 writing, 2 writing what changes
//! nothing, 3 resizing. An opener takes the bytes first and then looks for others on the
//! opposite ones. The locks go with the open file: they end when it is closed.

use std::fs::File;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use crate::error::{Error, ErrorKind, Result};

/// What a file was opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::storage) enum Role {
    /// Reads, and keeps writers out.
    Source,
    /// Reads while others may write.
    LiveSource,
    /// Writes and keeps everybody else out.
    Target,
}

/// Whether the file system took the locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(in crate::storage) enum Locked {
    Yes,
    /// It has no such locks: nothing keeps others out.
    NotSupported,
}

/// Locks `file` until it is closed.
///
/// # Errors
/// `InUse`, `Io`.
pub(in crate::storage) fn take(file: &File, role: Role) -> Result<Locked> {
    // Looking first spares a QEMU that starts just now a refusal because of one who will fail.
    if refuse_conflict(file, role)? == Locked::NotSupported {
        return Ok(Locked::NotSupported);
    }
    for &byte in role.held() {
        let lock = byte_lock(libc::F_RDLCK, byte, byte);
        match fcntl(file, FcntlArg::F_OFD_SETLK(&lock)) {
            Ok(_) => {}
            Err(cause) if is_missing(cause) => return Ok(Locked::NotSupported),
            Err(Errno::EAGAIN | Errno::EACCES) => return Err(in_use(byte)),
            Err(cause) => return Err(Error::io("lock", cause)),
        }
    }
    // Both of two who come at once see the other here, and none has written yet.
    let outcome = refuse_conflict(file, role);
    if outcome.is_err() {
        let all = byte_lock(libc::F_UNLCK, 100, 203);
        // The file is about to be closed, which unlocks, too.
        let _ = fcntl(file, FcntlArg::F_OFD_SETLK(&all));
    }
    outcome
}

fn refuse_conflict(file: &File, role: Role) -> Result<Locked> {
    for &(first, last) in role.refused() {
        // An exclusive lock would meet every lock that another process holds there.
        let mut lock = byte_lock(libc::F_WRLCK, first, last);
        match fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock)) {
            Ok(_) if i32::from(lock.l_type) == libc::F_UNLCK => {}
            Ok(_) => return Err(in_use(lock.l_start.max(first))),
            Err(cause) if is_missing(cause) => return Ok(Locked::NotSupported),
            Err(cause) => return Err(Error::io("check the locks of", cause)),
        }
    }
    Ok(Locked::Yes)
}

impl Role {
    /// The bytes to hold.
    fn held(self) -> &'static [i64] {
        match self {
            Role::Source => &[100, 201, 203],
            Role::LiveSource => &[100],
            Role::Target => &[101, 103, 201, 203],
        }
    }

    /// The first and the last of the bytes that no other process may hold.
    fn refused(self) -> &'static [(i64, i64)] {
        match self {
            Role::Source => &[(101, 101), (103, 103), (200, 200)],
            Role::LiveSource => &[(200, 200)],
            Role::Target => &[(100, 103), (200, 203)],
        }
    }
}

fn byte_lock(kind: libc::c_int, first: i64, last: i64) -> libc::flock {
    libc::flock {
        // The kinds are 0, 1 and 2.
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: first,
        l_len: last - first + 1,
        // Must be 0: the owner is the open file and not a process.
        l_pid: 0,
    }
}

fn is_missing(cause: Errno) -> bool {
    matches!(
        cause,
        Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP | Errno::ENOLCK
    )
}

fn in_use(byte: i64) -> Error {
    let what = match byte {
        101 | 103 => "another program has it open for writing",
        100 | 102 => "another program is reading it",
        200 => "another program forbids others to read it",
        _ => "another program forbids others to write to it",
    };
    Error::new(ErrorKind::InUse, format!("{what} (lock on byte {byte})"))
        .advise("stop the virtual machine or the program that uses it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_without_locks_is_told_from_a_lock_that_somebody_holds() {
        for none in [
            Errno::EINVAL,
            Errno::ENOSYS,
            Errno::EOPNOTSUPP,
            Errno::ENOLCK,
        ] {
            assert!(is_missing(none), "{none}");
        }
        for held in [Errno::EAGAIN, Errno::EACCES, Errno::EIO] {
            assert!(!is_missing(held), "{held}");
        }
    }

    #[test]
    fn who_is_in_the_way_is_said_by_the_byte_that_is_held() {
        for (held, role, text) in [
            (101, Role::Source, "has it open for writing"),
            (100, Role::Target, "is reading it"),
            (200, Role::Source, "forbids others to read it"),
            (201, Role::Target, "forbids others to write to it"),
        ] {
            let path = tempfile::NamedTempFile::new().unwrap();
            let open = || File::options().read(true).write(true).open(path.path());
            let (theirs, ours) = (open().unwrap(), open().unwrap());
            let lock = byte_lock(libc::F_RDLCK, held, held);
            fcntl(&theirs, FcntlArg::F_OFD_SETLK(&lock)).unwrap();
            let error = take(&ours, role).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::InUse);
            assert!(error.to_string().contains(text), "{held}: {error}");
        }
    }
}
