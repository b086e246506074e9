//! Locks of whole files that end with the process (`flock`).

use std::fs::File;
use std::io;

use rustix::fs::FlockOperation;
use rustix::io::Errno;

/// Takes the exclusive lock of `file` if it is free; whether it was.
///
/// # Errors
/// Those of the system.
pub(crate) fn try_lock(file: &File) -> io::Result<bool> {
    try_flock(file, FlockOperation::NonBlockingLockExclusive)
}

/// Takes a shared lock of `file` if there is no exclusive one; whether it was taken.
///
/// # Errors
/// Those of the system.
pub(crate) fn try_lock_shared(file: &File) -> io::Result<bool> {
    try_flock(file, FlockOperation::NonBlockingLockShared)
}

/// Gives up the lock of `file`, also where a copy of its descriptor is open elsewhere.
pub(crate) fn unlock(file: &File) {
    let _ = rustix::fs::flock(file, FlockOperation::Unlock);
}

fn try_flock(file: &File, operation: FlockOperation) -> io::Result<bool> {
    loop {
        match rustix::fs::flock(file, operation) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK) => return Ok(false),
            Err(Errno::INTR) => {}
            Err(cause) => return Err(cause.into()),
        }
    }
}
