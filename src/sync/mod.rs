//! The whole job: find what differs, log it, apply it, verify it; and recovery.

mod advice;
mod commit;
mod endpoint;
mod export;
mod host;
mod job;
mod log;
mod marker;
mod options;
mod recovery;
mod refusals;
mod report;
mod scan;
mod source;
mod verify;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::error::{Error, ErrorKind, Result};
use crate::image::{self, Image};
use crate::progress::Work;
use crate::storage::{Storage, partition_note};
use crate::sync::advice::{marker_of, with_advice, with_advice_unless_marked};
use crate::target_state::TargetState;
use crate::units::check_change_map;
use endpoint::source::SyncContext;
use marker::overlay::OverlayStorage;
use recovery::state::{FoundState, Touch};
use scan::since::Since;

pub(crate) use commit::apply_delta::apply_delta_with;
pub use commit::apply_delta::{BaseCheck, apply_delta, undo};
pub use commit::hold::{held_image, hold, release};
pub use endpoint::source::Source;
pub use endpoint::target::Target;
pub use export::export_delta;
#[cfg(feature = "http")]
pub(crate) use host::blob_target::open_blob;
pub use host::cache::{CachedSource, ManifestCache, Recording};
pub use host::pending::{Pending, PendingKind, PendingState, pending, recover_all};
pub(crate) use host::side::changes_from;
pub use host::side::{Diff, HostSide};
pub use host::source::HostSource;
pub use host::target::{HostTarget, HostTargetOptions, LOG_DIR};
#[cfg(feature = "http")]
pub use host::web_source::WebSource;
pub use marker::format::Marker;
pub use options::{Cloning, Mode, Safety, SyncOptions, Verify};
pub use recovery::forget::{Forgotten, forget};
pub use recovery::guarded::GuardedBytes;
pub use recovery::recover::{Recovered, discard, recover};
pub use report::{Outcome, SyncReport, Traffic, Verified};
#[cfg(feature = "failback")]
pub(crate) use scan::estimate::FULL_FROM_PERCENT_VERIFIED;
pub use scan::estimate::{Sample, sample};
#[cfg(feature = "failback")]
pub(crate) use scan::kept::{KeptManifest, unknown};
#[cfg(feature = "failback")]
pub(crate) use scan::sampled::{Sampled, Target as SampleTarget};
#[cfg(feature = "failback")]
pub(crate) use scan::throughput::Throughput;
pub use source::backend::{Claim, REMOTE_BLOCK_BYTES, Search, SourceBackend};
pub(crate) use source::checked::TargetCheck;
pub use source::history::{ChangedSince, History};

/// Makes `target` hold what `source` holds.
///
/// With [`Safety::Atomic`] an error leaves the target as it was, or marked (kind `Incomplete` at
/// the next open) for [`recover`] to finish; the error's advice says which. With
/// [`Safety::InPlace`] it may leave the target marked until the same sync has run again. When this
/// returns `Ok`, the target is durable.
///
/// # Errors
/// `InvalidInput` for lengths or options that do not fit; `Incomplete`; `NoSpace`; `Unreadable` and
/// `SourceChanged` for the source; `VerifyFailed`; `InUse`, `Io`, `Malformed`, `Cancelled`.
pub fn sync(
    source: &Source,
    target: &Target,
    options: &SyncOptions,
    work: &Work,
) -> Result<SyncReport> {
    let mut done = sync_once(source, target, options, work);
    if done.is_err() && source.backend.compares_with_more_care(work) {
        done = sync_once(source, target, options, work);
    }
    match done {
        Ok(mut report) => {
            let finished = source.backend.finish();
            report.traffic = finished.map_err(|error| error.leaving(TargetState::Complete))?;
            Ok(report)
        }
        Err(error) => Err(source.backend.fail(error)),
    }
}

