//! How guest bytes map to entries of the block table ([MS-VHDX] section 2.5).

use std::ops::Range;

use super::format::{BITMAP_SECTORS, ENTRIES_PER_PAGE, PAGE};

/// Block and sector sizes of an image, and where its block table lies.
#[derive(Debug, Clone)]
pub(super) struct Geometry {
    /// Bytes a payload block: a power of two, at least 1 MiB.
    pub block_bytes: u64,
    /// 512 or 4096.
    pub sector_bytes: u64,
    /// The block table's region.
    pub bat: Range<u64>,
    /// Whether entries for sector bitmaps are in use.
    pub differencing: bool,
}

/// What an entry of the block table is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// A payload block, by its number.
    Payload(u64),
    /// The sector bitmap of a chunk, by its number.
    Bitmap(u64),
}

impl Geometry {
    /// How many payload blocks share one sector bitmap.
    pub(super) fn chunk_blocks(&self) -> u64 {
        // Both are powers of two, and the product is at least 4 GiB: 16 or more.
        BITMAP_SECTORS * self.sector_bytes / self.block_bytes
    }

    /// How many payload blocks a disk of `disk_len` bytes has.
    pub(super) fn block_count(&self, disk_len: u64) -> u64 {
        disk_len.div_ceil(self.block_bytes)
    }

    /// How many entries the block table of such a disk has; at most a few more than 2^26.
    pub(super) fn entry_count(&self, disk_len: u64) -> u64 {
        let blocks = self.block_count(disk_len);
        let chunk = self.chunk_blocks();
        if self.differencing {
            blocks.div_ceil(chunk) * (chunk + 1)
        } else {
            blocks + blocks.saturating_sub(1) / chunk
        }
    }

    /// How many entries the block table's region has room for.
    pub(super) fn entry_room(&self) -> u64 {
        (self.bat.end - self.bat.start) / 8
    }

    /// The entry of a payload block.
    pub(super) fn payload_entry(&self, block: u64) -> u64 {
        block + block / self.chunk_blocks()
    }

    /// The entry of the sector bitmap that covers a payload block.
    pub(super) fn bitmap_entry(&self, block: u64) -> u64 {
        let chunk = self.chunk_blocks();
        (block / chunk + 1) * chunk + block / chunk
    }

    /// What an entry is for.
    pub(super) fn role(&self, entry: u64) -> Role {
        let stride = self.chunk_blocks() + 1;
        if entry % stride == stride - 1 {
            Role::Bitmap(entry / stride)
        } else {
            Role::Payload(self.first_block_from(entry))
        }
    }

    /// Whether one of these entries is for a sector bitmap.
    pub(super) fn has_bitmap_entry(&self, entries: Range<u64>) -> bool {
        let stride = self.chunk_blocks() + 1;
        entries.start / stride != entries.end / stride
    }

    /// The first payload block whose entry is `entry` or comes after it.
    pub(super) fn first_block_from(&self, entry: u64) -> u64 {
        entry - entry / (self.chunk_blocks() + 1)
    }

    /// The guest bytes of a block, cut at the end of the disk; empty for one behind it, which the
    /// last chunk of a differencing image has entries for.
    pub(super) fn block_range(&self, block: u64, disk_len: u64) -> Range<u64> {
        let start = block * self.block_bytes;
        start..(start + self.block_bytes).min(disk_len).max(start)
    }

    /// The page of the file that holds an entry.
    pub(super) fn entry_page(&self, entry: u64) -> u64 {
        self.bat.start + entry / ENTRIES_PER_PAGE * PAGE
    }

    /// The first bit of a block in its chunk's sector bitmap.
    pub(super) fn first_bit(&self, block: u64) -> u64 {
        block % self.chunk_blocks() * self.block_sectors()
    }

    /// Sectors a block.
    pub(super) fn block_sectors(&self) -> u64 {
        self.block_bytes / self.sector_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::super::format::MIB;
    use super::*;

    fn geometry(block_bytes: u64, sector_bytes: u64, differencing: bool) -> Geometry {
        Geometry {
            block_bytes,
            sector_bytes,
            bat: 3 * MIB..4 * MIB,
            differencing,
        }
    }

    #[test]
    fn entries_interleave_one_bitmap_after_each_chunk() {
        let parent = geometry(2 * MIB, 512, false);
        assert_eq!(parent.chunk_blocks(), 2048);
        let child = geometry(2 * MIB, 512, true);
        for (blocks, flat, with_bitmaps) in [
            (1, 1, 2049),
            (2047, 2047, 2049),
            (2048, 2048, 2049),
            (2049, 2050, 4098),
            (4096, 4097, 4098),
            (4097, 4099, 6147),
        ] {
            let len = blocks * 2 * MIB;
            assert_eq!(parent.entry_count(len), flat);
            assert_eq!(child.entry_count(len), with_bitmaps);
        }
        assert_eq!(child.payload_entry(2047), 2047);
        assert_eq!(child.bitmap_entry(2047), 2048);
        assert_eq!(child.payload_entry(2048), 2049);
        assert_eq!(child.bitmap_entry(2048), 4097);
        assert_eq!(geometry(MIB, 4096, false).chunk_blocks(), 32768);
        assert_eq!(geometry(256 * MIB, 512, false).chunk_blocks(), 16);
    }

    #[test]
    fn roles_are_the_inverse_of_entries() {
        for geometry in [
            geometry(256 * MIB, 512, true),
            geometry(64 * MIB, 4096, true),
        ] {
            for block in 0..2000 {
                let entry = geometry.payload_entry(block);
                assert_eq!(geometry.role(entry), Role::Payload(block));
                assert!(!geometry.has_bitmap_entry(entry..entry + 1));
                let bitmap = geometry.bitmap_entry(block);
                assert_eq!(
                    geometry.role(bitmap),
                    Role::Bitmap(block / geometry.chunk_blocks())
                );
                assert!(geometry.has_bitmap_entry(bitmap..bitmap + 1));
                assert!(geometry.has_bitmap_entry(entry..bitmap + 1));
                assert!(!geometry.has_bitmap_entry(entry..bitmap));
            }
        }
    }
}
