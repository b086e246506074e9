//! The in-place delta sync: nothing is logged, the target carries the marker until it is done.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::hold;
use crate::delta::{Header, JobId};
use crate::diff::{Content, Difference};
use crate::error::{Error, ErrorKind, Result};
use crate::image::{self, Change, Format, ImageMut, Layout, Patch};
use crate::manifest::Gathered;
use crate::storage::Storage;
use crate::sync::advice::needs_rerun;
use crate::sync::endpoint::precheck;
use crate::sync::endpoint::source::SyncContext;
use crate::sync::job::Job;
use crate::sync::log::previous::{remove_previous, retire};
use crate::sync::log::sidecar::{self, Sidecar};
use crate::sync::marker::format::Marker;
use crate::sync::marker::in_data;
use crate::sync::marker::overlay::OverlayStorage;
use crate::sync::marker::redo::{FinalState, Redo};
use crate::sync::marker::room::Room;
use crate::sync::marker::set_lift::{
    Guard, begin_mend, lift_marker, open_overlay, read_regions, repair_marker, sentinel_len,
    set_marker,
};
use crate::sync::options::{Mode, Safety, Verify};
use crate::sync::recovery::recover::lost;
use crate::sync::report::{Outcome, SyncReport, Verified};
use crate::sync::scan::differences;
use crate::sync::scan::target_manifest::Keeper;
use crate::sync::verify::{verify_all, verify_ranges};
use crate::units::{Extent, ExtentKind};

/// Writes what differs straight to the target; goes on where an earlier run left off.
///
/// # Errors
/// Those of [`sync`](crate::sync::sync).
pub(in crate::sync) fn sync_marked(
    context: &SyncContext<'_>,
    storage: &Arc<dyn Storage>,
    mode: Mode,
) -> Result<SyncReport> {
    let mut report = SyncReport::new(mode, Safety::InPlace, context.source.disk_len());
    let keeper = Keeper::open(context, &**storage, JobId::random()?)?;
    if let Some(keeper) = &keeper {
        // What will change is not known before it does.
        keeper.record_intent(std::iter::once(0..u64::MAX))?;
    }
    let writing = Writing::begin(context, storage)?;
    report.resumed_bytes = context.source.recall(writing.image.clone(), context.work)?;
    report.untouched_tail_bytes = writing.disk_len.saturating_sub(context.source.disk_len());
    let base_len = writing.image.disk_len();
    let on_difference: &differences::OnDifference<'_> = &|difference, _| writing.write(difference);
    let compared = match (mode, &keeper) {
        (Mode::Full, _) => {
            differences::everything(context, on_difference).map(|(counted, root)| {
                report.root = root;
                counted
            })
        }
        (_, Some(keeper)) => {
            differences::against_kept(context, &*writing.image, keeper, on_difference).map(
                |(counted, root)| {
                    report.root = Some(root);
                    counted
                },
            )
        }
        (_, None) => differences::differences(
            context,
            &*writing.image,
            writing.old_len,
            None,
            on_difference,
        ),
    };
    let compared = compared.map_err(|error| context.or_change(error));
    let ended = compared.and_then(|compared| {
        report.count(compared);
        context.check_source()?;
        writing.finish(&mut report)?;
        match &keeper {
            Some(keeper) => {
                keeper.note_source(context)?;
                keeper.replace(&**storage, context.limits())
            }
            None => Ok(()),
        }
    });
    ended.map_err(|error| match Marker::find(&**storage) {
        Ok(Some(_)) if writing.begun.load(Ordering::Acquire) => needs_rerun(error),
        Ok(Some(_)) if writing.found.is_some() => still_held(error),
        // Its sidecar tells whether it is whole.
        Ok(Some(_)) if context.options.hold => error,
        Ok(Some(_)) => needs_rerun(error),
        _ => error,
    })?;
    report.trusts_manifest =
        mode != Mode::Full && keeper.is_some_and(|keeper| keeper.trusted(base_len).is_some());
    Ok(report)
}

