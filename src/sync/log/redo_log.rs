//! Writing a redo log: the frames, and what the target's own tables will need.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::advice::Advice;
use crate::delta::{DeltaWriter, Frame, FrameKind, Header, VerifiedFrame};
use crate::diff::Content;
use crate::error::{Error, ErrorKind, Result};
use crate::hash::Hash;
use crate::image::{Change, ImageMut, Patch};
use crate::storage::{FileRef, Storage};
use crate::sync::endpoint::precheck;
use crate::sync::job::Job;
use crate::sync::log::previous::remove_previous;
use crate::sync::marker::format::sentinel;
use crate::sync::marker::in_data::{FirstPage, begins_with_guest_data};
use crate::sync::marker::set_lift::read_regions;
use crate::units::Extent;

/// A redo log being written. Frames may be pushed from many threads.
///
/// The file is created with the first frame, so that a sync that finds nothing to do leaves
/// nothing behind.
pub(in crate::sync) struct LogWriter<'a> {
    file_ref: &'a FileRef,
    header: Header,
    job: Job,
    /// The target, for deciding where new blocks will lie; it is not written.
    image: &'a dyn ImageMut,
    disk_len: u64,
    state: Mutex<State>,
    /// Whether there was no room for all of it.
    ran_out: AtomicBool,
}

#[derive(Default)]
struct State {
    writer: Option<DeltaWriter>,
    /// The file, by its own handle: its name could lead to another one later.
    file: Option<Arc<dyn Storage>>,
    /// Extents that frames cover and the image was not told of yet.
    pending: Vec<Extent>,
    written_bytes: u64,
    /// What the target will begin with, where that is guest data that changes.
    first_page: Option<FirstPage>,
}

impl<'a> LogWriter<'a> {
    /// A redo log at `file_ref` for changing `image` to `disk_len` guest bytes.
    pub(crate) fn new(
        file_ref: &'a FileRef,
        header: Header,
        job: Job,
        image: &'a dyn ImageMut,
        disk_len: u64,
    ) -> Self {
        LogWriter {
            file_ref,
            header,
            job,
            image,
            disk_len,
            state: Mutex::default(),
            ran_out: AtomicBool::new(false),
        }
    }

    /// Appends a frame for `extent`.
    ///
    /// # Errors
    /// `MarkerInData` where the target would look marked; `NoSpace` with the other choices, `Io`,
    /// and those of [`ImageMut::prepare`].
    pub(crate) fn push(&self, extent: Extent, frame: &Frame<'_>) -> Result<()> {
        let mut state = self.lock();
        self.check_first_page(&mut state, extent, frame)?;
        let writer = self.begun(&mut state)?;
        writer.push(frame).map_err(|e| self.no_room(e))?;
        if extent.kind == crate::ExtentKind::Data {
            state.written_bytes += extent.len;
        }
        state.pending.push(extent);
        if state.pending.len() >= PENDING_MOST {
            self.prepare(&mut state)
        } else {
            Ok(())
        }
    }

    /// Writes what was pushed to the file. Not durable.
    ///
    /// # Errors
    /// `NoSpace` with the other choices, `Io`.
    pub(crate) fn flush(&self) -> Result<()> {
        match &mut self.lock().writer {
            Some(writer) => writer.flush().map_err(|e| self.no_room(e)),
            None => Ok(()),
        }
    }

