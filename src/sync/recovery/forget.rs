//! Giving up the marker of a target whose log is lost.
//!
//! A complete log of a new job is written first, which holds what is given for the bytes under the
//! marker and nothing else. Then the marker is pointed at that log, and the log is applied as any
//! other. So a crash leaves the old marker, and this can run again; or the new one with its log,
//! and recovery ends it.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::guarded::{FirstPage, GuardedBytes, Part, Write, index, ranges, refuse_gaps};
use super::state::{self, FoundState, Touch, is_of_forget};
use crate::advice::Advice;
use crate::delta::{Delta, DeltaWriter, Frame, FrameKind, Header, JobId, Purpose};
use crate::error::{Error, ErrorKind, Result};
use crate::image::{self, Format, Patch};
use crate::progress::Work;
use crate::storage::{Access, Storage};
use crate::sync::advice::needs_recovery;
use crate::sync::endpoint::named::{check_log, check_name};
use crate::sync::endpoint::target::Target;
use crate::sync::job::Job;
use crate::sync::job::read_job;
use crate::sync::log::apply::apply_marked;
use crate::sync::log::kept_log;
use crate::sync::log::previous::{retire, stash};
use crate::sync::log::redo_log::push_patches;
use crate::sync::log::sidecar::{fresh_log, remove_fresh};
use crate::sync::marker::format::Marker;
use crate::sync::marker::in_data;
use crate::sync::marker::redo::Redo;
use crate::sync::marker::room::Room;
use crate::sync::marker::set_lift::{begin_repoint, read_regions, sentinel_len};
use crate::sync::options::{Safety, Verify};
use crate::units::BlockSize;

/// What giving a marker up has left.
///
/// All of the target that is in neither list may be a mixture of old and new: the lost log was that
/// of a sync that was under way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Forgotten {
    /// Byte ranges of the target's storage that hold what was given.
    pub restored: Vec<Range<u64>>,
    /// Byte ranges of the target's storage whose bytes are lost: they hold zeros.
    pub lost: Vec<Range<u64>>,
    /// Whether the target opens as an image of its format.
    pub opens: bool,
    /// What became of other logs.
    pub notes: Vec<String>,
}

/// Takes the marker off `target`, whose log is lost, and puts `bytes` in its place. Durable when it
/// returns. After a crash or an error the target is marked still, and either this has to run again
/// or [`recover`](crate::sync::recover) ends it; both are harmless.
///
/// The rest of the target may be a mixture of old and new: a sync has to follow.
///
/// # Errors
/// `InvalidInput` for a target without a marker, one that its log finishes, and where bytes are
/// missing or have another length than the marker guards; `Incomplete` for a held target, unless
/// that is given up too; `MarkerInData` for bytes that would look like a marker; `NotFound`,
/// `Untrusted`, `TargetChanged`, `NoSpace`, `Io`, `Cancelled`.
pub fn forget(target: &Target, bytes: &GuardedBytes, work: &Work) -> Result<Forgotten> {
    let missing = || Error::new(ErrorKind::NotFound, "no such target");
    let storage = target.open_if_there()?.ok_or_else(missing)?;
    forgotten(target, &storage, bytes, work).map_err(|error| error.at_path(target.path()))
}

