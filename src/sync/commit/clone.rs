//! The atomic sync onto a clone: what differs is written into a second file that shares the space
//! of the target, and that file takes the target's name. Nothing is logged, the target is never
//! written, and each byte is written once.
//!
//! A clone that an interrupted sync left holds nothing that counts: the next one removes it and
//! clones the target again.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::atomic::no_room_for_undo;
use super::full_copy::{make_like, put_in_place, write_into};
use crate::advice::Advice;
use crate::delta::{DeltaWriter, Frame, Header, JobId, Old, Purpose};
use crate::diff::{CompareOptions, Content, Difference, compare};
use crate::error::{Error, ErrorKind, Result};
use crate::hash::Hash;
use crate::image::{self, Image, ImageMut};
use crate::manifest::{self, Gathered};
use crate::storage::{FileRef, Privacy, Storage};
use crate::sync::endpoint::named::{check_name, check_there};
use crate::sync::endpoint::precheck;
use crate::sync::endpoint::source::SyncContext;
use crate::sync::endpoint::target::new_file;
use crate::sync::log::previous::previous_log;
use crate::sync::options::{Cloning, Mode, Safety, Verify};
use crate::sync::report::{Outcome, SyncReport, Verified};
use crate::sync::scan::differences;
use crate::sync::scan::target_manifest::Keeper;
use crate::sync::verify::{verify_all, verify_ranges};
use crate::target_state::TargetState;

/// Writes what differs into a clone of the target, `storage`, which takes the target's name; `None`
/// where the target cannot be cloned, or where a log that an earlier sync left can be gone on with.
///
/// # Errors
/// Those of [`sync`](crate::sync::sync).
pub(in crate::sync) fn sync_cloned(
    context: &SyncContext<'_>,
    storage: &Arc<dyn Storage>,
    mode: Mode,
) -> Result<Option<SyncReport>> {
    let target = context.target;
    let Some(file_ref) = target.file_ref() else {
        return Ok(None);
    };
    if mode != Mode::Delta || !may_clone(context, file_ref, &**storage)? {
        return Ok(None);
    }
    let old = image::open_storage(storage.clone(), target.format(), target.image_options())?;
    let clone = ClonedTarget {
        context,
        storage: &**storage,
        fresh: new_file(file_ref),
        disk_len: context.target_len(Some(old.disk_len()))?,
        opened: Mutex::new(None),
        is_refused: AtomicBool::new(false),
        written_bytes: AtomicU64::new(0),
        written: Mutex::new(Gathered::new(context.limits().ranges_bytes() / 2)),
        notes: Mutex::default(),
    };
    let done = clone.sync(file_ref, &*old);
    let is_untouched = || file_ref.leads_to(&**storage).unwrap_or_default();
    if done.is_err() && is_untouched() {
        // The first error says more than one from cleaning up.
        let _ = clone.fresh.remove_own_if_there();
    }
    match done {
        Err(error) if !is_untouched() => Err(error),
        Err(_) if clone.is_refused.load(Ordering::Acquire) => {
            if let Some(kept) = &context.options.target_manifest {
                manifest::forget_left(kept)?;
            }
            Ok(None)
        }
        Err(error) => Err(untouched(context.or_change(error))),
        Ok(report) => Ok(Some(report)),
    }
}

/// Whether the target is a file that can be cloned, with one name and no log of an earlier sync.
fn may_clone(context: &SyncContext<'_>, file_ref: &FileRef, storage: &dyn Storage) -> Result<bool> {
    let links = storage.host_file()?.map_or(1, |host| host.link_count());
    let redo_log = context.target.redo_log();
    // A log is what a later run can go on with.
    let is_recalled = context.source.recalled.is_some();
    let wants = context.options.cloning == Cloning::Auto && links == 1 && !is_recalled;
    Ok(wants
        && !redo_log.is_there()?
        && !previous_log(redo_log).is_there()?
        && file_ref.directory().can_clone()?)
}

