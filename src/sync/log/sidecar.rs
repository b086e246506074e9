//! The sidecar of an in-place sync: the regions under the marker, and the target's tables as they
//! change.

use super::redo_log::push_patches;
use crate::advice::Advice;
use crate::delta::{Bookkeeping, DeltaWriter, Frame, FrameKind, Header};
use crate::error::{Error, ErrorKind, Result};
use crate::image::Patch;
use crate::limits::Limits;
use crate::progress::Work;
use crate::storage::{Access, FileRef, Storage};
use crate::sync::endpoint::named::check_log;
use crate::sync::job::Job;
use crate::sync::marker::overlay::OverlayStorage;
use crate::sync::marker::redo::{FinalState, Redo};
use crate::target_state::TargetState;

/// A sidecar being written.
pub(in crate::sync) struct Sidecar {
    writer: DeltaWriter,
}

impl Sidecar {
    /// Writes a sidecar with what `redo` holds, in place of one that may be there. Durable, its
    /// name too, when it returns.
    ///
    /// # Errors
    /// `NoSpace`, `Io`; `NotFound` where its name does not lead to it.
    pub(crate) fn create(
        file_ref: &FileRef,
        header: Header,
        job: &Job,
        redo: &Redo,
    ) -> Result<Self> {
        Self::write_new(file_ref, header, job, redo).inspect_err(|error| {
            if error.kind() == ErrorKind::NoSpace {
                // The first error says more than one from cleaning up.
                let _ = remove_fresh(file_ref);
            }
        })
    }

    fn write_new(file_ref: &FileRef, header: Header, job: &Job, redo: &Redo) -> Result<Self> {
        remove_fresh(file_ref)?;
        let fresh = fresh_log(file_ref);
        let file = fresh.create_new()?;
        let mut writer = DeltaWriter::create(file.clone(), header)?;
        writer.push(&Frame::bytes(FrameKind::Job, 0, &job.encode()))?;
        for (offset, bytes) in &redo.saved {
            writer.push(&Frame::bytes(FrameKind::Saved, *offset, bytes))?;
        }
        if let Some(len) = redo.storage_len {
            writer.push(&Frame::length(len))?;
        }
        redo.zeros(&mut |range| writer.push(&Frame::zero_table(range)))?;
        redo.tables(&mut |offset, bytes| {
            writer.push(&Frame::bytes(FrameKind::Table, offset, bytes))
        })?;
        for (offset, bytes) in &redo.last {
            writer.push(&Frame::bytes(FrameKind::LastTable, *offset, bytes))?;
        }
        if let Some(state) = &redo.final_state {
            writer.push(&Frame::bytes(FrameKind::Final, 0, &state.encode()))?;
        }
        writer.commit()?;
        file_ref.directory().rename(fresh.name(), file_ref.name())?;
        file_ref.directory().sync()?;
        check_log(file_ref, &*file)?;
        Ok(Sidecar { writer })
    }

    /// Puts an image's patches down, then lays them over `overlay`; those that write tables are
    /// durable before, and so is a shorter length. Space that they clear is durably clear when this
    /// returns, so that data may follow.
    ///
    /// # Errors
    /// `NoSpace`, `Io`.
    pub(crate) fn apply(&mut self, patches: &[Patch], overlay: &OverlayStorage) -> Result<()> {
        push_patches(&mut self.writer, patches)?;
        // A longer length is the same when the sync runs again, and what comes last waits in
        // memory.
        let len = overlay.len()?;
        let shortens = |patch: &Patch| matches!(patch, Patch::SetLen(new) if *new < len);
        if patches
            .iter()
            .any(|patch| is_redone(patch) || shortens(patch))
        {
            self.writer.commit()?;
        }
        let clears = patches.iter().any(|patch| matches!(patch, Patch::Zero(_)));
        for patch in patches {
            match patch {
                Patch::SetLen(len) => overlay.set_len(*len)?,
                Patch::Zero(range) => overlay.punch_hole(range.clone())?,
                Patch::Write {
                    offset,
                    bytes,
                    last: true,
                } => overlay.add_region(*offset, bytes)?,
                Patch::Write {
                    offset,
                    bytes,
                    last: false,
                } => {
                    overlay.write_all_at(bytes, *offset)?;
                }
            }
        }
        if clears { overlay.sync() } else { Ok(()) }
    }

