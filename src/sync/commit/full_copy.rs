//! The full copy to a file: everything goes to a new file beside the target, which takes the
//! target's name once it is complete.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::advice::Advice;
use crate::diff::{CompareOptions, Content, Difference};
use crate::error::{Error, ErrorKind, Result};
use crate::image::{self, Image, ImageMut};
use crate::manifest::{self, PreparedFile};
use crate::progress::Work;
use crate::storage::{Access, FileRef, Storage};
use crate::sync::endpoint::named::{check_name, leads_to, refuse_parting};
use crate::sync::endpoint::source::SyncContext;
use crate::sync::endpoint::target::{Target, new_file};
use crate::sync::log::previous::remove_previous;
use crate::sync::marker::format::sentinel;
use crate::sync::marker::in_data;
use crate::sync::options::{Mode, Safety, Verify};
use crate::sync::report::{Outcome, SyncReport, Verified};
use crate::sync::verify::{verify_all, verify_root};
use crate::target_state::TargetState;

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
    if let Some(kept) = &context.options.target_manifest {
        // The old one must not stand for the new file, whatever comes between.
        kept.remove_if_there()?;
        kept.directory().sync()?;
    }
    put_in_place(
        context.target,
        file_ref,
        &fresh,
        copied,
        there,
        &mut report.notes,
    )?;
    if let Some(next) = next {
        let storage = file_ref.open(Access::Read)?;
        next.commit_for(&*storage, context.limits())?;
    }
    report.outcome = Outcome::Synced;
    Ok(report)
}

/// Gives a copy, or a clone, that is durable the name of the target, in place of `there` or of
/// nothing. Durable when it returns.
///
/// # Errors
/// `TargetChanged`, `Unsupported`, `AlreadyExists`, `Io`.
pub(in crate::sync) fn put_in_place(
    target: &Target,
    file_ref: &FileRef,
    fresh: &FileRef,
    copied: Arc<dyn Storage>,
    there: Option<&dyn Storage>,
    notes: &mut Vec<String>,
) -> Result<()> {
    let made = copied.host_file()?;
    check_copy(fresh, &*copied)?;
    match there {
        Some(there) => {
            // What took the name meanwhile is not to be lost.
            check_name(target, there)?;
            refuse_parting(target, there)?;
            follow_attributes(file_ref, fresh, &*copied, notes)
                .map_err(|error| untouched(error, true))?;
            take_name(target, file_ref, fresh, there)?;
        }
        None => fresh
            .rename_new(file_ref)
            .map_err(|error| appeared(fresh, error))?,
    }
    target.was_replaced();
    let redo_log = target.redo_log();
    let removed = remove_previous(redo_log)?;
    file_ref.directory().sync()?;
    drop(copied);
    if removed && redo_log.directory().path() != file_ref.directory().path() {
        redo_log.directory().sync()?;
    }
    made.map_or(Ok(()), |made| leads_to(target, &made))
}

/// Has the copy take the name of the target, `there`. Where names can be exchanged, what had the
/// target's name is looked at before it is removed, and is given back where it is another file.
fn take_name(
    target: &Target,
    file_ref: &FileRef,
    fresh: &FileRef,
    there: &dyn Storage,
) -> Result<()> {
    let directory = file_ref.directory();
    if !directory.exchange(fresh.name(), file_ref.name())? {
        return directory.rename(fresh.name(), file_ref.name());
    }
    if there.file_id()?.is_none() || fresh.leads_to(there)? {
        return directory.remove(fresh.name());
    }
    directory.exchange(fresh.name(), file_ref.name())?;
    check_name(target, there)?;
    let what = "another file had the name of the target for a moment";
    Err(Error::new(ErrorKind::TargetChanged, what).at_path(file_ref.path()))
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
    let cloned = clone_source(context, fresh, old, disk_len, &mut report.notes)?;
    report.cloned = cloned.is_some();
    let (storage, image) = match cloned {
        Some(cloned) => cloned,
        None => open_copy(context, fresh, old, disk_len, &mut report.notes)?,
    };
    if let Some(file_ref) = context.target.file_ref().filter(|_| old.is_none())
        && file_ref.is_there()?
    {
        // Another process made it before this one had the copy's lock.
        let error =
            Error::new(ErrorKind::AlreadyExists, "the file exists").at_path(file_ref.path());
        return Err(appeared(fresh, error));
    }
    let source = context.source.recalling(context.target.redo_log());
    let context = &SyncContext {
        source: &source,
        ..*context
    };
    report.resumed_bytes = source.recall(image.clone(), context.work)?;
    let written_bytes = AtomicU64::new(0);
    let write = |difference: Difference<'_>| {
        let bytes = write_into(&*storage, &*image, disk_len, &difference)?;
        written_bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    };
    let mut root = None;
    if !report.cloned {
        let skips = context.options.skip_unreadable;
        let is_read_once = context.source.is_distant() || context.source.published().is_some();
        let compared = match is_read_once && !skips {
            true => {
                let backend = &context.source.backend;
                let size = context.source.block_size_or(context.options.block_size);
                let (compared, its) = backend.everything(disk_len, size, context.work, &write)?;
                context.source.check_root(its)?;
                root = Some(its);
                compared
            }
            false => {
                let options = CompareOptions::default().with_skip_unreadable(skips);
                context.compare(&*image, &options, context.work, &write)?
            }
        };
        report.count(compared);
        report.written_bytes = written_bytes.load(Ordering::Relaxed);
        keep_old(&report.unreadable, old, &*image, context.work)?;
    }
    in_data::refuse_on(&*storage)?;
    context.check_source()?;
    image.sync()?;
    // Of a clone nothing was written that could be read back.
    let is_read = match context.options.verify {
        Verify::Sent | Verify::None => false,
        Verify::Written => !report.cloned,
        Verify::All => true,
    };
    if is_read {
        match root {
            Some(root) => verify_root(context, &*image, root)?,
            None => verify_all(context, &*image)?,
        }
        report.verified = Verified::All;
    }
    let next = match &context.options.target_manifest {
        Some(kept) => {
            let block_size = context.source.block_size_or(context.options.block_size);
            // Durable, with its name, only once the target has its own.
            let next = manifest::begin(kept)?;
            let built =
                manifest::build_to(&*image, block_size, context.work, next.storage().clone())?;
            report.root = Some(built.root());
            context.note_source(next.storage())?;
            Some(next)
        }
        None => None,
    };
    context.work.cancel().check()?;
    Ok((storage, next))
}

