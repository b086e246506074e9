//! Which log belongs to a marked target.
//!
//! The path in a marker is data: the target's guest may have written it. Only its file name is
//! used, and only in directories that the target or the caller names. The paths in a log are data
//! as well, where the log may come from a client of an agent.

use std::path::Path;
use std::sync::Arc;

use crate::advice::Advice;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::Limits;
use crate::storage::{FileRef, HostDirectory, HostFile, SourceOptions, open_source};
use crate::sync::endpoint::target::{LOG_SUFFIX, Target};
use crate::sync::job::Job;
use crate::sync::job::read_job;
use crate::sync::log::kept_log;
use crate::sync::marker::format::Marker;

/// `target`, which carries `marker`, with the log of its unfinished sync where that is found: among
/// `trusted`, for which the caller answers, or in the directories at hand.
///
/// # Errors
/// `Incomplete` for a copy of the disk that the log is for, and for a file under the log's name
/// that may not come from this program; `Io`.
pub(in crate::sync) fn with_log(
    target: Target,
    marker: &Marker,
    host: &HostFile,
    trusted: Vec<FileRef>,
    limits: &Limits,
    log_directory: Option<&Path>,
) -> Result<Target> {
    for file_ref in trusted {
        if let Some(job) = job_of(&file_ref, marker, limits)? {
            refuse_copy(marker, &job, host)?;
            return Ok(target.with_trusted_redo_log(file_ref));
        }
    }
    for file_ref in candidates(&target, marker, log_directory)? {
        let job = match job_of(&file_ref, marker, limits) {
            Ok(job) => job,
            // A guest may name any file in its marker; one that is no log of ours is no log, nor is
            // a name that no file can have.
            Err(error)
                if file_ref.path() != target.redo_log().path()
                    && (matches!(error.kind(), ErrorKind::Untrusted | ErrorKind::Unsupported)
                        || error.is_no_file_name()) =>
            {
                None
            }
            Err(error) => return Err(untrusted(error)),
        };
        let Some(job) = job else { continue };
        if !is_beside(&target, &file_ref) {
            // Several targets share that directory, so a copy of the target would find the log too.
            match is_in_reach(&job.target, &target, &file_ref) {
                true => refuse_copy(marker, &job, host)?,
                false => return Err(of_another(&job, &file_ref)),
            }
        }
        return Ok(target.with_found_redo_log(file_ref));
    }
    Ok(target)
}

/// `target`, which carries `marker` and is no file or device of this host, with the log of its
/// unfinished sync where that is among `trusted`; its usual place is looked at anyway.
///
/// # Errors
/// Those of reading a log.
#[cfg(feature = "http")]
pub(in crate::sync) fn with_own_log(
    target: Target,
    marker: &Marker,
    trusted: Vec<FileRef>,
    limits: &Limits,
) -> Result<Target> {
    for file_ref in trusted {
        if job_of(&file_ref, marker, limits)?.is_some() {
            return Ok(target.with_trusted_redo_log(file_ref));
        }
    }
    Ok(target)
}

/// `error` of looking at the log of a marked target. Where that is not trusted it may be the only
/// copy of what is under the marker.
pub(in crate::sync) fn untrusted(error: Error) -> Error {
    if error.kind() != ErrorKind::Untrusted {
        return error;
    }
    let log = error.path().unwrap_or(Path::new("")).to_owned();
    error
        .of_kind(ErrorKind::Incomplete)
        .advise(
            "the target is marked, and without its log it is lost: do not remove this file; find \
             out who changed it, and move it elsewhere if it is of another disk",
        )
        .or_advise(Advice::TrustLog(log))
}

/// Whether `path`, which a log at `log` names, is in the target's directory or in the log's, and
/// may be looked at.
fn is_in_reach(path: &Path, target: &Target, log: &FileRef) -> bool {
    let own = target.path();
    let directories = [own.parent(), Some(log.directory().path())];
    path.file_name().is_some()
        && directories
            .iter()
            .flatten()
            .any(|it| path.parent() == Some(*it))
}

/// Where the log of a marked target can be: under its own name, under the one in the marker, or
/// under the one that it was given when another sync wanted its name.
fn candidates(
    target: &Target,
    marker: &Marker,
    log_directory: Option<&Path>,
) -> Result<Vec<FileRef>> {
    let own = target.redo_log();
    let beside = target
        .file_ref()
        .map(|file_ref| file_ref.directory().clone());
    let mut directories = vec![own.directory().clone()];
    directories.extend(beside.filter(|it| it.path() != own.directory().path()));
    if let Some(path) = log_directory {
        directories.push(Arc::new(HostDirectory::open(path)?));
    }
    let marked = marker.redo_log.file_name();
    let marked = marked.filter(|name| is_log_name(name.as_encoded_bytes()));
    let mut candidates = vec![own.clone()];
    for directory in directories {
        candidates.extend(marked.map(|name| FileRef::new(directory.clone(), name)));
        candidates.extend(kept_log::find(&directory, marker.job)?);
    }
    Ok(candidates)
}

fn is_log_name(name: &[u8]) -> bool {
    name.ends_with(LOG_SUFFIX.as_bytes())
}

/// Whether a log is next to the file that it is for: a copy of the target in another directory does
/// not find it.
fn is_beside(target: &Target, log: &FileRef) -> bool {
    target
        .file_ref()
        .is_some_and(|file_ref| file_ref.hidden_sibling(LOG_SUFFIX).path() == log.path())
}

fn job_of(file_ref: &FileRef, marker: &Marker, limits: &Limits) -> Result<Option<Job>> {
    let found = read_job(file_ref, limits)?;
    Ok(found.and_then(|(id, _, job)| (id == marker.job).then_some(job)))
}

fn of_another(job: &Job, log: &FileRef) -> Error {
    let text = format!(
        "the log of the unfinished sync is of one onto {}, which is not looked at from here",
        job.target.display()
    );
    Error::new(ErrorKind::Incomplete, text)
        .advise("if this is that disk, moved, and not a copy of it:")
        .or_advise(Advice::TrustLog(log.path()))
}

/// Refuses a marked disk that is the copy of the one its job is for: finishing the copy would take
/// the log away that the other needs. One that was moved is not refused.
fn refuse_copy(marker: &Marker, job: &Job, host: &HostFile) -> Result<()> {
    let is_same = |other: &HostFile| other.is_same(host);
    // What is neither a file nor a block device is not opened.
    if HostFile::at(&job.target).as_ref().map_or(true, is_same) {
        return Ok(());
    }
    let live = SourceOptions::default().with_allow_writers(true);
    let other = open_source(&job.target, &live).and_then(|other| Marker::find(&*other.storage));
    match other {
        Ok(Some(found)) if found.job == marker.job => Err(Error::new(
            ErrorKind::Incomplete,
            format!(
                "this is a copy of {}, which an unfinished sync left incomplete",
                job.target.display()
            ),
        )
        .at_path(host.path())
        .advise("recover that one, then copy again")),
        _ => Ok(()),
    }
}
