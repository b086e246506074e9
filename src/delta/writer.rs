//! Writing a delta file.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use super::format::{FrameHeader, FrameKind, HEADER_LEN, Header, Old, Trailer, digest_hasher};
use super::frame::VerifiedFrame;
use crate::error::{Error, ErrorKind, Result};
use crate::hash::Hash;
use crate::storage::Storage;

/// A frame ready to be written: hashed, and compressed where that pays.
///
/// Making one is the costly part and needs no access to the file, so many threads can.
#[derive(Debug, Clone)]
pub struct Frame<'a> {
    kind: FrameKind,
    compressed: bool,
    offset: u64,
    len: u64,
    new_hash: Hash,
    old: Old,
    payload: Cow<'a, [u8]>,
}

impl<'a> Frame<'a> {
    /// New guest bytes at `offset`; `level` is a zstd level, used where it saves an eighth.
    pub fn data(offset: u64, new: &'a [u8], old: Old, level: Option<i32>) -> Self {
        let payload = level.and_then(|level| compress(new, level));
        Frame {
            kind: FrameKind::Data,
            compressed: payload.is_some(),
            offset,
            len: new.len() as u64,
            new_hash: Hash::of(new),
            old,
            payload: payload.map_or(Cow::Borrowed(new), Cow::Owned),
        }
    }

    /// A guest range of `len` bytes that becomes zeros.
    pub fn zero(offset: u64, len: u64, old: Old) -> Self {
        Frame {
            old,
            ..Self::bare(FrameKind::Zero, offset, len)
        }
    }

    /// The guest bytes of a frame that was read and found right; `None` for other kinds.
    pub(crate) fn again(frame: &'a VerifiedFrame<'_>) -> Option<Self> {
        let header = frame.header();
        match header.kind {
            FrameKind::Data => Some(Frame {
                new_hash: header.new_hash,
                payload: Cow::Borrowed(frame.bytes()),
                old: header.old,
                ..Self::bare(FrameKind::Data, header.offset, header.len)
            }),
            FrameKind::Zero => Some(Self::zero(header.offset, header.len, header.old)),
            _ => None,
        }
    }

    /// The same frame with bytes of its own.
    pub(crate) fn into_owned(self) -> Frame<'static> {
        Frame {
            payload: Cow::Owned(self.payload.into_owned()),
            ..self
        }
    }

    /// The guest bytes that the frame brings; `None` for zeros.
    ///
    /// # Errors
    /// `Malformed` where its own compression cannot be undone.
    pub(crate) fn new_bytes(&self) -> Result<Option<Cow<'_, [u8]>>> {
        if self.kind != FrameKind::Data {
            return Ok(None);
        }
        if !self.compressed {
            return Ok(Some(Cow::Borrowed(&self.payload[..])));
        }
        let len = usize::try_from(self.len).unwrap_or(usize::MAX);
        match zstd::bulk::decompress(&self.payload, len) {
            Ok(bytes) => Ok(Some(Cow::Owned(bytes))),
            Err(cause) => Err(Error::malformed("a frame does not decompress").caused_by(cause)),
        }
    }

    /// Bytes of a table, a saved range or a job description.
    pub(crate) fn bytes(kind: FrameKind, offset: u64, bytes: &'a [u8]) -> Self {
        Frame {
            kind,
            ..Self::data(offset, bytes, Old::Unknown, None)
        }
    }

    /// The new length of the storage.
    pub(crate) fn length(len: u64) -> Self {
        Self::bare(FrameKind::Length, 0, len)
    }

    /// A range of the storage that becomes zeros.
    pub(crate) fn zero_table(range: Range<u64>) -> Self {
        Self::bare(FrameKind::ZeroTable, range.start, range.end - range.start)
    }

    fn bare(kind: FrameKind, offset: u64, len: u64) -> Self {
        Frame {
            kind,
            compressed: false,
            offset,
            len,
            new_hash: Hash::ZERO,
            old: Old::Unknown,
            payload: Cow::Borrowed(&[]),
        }
    }
}

/// Appends frames to a delta file.
pub struct DeltaWriter {
    storage: Arc<dyn Storage>,
    header: Header,
    digest: blake3::Hasher,
    trailer: Trailer,
    buffer: Vec<u8>,
    written_len: u64,
}

opaque!(DeltaWriter);

