//! Finishing, or giving up, what an earlier run left.

use std::sync::Arc;

use super::state::{self, FoundState, Touch};
use crate::advice::Advice;
use crate::error::{Error, ErrorKind, Result};
use crate::progress::Work;
use crate::storage::{FileRef, Privacy, Storage};
use crate::sync::advice::{leaving, marker_of, needs_recovery};
use crate::sync::endpoint::named::check_name;
use crate::sync::endpoint::target::Target;
use crate::sync::endpoint::target::new_file;
use crate::sync::log::apply::apply_marked;
use crate::sync::log::kept_log;
use crate::sync::log::previous::{previous_log, retire};
use crate::sync::marker::format::Marker;
use crate::sync::marker::set_lift::repair_marker;
use crate::sync::options::Verify;
use crate::sync::scan::target_manifest;
use crate::sync::source::fetch_log::fetch_log;
use crate::target_state::TargetState;

/// What recovery found and did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum Recovered {
    /// Nothing was left to do.
    Nothing,
    /// The target is entirely as it was. What an unfinished run logged is kept: the same sync, run
    /// again, takes it over; [`discard`](crate::discard) drops it.
    Old,
    /// What the sync changes is all there.
    New,
    /// An in-place sync is unfinished: the target stays marked until the same sync runs again.
    Rerun,
    /// The target is whole and held: it stays marked until it is released.
    Held,
    /// The marker of a sync whose log is lost was given up: where
    /// it was, the target holds what was given; the rest may be a mixture of old and new.
    Forgotten,
    /// A complete log that the marked disk of an unfinished sync may need, wherever that is now,
    /// was kept under the id of its job; a note names it
    /// ([`Work::on_note`](crate::Work::on_note)). The target, if there is
    /// one, was not changed.
    Kept,
}

/// Finishes an interrupted sync onto `target` as far as that needs no source. What the returned
/// value says is durable. Running it again is harmless, also after a crash in the middle.
///
/// # Errors
/// `Incomplete` when the target is marked but its redo log is not to be found, or the target has
/// become shorter than its redo log allows; `BaseMismatch` when
/// the target was written since; `Malformed` for a damaged redo log; `NotFound`, `Io`,
/// `NoSpace`, `VerifyFailed`, `Cancelled`.
pub fn recover(target: &Target, work: &Work) -> Result<Recovered> {
    let Some(storage) = target.open_if_there()? else {
        return unfinished_copy(target);
    };
    state::find(target, &storage, Touch::Mend, work)
        .and_then(|state| finish(target, &storage, state, work))
        .and_then(|recovered| check_name(target, &*storage).map(|()| recovered))
        .map_err(|error| {
            leaving(error, &marker_of(target), TargetState::Complete).at_path(target.path())
        })
}

/// Gives an interrupted sync up: the target stays as it was, and what was logged is removed. A
/// complete log that is not certainly this unmarked target's is kept under the id of its job.
/// Durable when it returns.
///
/// # Errors
/// `Incomplete` when the target is incomplete already, or held; otherwise as [`recover`].
pub fn discard(target: &Target, work: &Work) -> Result<Recovered> {
    let state = match target.open_if_there()? {
        Some(storage) => state::find(target, &storage, Touch::Mend, work)?,
        None => state::complete_log(target, work)?.map_or(FoundState::Clean, FoundState::Foreign),
    };
    match state {
        FoundState::Redo(marker, _) | FoundState::Rerun(marker) | FoundState::Held(marker, _) => {
            return Err(marker.refusal().at_path(target.path()));
        }
        FoundState::Lost(marker) => return Err(lost(&marker).at_path(target.path())),
        FoundState::Cut(cut) => return Err(cut.refusal().at_path(target.path())),
        FoundState::Clean
        | FoundState::Old
        | FoundState::New
        | FoundState::Forgotten
        | FoundState::Torn(_)
        | FoundState::Foreign(_) => {}
    }
    if let Some(file_ref) = target.file_ref() {
        remove_copy(file_ref)?;
    }
    let previous = previous_log(target.redo_log());
    previous.remove_own_if_there()?;
    fetch_log(target.redo_log()).remove_own_if_there()?;
    previous.directory().sync()?;
    if let FoundState::Foreign(job) = state {
        work.progress()
            .note(&kept_log::keep(target.redo_log(), job)?);
        return Ok(Recovered::Kept);
    }
    retire(target.redo_log())?;
    Ok(match state {
        FoundState::New => Recovered::New,
        FoundState::Forgotten => Recovered::Forgotten,
        _ => Recovered::Old,
    })
}