/// Says what an error means for a held target that did not change.
fn still_held(error: Error) -> Error {
    let way = match error.kind() {
        ErrorKind::NoSpace => {
            "the target is as it was, and held; make room where it and its sidecar are stored, \
             and run the same sync again"
        }
        _ => "the target is as it was, and held; run the same sync again",
    };
    error.advise(way)
}

/// A target being written in place.
struct Writing<'a> {
    context: &'a SyncContext<'a>,
    storage: &'a Arc<dyn Storage>,
    overlay: Arc<OverlayStorage>,
    image: Arc<dyn ImageMut>,
    header: Header,
    job: Job,
    /// The marker that the target carried already.
    found: Option<Marker>,
    disk_len: u64,
    /// The length of the target's disk before the sync.
    old_len: u64,
    /// Guest and storage bytes coincide and no tables exist.
    raw: bool,
    begun: AtomicBool,
    written_bytes: AtomicU64,
    sidecar: Mutex<Option<Sidecar>>,
    waiting: Mutex<Waiting>,
    written: Mutex<Gathered>,
}

/// Changes of an image with tables, gathered so that the tables change, and are made durable, once
/// for much of it.
#[derive(Default)]
struct Waiting {
    extents: Vec<Extent>,
    /// The bytes of the data extents, in their order.
    bytes: Vec<u8>,
}

impl Waiting {
    fn is_enough(&self, bytes: usize) -> bool {
        self.bytes.len() >= bytes || self.extents.len() >= WAITING_MOST
    }
}

impl<'a> Writing<'a> {
    fn begin(context: &'a SyncContext<'a>, storage: &'a Arc<dyn Storage>) -> Result<Self> {
        let file_ref = context.target.redo_log();
        let marker = Marker::find(&**storage)?;
        let previous = match &marker {
            Some(marker) => Some(
                sidecar::read(file_ref, context.limits(), context.work)?
                    .filter(|(header, _)| header.job == marker.job)
                    .ok_or_else(|| lost(marker))?,
            ),
            None => None,
        };
        let (mut header, job, mut redo) = match previous {
            Some((header, redo)) => (header, redo.job()?.clone(), redo),
            None => {
                if context.options.hold {
                    hold::refuse_short(&**storage)?;
                }
                let redo = Redo {
                    saved: read_regions(&**storage, storage.len()?)?,
                    ..Redo::default()
                };
                let header = hold::new_header(context.options.block_size, storage.len()?)?;
                let job = Job::of(context.target, &**storage, None)?;
                (header, job, redo)
            }
        };
        // What a closed sidecar says of a target is not true of one that is about to change.
        let is_closed = redo.final_state.take().is_some();
        if is_closed {
            header.base_len = storage.len()?;
        }
        // One that is whole is opened, and its marker mended, by the first change.
        let broken = marker.as_ref().filter(|marker| !(marker.held && is_closed));
        let guard = match broken {
            Some(marker) => {
                begin_mend(&**storage, marker)?;
                Guard::Written
            }
            None => Guard::Durable,
        };
        let overlay = open_overlay(storage, &redo, guard)?;
        let options = context.target.image_options();
        let image = image::open_storage_mut(overlay.clone(), context.target.format(), options)?;
        let disk_len = context.target_len(Some(image.disk_len()))?;
        // An earlier run may have made the target longer already.
        let old_len = match (&marker, context.target.format()) {
            (Some(_), Format::Raw) => job.target_len.min(image.disk_len()),
            _ => image.disk_len(),
        };
        let is_flat = match context.target.format() {
            Format::Raw => true,
            // Its footer moves with its length alone.
            Format::Vhd => image.info().layout == Layout::Fixed && image.disk_len() == disk_len,
            _ => false,
        };
        let sidecar = match broken {
            Some(_) => Some(Sidecar::create(file_ref, header, &job, &redo)?),
            None => None,
        };
        let writing = Writing {
            context,
            storage,
            overlay,
            image,
            header,
            job,
            found: marker,
            disk_len,
            old_len,
            raw: is_flat,
            begun: AtomicBool::new(sidecar.is_some()),
            written_bytes: AtomicU64::new(0),
            sidecar: Mutex::new(sidecar),
            waiting: Mutex::default(),
            // What is read back takes as much again.
            written: Mutex::new(Gathered::new(context.limits().ranges_bytes() / 2)),
        };
        if writing.image.disk_len() != disk_len {
            writing.prepare(&[])?;
        }
        Ok(writing)
    }

