//! What a complete stage says is to be done, apart from the guest data in its frames.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use super::job::Job;
use super::mark::{Mark, covered};
use crate::control::Work;
use crate::delta::{Delta, FrameKind, Hash, VerifiedFrame};
use crate::error::{Error, Result};

/// Saved ranges, tables and lengths, gathered from a stage or sidecar.
#[derive(Debug, Default)]
pub(super) struct Redo {
    /// The job, once its frame was met.
    pub job: Option<Job>,
    /// The bytes under the mark, as they were before.
    pub saved: Vec<(u64, Vec<u8>)>,
    /// Ranges of the storage that become zeros before anything else is written there.
    pub zeros: Vec<Range<u64>>,
    /// New table bytes, by offset, nowhere overlapping.
    pub tables: BTreeMap<u64, Vec<u8>>,
    /// Bytes that make the image whole again and come last.
    pub last: Vec<(u64, Vec<u8>)>,
    /// The new length of the storage.
    pub storage_len: Option<u64>,
    /// What the covered ranges hold once the mark is lifted, where that was written down.
    pub final_state: Option<FinalState>,
}

/// What is under the mark in the end: enough to tell a torn last write from a guest's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FinalState {
    /// The first page.
    pub page: Vec<u8>,
    /// A hash of the other covered bytes.
    pub rest: Hash,
}

impl FinalState {
    /// The state that `covers` describe, of a target whose first page is `page_len` bytes long.
    pub fn of(covers: &[(u64, Vec<u8>)], page_len: usize) -> FinalState {
        let mut rest = blake3::Hasher::new();
        let mut page = Vec::new();
        for (start, bytes) in covers {
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
            rest: rest.finalize().into(),
        }
    }

    /// Hash, then page.
    pub fn encode(&self) -> Vec<u8> {
        [&self.rest[..], &self.page].concat()
    }

    fn decode(bytes: &[u8]) -> Result<FinalState> {
        match bytes.split_first_chunk() {
            Some((rest, page)) => Ok(FinalState {
                page: page.to_vec(),
                rest: *rest,
            }),
            None => Err(Error::malformed("the sidecar's last record is damaged")),
        }
    }
}