/// [`recover`] for a target that is open and stands there.
pub(in crate::sync) fn finish(
    target: &Target,
    storage: &Arc<dyn Storage>,
    state: FoundState,
    work: &Work,
) -> Result<Recovered> {
    match state {
        FoundState::Clean => unfinished_copy(target),
        FoundState::Old | FoundState::Torn(_) => Ok(Recovered::Old),
        FoundState::New => Ok(Recovered::New),
        FoundState::Forgotten => Ok(Recovered::Forgotten),
        FoundState::Rerun(_) => Ok(Recovered::Rerun),
        FoundState::Held(..) => Ok(Recovered::Held),
        FoundState::Redo(marker, work_left) => {
            let (redo_log, redo) = *work_left;
            repair_marker(&**storage, &marker)?;
            let target_len = redo.job()?.target_len;
            if storage.len()? > target_len {
                // Space that was added before the crash may hold garbage: give it back first.
                storage.set_len(target_len)?;
                storage.sync()?;
            }
            apply_marked(
                target,
                storage,
                &redo_log,
                &redo,
                Verify::Written,
                None,
                work,
            )
            .map_err(needs_recovery)?;
            if let Some(manifest) = &redo.job()?.manifest {
                let job = redo_log.header().job;
                target_manifest::replace_recovered(target, &**storage, manifest, job, work)?;
            }
            retire(target.redo_log())?;
            Ok(match state::is_of_forget(&redo_log) {
                true => Recovered::Forgotten,
                false => Recovered::New,
            })
        }
        FoundState::Lost(marker) => Err(lost(&marker)),
        FoundState::Cut(cut) => Err(cut.refusal()),
        FoundState::Foreign(_) => Err(Error::new(
            ErrorKind::BaseMismatch,
            "the target was written to after the interrupted sync, or is another file, so its \
             redo log no longer fits",
        )
        .advise(
            "find the disk that carries its marker, perhaps under another name, and recover that; \
             to free the log's name, sync again or discard it: both keep the log under the id of its job",
        )
        .or_advise(Advice::Discard)),
    }
}

/// The error for a marked target whose log is not found.
pub(in crate::sync) fn lost(marker: &Marker) -> Error {
    let what = "the target is incomplete, and the log that would finish it is not in the directory \
                of the target nor in that for logs";
    Error::new(ErrorKind::Incomplete, what)
        .advise(format!(
            "bring the log back, which is {} as the marker says",
            marker.redo_log.display()
        ))
        .or_advise(Advice::TrustLog(marker.redo_log.clone()))
        .or_advise("where it is lost:")
        .or_advise(marker.forget())
}

/// A full copy that was not finished leaves the target as it was.
fn unfinished_copy(target: &Target) -> Result<Recovered> {
    let copy = match target.file_ref() {
        Some(file_ref) => new_file(file_ref).is_there()?,
        None => false,
    };
    let aside = previous_log(target.redo_log()).is_there()?;
    Ok(match copy || aside {
        true => Recovered::Old,
        false => Recovered::Nothing,
    })
}

/// Removes what is left of a full copy onto the file at `file_ref`. Durable when it returns.
fn remove_copy(file_ref: &FileRef) -> Result<()> {
    let copy = new_file(file_ref);
    let model = file_ref.is_there()?.then_some(file_ref);
    match copy.open_copy(model, Privacy::USUAL) {
        Ok(_) => copy.remove_if_there()?,
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    file_ref.directory().sync()
}
