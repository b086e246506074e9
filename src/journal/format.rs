//! How a journal lies on disk. All integers are little-endian.
//!
//! ```text
//! 0      file header: magic, version, job id, records left out, CRC-32
//! 512    seal A ┐ of the newest record that was acted upon; written in turn,
//! 1024   seal B ┘ each in a sector of its own, so that one of them is always whole
//! 4096   records, one after the other: header, payload
//! ```
//! A record's header holds its length, CRC-32, sequence number and the hash of the record before
//! it; the first record names the hash of the file header. So nothing can be taken out, put in or
//! exchanged without breaking the chain, and the seal tells how long the chain must be at least.
//! The seal also tells where the newest record begins, so that it is found without reading those
//! before it.
//!
//! Version 1 has neither the count of records left out nor the beginning in its seals. It is read,
//! and gone on with, until the journal is compacted.

use crate::error::{Error, Result};

/// Where the records begin.
pub(super) const RECORDS_OFFSET: u64 = 4096;
/// Length of the file header; of version 1 the first 32 bytes.
pub(super) const FILE_HEADER_LEN: usize = 40;
const FILE_HEADER_LEN_V1: usize = 32;
/// Length of a record's header.
pub(super) const RECORD_HEADER_LEN: usize = 48;
/// Length of a seal; of version 1 the first 56 bytes.
pub(super) const SEAL_LEN: usize = 64;
const SEAL_LEN_V1: usize = 56;
/// Where the seals lie.
pub(super) const SEAL_OFFSETS: [u64; 2] = [512, 1024];
/// Longest payload that is written or trusted.
pub(super) const PAYLOAD_MAX: usize = 1 << 20;

const MAGIC: [u8; 8] = *b"DDJRNL\r\n";
/// The version of new journals.
pub(super) const VERSION: u32 = 2;

/// The hash that ties a record to the one before it.
pub(super) type Link = [u8; 32];

/// The beginning of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileHeader {
    pub version: u32,
    /// Random; tells two journals apart.
    pub job: [u8; 16],
    /// How many records were left out behind the first one, all in all.
    pub left_out: u64,
}

impl FileHeader {
    pub(super) fn new(job: [u8; 16], left_out: u64) -> Self {
        FileHeader {
            version: VERSION,
            job,
            left_out,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(self.version.to_le_bytes());
        bytes.extend(self.job);
        if self.version > 1 {
            bytes.extend(self.left_out.to_le_bytes());
        }
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8; FILE_HEADER_LEN]) -> Result<Self> {
        let mut take = Take(bytes);
        if take.array::<8>() != MAGIC {
            return Err(Error::malformed("this is not a job's journal").in_field("magic"));
        }
        let version = u32::from_le_bytes(take.array());
        let job = take.array();
        let (left_out, len) = match version {
            1 => (0, FILE_HEADER_LEN_V1),
            _ => (u64::from_le_bytes(take.array()), FILE_HEADER_LEN),
        };
        let crc = u32::from_le_bytes(take.array());
        if crc != crc32fast::hash(&bytes[..len - 4]) {
            return Err(Error::malformed("the journal's header is damaged").in_field("crc32"));
        }
        if !(1..=VERSION).contains(&version) {
            return Err(Error::new(
                crate::ErrorKind::Unsupported,
                format!("the journal has version {version}, this program knows {VERSION}"),
            )
            .in_field("version"));
        }
        Ok(FileHeader {
            version,
            job,
            left_out,
        })
    }

    /// What the first record names as the one before it.
    pub(super) fn link(&self) -> Link {
        *blake3::hash(&self.encode()).as_bytes()
    }
}

/// What stands before a record's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordHeader {
    /// Length of the payload.
    pub len: u32,
    /// Over all that follows it: sequence, link, payload.
    pub crc32: u32,
    /// Counts from 1.
    pub sequence: u64,
    /// The hash of the record before.
    pub previous: Link,
}

