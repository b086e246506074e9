//! The atomic delta sync: everything is logged and checked before the target changes.

use std::sync::{Arc, Mutex, PoisonError};

use super::resume;
use crate::advice::Advice;
use crate::delta::{
    Delta, DeltaWriter, Frame, FrameKind, Header, JobId, Old, Overlaid, Purpose, reverse,
};
use crate::diff::{Content, Difference};
use crate::error::{Error, ErrorKind, Result};
use crate::image::{self, Image};
use crate::manifest::Gathered;
use crate::progress::Work;
use crate::storage::{Access, FileRef, Privacy, Storage};
use crate::sync::advice::untouched;
use crate::sync::endpoint::named::{check_log, check_name, check_there};
use crate::sync::endpoint::precheck;
use crate::sync::endpoint::source::SyncContext;
use crate::sync::endpoint::target::Target;
use crate::sync::job::Job;
use crate::sync::log::apply::{Check, apply, check_redo_log};
use crate::sync::log::previous::{remove_previous, retire, stash};
use crate::sync::log::redo_log::LogWriter;
use crate::sync::options::{Mode, Safety, Verify};
use crate::sync::report::{Outcome, SyncReport, Verified};
use crate::sync::scan::differences;
use crate::sync::scan::target_manifest::Keeper;
use crate::sync::verify::verify_all;
use crate::target_state::TargetState;
use crate::units::Extent;

/// Logs what differs, then applies it.
///
/// # Errors
/// Those of [`sync`](crate::sync::sync).
pub(in crate::sync) fn sync_logged(
    context: &SyncContext<'_>,
    storage: &Arc<dyn Storage>,
    mode: Mode,
) -> Result<SyncReport> {
    let target = context.target;
    let options = target.image_options();
    let old: Arc<dyn Image> = image::open_storage(storage.clone(), target.format(), options)?;
    let disk_len = context.target_len(Some(old.disk_len()))?;
    let mut report = SyncReport::new(mode, Safety::Atomic, context.source.disk_len());
    let id = JobId::random()?;
    let keeper = Keeper::open(context, &**storage, id)?;
    report.untouched_tail_bytes = disk_len.saturating_sub(context.source.disk_len());

    let planner = image::open_storage_mut(storage.clone(), target.format(), options)?;
    let header = Header {
        purpose: Purpose::RedoLog,
        job: id,
        base_len: old.disk_len(),
        result_len: disk_len,
        block_size: context.options.block_size,
    };
    let manifest = keeper.as_ref().map(|keeper| keeper.file_ref().path());
    let job = Job::of(target, &**storage, manifest)?;
    let previous = stash(target.redo_log()).map_err(untouched)?;
    if context.source.recalled.is_some() {
        report.resumed_bytes = recall(context, &old, previous.as_ref()).map_err(untouched)?;
    }
    let log_writer = LogWriter::new(target.redo_log(), header, job, &*planner, disk_len);
    redo_log(
        context,
        mode,
        &*old,
        &log_writer,
        previous.as_ref(),
        keeper.as_ref(),
        &mut report,
    )
    .inspect_err(|error| log_writer.drop_without_room(error))
    .map_err(|error| untouched(context.or_change(error)))?;
    context.check_source().map_err(untouched)?;
    if let Some(keeper) = &keeper {
        keeper.note_source(context).map_err(untouched)?;
    }
    report.written_bytes = log_writer.written_bytes();
    let check = |image: &dyn Image| verify_all(context, image);
    let apply_context = ApplyContext {
        undo: context
            .options
            .undo
            .as_ref()
            .map(|file_ref| (file_ref, &*old)),
        keeper: keeper.as_ref(),
        verify: context.options.verify,
        check: (context.options.verify == Verify::All).then_some(&check),
    };
    if let Some(logged_bytes) = carry_out(target, storage, log_writer, apply_context, context.work)?
    {
        report.logged_bytes = logged_bytes;
        report.outcome = Outcome::Synced;
    }
    report.verified = match context.options.verify {
        Verify::None => Verified::No,
        Verify::Sent if report.outcome == Outcome::Synced => Verified::Sent,
        Verify::All if report.outcome == Outcome::Synced => Verified::All,
        _ => Verified::Written,
    };
    if let Some(keeper) = keeper {
        report.trusts_manifest = mode != Mode::Full && keeper.trusted(header.base_len).is_some();
        keeper.replace(&**storage, context.limits())?;
    }
    Ok(report)
}

