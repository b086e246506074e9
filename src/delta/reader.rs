//! Reading a delta file, trusting nothing in it.

use std::fmt;
use std::sync::Arc;

use super::bookkeeping::Bookkeeping;
use super::format::{
    FRAME_LEN, FrameHeader, FrameKind, HEADER_LEN, Header, JobId, MAGIC, Purpose, TRAILER_LEN,
    Trailer, digest_hasher,
};
use super::frame::{RawFrame, VerifiedFrame};
use super::header::read_header;
use super::overlaps::Overlaps;
use super::scan::{Batch, Scanner};
use super::sections::Sections;
use crate::error::{Error, ErrorKind, Result};
use crate::hash::Hash;
use crate::limits::Limits;
use crate::progress::Work;
use crate::storage::Storage;

/// A complete delta file: header and trailer are there and fit each other.
///
/// That says nothing yet of the frames between; [`verify`](Delta::verify) does.
#[derive(Clone)]
pub struct Delta {
    storage: Arc<dyn Storage>,
    limits: Limits,
    header: Header,
    trailer: Trailer,
    frames_end: u64,
}

impl fmt::Debug for Delta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delta")
            .field("path", &self.storage.path())
            .field("trailer", &self.trailer)
            .finish_non_exhaustive()
    }
}

impl Delta {
    /// Opens a complete delta file.
    ///
    /// # Errors
    /// `Malformed` (also for a file that ends without a trailer), `Unsupported`,
    /// `LimitExceeded`, `Io`.
    pub fn from_storage(storage: Arc<dyn Storage>, limits: &Limits) -> Result<Self> {
        Self::read_ends(storage, limits).map_err(|error| error.during_work("open"))
    }

    /// Whether a file may be one that this program began: its first bytes are those of a delta, or
    /// did not reach the medium.
    ///
    /// # Errors
    /// `Io`.
    pub(crate) fn may_be_one(storage: &dyn Storage) -> Result<bool> {
        let mut head = [0; MAGIC.len()];
        let len = storage.len()?.min(head.len() as u64);
        // At most 8.
        storage.read_exact_at(&mut head[..len as usize], 0)?;
        Ok(head == *MAGIC || head == [0; MAGIC.len()])
    }

