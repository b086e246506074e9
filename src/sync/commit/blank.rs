//! The sync onto a storage that is empty: the image is made in it, and filled in place.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::in_place::sync_marked;
use crate::error::{Error, ErrorKind, Result};
use crate::image;
use crate::manifest::refuse_other;
use crate::storage::Storage;
use crate::sync::endpoint::precheck;
use crate::sync::endpoint::source::SyncContext;
use crate::sync::log::kept_log;
use crate::sync::marker::in_data;
use crate::sync::options::{Mode, Safety};
use crate::sync::recovery::state::complete_log;
use crate::sync::report::{Outcome, SyncReport};
use crate::sync::scan::{dry_run, sectors};

/// Makes the image in `storage` and copies all of the source that is not zeros. There are no old
/// bytes that a redo log would keep, so none is written: from the first byte to the last the
/// storage carries the marker.
///
/// # Errors
/// Those of [`sync`](crate::sync::sync).
pub(in crate::sync) fn sync_blank(
    context: &SyncContext<'_>,
    storage: &Arc<dyn Storage>,
) -> Result<SyncReport> {
    let options = context.options;
    let refuse = |what: &'static str| Err(Error::new(ErrorKind::InvalidInput, what));
    if options.hold {
        return refuse("there is no target yet that could be held");
    }
    if options.undo.is_some() {
        return refuse("there is nothing yet that an undo file could lead back to");
    }
    let target = context.target;
    let source = context.source.info();
    let create = target.create_options(&source, None, context.source.disk_len());
    create.check()?;
    let note = sectors::compare(&source, create.sector_bytes())?;
    in_data::refuse_source(context, None)?;
    precheck::for_logs(context)?;
    precheck::outputs(context)?;
    if options.dry_run {
        let mut report = dry_run::would_create(context)?;
        report.notes.extend(note);
        return Ok(report);
    }
    let kept = match complete_log(target, context.work)? {
        Some(job) => Some(kept_log::keep(target.redo_log(), job)?),
        None => None,
    };
    if let Some(manifest) = &options.target_manifest {
        // It is of another target.
        refuse_other(manifest)?;
        manifest.remove_if_there()?;
        manifest.directory().sync()?;
    }
    context.commits.store(true, Ordering::Relaxed);
    image::create(&**storage, &create)?;
    let options = options
        .clone()
        .with_safety(Safety::InPlace)
        .with_change_map(None);
    let context = SyncContext {
        options: &options,
        ..*context
    };
    let mut report = sync_marked(&context, storage, Mode::Delta)?;
    if report.outcome != Outcome::Synced {
        // Nothing had to be written but the image itself, whose end may be held back.
        let mut end = vec![0; usize::try_from(storage.len()?.min(SECTOR_BYTES)).unwrap_or(0)];
        let at = storage.len()? - end.len() as u64;
        storage.read_exact_at(&mut end, at)?;
        storage.write_all_at(&end, at)?;
        storage.sync()?;
    }
    report.outcome = Outcome::Synced;
    report.reason = "the target was not there".to_owned();
    report.notes.extend(note);
    report.notes.extend(kept);
    Ok(report)
}

const SECTOR_BYTES: u64 = 512;