impl RecordHeader {
    pub(super) fn new(sequence: u64, previous: Link, payload: &[u8]) -> Self {
        // The caller keeps payloads under `PAYLOAD_MAX`.
        let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let mut header = RecordHeader {
            len,
            crc32: 0,
            sequence,
            previous,
        };
        header.crc32 = header.checksum(payload);
        header
    }

    pub(super) fn encode(&self) -> [u8; RECORD_HEADER_LEN] {
        let mut bytes = [0; RECORD_HEADER_LEN];
        let mut put = Put(&mut bytes);
        put.bytes(&self.len.to_le_bytes());
        put.bytes(&self.crc32.to_le_bytes());
        put.bytes(&self.sequence.to_le_bytes());
        put.bytes(&self.previous);
        bytes
    }

    pub(super) fn decode(bytes: &[u8; RECORD_HEADER_LEN]) -> Self {
        let mut take = Take(bytes);
        RecordHeader {
            len: u32::from_le_bytes(take.array()),
            crc32: u32::from_le_bytes(take.array()),
            sequence: u64::from_le_bytes(take.array()),
            previous: take.array(),
        }
    }

    pub(super) fn checksum(&self, payload: &[u8]) -> u32 {
        let mut crc = crc32fast::Hasher::new();
        crc.update(&self.encode()[8..]);
        crc.update(payload);
        crc.finalize()
    }

    /// What the next record names as the one before it.
    pub(super) fn link(&self, payload: &[u8]) -> Link {
        let mut hash = blake3::Hasher::new();
        hash.update(&self.encode()).update(payload);
        *hash.finalize().as_bytes()
    }
}

/// Says how long the chain is, and how it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seal {
    /// How many records there are.
    pub count: u64,
    /// Where the last one begins, in bytes; 0 where that is not known, and where there is none.
    pub begin: u64,
    /// Where the last one ends, in bytes.
    pub end: u64,
    /// The hash of the last one.
    pub link: Link,
}

impl Seal {
    /// The seal of a journal without records.
    pub(super) fn none(header: &FileHeader) -> Self {
        Seal {
            count: 0,
            begin: 0,
            end: RECORDS_OFFSET,
            link: header.link(),
        }
    }

    /// The seal once a record follows.
    pub(super) fn after(&self, header: &RecordHeader, payload: &[u8]) -> Self {
        Seal {
            count: header.sequence,
            begin: self.end,
            end: self.end + (RECORD_HEADER_LEN + payload.len()) as u64,
            link: header.link(payload),
        }
    }

    pub(super) fn encode(&self, version: u32) -> Vec<u8> {
        let mut bytes = self.count.to_le_bytes().to_vec();
        bytes.extend(self.end.to_le_bytes());
        bytes.extend(self.link);
        if version > 1 {
            bytes.extend(self.begin.to_le_bytes());
        }
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        bytes.extend(b"SEAL");
        bytes
    }

    /// `None` where it is torn or was never written.
    pub(super) fn decode(bytes: &[u8; SEAL_LEN], version: u32) -> Option<Self> {
        let mut take = Take(bytes);
        let seal = Seal {
            count: u64::from_le_bytes(take.array()),
            end: u64::from_le_bytes(take.array()),
            link: take.array(),
            begin: match version {
                1 => 0,
                _ => u64::from_le_bytes(take.array()),
            },
        };
        let len = if version > 1 { SEAL_LEN } else { SEAL_LEN_V1 };
        (seal.encode(version) == bytes[..len]).then_some(seal)
    }
}

/// Fills fixed bytes from front to back.
struct Put<'a>(&'a mut [u8]);

impl Put<'_> {
    fn bytes(&mut self, bytes: &[u8]) {
        let (front, rest) = std::mem::take(&mut self.0).split_at_mut(bytes.len());
        front.copy_from_slice(bytes);
        self.0 = rest;
    }
}

/// Takes fixed bytes from front to back. The callers' lengths are constants that fit.
struct Take<'a>(&'a [u8]);

impl Take<'_> {
    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        if let Some((front, rest)) = self.0.split_at_checked(N) {
            array.copy_from_slice(front);
            self.0 = rest;
        }
        array
    }
}
