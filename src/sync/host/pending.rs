//! What unfinished syncs have left behind on this host.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::target::{HostTarget, HostTargetOptions};
use crate::advice::Advice;
use crate::delta::{Delta, JobId, Purpose};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::Limits;
use crate::path_bytes::{bytes_of, name_of};
use crate::progress::Work;
use crate::storage::{
    Access, Directory, FileRef, HostDirectory, SourceOptions, devices_named, open_source,
};
use crate::sync::endpoint::target::LOG_SUFFIX;
use crate::sync::endpoint::target::NEW_SUFFIX;
use crate::sync::job::read_job;
use crate::sync::log::sidecar;
use crate::sync::marker::format::Marker;
use crate::sync::marker::redo::Redo;
use crate::sync::options::Safety;
use crate::sync::recovery::recover::{Recovered, recover};

/// The leavings of one sync that did not finish.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Pending {
    /// The redo log, sidecar or copy.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serialize::path"))]
    pub file: PathBuf,
    /// Its length in bytes.
    pub file_bytes: u64,
    /// What it is.
    pub kind: PendingKind,
    /// What the sync was writing to, as far as the file says; a device that the kernel has numbered
    /// anew is found by its lasting name.
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "crate::serialize::optional_path")
    )]
    pub target: Option<PathBuf>,
    /// Where that stands.
    pub state: PendingState,
}

/// What an unfinished sync has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum PendingKind {
    /// The complete redo log of an atomic sync.
    RedoLog,
    /// A redo log that is not complete: the same sync, run again, takes it over.
    PartOfRedoLog,
    /// The sidecar of an in-place sync.
    Sidecar,
    /// A part of a full copy: the same sync, run again, goes on with it.
    Copy,
}

/// Where the target of an unfinished sync stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum PendingState {
    /// It carries no marker of that sync.
    Unmarked,
    /// It is marked, and [`recover`](crate::recover) finishes it.
    Marked,
    /// It is marked, and the same sync must run again.
    Rerun,
    /// It is whole and held, until it is released.
    Held,
    /// It is marked, and what would finish it is damaged.
    Damaged,
    /// It is in use; perhaps the sync is under way.
    InUse,
    /// It is not where it was.
    Missing,
    /// What would be known of it is in a file that this program may not have made.
    Untrusted,
}

/// Finds what unfinished syncs have left in `directory`, by names, in the order of the names.
///
/// # Errors
/// `NotFound` for a missing directory, `Io`.
pub fn pending(directory: impl AsRef<Path>) -> Result<Vec<Pending>> {
    pending_within(directory.as_ref(), &Limits::default())
}

fn pending_within(directory: &Path, limits: &Limits) -> Result<Vec<Pending>> {
    let directory: Arc<dyn Directory> = Arc::new(HostDirectory::open(directory)?);
    let mut names = directory.names()?;
    names.sort();
    let mut found = Vec::new();
    for name in names {
        let bytes = bytes_of(&name);
        let file_ref = FileRef::new(directory.clone(), &name);
        if let Some(copied) = copied_name(bytes) {
            found.extend(look_at_copy(&file_ref, &directory.path().join(copied))?);
        } else if is_redo_log_name(bytes) {
            found.extend(look_at_redo_log(&file_ref, limits)?);
        }
    }
    Ok(found)
}

/// Recovers every target that [`pending`] finds in `directory` and that is marked; says for each
/// what came of it. A log that is not trusted is an error of kind `Untrusted`. One that fails does
/// not keep the others from being recovered.
///
/// # Errors
/// Those of [`pending`].
pub fn recover_all(
    directory: impl AsRef<Path>,
    options: &HostTargetOptions,
    work: &Work,
) -> Result<Vec<(Pending, Result<Recovered>)>> {
    let all = pending_within(directory.as_ref(), &options.image.limits)?;
    let wanted = |it: &Pending| is_incomplete(it.state) || is_doubtful(it);
    let marked = all.into_iter().filter(wanted);
    let mut options = options.clone();
    options.extra_log_dir = Some(directory.as_ref().to_owned());
    Ok(marked
        .filter_map(|it| {
            if is_doubtful(&it) {
                let error = not_read(&it.file);
                return Some((it, Err(error)));
            }
            let target = HostTarget::open(it.target.as_ref()?, &options);
            let outcome = target.and_then(|target| recover(target.target(), work));
            Some((it, outcome))
        })
        .collect())
}

/// Whether a marked target may need the file, which was not read.
fn is_doubtful(pending: &Pending) -> bool {
    pending.state == PendingState::Untrusted && pending.kind != PendingKind::Copy
}

fn not_read(log: &Path) -> Error {
    let what = "this log may not come from diskdelta, and was not read";
    Error::new(ErrorKind::Untrusted, what)
        .at_path(log)
        .advise(
            "a marked disk may need it: do not remove it before that is known; find out who \
             changed it, and recover its target with it",
        )
        .or_advise(Advice::TrustLog(log.to_owned()))
}

fn look_at_copy(file_ref: &FileRef, target: &Path) -> Result<Option<Pending>> {
    // Nothing but its length is trusted.
    let file = match file_ref.open(Access::Read) {
        Ok(file) => file,
        Err(error) => return untrusted(file_ref, PendingKind::Copy, error),
    };
    Ok(Some(Pending {
        file: file_ref.path(),
        file_bytes: file.len()?,
        kind: PendingKind::Copy,
        state: look_at_target(target, None),
        target: Some(target.to_owned()),
    }))
}

