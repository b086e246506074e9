//! A target that is held: marked from one sync to the next, so that nothing takes it for a disk.
//!
//! It is *whole* while its sidecar is closed: what lies under the marker is in there, all else is
//! durable in its place. A sync opens the sidecar before its first change and closes it after its
//! last; both are one rename.

use std::sync::Arc;

use crate::delta::{Header, JobId, Purpose};
use crate::error::{Error, ErrorKind, Result};
use crate::image::{self, Image};
use crate::progress::Work;
use crate::storage::{FileRef, Storage};
use crate::sync::advice::with_advice;
use crate::sync::endpoint::named::check_name;
use crate::sync::endpoint::precheck;
use crate::sync::endpoint::target::Target;
use crate::sync::job::Job;
use crate::sync::log::kept_log;
use crate::sync::log::previous::retire;
use crate::sync::log::sidecar::{self, Sidecar};
use crate::sync::marker::format::{Marker, can_carry};
use crate::sync::marker::overlay::OverlayStorage;
use crate::sync::marker::redo::{FinalState, Redo};
use crate::sync::marker::room::Room;
use crate::sync::marker::set_lift::{
    Guard, lift_marker, open_overlay, read_regions, repair_marker, sentinel_len, set_marker,
};
use crate::sync::options::Safety;
use crate::sync::recovery::recover::{Recovered, finish, lost};
use crate::sync::recovery::state::{self, FoundState, Touch};
use crate::units::BlockSize;

/// Keeps `target` from being used, whatever it holds, until [`release`]: it carries the marker, and
/// what lies under that is in a sidecar. Syncs onto it go on
/// [`with_hold`](crate::sync::SyncOptions::with_hold). Durable when this returns; doing it again is
/// harmless, also after a crash in the middle, and onto a target that such a sync left incomplete.
///
/// # Examples
/// ```no_run
/// use diskdelta::image::ImageOptions;
/// use diskdelta::storage::SourceOptions;
/// use diskdelta::sync::{self, HostSource, HostTarget, HostTargetOptions, Safety, SyncOptions};
///
/// # fn main() -> diskdelta::Result<()> {
/// let work = diskdelta::Work::with_threads(0)?;
/// let target = HostTarget::open("/dev/vg/disk", &HostTargetOptions::default())?;
/// target.hold(&work)?;
/// let options = SyncOptions::default()
///     .with_safety(Safety::InPlace)
///     .with_hold(true);
/// for pass in ["monday.raw", "tuesday.raw"] {
///     let source = HostSource::open(pass, &ImageOptions::default(), &SourceOptions::default())?;
///     sync::sync(&source.source(), target.target(), &options, &work)?;
/// }
/// target.release(&work)?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// `Incomplete` for a target that another unfinished sync left incomplete; `InvalidInput` for one
/// too short to carry a marker; `NotFound`, `NoSpace`, `Io`, `Malformed`.
pub fn hold(target: &Target, work: &Work) -> Result<()> {
    let done = opened(target).and_then(|storage| {
        held(target, &storage, work)?;
        check_name(target, &*storage)
    });
    done.map_err(|error| with_advice(error, target).at_path(target.path()))
}

/// Lets a held target go: the marker is lifted and the sidecar removed. Durable when it returns;
/// doing it again is harmless, also after a crash in the middle. `New` where a hold ended,
/// `Nothing` where there was none; a target that is not held is finished as [`recover`] does it.
///
/// # Errors
/// `Incomplete` when the last sync onto the target did not finish; otherwise those of [`recover`].
///
/// [`recover`]: crate::sync::recover
pub fn release(target: &Target, work: &Work) -> Result<Recovered> {
    let done = opened(target).and_then(|storage| {
        let recovered = released(target, &storage, work)?;
        check_name(target, &*storage)?;
        Ok(recovered)
    });
    done.map_err(|error| with_advice(error, target).at_path(target.path()))
}

/// The image of a target that is held and whole, as it will be once it is released; `None` where
/// there is no marker. Nothing is written. It is for the holder, who keeps the target open.
///
/// # Errors
/// `Incomplete` for a target that is incomplete; those of opening the image; `Io`.
pub fn held_image(target: &Target, work: &Work) -> Result<Option<Arc<dyn Image>>> {
    let Some(storage) = target.open_if_there()? else {
        return Ok(None);
    };
    let Some(marker) = Marker::find(&*storage)? else {
        return Ok(None);
    };
    let image = match state::find(target, &storage, Touch::Nothing, work)? {
        FoundState::Held(_, redo) => image_of(target, &storage, &redo).map(Some),
        FoundState::Lost(marker) => Err(lost(&marker)),
        FoundState::Cut(cut) => Err(cut.refusal()),
        _ => Err(unfinished(&marker)),
    };
    image.map_err(|error| error.at_path(target.path()))
}

