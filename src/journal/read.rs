//! Reading a journal, also while another process writes to it.

use std::sync::Arc;

use super::format::{
    FILE_HEADER_LEN, FileHeader, Link, PAYLOAD_MAX, RECORD_HEADER_LEN, RECORDS_OFFSET,
    RecordHeader, SEAL_LEN, SEAL_OFFSETS, Seal,
};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::Storage;

/// One record of a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// Its number, from 1 on.
    pub sequence: u64,
    /// Where it begins in the file, in bytes.
    pub offset: u64,
    /// What it holds.
    pub payload: Vec<u8>,
}

/// Reads a journal from the front, and goes on where it stopped when there is more.
pub struct Reader {
    storage: Arc<dyn Storage>,
    header: FileHeader,
    seal: Seal,
    slot: usize,
    count: u64,
    begin: u64,
    end: u64,
    link: Link,
}

opaque!(Reader);

impl Reader {
    /// Opens a journal at its beginning.
    ///
    /// # Errors
    /// `Malformed` when the header or both seals are damaged; `Unsupported` for another version;
    /// `Io`.
    pub fn open(storage: Arc<dyn Storage>) -> Result<Self> {
        let mut bytes = [0; FILE_HEADER_LEN];
        read(&*storage, &mut bytes, 0)?;
        let header = FileHeader::decode(&bytes).map_err(|e| e.at_path(storage.path()))?;
        let (slot, seal) = newest_seal(&*storage, header.version)?;
        Ok(Reader {
            count: 0,
            begin: 0,
            end: RECORDS_OFFSET,
            link: header.link(),
            storage,
            header,
            seal,
            slot,
        })
    }

    /// The job's random id.
    pub fn job(&self) -> [u8; 16] {
        self.header.job
    }

    /// How many records were left out behind the first one when the journal was compacted.
    pub fn left_out(&self) -> u64 {
        self.header.left_out
    }

    /// The newest record, and none of those before it is read or checked: their loss shows when a
    /// writer opens the journal. `None` where there is none. [`next_entry`](Self::next_entry) goes
    /// on behind it.
    ///
    /// # Errors
    /// As [`next_entry`](Self::next_entry).
    pub fn last_entry(&mut self) -> Result<Option<Entry>> {
        let begin = self.seal.begin;
        if begin > self.begin.max(RECORDS_OFFSET) {
            let mut bytes = [0; RECORD_HEADER_LEN];
            read(&*self.storage, &mut bytes, begin)?;
            // That the record is the one that was sealed shows by the seal's link, which covers
            // what it names as the one before it.
            self.link = RecordHeader::decode(&bytes).previous;
            (self.count, self.end) = (self.seal.count.saturating_sub(1), begin);
        }
        let mut last = None;
        while let Some(entry) = self.next_entry()? {
            last = Some(entry);
        }
        Ok(last)
    }

    /// The next record; `None` at the end, after which it can be asked again for what was added.
    ///
    /// # Errors
    /// `Malformed`, naming the record, where one that was sealed is missing or changed; `Io`.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        let found = self.record()?;
        if found.is_some() {
            return Ok(found);
        }
        // A seal may have been written since it was read; what it covers must be there.
        (self.slot, self.seal) = newest_seal(&*self.storage, self.header.version)?;
        match self.record()? {
            None if self.count < self.seal.count => Err(self.damaged("is missing or damaged")),
            found => Ok(found),
        }
    }

    /// All records up to the end.
    ///
    /// # Errors
    /// As [`next_entry`](Reader::next_entry).
    pub fn rest(&mut self) -> Result<Vec<Entry>> {
        std::iter::from_fn(|| self.next_entry().transpose()).collect()
    }

    /// Where the chain stands after what was read: what a writer goes on from.
    pub(super) fn position(&self) -> Seal {
        Seal {
            count: self.count,
            begin: self.begin,
            end: self.end,
            link: self.link,
        }
    }

    pub(super) fn header(&self) -> FileHeader {
        self.header
    }

    /// Where the newest seal stands, of the two.
    pub(super) fn newest_slot(&self) -> usize {
        self.slot
    }

    /// The record at the current end, if a whole and right one stands there.
    fn record(&mut self) -> Result<Option<Entry>> {
        let offset = self.end;
        let len = self.storage.len()?;
        let Some(room) = len.checked_sub(offset + RECORD_HEADER_LEN as u64) else {
            return Ok(None);
        };
        let mut bytes = [0; RECORD_HEADER_LEN];
        read(&*self.storage, &mut bytes, offset)?;
        let header = RecordHeader::decode(&bytes);
        if header.len as usize > PAYLOAD_MAX || u64::from(header.len) > room {
            return Ok(None);
        }
        let mut payload = vec![0; header.len as usize];
        let payload_offset = offset + RECORD_HEADER_LEN as u64;
        read(&*self.storage, &mut payload, payload_offset)?;
        if header.crc32 != header.checksum(&payload)
            || header.sequence != self.count + 1
            || header.previous != self.link
        {
            return Ok(None);
        }
        let (count, end) = (header.sequence, payload_offset + u64::from(header.len));
        let link = header.link(&payload);
        if count == self.seal.count && (end, link) != (self.seal.end, self.seal.link) {
            return Err(self.damaged("is not the one that was sealed"));
        }
        (self.count, self.begin, self.end, self.link) = (count, offset, end, link);
        Ok(Some(Entry {
            sequence: header.sequence,
            offset,
            payload,
        }))
    }

    fn damaged(&self, what: &str) -> Error {
        let text = format!(
            "record {} of {} of the journal {what}",
            self.count + 1,
            self.seal.count
        );
        Error::malformed(text)
            .at_path(self.storage.path())
            .at_offset(self.end)
            .advise("nothing was changed; restore the journal, or begin a new job")
    }
}

/// The seal that covers most. A torn one is no seal; the other one still is.
fn newest_seal(storage: &dyn Storage, version: u32) -> Result<(usize, Seal)> {
    let mut newest: Option<(usize, Seal)> = None;
    for (slot, offset) in SEAL_OFFSETS.into_iter().enumerate() {
        let mut bytes = [0; SEAL_LEN];
        read(storage, &mut bytes, offset)?;
        if let Some(seal) = Seal::decode(&bytes, version)
            && newest.is_none_or(|(_, newest)| newest.count < seal.count)
        {
            newest = Some((slot, seal));
        }
    }
    newest.ok_or_else(|| {
        Error::malformed("both seals of the journal are damaged")
            .in_field("seal")
            .at_path(storage.path())
    })
}

fn read(storage: &dyn Storage, bytes: &mut [u8], offset: u64) -> Result<()> {
    let end = offset.saturating_add(bytes.len() as u64);
    if storage.len()? < end {
        return Err(Error::new(
            ErrorKind::Malformed,
            format!("the journal ends before byte {end:#x}"),
        )
        .at_path(storage.path())
        .at_offset(offset));
    }
    storage.read_exact_at(bytes, offset)
}