impl Redo {
    /// Checks every frame of `stage` and gathers what is not guest data; `visit` sees each frame.
    ///
    /// # Errors
    /// `Malformed` for a damaged stage, `Io`, `Cancelled`, and what `visit` returns.
    pub fn load(
        stage: &Delta,
        work: &Work,
        visit: &(dyn Fn(&VerifiedFrame<'_>) -> Result<()> + Sync),
    ) -> Result<Redo> {
        let gathered = Mutex::new(Vec::new());
        stage.verify(work, &|frame| {
            visit(frame)?;
            let kind = frame.header().kind;
            if !matches!(kind, FrameKind::Data | FrameKind::Zero) {
                let mut gathered = gathered.lock().unwrap_or_else(PoisonError::into_inner);
                gathered.push(Step::of(frame));
            }
            Ok(())
        })?;
        let mut steps = gathered
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        // Frames of one batch come in any order, but a later one overrides an earlier one.
        steps.sort_unstable_by_key(|step| step.sequence);
        let mut redo = Redo::default();
        for step in steps {
            redo.take(step)?;
        }
        Ok(redo)
    }

    /// Adds one step; steps come in the order of their sequence.
    ///
    /// # Errors
    /// `Malformed`.
    pub fn take(&mut self, step: Step) -> Result<()> {
        let covered = step.len.max(step.bytes.len() as u64);
        if step.offset.checked_add(covered).is_none() {
            return Err(Error::malformed("a table in the stage ends beyond 2^64"));
        }
        match step.kind {
            FrameKind::Job => self.job = Some(Job::decode(&step.bytes)?),
            FrameKind::Saved => self.saved.push((step.offset, step.bytes)),
            FrameKind::Table => overlay(&mut self.tables, step.offset, step.bytes),
            FrameKind::LastTable => self.last.push((step.offset, step.bytes)),
            FrameKind::ZeroTable => self.zeros.push(step.offset..step.offset + step.len),
            FrameKind::Length => self.storage_len = Some(step.len),
            FrameKind::Final => self.final_state = Some(FinalState::decode(&step.bytes)?),
            _ => {}
        }
        Ok(())
    }

    /// Refuses a stage that does not hold all that `mark` covers: without it the mark could not be
    /// lifted, and what lies under it would be lost.
    ///
    /// # Errors
    /// `Malformed`.
    pub fn check_covers(&self, mark: &Mark) -> Result<()> {
        let saved = self.saved.iter();
        let saved = saved.map(|(start, bytes)| *start..*start + bytes.len() as u64);
        if self.job()?.target_len == mark.target_len && saved.eq(covered(mark.target_len)) {
            return Ok(());
        }
        Err(Error::malformed(
            "the stage does not hold what lies under the mark",
        ))
    }

    /// The job of the stage.
    ///
    /// # Errors
    /// `Malformed`: a stage without one was not written by this crate.
    pub fn job(&self) -> Result<&Job> {
        self.job
            .as_ref()
            .ok_or_else(|| Error::malformed("the stage does not say what it is for"))
    }
}

/// A frame that is not guest data, with its bytes.
#[derive(Debug)]
pub(super) struct Step {
    sequence: u64,
    kind: FrameKind,
    offset: u64,
    len: u64,
    bytes: Vec<u8>,
}

impl Step {
    pub fn of(frame: &VerifiedFrame<'_>) -> Step {
        let header = frame.header();
        Step {
            sequence: header.sequence,
            kind: header.kind,
            offset: header.offset,
            len: header.len,
            bytes: frame.bytes().to_vec(),
        }
    }

    pub fn is_commit(&self) -> bool {
        self.kind == FrameKind::Commit
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delta::JobId;
    use crate::image::Format;
    use crate::sync::Safety;
    use proptest::prelude::*;

    #[test]
    fn a_stage_that_lacks_what_the_mark_covers_is_refused() {
        let mark = |target_len| Mark {
            job: JobId([1; 16]),
            safety: Safety::Atomic,
            target_len,
            held: false,
            stage: "s".into(),
        };
        let job = Job {
            format: Format::Raw,
            target_len: 9 << 20,
            target: "t".into(),
            manifest: None,
        };
        let mut redo = Redo {
            job: Some(job),
            saved: vec![(0, vec![1; 1 << 20]), (8 << 20, vec![2; 1 << 20])],
            ..Redo::default()
        };
        redo.check_covers(&mark(9 << 20)).unwrap();
        assert!(redo.check_covers(&mark((9 << 20) + 512)).is_err());
        redo.saved[1].1.pop();
        assert!(redo.check_covers(&mark(9 << 20)).is_err());
        redo.saved.remove(0);
        assert!(redo.check_covers(&mark(9 << 20)).is_err());
    }

    #[test]
    fn each_step_is_gathered_and_the_last_length_holds() {
        let step = |kind, offset, len, bytes: &[u8]| Step {
            sequence: 0,
            kind,
            offset,
            len,
            bytes: bytes.to_vec(),
        };
        let last = FinalState {
            page: vec![4; 512],
            rest: [5; 32],
        };
        let mut redo = Redo::default();
        for step in [
            step(FrameKind::Saved, 0, 3, &[1; 3]),
            step(FrameKind::Length, 0, 9000, &[]),
            step(FrameKind::ZeroTable, 4096, 512, &[]),
            step(FrameKind::Table, 512, 2, &[2; 2]),
            step(FrameKind::LastTable, 8192, 2, &[3; 2]),
            step(FrameKind::Length, 0, 9500, &[]),
            step(FrameKind::Commit, 0, 0, &[]),
            step(FrameKind::Final, 0, 0, &last.encode()),
        ] {
            redo.take(step).unwrap();
        }
        assert_eq!(redo.saved, [(0, vec![1; 3])]);
        assert_eq!(redo.storage_len, Some(9500));
        assert!(matches!(&redo.zeros[..], [it] if *it == (4096..4608)));
        assert_eq!(redo.tables, BTreeMap::from([(512, vec![2; 2])]));
        assert_eq!(redo.last, [(8192, vec![3; 2])]);
        assert_eq!(redo.final_state, Some(last));
        let wrong = step(FrameKind::ZeroTable, u64::MAX, 512, &[]);
        assert!(redo.take(wrong).is_err());
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
