//! The marker: what stands in a target's first and last MiB while it is not whole.
//!
//! It is a boot guard (no partition table, file system or image header is left to find) and a
//! flag that cannot be lost from its target. The first page is the *sentinel page*: it is the first
//! thing written and the last thing restored, each behind a sync of its own, so a target is
//! marked exactly while any sector of its first page is a marker.

use std::ops::Range;
use std::path::PathBuf;

use crate::advice::Advice;
use crate::delta::JobId;
use crate::error::{Error, ErrorKind, Result};
#[cfg(feature = "nbd")]
use crate::image::Image;
use crate::path_bytes::{bytes_of, path_of};
use crate::storage::Storage;
use crate::sync::options::Safety;
use crate::target_state::TargetState;

/// What a marked target tells of the job that marked it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Marker {
    /// The job.
    pub job: JobId,
    /// Whether the redo log redoes everything, or the sync has to run again.
    pub safety: Safety,
    /// Length of the target's storage when it was marked, in bytes.
    pub target_len: u64,
    /// Whether it stays when a sync is done: the target is held until it is released.
    pub held: bool,
    /// Where the redo log or sidecar lay.
    pub redo_log: PathBuf,
}

impl Marker {
    /// The marker on a storage, if it carries one.
    ///
    /// # Errors
    /// `Io`.
    pub fn find(storage: &dyn Storage) -> Result<Option<Marker>> {
        let mut page = vec![0; to_index(sentinel(storage.len()?).end)];
        storage.read_exact_at(&mut page, 0)?;
        Ok(Self::in_page(&page))
    }

    /// As [`refuse`](Marker::refuse), for an image that shows a storage as it is.
    ///
    /// # Errors
    /// As [`refuse`](Marker::refuse).
    #[cfg(feature = "nbd")]
    pub(crate) fn refuse_image(image: &dyn Image) -> Result<()> {
        let mut page = vec![0; to_index(sentinel(image.disk_len()).end)];
        image.read_exact_at(&mut page, 0)?;
        Self::in_page(&page).map_or(Ok(()), |marker| Err(marker.source_refusal()))
    }

    /// The marker that the first page of a storage carries, if it carries one.
    pub(in crate::sync) fn in_page(page: &[u8]) -> Option<Marker> {
        (0u64..)
            .zip(page.chunks_exact(SECTOR))
            .find_map(|(index, sector)| {
                Self::decode(sector.try_into().ok()?, index * SECTOR as u64)
            })
    }

    /// # Errors
    /// `Incomplete`, with the way on, when the storage carries a marker; `Io`.
    pub fn refuse(storage: &dyn Storage) -> Result<()> {
        match Self::find(storage)? {
            None => Ok(()),
            Some(marker) => Err(marker.source_refusal().at_path(storage.path())),
        }
    }

    /// The error for a source that carries this marker.
    fn source_refusal(&self) -> Error {
        self.refusal().or_advise(Advice::MarkerIsData)
    }

    /// The error for a target that carries this marker.
    pub fn refusal(&self) -> Error {
        let redo_log = self.redo_log.display();
        if self.held {
            let what = "this target is held: it is not to be used until it is released";
            let error = Error::new(ErrorKind::Incomplete, what).leaving(self.leaves());
            return error
                .advise(format!(
                    "its sidecar, as the marker says, is {redo_log}; leave it to its holder"
                ))
                .or_advise(Advice::FindState);
        }
        let error = Error::new(
            ErrorKind::Incomplete,
            "an unfinished sync left this target incomplete",
        )
        .leaving(self.leaves());
        match self.safety {
            Safety::Atomic => error
                .advise(format!("its log, as the marker says, is {redo_log}"))
                .or_advise(Advice::Recover),
            Safety::InPlace => error
                .advise(format!("its sidecar, as the marker says, is {redo_log}"))
                .or_advise("finish it: run the same sync again"),
        }
    }

