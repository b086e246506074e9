//! Applying a delta file to a target, with the same promise as an atomic sync.

use std::sync::Arc;

use super::atomic::{ApplyContext, carry_out};
use crate::delta::{self, Delta, Header, JobId, Purpose, fits_new, fits_old};
use crate::error::{Error, ErrorKind, Result};
use crate::image::{self, Image};
use crate::progress::Work;
use crate::storage::{Access, FileRef, Storage, refuse_overlap};
use crate::sync::advice::{untouched, with_advice};
use crate::sync::endpoint::named::check_name;
use crate::sync::endpoint::precheck;
use crate::sync::endpoint::target::Target;
use crate::sync::job::Job;
use crate::sync::log::apply::holds;
use crate::sync::log::kept_log;
use crate::sync::log::redo_log::LogWriter;
use crate::sync::log::redo_log::push_again;
use crate::sync::options::{Mode, Safety, SyncOptions, Verify};
use crate::sync::recovery::recover::lost;
use crate::sync::recovery::state::{self, FoundState, Touch};
use crate::sync::report::{Outcome, SyncReport, Verified};
use crate::sync::verify::refuse_unconfirmed;

/// How a delta's base is recognised in a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum BaseCheck {
    /// The whole target is read: its root must be the one that the delta names as its base's, and
    /// the delta must lead from there to the root that it names as its result's.
    #[default]
    Whole,
    /// Only what the delta changes is read, and must be what the delta says it replaces.
    Touched,
}

/// Makes `target` hold `delta`'s result. Durable when it returns `Ok`; after an error the target
/// is as it was, or marked for [`recover`](crate::sync::recover).
///
/// A target that holds the result already is left alone: `Identical` where all of it was read,
/// `Unchanged` where only what the delta changes was.
///
/// # Errors
/// `InvalidInput` for a delta file that is not [`Purpose::Portable`];
/// `BaseMismatch` when the target holds neither base nor result: nothing was changed; `Malformed`
/// for a damaged delta, before anything is changed; otherwise those of [`sync`](crate::sync::sync).
pub fn apply_delta(
    delta: &Delta,
    target: &Target,
    check: BaseCheck,
    verify: Verify,
    work: &Work,
) -> Result<SyncReport> {
    let options = SyncOptions::default().with_verify(verify);
    apply_delta_with(delta, target, check, &options, work)
}

/// As [`apply_delta`], with the options that have a meaning for a delta: what is read back, and
/// where the way back is written.
///
/// # Errors
/// Those of [`apply_delta`].
pub(crate) fn apply_delta_with(
    delta: &Delta,
    target: &Target,
    check: BaseCheck,
    options: &SyncOptions,
    work: &Work,
) -> Result<SyncReport> {
    delta.require(Purpose::Portable)?;
    if let Some(undo) = &options.undo {
        undo.directory().refuse_nodes(undo.name())?;
    }
    apply_checked(delta, target, check, options, work)
}

fn apply_checked(
    delta: &Delta,
    target: &Target,
    check: BaseCheck,
    options: &SyncOptions,
    work: &Work,
) -> Result<SyncReport> {
    let applied = target.open_if_there().and_then(|storage| match storage {
        Some(storage) => {
            refuse_itself(delta, &*storage)?;
            refuse_unconfirmed(options.verify, Some(&*storage))?;
            let report = applied(delta, target, &storage, check, options, work)?;
            check_name(target, &*storage)?;
            Ok(report)
        }
        None => Err(Error::new(ErrorKind::NotFound, "no such target")
            .advise("name the image that the delta was made from")),
    });
    applied.map_err(|error| with_advice(error, target).at_path(target.path()))
}

/// Applies an undo file: what [`SyncOptions::undo`](crate::sync::SyncOptions::undo) wrote.
///
/// # Errors
/// Those of [`apply_delta`]; `InvalidInput` for a delta file that is no undo file.
pub fn undo(undo: &FileRef, target: &Target, work: &Work) -> Result<SyncReport> {
    let limits = &target.image_options().limits;
    let opened = undo.open(Access::Read);
    let delta = opened
        .and_then(|file| Delta::from_storage(file, limits))
        .map_err(|error| with_advice(error, target))?;
    delta.require(Purpose::Undo)?;
    apply_checked(
        &delta,
        target,
        BaseCheck::Touched,
        &SyncOptions::default(),
        work,
    )
}

/// Refuses the delta file itself as its target.
fn refuse_itself(delta: &Delta, target: &dyn Storage) -> Result<()> {
    match (delta.storage().host_file()?, target.host_file()?) {
        (Some(delta), Some(target)) => refuse_overlap(&delta, &target),
        _ => Ok(()),
    }
}

