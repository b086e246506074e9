//! What is done with a target after a sync: finished, given up, undone.

use std::path::Path;

use super::sync_target::{SyncTarget, log_file};
use super::target::open_host_target;
use crate::error::Result;
use crate::progress::Work;
use crate::remote::ConnectOptions;
use crate::storage::FileRef;
use crate::sync::{self, HostTarget, HostTargetOptions, Recovered, SyncReport, Target};

/// Brings back what a target held before the sync that wrote the undo file at `file`, where that
/// sync changed it. What was written elsewhere since stays.
///
/// # Errors
/// Those of [`Sync::run`](crate::Sync::run); `InvalidInput` for a file that is no undo file;
/// `BaseMismatch` for a target that was written to since where that sync changed it.
pub fn undo(
    file: impl AsRef<Path>,
    target: impl Into<SyncTarget>,
    work: &Work,
) -> Result<SyncReport> {
    let file = FileRef::host(crate::storage::resolve(file)?)?;
    with_target(
        target.into(),
        work,
        |target| sync::undo(&file, target.target(), work),
        |target| sync::undo(&file, target, work),
    )
}

/// Finishes a sync onto `target` that was interrupted, as far as that needs no source. What the
/// returned value says is durable. Running it again is harmless, also after a crash in the middle.
///
/// # Errors
/// `Incomplete` where the redo log is not to be found; `BaseMismatch` where the target was written
/// to since; `NotFound`, `InUse`, `Malformed`, `NoSpace`, `VerifyFailed`, `Io`, `Cancelled`.
pub fn recover(target: impl Into<SyncTarget>, work: &Work) -> Result<Recovered> {
    with_target(
        target.into(),
        work,
        |target| target.recover(work),
        |target| sync::recover(target, work),
    )
}

/// Gives up a sync onto `target` that was interrupted before it changed anything: the target stays
/// as it is, and the redo log is removed. Durable when it returns.
///
/// # Errors
/// `Incomplete` for a target that is incomplete already; otherwise those of [`recover`].
pub fn discard(target: impl Into<SyncTarget>, work: &Work) -> Result<Recovered> {
    with_target(
        target.into(),
        work,
        |target| target.discard(work),
        |target| sync::discard(target, work),
    )
}

fn with_target<T>(
    target: SyncTarget,
    work: &Work,
    on_host: impl FnOnce(&HostTarget) -> Result<T>,
    on_storage: impl FnOnce(&Target) -> Result<T>,
) -> Result<T> {
    match target {
        SyncTarget::Path(path) => on_host(&HostTarget::open(path, &HostTargetOptions::default())?),
        SyncTarget::Location(location) => {
            let (options, connect) = (HostTargetOptions::default(), ConnectOptions::default());
            on_host(&open_host_target(&location, &options, &connect, work)?)
        }
        SyncTarget::Storage {
            storage,
            format,
            log,
        } => on_storage(&Target::device(storage, format, log_file(&log)?)),
    }
}