impl DeltaWriter {
    /// Begins a delta file on empty storage. Nothing is durable before
    /// [`commit`](DeltaWriter::commit) or [`finish`](DeltaWriter::finish).
    ///
    /// # Errors
    /// `AlreadyExists` when the storage is not empty; `Io`.
    pub fn create(storage: Arc<dyn Storage>, header: Header) -> Result<Self> {
        if !storage.is_empty()? {
            return Err(
                Error::new(ErrorKind::AlreadyExists, "a delta file needs an empty file")
                    .at_path(storage.path()),
            );
        }
        let bytes = header.encode();
        let mut digest = digest_hasher();
        digest.update(&bytes);
        let trailer = Trailer {
            frame_count: 0,
            data_bytes: 0,
            zero_bytes: 0,
            digest: Hash::ZERO,
            base_root: None,
            result_root: None,
        };
        let mut buffer = Vec::with_capacity(BUFFER_BYTES);
        buffer.extend_from_slice(&bytes);
        Ok(DeltaWriter {
            storage,
            header,
            digest,
            trailer,
            buffer,
            written_len: 0,
        })
    }

    /// The header it began with.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Bytes of the file so far.
    pub fn file_len(&self) -> u64 {
        self.written_len + self.buffer.len() as u64
    }

    /// Appends a frame. Not durable yet.
    ///
    /// # Errors
    /// `Io`, `NoSpace`; `LimitExceeded` for a payload of 4 GiB or more.
    pub fn push(&mut self, frame: &Frame<'_>) -> Result<()> {
        match frame.kind {
            FrameKind::Data => self.trailer.data_bytes += frame.len,
            FrameKind::Zero => self.trailer.zero_bytes += frame.len,
            _ => {}
        }
        let head = self.append(frame)?;
        self.digest.update(&head);
        self.trailer.frame_count += 1;
        Ok(())
    }

    /// Closes what was pushed since the last commit as one set and makes it durable.
    ///
    /// # Errors
    /// `Io`, `NoSpace`.
    pub fn commit(&mut self) -> Result<()> {
        self.push(&Frame::bare(FrameKind::Commit, 0, 0))?;
        self.flush()?;
        self.storage.sync()
    }

    /// Writes the trailer. When this returns the whole file is durable; its name is once its
    /// directory is synced.
    ///
    /// # Errors
    /// `Io`, `NoSpace`.
    pub fn finish(mut self, base_root: Option<Hash>, result_root: Option<Hash>) -> Result<Trailer> {
        self.trailer.digest = Hash::finish(&self.digest);
        self.trailer.base_root = base_root;
        self.trailer.result_root = result_root;
        let payload = self.trailer.encode();
        self.append(&Frame::bytes(FrameKind::Trailer, 0, &payload))?;
        self.flush()?;
        self.storage.sync()?;
        Ok(self.trailer)
    }

    fn append(&mut self, frame: &Frame<'_>) -> Result<[u8; super::format::FRAME_LEN]> {
        let stored_len = u32::try_from(frame.payload.len()).map_err(|_| {
            Error::new(
                ErrorKind::LimitExceeded,
                "a frame's payload is 4 GiB or longer",
            )
            .at_path(self.storage.path())
        })?;
        let header = FrameHeader {
            kind: frame.kind,
            compressed: frame.compressed,
            sequence: self.trailer.frame_count,
            offset: frame.offset,
            len: frame.len,
            stored_len,
            new_hash: frame.new_hash,
            old: frame.old,
        };
        let head = header.encode(self.header.job, &frame.payload);
        if self.buffer.len() + head.len() + frame.payload.len() > BUFFER_BYTES {
            self.flush()?;
        }
        self.buffer.extend_from_slice(&head);
        self.buffer.extend_from_slice(&frame.payload);
        Ok(head)
    }

    /// Writes what was pushed and is not written yet. Not durable.
    ///
    /// # Errors
    /// `Io`, `NoSpace`.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.storage.write_all_at(&self.buffer, self.written_len)?;
        self.written_len += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

/// Large enough that system calls do not show, small enough to stay in cache.
const BUFFER_BYTES: usize = 1 << 20;
const _: () = assert!(BUFFER_BYTES > HEADER_LEN);

fn compress(bytes: &[u8], level: i32) -> Option<Vec<u8>> {
    let packed = zstd::bulk::compress(bytes, level).ok()?;
    (packed.len() < bytes.len() / 8 * 7).then_some(packed)
}

#[cfg(test)]
mod tests {
    use super::super::format::FRAME_LEN;
    use super::super::{Delta, JobId, Purpose};
    use super::*;
    use crate::limits::Limits;
    use crate::progress::Work;
    use crate::storage::MemoryStorage;
    use crate::units::BlockSize;

