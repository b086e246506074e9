//! The frames of a redo log or sidecar that are not guest data, read from their file when needed.

use std::fmt;
use std::sync::Arc;

use super::format::{FrameKind, HEADER_LEN, Header, Purpose};
use super::frame::VerifiedFrame;
use super::header::read_header;
use super::scan::{Batch, Scanner};
use super::sections::{Section, Sections};
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::progress::Work;
use crate::storage::Storage;

/// Where a file's frames other than guest data are stored.
///
/// Memory does not follow the number of frames: they stay in the file.
#[derive(Clone)]
pub(crate) struct Bookkeeping {
    storage: Arc<dyn Storage>,
    header: Header,
    limits: Limits,
    sections: Vec<Section>,
}

impl Bookkeeping {
    pub(super) fn new(
        storage: Arc<dyn Storage>,
        header: Header,
        limits: &Limits,
        sections: Sections,
    ) -> Self {
        Bookkeeping {
            storage,
            header,
            limits: limits.clone(),
            sections: sections.0,
        }
    }

    /// Reads a sidecar as far as its last commit, frame by frame; `None` for a delta file of
    /// another purpose, of which only the header is read.
    ///
    /// # Errors
    /// `Malformed`: also for a sidecar that holds guest data, which none was written with;
    /// `Unsupported`, `LimitExceeded`, `Io`, `Cancelled`.
    pub(crate) fn committed(
        storage: Arc<dyn Storage>,
        limits: &Limits,
        work: &Work,
    ) -> Result<Option<Self>> {
        let header = read_header(&*storage, limits)?;
        if header.purpose != Purpose::Sidecar {
            return Ok(None);
        }
        let mut end = HEADER_LEN as u64;
        let mut scanner = Scanner::new(&*storage, &header, storage.len()?, limits);
        let mut batch = Batch::default();
        'file: while scanner.next_batch(&mut batch)? {
            work.cancel().check()?;
            for raw in &batch.frames {
                if raw.is_guest_data() {
                    return Err(raw.wrong("a frame of guest data in a sidecar", &*storage));
                }
                // A damaged payload ends what can be trusted, as a damaged header does.
                if raw.verified(&batch.payloads, limits, &*storage).is_err() {
                    break 'file;
                }
                if raw.header.kind == FrameKind::Commit {
                    end = raw.end();
                }
            }
        }
        let at = HEADER_LEN as u64..end;
        let sections = Sections(Vec::from_iter(
            (!at.is_empty()).then_some(Section { at, sequence: 0 }),
        ));
        Ok(Some(Self::new(storage, header, limits, sections)))
    }

    /// The header of the file.
    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    /// The limits that the file is read with.
    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Passes every frame that is not guest data to `visit`, in the order of the file, hashed and
    /// found right.
    ///
    /// # Errors
    /// `Malformed` where the file changed since it was checked; `LimitExceeded`, `Io`, and what
    /// `visit` returns.
    pub(crate) fn for_each(
        &self,
        visit: &mut dyn FnMut(&VerifiedFrame<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut batch = Batch::default();
        for section in &self.sections {
            let mut scanner =
                Scanner::over(&*self.storage, &self.header, section.clone(), &self.limits);
            while scanner.next_batch(&mut batch)? {
                for raw in batch.frames.iter().filter(|raw| !raw.is_guest_data()) {
                    visit(&raw.verified(&batch.payloads, &self.limits, &*self.storage)?)?;
                }
            }
            if scanner.at != section.at.end {
                return Err(Error::malformed("a frame is not what it was")
                    .at_offset(scanner.at)
                    .at_path(self.storage.path()));
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Bookkeeping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bookkeeping")
            .field("storage", &self.storage.path())
            .field("sections", &self.sections.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::sections::SECTIONS_MOST;
    use super::super::{Delta, DeltaWriter, Frame, JobId, Old};
    use super::*;
    use crate::error::ErrorKind;
    use crate::storage::MemoryStorage;
    use crate::units::BlockSize;

    fn writer(purpose: Purpose) -> (Arc<MemoryStorage>, DeltaWriter) {
        let header = Header {
            purpose,
            job: JobId([1; 16]),
            base_len: 1 << 30,
            result_len: 1 << 30,
            block_size: BlockSize::MIN,
        };
        let file = Arc::new(MemoryStorage::new("s", Vec::new()));
        (file.clone(), DeltaWriter::create(file, header).unwrap())
    }

    #[test]
    fn tables_are_found_between_any_number_of_guest_frames() {
        let (file, mut writer) = writer(Purpose::RedoLog);
        let count = 3 * SECTIONS_MOST as u64;
        for at in 0..count {
            writer.push(&Frame::zero_table(at..at + 1)).unwrap();
            writer
                .push(&Frame::zero(at * 4096, 4096, Old::Unknown))
                .unwrap();
        }
        writer.finish(None, None).unwrap();
        let work = Work::with_threads(2).unwrap();
        let delta = Delta::from_storage(file, &Limits::default()).unwrap();
        let tables = delta.verified(&work, &|_| Ok(())).unwrap();
        assert!(tables.sections.len() <= SECTIONS_MOST);
        let mut next = 0;
        tables
            .for_each(&mut |frame| {
                assert_eq!(frame.range(), next..next + 1);
                next += 1;
                Ok(())
            })
            .unwrap();
        assert_eq!(next, count);
    }

    #[test]
    fn only_the_header_is_read_of_what_is_no_sidecar() {
        let (file, mut writer) = writer(Purpose::RedoLog);
        writer.commit().unwrap();
        let limits = Limits::default();
        let work = Work::with_threads(1).unwrap();
        file.set_len(HEADER_LEN as u64).unwrap();
        let committed = |file| Bookkeeping::committed(file, &limits, &work);
        assert!(committed(file).unwrap().is_none());
    }

    #[test]
    fn a_sidecar_with_guest_data_is_refused() {
        let (file, mut writer) = writer(Purpose::Sidecar);
        writer.push(&Frame::zero(0, 4096, Old::Unknown)).unwrap();
        writer.commit().unwrap();
        let work = Work::with_threads(1).unwrap();
        let error = Bookkeeping::committed(file, &Limits::default(), &work).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Malformed);
        assert_eq!(error.offset(), Some(HEADER_LEN as u64));
    }
}
