//! The full copy to a file: everything goes to a new file beside the target, which takes the
//! target's name once it is complete.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::atomic::remove_previous;
use crate::advice::Advice;
use crate::diff::{CompareOptions, Content, Difference};
use crate::error::{Error, ErrorKind, Result};
use crate::image::{self, Image, ImageMut};
use crate::manifest::{self, PreparedFile};
use crate::progress::Work;
use crate::storage::{Access, FileRef, Storage};
use crate::sync::endpoint::named::{check_name, leads_to, refuse_parting};
use crate::sync::endpoint::source::SyncContext;
use crate::sync::marker::format::sentinel;
use crate::sync::marker::in_data;
use crate::sync::options::{Mode, Safety, Verify};
use crate::sync::report::{Outcome, SyncReport, Verified};
use crate::sync::verify::verify_all;
use crate::target_state::TargetState;

/// Where a full copy onto the file at `file_ref` grows.
pub(in crate::sync) fn new_file(file_ref: &FileRef) -> FileRef {
    file_ref.hidden_sibling(NEW_SUFFIX)
}

/// Copies all of the source to a new file and gives it the target's name. `old` is the target
/// that is there now, and the file that it lies in; it is not read, but its kind and attributes
/// are kept.
///
/// An earlier copy that did not finish is taken over: what it holds is compared with the source,
/// so nothing rests on what a crash may have left of it.
///
/// # Errors
/// Those of [`sync`](crate::sync::sync).
pub(in crate::sync) fn sync_full(
    context: &SyncContext<'_>,
    old: Option<(&dyn Image, &dyn Storage)>,
) -> Result<SyncReport> {
    let (old, there) = old.unzip();
    let Some(file_ref) = context.target.file_ref() else {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "a device cannot be replaced by a copy",
        ));
    };
    let fresh = new_file(file_ref);
    let disk_len = context.target_len(old.map(|old| old.disk_len()))?;
    let mut report = SyncReport::new(Mode::Full, Safety::Atomic, context.source.disk_len());
    if let Some(old) = old {
        // The old bytes are not wanted again, and memory just freed is the cheapest to fill.
        old.drop_cache(0..old.disk_len());
    }
    if let Some(there) = there {
        check_name(context.target, there)?;
    }
    // It stays open, and locked, until it has the target's name.
    let copied = copy(context, &fresh, old, disk_len, &mut report).and_then(|(copied, next)| {
        check_copy(&fresh, &*copied)?;
        Ok((copied, next))
    });
    let (copied, next) = copied.map_err(|error| {
        if error.kind() == ErrorKind::NoSpace {
            // A part would keep others from the room that they need. The first error says more
            // than one from cleaning up.
            let _ = fresh.remove_own_if_there();
        }
        untouched(context.or_change(error), old.is_some())
    })?;
    if let Some(there) = there {
        // What took the name meanwhile is not to be lost.
        check_name(context.target, there)?;
        refuse_parting(context.target, there)?;
        follow_attributes(file_ref, &fresh, &*copied, &mut report.notes)
            .map_err(|error| untouched(error, true))?;
    }
    if let Some(kept) = &context.options.target_manifest {
        // The old one must not stand for the new file, whatever comes between.
        kept.remove_if_there()?;
        kept.directory().sync()?;
    }
    let made = copied.host_file()?;
    match old {
        Some(_) => file_ref.directory().rename(fresh.name(), file_ref.name())?,
        None => fresh
            .rename_new(file_ref)
            .map_err(|error| appeared(&fresh, error))?,
    }
    context.target.was_replaced();
    let redo_log = context.target.redo_log();
    let removed = remove_previous(redo_log)?;
    file_ref.directory().sync()?;
    drop(copied);
    if removed && redo_log.directory().path() != file_ref.directory().path() {
        redo_log.directory().sync()?;
    }
    if let Some(next) = next {
        let storage = file_ref.open(Access::Read)?;
        next.commit_for(&*storage, context.limits())?;
    }
    if let Some(made) = made {
        leads_to(context.target, &made)?;
    }
    report.outcome = Outcome::Synced;
    Ok(report)
}

/// Gives the copy what was changed of the old file's owner, mode and the like while it was copied.
/// Durable when it returns.
fn follow_attributes(
    old: &FileRef,
    fresh: &FileRef,
    copied: &dyn Storage,
    notes: &mut Vec<String>,
) -> Result<()> {
    let directory = old.directory();
    if directory.has_attributes_of(old.name(), fresh.name())? {
        return Ok(());
    }
    let lost = directory.copy_attributes(old.name(), fresh.name())?;
    notes.extend(lost);
    notes.dedup();
    copied.sync()
}

/// Whether the copy still has its name: nothing else is to take the target's place.
fn check_copy(fresh: &FileRef, copied: &dyn Storage) -> Result<()> {
    if fresh.leads_to(copied)? {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InUse,
        "another file has taken its name meanwhile",
    )
    .at_path(fresh.path())
    .leaving(TargetState::Untouched)
    .advise("the target is untouched; see what the other process does, then try again"))
}

/// Says what it means that a copy cannot take the name of a target that was missing: because that
/// is there by now, or because the file system has no way to do it. The copy is of no use.
fn appeared(fresh: &FileRef, error: Error) -> Error {
    let way = match error.kind() {
        ErrorKind::AlreadyExists => {
            "another process made the target meanwhile; it was left as it is"
        }
        ErrorKind::Unsupported => {
            "no target was made, and the copy was removed; use a directory on another file system"
        }
        _ => return error,
    };
    // The error says more than one from cleaning up.
    let _ = fresh.remove_if_there();
    error.advise(way)
}

