//! The layout of a manifest file: header, rows, records. Nothing else knows offsets.
//!
//! All numbers are little-endian. See `docs/reference/formats.md`, section "Manifest".

use std::ops::Range;

use super::tree::{Digest, Occupancy};
use crate::error::{Error, ErrorKind, Result};

/// What a manifest begins with.
pub(crate) const MAGIC: [u8; 8] = *b"ddmanif\x1a";
/// Where the header's fields lie.
pub(crate) const HEADER_LEN: usize = 256;
const VERSION: u16 = 1;
/// Plain BLAKE3 of each block, under a tree of fan-out 256.
const HASH_KIND_BLAKE3: u16 = 1;
const AT_VERSION: usize = 8;
const AT_HASH_KIND: usize = 10;
const AT_BLOCK_SIZE: usize = 12;
const AT_DISK_LEN: usize = 16;
const AT_ROOT: usize = 24;
const AT_BODY_END: usize = 56;
const AT_DATA_BLOCKS: usize = 64;
const AT_TOP_OFFSET: usize = 72;
const AT_TOP_OCCUPANCY: usize = 80;
const AT_TOP_HASH: usize = 112;
const AT_RESERVED: usize = 144;
const AT_CHECKSUM: usize = 252;

/// The header as it stands in the file; only its checksum, version and kind have been looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub block_size: u32,
    pub disk_len: u64,
    pub root: Digest,
    /// First byte after the rows.
    pub body_end: u64,
    pub data_blocks: u64,
    pub top: RowRef,
}

/// Where a node's row lies and what it must hash to. All zeros where there is no node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct RowRef {
    pub offset: u64,
    pub occupancy: Occupancy,
    pub hash: Digest,
}

impl Header {
    pub(super) fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        let mut put = |at: usize, field: &[u8]| {
            bytes[at..at + field.len()].copy_from_slice(field);
        };
        put(0, &MAGIC);
        put(AT_VERSION, &VERSION.to_le_bytes());
        put(AT_HASH_KIND, &HASH_KIND_BLAKE3.to_le_bytes());
        put(AT_BLOCK_SIZE, &self.block_size.to_le_bytes());
        put(AT_DISK_LEN, &self.disk_len.to_le_bytes());
        put(AT_ROOT, &self.root);
        put(AT_BODY_END, &self.body_end.to_le_bytes());
        put(AT_DATA_BLOCKS, &self.data_blocks.to_le_bytes());
        put(AT_TOP_OFFSET, &self.top.offset.to_le_bytes());
        put(AT_TOP_OCCUPANCY, &self.top.occupancy.to_bytes());
        put(AT_TOP_HASH, &self.top.hash);
        let checksum = crc32fast::hash(&bytes[..AT_CHECKSUM]);
        bytes[AT_CHECKSUM..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Self> {
        let wrong = |message: &'static str, field, at: usize| {
            Error::malformed(message)
                .in_field(field)
                .at_offset(at as u64)
        };
        if bytes[..MAGIC.len()] != MAGIC {
            return Err(wrong("this is not a manifest", "magic", 0));
        }
        let stated = u32::from_le_bytes(field(bytes, AT_CHECKSUM));
        if crc32fast::hash(&bytes[..AT_CHECKSUM]) != stated {
            return Err(wrong("the header is damaged", "checksum", AT_CHECKSUM)
                .advise("build the manifest again"));
        }
        let version = u16::from_le_bytes(field(bytes, AT_VERSION));
        if version != VERSION {
            return Err(unsupported("version", version, AT_VERSION));
        }
        let hash_kind = u16::from_le_bytes(field(bytes, AT_HASH_KIND));
        if hash_kind != HASH_KIND_BLAKE3 {
            return Err(unsupported("hash_kind", hash_kind, AT_HASH_KIND));
        }
        if bytes[AT_RESERVED..AT_CHECKSUM]
            .iter()
            .any(|byte| *byte != 0)
        {
            return Err(wrong(
                "reserved bytes are not zero",
                "reserved",
                AT_RESERVED,
            ));
        }
        Ok(Header {
            block_size: u32::from_le_bytes(field(bytes, AT_BLOCK_SIZE)),
            disk_len: u64::from_le_bytes(field(bytes, AT_DISK_LEN)),
            root: field(bytes, AT_ROOT),
            body_end: u64::from_le_bytes(field(bytes, AT_BODY_END)),
            data_blocks: u64::from_le_bytes(field(bytes, AT_DATA_BLOCKS)),
            top: RowRef {
                offset: u64::from_le_bytes(field(bytes, AT_TOP_OFFSET)),
                occupancy: Occupancy::from_bytes(&field(bytes, AT_TOP_OCCUPANCY)),
                hash: field(bytes, AT_TOP_HASH),
            },
        })
    }
}

/// A node's row: the hashes of its children, then (above the groups) where their rows lie.
pub(crate) mod row {
    use super::{Digest, Occupancy, RowRef, field};

