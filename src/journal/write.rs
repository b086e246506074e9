//! Adding to a journal.

use std::ffi::{OsStr, OsString};
use std::sync::Arc;

use super::format::{
    FileHeader, PAYLOAD_MAX, RECORD_HEADER_LEN, RECORDS_OFFSET, RecordHeader, SEAL_OFFSETS, Seal,
};
use super::read::{Entry, Reader};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::{Access, Directory, Storage};

/// Adds records to a journal. There must be one writer only: its opener holds the job's
/// lock.
pub struct Writer {
    storage: Arc<dyn Storage>,
    header: FileHeader,
    end: Seal,
    /// Which seal is written next; the other one is newer, and durable before this one changes.
    slot: usize,
    failed: bool,
}

opaque!(Writer);

impl Writer {
    /// Makes a new journal, which is durable, with its name, when this returns.
    ///
    /// # Errors
    /// `AlreadyExists`, `NoSpace`, `Io`.
    pub fn create(directory: &dyn Directory, name: &OsStr, job: [u8; 16]) -> Result<Self> {
        if directory.names()?.iter().any(|there| there == name) {
            let error = Error::new(ErrorKind::AlreadyExists, "there is a journal already");
            return Err(error.at_path(directory.path().join(name)));
        }
        // A crash leaves no journal, or a whole one.
        let unfinished = Unfinished::create(directory, name, FileHeader::new(job, 0))?;
        unfinished.finish(directory, name, &[])
    }

    /// Opens a journal to go on with it, and gives what it holds. What stands after the last
    /// whole record was never acted upon; the next record takes its place.
    ///
    /// # Errors
    /// Those of [`Reader::open`] and [`Reader::next_entry`]; `NotFound`, `Io`.
    pub fn open(directory: &dyn Directory, name: &OsStr) -> Result<(Self, Vec<Entry>)> {
        let storage = directory.open_own(name, Access::Write)?;
        let mut reader = Reader::open(storage.clone())?;
        let entries = reader.rest()?;
        let writer = Writer {
            storage,
            header: reader.header(),
            end: reader.position(),
            slot: 1 - reader.newest_slot(),
            failed: false,
        };
        Ok((writer, entries))
    }

    /// How many records the journal holds.
    pub fn count(&self) -> u64 {
        self.end.count
    }

    /// Its length in bytes, up to the end of the last record.
    pub fn len_bytes(&self) -> u64 {
        self.end.end
    }

    /// Leaves out all records but the first one, and of the others the newest `keep` at most, and
    /// no more than the newest 512 KiB unless that is less than one record. Numbers begin at 1
    /// again. Durable when this returns; a crash leaves the journal as it was, or the shorter one.
    ///
    /// # Errors
    /// `NoSpace`, `Io`: the journal is what it was, unless a later [`append`](Self::append) says
    /// `Poisoned`.
    pub fn compact(&mut self, directory: &dyn Directory, name: &OsStr, keep: usize) -> Result<()> {
        self.refuse_if_failed()?;
        let mut reader = Reader::open(self.storage.clone())?;
        let mut kept = Vec::new();
        let mut bytes = 0;
        let mut first = None;
        let mut left_out = self.header.left_out;
        while let Some(entry) = reader.next_entry()? {
            if first.is_none() {
                first = Some(entry.payload);
                continue;
            }
            bytes += entry.payload.len();
            kept.push(entry.payload);
            let mut over = 0;
            while kept.len() - over > keep.max(1) || (bytes > KEPT_BYTES && kept.len() - over > 1) {
                bytes -= kept[over].len();
                over += 1;
            }
            kept.drain(..over);
            left_out += over as u64;
        }
        let records: Vec<_> = first.into_iter().chain(kept).collect();
        let header = FileHeader::new(self.header.job, left_out);
        let unfinished = Unfinished::create(directory, name, header)?;
        let part = unfinished.name.clone();
        let before = directory.names()?;
        match unfinished.finish(directory, name, &records) {
            Ok(writer) => {
                *self = writer;
                Ok(())
            }
            Err(error) => {
                // Once it was renamed nothing is known of which one a crash would leave.
                self.failed = !directory.names().is_ok_and(|now| now.len() == before.len());
                if !self.failed {
                    let _ = directory.remove(&part);
                }
                Err(error)
            }
        }
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
        self.refuse_if_failed()?;
        self.failed = true;
        let (record, end) = next_record(&self.end, payload);
        self.storage.write_all_at(&record, self.end.end)?;
        self.storage.sync()?;
        self.end = end;
        // Durable with the next record; until then the record speaks for itself.
        let seal = self.end.encode(self.header.version);
        self.storage.write_all_at(&seal, SEAL_OFFSETS[self.slot])?;
        self.slot = 1 - self.slot;
        self.failed = false;
        Ok(self.end.count)
    }

    fn refuse_if_failed(&self) -> Result<()> {
        if !self.failed {
            return Ok(());
        }
        let text = "an earlier record could not be written, so nothing is known of its end";
        Err(Error::new(ErrorKind::Poisoned, text)
            .at_path(self.storage.path())
            .advise("open the journal again"))
    }
}

/// A journal that has no name of its own yet.
struct Unfinished {
    storage: Arc<dyn Storage>,
    name: OsString,
    header: FileHeader,
}

impl Unfinished {
    fn create(directory: &dyn Directory, name: &OsStr, header: FileHeader) -> Result<Self> {
        let mut unfinished = name.to_owned();
        unfinished.push(".new");
        // Left by a crash.
        if directory.names()?.contains(&unfinished) {
            directory.remove(&unfinished)?;
        }
        Ok(Unfinished {
            storage: directory.create_new(&unfinished)?,
            name: unfinished,
            header,
        })
    }

    /// Fills it, and gives it its name; durable when this returns.
    fn finish(
        self,
        directory: &dyn Directory,
        name: &OsStr,
        records: &[Vec<u8>],
    ) -> Result<Writer> {
        let storage = self.storage;
        let mut end = Seal::none(&self.header);
        storage.set_len(RECORDS_OFFSET)?;
        storage.write_all_at(&self.header.encode(), 0)?;
        for payload in records {
            let (record, next) = next_record(&end, payload);
            storage.write_all_at(&record, end.end)?;
            end = next;
        }
        storage.write_all_at(&end.encode(self.header.version), SEAL_OFFSETS[0])?;
        storage.sync()?;
        directory.rename(&self.name, name)?;
        directory.sync()?;
        Ok(Writer {
            storage,
            header: self.header,
            end,
            slot: 1,
            failed: false,
        })
    }
}

/// The bytes of the next record, and the seal that covers it.
fn next_record(end: &Seal, payload: &[u8]) -> (Vec<u8>, Seal) {
    let header = RecordHeader::new(end.count + 1, end.link, payload);
    let mut record = Vec::with_capacity(RECORD_HEADER_LEN + payload.len());
    record.extend(header.encode());
    record.extend(payload);
    (record, end.after(&header, payload))
}

const KEPT_BYTES: usize = 512 << 10;
