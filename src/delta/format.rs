//! The layout of a delta file: the only place that knows its offsets. See
//! docs/reference/formats.md.

use std::fmt;

use crate::error::{Error, Result};
use crate::hash::Hash;
use crate::random::random;
use crate::units::BlockSize;

/// Length of the file header in bytes.
pub(super) const HEADER_LEN: usize = 128;
/// Length of a frame header in bytes.
pub(super) const FRAME_LEN: usize = 112;
/// Length of a trailer's payload in bytes.
pub(super) const TRAILER_LEN: usize = 160;

/// Names one job, so that records of an earlier run are never taken for this one's.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct JobId(pub [u8; 16]);

impl JobId {
    /// A fresh random id.
    ///
    /// # Errors
    /// `Io` when cannot get random bytes from the system.
    pub fn random() -> Result<Self> {
        random().map(JobId)
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a delta file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum Purpose {
    /// A file to carry away; bound to its base by the base's root.
    #[cfg_attr(feature = "serde", serde(rename = "delta"))]
    Portable,
    /// The redo log of an atomic sync; bound to its target by the old hash of each frame.
    RedoLog,
    /// The way back from a sync.
    Undo,
    /// The sidecar of an in-place sync: saved ranges and tables, no guest data.
    Sidecar,
}

impl Purpose {
    /// A noun phrase for messages.
    pub(super) fn describe(self) -> &'static str {
        match self {
            Purpose::Portable => "a delta",
            Purpose::RedoLog => "the log of an atomic sync",
            Purpose::Undo => "an undo file",
            Purpose::Sidecar => "the recovery file of an in-place sync",
        }
    }

    /// Whether frames other than guest data belong in such a file.
    pub(super) fn has_tables(self) -> bool {
        matches!(self, Purpose::RedoLog | Purpose::Sidecar)
    }
}

/// The header of a delta file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What the file is for.
    pub purpose: Purpose,
    /// The job that wrote it.
    pub job: JobId,
    /// Guest-visible length before, in bytes.
    pub base_len: u64,
    /// Guest-visible length after, in bytes.
    pub result_len: u64,
    /// Block size of the roots in the trailer.
    pub block_size: BlockSize,
}

impl Header {
    /// The header's bytes.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        put(&mut out, 0, MAGIC);
        put(&mut out, 8, &VERSION.to_le_bytes());
        put(&mut out, 10, &HASH_BLAKE3.to_le_bytes());
        put(&mut out, 12, &purpose_code(self.purpose).to_le_bytes());
        put(&mut out, 16, &self.job.0);
        put(&mut out, 32, &self.base_len.to_le_bytes());
        put(&mut out, 40, &self.result_len.to_le_bytes());
        put(&mut out, 48, &self.block_size.bytes().to_le_bytes());
        let crc = crc32fast::hash(&out[..HEADER_LEN - 4]);
        put(&mut out, HEADER_LEN - 4, &crc.to_le_bytes());
        out
    }

    /// Reads a header.
    ///
    /// # Errors
    /// `Malformed`, `Unsupported` for a later version or another hash.
    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Self> {
        if bytes[..8] != *MAGIC {
            return Err(Error::malformed("not a delta file")
                .in_field("magic")
                .at_offset(0));
        }
        let version = u16::from_le_bytes(take(bytes, 8));
        let hash_kind = u16::from_le_bytes(take(bytes, 10));
        if version != VERSION || hash_kind != HASH_BLAKE3 {
            return Err(Error::new(
                crate::ErrorKind::Unsupported,
                format!("delta file version {version} with hash kind {hash_kind}"),
            )
            .in_field("version")
            .at_offset(8)
            .advise("use the diskdelta that wrote it, or a later one"));
        }
        let crc = u32::from_le_bytes(take(bytes, HEADER_LEN - 4));
        if crc != crc32fast::hash(&bytes[..HEADER_LEN - 4]) {
            return Err(Error::malformed("delta header is damaged")
                .in_field("crc")
                .at_offset(HEADER_LEN as u64 - 4));
        }
        let purpose = match u32::from_le_bytes(take(bytes, 12)) {
            1 => Purpose::Portable,
            2 => Purpose::RedoLog,
            3 => Purpose::Undo,
            4 => Purpose::Sidecar,
            other => {
                return Err(Error::malformed(format!("unknown purpose {other}"))
                    .in_field("purpose")
                    .at_offset(12));
            }
        };
        let block_size = BlockSize::new(u64::from_le_bytes(take(bytes, 48)))
            .map_err(|_| Error::malformed("impossible block size").in_field("block_size"))
            .map_err(|e| e.at_offset(48))?;
        let header = Header {
            purpose,
            job: JobId(take(bytes, 16)),
            base_len: u64::from_le_bytes(take(bytes, 32)),
            result_len: u64::from_le_bytes(take(bytes, 40)),
            block_size,
        };
        if header.encode() != *bytes {
            return Err(Error::malformed("reserved bytes are not zero")
                .in_field("reserved")
                .at_offset(56));
        }
        Ok(header)
    }
}

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrameKind {
    /// New guest bytes.
    Data,
    /// A guest range that becomes zeros; no payload.
    Zero,
    /// New bytes of a table on the storage, written before guest data.
    Table,
    /// New bytes on the storage that make the image whole again, written last.
    LastTable,
    /// A range of the storage that becomes zeros, before tables and guest data; no payload.
    ZeroTable,
    /// The new length of the storage, in `len`; no payload.
    Length,
    /// Storage bytes under the marker, as they were before.
    Saved,
    /// The description of a redo log's job.
    Job,
    /// Everything before it belongs together; no payload.
    Commit,
    /// What the first page will hold once the marker is lifted, and a hash of the rest under it.
    Final,
    /// The end.
    Trailer,
}