    fn read_ends(storage: Arc<dyn Storage>, limits: &Limits) -> Result<Self> {
        let header = read_header(&*storage, limits)?;
        let len = storage.len()?;
        let tail_len = (FRAME_LEN + TRAILER_LEN) as u64;
        let frames_end = len
            .checked_sub(tail_len)
            .filter(|end| *end >= HEADER_LEN as u64)
            .ok_or_else(|| no_trailer(&*storage, len))?;
        let mut tail = [0; FRAME_LEN + TRAILER_LEN];
        storage.read_exact_at(&mut tail, frames_end)?;
        let (head, payload) = split::<FRAME_LEN, TRAILER_LEN>(&tail);
        let frame = FrameHeader::decode(&head).map_err(|_| no_trailer(&*storage, len))?;
        if frame.kind != FrameKind::Trailer || !frame.is_sealed(header.job, &head, &payload) {
            return Err(no_trailer(&*storage, len));
        }
        let trailer = Trailer::decode(&payload)
            .map_err(|e| e.at_path(storage.path()).at_offset(frames_end))?;
        if trailer.frame_count != frame.sequence {
            return Err(
                Error::malformed("the trailer counts other frames than its own place")
                    .in_field("frame_count")
                    .at_offset(frames_end)
                    .at_path(storage.path()),
            );
        }
        Ok(Delta {
            storage,
            limits: limits.clone(),
            header,
            trailer,
            frames_end,
        })
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Refuses a file that is for something else.
    ///
    /// # Errors
    /// `InvalidInput`, naming what the file is for.
    pub fn require(&self, purpose: Purpose) -> Result<()> {
        if self.header.purpose == purpose {
            return Ok(());
        }
        let what = format!(
            "the file is {}, where {} is needed",
            self.header.purpose.describe(),
            purpose.describe()
        );
        let error = Error::new(ErrorKind::InvalidInput, what)
            .in_field("purpose")
            .at_path(self.storage.path());
        Err(match self.header.purpose {
            Purpose::Portable => error.advise("apply it with `delta apply`"),
            Purpose::Undo => error.advise("apply it with `undo`"),
            Purpose::RedoLog | Purpose::Sidecar => error.advise("`recover` uses it"),
        })
    }

    /// The trailer.
    pub fn trailer(&self) -> &Trailer {
        &self.trailer
    }

    /// Where it lies.
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    /// Reads the whole file and checks every seal, every hash, the digest, the counts, and that
    /// guest ranges lie inside the result and nowhere overlap. `visit` sees each frame, as in
    /// [`for_each`](Delta::for_each).
    ///
    /// # Errors
    /// `Malformed` with the place; `LimitExceeded` for a longer frame than is allowed; `Io`,
    /// `Cancelled`, and whatever `visit` returns; `NoSpace` where a file of more scattered frames
    /// than memory may hold leaves no room for a temporary file next to it.
    pub fn verify(
        &self,
        work: &Work,
        visit: &(dyn Fn(&VerifiedFrame<'_>) -> Result<()> + Sync),
    ) -> Result<()> {
        self.verified(work, visit).map(drop)
    }

    /// [`verify`](Delta::verify), which also finds the frames that are not guest data.
    ///
    /// # Errors
    /// As `verify`.
    pub(crate) fn verified(
        &self,
        work: &Work,
        visit: &(dyn Fn(&VerifiedFrame<'_>) -> Result<()> + Sync),
    ) -> Result<Bookkeeping> {
        let mut sections = Sections::default();
        let mut digest = digest_hasher();
        digest.update(&self.header.encode());
        let (mut count, mut data_bytes, mut zero_bytes) = (0u64, 0u64, 0u64);
        let near = self.storage.path().to_owned();
        let mut ranges = Overlaps::new(self.limits.ranges_bytes(), near);
        let (mut scanner, mut batch) = (self.scanner(), Batch::default());
        while scanner.next_batch(&mut batch)? {
            work.cancel().check()?;
            for raw in &batch.frames {
                digest.update(&raw.head);
                count += 1;
                let range = raw.header.offset..raw.header.offset.saturating_add(raw.header.len);
                match raw.header.kind {
                    FrameKind::Data => data_bytes = data_bytes.saturating_add(raw.header.len),
                    FrameKind::Zero => zero_bytes = zero_bytes.saturating_add(raw.header.len),
                    // A stranger's file must not reach past the guest's bytes.
                    _ if !self.header.purpose.has_tables() => {
                        return Err(
                            raw.wrong("a frame that only a redo log may hold", &*self.storage)
                        );
                    }
                    _ => {
                        sections.note(raw);
                        continue;
                    }
                }
                if range.end > self.header.result_len || range.is_empty() {
                    return Err(raw.wrong("a frame is outside the disk", &*self.storage));
                }
                ranges.insert(range)?;
            }
            batch.verified(work, &self.limits, &*self.storage, visit)?;
        }
        if scanner.at != self.frames_end {
            return Err(self.damaged("a damaged frame", scanner.at));
        }
        if let Some(overlap) = ranges.first()? {
            return Err(self
                .damaged("two frames cover the same bytes", self.frames_end)
                .caused_by(std::io::Error::other(format!("disk offset {overlap:#x}"))));
        }
        let trailer = &self.trailer;
        if Hash::finish(&digest) != trailer.digest
            || (count, data_bytes, zero_bytes)
                != (trailer.frame_count, trailer.data_bytes, trailer.zero_bytes)
        {
            return Err(self.damaged("frames and trailer do not fit", self.frames_end));
        }
        let storage = self.storage.clone();
        Ok(Bookkeeping::new(
            storage,
            self.header,
            &self.limits,
            sections,
        ))
    }

    /// Passes every frame to `visit`, hashed and found right, from the threads of `work`'s pool:
    /// frames of one batch in any order.
    ///
    /// # Errors
    /// `Malformed`, `Io`, and whatever `visit` returns.
    pub fn for_each(
        &self,
        work: &Work,
        visit: &(dyn Fn(&VerifiedFrame<'_>) -> Result<()> + Sync),
    ) -> Result<()> {
        let (mut scanner, mut batch) = (self.scanner(), Batch::default());
        while scanner.next_batch(&mut batch)? {
            batch.verified(work, &self.limits, &*self.storage, visit)?;
        }
        if scanner.at != self.frames_end {
            return Err(self.damaged("a damaged frame", scanner.at));
        }
        Ok(())
    }

    /// The bytes of the data frame that lies at `at` in the file, hashed again and found right.
    ///
    /// # Errors
    /// `Malformed` where no data frame of `len` bytes lies there; `LimitExceeded`, `Io`.
    pub(super) fn data_at(&self, at: u64, len: u64) -> Result<Vec<u8>> {
        data_frame_at(&*self.storage, self.header.job, &self.limits, at, len)
    }

    /// The limits that it was opened with.
    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    fn scanner(&self) -> Scanner<'_> {
        Scanner::new(&*self.storage, &self.header, self.frames_end, &self.limits)
    }

    fn damaged(&self, what: &'static str, offset: u64) -> Error {
        damaged(&*self.storage, what, offset)
    }
}

fn damaged(storage: &dyn Storage, what: &'static str, offset: u64) -> Error {
    Error::malformed(what)
        .at_offset(offset)
        .at_path(storage.path())
        .advise("make the delta again; nothing was changed by it")
}

/// The bytes of the data frame of `job` that lies at `at` in `storage`, hashed again and found
/// right.
///
/// # Errors
/// `Malformed` where no data frame of `len` bytes lies there; `LimitExceeded`, `Io`.
pub(super) fn data_frame_at(
    storage: &dyn Storage,
    job: JobId,
    limits: &Limits,
    at: u64,
    len: u64,
) -> Result<Vec<u8>> {
    let wrong = || damaged(storage, "a frame is not what it was", at);
    let mut window = vec![0; FRAME_LEN];
    storage.read_exact_at(&mut window, at)?;
    let head = window.first_chunk().ok_or_else(wrong)?;
    let header = FrameHeader::decode(head).map_err(|_| wrong())?;
    if header.stored_len > limits.frame_bytes {
        return Err(wrong());
    }
    // At most what the limits allow.
    window.resize(FRAME_LEN + header.stored_len as usize, 0);
    let rest = at.saturating_add(FRAME_LEN as u64);
    storage.read_exact_at(&mut window[FRAME_LEN..], rest)?;
    let raw = RawFrame::parse(&window, at, job)
        .filter(|raw| raw.header.kind == FrameKind::Data && raw.header.len == len)
        .ok_or_else(wrong)?;
    let frame = raw.verified(&window, limits, storage)?;
    Ok(frame.into_bytes())
}

/// The part of an unfinished delta file that can be trusted: frames up to the first damage.
///
/// # Errors
/// `Malformed`, `Unsupported` for the header; `Io`, and whatever `visit` returns.
pub fn for_each_intact(
    storage: &Arc<dyn Storage>,
    limits: &Limits,
    work: &Work,
    visit: &(dyn Fn(&VerifiedFrame<'_>) -> Result<()> + Sync),
) -> Result<Header> {
    let header = read_header(&**storage, limits)?;
    let mut scanner = Scanner::new(&**storage, &header, storage.len()?, limits);
    let mut batch = Batch::default();
    while scanner.next_batch(&mut batch)? {
        for raw in &batch.frames {
            // A damaged payload ends what can be trusted, as a damaged header does.
            let Ok(frame) = raw.verified(&batch.payloads, limits, &**storage) else {
                return Ok(header);
            };
            work.cancel().check()?;
            visit(&frame)?;
        }
    }
    Ok(header)
}

fn no_trailer(storage: &dyn Storage, len: u64) -> Error {
    Error::malformed("the delta file is not complete: it ends without a trailer")
        .in_field("trailer")
        .at_offset(len)
        .at_path(storage.path())
        .advise("make it again, or transfer it again")
}

fn split<const A: usize, const B: usize>(bytes: &[u8]) -> ([u8; A], [u8; B]) {
    let (mut head, mut tail) = ([0; A], [0; B]);
    head.copy_from_slice(&bytes[..A]);
    tail.copy_from_slice(&bytes[A..A + B]);
    (head, tail)
}

#[cfg(test)]
mod tests {
    use super::super::{DeltaWriter, Frame, Old};
    use super::*;
    use crate::storage::MemoryStorage;
    use crate::units::BlockSize;

    #[test]
    fn a_disk_of_exactly_the_allowed_length_is_taken_and_no_longer_one() {
        for (base_len, result_len) in [(8192, 4096), (4096, 8192)] {
            let header = Header {
                purpose: Purpose::Portable,
                job: JobId([1; 16]),
                base_len,
                result_len,
                block_size: BlockSize::MIN,
            };
            let file = MemoryStorage::new("delta", header.encode().to_vec());
            let limits = |len: u64| Limits::default().with_disk_bytes(len);
            assert_eq!(read_header(&file, &limits(8192)).unwrap(), header);
            let error = read_header(&file, &limits(8191)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::LimitExceeded);
        }
    }

    #[test]
    fn frames_in_another_order_than_they_were_written_are_not_believed() {
        let header = Header {
            purpose: Purpose::RedoLog,
            job: JobId([1; 16]),
            base_len: 8192,
            result_len: 8192,
            block_size: BlockSize::MIN,
        };
        let file = Arc::new(MemoryStorage::new("redo_log", Vec::new()));
        let mut writer = DeltaWriter::create(file.clone(), header).unwrap();
        for offset in [0, 4096] {
            let frame = Frame::zero(offset, 4096, Old::Unknown);
            writer.push(&frame).unwrap();
        }
        writer.flush().unwrap();
        let trusted = || {
            let offsets = std::sync::Mutex::new(Vec::new());
            let work = Work::with_threads(1).unwrap();
            let storage: Arc<dyn Storage> = file.clone();
            for_each_intact(&storage, &Limits::default(), &work, &|frame| {
                offsets.lock().unwrap().push(frame.offset());
                Ok(())
            })
            .unwrap();
            offsets.into_inner().unwrap()
        };
        assert_eq!(trusted(), [0, 4096]);
        let mut frames = file.to_vec().split_off(HEADER_LEN);
        frames.rotate_left(FRAME_LEN);
        file.write_all_at(&frames, HEADER_LEN as u64).unwrap();
        assert_eq!(trusted(), [0; 0]);
    }

    #[test]
    fn a_frame_that_changed_since_it_was_found_is_not_taken() {
        let header = Header {
            purpose: Purpose::Portable,
            job: JobId([1; 16]),
            base_len: 8192,
            result_len: 8192,
            block_size: BlockSize::MIN,
        };
        let file = Arc::new(MemoryStorage::new("delta", Vec::new()));
        let mut writer = DeltaWriter::create(file.clone(), header).unwrap();
        let frame = Frame::data(0, &[5; 4096], Old::Unknown, None);
        writer.push(&frame).unwrap();
        let zeros = Frame::zero(4096, 4096, Old::Unknown);
        writer.push(&zeros).unwrap();
        writer.finish(None, None).unwrap();
        // It is exactly as long as allowed.
        let limits = Limits::default().with_frame_bytes(4096);
        let delta = Delta::from_storage(file.clone(), &limits).unwrap();
        let at = HEADER_LEN as u64;
        assert_eq!(delta.data_at(at, 4096).unwrap(), [5; 4096]);
        let refuses = |at: u64, len: u64| {
            let error = delta.data_at(at, len).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Malformed, "{error}");
        };
        refuses(at, 4095);
        refuses(at + (FRAME_LEN + 4096) as u64, 4096);
        // It says that more than is allowed must be read for it.
        let head = file.to_vec()[HEADER_LEN..].first_chunk().copied().unwrap();
        let mut told = FrameHeader::decode(&head).unwrap();
        told.stored_len = u32::MAX;
        let head = told.encode(header.job, &[5; 4096]);
        file.write_all_at(&head, at).unwrap();
        refuses(at, 4096);
    }
}
