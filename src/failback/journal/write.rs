//! Adding to a journal.

use std::ffi::OsStr;
use std::sync::Arc;

use super::format::{FileHeader, PAYLOAD_MAX, RECORDS_OFFSET, RecordHeader, SEAL_OFFSETS, Seal};
use super::read::{Entry, Reader};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::{Access, Folder, Storage};

/// Adds records to a journal. There must be one writer only: whoever opens one holds the job's
/// lock.
pub struct Writer {
    storage: Arc<dyn Storage>,
    end: Seal,
    /// Which seal is written next; the other one is newer, and durable before this one changes.
    slot: usize,
    failed: bool,
}

impl Writer {
    /// Makes a new journal, which is durable, with its name, when this returns.
    ///
    /// # Errors
    /// `AlreadyExists`, `NoSpace`, `Io`.
    pub fn create(folder: &dyn Folder, name: &OsStr, job: [u8; 16]) -> Result<Self> {
        let header = FileHeader { job };
        let end = Seal {
            count: 0,
            end: RECORDS_OFFSET,
            link: header.link(),
        };
        let names = folder.names()?;
        if names.iter().any(|there| there == name) {
            let error = Error::new(ErrorKind::AlreadyExists, "there is a journal already");
            return Err(error.at_path(folder.path().join(name)));
        }
        // A crash leaves no journal, or a whole one.
        let mut unfinished = name.to_owned();
        unfinished.push(".new");
        if names.contains(&unfinished) {
            folder.remove(&unfinished)?;
        }
        let storage = folder.create_new(&unfinished)?;
        storage.set_len(RECORDS_OFFSET)?;
        storage.write_all_at(&header.encode(), 0)?;
        storage.write_all_at(&end.encode(), SEAL_OFFSETS[0])?;
        storage.sync()?;
        folder.rename(&unfinished, name)?;
        folder.sync()?;
        Ok(Writer {
            storage,
            end,
            slot: 1,
            failed: false,
        })
    }

    /// Opens a journal to go on with it, and gives what it holds. What stands after the last
    /// whole record was never acted upon; the next record takes its place.
    ///
    /// # Errors
    /// Those of [`Reader::open`] and [`Reader::next_entry`]; `NotFound`, `Io`.
    pub fn open(folder: &dyn Folder, name: &OsStr) -> Result<(Self, Vec<Entry>)> {
        let storage = folder.open(name, Access::Write)?;
        let mut reader = Reader::open(storage.clone())?;
        let entries = reader.rest()?;
        let writer = Writer {
            storage,
            end: reader.position(),
            slot: 1 - reader.newest_slot(),
            failed: false,
        };
        Ok((writer, entries))
    }

    /// Adds a record, and gives its number. It is durable when this returns.
    ///
    /// # Errors
    /// `LimitExceeded` for a payload of more than 1 MiB; `NoSpace`, `Io`, after which the writer
    /// refuses (`Poisoned`) until the journal is opened again.
    pub fn append(&mut self, payload: &[u8]) -> Result<u64> {
        if payload.len() > PAYLOAD_MAX {
            let text = format!("a journal record of {} bytes is too long", payload.len());
            return Err(Error::new(ErrorKind::LimitExceeded, text));
        }
        if self.failed {
            let text = "an earlier record could not be written, so nothing is known of its end";
            return Err(Error::new(ErrorKind::Poisoned, text)
                .at_path(self.storage.path())
                .advise("open the journal again"));
        }
        self.failed = true;
        let header = RecordHeader::new(self.end.count + 1, self.end.link, payload);
        let record = [&header.encode()[..], payload].concat();
        self.storage.write_all_at(&record, self.end.end)?;
        self.storage.sync()?;
        self.end = Seal {
            count: header.sequence,
            end: self.end.end + record.len() as u64,
            link: header.link(payload),
        };
        // Durable with the next record; until then the record speaks for itself.
        self.storage
            .write_all_at(&self.end.encode(), SEAL_OFFSETS[self.slot])?;
        self.slot = 1 - self.slot;
        self.failed = false;
        Ok(header.sequence)
    }
}
