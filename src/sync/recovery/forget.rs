//! Giving up the marker of a target whose log is lost.
//!
//! A complete log of a new job is written first, which holds what is given for the bytes under the
//! marker and nothing else. Then the marker is pointed at that log, and the log is applied as any
//! other. So a crash leaves the old marker, and this can run again; or the new one with its log,
//! and recovery ends it.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::kept_log;
use super::redo::Redo;
use super::state::{self, FoundState, Touch, is_of_forget};
use crate::delta::{Delta, DeltaWriter, Frame, FrameKind, Header, JobId, Purpose};
use crate::error::{Error, ErrorKind, Result};
use crate::image::{self, Format, Patch};
use crate::progress::Work;
use crate::setters::setters;
use crate::storage::{Access, Storage};
use crate::sync::commit::apply::{apply_marked, needs_recovery};
use crate::sync::commit::atomic::{retire, stash};
use crate::sync::commit::redo_log::push_patches;
use crate::sync::commit::room::Room;
use crate::sync::commit::sidecar::{fresh_log, remove_fresh};
use crate::sync::endpoint::named::{check_log, check_name};
use crate::sync::endpoint::path_target::read_job;
use crate::sync::endpoint::target::Target;
use crate::sync::job::Job;
use crate::sync::marker::format::{Marker, SECTOR, can_carry, regions};
use crate::sync::marker::in_data;
use crate::sync::marker::set_lift::{begin_repoint, read_regions, sentinel_len};
use crate::sync::options::{Safety, Verify};
use crate::units::BlockSize;

/// What is known of the bytes under a marker whose log is lost.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GuardedBytes {
    /// The first bytes of the target, as many as the marker guards there.
    pub head: Option<Vec<u8>>,
    /// The last bytes that the marker guards, as many as it guards there.
    pub tail: Option<Vec<u8>>,
    /// Nothing is known: sectors that hold a marker become zeros. Not with `head` or `tail`.
    pub zeros: bool,
    /// Also gives up a marker that holds the target.
    pub held: bool,
}

setters! {
    GuardedBytes:
    /// Replaces [`GuardedBytes::head`].
    with_head, head: Option<Vec<u8>>;
    /// Replaces [`GuardedBytes::tail`].
    with_tail, tail: Option<Vec<u8>>;
    /// Replaces [`GuardedBytes::zeros`].
    with_zeros, zeros: bool;
    /// Replaces [`GuardedBytes::held`].
    with_held, held: bool;
}

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
            _ => error.advise(
                "the target is marked: run diskdelta recover TARGET, and where that finds no log, \
                 recover --forget again",
            ),
        })?;
    retire(target.redo_log()).map_err(|error| {
        error.advise("the marker is removed; remove its log: diskdelta recover TARGET")
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
            return Err(refuse("the sidecar of this held target is there")
                .advise("use recover --release, without --forget"));
        }
        Ok(FoundState::Rerun(_)) => {
            return Err(refuse("the sidecar of the unfinished sync is there")
                .advise("run the same in-place sync again, which finishes it"));
        }
        Ok(_) => {
            return Err(refuse("the log that finishes this target is there")
                .advise("run recover without --forget"));
        }
        // A damaged log finishes nothing.
        Err(error) if error.kind() == ErrorKind::Malformed => {}
        Err(error) => return Err(error),
    }
    if marker.held && !held {
        let what = "the target is held, and its sidecar is lost, or it was cut";
        return Err(Error::new(ErrorKind::Incomplete, what)
            .advise("add --release to give up that it is held too"));
    }
    Ok(marker)
}

/// What a run of this that did not finish has saved of the first page, before it wrote there.
struct FirstPage(Vec<u8>);

impl FirstPage {
    /// From the log that such a run has left; empty where there is none, or where it was given
    /// bytes for a sector that is a marker still.
    fn find(target: &Target, storage: &dyn Storage, work: &Work) -> Result<Self> {
        let limits = &target.image_options().limits;
        let none = FirstPage(Vec::new());
        let Some(file) = target.redo_log().open_own_if_there(Access::Read)? else {
            return Ok(none);
        };
        let Ok(log) = Delta::from_storage(file, limits) else {
            return Ok(none);
        };
        if !is_of_forget(&log) {
            return Ok(none);
        }
        let redo = Redo::load(&log, work, &|_| Ok(()))?;
        let (job, len) = (redo.job()?, storage.len()?);
        let is_same = job.target_len == len && job.is_for(storage)?;
        let mut page = match redo.saved.into_iter().next() {
            Some((0, head)) if is_same => head,
            _ => return Ok(none),
        };
        page.truncate(sentinel_len(len));
        let mut found = vec![0; page.len()];
        storage.read_exact_at(&mut found, 0)?;
        let mut sectors = (0u64..).step_by(SECTOR).zip(found.chunks(SECTOR));
        let first = sectors.find(|(at, sector)| Marker::is_marker(sector, *at));
        let page = FirstPage(page);
        Ok(match first {
            Some((at, _)) if !page.is_saved(at) => page,
            _ => none,
        })
    }