fn sync_once(
    source: &Source,
    target: &Target,
    options: &SyncOptions,
    work: &Work,
) -> Result<SyncReport> {
    let started = Instant::now();
    let dense = (options.verify == Verify::All).then(|| target.with_read_holes());
    let target = dense.as_ref().unwrap_or(target);
    let source =
        checked(source, target, options).map_err(|error| error.leaving(TargetState::Untouched))?;
    let commits = AtomicBool::new(false);
    let context = SyncContext {
        source: &source,
        target,
        options,
        work,
        commits: &commits,
    };
    scan::target_manifest::refuse_older(&context)
        .map_err(|error| error.leaving(TargetState::Untouched))?;
    let done = target.open_if_there().and_then(|storage| {
        verify::refuse_unconfirmed(options.verify, storage.as_deref())
            .map_err(|error| error.leaving(TargetState::Untouched))?;
        match storage {
            Some(storage) if target.is_to_be_made(&*storage)? => {
                commit::blank::sync_blank(&context, &storage)
            }
            Some(storage) => {
                refusals::refuse_own_source(&source, &storage)
                    .map_err(|error| error.leaving(TargetState::Untouched))?;
                with_usable_map(&context, &storage)
            }
            None => onto_nothing(&context),
        }
    });
    let mut report = done.map_err(|error| {
        drop_part_of_manifest(&error, target, options);
        let unmarked = match commits.load(Ordering::Relaxed) {
            true => TargetState::Complete,
            false => TargetState::Untouched,
        };
        with_advice_unless_marked(error, target, unmarked).at_path(target.path())
    })?;
    report.trusts_manifest |= source.backend.trusts_manifests();
    report.conclude(options);
    if !options.dry_run {
        commit::leftovers::remove(target, work)
            .map_err(|error| with_advice(error, target).at_path(target.path()))?;
    }
    report.elapsed = started.elapsed();
    Ok(report)
}

/// The source as long as the target will be. Refuses what makes no sense, before the target is
/// looked at.
fn checked(source: &Source, target: &Target, options: &SyncOptions) -> Result<Source> {
    refusals::refuse_contradictions(source, options)?;
    for file_ref in [&options.undo, &options.target_manifest]
        .into_iter()
        .flatten()
    {
        file_ref.directory().refuse_nodes(file_ref.name())?;
    }
    commit::outputs::refuse_shared_names(source, target, options)?;
    // What the target holds beyond the source, to the end of its last sector, are zeros.
    let source = source.padded_to(target.rounded_len(source.disk_len())?);
    let map = options.change_map.as_deref().unwrap_or_default();
    check_change_map(map, source.disk_len())?;
    Ok(source)
}

fn onto_nothing(context: &SyncContext<'_>) -> Result<SyncReport> {
    if context.options.hold {
        let what = "there is no target yet that could be held";
        return Err(Error::new(ErrorKind::InvalidInput, what));
    }
    let source = context.source.info();
    let create = context
        .target
        .create_options(&source, None, context.source.disk_len());
    let note = scan::sectors::compare(&source, create.sector_bytes())?;
    marker::in_data::refuse_source(context, None)?;
    endpoint::precheck::for_copy(context, None)?;
    if context.options.dry_run {
        let mut report = scan::dry_run::would_create(context)?;
        report.notes.extend(note);
        return Ok(report);
    }
    let kept = match recovery::state::complete_log(context.target, context.work)? {
        Some(job) => Some(log::kept_log::keep(context.target.redo_log(), job)?),
        None => None,
    };
    let copied = commit::full_copy::sync_full(context, None);
    let mut report = copied.inspect_err(|_| {
        // Until the copy has the target's name there is none.
        let is_missing = matches!(context.target.open_if_there(), Ok(None));
        context.commits.store(!is_missing, Ordering::Relaxed);
    })?;
    report.notes.extend(kept);
    report.notes.extend(note);
    Ok(report)
}

