//! Applying a complete redo log to its target, under the marker.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::delta::{Delta, FrameKind, Old, VerifiedFrame, fits_new};
use crate::error::{Error, ErrorKind, Result};
use crate::image::{self, Image, ImageMut};
use crate::progress::{Phase, Work};
use crate::storage::Storage;
use crate::sync::advice::needs_recovery;
use crate::sync::endpoint::target::Target;
use crate::sync::marker::format::Marker;
use crate::sync::marker::redo::Redo;
use crate::sync::marker::room::Room;
use crate::sync::marker::set_lift::{Guard, begin_marker, lift_marker, open_overlay};
use crate::sync::options::{Safety, Verify};

/// A complete redo log that was checked, and the room for it.
pub(in crate::sync) struct Checked<'a> {
    redo: Redo,
    room: Room<'a>,
}

/// Checks a complete redo log to its last byte, and takes the room on the target for all that it
/// will write there; `planner` has the tables that the redo log leads to. The target's bytes stay
/// as they are.
///
/// # Errors
/// `Malformed`, `NoSpace`, `Io`, `Cancelled`.
pub(in crate::sync) fn check_redo_log<'s>(
    redo_log: &Delta,
    planner: &dyn ImageMut,
    storage: &'s dyn Storage,
    work: &Work,
) -> Result<Checked<'s>> {
    let room = Room::for_marker(storage)?;
    let redo = Redo::load(redo_log, work, &|frame| match frame.header().kind {
        FrameKind::Data => planner.places(frame.range(), &mut |range| room.add(range)),
        _ => Ok(()),
    })?;
    if let Some(len) = redo.storage_len {
        room.add_len(len)?;
    }
    let end = |at: u64, bytes: &[u8]| at + bytes.len() as u64;
    redo.tables(&mut |at, bytes| room.add(at..end(at, bytes)))?;
    for (at, bytes) in &redo.last {
        room.add(*at..end(*at, bytes))?;
    }
    Ok(Checked { redo, room })
}

/// Makes the target hold what the redo log says, from the first write of the marker to its lifting.
/// Everything is durable when this returns. The redo log is still there.
///
/// # Errors
/// `Io`, `NoSpace`, `VerifyFailed`, `Cancelled` (asked for twice): the target is marked, and
/// recovery goes on from there.
pub(in crate::sync) fn apply(
    target: &Target,
    storage: &Arc<dyn Storage>,
    redo_log: &Delta,
    checked: Checked<'_>,
    verify: Verify,
    check: Option<Check<'_>>,
    work: &Work,
) -> Result<()> {
    let Checked { redo, room } = checked;
    let marker = Marker {
        held: false,
        job: redo_log.header().job,
        safety: Safety::Atomic,
        target_len: redo.job()?.target_len,
        redo_log: target.redo_log().path(),
    };
    begin_marker(room, &marker)?;
    apply_marked(target, storage, redo_log, &redo, verify, check, work).map_err(needs_recovery)
}

/// Decides about a finished target, read through its marker, before the marker is lifted.
pub(in crate::sync) type Check<'a> = &'a dyn Fn(&dyn Image) -> Result<()>;

/// [`apply`] for a target that carries the marker already, durably or not.
///
/// # Errors
/// As [`apply`].
pub(in crate::sync) fn apply_marked(
    target: &Target,
    storage: &Arc<dyn Storage>,
    redo_log: &Delta,
    redo: &Redo,
    verify: Verify,
    check: Option<Check<'_>>,
    work: &Work,
) -> Result<()> {
    let overlay = open_overlay(storage, redo, Guard::Written)?;
    let image =
        image::open_storage_mut(overlay.clone(), redo.job()?.format, target.image_options())?;
    let trailer = redo_log.trailer();
    work.progress()
        .begin(Phase::Apply, Some(trailer.data_bytes + trailer.zero_bytes));
    redo_log.for_each(work, &|frame| {
        work.cancel().check_forced()?;
        match frame.header().kind {
            FrameKind::Data => image.write_all_at(frame.bytes(), frame.offset())?,
            FrameKind::Zero => image.write_zeroes_at(frame.range())?,
            _ => return Ok(()),
        }
        work.progress().advance(frame.header().len);
        Ok(())
    })?;
    image.sync()?;
    if verify.reads_back() {
        verify_written(&*image, redo_log, work)?;
    }
    if let Some(check) = check {
        // Opened anew: tables come from the medium too.
        let format = redo.job()?.format;
        check(&*image::open_storage(
            overlay.clone(),
            format,
            target.image_options(),
        )?)?;
    }
    lift_marker(&**storage, &overlay)
}

/// Whether every frame's range holds the frame's bytes (`New`) or what they replace (`Old`).
///
/// # Errors
/// `Io`, `Malformed`.
pub(in crate::sync) fn holds(
    image: &dyn Image,
    redo_log: &Delta,
    work: &Work,
    fits: &(dyn Fn(&VerifiedFrame<'_>, &[u8]) -> bool + Sync),
) -> Result<bool> {
    let all = AtomicBool::new(true);
    redo_log.for_each(work, &|frame| {
        let guest = matches!(frame.header().kind, FrameKind::Data | FrameKind::Zero);
        if !guest || !all.load(Ordering::Relaxed) {
            return Ok(());
        }
        if !for_pieces(image, frame, &|bytes| fits(frame, bytes))? {
            all.store(false, Ordering::Relaxed);
        }
        Ok(())
    })?;
    Ok(all.into_inner())
}

/// Reads a frame's range and asks `fits`: in one piece for data, piecewise for long zeros. What
/// lies beyond the end of the disk counts as zeros, as it did when the frame was made.
fn for_pieces(
    image: &dyn Image,
    frame: &VerifiedFrame<'_>,
    fits: &dyn Fn(&[u8]) -> bool,
) -> Result<bool> {
    let range = frame.range();
    let step = match frame.header().kind {
        // Only a hash of the old bytes needs all of them at once, and bounds their length.
        FrameKind::Zero if !matches!(frame.header().old, Old::Hash(_)) => ZERO_PIECE,
        _ => frame.header().len.max(1),
    };
    let mut at = range.start;
    while at < range.end {
        let len = step.min(range.end - at);
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        image::read_padded_at(image, &mut bytes, at)?;
        if !fits(&bytes) {
            return Ok(false);
        }
        at += len;
    }
    Ok(true)
}

/// Reads back what was written, from the medium.
fn verify_written(image: &dyn ImageMut, redo_log: &Delta, work: &Work) -> Result<()> {
    let trailer = redo_log.trailer();
    work.progress()
        .begin(Phase::Verify, Some(trailer.data_bytes + trailer.zero_bytes));
    redo_log.for_each(work, &|frame| {
        let header = frame.header();
        if !matches!(header.kind, FrameKind::Data | FrameKind::Zero) {
            return Ok(());
        }
        work.cancel().check_forced()?;
        image.drop_cache(frame.range());
        let fits = for_pieces(image, frame, &|bytes| {
            fits_new(header.kind, &header.new_hash, bytes)
        })?;
        if !fits {
            return Err(Error::new(
                ErrorKind::VerifyFailed,
                "what was written does not read back from the target",
            )
            .at_offset(frame.offset()));
        }
        work.progress().advance(header.len);
        Ok(())
    })
}

const ZERO_PIECE: u64 = 1 << 20;