    /// How the bytes under this marker are given up where its log is lost.
    pub(in crate::sync) fn forget(&self) -> Advice {
        match self.held {
            true => Advice::ForgetHeld,
            false => Advice::Forget,
        }
    }

    /// What a target that carries this marker waits for.
    pub(crate) fn leaves(&self) -> TargetState {
        match self.safety {
            _ if self.held => TargetState::Held,
            Safety::Atomic => TargetState::Recover,
            Safety::InPlace => TargetState::RunAgain,
        }
    }

    /// The bytes that stand at `range` while the marker is set.
    pub(in crate::sync) fn fill(&self, range: Range<u64>) -> Vec<u8> {
        let first = range.start / SECTOR as u64;
        let last = range.end.div_ceil(SECTOR as u64);
        let skip = to_index(range.start - first * SECTOR as u64);
        let sectors: Vec<u8> = (first..last)
            .flat_map(|index| self.encode(index * SECTOR as u64))
            .collect();
        sectors[skip..skip + to_index(range.end - range.start)].to_vec()
    }

    fn encode(&self, offset: u64) -> [u8; SECTOR] {
        let mut out = [0; SECTOR];
        let redo_log = bytes_of(&self.redo_log);
        // A longer path is cut; recovery then looks beside the target and in the log directory.
        let redo_log = redo_log.get(..REDO_LOG_MOST).unwrap_or(redo_log);
        out[..16].copy_from_slice(MAGIC);
        out[16..32].copy_from_slice(&self.job.0);
        out[32] = match self.safety {
            Safety::Atomic => 1,
            Safety::InPlace => 2,
        };
        out[33] = u8::from(self.held);
        out[40..48].copy_from_slice(&self.target_len.to_le_bytes());
        out[48..56].copy_from_slice(&offset.to_le_bytes());
        // REDO_LOG_MOST fits 16 bits.
        out[56..58].copy_from_slice(&(redo_log.len() as u16).to_le_bytes());
        out[58..58 + redo_log.len()].copy_from_slice(redo_log);
        let text = if self.held { HELD_TEXT } else { TEXT };
        out[TEXT_AT..TEXT_AT + text.len()].copy_from_slice(text);
        let crc = crc32fast::hash(&out[..SECTOR - 4]);
        out[SECTOR - 4..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Whether the sector at `offset` is a marker, of whatever job.
    pub(in crate::sync) fn is_marker(sector: &[u8], offset: u64) -> bool {
        let sector = sector.try_into().ok();
        sector.is_some_and(|sector| Self::decode(sector, offset).is_some())
    }

    fn decode(sector: &[u8; SECTOR], offset: u64) -> Option<Marker> {
        let (body, crc) = sector.split_at(SECTOR - 4);
        if body[..16] != *MAGIC || crc32fast::hash(body).to_le_bytes() != *crc {
            return None;
        }
        let safety = match body[32] {
            1 => Safety::Atomic,
            2 => Safety::InPlace,
            _ => return None,
        };
        let redo_log_len = usize::from(u16::from_le_bytes(body[56..58].try_into().ok()?));
        let redo_log = body.get(58..58 + redo_log_len.min(REDO_LOG_MOST))?;
        let here = u64::from_le_bytes(body[48..56].try_into().ok()?);
        (here == offset).then_some(Marker {
            job: JobId(body[16..32].try_into().ok()?),
            safety,
            target_len: u64::from_le_bytes(body[40..48].try_into().ok()?),
            held: body[33] == 1,
            redo_log: path_of(redo_log).into_owned(),
        })
    }
}

/// The ranges that a marker covers on a storage of `len` bytes: head and tail, apart and sector
/// aligned at their starts.
pub(in crate::sync) fn regions(len: u64) -> Vec<Range<u64>> {
    let head = 0..len.min(REGION_BYTES);
    let tail = head
        .end
        .max(len.saturating_sub(REGION_BYTES) / SECTOR as u64 * SECTOR as u64)..len;
    [head, tail]
        .into_iter()
        .filter(|range| !range.is_empty())
        .collect()
}

/// The first page, or as much of it as there is.
pub(in crate::sync) fn sentinel(len: u64) -> Range<u64> {
    0..len.min(SENTINEL_BYTES)
}

/// Whether a storage of `len` bytes can carry a marker.
pub(in crate::sync) fn can_carry(len: u64) -> bool {
    len >= SENTINEL_BYTES
}

const MAGIC: &[u8; 16] = b"\0diskdelta mark1";
/// Length of one marker, in bytes.
pub(in crate::sync) const SECTOR: usize = 512;
const SENTINEL_BYTES: u64 = 4096;
const REGION_BYTES: u64 = 1 << 20;
const REDO_LOG_MOST: usize = 320;
const TEXT_AT: usize = 380;
const TEXT: &[u8] = b"This disk is incomplete: a diskdelta sync onto it did not finish. \
                      Run: diskdelta recover THIS-DISK\n";
const HELD_TEXT: &[u8] = b"This disk is held: it is not to be used until it is released. \
                           See: diskdelta recover THIS-DISK\n";

/// Ranges here are at most a MiB or so long.
fn to_index(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryStorage;

    fn marker() -> Marker {
        Marker {
            job: JobId([9; 16]),
            safety: Safety::Atomic,
            target_len: 5 << 20,
            held: false,
            redo_log: "/a/.b.diskdelta-log".into(),
        }
    }

    #[test]
    fn a_marker_says_whether_its_target_is_held() {
        for held in [false, true] {
            let marker = Marker { held, ..marker() };
            let page = MemoryStorage::new("t", marker.fill(0..4096));
            assert_eq!(Marker::find(&page).unwrap(), Some(marker));
        }
    }

    #[test]
    fn one_sector_of_the_first_page_is_enough_to_find_a_marker() {
        let page = marker().fill(0..4096);
        for sector in 0..8 {
            let mut bytes = vec![0x55; 8192];
            let at = sector * SECTOR;
            bytes[at..at + SECTOR].copy_from_slice(&page[at..at + SECTOR]);
            let found = Marker::find(&MemoryStorage::new("t", bytes)).unwrap();
            assert_eq!(found, Some(marker()), "sector {sector}");
        }
    }

    #[test]
    fn a_marker_at_another_place_or_with_a_bit_flipped_is_none() {
        let page = marker().fill(0..4096);
        let mut moved = vec![0; 8192];
        moved[512..1024].copy_from_slice(&page[..512]);
        assert_eq!(Marker::find(&MemoryStorage::new("t", moved)).unwrap(), None);
        for bit in 0..SECTOR * 8 {
            let mut bytes = vec![0; 4096];
            bytes[..SECTOR].copy_from_slice(&page[..SECTOR]);
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                Marker::find(&MemoryStorage::new("t", bytes)).unwrap(),
                None,
                "bit {bit}"
            );
        }
    }

    #[test]
    fn covered_ranges_never_overlap_and_reach_both_ends() {
        for len in [
            4096u64,
            4097,
            1 << 20,
            (1 << 20) + 1,
            (2 << 20) + 77,
            5 << 20,
        ] {
            let ranges = regions(len);
            assert_eq!(ranges.first().map(|r| r.start), Some(0));
            assert_eq!(ranges.last().map(|r| r.end), Some(len));
            assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start));
        }
        assert!(regions(0).is_empty());
    }

    #[test]
    fn filling_in_pieces_gives_the_same_bytes() {
        let whole = marker().fill(0..8192);
        assert_eq!(marker().fill(4096..8192), whole[4096..]);
        assert_eq!(marker().fill(512..700), whole[512..700]);
        assert_eq!(marker().fill(700..1500), whole[700..1500]);
    }
}