/// Takes what changed since a snapshot for the change map, and leaves a map out that cannot be used
/// with the target manifest.
fn with_usable_map(context: &SyncContext<'_>, storage: &Arc<dyn Storage>) -> Result<SyncReport> {
    let doubt = scan::target_manifest::doubt_of_map(context, &**storage)?;
    let found = match (doubt, &context.options.since) {
        (Some(why), _) => Since::Everywhere(why.to_owned()),
        (None, Some(older)) => scan::since::changes(context, older)?,
        (None, None) => {
            let mut report = onto_existing(context, storage)?;
            report.trusts_map = context.options.change_map.is_some();
            return Ok(report);
        }
    };
    let (map, note) = match found {
        Since::Within(map, note) => (Some(map), note),
        Since::Everywhere(why) => {
            let what = match &context.options.since {
                Some(older) => format!("what changed since {older}"),
                None => "the change map".to_owned(),
            };
            let note = format!("{what} was not used, and the disks were compared: {why}");
            (None, note)
        }
    };
    let trusts_map = map.is_some();
    let options = &context.options.clone().with_change_map(map);
    let mut report = onto_existing(
        &SyncContext {
            options,
            ..*context
        },
        storage,
    )?;
    report.trusts_map = trusts_map;
    report.notes.push(note);
    Ok(report)
}