    const HASH_LEN: usize = 32;
    const OCCUPANCY_LEN: usize = 32;
    const OFFSET_LEN: usize = 8;

    /// Bytes of a row with `count` children, which is at most 256.
    pub(crate) fn len(level: u32, count: usize) -> usize {
        match level {
            1 => count * HASH_LEN,
            _ => count * (HASH_LEN + OCCUPANCY_LEN + OFFSET_LEN),
        }
    }

    /// Appends a row to `out`; a group's children need no more than their hashes.
    pub(crate) fn encode(level: u32, children: &[RowRef], out: &mut Vec<u8>) {
        for child in children {
            out.extend_from_slice(&child.hash);
        }
        if level > 1 {
            for child in children {
                out.extend_from_slice(&child.occupancy.to_bytes());
            }
            for child in children {
                out.extend_from_slice(&child.offset.to_le_bytes());
            }
        }
    }

    /// What the node hashes beside its occupancy.
    pub(crate) fn hashes(row: &[u8], count: usize) -> &[u8] {
        row.get(..count * HASH_LEN).unwrap_or_default()
    }

    /// The hash of the child that has `rank` others before it.
    pub(crate) fn hash(row: &[u8], rank: usize) -> Option<Digest> {
        part(row, rank * HASH_LEN, HASH_LEN).map(|hash| field(hash, 0))
    }

    /// Where that child's own row lies; only above the groups.
    pub(crate) fn child(row: &[u8], count: usize, rank: usize) -> Option<RowRef> {
        let at_occupancy = count * HASH_LEN + rank * OCCUPANCY_LEN;
        let at_offset = count * (HASH_LEN + OCCUPANCY_LEN) + rank * OFFSET_LEN;
        Some(RowRef {
            hash: hash(row, rank)?,
            occupancy: Occupancy::from_bytes(&field(part(row, at_occupancy, OCCUPANCY_LEN)?, 0)),
            offset: u64::from_le_bytes(field(part(row, at_offset, OFFSET_LEN)?, 0)),
        })
    }

    fn part(row: &[u8], at: usize, len: usize) -> Option<&[u8]> {
        row.get(at..at + len)
    }
}

/// An intent record: ranges of the disk that are about to change.
pub(crate) mod intent {
    use super::{Digest, Range, field};

    const MAGIC: [u8; 8] = *b"ddintent";
    const AT_ROOT: usize = 8;
    const AT_COUNT: usize = 40;
    const AT_CHECKSUM: usize = 44;
    const FIXED_LEN: usize = 48;
    const RANGE_LEN: usize = 16;

    /// A record that binds `ranges` to the manifest with `root`.
    ///
    /// `ranges` is shorter than 2^32, which the caller sees to.
    pub(crate) fn encode(root: &Digest, ranges: &[Range<u64>]) -> Vec<u8> {
        let count = u32::try_from(ranges.len()).unwrap_or(u32::MAX);
        let mut record = Vec::with_capacity(FIXED_LEN + ranges.len() * RANGE_LEN);
        record.extend_from_slice(&MAGIC);
        record.extend_from_slice(root);
        record.extend_from_slice(&count.to_le_bytes());
        record.extend_from_slice(&[0; 4]);
        for range in ranges {
            record.extend_from_slice(&range.start.to_le_bytes());
            record.extend_from_slice(&range.end.to_le_bytes());
        }
        let checksum = checksum(&record);
        record[AT_CHECKSUM..FIXED_LEN].copy_from_slice(&checksum.to_le_bytes());
        record
    }

    /// Splits the first record off `bytes`; `None` when there is none that is whole and bound to
    /// `root`.
    pub(crate) fn decode<'a>(
        bytes: &'a [u8],
        root: &Digest,
    ) -> Option<(impl Iterator<Item = Range<u64>> + 'a, &'a [u8])> {
        let fixed = bytes.get(..FIXED_LEN)?;
        if fixed[..MAGIC.len()] != MAGIC || fixed[AT_ROOT..AT_COUNT] != root[..] {
            return None;
        }
        let count = usize::try_from(u32::from_le_bytes(field(fixed, AT_COUNT))).ok()?;
        let len = count.checked_mul(RANGE_LEN)?.checked_add(FIXED_LEN)?;
        let (record, rest) = bytes.split_at_checked(len)?;
        if checksum(record) != u32::from_le_bytes(field(fixed, AT_CHECKSUM)) {
            return None;
        }
        let (ranges, _) = record.get(FIXED_LEN..)?.as_chunks::<RANGE_LEN>();
        let ranges = ranges.iter().map(|range| Range {
            start: u64::from_le_bytes(field(range, 0)),
            end: u64::from_le_bytes(field(range, 8)),
        });
        Some((ranges, rest))
    }

    /// CRC-32 of the record without the checksum itself.
    fn checksum(record: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&record[..AT_CHECKSUM]);
        hasher.update(&record[FIXED_LEN..]);
        hasher.finalize()
    }
}