/// What is known of the bytes that a frame replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Old {
    /// Nothing: they were not read.
    Unknown,
    /// Their hash.
    Hash(Hash),
    /// They are zeros.
    Zeros,
}

/// The header of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// What the frame carries.
    pub kind: FrameKind,
    /// Whether the payload is a zstd frame.
    pub compressed: bool,
    /// Position among the file's frames, from 0.
    pub sequence: u64,
    /// First byte: guest bytes for `Data` and `Zero`, storage bytes for the others.
    pub offset: u64,
    /// How many bytes the frame stands for.
    pub len: u64,
    /// How many payload bytes follow the header.
    pub stored_len: u32,
    /// Hash of the new bytes; zeros for kinds without payload.
    pub new_hash: Hash,
    /// What is known of the bytes that are replaced.
    pub old: Old,
}

impl FrameHeader {
    /// The header's bytes, sealed over the payload that follows it.
    pub fn encode(&self, job: JobId, payload: &[u8]) -> [u8; FRAME_LEN] {
        let mut out = [0; FRAME_LEN];
        put(&mut out, 0, FRAME_MAGIC);
        out[4] = kind_code(self.kind);
        out[5] = u8::from(self.compressed);
        put(&mut out, 8, &self.sequence.to_le_bytes());
        put(&mut out, 16, &self.offset.to_le_bytes());
        put(&mut out, 24, &self.len.to_le_bytes());
        put(&mut out, 32, &self.stored_len.to_le_bytes());
        put(&mut out, 40, self.new_hash.as_bytes());
        match self.old {
            Old::Unknown => {}
            Old::Hash(hash) => {
                out[6] = 1;
                put(&mut out, 72, hash.as_bytes());
            }
            Old::Zeros => out[6] = 2,
        }
        let crc = frame_crc(job, &out, payload);
        put(&mut out, 36, &crc.to_le_bytes());
        out
    }

    /// Reads a frame header; the seal is checked by [`FrameHeader::is_sealed`].
    ///
    /// # Errors
    /// `Malformed`.
    pub fn decode(bytes: &[u8; FRAME_LEN]) -> Result<Self> {
        if bytes[..4] != *FRAME_MAGIC {
            return Err(Error::malformed("no frame begins here").in_field("frame magic"));
        }
        let kind = kind_of(bytes[4])
            .ok_or_else(|| Error::malformed("unknown frame kind").in_field("frame kind"))?;
        let old = match bytes[6] {
            0 => Old::Unknown,
            1 => Old::Hash(Hash::from_bytes(take(bytes, 72))),
            2 => Old::Zeros,
            _ => return Err(Error::malformed("unknown kind of old bytes").in_field("frame old")),
        };
        if bytes[5] > 1 {
            return Err(Error::malformed("unknown encoding").in_field("frame encoding"));
        }
        Ok(FrameHeader {
            kind,
            compressed: bytes[5] == 1,
            sequence: u64::from_le_bytes(take(bytes, 8)),
            offset: u64::from_le_bytes(take(bytes, 16)),
            len: u64::from_le_bytes(take(bytes, 24)),
            stored_len: u32::from_le_bytes(take(bytes, 32)),
            new_hash: Hash::from_bytes(take(bytes, 40)),
            old,
        })
    }