    /// The image whose tables, in memory, are those that the redo log leads to.
    pub(crate) fn planner(&self) -> &'a dyn ImageMut {
        self.image
    }

    /// Guest bytes in data frames so far.
    pub(crate) fn written_bytes(&self) -> u64 {
        self.lock().written_bytes
    }

    /// Closes the redo log, with the bytes under the marker of `target` in it. When this returns,
    /// the redo log is durable, its name too. Its file and length; `None` when nothing was pushed
    /// and the length stays.
    ///
    /// # Errors
    /// As [`push`](LogWriter::push).
    pub(crate) fn finish(
        self,
        target: &dyn Storage,
        roots: (Option<Hash>, Option<Hash>),
    ) -> Result<Option<(Arc<dyn Storage>, u64)>> {
        let mut state = self.lock();
        if state.writer.is_none() && self.disk_len == self.header.base_len {
            return Ok(None);
        }
        self.begun(&mut state)?;
        self.prepare(&mut state)?;
        let Some(mut writer) = state.writer.take() else {
            return Ok(None);
        };
        for (offset, bytes) in read_regions(target, self.job.target_len)? {
            writer
                .push(&Frame::bytes(FrameKind::Saved, offset, &bytes))
                .map_err(|e| self.no_room(e))?;
        }
        let redo_log_bytes = writer.file_len();
        let finished = writer.finish(roots.0, roots.1);
        finished.map_err(|e| self.no_room(e))?;
        let synced = self.file_ref.directory().sync();
        synced.map_err(|e| self.no_room(e))?;
        Ok(state.file.take().map(|file| (file, redo_log_bytes)))
    }

    fn check_first_page(&self, state: &mut State, extent: Extent, frame: &Frame<'_>) -> Result<()> {
        let is_near = extent.offset < sentinel(self.disk_len).end;
        if !is_near || !begins_with_guest_data(&self.image.info()) {
            return Ok(());
        }
        let page = match &mut state.first_page {
            Some(page) => page,
            none => none.insert(FirstPage::new(self.image, self.disk_len)?),
        };
        match frame.new_bytes()? {
            Some(bytes) => page.put(extent.offset, Content::Bytes(&bytes)),
            None => page.put(extent.offset, Content::Zeros(extent.len)),
        }
        page.check()
    }

    fn begun<'s>(&self, state: &'s mut State) -> Result<&'s mut DeltaWriter> {
        if state.writer.is_none() {
            let (writer, file) = self.create().map_err(|e| self.no_room(e))?;
            state.file = Some(file);
            state.writer = Some(writer);
        }
        state
            .writer
            .as_mut()
            .ok_or_else(|| Error::malformed("a redo log that is not there"))
    }

    fn create(&self) -> Result<(DeltaWriter, Arc<dyn Storage>)> {
        precheck::log_directory(self.file_ref)?;
        let file = self.file_ref.create_new()?;
        let mut writer = DeltaWriter::create(file.clone(), self.header)?;
        writer.push(&Frame::bytes(FrameKind::Job, 0, &self.job.encode()))?;
        Ok((writer, file))
    }

    /// Tells the image of the pending extents, and logs what its tables will need.
    fn prepare(&self, state: &mut State) -> Result<()> {
        let mut extents = std::mem::take(&mut state.pending);
        extents.sort_unstable_by_key(|extent| extent.offset);
        let change = Change {
            disk_len: self.disk_len,
            extents: &extents,
        };
        let patches = self.image.prepare(&change)?;
        let writer = self.begun(state)?;
        push_patches(writer, &patches).map_err(|e| self.no_room(e))
    }

    /// Says what to do where there is no room for the redo log, and has it removed.
    fn no_room(&self, error: Error) -> Error {
        if error.kind() != ErrorKind::NoSpace {
            return error;
        }
        self.drop_without_room(&error);
        let way = match error.is_too_long() {
            true => {
                "the target is untouched, and the redo log was removed: so long a file is not \
                 allowed there"
            }
            false => "the target is untouched, and the redo log was removed; make room for it",
        };
        error
            .advise(way)
            .or_advise(Advice::LogDirectory)
            .or_advise(Advice::InPlace)
    }

    /// Has a redo log that is not whole removed where `error` is that there is no room, for
    /// whatever: it would keep what has none from it.
    pub(crate) fn drop_without_room(&self, error: &Error) {
        if error.kind() == ErrorKind::NoSpace {
            self.ran_out.store(true, Ordering::Relaxed);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for LogWriter<'_> {
    /// A redo log that ran out of room would keep others from theirs, and so would the one that was
    /// stashed for it.
    fn drop(&mut self) {
        if self.ran_out.load(Ordering::Relaxed) {
            // The first error says more than one from cleaning up.
            let _ = self.file_ref.remove_own_if_there();
            let _ = remove_previous(self.file_ref);
        }
    }
}

/// Appends an image's patches as frames.
///
/// # Errors
/// `NoSpace`, `Io`.
pub(in crate::sync) fn push_patches(writer: &mut DeltaWriter, patches: &[Patch]) -> Result<()> {
    for patch in patches {
        match patch {
            Patch::Write {
                offset,
                bytes,
                last,
            } => {
                let kind = if *last {
                    FrameKind::LastTable
                } else {
                    FrameKind::Table
                };
                for (index, part) in (0u64..).zip(bytes.chunks(PATCH_BYTES)) {
                    let at = offset + index * PATCH_BYTES as u64;
                    writer.push(&Frame::bytes(kind, at, part))?;
                }
            }
            Patch::SetLen(len) => writer.push(&Frame::length(*len))?,
            Patch::Zero(range) => writer.push(&Frame::zero_table(range.clone()))?,
        }
    }
    Ok(())
}

/// Bounds the memory that waiting extents take; images decide where blocks lie in one go for
/// this many.
const PENDING_MOST: usize = 64 << 10;
/// Tables go into frames of at most this length, well within what readers allow.
const PATCH_BYTES: usize = 1 << 20;

/// Logs a guest frame of another delta file; passes others over.
///
/// # Errors
/// Those of [`LogWriter::push`].
pub(in crate::sync) fn push_again(
    log_writer: &LogWriter<'_>,
    frame: &VerifiedFrame<'_>,
) -> Result<()> {
    let extent = match frame.header().kind {
        FrameKind::Data => Extent::data(frame.range()),
        _ => Extent::zero(frame.range()),
    };
    Frame::again(frame).map_or(Ok(()), |frame| log_writer.push(extent, &frame))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delta::{Delta, JobId, Purpose};
    use crate::limits::Limits;
    use crate::progress::Work;
    use crate::storage::MemoryStorage;
    use crate::units::BlockSize;
    use std::sync::Arc;

    #[test]
    fn long_tables_go_into_frames_that_follow_each_other() {
        let header = Header {
            purpose: Purpose::RedoLog,
            job: JobId([1; 16]),
            base_len: 0,
            result_len: 0,
            block_size: BlockSize::MIN,
        };
        let file = Arc::new(MemoryStorage::new("s", Vec::new()));
        let mut writer = DeltaWriter::create(file.clone(), header).unwrap();
        let bytes: Vec<u8> = (0..2 * PATCH_BYTES + 512)
            .map(|at| (at % 251) as u8)
            .collect();
        let patch = Patch::Write {
            offset: 4096,
            bytes: bytes.clone().into(),
            last: false,
        };
        push_patches(&mut writer, &[patch]).unwrap();
        writer.finish(None, None).unwrap();
        let redo_log = Delta::from_storage(file, &Limits::default()).unwrap();
        let found = Mutex::new(vec![0; bytes.len()]);
        redo_log
            .verify(&Work::with_threads(1).unwrap(), &|frame| {
                assert_eq!(frame.header().kind, FrameKind::Table);
                let at = frame.header().offset as usize - 4096;
                let part = frame.bytes();
                found.lock().unwrap()[at..at + part.len()].copy_from_slice(part);
                Ok(())
            })
            .unwrap();
        assert!(found.into_inner().unwrap() == bytes);
        assert!(redo_log.trailer().frame_count > 1);
    }
}