/// A stamp record: 32 bytes that the manifest is bound to.
pub(crate) mod stamp {
    use super::{Digest, field};

    /// Which state of which file or device the manifest describes.
    pub(crate) const OF_DISK: [u8; 8] = *b"ddstamp\x1a";
    /// The identity of the source whose disk the manifest describes.
    pub(crate) const OF_SOURCE: [u8; 8] = *b"ddsource";
    const AT_ROOT: usize = 8;
    const AT_FINGERPRINT: usize = 40;
    const AT_CHECKSUM: usize = 72;
    const LEN: usize = 80;

    /// A record that binds `fingerprint` to the manifest with `root`.
    pub(crate) fn encode(magic: &[u8; 8], root: &Digest, fingerprint: &[u8; 32]) -> [u8; LEN] {
        let mut record = [0; LEN];
        record[..AT_ROOT].copy_from_slice(magic);
        record[AT_ROOT..AT_FINGERPRINT].copy_from_slice(root);
        record[AT_FINGERPRINT..AT_CHECKSUM].copy_from_slice(fingerprint);
        let checksum = crc32fast::hash(&record[..AT_CHECKSUM]);
        record[AT_CHECKSUM..AT_CHECKSUM + 4].copy_from_slice(&checksum.to_le_bytes());
        record
    }

    /// Splits the first record off `bytes`; `None` when there is none that is whole, begins with
    /// `magic` and is bound to `root`.
    pub(crate) fn decode<'a>(
        magic: &[u8; 8],
        bytes: &'a [u8],
        root: &Digest,
    ) -> Option<([u8; 32], &'a [u8])> {
        let (record, rest) = bytes.split_at_checked(LEN)?;
        let checksum = u32::from_le_bytes(field(record, AT_CHECKSUM));
        let whole = record[..AT_ROOT] == magic[..]
            && record[AT_ROOT..AT_FINGERPRINT] == root[..]
            && record[AT_CHECKSUM + 4..] == [0; 4]
            && crc32fast::hash(&record[..AT_CHECKSUM]) == checksum;
        whole.then(|| (field(record, AT_FINGERPRINT), rest))
    }
}

/// The signature of a manifest, a text.
pub(crate) mod signature {
    use super::{Digest, field};

    const MAGIC: [u8; 8] = *b"ddsigned";
    const AT_ROOT: usize = 8;
    const AT_LEN: usize = 40;
    const AT_CHECKSUM: usize = 44;
    const FIXED_LEN: usize = 48;
    /// A signature has some 300 bytes, and a name.
    pub(crate) const MOST_BYTES: usize = 4096;

    /// A record that binds `text`, of at most 4096 bytes, to the manifest with `root`.
    pub(crate) fn encode(root: &Digest, text: &str) -> Vec<u8> {
        let len = u32::try_from(text.len()).unwrap_or(u32::MAX);
        let mut record = Vec::with_capacity(FIXED_LEN + text.len());
        record.extend_from_slice(&MAGIC);
        record.extend_from_slice(root);
        record.extend_from_slice(&len.to_le_bytes());
        record.extend_from_slice(&[0; 4]);
        record.extend_from_slice(text.as_bytes());
        let checksum = checksum(&record);
        record[AT_CHECKSUM..FIXED_LEN].copy_from_slice(&checksum.to_le_bytes());
        record
    }

    /// Splits the first record off `bytes`; `None` when there is none that is whole and bound to
    /// `root`.
    pub(crate) fn decode<'a>(bytes: &'a [u8], root: &Digest) -> Option<(&'a str, &'a [u8])> {
        let fixed = bytes.get(..FIXED_LEN)?;
        if fixed[..AT_ROOT] != MAGIC || fixed[AT_ROOT..AT_LEN] != root[..] {
            return None;
        }
        let len = usize::try_from(u32::from_le_bytes(field(fixed, AT_LEN))).ok()?;
        let len = Some(len).filter(|len| *len <= MOST_BYTES)?;
        let (record, rest) = bytes.split_at_checked(FIXED_LEN + len)?;
        let is_whole = checksum(record) == u32::from_le_bytes(field(fixed, AT_CHECKSUM));
        let text = str::from_utf8(record.get(FIXED_LEN..)?).ok()?;
        is_whole.then_some((text, rest))
    }

    /// CRC-32 of the record without the checksum itself.
    fn checksum(record: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&record[..AT_CHECKSUM]);
        hasher.update(&record[FIXED_LEN..]);
        hasher.finalize()
    }
}

/// A fixed field of a structure whose length the caller has checked.
fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}

fn unsupported(name: &'static str, value: u16, at: usize) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!("a manifest with {name} {value} is not known"),
    )
    .in_field(name)
    .at_offset(at as u64)
    .advise("use a newer diskdelta, or build the manifest again")
}