fn forgotten(
    target: &Target,
    storage: &Arc<dyn Storage>,
    bytes: &GuardedBytes,
    work: &Work,
) -> Result<Forgotten> {
    let marker = lost_marker(target, storage, bytes.held, work)?;
    // A log that is of no use may have been found elsewhere.
    let found = target.redo_log().clone();
    let target = &target
        .clone()
        .with_redo_log(target.usual_redo_log().clone());
    let page = FirstPage::find(target, &**storage, work)?;
    let parts = Part::all(&marker, &**storage, &page)?;
    refuse_gaps(&parts, bytes)?;
    let writes: Vec<_> = parts.iter().flat_map(|part| part.writes(bytes)).collect();
    let saved = overlaid(&**storage, &page, &writes)?;
    refuse_marker(&saved, storage.len()?)?;
    check_name(target, &**storage)?;

    let mut report = Forgotten::default();
    report.notes.extend(clear_name(target, &**storage, work)?);
    if found.path() != target.redo_log().path() && found.is_there()? {
        report.notes.push(kept_log::left(&found));
    }
    let job = JobId::random()?;
    let (log, redo) = written(target, &**storage, job, &saved, &writes, work).map_err(unchanged)?;
    let ready = room(&**storage).and_then(|room| {
        check_name(target, &**storage)?;
        work.cancel().check()?;
        Ok(room)
    });
    match ready {
        Ok(room) => room.keep(),
        Err(error) => {
            retire(target.redo_log())?;
            return Err(unchanged(error));
        }
    }
    let new_marker = Marker {
        job,
        safety: Safety::Atomic,
        target_len: storage.len()?,
        held: false,
        redo_log: target.redo_log().path(),
    };
    begin_repoint(&**storage, &new_marker)
        .and_then(|()| apply_marked(target, storage, &log, &redo, Verify::Written, None, work))
        .map_err(|error| match Marker::find(&**storage) {
            Ok(Some(marker)) if marker.job == job => needs_recovery(error),
            Ok(Some(_)) => unchanged(error),
            _ => error
                .advise("the target is marked; where it is not recovered, forget it again")
                .or_advise(Advice::Recover),
        })?;
    retire(target.redo_log()).map_err(|error| {
        error
            .advise("the marker is removed, its log is not")
            .or_advise(Advice::Recover)
    })?;
    check_name(target, &**storage)?;
    report.restored = ranges(&writes, true);
    report.lost = ranges(&writes, false);
    let (format, options) = (target.format(), target.image_options());
    report.opens = image::open_storage(storage.clone(), format, options).is_ok();
    Ok(report)
}

/// The marker of a target whose log is not there, or is damaged, or which was cut.
fn lost_marker(
    target: &Target,
    storage: &Arc<dyn Storage>,
    held: bool,
    work: &Work,
) -> Result<Marker> {
    let refuse = |what: &'static str| Error::new(ErrorKind::InvalidInput, what);
    let Some(marker) = Marker::find(&**storage)? else {
        return Err(refuse("the target carries no marker"));
    };
    match state::find(target, storage, Touch::Nothing, work) {
        // No log brings back what was cut off.
        Ok(FoundState::Lost(_) | FoundState::Cut(_)) => {}
        Ok(FoundState::Held(..)) => {
            return Err(refuse("the sidecar of this held target is there").advise(Advice::Release));
        }
        Ok(FoundState::Rerun(_)) => {
            return Err(refuse("the sidecar of the unfinished sync is there")
                .advise("run the same in-place sync again, which finishes it"));
        }
        Ok(_) => {
            return Err(
                refuse("the log that finishes this target is there").advise(Advice::Recover)
            );
        }
        // A damaged log finishes nothing.
        Err(error) if error.kind() == ErrorKind::Malformed => {}
        Err(error) => return Err(error),
    }
    if marker.held && !held {
        let what = "the target is held, and its sidecar is lost, or it was cut";
        return Err(Error::new(ErrorKind::Incomplete, what).advise(Advice::ForgetHeld));
    }
    Ok(marker)
}

/// What the storage holds where a marker of its present length goes, with `writes` in place.
fn overlaid(
    storage: &dyn Storage,
    page: &FirstPage,
    writes: &[Write],
) -> Result<Vec<(u64, Vec<u8>)>> {
    let mut saved = read_regions(storage, storage.len()?)?;
    if let Some((0, head)) = saved.first_mut() {
        let FirstPage(page) = page;
        head[..page.len()].copy_from_slice(page);
    }
    for (start, bytes) in &mut saved {
        for write in writes {
            let range = write.range();
            let from = range.start.max(*start);
            let to = range.end.min(*start + bytes.len() as u64);
            if from < to {
                bytes[index(from - *start)..index(to - *start)].copy_from_slice(
                    &write.bytes[index(from - range.start)..index(to - range.start)],
                );
            }
        }
    }
    Ok(saved)
}

fn refuse_marker(saved: &[(u64, Vec<u8>)], len: u64) -> Result<()> {
    match saved.first() {
        Some((0, head)) => in_data::refuse(&head[..sentinel_len(len)]),
        _ => Ok(()),
    }
}

