//! Where a target stands when an earlier sync onto it did not finish.

use std::sync::{Arc, Mutex, PoisonError};

use super::apply::holds;
use super::atomic::{retire, set_aside};
use super::mark::Mark;
use super::marked::{read_covered, witness_len};
use super::masked::Masked;
use super::redo::{FinalState, Redo};
use super::sidecar;
use super::target::Target;
use crate::control::Work;
use crate::delta::{Delta, FrameKind, Old, Purpose, fits_new, fits_old};
use crate::error::{ErrorKind, Result};
use crate::image::{self, Format, Image};
use crate::storage::{Access, Storage};

/// What a target and its stage together say.
pub(super) enum Standing {
    /// No stage, no mark.
    Clean,
    /// The target is as it was; what was staged is kept for the next run.
    Old,
    /// The target is as it should become; the stage has done its work.
    New,
    /// Marked, with the complete stage that finishes it.
    Redo(Mark, Box<(Delta, Redo)>),
    /// Marked by an in-place sync, which has to run again.
    Rerun(Mark),
    /// Held and whole, with what lies under the mark.
    Held(Mark, Box<Redo>),
    /// Marked, but what would finish it is not there.
    Lost(Mark),
    /// Not marked, and neither as it was nor as it should become: somebody wrote to it since.
    Foreign,
}

/// Finds out where the target stands. A first page that a crash tore while the mark was set or
/// lifted, and nothing else, is mended here. That happens once: what was beside an unmarked target
/// is set aside or removed, durably, or it would undo what a guest writes to that page later.
///
/// # Errors
/// `Io`, `Malformed` (a stage of a marked target that is damaged), `Cancelled`.
pub(super) fn find(target: &Target, storage: &Arc<dyn Storage>, work: &Work) -> Result<Standing> {
    let mark = Mark::find(&**storage)?;
    let limits = &target.image_options().limits;
    let Some(file) = target.stage().open_if_there(Access::Read)? else {
        return Ok(mark.map_or(Standing::Clean, Standing::Lost));
    };
    match sidecar::read(target.stage(), limits, work) {
        Ok(Some((header, redo))) => {
            return match mark {
                Some(mark) if mark.job == header.job => match redo.final_state {
                    Some(_) if mark.held => Ok(Standing::Held(mark, Box::new(redo))),
                    _ => Ok(Standing::Rerun(mark)),
                },
                Some(mark) => Ok(Standing::Lost(mark)),
                None => {
                    let standing = beside_sidecar(storage, &redo)?;
                    if !matches!(standing, Standing::Foreign) {
                        retire(target.stage())?;
                    }
                    Ok(standing)
                }
            };
        }
        Ok(None) => {}
        // A file that was never finished binds nothing.
        Err(error) if error.kind() == ErrorKind::Malformed => {}
        Err(error) => return Err(error),
    }
    let stage = match Delta::open(file, limits) {
        Ok(stage) if stage.header().purpose == Purpose::Stage => stage,
        Err(error) if error.kind() != ErrorKind::Malformed => return Err(error),
        _ => return Ok(mark.map_or(Standing::Old, Standing::Lost)),
    };
    match mark {
        Some(mark) if mark.job == stage.header().job => {
            let redo = Redo::load(&stage, work, &|_| Ok(()))?;
            redo.check_covers(&mark)?;
            Ok(Standing::Redo(mark, Box::new((stage, redo))))
        }
        Some(mark) => Ok(Standing::Lost(mark)),
        None => {
            let standing = beside_stage(target, storage, &stage, work)?;
            match standing {
                Standing::Old => {
                    set_aside(target.stage())?;
                    target.stage().folder().sync()?;
                }
                Standing::New => retire(target.stage())?,
                _ => {}
            }
            Ok(standing)
        }
    }
}

/// An unmarked target beside a sidecar.
fn beside_sidecar(storage: &Arc<dyn Storage>, redo: &Redo) -> Result<Standing> {
    let now = read_covered(&**storage, redo.job()?.target_len)?;
    let page_len = witness_len(storage.len()?);
    let state = FinalState::of(&now, page_len);
    let old = FinalState::of(&redo.saved, page_len);
    // The last page written is the first one torn: everything else under the mark is in place.
    if let Some(last) = redo
        .final_state
        .as_ref()
        .filter(|last| last.rest == state.rest)
    {
        mend_page(storage, &last.page)?;
        return Ok(Standing::New);
    }
    if old.rest == state.rest && redo.final_state.is_none() {
        if state.page != old.page {
            mend_page(storage, &old.page)?;
        }
        return Ok(Standing::Old);
    }
    Ok(Standing::Foreign)
}

/// An unmarked target beside a complete stage.
fn beside_stage(
    target: &Target,
    storage: &Arc<dyn Storage>,
    stage: &Delta,
    work: &Work,
) -> Result<Standing> {
    let redo = match Redo::load(stage, work, &|_| Ok(())) {
        Ok(redo) => redo,
        Err(error) if error.kind() == ErrorKind::Malformed => return Ok(Standing::Old),
        Err(error) => return Err(error),
    };
    let job = redo.job()?;
    let len = storage.len()?;
    let page_len = witness_len(len);
    let now = read_covered(&**storage, job.target_len)?;
    let state = FinalState::of(&now, page_len);
    let old = FinalState::of(&redo.saved, page_len);
    if len == job.target_len && old.rest == state.rest {
        let is_old = with_page(target, storage, job.format, &old.page, &|image| {
            holds(image, stage, work, &|frame, bytes| {
                let old = &frame.header().old;
                *old == Old::Unknown || fits_old(old, bytes)
            })
        })?;
        if is_old {
            if state.page != old.page {
                mend_page(storage, &old.page)?;
            }
            return Ok(Standing::Old);
        }
    }
    let page = final_page(target, storage, stage, &redo, &old.page, work)?;
    let is_new = len == redo.storage_len.unwrap_or(job.target_len)
        && with_page(target, storage, job.format, &page, &|image| {
            holds(image, stage, work, &|frame, bytes| {
                fits_new(frame.header().kind, &frame.header().new_hash, bytes)
            })
        })?;
    if is_new {
        mend_page(storage, &page)?;
        return Ok(Standing::New);
    }
    Ok(Standing::Foreign)
}

/// What the first page holds once the stage is applied.
fn final_page(
    target: &Target,
    storage: &Arc<dyn Storage>,
    stage: &Delta,
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
        let info = image.info();
        Ok(info.format == Format::Raw || (info.format == Format::Vhd && info.subformat == "fixed"))
    })?;
    if identity {
        stage.for_each(work, &|frame| {
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
    let shown: Arc<dyn Storage> = Arc::new(Masked::new(storage.clone(), vec![(0, page.to_vec())]));
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
