//! What a complete redo log says is to be done, apart from the guest data in its frames.

use std::collections::BTreeMap;
use std::ops::Range;

use super::format::{Marker, regions};
use crate::delta::{Bookkeeping, Delta, FrameKind, VerifiedFrame};
use crate::error::{Error, ErrorKind, Result};
use crate::hash::Hash;
use crate::progress::Work;
use crate::sync::job::Job;

/// Saved ranges, last tables and lengths, gathered from a redo log or sidecar; new tables, of which
/// there may be any number, are read from it when they are needed.
#[derive(Debug, Default)]
pub(in crate::sync) struct Redo {
    /// The job, once its frame was met.
    pub job: Option<Job>,
    /// The bytes under the marker, as they were before.
    pub saved: Vec<(u64, Vec<u8>)>,
    /// Bytes that make the image whole again and come last, by offset, nowhere overlapping.
    pub last: BTreeMap<u64, Vec<u8>>,
    /// The new length of the storage.
    pub storage_len: Option<u64>,
    /// What the regions under the marker hold once the marker is lifted, where that was written
    /// down.
    pub final_state: Option<FinalState>,
    /// Where tables are read from.
    pub bookkeeping: Option<Bookkeeping>,
}

/// What is under the marker in the end: enough to tell a torn last write from a guest's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sync) struct FinalState {
    /// The first page.
    pub page: Vec<u8>,
    /// A hash of the other bytes under the marker.
    pub rest: Hash,
}

impl FinalState {
    /// The state that `regions` describe, of a target whose first page is `page_len` bytes long.
    pub(crate) fn of(regions: &[(u64, Vec<u8>)], page_len: usize) -> FinalState {
        let mut rest = blake3::Hasher::new();
        let mut page = Vec::new();
        for (start, bytes) in regions {
            let (head, tail) = match start {
                0 => bytes.split_at(page_len.min(bytes.len())),
                _ => bytes.split_at(0),
            };
            page.extend_from_slice(head);
            rest.update(&start.to_le_bytes());
            rest.update(tail);
        }
        FinalState {
            page,
            rest: Hash::finish(&rest),
        }
    }

    /// Hash, then page.
    pub(crate) fn encode(&self) -> Vec<u8> {
        [&self.rest.as_bytes()[..], &self.page].concat()
    }

    fn decode(bytes: &[u8]) -> Result<FinalState> {
        match bytes.split_first_chunk() {
            Some((rest, page)) => Ok(FinalState {
                page: page.to_vec(),
                rest: Hash::from_bytes(*rest),
            }),
            None => Err(Error::malformed("the sidecar's last record is damaged")),
        }
    }
}

