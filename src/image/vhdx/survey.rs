//! One pass over the block table when an image is opened: every entry is checked, and what a
//! reader need not look at again is noted.

use std::ops::Range;

use super::format::{BITMAP_BYTES, BatEntry, BlockState, ENTRIES_PER_PAGE, MIB};
use super::geometry::{Geometry, Role};
use super::space::{Bits, Space};
use super::structure::read_vec;
use crate::error::{Error, Result};
use crate::storage::{Storage, next_data};

/// What the pass over the block table found.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// Which pages of the table hold an entry that a reader has to look at: of a block that lies
    /// in the file, and over a parent of any block that is not the parent's.
    pub busy: Bits,
    /// How many payload blocks lie in the file.
    pub present_count: u64,
    /// How many of them only in part.
    pub partial_count: u64,
}

impl Survey {
    /// Checks the entries of a disk of `disk_len` bytes and claims in `space` what they hold.
    /// Holes of the file below are stepped over.
    ///
    /// # Errors
    /// `Malformed` with the entry's place in the file; `Io`.
    pub(super) fn of(
        storage: &dyn Storage,
        geometry: &Geometry,
        disk_len: u64,
        space: &mut Space,
    ) -> Result<Self> {
        let mut check = Check {
            geometry,
            disk_len,
            file_len: storage.len()?,
            space,
            survey: Survey::default(),
            needs_bitmap: None,
        };
        let end = geometry.bat.start + geometry.entry_count(disk_len) * 8;
        let mut at = geometry.bat.start;
        while let Some(data) = next_data(storage, at)? {
            // Whole entries, also where the hole before them ends inside one.
            let start = data.start.max(at) / 8 * 8;
            let stop = data.end.next_multiple_of(8).min(end);
            if start >= end {
                break;
            }
            at = start;
            while at < stop {
                let len = (stop - at).min(MIB);
                // At most 1 MiB.
                check.entries(at, &read_vec(storage, at, len as usize, "bat")?)?;
                at += len;
            }
        }
        check.bitmap_is_missing(u64::MAX)?;
        Ok(check.survey)
    }
}

struct Check<'a> {
    geometry: &'a Geometry,
    disk_len: u64,
    file_len: u64,
    space: &'a mut Space,
    survey: Survey,
    /// The entry of the sector bitmap that a partial block was seen to need.
    needs_bitmap: Option<u64>,
}

impl Check<'_> {
    fn entries(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        let first = (at - self.geometry.bat.start) / 8;
        let (entries, _) = bytes.as_chunks::<8>();
        for (group, entries) in entries.chunks(GROUP_ENTRIES).enumerate() {
            let first = first + (group * GROUP_ENTRIES) as u64;
            if self.are_zeros(first, entries) {
                continue;
            }
            for (index, entry) in (first..).zip(entries) {
                let entry = BatEntry(u64::from_le_bytes(*entry));
                if entry == BatEntry::ABSENT {
                    continue;
                }
                self.bitmap_is_missing(index)?;
                self.entry(index, entry)
                    .map_err(|e| e.at_offset(self.geometry.bat.start + index * 8))?;
            }
        }
        Ok(())
    }

    /// Whether all of these entries are absent, or name blocks of zeros where that is the same:
    /// what most of a long table says.
    fn are_zeros(&self, first: u64, entries: &[[u8; 8]]) -> bool {
        let all = entries
            .iter()
            .fold(0, |all, entry| all | u64::from_le_bytes(*entry));
        if all == BatEntry::ABSENT.0 {
            return true;
        }
        let end = first + entries.len() as u64;
        all | BatEntry::ZERO.0 == BatEntry::ZERO.0
            && !self.geometry.differencing
            && !self.geometry.has_bitmap_entry(first..end)
    }

    fn entry(&mut self, index: u64, entry: BatEntry) -> Result<()> {
        if !entry.reserved_is_zero() {
            return Err(wrong("an entry sets bits that must be zero"));
        }
        let Some(state) = entry.state() else {
            return Err(wrong("an entry has a state that means nothing"));
        };
        let is_here = matches!(state, BlockState::Present | BlockState::Partial);
        if is_here || self.geometry.differencing {
            let page = index / ENTRIES_PER_PAGE;
            self.survey.busy.set(page..page + 1);
        }
        match (self.geometry.role(index), state) {
            (Role::Payload(block), BlockState::Present | BlockState::Partial) => {
                if state == BlockState::Partial {
                    if !self.geometry.differencing {
                        return Err(wrong("a block is partial, but there is no parent"));
                    }
                    self.survey.partial_count += 1;
                    self.needs_bitmap = Some(self.geometry.bitmap_entry(block));
                }
                self.survey.present_count += 1;
                // The file may end inside the last block, behind what the guest can see.
                let seen = self.geometry.block_range(block, self.disk_len);
                self.claim(entry, self.geometry.block_bytes, seen.end - seen.start)
            }
            (Role::Payload(_), BlockState::Undefined | BlockState::Unmapped) => {
                if let Some(range) = named_range(entry, self.geometry.block_bytes) {
                    self.space.name(range);
                }
                Ok(())
            }
            (Role::Payload(_), BlockState::Absent | BlockState::Zero) => Ok(()),
            (Role::Bitmap(_), BlockState::Absent) => Ok(()),
            (Role::Bitmap(_), BlockState::Present) => {
                if self.needs_bitmap == Some(index) {
                    self.needs_bitmap = None;
                }
                self.claim(entry, BITMAP_BYTES, BITMAP_BYTES)
            }
            (Role::Bitmap(_), _) => Err(wrong("a sector bitmap is neither there nor absent")),
        }
    }

    /// Claims `len` bytes, of which `seen` must lie inside the file.
    fn claim(&mut self, entry: BatEntry, len: u64, seen: u64) -> Result<()> {
        let start = entry.offset();
        match (start.checked_add(seen), start.checked_add(len)) {
            (Some(seen_end), Some(end)) if seen_end <= self.file_len => {
                self.space.claim(start..end)
            }
            _ => Err(wrong("a block is beyond the end of the file")),
        }
    }

    /// Fails once entry `index` lies behind that of a bitmap which has to be there and was not
    /// seen.
    fn bitmap_is_missing(&self, index: u64) -> Result<()> {
        match self.needs_bitmap {
            Some(bitmap) if bitmap < index => Err(wrong(
                "a block is partial, but the sector bitmap of its chunk is not there",
            )
            .at_offset(self.geometry.bat.start + bitmap * 8)),
            _ => Ok(()),
        }
    }
}

/// Entries that are looked at together first.
const GROUP_ENTRIES: usize = 512;

/// What a block that is not there still names, where that could be a place for a block.
pub(super) fn named_range(entry: BatEntry, block_bytes: u64) -> Option<Range<u64>> {
    let start = entry.offset();
    let end = start.checked_add(block_bytes)?;
    (start != 0).then_some(start..end)
}

fn wrong(message: &'static str) -> Error {
    Error::malformed(message).in_field("bat_entry")
}