fn untouched(error: Error, there: bool) -> Error {
    let error = error.leaving(TargetState::Untouched);
    match (error.advice(), error.kind()) {
        ([_, ..], _) => error,
        ([], ErrorKind::Io) if error.is_forbidden() && there => error
            .advise("the target is untouched; its directory may not be written to")
            .or_advise(Advice::DeltaWithLogDirectory),
        ([], ErrorKind::NoSpace) if there => error
            .advise("the target is untouched, and the copy was removed; make room for a whole copy")
            .or_advise(Advice::DeltaMode)
            .or_advise(Advice::InPlace),
        ([], ErrorKind::NoSpace) => {
            error.advise("the copy was removed; make room for it and run it again")
        }
        _ => error.advise("the target is untouched; run the same sync again to go on"),
    }
}

fn copy(
    context: &SyncContext<'_>,
    fresh: &FileRef,
    old: Option<&dyn Image>,
    disk_len: u64,
    report: &mut SyncReport,
) -> Result<(Arc<dyn Storage>, Option<PreparedFile>)> {
    if let Some(kept) = &context.options.target_manifest {
        manifest::refuse_other(kept)?;
    }
    let (storage, image) = open_copy(context, fresh, old, disk_len, &mut report.notes)?;
    if let Some(file_ref) = context.target.file_ref().filter(|_| old.is_none())
        && file_ref.is_there()?
    {
        // Another process made it before this one had the copy's lock.
        let error =
            Error::new(ErrorKind::AlreadyExists, "the file exists").at_path(file_ref.path());
        return Err(appeared(fresh, error));
    }
    let written_bytes = AtomicU64::new(0);
    let write = |difference: Difference<'_>| match difference.new {
        Content::Bytes(bytes) => {
            written_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            image.write_all_at(bytes, difference.offset)?;
            match difference.offset < sentinel(disk_len).end {
                true => in_data::refuse_on(&*storage),
                false => Ok(()),
            }
        }
        Content::Zeros(_) => image.write_zeroes_at(difference.range()),
    };
    let options = CompareOptions::default().with_skip_unreadable(context.options.skip_unreadable);
    let compared = context.compare(&*image, &options, context.work, &write)?;
    report.count(compared);
    report.written_bytes = written_bytes.load(Ordering::Relaxed);
    keep_old(&report.unreadable, old, &*image, context.work)?;
    in_data::refuse_on(&*storage)?;
    context.check_source()?;
    image.sync()?;
    if context.options.verify != Verify::None {
        verify_all(context, &*image)?;
        report.verified = Verified::All;
    }
    let next = match &context.options.target_manifest {
        Some(kept) => {
            let block_size = context.options.block_size;
            // Durable, with its name, only once the target has its own.
            let next = manifest::begin(kept)?;
            let built =
                manifest::build_to(&*image, block_size, context.work, next.storage().clone())?;
            report.root = Some(built.root());
            Some(next)
        }
        None => None,
    };
    context.work.cancel().check()?;
    Ok((storage, next))
}

/// Puts the old bytes where the source could not be read.
fn keep_old(
    unreadable: &[Range<u64>],
    old: Option<&dyn Image>,
    image: &dyn ImageMut,
    work: &Work,
) -> Result<()> {
    let Some(old) = old else { return Ok(()) };
    for range in unreadable {
        let mut at = range.start;
        while at < range.end {
            work.cancel().check()?;
            let len = STEP_BYTES.min(range.end - at);
            let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
            image::read_padded_at(old, &mut bytes, at)?;
            image.write_all_at(&bytes, at)?;
            at += len;
        }
    }
    Ok(())
}

const STEP_BYTES: u64 = 1 << 20;

/// Creates the copy, or opens what an earlier run of ours left of it. What cannot be ours is
/// refused. The copy of a target that is there has its attributes before it holds a byte: what may
/// not be given is known at once, and is durable with the data.
fn open_copy(
    context: &SyncContext<'_>,
    fresh: &FileRef,
    old: Option<&dyn Image>,
    disk_len: u64,
    notes: &mut Vec<String>,
) -> Result<(Arc<dyn Storage>, Arc<dyn ImageMut>)> {
    let target = context.target;
    let format = target.format();
    let model = target.file_ref().filter(|_| old.is_some());
    let info = old.map(|old| old.info());
    let privacy = context.source.privacy;
    let like_model = |notes: &mut Vec<String>| match model {
        Some(model) => {
            let copied = fresh
                .directory()
                .copy_attributes(model.name(), fresh.name());
            copied.map(|lost| notes.extend(lost))
        }
        None => Ok(()),
    };
    match fresh.open_copy(model, privacy) {
        Ok(storage) => {
            let opened = image::open_storage_mut(storage.clone(), format, target.image_options());
            let same_len = |image: &Arc<dyn ImageMut>| image.disk_len() == disk_len;
            if let Some(image) = opened.ok().filter(same_len) {
                like_model(notes)?;
                return Ok((storage, image));
            }
            fresh.remove_if_there()?;
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        // Ours, but others may have read it who may not read this source.
        Err(error) if error.kind() == ErrorKind::Untrusted => {
            fresh.remove_own_if_there().map_err(|_| error)?;
        }
        Err(error) => return Err(error),
    }
    let storage = match model {
        Some(_) => fresh.create_new()?,
        None => fresh.create(privacy)?,
    };
    let made = like_model(notes).and_then(|()| {
        let source = context.source.info();
        let create = target.create_options(&source, info.as_ref(), disk_len);
        image::create(&*storage, &create)?;
        image::open_storage_mut(storage.clone(), format, target.image_options())
    });
    if made.is_err() {
        // There is nothing in it yet that another run could go on with.
        let _ = fresh.remove_if_there();
    }
    Ok((storage, made?))
}

/// What is added to a target's name to make that of its copy.
pub(in crate::sync) const NEW_SUFFIX: &str = "diskdelta-new";
