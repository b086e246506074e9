//! What an error means for the target of a sync, and what to do about it.

use super::endpoint::target::Target;
use super::marker::format::Marker;
use super::options::Safety;
use crate::advice::Advice;
use crate::error::{Error, ErrorKind, Result};
use crate::target_state::TargetState;

/// Says what an error means for the target, unless a callee has.
pub(in crate::sync) fn with_advice(error: Error, target: &Target) -> Error {
    with_advice_unless_marked(error, target, TargetState::Complete)
}

/// As [`with_advice`], where a target without a marker is in the state `unmarked`.
pub(in crate::sync) fn with_advice_unless_marked(
    error: Error,
    target: &Target,
    unmarked: TargetState,
) -> Error {
    let marker = marker_of(target);
    let error = leaving(error, &marker, unmarked);
    if !error.advice().is_empty() {
        return error;
    }
    match marker {
        // It may be new by now.
        Ok(None) if error.is_forbidden() => error
            .advise("the target is whole; run it again where the log may be written")
            .or_advise(Advice::LogDirectory),
        Ok(None) if error.kind() == ErrorKind::NoSpace => {
            error.advise("the target is whole; make room there and run it again")
        }
        Ok(None) => error.advise("the target is whole; run it again"),
        Ok(Some(marker)) if marker.held => error
            .advise("the target is held")
            .or_advise(Advice::FindState),
        Ok(Some(marker)) if marker.safety == Safety::InPlace => needs_rerun(error),
        _ => needs_recovery(error),
    }
}

/// The error, with what became of the target, which carries `marker` now, or is in the state
/// `unmarked` without one.
pub(in crate::sync) fn leaving(
    error: Error,
    marker: &Result<Option<Marker>>,
    unmarked: TargetState,
) -> Error {
    match marker {
        // Found before anything is written.
        Ok(None) if error.kind() == ErrorKind::BaseMismatch => {
            error.leaving(TargetState::Untouched)
        }
        Ok(None) => error.leaving(unmarked),
        Ok(Some(marker)) => error.leaving(marker.leaves()),
        Err(_) => error,
    }
}

pub(in crate::sync) fn marker_of(target: &Target) -> Result<Option<Marker>> {
    target.open_if_there().and_then(|storage| match storage {
        Some(storage) => Marker::find(&*storage),
        None => Ok(None),
    })
}

/// Says what an error after the marker means for the target.
pub(in crate::sync) fn needs_recovery(error: Error) -> Error {
    let (kind, is_too_long) = (error.kind(), error.is_too_long());
    let ahead = match kind {
        ErrorKind::VerifyFailed => "the target is marked: its medium or the source is failing",
        ErrorKind::NoSpace if is_too_long => {
            "the target is marked and incomplete; move it and its redo log to where such a file is \
             allowed"
        }
        ErrorKind::NoSpace => "the target is marked and incomplete; make room where it is stored",
        _ => "the target is marked and incomplete",
    };
    let error = error.advise(ahead).or_advise(Advice::Recover);
    match kind {
        ErrorKind::VerifyFailed => error.or_advise(Advice::VerifyAll),
        ErrorKind::NoSpace if !is_too_long => error.or_advise(Advice::RecoverSparse),
        _ => error,
    }
}

/// Says what an error means for a target that is being written in place.
pub(in crate::sync) fn needs_rerun(error: Error) -> Error {
    let way = match error.kind() {
        ErrorKind::VerifyFailed => {
            "the target is marked and incomplete; run the sync again without a change map to \
             finish it; if it comes back, the target's medium or the source is failing"
        }
        ErrorKind::NoSpace if error.is_too_long() => {
            "the target is marked and incomplete; run the same sync again to finish it, where the \
             file system and the limits allow a file so long"
        }
        ErrorKind::NoSpace => {
            "the target is marked and incomplete; make room where it and its sidecar are stored, \
             and run the same sync again to finish it"
        }
        _ => "the target is marked and incomplete; run the same sync again to finish it",
    };
    error.advise(way)
}

pub(in crate::sync) fn untouched(error: Error) -> Error {
    let error = error.leaving(TargetState::Untouched);
    if !error.advice().is_empty() {
        return error;
    }
    if error.is_forbidden() {
        return error
            .advise("the target is untouched")
            .or_advise(Advice::LogDirectory);
    }
    error.advise("the target is untouched")
}
