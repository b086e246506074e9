//! Deciding where a change will lie, before any of it is written.
//!
//! The patches, in this order: the file's new length; zeros for those bytes of new blocks that the
//! change does not write (a crash may have left anything there, also in space that a length change
//! has just added); the new blocks' bitmaps; whole sectors of the table; both footers. Every byte
//! of a new block is covered once, by a patch or by the change's own data, so doing all of it again
//! after any crash ends in the same file.

use std::collections::BTreeSet;
use std::ops::Range;

use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};
use crate::image::{Change, Image, Patch};
use crate::units::{Extent, ExtentKind};

use super::bitmap::Bits;
use super::dynamic::Dynamic;
use super::format::{DiskKind, ENTRIES_A_SECTOR, FOOTER_BYTES};
use super::resize::{check_len, resized};
use super::space::Space;

impl Dynamic {
    /// See [`ImageMut::prepare`](crate::image::ImageMut::prepare).
    ///
    /// # Errors
    /// `InvalidInput` for extents that are no ascending ranges of the disk, and while plain
    /// writes wait for their `sync`; otherwise as the trait says.
    pub(super) fn prepare_change(&self, change: &Change<'_>) -> Result<Vec<Patch>> {
        check_len(&*self.storage, DiskKind::Dynamic, change.disk_len)?;
        check_extents(change)?;
        let mut meta = self.lock_meta();
        if meta.is_ahead() {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "plain writes must be synced before a change is prepared",
            )
            .at_path(self.storage.path()));
        }
        let old_len = self.disk_len();
        let mut plan = Plan {
            disk: self,
            space: meta.space.clone(),
            sectors: self.stale_sectors(&meta.space, change.disk_len)?,
            added: Vec::new(),
            mended: Vec::new(),
        };
        plan.place(change.extents)?;
        let zeros = plan.zeros(change, old_len);

        let Plan {
            mut space,
            sectors,
            added,
            mended,
            ..
        } = plan;
        let mut footer = meta.footer.clone();
        if change.disk_len != old_len {
            footer = resized(&footer, change.disk_len);
        }
        let old_tail = space.tail_at.filter(|_| footer == meta.footer);
        let tail = match space.tail_at {
            Some(tail) if added.is_empty() => tail,
            _ => space.tight_tail(),
        };

        let mut patches = Vec::new();
        if space.tail_at != Some(tail) {
            patches.push(Patch::SetLen(tail + FOOTER_BYTES as u64));
        }
        patches.extend(zeros.into_iter().map(Patch::Zero));
        let full = Bytes::from(self.full_bitmap());
        patches.extend(added.iter().chain(&mended).map(|(_, entry)| Patch::Write {
            offset: self.shape.bitmap_at(*entry),
            bytes: full.clone(),
            last: false,
        }));

        // From here on nothing fails, so memory changes as a whole or not at all.
        self.take_len(change.disk_len);
        for (index, entry) in &added {
            self.set_entry(*index, *entry);
        }
        for (index, _) in &mended {
            self.bitmaps.set_full(*index);
        }
        let written = |(offset, bytes): (u64, Vec<u8>)| Patch::Write {
            offset,
            bytes: bytes.into(),
            last: false,
        };
        patches.extend(self.table_sectors(&sectors).into_iter().map(written));
        let bytes = Bytes::copy_from_slice(&footer.encode());
        let mut footer_at = |offset: u64| {
            patches.push(Patch::Write {
                offset,
                bytes: bytes.clone(),
                last: true,
            });
        };
        if old_tail != Some(tail) {
            footer_at(tail);
        }
        if !meta.head_good || footer != meta.footer {
            footer_at(0);
        }
        space.trimmed_to(tail);
        meta.space = space;
        meta.footer = footer;
        meta.head_good = true;
        Ok(patches)
    }
}

/// Where things will lie; becomes true only as a whole.
struct Plan<'a> {
    disk: &'a Dynamic,
    space: Space,
    /// Sectors of the table that change.
    sectors: BTreeSet<u64>,
    /// New blocks: index and entry.
    added: Vec<(u64, u32)>,
    /// Blocks whose bitmap gets all its bits.
    mended: Vec<(u64, u32)>,
}

