//! Looking at how a delta file begins without reading on.

use super::format::{FRAME_LEN, FrameHeader, FrameKind, HEADER_LEN, Header};
use super::header::read_header;
use crate::error::Result;
use crate::hash::Hash;
use crate::limits::Limits;
use crate::storage::Storage;

/// How a delta file begins.
pub(crate) struct Peek {
    pub header: Header,
    /// Kind and bytes of the first frame, where it is intact and not compressed.
    pub first: Option<(FrameKind, Vec<u8>)>,
}

/// Reads how a delta file begins.
///
/// # Errors
/// `Malformed`, `Unsupported`, `LimitExceeded` for the header; `Io`.
pub(crate) fn peek(storage: &dyn Storage, limits: &Limits) -> Result<Peek> {
    let header = read_header(storage, limits)?;
    let first = first_frame(storage, &header, limits)?;
    Ok(Peek { header, first })
}

fn first_frame(
    storage: &dyn Storage,
    header: &Header,
    limits: &Limits,
) -> Result<Option<(FrameKind, Vec<u8>)>> {
    let at = HEADER_LEN as u64;
    let payload_at = at + FRAME_LEN as u64;
    let Some(most) = storage.len()?.checked_sub(payload_at) else {
        return Ok(None);
    };
    let mut head = [0; FRAME_LEN];
    storage.read_exact_at(&mut head, at)?;
    let Ok(frame) = FrameHeader::decode(&head) else {
        return Ok(None);
    };
    let stored_len = u64::from(frame.stored_len);
    if frame.stored_len > limits.frame_bytes || stored_len > most {
        return Ok(None);
    }
    let mut bytes = vec![0; usize::try_from(stored_len).unwrap_or(usize::MAX)];
    storage.read_exact_at(&mut bytes, payload_at)?;
    let is_right = !frame.compressed
        && frame.sequence == 0
        && frame.is_sealed(header.job, &head, &bytes)
        && Hash::of(&bytes) == frame.new_hash;
    Ok(is_right.then_some((frame.kind, bytes)))
}

#[cfg(test)]
mod tests {
    use super::super::{DeltaWriter, Frame, JobId, Purpose};
    use super::*;
    use crate::storage::MemoryStorage;
    use crate::units::BlockSize;
    use std::sync::Arc;

    const BEGINS: u64 = (HEADER_LEN + FRAME_LEN) as u64;

    /// A file that ends with its first frame.
    fn begun() -> Arc<MemoryStorage> {
        let header = Header {
            purpose: Purpose::Sidecar,
            job: JobId([1; 16]),
            base_len: 0,
            result_len: 0,
            block_size: BlockSize::MIN,
        };
        let file = Arc::new(MemoryStorage::new("sidecar", Vec::new()));
        let mut writer = DeltaWriter::create(file.clone(), header).unwrap();
        let frame = Frame::bytes(FrameKind::Job, 0, b"who it is for");
        writer.push(&frame).unwrap();
        writer.flush().unwrap();
        file
    }

    fn first(file: &dyn Storage, frame_bytes: u32) -> Option<(FrameKind, Vec<u8>)> {
        let limits = Limits::default().with_frame_bytes(frame_bytes);
        peek(file, &limits).unwrap().first
    }

    #[test]
    fn the_first_frame_is_known_once_it_is_whole_and_no_longer_than_allowed() {
        let file = begun();
        let whole = Some((FrameKind::Job, b"who it is for".to_vec()));
        assert_eq!(first(&*file, 13), whole);
        assert_eq!(first(&*file, 12), None);
        for len in [BEGINS + 12, BEGINS, BEGINS - 1, HEADER_LEN as u64] {
            file.set_len(len).unwrap();
            assert_eq!(first(&*file, 13), None, "{len}");
        }
    }

    #[test]
    fn a_first_frame_with_any_byte_changed_is_none() {
        for at in HEADER_LEN as u64..BEGINS + 13 {
            let file = begun();
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 1], at).unwrap();
            assert_eq!(first(&*file, 1 << 20), None, "{at}");
        }
    }

    #[test]
    fn a_first_frame_that_is_packed_or_counts_as_a_later_one_is_none() {
        let alter: [fn(&mut FrameHeader); 3] = [
            |_| {},
            |frame| frame.compressed = true,
            |frame| frame.sequence = 1,
        ];
        for (number, alter) in alter.into_iter().enumerate() {
            let file = begun();
            let header = read_header(&*file, &Limits::default()).unwrap();
            let head = file.to_vec()[HEADER_LEN..].first_chunk().copied().unwrap();
            let mut frame = FrameHeader::decode(&head).unwrap();
            alter(&mut frame);
            let head = frame.encode(header.job, b"who it is for");
            file.write_all_at(&head, HEADER_LEN as u64).unwrap();
            assert_eq!(first(&*file, 13).is_some(), number == 0, "{number}");
        }
    }
}
