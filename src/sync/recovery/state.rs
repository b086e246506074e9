//! Where a target stands when an earlier sync onto it did not finish.

use std::sync::{Arc, Mutex, PoisonError};

use super::cut::Cut;
use super::found_log::untrusted;
use crate::delta::{Delta, FrameKind, JobId, Old, Purpose, fits_new, fits_old};
use crate::error::{Error, ErrorKind, Result};
use crate::image::{self, Format, Image};
use crate::progress::Work;
use crate::storage::{Access, Storage};
use crate::sync::endpoint::target::Target;
use crate::sync::job::read_job;
use crate::sync::log::apply::holds;
use crate::sync::log::previous::{previous_log, retire, stash};
use crate::sync::log::sidecar::{self, fresh_log};
use crate::sync::marker::format::Marker;
use crate::sync::marker::in_data::begins_with_guest_data;
use crate::sync::marker::overlay::OverlayStorage;
use crate::sync::marker::redo::{FinalState, Redo};
use crate::sync::marker::set_lift::{read_regions, sentinel_len};

/// What a target and its redo log together say.
pub(in crate::sync) enum FoundState {
    /// No redo log, no marker.
    Clean,
    /// The target is as it was; what was logged is kept for the next run.
    Old,
    /// The target is as it should become; the redo log has done its work.
    New,
    /// Marked, with the complete redo log that finishes it.
    Redo(Marker, Box<(Delta, Redo)>),
    /// Marked by an in-place sync, which has to run again.
    Rerun(Marker),
    /// Held and whole, with what lies under the marker.
    Held(Marker, Box<Redo>),
    /// Marked, but what would finish it is not there.
    Lost(Marker),
    /// Marked, and shorter than the log that is there allows.
    Cut(Cut),
    /// Not marked, and neither as it was nor as it should become, or another file: what would
    /// finish the job is needed where its marked target is now.
    Foreign(JobId),
    /// The marker was given up ([`forget`](crate::sync::forget)); its log has done its work.
    Forgotten,
    /// Not marked, with a first page that a crash tore: what it should hold. Only where nothing may
    /// be changed; it is mended otherwise.
    Torn(Vec<u8>),
}

/// What may be changed where a target is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sync) enum Touch {
    Nothing,
    /// A torn first page, and logs that have done their work.
    Mend,
}

/// An unmarked target beside a complete log or sidecar, with what its first page should hold where
/// that is to be written.
enum Beside {
    Old(Option<Vec<u8>>),
    New(Vec<u8>),
    Foreign,
}

/// Finds out where the target stands. A first page that a crash tore while the marker was set or
/// lifted, and nothing else, is mended here. That happens once: what was beside an unmarked target
/// is stashed or removed, durably, or it would undo what a guest writes to that page later. With
/// [`Touch::Nothing`] all stays as it is.
///
/// # Errors
/// `Untrusted` for a log, sidecar or the like that this program may not have made, `Incomplete`
/// where that is the log of a marked target; `Io`,
/// `Malformed` (a redo log of a marked target that is damaged), `Cancelled`.
pub(in crate::sync) fn find(
    target: &Target,
    storage: &Arc<dyn Storage>,
    touch: Touch,
    work: &Work,
) -> Result<FoundState> {
    let marker = Marker::find(&**storage)?;
    let limits = &target.image_options().limits;
    for file_ref in [
        previous_log(target.redo_log()),
        fresh_log(target.redo_log()),
    ] {
        // What is not ours is neither read nor removed.
        file_ref.open_own_if_there(Access::Read)?;
    }
    let opened = target.redo_log().open_own_if_there(Access::Read);
    let opened = opened.map_err(|error| match marker {
        Some(_) => untrusted(error),
        None => error,
    });
    let Some(file) = opened? else {
        return Ok(marker.map_or(FoundState::Clean, FoundState::Lost));
    };
    match sidecar::read(target.redo_log(), limits, work) {
        Ok(Some((header, redo))) => {
            return match marker {
                Some(marker) if marker.job == header.job => {
                    if let Some(cut) = Cut::find(&**storage, &marker, &header, &redo)? {
                        return Ok(FoundState::Cut(cut));
                    }
                    match redo.final_state {
                        Some(_) if marker.held => Ok(FoundState::Held(marker, Box::new(redo))),
                        _ => Ok(FoundState::Rerun(marker)),
                    }
                }
                Some(marker) => Ok(FoundState::Lost(marker)),
                None => {
                    let beside = beside_sidecar(storage, &redo)?;
                    let state = mend_first_page(storage, beside, header.job, touch)?;
                    if touch == Touch::Mend && matches!(state, FoundState::Old | FoundState::New) {
                        retire(target.redo_log())?;
                    }
                    Ok(state)
                }
            };
        }
        Ok(None) => {}
        // A file that was never finished binds nothing.
        Err(error) if error.kind() == ErrorKind::Malformed => {}
        Err(error) => return Err(error),
    }
    let redo_log = match Delta::from_storage(file, limits) {
        Ok(redo_log) if redo_log.header().purpose == Purpose::RedoLog => redo_log,
        Err(error) if error.kind() != ErrorKind::Malformed => return Err(error),
        _ => return Ok(marker.map_or(FoundState::Old, FoundState::Lost)),
    };
    match marker {
        Some(marker) if marker.job == redo_log.header().job => {
            let redo = Redo::load(&redo_log, work, &|_| Ok(()))?;
            redo.check_regions(&marker)?;
            if let Some(cut) = Cut::find(&**storage, &marker, redo_log.header(), &redo)? {
                return Ok(FoundState::Cut(cut));
            }
            Ok(FoundState::Redo(marker, Box::new((redo_log, redo))))
        }
        Some(marker) => Ok(FoundState::Lost(marker)),
        None => {
            let beside = beside_redo_log(target, storage, &redo_log, work)?;
            let state = match mend_first_page(storage, beside, redo_log.header().job, touch)? {
                FoundState::New if is_of_forget(&redo_log) => FoundState::Forgotten,
                state => state,
            };
            match state {
                FoundState::Old if touch == Touch::Mend => {
                    stash(target.redo_log())?;
                    target.redo_log().directory().sync()?;
                }
                FoundState::New | FoundState::Forgotten if touch == Touch::Mend => {
                    retire(target.redo_log())?;
                }
                _ => {}
            }
            Ok(state)
        }
    }
}

