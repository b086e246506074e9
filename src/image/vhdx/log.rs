//! Finds, in the log, the sequence of entries that must be replayed ([MS-VHDX] section 2.3.3).
//!
//! Every page of the log is looked at once: an entry's first page is the only one with its
//! signature, so that two whole entries never overlap, and what is known of an entry is kept. The
//! time is linear in the length of the log, whatever lies in it.

use std::ops::Range;

use super::format::{
    Descriptor, EntryHeader, Header, MIB, PAGE, Page, data_page_sequence, restore_page,
};
use super::structure::{read_array, read_vec};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::Limits;
use crate::storage::Storage;

/// The entries to replay, oldest first.
#[derive(Debug)]
pub(super) struct ActiveLog {
    region: Range<u64>,
    entries: Vec<Entry>,
}

/// One change that the log asks for.
#[derive(Debug)]
pub(super) enum Logged {
    /// These bytes of the file become zeros.
    Zero(Range<u64>),
    /// This page of the file takes these bytes.
    Page(u64, Box<Page>),
}

/// What is kept of a valid entry.
#[derive(Debug, Clone, Copy)]
struct Entry {
    at: u64,
    len: u64,
    tail: u64,
    sequence: u64,
    flushed_file: u64,
    last_file: u64,
}

impl ActiveLog {
    /// Finds the active sequence of the log that `header` names; `None` when the log is empty.
    ///
    /// # Errors
    /// `Malformed` when the header says that there is a log and none is found, when the log does
    /// not lie inside the file, or when the file is shorter than it durably was; `LimitExceeded`;
    /// `Io`.
    pub(super) fn find(
        storage: &dyn Storage,
        header: &Header,
        limits: &Limits,
    ) -> Result<Option<Self>> {
        if header.log.is_nil() {
            return Ok(None);
        }
        let file_len = storage.len()?;
        let region = log_region(header)
            .filter(|region| !region.is_empty() && region.end <= file_len)
            .ok_or_else(|| {
                wrong("the log is not on whole MiB inside the file").at_offset(header.log_offset)
            })?;
        if region.end - region.start > limits.log_bytes {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                format!(
                    "the log has {} bytes, the limit is {}",
                    region.end - region.start,
                    limits.log_bytes
                ),
            )
            .in_field("log_length"));
        }
        let mut window = Window::new(storage, region.clone());
        let mut slots = Vec::new();
        for slot in 0..window.pages() {
            slots.push(window.entry(slot * PAGE, header)?);
        }
        let entries = active_sequence(&slots).ok_or_else(|| {
            wrong("the log is not empty but holds no whole sequence of entries")
                .at_offset(region.start)
                .advise("restore the file from a copy, or open it with the system that wrote it")
        })?;
        if let Some(head) = entries.last()
            && file_len < head.flushed_file
        {
            return Err(wrong(format!(
                "the file was cut: it has {file_len:#x} bytes and had at least {:#x}",
                head.flushed_file
            )));
        }
        Ok(Some(ActiveLog { region, entries }))
    }

    /// Where the log lies.
    pub(super) fn region(&self) -> Range<u64> {
        self.region.clone()
    }

    /// How many entries are to be replayed.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The length that the file has to have at least.
    pub(super) fn last_file(&self) -> u64 {
        let lens = self.entries.iter().map(|entry| entry.last_file);
        lens.max().unwrap_or(0)
    }

    /// Calls `change` for all that the entries ask for, oldest first.
    ///
    /// # Errors
    /// Those of `change`; `Io`.
    pub(super) fn replay(
        &self,
        storage: &dyn Storage,
        mut change: impl FnMut(Logged) -> Result<()>,
    ) -> Result<()> {
        let mut window = Window::new(storage, self.region.clone());
        for entry in &self.entries {
            let Some(header) = EntryHeader::decode(window.page(entry.at)?) else {
                return Err(wrong("the log changed while it was read"));
            };
            let mut data = header.descriptor_pages();
            for index in 0..header.descriptor_pages() {
                let count = header.descriptors_in(index);
                let page = *window.page(entry.at + index * PAGE)?;
                for descriptor in Descriptor::decode_page(&page, index, count).flatten() {
                    match descriptor {
                        Descriptor::Zero { offset, len, .. } => {
                            let end = offset.checked_add(len).ok_or_else(|| {
                                wrong("a zeroed range ends beyond 2^64").at_offset(offset)
                            })?;
                            change(Logged::Zero(offset..end))?;
                        }
                        Descriptor::Data {
                            offset,
                            leading,
                            trailing,
                            ..
                        } => {
                            let page = window.page(entry.at + data * PAGE)?;
                            data += 1;
                            change(Logged::Page(offset, restore_page(page, leading, trailing)))?;
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

/// Where the header says the log lies; `None` when it is not on whole MiB behind the first.
pub(super) fn log_region(header: &Header) -> Option<Range<u64>> {
    let len = u64::from(header.log_len);
    let end = header.log_offset.checked_add(len)?;
    (header.log_offset >= MIB && header.log_offset.is_multiple_of(MIB) && len.is_multiple_of(MIB))
        .then_some(header.log_offset..end)
}

/// Reads pages of the log by their place in it, which wraps around.
struct Window<'a> {
    storage: &'a dyn Storage,
    region: Range<u64>,
    start: u64,
    bytes: Vec<u8>,
    single: Box<Page>,
}

impl<'a> Window<'a> {
    fn new(storage: &'a dyn Storage, region: Range<u64>) -> Self {
        Window {
            storage,
            region,
            start: 0,
            bytes: Vec::new(),
            single: Box::new([0; 4096]),
        }
    }

    fn len(&self) -> u64 {
        self.region.end - self.region.start
    }

    fn pages(&self) -> u64 {
        self.len() / PAGE
    }

    fn page(&mut self, at: u64) -> Result<&Page> {
        let at = at % self.len();
        if !(self.start..self.start + self.bytes.len() as u64).contains(&at) {
            // Logs are whole MiB, so a whole MiB is always there.
            self.start = at - at % MIB;
            self.bytes = read_vec(
                self.storage,
                self.region.start + self.start,
                MIB as usize,
                "log",
            )?;
        }
        let from = (at - self.start) as usize;
        if let Some(page) = self.bytes[from..].first_chunk::<4096>() {
            return Ok(page);
        }
        self.single = read_array(self.storage, self.region.start + at, "log")?;
        Ok(&self.single)
    }

    /// The entry that begins at `at`, if a valid one does.
    fn entry(&mut self, at: u64, header: &Header) -> Result<Option<Entry>> {
        let first = *self.page(at)?;
        let Some(entry) = EntryHeader::decode(&first) else {
            return Ok(None);
        };
        let len = u64::from(entry.len);
        let tail = u64::from(entry.tail);
        if entry.log != header.log
            || entry.sequence == 0
            || len == 0
            || len > self.len()
            || !len.is_multiple_of(PAGE)
            || tail >= self.len()
            || !tail.is_multiple_of(PAGE)
            || entry.descriptor_pages() > len / PAGE
        {
            return Ok(None);
        }
        let mut sum = crc32c::crc32c(&first[..4]);
        sum = crc32c::crc32c_append(sum, &[0; 4]);
        sum = crc32c::crc32c_append(sum, &first[8..]);
        let mut data_pages = 0;
        for index in 0..entry.descriptor_pages() {
            let page = self.page(at + index * PAGE)?;
            if index > 0 {
                sum = crc32c::crc32c_append(sum, page);
            }
            for descriptor in Descriptor::decode_page(page, index, entry.descriptors_in(index)) {
                match descriptor.filter(|found| fits(found, entry.sequence)) {
                    Some(Descriptor::Data { .. }) => data_pages += 1,
                    Some(Descriptor::Zero { .. }) => {}
                    None => return Ok(None),
                }
            }
        }
        if data_pages != len / PAGE - entry.descriptor_pages() {
            return Ok(None);
        }
        for index in entry.descriptor_pages()..len / PAGE {
            let page = self.page(at + index * PAGE)?;
            if data_page_sequence(page) != Some(entry.sequence) {
                return Ok(None);
            }
            sum = crc32c::crc32c_append(sum, page);
        }
        Ok((sum == entry.checksum).then_some(Entry {
            at,
            len,
            tail,
            sequence: entry.sequence,
            flushed_file: entry.flushed_file,
            last_file: entry.last_file,
        }))
    }
}

fn fits(descriptor: &Descriptor, entry_sequence: u64) -> bool {
    match *descriptor {
        Descriptor::Zero {
            offset,
            len,
            sequence,
        } => sequence == entry_sequence && offset.is_multiple_of(PAGE) && len.is_multiple_of(PAGE),
        Descriptor::Data {
            offset, sequence, ..
        } => sequence == entry_sequence && offset.is_multiple_of(PAGE),
    }
}

/// Of all runs of entries with rising sequence numbers, the one that ends with the greatest and
/// reaches back to that last entry's tail; from the tail on.
fn active_sequence(slots: &[Option<Entry>]) -> Option<Vec<Entry>> {
    let log_len = slots.len() as u64 * PAGE;
    let entry_at = |at: u64| slots.get((at / PAGE) as usize).copied().flatten();
    let next = |entry: &Entry| {
        let sequence = entry.sequence.checked_add(1)?;
        entry_at((entry.at + entry.len) % log_len).filter(|found| found.sequence == sequence)
    };
    // The end of the run that each entry belongs to. Sequence numbers rise along a run, so it
    // cannot close to a ring.
    let mut end_of: Vec<Option<u64>> = vec![None; slots.len()];
    let known = |ends: &[Option<u64>], at: u64| ends.get((at / PAGE) as usize).copied().flatten();
    let mut best: Option<Entry> = None;
    let mut ends = Vec::new();
    for start in slots.iter().flatten() {
        if known(&end_of, start.at).is_some() {
            continue;
        }
        let mut run = vec![start.at];
        let mut last = *start;
        let end = loop {
            match next(&last) {
                Some(after) => match known(&end_of, after.at) {
                    Some(end) => break end,
                    None => {
                        run.push(after.at);
                        last = after;
                    }
                },
                None => {
                    ends.push(last);
                    break last.at;
                }
            }
        };
        for at in run {
            if let Some(slot) = end_of.get_mut((at / PAGE) as usize) {
                *slot = Some(end);
            }
        }
    }
    for end in ends {
        let whole = known(&end_of, end.tail) == Some(end.at);
        if whole && best.is_none_or(|best| end.sequence > best.sequence) {
            best = Some(end);
        }
    }
    let head = best?;
    let mut sequence = Vec::new();
    let mut entry = entry_at(head.tail);
    while let Some(found) = entry {
        sequence.push(found);
        entry = next(&found);
    }
    Some(sequence)
}

fn wrong(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::malformed(message).in_field("log")
}