/// Makes way for a new log. One that an unfinished run of this left is simply replaced later; what
/// else is there is kept.
fn clear_name(target: &Target, storage: &dyn Storage, work: &Work) -> Result<Option<String>> {
    let (file_ref, limits) = (target.redo_log(), &target.image_options().limits);
    let Some(file) = file_ref.open_own_if_there(Access::Read)? else {
        return Ok(None);
    };
    let id = match (
        read_job(file_ref, limits)?,
        state::complete_log(target, work)?,
    ) {
        (Some((id, _, job)), _) => {
            let is_left = Delta::from_storage(file, limits).is_ok_and(|log| is_of_forget(&log));
            if is_left && job.is_for(storage)? {
                return Ok(None);
            }
            id
        }
        // Its job is damaged.
        (None, Some(id)) => id,
        (None, None) => {
            stash(file_ref)?;
            return Ok(None);
        }
    };
    let note = kept_log::keep(file_ref, id)?;
    work.progress().note(&note);
    Ok(Some(note))
}

/// Writes the log and reads it back. Durable, its name too, when it returns.
fn written(
    target: &Target,
    storage: &dyn Storage,
    id: JobId,
    saved: &[(u64, Vec<u8>)],
    writes: &[Write],
    work: &Work,
) -> Result<(Delta, Redo)> {
    let len = storage.len()?;
    let header = Header {
        purpose: Purpose::RedoLog,
        job: id,
        base_len: len,
        result_len: len,
        block_size: BlockSize::default(),
    };
    let job = Job {
        // All of it is of the storage: an image in it may be a mixture that does not open.
        format: Format::Raw,
        ..Job::of(target, storage, None)?
    };
    let file_ref = target.redo_log();
    remove_fresh(file_ref)?;
    let fresh = fresh_log(file_ref);
    let file = fresh.create_new()?;
    let done = fill(file.clone(), header, &job, saved, writes).and_then(|()| {
        let log = Delta::from_storage(file.clone(), &target.image_options().limits)?;
        let redo = Redo::load(&log, work, &|_| Ok(()))?;
        file_ref.directory().rename(fresh.name(), file_ref.name())?;
        file_ref.directory().sync()?;
        check_log(file_ref, &*file)?;
        Ok((log, redo))
    });
    if done.is_err() {
        // The first error counts.
        let _ = fresh.remove_if_there();
    }
    done
}

fn fill(
    file: Arc<dyn Storage>,
    header: Header,
    job: &Job,
    saved: &[(u64, Vec<u8>)],
    writes: &[Write],
) -> Result<()> {
    let mut log = DeltaWriter::create(file, header)?;
    log.push(&Frame::bytes(FrameKind::Job, 0, &job.encode()))?;
    let between = match saved {
        [(head, bytes), (tail, _)] => head + bytes.len() as u64..*tail,
        _ => 0..0,
    };
    // A target that has grown since it was marked has the tail of its marker in the middle.
    for write in writes {
        let range = write.range();
        let from = range.start.max(between.start);
        let to = range.end.min(between.end);
        if from < to {
            let bytes = &write.bytes[index(from - range.start)..index(to - range.start)];
            let patch = Patch::Write {
                offset: from,
                bytes: Bytes::copy_from_slice(bytes),
                last: false,
            };
            push_patches(&mut log, &[patch])?;
        }
    }
    for (offset, bytes) in saved {
        log.push(&Frame::bytes(FrameKind::Saved, *offset, bytes))?;
    }
    log.finish(None, None)?;
    Ok(())
}

/// A marker may go where a longer target has holes.
fn room(storage: &dyn Storage) -> Result<Room<'_>> {
    Room::for_marker(storage).map_err(|error| match error.kind() {
        ErrorKind::NoSpace => error
            .advise("the target is marked as before; make room where it is stored")
            .or_advise(Advice::RunAgain),
        _ => error,
    })
}

fn unchanged(error: Error) -> Error {
    if !error.advice().is_empty() {
        return error;
    }
    error
        .advise("the target is marked as before")
        .or_advise(Advice::RunAgain)
}