    /// Whether bytes were saved for the sector at `offset`, which was no marker then.
    fn is_saved(&self, offset: u64) -> bool {
        let at = index(offset);
        let sector = self.0.get(at..(at + SECTOR).min(self.0.len()));
        sector.is_some_and(|sector| sector.iter().any(|byte| *byte != 0))
    }
}

/// A range of a target that a marker covers, or covered.
struct Part {
    name: &'static str,
    range: Range<u64>,
    /// What of it is a marker now.
    marked: Vec<Range<u64>>,
}

/// Bytes for one place of the storage.
struct Write {
    offset: u64,
    bytes: Vec<u8>,
    is_given: bool,
}

impl Write {
    fn range(&self) -> Range<u64> {
        self.offset..self.offset + self.bytes.len() as u64
    }
}

impl Part {
    /// Head and tail, as far as the storage now reaches.
    fn all(marker: &Marker, storage: &dyn Storage, page: &FirstPage) -> Result<Vec<Part>> {
        let len = storage.len()?;
        // A guest may have written any length.
        let marked_len = match can_carry(marker.target_len) {
            true => marker.target_len,
            false => len,
        };
        let mut parts = Vec::new();
        for (name, range) in ["head", "tail"].into_iter().zip(regions(marked_len)) {
            let range = range.start.min(len)..range.end.min(len);
            let mut found = vec![0; index(range.end - range.start)];
            storage.read_exact_at(&mut found, range.start)?;
            let wanted = marker.fill(range.clone());
            let sectors = (range.start..).step_by(SECTOR);
            let mut marked: Vec<Range<u64>> = Vec::new();
            for ((at, found), wanted) in
                sectors.zip(found.chunks(SECTOR)).zip(wanted.chunks(SECTOR))
            {
                // The last sector may be a part of one, which is no marker by itself.
                let is_marker = found == wanted || Marker::is_marker(found, at);
                if !is_marker || page.is_saved(at) {
                    continue;
                }
                let end = at + found.len() as u64;
                match marked.last_mut() {
                    Some(last) if last.end == at => last.end = end,
                    _ => marked.push(at..end),
                }
            }
            if !range.is_empty() {
                parts.push(Part {
                    name,
                    range,
                    marked,
                });
            }
        }
        Ok(parts)
    }

    fn given<'a>(&self, bytes: &'a GuardedBytes) -> Option<&'a [u8]> {
        match self.name {
            "head" => bytes.head.as_deref(),
            _ => bytes.tail.as_deref(),
        }
    }

    /// What is written there: all that is given, or zeros where a marker is.
    fn writes(&self, bytes: &GuardedBytes) -> Vec<Write> {
        if let Some(given) = self.given(bytes) {
            return vec![Write {
                offset: self.range.start,
                bytes: given.to_vec(),
                is_given: true,
            }];
        }
        let zeros = self.marked.iter().map(|range| Write {
            offset: range.start,
            bytes: vec![0; index(range.end - range.start)],
            is_given: false,
        });
        zeros.collect()
    }
}

/// Refuses bytes of another length than the marker guards, and to leave a marker where it is.
fn refuse_gaps(parts: &[Part], bytes: &GuardedBytes) -> Result<()> {
    let refuse = |what: String| Error::new(ErrorKind::InvalidInput, what);
    if bytes.zeros && (bytes.head.is_some() || bytes.tail.is_some()) {
        let what = "zeros for all bytes under the marker go with no bytes that are given";
        return Err(refuse(what.to_owned()));
    }
    for (name, given) in [("head", &bytes.head), ("tail", &bytes.tail)] {
        let Some(given) = given else { continue };
        let range = parts.iter().find(|part| part.name == name);
        let range = range.map_or(0..0, |part| part.range.clone());
        if range.end - range.start != given.len() as u64 {
            let what = format!(
                "the {name} under the marker has {} bytes at {:#x}, and {} were given",
                range.end - range.start,
                range.start,
                given.len()
            );
            return Err(refuse(what).advise(format!("give --{name} a file of that length")));
        }
    }
    let is_missing =
        |part: &&Part| part.given(bytes).is_none() && !part.marked.is_empty() && !bytes.zeros;
    let missing: Vec<String> = parts
        .iter()
        .filter(is_missing)
        .map(|Part { name, range, .. }| {
            let len = range.end - range.start;
            format!("the {len} bytes at {:#x} (--{name} FILE)", range.start)
        })
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let what = "the bytes under the marker were in the log, and are lost with it".to_owned();
    Err(refuse(what).advise(format!(
        "give, from a copy of this disk, {}; or write zeros there with --zero-guarded; then sync \
         again, because the rest of the target may be a mixture of old and new",
        missing.join(" and ")
    )))
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
        ErrorKind::NoSpace => error.advise(
            "the target is marked as before; make room where it is stored, and run recover \
             --forget again",
        ),
        _ => error,
    })
}

fn unchanged(error: Error) -> Error {
    if error.advice().is_some() {
        return error;
    }
    error.advise("the target is marked as before; run recover --forget again")
}

fn ranges(writes: &[Write], is_given: bool) -> Vec<Range<u64>> {
    let wanted = writes.iter().filter(|write| write.is_given == is_given);
    wanted.map(Write::range).collect()
}

/// Of at most a MiB or so.
fn index(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}
