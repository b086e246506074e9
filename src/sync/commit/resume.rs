//! Taking over what an earlier, unfinished run logged.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use crate::delta::{
    Frame, FrameHeader, FrameKind, Old, Ranges, VerifiedFrame, fits_old, for_each_intact,
};
use crate::error::{ErrorKind, Result};
use crate::hash::Hash;
use crate::image::Image;
use crate::storage::{Access, FileRef};
use crate::sync::endpoint::source::SyncContext;
use crate::sync::log::redo_log::LogWriter;
use crate::sync::source::backend::Claim;
use crate::units::Extent;

/// Takes over those frames of the previous redo log that still say how to get from target to
/// source; returns their bytes, and the ranges that are left to compare.
///
/// Of more scattered frames than memory may account for, the first ones are taken over; what the
/// others cover is compared again.
///
/// # Errors
/// Those of the source and the target, of the other host, and of [`LogWriter::push`].
pub(in crate::sync) fn take_over(
    context: &SyncContext<'_>,
    old: &dyn Image,
    log_writer: &LogWriter<'_>,
    previous: &FileRef,
) -> Result<(u64, Vec<Range<u64>>)> {
    let storage = previous.open_own(Access::Read)?;
    // What is left to compare takes as much again.
    let ranges = Ranges::new(context.limits().ranges_bytes() / 2);
    let resume = Mutex::new(Resume {
        context,
        old,
        log_writer,
        taken: ranges,
        taken_bytes: 0,
        asked: Vec::new(),
        asked_bytes: 0,
    });
    let lock = || resume.lock().unwrap_or_else(PoisonError::into_inner);
    let walked = for_each_intact(&storage, context.limits(), context.work, &|frame| {
        lock().ask(frame)
    });
    match walked {
        // A redo log whose very header is damaged is no cache; everything is compared.
        Err(error) if error.kind() == ErrorKind::Malformed => {}
        other => drop(other?),
    }
    let mut resume = resume.into_inner().unwrap_or_else(PoisonError::into_inner);
    resume.hear()?;
    let disk_len = context.source.disk_len();
    Ok((resume.taken_bytes, resume.taken.gaps(0..disk_len)))
}

/// A walk along the previous redo log.
struct Resume<'a> {
    context: &'a SyncContext<'a>,
    old: &'a dyn Image,
    log_writer: &'a LogWriter<'a>,
    taken: Ranges,
    taken_bytes: u64,
    /// Frames of which the source has to confirm that they are still true.
    asked: Vec<(FrameHeader, Frame<'static>)>,
    asked_bytes: u64,
}

impl Resume<'_> {
    /// Puts a frame to those that the source is asked about, and asks when there are enough.
    fn ask(&mut self, frame: &VerifiedFrame<'_>) -> Result<()> {
        let header = frame.header();
        if !self.may_serve(header) {
            return Ok(());
        }
        if let Some(frame) = Frame::again(frame) {
            self.asked.push((*header, frame.into_owned()));
            self.asked_bytes += header.len;
        }
        if self.asked.len() < ASKED_MOST && self.asked_bytes < ASKED_BYTES {
            return Ok(());
        }
        self.hear()
    }

    /// Takes over what the source says is still true.
    fn hear(&mut self) -> Result<()> {
        let mut asked = std::mem::take(&mut self.asked);
        self.asked_bytes = 0;
        if asked.is_empty() {
            return Ok(());
        }
        asked.sort_by_key(|(header, _)| header.offset);
        let claims: Vec<Claim> = asked.iter().map(|(header, _)| claim(header)).collect();
        let disk_len = self.context.source.disk_len();
        let answers = self
            .context
            .source
            .backend
            .confirm(disk_len, &claims, self.context.work)?;
        for ((header, frame), _) in asked.iter().zip(answers).filter(|(_, is_true)| *is_true) {
            self.take(header, frame)?;
        }
        Ok(())
    }

    /// Logs a frame that is true of the source, where it is true of the target too and nothing else
    /// covers its range.
    fn take(&mut self, header: &FrameHeader, frame: &Frame<'_>) -> Result<()> {
        let mut now = vec![0; usize::try_from(header.len).unwrap_or(usize::MAX)];
        self.old.read_exact_at(&mut now, header.offset)?;
        let range = header.offset..header.offset.saturating_add(header.len);
        if !fits_old(&header.old, &now) || !self.taken.claim(range.clone()) {
            return Ok(());
        }
        self.taken_bytes += header.len;
        let extent = match header.kind {
            FrameKind::Data => Extent::data(range),
            _ => Extent::zero(range),
        };
        self.log_writer.push(extent, frame)
    }

    /// Whether a frame is worth a look.
    fn may_serve(&self, header: &FrameHeader) -> bool {
        let disk_len = self.context.source.disk_len().min(self.old.disk_len());
        let guest = matches!(header.kind, FrameKind::Data | FrameKind::Zero);
        // Zeros over bytes that were not hashed may be as long as the disk, and save nothing.
        let bound = header.kind == FrameKind::Data || matches!(header.old, Old::Hash(_));
        let end = header.offset.saturating_add(header.len);
        guest && bound && end <= disk_len && header.len > 0
    }
}

/// What a frame says of the source.
fn claim(header: &FrameHeader) -> Claim {
    let zeros = || vec![0; usize::try_from(header.len).unwrap_or(usize::MAX)];
    Claim {
        range: header.offset..header.offset.saturating_add(header.len),
        hash: match header.kind {
            FrameKind::Zero => Hash::of(&zeros()),
            _ => header.new_hash,
        },
    }
}

/// Frames that are in memory while the source is asked about them: one set of messages.
const ASKED_MOST: usize = 4096;
const ASKED_BYTES: u64 = 16 << 20;