/// The job of a complete log or sidecar at the target's place for them.
///
/// # Errors
/// As [`find`].
pub(in crate::sync) fn complete_log(target: &Target, work: &Work) -> Result<Option<JobId>> {
    let limits = &target.image_options().limits;
    let Some(file) = target.redo_log().open_own_if_there(Access::Read)? else {
        return Ok(None);
    };
    let is_malformed = |error: &Error| error.kind() == ErrorKind::Malformed;
    match sidecar::read(target.redo_log(), limits, work) {
        Ok(Some((header, _))) => return Ok(Some(header.job)),
        Err(error) if !is_malformed(&error) => return Err(error),
        _ => {}
    }
    match Delta::from_storage(file, limits) {
        Ok(log) if log.header().purpose == Purpose::RedoLog => Ok(Some(log.header().job)),
        Err(error) if !is_malformed(&error) => Err(error),
        _ => Ok(None),
    }
}

/// Whether a log only lifts the marker, after another one was lost: no other log has nothing to do.
pub(in crate::sync) fn is_of_forget(log: &Delta) -> bool {
    let (header, trailer) = (log.header(), log.trailer());
    header.purpose == Purpose::RedoLog
        && header.base_len == header.result_len
        && trailer.data_bytes == 0
        && trailer.zero_bytes == 0
}

/// Mends the first page, where that may be.
fn mend_first_page(
    storage: &Arc<dyn Storage>,
    beside: Beside,
    job: JobId,
    touch: Touch,
) -> Result<FoundState> {
    let (state, page) = match beside {
        Beside::Foreign => return Ok(FoundState::Foreign(job)),
        Beside::Old(page) => (FoundState::Old, page),
        Beside::New(page) => (FoundState::New, Some(page)),
    };
    if let Some(page) = page {
        if touch == Touch::Nothing {
            let mut found = vec![0; page.len()];
            storage.read_exact_at(&mut found, 0)?;
            if found != page {
                return Ok(FoundState::Torn(page));
            }
        } else {
            mend_page(storage, &page)?;
        }
    }
    Ok(state)
}

/// An unmarked target beside a sidecar. One that may be for another file is foreign, whatever this
/// one holds.
fn beside_sidecar(storage: &Arc<dyn Storage>, redo: &Redo) -> Result<Beside> {
    let job = redo.job()?;
    if !job.is_for(&**storage)? {
        return Ok(Beside::Foreign);
    }
    let now = read_regions(&**storage, job.target_len)?;
    let page_len = sentinel_len(storage.len()?);
    let state = FinalState::of(&now, page_len);
    let old = FinalState::of(&redo.saved, page_len);
    // The last page written is the first one torn: everything else under the marker is in place.
    if let Some(last) = redo
        .final_state
        .as_ref()
        .filter(|last| last.rest == state.rest)
    {
        return Ok(Beside::New(last.page.clone()));
    }
    if old.rest == state.rest && redo.final_state.is_none() {
        let is_torn = state.page != old.page;
        return Ok(Beside::Old(is_torn.then_some(old.page)));
    }
    Ok(Beside::Foreign)
}