    /// Puts down what the regions under the marker will hold in the end. Durable when it returns.
    ///
    /// # Errors
    /// `NoSpace`, `Io`.
    pub(crate) fn close(mut self, state: &FinalState) -> Result<()> {
        self.writer
            .push(&Frame::bytes(FrameKind::Final, 0, &state.encode()))?;
        self.writer.commit()
    }
}

/// Says what to do where the sidecar of a target that is untouched has no room.
pub(in crate::sync) fn no_room(error: Error) -> Error {
    match error.kind() {
        ErrorKind::NoSpace => error
            .leaving(TargetState::Untouched)
            .advise("the target is untouched; make room for its sidecar")
            .or_advise(Advice::LogDirectory),
        _ => error,
    }
}

/// Whether a run that is cut has to find the patch in the sidecar.
fn is_redone(patch: &Patch) -> bool {
    match patch {
        Patch::SetLen(_) | Patch::Write { last: true, .. } => false,
        Patch::Zero(_) | Patch::Write { last: false, .. } => true,
    }
}

/// Removes what a crash has left of a sidecar that was being written. Durable once the directory is
/// synced.
///
/// # Errors
/// `Io`.
pub(in crate::sync) fn remove_fresh(file_ref: &FileRef) -> Result<()> {
    fresh_log(file_ref).remove_own_if_there()
}

/// Where a sidecar grows until it takes the place of another one.
pub(in crate::sync) fn fresh_log(file_ref: &FileRef) -> FileRef {
    file_ref.hidden_sibling(FRESH)
}

/// Reads a sidecar as far as its last commit; `None` where there is none, or another file, of which
/// only the header is read.
///
/// # Errors
/// `Io`, `Malformed`, `Unsupported`, `LimitExceeded`, `Cancelled`.
pub(in crate::sync) fn read(
    file_ref: &FileRef,
    limits: &Limits,
    work: &Work,
) -> Result<Option<(Header, Redo)>> {
    let Some(storage) = file_ref.open_own_if_there(Access::Read)? else {
        return Ok(None);
    };
    let Some(bookkeeping) = Bookkeeping::committed(storage, limits, work)? else {
        return Ok(None);
    };
    let header = *bookkeeping.header();
    let redo = Redo::gather(bookkeeping).map_err(|error| error.at_path(file_ref.path()))?;
    Ok(Some((header, redo)))
}

/// What is added to the name of a sidecar that is being written.
pub(in crate::sync) const FRESH: &str = "fresh";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delta::{JobId, Purpose};
    use crate::image::Format;
    use crate::storage::MemoryDirectory;
    use crate::units::BlockSize;
    use std::sync::Arc;

    #[test]
    fn what_was_put_down_after_the_last_commit_is_not_read() {
        let file_ref = FileRef::new(Arc::new(MemoryDirectory::new()), "s");
        let header = Header {
            purpose: Purpose::Sidecar,
            job: JobId([1; 16]),
            base_len: 0,
            result_len: 0,
            block_size: BlockSize::MIN,
        };
        let job = Job {
            format: Format::Vhd,
            target_len: 8192,
            target: "t".into(),
            target_inode: None,
            manifest: None,
        };
        let first = Redo {
            saved: vec![(0, vec![1; 8192])],
            ..Redo::default()
        };
        let read = || {
            let found = read(
                &file_ref,
                &Limits::default(),
                &Work::with_threads(1).unwrap(),
            )
            .unwrap();
            found.unwrap().1
        };
        let mut sidecar = Sidecar::create(&file_ref, header, &job, &first).unwrap();
        for len in [8999, 9000] {
            sidecar.writer.push(&Frame::length(len)).unwrap();
        }
        sidecar.writer.flush().unwrap();
        let redo = read();
        assert_eq!((redo.saved, redo.storage_len), (first.saved, None));
        sidecar.writer.commit().unwrap();
        assert_eq!(read().storage_len, Some(9000));
    }
}