    /// Whether header and payload are what `job` wrote.
    pub fn is_sealed(&self, job: JobId, bytes: &[u8; FRAME_LEN], payload: &[u8]) -> bool {
        self.encode(job, payload) == *bytes
    }
}

/// The end of a complete delta file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trailer {
    /// Frames before the trailer.
    pub frame_count: u64,
    /// Guest bytes in `Data` frames.
    pub data_bytes: u64,
    /// Guest bytes in `Zero` frames.
    pub zero_bytes: u64,
    /// Digest of the file header and of all frame headers.
    pub digest: Hash,
    /// Root of the base, where it is known.
    pub base_root: Option<Hash>,
    /// Root of the result, where it is known.
    pub result_root: Option<Hash>,
}

impl Trailer {
    /// The trailer's payload.
    pub fn encode(&self) -> [u8; TRAILER_LEN] {
        let mut out = [0; TRAILER_LEN];
        put(&mut out, 0, &self.frame_count.to_le_bytes());
        put(&mut out, 8, &self.data_bytes.to_le_bytes());
        put(&mut out, 16, &self.zero_bytes.to_le_bytes());
        put(&mut out, 32, self.digest.as_bytes());
        if let Some(root) = &self.base_root {
            out[24] = 1;
            put(&mut out, 64, root.as_bytes());
        }
        if let Some(root) = &self.result_root {
            out[25] = 1;
            put(&mut out, 96, root.as_bytes());
        }
        out
    }

    /// Reads a trailer's payload.
    ///
    /// # Errors
    /// `Malformed`.
    pub fn decode(bytes: &[u8; TRAILER_LEN]) -> Result<Self> {
        let trailer = Trailer {
            frame_count: u64::from_le_bytes(take(bytes, 0)),
            data_bytes: u64::from_le_bytes(take(bytes, 8)),
            zero_bytes: u64::from_le_bytes(take(bytes, 16)),
            digest: Hash::from_bytes(take(bytes, 32)),
            base_root: (bytes[24] == 1).then(|| Hash::from_bytes(take(bytes, 64))),
            result_root: (bytes[25] == 1).then(|| Hash::from_bytes(take(bytes, 96))),
        };
        if trailer.encode() != *bytes {
            return Err(Error::malformed("reserved bytes are not zero").in_field("trailer"));
        }
        Ok(trailer)
    }
}

/// A hasher for the digest over all frames.
pub(super) fn digest_hasher() -> blake3::Hasher {
    blake3::Hasher::new_derive_key("diskdelta 2026-11-22 digest of the frames of a delta file v1")
}

pub(super) const MAGIC: &[u8; 8] = b"DISKDELT";
const FRAME_MAGIC: &[u8; 4] = b"FRAM";
const VERSION: u16 = 1;
const HASH_BLAKE3: u16 = 1;

const KINDS: [(u8, FrameKind); 11] = [
    (1, FrameKind::Data),
    (2, FrameKind::Zero),
    (3, FrameKind::Table),
    (4, FrameKind::LastTable),
    (5, FrameKind::Length),
    (6, FrameKind::Saved),
    (7, FrameKind::Job),
    (8, FrameKind::Commit),
    (9, FrameKind::Trailer),
    (10, FrameKind::Final),
    (11, FrameKind::ZeroTable),
];

fn kind_of(code: u8) -> Option<FrameKind> {
    KINDS
        .iter()
        .find(|(known, _)| *known == code)
        .map(|(_, kind)| *kind)
}

fn kind_code(kind: FrameKind) -> u8 {
    KINDS
        .iter()
        .find(|(_, known)| *known == kind)
        .map_or(0, |(code, _)| *code)
}