impl Plan<'_> {
    /// Gives every block that gets data a place.
    fn place(&mut self, extents: &[Extent]) -> Result<()> {
        let shape = self.disk.shape;
        let mut done = None;
        for extent in extents.iter().filter(|it| it.kind == ExtentKind::Data) {
            for (index, ..) in self.disk.pieces(extent.range()) {
                if done.replace(index) == Some(index) {
                    continue;
                }
                if let Some(entry) = self.disk.entry(index) {
                    if let Bits::Some(bits) = self.disk.bits(index, entry)? {
                        self.disk.check_cleared(entry, &bits)?;
                        self.mended.push((index, entry));
                    }
                } else {
                    let named = |e: Error| e.at_path(self.disk.storage.path());
                    let entry = self.space.place(shape).map_err(named)?;
                    self.space.take(entry, shape);
                    self.added.push((index, entry));
                    self.sectors.insert(index / ENTRIES_A_SECTOR as u64);
                }
            }
        }
        Ok(())
    }

    /// The places in the file that must read as zeros.
    fn zeros(&self, change: &Change<'_>, old_len: u64) -> Vec<Range<u64>> {
        let shape = self.disk.shape;
        let mut zeros = Vec::new();
        let mut clear = |entry: u32, block_start: u64, range: Range<u64>| {
            let payload = shape.payload_at(entry);
            for gap in uncovered(range, change.extents) {
                zeros.push(payload + gap.start - block_start..payload + gap.end - block_start);
            }
        };
        // The end of the old last block was not part of the disk and may hold anything.
        let last = old_len / shape.block_bytes;
        let start = last * shape.block_bytes;
        let grown = old_len..change.disk_len.min(start + shape.block_bytes);
        if !grown.is_empty()
            && start < old_len
            && let Some(entry) = self.disk.entry(last)
        {
            clear(entry, start, grown);
        }
        for (index, entry) in &self.added {
            let start = index * shape.block_bytes;
            clear(*entry, start, start..start + shape.block_bytes);
        }
        zeros
    }
}

/// # Errors
/// `InvalidInput` unless the extents ascend, do not overlap and end inside the new disk.
pub(super) fn check_extents(change: &Change<'_>) -> Result<()> {
    let mut at = 0;
    for extent in change.extents {
        match extent.offset.checked_add(extent.len) {
            Some(end) if extent.offset >= at && end <= change.disk_len => at = end,
            _ => {
                return Err(Error::new(
                    ErrorKind::InvalidInput,
                    "a change's extents must ascend, not overlap, and end inside the disk",
                )
                .at_offset(extent.offset));
            }
        }
    }
    Ok(())
}

/// The parts of `range` that no data extent covers; the extents ascend.
pub(super) fn uncovered(range: Range<u64>, extents: &[Extent]) -> Vec<Range<u64>> {
    let mut gaps = Vec::new();
    let mut at = range.start;
    let first = extents.partition_point(|extent| extent.end() <= range.start);
    let behind = extents.get(first..).unwrap_or_default();
    for extent in behind.iter().take_while(|it| it.offset < range.end) {
        if extent.kind == ExtentKind::Data {
            if extent.offset > at {
                gaps.push(at..extent.offset);
            }
            at = extent.end();
        }
    }
    if at < range.end {
        gaps.push(at..range.end);
    }
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_data_leaves_uncovered_is_found_once() {
        let extents = [
            Extent::data(0..10),
            Extent::data(20..30),
            Extent::zero(30..40),
            Extent::data(45..60),
        ];
        let gaps = |range| -> Vec<(u64, u64)> {
            let gaps = uncovered(range, &extents).into_iter();
            gaps.map(|gap| (gap.start, gap.end)).collect()
        };
        assert_eq!(gaps(0..100), [(10, 20), (30, 45), (60, 100)]);
        assert_eq!(gaps(5..25), [(10, 20)]);
        assert_eq!(gaps(22..28), []);
        assert_eq!(gaps(30..31), [(30, 31)]);
        assert_eq!(gaps(70..80), [(70, 80)]);
        assert_eq!(gaps(5..5), []);
    }

    #[test]
    fn extents_out_of_order_or_outside_are_refused() {
        let check = |extents: &[Extent]| {
            check_extents(&Change {
                disk_len: 100,
                extents,
            })
            .is_ok()
        };
        assert!(check(&[Extent::data(0..10), Extent::zero(10..100)]));
        assert!(!check(&[Extent::data(10..20), Extent::data(0..5)]));
        assert!(!check(&[Extent::data(10..20), Extent::data(19..25)]));
        assert!(!check(&[Extent::data(90..101)]));
    }
}