/// The image under the marker of a held target that is whole.
///
/// # Errors
/// Those of opening the image.
pub(in crate::sync) fn image_of(
    target: &Target,
    storage: &Arc<dyn Storage>,
    redo: &Redo,
) -> Result<Arc<dyn Image>> {
    let overlay = OverlayStorage::new(storage.clone(), redo.saved.clone());
    image::open_storage(Arc::new(overlay), target.format(), target.image_options())
}

/// Writes the closed sidecar of a target that is whole under its marker: all that `overlay` keeps
/// in memory. Everything else is durable already. Durable when it returns.
///
/// # Errors
/// `NoSpace`, `Io`.
pub(in crate::sync) fn close(
    file_ref: &FileRef,
    header: Header,
    job: &Job,
    overlay: &OverlayStorage,
) -> Result<()> {
    let regions = read_regions(overlay, job.target_len)?;
    let redo = Redo {
        saved: overlay.all(),
        final_state: Some(FinalState::of(&regions, sentinel_len(overlay.len()?))),
        ..Redo::default()
    };
    let header = Header {
        base_len: overlay.len()?,
        ..header
    };
    Sidecar::create(file_ref, header, job, &redo).map(drop)
}

/// The header of a sidecar of a new job onto a target whose storage is `len` bytes long.
///
/// # Errors
/// `Io`.
pub(in crate::sync) fn new_header(block_size: BlockSize, len: u64) -> Result<Header> {
    Ok(Header {
        purpose: Purpose::Sidecar,
        job: JobId::random()?,
        base_len: len,
        result_len: 0,
        block_size,
    })
}

/// # Errors
/// `InvalidInput` for a target too short to be held.
pub(in crate::sync) fn refuse_short(storage: &dyn Storage) -> Result<()> {
    if can_carry(storage.len()?) {
        return Ok(());
    }
    let what = "the target is too short to carry a marker, so it cannot be held";
    Err(Error::new(ErrorKind::InvalidInput, what))
}

fn held(target: &Target, storage: &Arc<dyn Storage>, work: &Work) -> Result<()> {
    match state::find(target, storage, Touch::Mend, work)? {
        FoundState::Held(marker, _) => return repair_marker(&**storage, &marker),
        FoundState::Rerun(marker) if marker.held => return repair_marker(&**storage, &marker),
        FoundState::Redo(marker, _) | FoundState::Rerun(marker) => return Err(marker.refusal()),
        FoundState::Lost(marker) => return Err(lost(&marker)),
        FoundState::Cut(cut) => return Err(cut.refusal()),
        FoundState::Clean
        | FoundState::Old
        | FoundState::New
        | FoundState::Forgotten
        | FoundState::Torn(_) => {}
        FoundState::Foreign(job) => work
            .progress()
            .note(&kept_log::keep(target.redo_log(), job)?),
    }
    refuse_short(&**storage)?;
    target.refuse_container(&**storage)?;
    precheck::log_directory(target.redo_log())?;
    let header = new_header(BlockSize::default(), storage.len()?)?;
    let job = Job::of(target, &**storage, None)?;
    let saved = read_regions(&**storage, job.target_len)?;
    let overlay = OverlayStorage::new(storage.clone(), saved);
    let room = Room::for_marker(&**storage)?;
    close(target.redo_log(), header, &job, &overlay).map_err(sidecar::no_room)?;
    let marker = Marker {
        job: header.job,
        safety: Safety::InPlace,
        target_len: job.target_len,
        held: true,
        redo_log: target.redo_log().path(),
    };
    set_marker(room, &marker)
}

fn released(target: &Target, storage: &Arc<dyn Storage>, work: &Work) -> Result<Recovered> {
    match state::find(target, storage, Touch::Mend, work)? {
        FoundState::Held(_, redo) => {
            let overlay = open_overlay(storage, &redo, Guard::Durable)?;
            lift_marker(&**storage, &overlay)?;
            sidecar::remove_fresh(target.redo_log())?;
            retire(target.redo_log())?;
            Ok(Recovered::New)
        }
        FoundState::Redo(marker, _) | FoundState::Rerun(marker) => Err(unfinished(&marker)),
        FoundState::Lost(marker) => Err(lost(&marker)),
        FoundState::Cut(cut) => Err(cut.refusal()),
        state => finish(target, storage, state, work),
    }
}

fn opened(target: &Target) -> Result<Arc<dyn Storage>> {
    let missing = || Error::new(ErrorKind::NotFound, "no such target");
    target.open_if_there()?.ok_or_else(missing)
}

fn unfinished(marker: &Marker) -> Error {
    if !marker.held {
        return marker.refusal();
    }
    let what = "the last sync onto this held target did not finish";
    Error::new(ErrorKind::Incomplete, what).advise(format!(
        "run it again, holding the target as before, then release it (its sidecar: {})",
        marker.redo_log.display()
    ))
}