/// Has the source read where the target, and the redo log of an earlier run, hold what was read of
/// it already; how many bytes that is.
fn recall(
    context: &SyncContext<'_>,
    old: &Arc<dyn Image>,
    previous: Option<&FileRef>,
) -> Result<u64> {
    let logs = match previous {
        Some(previous) => previous.open_own_if_there(Access::Read)?,
        None => None,
    };
    let over = Overlaid::new(old.clone(), logs, context.limits(), context.work)?;
    context.source.recall(Arc::new(over), context.work)
}

/// What goes with applying a redo log.
pub(in crate::sync) struct ApplyContext<'a> {
    /// Where to write the way back, and the image as it is before.
    pub undo: Option<(&'a FileRef, &'a dyn Image)>,
    /// The manifest that is kept of the target.
    pub keeper: Option<&'a Keeper>,
    /// What is read back.
    pub verify: Verify,
    /// Looks at the finished target before its marker is lifted.
    pub check: Option<Check<'a>>,
}

/// Closes a redo log, checks it, writes the way back if asked to, applies the redo log and removes
/// it. All is durable when this returns; `None` when there was nothing to do.
///
/// # Errors
/// Those of [`sync`](crate::sync::sync); the advice says whether the target is untouched or marked.
pub(in crate::sync) fn carry_out(
    target: &Target,
    storage: &Arc<dyn Storage>,
    log_writer: LogWriter<'_>,
    apply_context: ApplyContext<'_>,
    work: &Work,
) -> Result<Option<u64>> {
    let planner = log_writer.planner();
    let finished = log_writer
        .finish(&**storage, (None, None))
        .map_err(untouched)?;
    let removed = remove_previous(target.redo_log())?;
    let Some((file, logged_bytes)) = finished else {
        if removed {
            target.redo_log().directory().sync()?;
        }
        return Ok(None);
    };
    let limits = &target.image_options().limits;
    let redo_log = Delta::from_storage(file.clone(), limits)?;
    let checked =
        check_redo_log(&redo_log, planner, &**storage, work).map_err(|e| untouched(logged(e)))?;
    if let Some((file_ref, old)) = apply_context.undo {
        write_undo(&redo_log, old, file_ref, work)
            .map_err(|e| untouched(logged(no_room_for_undo(e))))?;
    }
    check_name(target, &**storage).map_err(untouched)?;
    let ready = match apply_context.keeper {
        Some(keeper) => record_intent(&redo_log, keeper, work),
        None => Ok(()),
    };
    let ready = ready.and_then(|()| {
        check_log(target.redo_log(), &*file)?;
        apply_context
            .undo
            .map_or(Ok(()), |(file_ref, _)| check_there(file_ref))?;
        work.cancel().check()
    });
    if let Err(error) = ready {
        // The way back from a change that is not made leads nowhere.
        if let Some((file_ref, _)) = apply_context.undo {
            file_ref.remove_if_there()?;
        }
        return Err(untouched(logged(error)));
    }
    let ApplyContext { verify, check, .. } = apply_context;
    apply(target, storage, &redo_log, checked, verify, check, work)?;
    retire(target.redo_log())?;
    Ok(Some(logged_bytes))
}