/// The clone of a target, which is made when the first difference is found.
struct ClonedTarget<'a> {
    context: &'a SyncContext<'a>,
    /// The target.
    storage: &'a dyn Storage,
    fresh: FileRef,
    disk_len: u64,
    opened: Mutex<Option<Opened>>,
    /// The file system did not clone the target after all.
    is_refused: AtomicBool,
    written_bytes: AtomicU64,
    written: Mutex<Gathered>,
    notes: Mutex<Vec<String>>,
}

#[derive(Clone)]
struct Opened {
    storage: Arc<dyn Storage>,
    image: Arc<dyn ImageMut>,
}

impl ClonedTarget<'_> {
    fn sync(&self, file_ref: &FileRef, old: &dyn Image) -> Result<SyncReport> {
        let context = self.context;
        let mut report = SyncReport::new(Mode::Delta, Safety::Atomic, context.source.disk_len());
        let id = JobId::random()?;
        let keeper = Keeper::open(context, self.storage, id)?;
        let on_difference: &differences::OnDifference<'_> = &|difference, _| self.write(difference);
        let old_len = old.disk_len();
        let counted = match &keeper {
            Some(keeper) => {
                let (counted, root) =
                    differences::against_kept(context, old, keeper, on_difference)?;
                report.root = Some(root);
                report.trusts_manifest = keeper.trusted(old_len).is_some();
                counted
            }
            None => differences::differences(context, old, old_len, None, on_difference)?,
        };
        report.count(counted);
        if old_len != self.disk_len {
            self.open()?;
        }
        context.check_source()?;
        if let Some(keeper) = &keeper {
            keeper.note_source(context)?;
        }
        let opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let clone = opened.clone();
        drop(opened);
        report.verified = match context.options.verify {
            Verify::None => Verified::No,
            _ => Verified::Written,
        };
        if let Some(clone) = clone {
            report.written_bytes = self.written_bytes.load(Ordering::Relaxed);
            report.cloned = true;
            report.outcome = Outcome::Synced;
            let none = Mutex::new(Gathered::new(0));
            let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
            let none = none.into_inner().unwrap_or_else(PoisonError::into_inner);
            let written = std::mem::replace(&mut *written, none).into_set().into_vec();
            self.finish(&clone, &written, old_len, &mut report)?;
            let undo = context.options.undo.as_ref();
            if let Some(undo) = undo {
                self.write_undo(undo, old, &*clone.image, &written, id)?;
            }
            self.replace(file_ref, clone.storage, keeper.as_ref(), written)
                .inspect_err(|_| {
                    // The way back from a change that is not made leads nowhere.
                    let is_old = file_ref.leads_to(self.storage).unwrap_or_default();
                    let _ = undo.filter(|_| is_old).map(FileRef::remove_if_there);
                })?;
            let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
            report.notes.append(&mut notes);
        }
        if let Some(keeper) = keeper {
            keeper.replace(&*context.target.open_to_read()?, context.limits())?;
        }
        Ok(report)
    }

    fn write(&self, difference: &Difference<'_>) -> Result<()> {
        let clone = self.open()?;
        let bytes = write_into(&*clone.storage, &*clone.image, self.disk_len, difference)?;
        self.written_bytes.fetch_add(bytes, Ordering::Relaxed);
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.insert(difference.range());
        Ok(())
    }

    /// The clone, which the first call makes.
    fn open(&self) -> Result<Opened> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(opened) = &*opened {
            return Ok(opened.clone());
        }
        let target = self.context.target;
        // Not taken over: it holds nothing that is certain.
        self.fresh.remove_own_if_there()?;
        let storage = self.fresh.create_new()?;
        if let Some(file_ref) = target.file_ref() {
            let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
            make_like(file_ref, &self.fresh, &mut notes)?;
        }
        check_name(target, self.storage)?;
        if !storage.become_clone_of(self.storage)? {
            self.is_refused.store(true, Ordering::Release);
            let what = "the file system does not clone this file";
            return Err(Error::new(ErrorKind::Unsupported, what));
        }
        let options = target.image_options();
        let image = image::open_storage_mut(storage.clone(), target.format(), options)?;
        if image.disk_len() != self.disk_len {
            image.set_disk_len(self.disk_len)?;
        }
        Ok(opened.insert(Opened { storage, image }).clone())
    }

    /// Makes the clone durable and reads back what is to be.
    fn finish(
        &self,
        clone: &Opened,
        written: &[Range<u64>],
        old_len: u64,
        report: &mut SyncReport,
    ) -> Result<()> {
        clone.image.sync()?;
        match self.context.options.verify {
            Verify::Sent | Verify::None => {}
            Verify::Written => {
                verify_ranges(self.context, &*clone.image, written.to_vec(), old_len)?;
            }
            Verify::All => {
                verify_all(self.context, &*clone.image)?;
                report.verified = Verified::All;
            }
        }
        Ok(())
    }

    /// Writes the way back, durably: the target still holds the old bytes.
    fn write_undo(
        &self,
        undo: &FileRef,
        old: &dyn Image,
        new: &dyn Image,
        written: &[Range<u64>],
        job: JobId,
    ) -> Result<()> {
        let header = Header {
            purpose: Purpose::Undo,
            job,
            base_len: new.disk_len(),
            result_len: old.disk_len(),
            block_size: self.context.options.block_size,
        };
        // What is cut off is to come back too.
        let cut = new.disk_len()..old.disk_len();
        let ranges = written.iter().cloned().chain([cut]);
        let ranges = ranges.map(|range| range.start..range.end.min(old.disk_len()));
        let ranges: Vec<_> = ranges.filter(|range| !range.is_empty()).collect();
        let options = CompareOptions::default().with_change_map(ranges);
        precheck::undo_directory(undo)?;
        let whole = undo.create_whole(Privacy::PRIVATE, |file| {
            let writer = Mutex::new(DeltaWriter::create(file, header)?);
            compare(old, new, &options, self.context.work, &|difference| {
                let now = match difference.old {
                    Content::Bytes(bytes) => Old::Hash(Hash::of(bytes)),
                    Content::Zeros(_) => Old::Zeros,
                };
                let at = difference.offset;
                let frame = match difference.new {
                    Content::Bytes(bytes) => Frame::data(at, bytes, now, None),
                    Content::Zeros(len) => Frame::zero(at, len, now),
                };
                let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
                writer.push(&frame)
            })?;
            let writer = writer.into_inner().unwrap_or_else(PoisonError::into_inner);
            writer.finish(None, None).map(drop)
        });
        whole.map_err(no_room_for_undo)
    }

    /// Gives the clone the target's name.
    fn replace(
        &self,
        file_ref: &FileRef,
        clone: Arc<dyn Storage>,
        keeper: Option<&Keeper>,
        written: Vec<Range<u64>>,
    ) -> Result<()> {
        let undo = self.context.options.undo.as_ref();
        if let Some(keeper) = keeper {
            keeper.make_durable()?;
            keeper.record_intent(written)?;
        }
        undo.map_or(Ok(()), check_there)?;
        self.context.work.cancel().check()?;
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        let there = Some(self.storage);
        put_in_place(
            self.context.target,
            file_ref,
            &self.fresh,
            clone,
            there,
            &mut notes,
        )
    }
}

/// Says what an error means for a target of which only a clone was written.
fn untouched(error: Error) -> Error {
    if error.target_state().is_some() {
        return error;
    }
    let error = error.leaving(TargetState::Untouched);
    match (error.advice(), error.kind()) {
        ([_, ..], _) => error,
        ([], ErrorKind::NoSpace) => error
            .advise(
                "the target is untouched, and its clone was removed; make room for what differs",
            )
            .or_advise(Advice::InPlace),
        _ => error.advise("the target is untouched; run the same sync again"),
    }
}