/// An unmarked target beside a complete redo log. One that may be for another file is foreign,
/// whatever this one holds.
fn beside_redo_log(
    target: &Target,
    storage: &Arc<dyn Storage>,
    redo_log: &Delta,
    work: &Work,
) -> Result<Beside> {
    let redo = match Redo::load(redo_log, work, &|_| Ok(())) {
        Ok(redo) => redo,
        // It finishes nothing here; whether its marked disk is elsewhere, its job says.
        Err(error) if error.kind() == ErrorKind::Malformed => {
            let is_for = match read_job(target.redo_log(), &target.image_options().limits)? {
                Some((.., job)) => job.is_for(&**storage)?,
                None => false,
            };
            return Ok(match is_for {
                true => Beside::Old(None),
                false => Beside::Foreign,
            });
        }
        Err(error) => return Err(error),
    };
    let job = redo.job()?;
    if !job.is_for(&**storage)? {
        return Ok(Beside::Foreign);
    }
    let len = storage.len()?;
    let page_len = sentinel_len(len);
    let now = read_regions(&**storage, job.target_len)?;
    let state = FinalState::of(&now, page_len);
    let old = FinalState::of(&redo.saved, page_len);
    if is_of_forget(redo_log) {
        // Only the last write of its work can have lost the marker.
        let is_done = len == job.target_len && old.rest == state.rest;
        return Ok(match is_done {
            true => Beside::New(old.page),
            false => Beside::Foreign,
        });
    }
    if len == job.target_len && old.rest == state.rest {
        let is_old = with_page(target, storage, job.format, &old.page, &|image| {
            holds(image, redo_log, work, &|frame, bytes| {
                let old = &frame.header().old;
                *old == Old::Unknown || fits_old(old, bytes)
            })
        })?;
        if is_old {
            let is_torn = state.page != old.page;
            return Ok(Beside::Old(is_torn.then_some(old.page)));
        }
    }
    let page = final_page(target, storage, redo_log, &redo, &old.page, work)?;
    let is_new = len == redo.storage_len.unwrap_or(job.target_len)
        && with_page(target, storage, job.format, &page, &|image| {
            holds(image, redo_log, work, &|frame, bytes| {
                fits_new(frame.header().kind, &frame.header().new_hash, bytes)
            })
        })?;
    Ok(match is_new {
        true => Beside::New(page),
        false => Beside::Foreign,
    })
}

/// What the first page holds once the redo log is applied.
fn final_page(
    target: &Target,
    storage: &Arc<dyn Storage>,
    redo_log: &Delta,
    redo: &Redo,
    old_page: &[u8],
    work: &Work,
) -> Result<Vec<u8>> {
    let page = Mutex::new(old_page.to_vec());
    redo.tables(&mut |offset, bytes| {
        put_on_page(&page, offset, bytes);
        Ok(())
    })?;
    for (offset, bytes) in &redo.last {
        put_on_page(&page, *offset, bytes);
    }
    // Only where guest and storage offsets coincide can guest data lie on the first page.
    let identity = with_page(target, storage, redo.job()?.format, old_page, &|image| {
        Ok(begins_with_guest_data(&image.info()))
    })?;
    if identity {
        redo_log.for_each(work, &|frame| {
            let end = frame.range().end.min(old_page.len() as u64);
            let len = usize::try_from(end.saturating_sub(frame.offset())).unwrap_or(0);
            match frame.header().kind {
                FrameKind::Data => put_on_page(&page, frame.offset(), frame.bytes()),
                FrameKind::Zero => put_on_page(&page, frame.offset(), &vec![0; len]),
                _ => {}
            }
            Ok(())
        })?;
    }
    Ok(page.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Puts those of `bytes` that lie on the page there.
fn put_on_page(page: &Mutex<Vec<u8>>, offset: u64, bytes: &[u8]) {
    let mut page = page.lock().unwrap_or_else(PoisonError::into_inner);
    let start = usize::try_from(offset)
        .unwrap_or(usize::MAX)
        .min(page.len());
    let len = bytes.len().min(page.len() - start);
    page[start..start + len].copy_from_slice(&bytes[..len]);
}

/// Opens the image as if its first page held `page`, and asks; an image that does not open
/// answers no.
fn with_page(
    target: &Target,
    storage: &Arc<dyn Storage>,
    format: Format,
    page: &[u8],
    ask: &dyn Fn(&dyn Image) -> Result<bool>,
) -> Result<bool> {
    let shown: Arc<dyn Storage> = Arc::new(OverlayStorage::new(
        storage.clone(),
        vec![(0, page.to_vec())],
    ));
    match image::open_storage(shown, format, target.image_options()) {
        Ok(image) => ask(&*image),
        Err(error) if error.kind() == ErrorKind::Malformed => Ok(false),
        Err(error) => Err(error),
    }
}

/// Writes the first page, even where it shows the wanted bytes: after a failed sync the cache may
/// show what the medium does not hold.
fn mend_page(storage: &Arc<dyn Storage>, wanted: &[u8]) -> Result<()> {
    storage.write_all_at(wanted, 0)?;
    storage.sync()
}