impl Redo {
    /// Checks every frame of `redo_log` and gathers what is not guest data; `visit` sees each
    /// frame.
    ///
    /// # Errors
    /// `Malformed` for a damaged redo log, `LimitExceeded`, `Io`, `Cancelled`, and what `visit`
    /// returns.
    pub(crate) fn load(
        redo_log: &Delta,
        work: &Work,
        visit: &(dyn Fn(&VerifiedFrame<'_>) -> Result<()> + Sync),
    ) -> Result<Redo> {
        Self::gather(redo_log.verified(work, visit)?)
    }

    /// Gathers what is to be kept in memory, and checks all else.
    ///
    /// # Errors
    /// `Malformed`; `LimitExceeded` for more bytes than tables may take; `Io`.
    pub(crate) fn gather(bookkeeping: Bookkeeping) -> Result<Redo> {
        let mut redo = Redo::default();
        let most = bookkeeping
            .limits()
            .table_bytes
            .saturating_add(REGION_BYTES);
        let mut held_bytes = 0u64;
        bookkeeping.for_each(&mut |frame| {
            let bytes = redo.take(frame)?;
            held_bytes = held_bytes.saturating_add(bytes);
            if held_bytes <= most {
                return Ok(());
            }
            let what = "it saves more bytes than the tables of an image may take";
            Err(Error::new(ErrorKind::LimitExceeded, what).in_field("table_bytes"))
        })?;
        redo.bookkeeping = Some(bookkeeping);
        Ok(redo)
    }

    /// Adds one frame; frames come in the order of their sequence. Returns by how many bytes more
    /// is held.
    fn take(&mut self, frame: &VerifiedFrame<'_>) -> Result<u64> {
        let (offset, len, bytes) = (frame.offset(), frame.header().len, frame.bytes());
        let covered = len.max(bytes.len() as u64);
        if offset.checked_add(covered).is_none() {
            return Err(Error::malformed("a table in the redo log ends beyond 2^64"));
        }
        let held = bytes.len() as u64 + PIECE_BYTES;
        match frame.header().kind {
            FrameKind::Job => self.job = Some(Job::decode(bytes)?),
            FrameKind::Saved => {
                self.saved.push((offset, bytes.to_vec()));
                return Ok(held);
            }
            FrameKind::LastTable => {
                // The same footer is written again and again; the newest one counts.
                let again = self
                    .last
                    .get(&offset)
                    .is_some_and(|it| it.len() >= bytes.len());
                overlay(&mut self.last, offset, bytes.to_vec());
                return Ok(if again { PIECE_BYTES } else { held });
            }
            FrameKind::Length => self.storage_len = Some(len),
            FrameKind::Final => self.final_state = Some(FinalState::decode(bytes)?),
            _ => {}
        }
        Ok(0)
    }

    /// Passes on the ranges of the storage that become zeros before anything else is written there.
    ///
    /// # Errors
    /// Those of `visit`; `Io`, `Malformed` where the file changed meanwhile.
    pub(crate) fn zeros(&self, visit: &mut dyn FnMut(Range<u64>) -> Result<()>) -> Result<()> {
        self.tables_of(FrameKind::ZeroTable, &mut |frame| visit(frame.range()))
    }

    /// Passes on new table bytes, oldest first: where they overlap, later ones count.
    ///
    /// # Errors
    /// As [`zeros`](Redo::zeros).
    pub(crate) fn tables(&self, visit: &mut dyn FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        self.tables_of(FrameKind::Table, &mut |frame| {
            visit(frame.offset(), frame.bytes())
        })
    }

    fn tables_of(
        &self,
        kind: FrameKind,
        visit: &mut dyn FnMut(&VerifiedFrame<'_>) -> Result<()>,
    ) -> Result<()> {
        let Some(bookkeeping) = &self.bookkeeping else {
            return Ok(());
        };
        bookkeeping.for_each(&mut |frame| match frame.header().kind == kind {
            true => visit(frame),
            false => Ok(()),
        })
    }

    /// Refuses a redo log that does not hold all that `marker` covers: without it the marker could
    /// not be lifted, and what lies under it would be lost.
    ///
    /// # Errors
    /// `Malformed`.
    pub(crate) fn check_regions(&self, marker: &Marker) -> Result<()> {
        let saved = self.saved.iter();
        let saved = saved.map(|(start, bytes)| *start..*start + bytes.len() as u64);
        if self.job()?.target_len == marker.target_len && saved.eq(regions(marker.target_len)) {
            return Ok(());
        }
        Err(Error::malformed(
            "the redo log does not hold what lies under the marker",
        ))
    }

    /// The job of the redo log.
    ///
    /// # Errors
    /// `Malformed`: a redo log without one was not written by this crate.
    pub(crate) fn job(&self) -> Result<&Job> {
        self.job
            .as_ref()
            .ok_or_else(|| Error::malformed("the redo log has no job record"))
    }
}

/// Lays `bytes` over what the map holds, so that its pieces stay apart and the newest wins.
fn overlay(map: &mut BTreeMap<u64, Vec<u8>>, offset: u64, bytes: Vec<u8>) {
    let end = offset + bytes.len() as u64;
    let under: Vec<u64> = map
        .range(..end)
        .rev()
        .take_while(|(start, old)| **start + old.len() as u64 > offset)
        .map(|(start, _)| *start)
        .collect();
    for start in under {
        let Some(old) = map.remove(&start) else {
            continue;
        };
        let old_end = start + old.len() as u64;
        // Lengths of pieces in memory.
        if start < offset {
            map.insert(start, old[..(offset - start) as usize].to_vec());
        }
        if old_end > end {
            map.insert(end, old[(end - start) as usize..].to_vec());
        }
    }
    map.insert(offset, bytes);
}

/// What the marker covers at most, and the descriptions of job and end.
const REGION_BYTES: u64 = 4 << 20;
/// About what an entry takes.
const PIECE_BYTES: u64 = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delta::{DeltaWriter, Frame, Header, JobId, Purpose};
    use crate::image::Format;
    use crate::limits::Limits;
    use crate::storage::MemoryStorage;
    use crate::sync::Safety;
    use crate::units::BlockSize;
    use proptest::prelude::*;
    use std::sync::Arc;

    #[test]
    fn a_redo_log_that_lacks_what_the_marker_covers_is_refused() {
        let marker = |target_len| Marker {
            job: JobId([1; 16]),
            safety: Safety::Atomic,
            target_len,
            held: false,
            redo_log: "s".into(),
        };
        let job = Job {
            format: Format::Raw,
            target_len: 9 << 20,
            target: "t".into(),
            target_inode: None,
            manifest: None,
        };
        let mut redo = Redo {
            job: Some(job),
            saved: vec![(0, vec![1; 1 << 20]), (8 << 20, vec![2; 1 << 20])],
            ..Redo::default()
        };
        redo.check_regions(&marker(9 << 20)).unwrap();
        assert!(redo.check_regions(&marker((9 << 20) + 512)).is_err());
        redo.saved[1].1.pop();
        assert!(redo.check_regions(&marker(9 << 20)).is_err());
        redo.saved.remove(0);
        assert!(redo.check_regions(&marker(9 << 20)).is_err());
    }

    fn gathered(frames: &[Frame<'_>], limits: &Limits) -> Result<Redo> {
        let header = Header {
            purpose: Purpose::Sidecar,
            job: JobId([1; 16]),
            base_len: 0,
            result_len: 0,
            block_size: BlockSize::MIN,
        };
        let file = Arc::new(MemoryStorage::new("s", Vec::new()));
        let mut writer = DeltaWriter::create(file.clone(), header).unwrap();
        for frame in frames {
            writer.push(frame).unwrap();
        }
        writer.commit().unwrap();
        let work = Work::with_threads(1).unwrap();
        Redo::gather(Bookkeeping::committed(file, limits, &work)?.unwrap())
    }

    #[test]
    fn each_frame_is_gathered_or_found_again_and_the_last_length_holds() {
        let last = FinalState {
            page: vec![4; 512],
            rest: Hash::from_bytes([5; 32]),
        };
        let end = last.encode();
        let frames = [
            Frame::bytes(FrameKind::Saved, 0, &[1; 3]),
            Frame::length(9000),
            Frame::zero_table(4096..4608),
            Frame::bytes(FrameKind::Table, 512, &[2; 2]),
            Frame::bytes(FrameKind::LastTable, 8192, &[2; 2]),
            Frame::bytes(FrameKind::LastTable, 8192, &[3; 2]),
            Frame::bytes(FrameKind::Table, 512, &[6; 1]),
            Frame::length(9500),
            Frame::bytes(FrameKind::Final, 0, &end),
        ];
        let redo = gathered(&frames, &Limits::default()).unwrap();
        assert_eq!(redo.saved, [(0, vec![1; 3])]);
        assert_eq!(redo.storage_len, Some(9500));
        assert_eq!(redo.last, BTreeMap::from([(8192, vec![3; 2])]));
        assert_eq!(redo.final_state, Some(last));
        let (mut zeros, mut tables) = (Vec::new(), Vec::new());
        redo.zeros(&mut |range| {
            zeros.push((range.start, range.end));
            Ok(())
        })
        .unwrap();
        redo.tables(&mut |offset, bytes| {
            tables.push((offset, bytes.to_vec()));
            Ok(())
        })
        .unwrap();
        assert_eq!(zeros, [(4096, 4608)]);
        assert_eq!(tables, [(512, vec![2; 2]), (512, vec![6; 1])]);
        let wrong = Frame::bytes(FrameKind::Table, u64::MAX, &[1; 2]);
        assert!(gathered(&[wrong], &Limits::default()).is_err());
    }

    #[test]
    fn what_is_saved_is_held_to_the_limit_for_tables_and_tables_are_not() {
        let limits = Limits::default().with_table_bytes(1 << 20);
        let bytes = vec![1; 1 << 20];
        let of = |kind| -> Vec<_> {
            let frames = (0..8u64).map(|at| Frame::bytes(kind, at << 20, &bytes));
            frames.collect()
        };
        for kind in [FrameKind::Saved, FrameKind::LastTable] {
            let error = gathered(&of(kind), &limits).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{kind:?}");
        }
        gathered(&of(FrameKind::Table), &limits).unwrap();
    }

    proptest! {
        #[test]
        fn the_newest_bytes_win_wherever_tables_overlap(
            writes in prop::collection::vec((0u64..60, 1usize..20, any::<u8>()), 1..30),
        ) {
            let mut map = BTreeMap::new();
            let mut model: Vec<Option<u8>> = vec![None; 80];
            for (offset, len, byte) in writes {
                overlay(&mut map, offset, vec![byte; len]);
                model[offset as usize..offset as usize + len].fill(Some(byte));
            }
            let mut seen = vec![None; 80];
            for (offset, bytes) in &map {
                for (index, byte) in bytes.iter().enumerate() {
                    let slot = &mut seen[*offset as usize + index];
                    prop_assert!(slot.is_none(), "pieces overlap");
                    *slot = Some(*byte);
                }
            }
            prop_assert_eq!(seen, model);
        }
    }
}