fn look_at_redo_log(file_ref: &FileRef, limits: &Limits) -> Result<Option<Pending>> {
    let file = match file_ref.open_own(Access::Read) {
        Ok(file) => file,
        Err(error) => return untrusted(file_ref, PendingKind::PartOfRedoLog, error),
    };
    let file_bytes = file.len()?;
    let job = read_job(file_ref, limits)?;
    let kind = match &job {
        Some((_, Purpose::Sidecar, _)) => PendingKind::Sidecar,
        Some(_) if Delta::from_storage(file, limits).is_ok() => PendingKind::RedoLog,
        _ => PendingKind::PartOfRedoLog,
    };
    let (target, state) = match job {
        Some((id, _, job)) => {
            let there = look_at_target(&job.target, Some(id));
            let (target, there) =
                renumbered(file_ref, id, there).unwrap_or((Some(job.target), there));
            (target, as_log_says(file_ref, limits, there))
        }
        None => (None, PendingState::Unmarked),
    };
    Ok(Some(Pending {
        file: file_ref.path(),
        file_bytes,
        kind,
        target,
        state,
    }))
}

/// What is listed of a file that is not known to be ours: nothing that it holds.
fn untrusted(file_ref: &FileRef, kind: PendingKind, error: Error) -> Result<Option<Pending>> {
    match error.kind() {
        // Gone since it was listed.
        ErrorKind::NotFound => Ok(None),
        ErrorKind::Untrusted | ErrorKind::Unsupported => Ok(Some(Pending {
            file: file_ref.path(),
            file_bytes: 0,
            kind,
            target: None,
            state: PendingState::Untrusted,
        })),
        _ => Err(error),
    }
}

/// The marked device whose redo log this is, where it no longer has the number that it had; `there`
/// says what stands where it was.
fn renumbered(
    file_ref: &FileRef,
    job: JobId,
    there: PendingState,
) -> Option<(Option<PathBuf>, PendingState)> {
    if is_marked(there) {
        return None;
    }
    let mut devices = devices_named(device_of(file_ref.name())?).into_iter();
    devices.find_map(|device| {
        let state = look_at_target(&device, Some(job));
        is_marked(state).then_some((Some(device), state))
    })
}

fn is_incomplete(state: PendingState) -> bool {
    let incomplete = [
        PendingState::Marked,
        PendingState::Rerun,
        PendingState::Damaged,
    ];
    incomplete.contains(&state)
}

fn is_marked(state: PendingState) -> bool {
    is_incomplete(state) || state == PendingState::Held
}

/// Where a marked target stands when its log is looked at too, which is read to its end.
fn as_log_says(file_ref: &FileRef, limits: &Limits, there: PendingState) -> PendingState {
    let sound = match there {
        PendingState::Marked => Work::with_threads(1).and_then(|work| {
            let log = Delta::from_storage(file_ref.open_own(Access::Read)?, limits)?;
            Redo::load(&log, &work, &|_| Ok(()))?;
            Ok(Some(there))
        }),
        PendingState::Rerun | PendingState::Held => Work::with_threads(1).and_then(|work| {
            let found = sidecar::read(file_ref, limits, &work)?;
            Ok(found.map(|(_, redo)| match redo.final_state {
                Some(_) => there,
                None => PendingState::Rerun,
            }))
        }),
        _ => return there,
    };
    sound.ok().flatten().unwrap_or(PendingState::Damaged)
}

fn look_at_target(target: &Path, job: Option<JobId>) -> PendingState {
    let opened = match open_source(target, &SourceOptions::default()) {
        Ok(opened) => opened,
        Err(error) if error.kind() == ErrorKind::InUse => return PendingState::InUse,
        Err(_) => return PendingState::Missing,
    };
    match Marker::find(&*opened.storage) {
        Ok(Some(marker)) if Some(marker.job) == job => match marker.safety {
            // Or incomplete, as its sidecar says.
            _ if marker.held => PendingState::Held,
            Safety::Atomic => PendingState::Marked,
            Safety::InPlace => PendingState::Rerun,
        },
        _ => PendingState::Unmarked,
    }
}

/// The name that a full copy takes in the end.
fn copied_name(name: &[u8]) -> Option<Cow<'_, OsStr>> {
    let rest = name
        .strip_suffix(NEW_SUFFIX.as_bytes())?
        .strip_suffix(b".")?;
    rest.strip_prefix(b".").map(name_of)
}

/// A redo log under its own name, or stashed as the previous one.
fn is_redo_log_name(name: &[u8]) -> bool {
    redo_log_stem(name).is_some()
}

fn redo_log_stem(name: &[u8]) -> Option<&[u8]> {
    // Stashed: a file of a hidden file has one more dot.
    let stashed = name.strip_suffix(b".previous");
    let name = stashed.map_or(name, |redo_log| {
        redo_log.strip_prefix(b".").unwrap_or(redo_log)
    });
    name.strip_suffix(LOG_SUFFIX.as_bytes())?.strip_suffix(b".")
}

/// The device that a redo log is named after; the redo logs of files are hidden.
fn device_of(redo_log: &OsStr) -> Option<&str> {
    let stem = str::from_utf8(redo_log_stem(bytes_of(redo_log))?).ok()?;
    (!stem.starts_with('.')).then_some(stem)
}