/// Has the target manifest say what is about to change, once its successor is there.
fn record_intent(redo_log: &Delta, keeper: &Keeper, work: &Work) -> Result<()> {
    let ranges = Mutex::new(Gathered::new(INTENT_BYTES));
    redo_log.for_each(work, &|frame| {
        if matches!(frame.header().kind, FrameKind::Data | FrameKind::Zero) {
            let mut ranges = ranges.lock().unwrap_or_else(PoisonError::into_inner);
            ranges.insert(frame.range());
        }
        Ok(())
    })?;
    keeper.make_durable()?;
    let ranges = ranges.into_inner().unwrap_or_else(PoisonError::into_inner);
    keeper.record_intent(ranges.into_set().into_vec())
}

/// Finds what moves and logs it; `previous` is the redo log of a run that did not finish.
fn redo_log(
    context: &SyncContext<'_>,
    mode: Mode,
    old: &dyn Image,
    log_writer: &LogWriter<'_>,
    previous: Option<&FileRef>,
    keeper: Option<&Keeper>,
    report: &mut SyncReport,
) -> Result<()> {
    let on_difference: &differences::OnDifference<'_> = &|difference, old| {
        let (extent, frame) = frame_of(difference, old(difference));
        log_writer.push(extent, &frame)
    };
    let counted = match (mode, keeper, previous) {
        (Mode::Full, ..) => {
            let (counted, root) = differences::everything(context, on_difference)?;
            report.root = root;
            counted
        }
        (_, Some(keeper), _) => {
            let (counted, root) = differences::against_kept(context, old, keeper, on_difference)?;
            report.root = Some(root);
            counted
        }
        (_, None, Some(previous)) if context.source.can_confirm() => {
            let (resumed_bytes, gaps) = resume::take_over(context, old, log_writer, previous)?;
            // The new redo log holds all of it that is worth anything. Nothing but work is lost
            // where a crash undoes one of the two, so neither is synced.
            log_writer.flush()?;
            previous.remove_if_there()?;
            report.resumed_bytes = resumed_bytes;
            report.changed_bytes = resumed_bytes;
            differences::differences(context, old, old.disk_len(), Some(gaps), on_difference)?
        }
        (_, None, _) => {
            differences::differences(context, old, old.disk_len(), None, on_difference)?
        }
    };
    report.count(counted);
    Ok(())
}

fn frame_of<'a>(difference: &Difference<'a>, old: Old) -> (Extent, Frame<'a>) {
    match difference.new {
        Content::Bytes(bytes) => (
            Extent::data(difference.range()),
            Frame::data(difference.offset, bytes, old, None),
        ),
        Content::Zeros(len) => (
            Extent::zero(difference.range()),
            Frame::zero(difference.offset, len, old),
        ),
    }
}

/// Writes the way back, durably, while the target still holds the old bytes.
fn write_undo(redo_log: &Delta, old: &dyn Image, undo: &FileRef, work: &Work) -> Result<()> {
    let header = Header {
        purpose: Purpose::Undo,
        base_len: redo_log.header().result_len,
        result_len: redo_log.header().base_len,
        ..*redo_log.header()
    };
    precheck::undo_directory(undo)?;
    undo.create_whole(Privacy::PRIVATE, |file| {
        reverse(redo_log, old, DeltaWriter::create(file, header)?, work)?;
        Ok(())
    })
}

/// Says what to do where there is no room for the way back.
pub(in crate::sync) fn no_room_for_undo(error: Error) -> Error {
    match error.kind() {
        ErrorKind::NoSpace => error
            .leaving(TargetState::Untouched)
            .advise("the target is untouched; make room for the undo file")
            .or_advise(Advice::UndoElsewhere),
        _ => error,
    }
}

/// Says what became of a complete redo log when there is no room for what comes after it.
fn logged(error: Error) -> Error {
    if error.kind() != ErrorKind::NoSpace {
        return error;
    }
    let error = match error.advice() {
        [] => error.advise("the target is untouched; make room there"),
        _ => error,
    };
    error
        .or_advise("the redo log is kept: run the same again to go on with it")
        .or_advise(Advice::Discard)
}

/// For the intents of a target manifest, which are rounded out to few ranges anyway.
const INTENT_BYTES: u64 = 4 << 20;