fn onto_existing(context: &SyncContext<'_>, storage: &Arc<dyn Storage>) -> Result<SyncReport> {
    let target = context.target;
    let options = context.options;
    let source = match options.dry_run {
        true => context.source.clone(),
        false => context.source.recalling(target.redo_log()),
    };
    let context = &SyncContext {
        source: &source,
        ..*context
    };
    let in_place = options.safety == Safety::InPlace;
    let resumes = in_place || target.is_made_in_place();
    let touch = match options.dry_run {
        true => Touch::Nothing,
        false => Touch::Mend,
    };
    let mut kept = None;
    let mut torn = None;
    let held = match recovery::state::find(target, storage, touch, context.work)? {
        FoundState::Rerun(marker) if resumes && marker.held == options.hold && !options.dry_run => {
            refusals::refuse_undo(context, "an in-place sync")?;
            context.commits.store(true, Ordering::Relaxed);
            let report = commit::in_place::sync_marked(context, storage, Mode::Delta)?;
            endpoint::named::check_name(target, &**storage)?;
            return Ok(report);
        }
        FoundState::Held(_, redo) if options.hold => Some(redo),
        FoundState::Redo(marker, ..) | FoundState::Rerun(marker) | FoundState::Held(marker, _) => {
            return Err(marker.refusal());
        }
        FoundState::Lost(marker) => return Err(recovery::recover::lost(&marker)),
        FoundState::Cut(cut) => return Err(cut.refusal()),
        // What is left of the previous redo log is a cache at most: every frame is checked again.
        FoundState::Clean | FoundState::Old | FoundState::New | FoundState::Forgotten => None,
        FoundState::Foreign(job) => {
            if !options.dry_run {
                kept = Some(log::kept_log::keep(target.redo_log(), job)?);
            }
            None
        }
        FoundState::Torn(page) => {
            torn = Some(page);
            None
        }
    };
    if held.is_none() && torn.is_none() {
        target.refuse_container(&**storage)?;
    }
    let old = match (&held, torn) {
        (_, Some(page)) => {
            let overlay = OverlayStorage::new(storage.clone(), vec![(0, page)]);
            image::open_storage(Arc::new(overlay), target.format(), target.image_options())?
        }
        (Some(redo), None) => commit::hold::image_of(target, storage, redo)?,
        (None, None) => {
            image::open_storage(storage.clone(), target.format(), target.image_options())?
        }
    };
    let note = scan::sectors::compare(&context.source.info(), old.info().sector_bytes)?;
    // What cannot be read directly is looked at as it is logged or copied, or else beforehand.
    if context.source.image().is_some() || in_place {
        marker::in_data::refuse_source(context, Some(&*old))?;
    }
    let (mode, reason) = match context.options.mode {
        Mode::Auto => match scan::estimate::choose(context, &*old)? {
            // What would be refused is not chosen.
            (Mode::Full, _) if endpoint::named::refuse_parting(target, &**storage).is_err() => {
                let why = "the file has several names, which a copy would part";
                (Mode::Delta, why.to_owned())
            }
            chosen => chosen,
        },
        mode => (mode, "asked for".to_owned()),
    };
    let carries = options.hold || marker::format::can_carry(storage.len()?);
    let replaces = target.file_ref().is_some()
        && (!carries || (mode == Mode::Full && options.safety == Safety::Atomic));
    if replaces {
        endpoint::named::refuse_parting(target, &**storage)?;
    }
    // Too short to carry a marker: replacing such a file is atomic, and no more work.
    let (mode, reason) = match carries || !replaces {
        true => (mode, reason),
        false => (Mode::Full, TOO_SHORT.to_owned()),
    };
    if replaces && carries {
        endpoint::precheck::for_copy(context, Some(&*old))?;
    } else if !replaces {
        let disk_len = context.target_len(Some(old.disk_len()))?;
        endpoint::precheck::new_length(target, &**storage, disk_len)?;
        endpoint::precheck::outputs(context)?;
    }
    if context.options.dry_run {
        let mut report = scan::dry_run::would_change(context, &*old, mode, reason)?;
        if replaces && !carries {
            report.safety = Safety::Atomic;
        }
        if report.outcome != Outcome::Identical {
            match replaces {
                true => endpoint::precheck::for_copy(context, Some(&*old))?,
                false => endpoint::precheck::for_logs(context)?,
            }
        }
        report.notes.extend(note);
        return Ok(report);
    }
    context.commits.store(true, Ordering::Relaxed);
    let mut report = match (mode, context.options.safety) {
        _ if replaces && !carries => {
            let mut looked =
                scan::dry_run::would_change(context, &*old, Mode::Full, String::new())?;
            looked.safety = Safety::Atomic;
            match looked.outcome {
                Outcome::Identical => Ok(looked),
                _ => {
                    refusals::refuse_undo(context, "a copy that replaces so short a target")?;
                    endpoint::precheck::for_copy(context, Some(&*old))?;
                    commit::full_copy::sync_full(context, Some((&*old, &**storage)))
                }
            }
        }
        _ if replaces => {
            refusals::refuse_undo(context, "a full copy")?;
            commit::full_copy::sync_full(context, Some((&*old, &**storage)))
        }
        (mode, Safety::Atomic) => match commit::clone::sync_cloned(context, storage, mode)? {
            Some(report) => Ok(report),
            None => commit::atomic::sync_logged(context, storage, mode),
        },
        (_, Safety::InPlace) => {
            refusals::refuse_undo(context, "an in-place sync")?;
            commit::in_place::sync_marked(context, storage, mode)
        }
    }?;
    report.reason = reason;
    report.notes.extend(note);
    report.notes.extend(kept);
    let is_replaced = replaces || report.cloned;
    let is_new_file = is_replaced && report.outcome != Outcome::Identical;
    if !is_new_file {
        endpoint::named::check_name(target, &**storage)?;
    }
    if context.options.verify == Verify::All && report.verified != Verified::All {
        // Nothing was written; whatever was, was compared before its marker was lifted.
        verify::verify_all(context, &*reopened(context)?)?;
        report.verified = Verified::All;
    }
    if report.outcome == Outcome::Synced {
        report.notes.extend(partition_note(&**storage));
    }
    Ok(report)
}

/// Removes a part of a manifest that ran out of room, or stands in the way of others, unless a
/// recovery will put it in place.
fn drop_part_of_manifest(error: &Error, target: &Target, options: &SyncOptions) {
    let (Some(file_ref), ErrorKind::NoSpace) = (&options.target_manifest, error.kind()) else {
        return;
    };
    if !marker_of(target)
        .is_ok_and(|marker| marker.is_none_or(|marker| marker.safety == Safety::InPlace))
    {
        return;
    }
    // The first error says more than one from cleaning up.
    let _ = crate::manifest::forget_left(file_ref);
}

fn reopened(context: &SyncContext<'_>) -> Result<Arc<dyn Image>> {
    if let Some(held) = held_image(context.target, context.work)? {
        return Ok(held);
    }
    let storage = context.target.open_to_read()?;
    image::open_storage(
        storage,
        context.target.format(),
        context.target.image_options(),
    )
}

const TOO_SHORT: &str = "the target is too short to carry a marker, so it is replaced";