    fn writer(purpose: Purpose) -> (Arc<dyn Storage>, DeltaWriter) {
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new("delta", Vec::new()));
        let header = Header {
            purpose,
            job: JobId::random().unwrap(),
            base_len: 8192,
            result_len: 8192,
            block_size: BlockSize::MIN,
        };
        let mut writer = DeltaWriter::create(storage.clone(), header).unwrap();
        let frame = Frame::data(4096, &[7; 4096], Old::Unknown, None);
        writer.push(&frame).unwrap();
        (storage, writer)
    }

    fn verified(storage: Arc<dyn Storage>) -> Result<()> {
        let work = Work::with_threads(1).unwrap();
        Delta::from_storage(storage, &Limits::default())?.verify(&work, &|_| Ok(()))
    }

    #[test]
    fn a_trailer_that_is_not_that_of_the_frames_is_refused() {
        let lies: [fn(&mut DeltaWriter); 5] = [
            |_| {},
            |writer| writer.trailer.frame_count += 1,
            |writer| writer.trailer.data_bytes += 1,
            |writer| writer.trailer.zero_bytes += 1,
            |writer| {
                writer.digest.update(b"another frame");
            },
        ];
        for (number, lie) in lies.into_iter().enumerate() {
            let (storage, mut writer) = writer(Purpose::Portable);
            lie(&mut writer);
            writer.finish(None, None).unwrap();
            let said = verified(storage).map_err(|error| error.kind());
            let expected = if number == 0 {
                Ok(())
            } else {
                Err(ErrorKind::Malformed)
            };
            assert_eq!(said, expected, "{number}");
        }
    }

    #[test]
    fn a_frame_that_reaches_past_the_disk_or_covers_nothing_is_refused() {
        for (offset, len, is_good) in [(0, 4096, true), (8192, 4096, false), (0, 0, false)] {
            let (storage, mut writer) = writer(Purpose::Portable);
            let bytes = vec![1; len];
            let frame = Frame::data(offset, &bytes, Old::Unknown, None);
            writer.push(&frame).unwrap();
            writer.finish(None, None).unwrap();
            assert_eq!(verified(storage).is_ok(), is_good, "{offset} {len}");
        }
    }

    #[test]
    fn a_frame_of_zeros_that_carries_anything_is_refused() {
        let lies: [fn(&mut Frame<'_>); 4] = [
            |_| {},
            |frame| frame.payload = Cow::Borrowed(&[0]),
            |frame| frame.compressed = true,
            |frame| frame.new_hash = Hash::from_bytes([1; 32]),
        ];
        for (number, lie) in lies.into_iter().enumerate() {
            let (storage, mut writer) = writer(Purpose::Portable);
            let mut frame = Frame::zero(0, 4096, Old::Unknown);
            lie(&mut frame);
            writer.push(&frame).unwrap();
            writer.finish(None, None).unwrap();
            let said = verified(storage).map_err(|error| error.kind());
            let expected = if number == 0 {
                Ok(())
            } else {
                Err(ErrorKind::Malformed)
            };
            assert_eq!(said, expected, "{number}");
        }
    }

    #[test]
    fn the_length_so_far_counts_what_is_not_written_yet() {
        let (storage, mut writer) = writer(Purpose::RedoLog);
        for _ in 0..2 {
            let len = writer.file_len();
            writer.flush().unwrap();
            assert_eq!(writer.file_len(), len);
            assert_eq!(storage.len().unwrap(), len);
            writer.push(&Frame::zero_table(512..2048)).unwrap();
            assert_eq!(writer.file_len(), len + FRAME_LEN as u64);
        }
    }

    #[test]
    fn a_cleared_range_of_the_storage_is_told_by_offset_and_length() {
        let frame = Frame::zero_table(512..2048);
        assert_eq!(
            (frame.kind, frame.offset, frame.len),
            (FrameKind::ZeroTable, 512, 1536)
        );
    }

    #[test]
    fn a_file_for_strangers_holds_guest_bytes_only() {
        for (purpose, is_good) in [(Purpose::RedoLog, true), (Purpose::Portable, false)] {
            let (storage, mut writer) = writer(purpose);
            let table = Frame::bytes(FrameKind::Table, 1 << 20, &[1; 512]);
            writer.push(&table).unwrap();
            writer.finish(None, None).unwrap();
            assert_eq!(verified(storage).is_ok(), is_good, "{purpose:?}");
        }
    }
}