fn purpose_code(purpose: Purpose) -> u32 {
    match purpose {
        Purpose::Portable => 1,
        Purpose::RedoLog => 2,
        Purpose::Undo => 3,
        Purpose::Sidecar => 4,
    }
}

/// The job id goes in first, so that a frame of another run never passes for one of this.
fn frame_crc(job: JobId, header: &[u8; FRAME_LEN], payload: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&job.0);
    crc.update(&header[..36]);
    crc.update(&header[40..]);
    crc.update(payload);
    crc.finalize()
}

/// Offsets in this file are constants inside the arrays they index.
fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    out[at..at + bytes.len()].copy_from_slice(bytes);
}

fn take<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    const HEADER: Header = Header {
        purpose: Purpose::RedoLog,
        job: JobId([7; 16]),
        base_len: 1 << 30,
        result_len: 1 << 31,
        block_size: BlockSize::MIN,
    };

    #[test]
    fn a_header_with_any_bit_flipped_is_refused() {
        let bytes = HEADER.encode();
        assert_eq!(Header::decode(&bytes).unwrap(), HEADER);
        for bit in 0..HEADER_LEN * 8 {
            let mut wrong = bytes;
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::decode(&wrong).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_header_of_another_version_or_hash_is_unsupported_and_a_damaged_one_malformed() {
        for (at, kind) in [
            (0, ErrorKind::Malformed),
            (8, ErrorKind::Unsupported),
            (10, ErrorKind::Unsupported),
            (12, ErrorKind::Malformed),
        ] {
            let mut bytes = HEADER.encode();
            bytes[at] ^= 0x40;
            let error = Header::decode(&bytes).unwrap_err();
            assert_eq!(error.kind(), kind, "byte {at}: {error}");
        }
        let mut bytes = HEADER.encode();
        bytes[20] ^= 1;
        let error = Header::decode(&bytes).unwrap_err();
        assert_eq!(error.offset(), Some(HEADER_LEN as u64 - 4), "{error}");
    }

    #[test]
    fn the_digest_over_frames_is_no_other_hash() {
        let context = "diskdelta 2026-11-22 digest of the frames of a delta file v1";
        let mut digest = digest_hasher();
        digest.update(b"frames");
        assert_eq!(
            *digest.finalize().as_bytes(),
            blake3::derive_key(context, b"frames")
        );
    }

    #[test]
    fn a_job_is_called_by_its_bytes_in_hex() {
        let mut id = [7; 16];
        id[15] = 0xab;
        let name = format!("{}ab", "07".repeat(15));
        assert_eq!(JobId(id).to_string(), name);
        assert_eq!(format!("{:?}", JobId(id)), name);
    }

    #[test]
    fn a_frame_is_sealed_by_its_job_and_payload() {
        let frame = FrameHeader {
            kind: FrameKind::Data,
            compressed: false,
            sequence: 3,
            offset: 4096,
            len: 5,
            stored_len: 5,
            new_hash: Hash::from_bytes([1; 32]),
            old: Old::Hash(Hash::from_bytes([2; 32])),
        };
        let bytes = frame.encode(HEADER.job, b"hello");
        assert_eq!(FrameHeader::decode(&bytes).unwrap(), frame);
        assert!(frame.is_sealed(HEADER.job, &bytes, b"hello"));
        assert!(!frame.is_sealed(HEADER.job, &bytes, b"hellp"));
        assert!(!frame.is_sealed(JobId([8; 16]), &bytes, b"hello"));
        for bit in 0..FRAME_LEN * 8 {
            let mut wrong = bytes;
            wrong[bit / 8] ^= 1 << (bit % 8);
            let passes = FrameHeader::decode(&wrong)
                .is_ok_and(|frame| frame.is_sealed(HEADER.job, &wrong, b"hello"));
            assert!(!passes, "bit {bit}");
        }
    }

    #[test]
    fn a_trailer_survives_encoding() {
        let trailer = Trailer {
            frame_count: 1,
            data_bytes: 2,
            zero_bytes: 3,
            digest: Hash::from_bytes([4; 32]),
            base_root: None,
            result_root: Some(Hash::from_bytes([5; 32])),
        };
        assert_eq!(Trailer::decode(&trailer.encode()).unwrap(), trailer);
    }
}