/// Writes a difference into a copy of the target, `image` in `storage`; how many bytes that were.
///
/// # Errors
/// Those of a write; `InvalidInput` for data that would be taken for a marker.
pub(in crate::sync) fn write_into(
    storage: &dyn Storage,
    image: &dyn ImageMut,
    disk_len: u64,
    difference: &Difference<'_>,
) -> Result<u64> {
    let Content::Bytes(bytes) = difference.new else {
        return image.write_zeroes_at(difference.range()).map(|()| 0);
    };
    image.write_all_at(bytes, difference.offset)?;
    if difference.offset < sentinel(disk_len).end {
        in_data::refuse_on(storage)?;
    }
    Ok(bytes.len() as u64)
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

/// A copy, and the image in it.
type Opened = (Arc<dyn Storage>, Arc<dyn ImageMut>);

/// Makes the copy as a clone of the source, where that can be, and no earlier run of ours left a
/// part of one.
fn clone_source(
    context: &SyncContext<'_>,
    fresh: &FileRef,
    old: Option<&dyn Image>,
    disk_len: u64,
    notes: &mut Vec<String>,
) -> Result<Option<Opened>> {
    let Some(source) = context.clonable_source(disk_len)? else {
        return Ok(None);
    };
    if fresh.is_there()? {
        return Ok(None);
    }
    let target = context.target;
    let model = target.file_ref().filter(|_| old.is_some());
    let storage = match model {
        Some(_) => fresh.create_new()?,
        None => fresh.create(context.source.privacy)?,
    };
    let cloned = model
        .map_or(Ok(()), |model| make_like(model, fresh, notes))
        .and_then(|()| storage.become_clone_of(source));
    if !matches!(cloned, Ok(true)) {
        let _ = fresh.remove_if_there();
        return cloned.map(|_| None);
    }
    let image = image::open_storage_mut(storage.clone(), target.format(), target.image_options())?;
    Ok(Some((storage, image)))
}

/// Creates the copy, or opens what an earlier run of ours left of it. What cannot be ours is
/// refused. The copy of a target that is there has its attributes before it holds a byte: what may
/// not be given is known at once, and is durable with the data.
fn open_copy(
    context: &SyncContext<'_>,
    fresh: &FileRef,
    old: Option<&dyn Image>,
    disk_len: u64,
    notes: &mut Vec<String>,
) -> Result<Opened> {
    let target = context.target;
    let format = target.format();
    let model = target.file_ref().filter(|_| old.is_some());
    let info = old.map(|old| old.info());
    let privacy = context.source.privacy;
    let like_model =
        |notes: &mut Vec<String>| model.map_or(Ok(()), |model| make_like(model, fresh, notes));
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

/// Gives a new file the owner, mode and other attributes of `model`; notes what could not be kept.
///
/// # Errors
/// Those of [`copy_attributes`](crate::storage::Directory::copy_attributes).
pub(in crate::sync) fn make_like(
    model: &FileRef,
    fresh: &FileRef,
    notes: &mut Vec<String>,
) -> Result<()> {
    let directory = fresh.directory();
    notes.extend(directory.copy_attributes(model.name(), fresh.name())?);
    Ok(())
}