    fn write(&self, difference: &Difference<'_>) -> Result<()> {
        let extent = match difference.new {
            Content::Bytes(_) => Extent::data(difference.range()),
            Content::Zeros(_) => Extent::zero(difference.range()),
        };
        let bytes = difference.new.bytes().unwrap_or(&[]);
        let begun = self.begun.load(Ordering::Acquire);
        if self.raw && begun {
            return self.write_prepared(extent, bytes);
        }
        let batch = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.extents.push(extent);
            waiting.bytes.extend_from_slice(bytes);
            // The first change sets the marker, and does not wait for others.
            // What waits is fetched again by a run after a crash.
            let most = match self.context.source.recalled {
                Some(_) => WAITING_BYTES / 8,
                None => WAITING_BYTES,
            };
            if begun && !waiting.is_enough(most) {
                return Ok(());
            }
            std::mem::take(&mut *waiting)
        };
        self.write_batch(&batch)
    }

    fn write_batch(&self, batch: &Waiting) -> Result<()> {
        let mut sorted = batch.extents.clone();
        sorted.sort_unstable_by_key(|extent| extent.offset);
        self.prepare(&sorted)?;
        let mut rest = &batch.bytes[..];
        for extent in &batch.extents {
            let len = match extent.kind {
                // As many were put there.
                ExtentKind::Data => usize::try_from(extent.len).unwrap_or(usize::MAX),
                ExtentKind::Zero => 0,
            };
            let (bytes, after) = rest.split_at(len.min(rest.len()));
            self.write_prepared(*extent, bytes)?;
            rest = after;
        }
        Ok(())
    }

    /// Writes what the target's tables are ready for.
    fn write_prepared(&self, extent: Extent, bytes: &[u8]) -> Result<()> {
        let range = extent.offset..extent.end();
        match extent.kind {
            ExtentKind::Zero => self.image.write_zeroes_at(range.clone())?,
            ExtentKind::Data => {
                self.image.write_all_at(bytes, range.start)?;
                if range.start < sentinel_len(self.disk_len) as u64 {
                    in_data::refuse_on(&*self.overlay)?;
                }
                self.written_bytes.fetch_add(extent.len, Ordering::Relaxed);
            }
        }
        self.note_written(range);
        Ok(())
    }

    /// Marks the target if it is not yet, and has its tables hold what `extents` will need.
    fn prepare(&self, extents: &[Extent]) -> Result<()> {
        let mut sidecar = self.lock();
        let redo = Redo {
            saved: match &*sidecar {
                Some(_) => Vec::new(),
                None => self.overlay.all(),
            },
            ..Redo::default()
        };
        let patches = self.image.prepare(&Change {
            disk_len: self.disk_len,
            extents,
        })?;
        let sidecar = match &mut *sidecar {
            Some(sidecar) => sidecar,
            none => {
                let file_ref = self.context.target.redo_log();
                if self.found.is_none() {
                    precheck::log_directory(file_ref)?;
                }
                let room = self.room_for(&patches)?;
                let created = Sidecar::create(file_ref, self.header, &self.job, &redo)
                    .map_err(sidecar::no_room)?;
                match &self.found {
                    Some(marker) => {
                        repair_marker(&**self.storage, marker)?;
                        room.keep();
                    }
                    None => set_marker(room, &self.marker())?,
                }
                self.begun.store(true, Ordering::Release);
                none.insert(created)
            }
        };
        if patches.is_empty() {
            Ok(())
        } else {
            sidecar.apply(&patches, &self.overlay)
        }
    }

    /// Takes room for the marker and for what the first changes need. What the later ones will
    /// need is not known before they are found.
    fn room_for(&self, patches: &[Patch]) -> Result<Room<'a>> {
        let room = Room::for_marker(&**self.storage)?;
        for patch in patches {
            match patch {
                Patch::SetLen(len) => room.add_len(*len)?,
                Patch::Write { offset, bytes, .. } => {
                    room.add(*offset..offset + bytes.len() as u64)?;
                }
                Patch::Zero(_) => {}
            }
        }
        Ok(room)
    }

    fn note_written(&self, range: Range<u64>) {
        if self.context.options.verify.reads_back() {
            let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
            written.insert(range);
        }
    }

    /// Makes everything durable, verifies it, lifts the marker, removes the sidecar; or leaves the
    /// target held.
    fn finish(&self, report: &mut SyncReport) -> Result<()> {
        let waiting =
            std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        if !waiting.extents.is_empty() {
            self.write_batch(&waiting)?;
        }
        let redo_log = self.context.target.redo_log();
        let removed = remove_previous(redo_log)?;
        let Some(sidecar) = self.lock().take() else {
            if removed {
                redo_log.directory().sync()?;
            }
            return self.hold_unchanged();
        };
        self.image.sync()?;
        if self.context.options.verify == Verify::All {
            // Opened anew: tables come from the medium too.
            let (format, options) = (self.job.format, self.context.target.image_options());
            let image = image::open_storage(self.overlay.clone(), format, options)?;
            verify_all(self.context, &*image)?;
            report.verified = Verified::All;
        } else if self.context.options.verify == Verify::Sent {
            report.verified = Verified::Sent;
        } else if self.context.options.verify.reads_back() {
            let none = Gathered::new(0);
            let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
            let written = std::mem::replace(&mut *written, none).into_set().into_vec();
            verify_ranges(self.context, &*self.image, written, self.old_len)?;
            report.verified = Verified::Written;
        }
        if self.context.options.hold {
            hold::close(redo_log, self.header, &self.job, &self.overlay)?;
        } else {
            let regions = read_regions(&*self.overlay, self.job.target_len)?;
            sidecar.close(&FinalState::of(&regions, sentinel_len(self.storage.len()?)))?;
            lift_marker(&**self.storage, &self.overlay)?;
            retire(redo_log)?;
        }
        report.written_bytes = self.written_bytes.load(Ordering::Relaxed);
        report.outcome = Outcome::Synced;
        Ok(())
    }

    /// Leaves a target held, where it is to be, that held everything already.
    fn hold_unchanged(&self) -> Result<()> {
        match &self.found {
            _ if !self.context.options.hold => Ok(()),
            Some(marker) => repair_marker(&**self.storage, marker),
            None => {
                let redo_log = self.context.target.redo_log();
                precheck::log_directory(redo_log)?;
                let room = Room::for_marker(&**self.storage)?;
                hold::close(redo_log, self.header, &self.job, &self.overlay)
                    .map_err(sidecar::no_room)?;
                set_marker(room, &self.marker())
            }
        }
    }

    fn marker(&self) -> Marker {
        Marker {
            job: self.header.job,
            safety: Safety::InPlace,
            target_len: self.job.target_len,
            held: self.context.options.hold,
            redo_log: self.context.target.redo_log().path(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Sidecar>> {
        self.sidecar.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Much more than a block of a VHD, so that a sync of the sidecar serves several.
const WAITING_BYTES: usize = 16 << 20;
const WAITING_MOST: usize = 16 << 10;