fn applied(
    delta: &Delta,
    target: &Target,
    storage: &Arc<dyn Storage>,
    check: BaseCheck,
    options: &SyncOptions,
    work: &Work,
) -> Result<SyncReport> {
    let mut kept = None;
    let state = state::find(target, storage, Touch::Mend, work)?;
    match &state {
        FoundState::Redo(marker, ..) | FoundState::Rerun(marker) | FoundState::Held(marker, ..) => {
            return Err(marker.refusal());
        }
        FoundState::Lost(marker) => return Err(lost(marker)),
        FoundState::Cut(cut) => return Err(cut.refusal()),
        _ => target.refuse_container(&**storage)?,
    }
    match state {
        FoundState::Clean => {}
        FoundState::Foreign(job) => kept = Some(kept_log::keep(target.redo_log(), job)?),
        _ => target.redo_log().remove_if_there()?,
    }
    let from = delta.header();
    let image_options = target.image_options();
    let image = image::open_storage(storage.clone(), target.format(), image_options)?;
    precheck::new_length(target, &**storage, from.result_len)?;
    let mut report = SyncReport::new(Mode::Delta, Safety::Atomic, from.result_len);
    report.reason = "a delta file".to_owned();
    report.notes.extend(kept);
    if !base_is_there(delta, &*image, check, work)? {
        if check == BaseCheck::Touched {
            report.outcome = Outcome::Unchanged;
        }
        return Ok(report);
    }
    let planner = image::open_storage_mut(storage.clone(), target.format(), image_options)?;
    let header = Header {
        purpose: Purpose::RedoLog,
        job: JobId::random()?,
        ..*from
    };
    let job = Job::of(target, &**storage, None)?;
    let log_writer = LogWriter::new(target.redo_log(), header, job, &*planner, from.result_len);
    delta
        .for_each(work, &|frame| {
            work.cancel().check()?;
            push_again(&log_writer, frame)
        })
        .map_err(untouched)?;
    report.changed_bytes = delta.trailer().data_bytes + delta.trailer().zero_bytes;
    report.zeroed_bytes = delta.trailer().zero_bytes;
    report.written_bytes = delta.trailer().data_bytes;
    let apply_context = ApplyContext {
        undo: options.undo.as_ref().map(|file| (file, &*image)),
        keeper: None,
        verify: options.verify,
        check: None,
    };
    if let Some(logged) = carry_out(target, storage, log_writer, apply_context, work)? {
        report.logged_bytes = logged;
        report.outcome = Outcome::Synced;
        report.verified = match options.verify {
            Verify::None => Verified::No,
            Verify::Sent => Verified::Sent,
            _ => Verified::Written,
        };
    }
    Ok(report)
}

/// Whether the base is there (`true`) or the result already (`false`). The delta is verified.
///
/// # Errors
/// `Malformed` for a damaged delta; `BaseMismatch` for any other target.
fn base_is_there(delta: &Delta, image: &dyn Image, check: BaseCheck, work: &Work) -> Result<bool> {
    let header = delta.header();
    let len = image.disk_len();
    let mismatch = |what: &'static str| {
        Error::new(ErrorKind::BaseMismatch, what)
            .advise("nothing was changed; apply the delta to the image that it was made from")
    };
    match (
        check,
        delta.trailer().base_root,
        delta.trailer().result_root,
    ) {
        (BaseCheck::Whole, Some(base), Some(result)) => {
            let (root, leads_to) = delta::roots(delta, image, work)?;
            match () {
                () if len == header.result_len && root == result => Ok(false),
                () if len != header.base_len || root != base => {
                    Err(mismatch("the target is not what the delta was made from"))
                }
                () if leads_to != result => Err(leads_elsewhere(delta)),
                () => Ok(true),
            }
        }
        (BaseCheck::Whole, ..) => Err(mismatch("the delta does not name the root of its base")),
        (BaseCheck::Touched, ..) => {
            delta.verify(work, &|_| Ok(()))?;
            let is_new = len == header.result_len
                && holds(image, delta, work, &|frame, bytes| {
                    fits_new(frame.header().kind, &frame.header().new_hash, bytes)
                })?;
            let is_old = !is_new
                && len == header.base_len
                && holds(image, delta, work, &|frame, bytes| {
                    fits_old(&frame.header().old, bytes)
                })?;
            match (is_new, is_old) {
                (true, _) => Ok(false),
                (_, true) => Ok(true),
                _ => Err(mismatch(
                    "the target holds something else where the delta changes it",
                )),
            }
        }
    }
}

fn leads_elsewhere(delta: &Delta) -> Error {
    Error::malformed("the delta does not lead to the root that it names")
        .in_field("result_root")
        .at_path(delta.storage().path())
        .advise("nothing was changed; make the delta again")
}
