//! The block allocation table, and the sector bitmap before each block.

use super::{FOOTER_BYTES, SECTOR_BYTES};

/// Decodes the entries of a piece of the block allocation table.
pub fn decode_entries(bytes: &[u8]) -> impl Iterator<Item = u32> + '_ {
    bytes
        .as_chunks()
        .0
        .iter()
        .map(|entry| u32::from_be_bytes(*entry))
}

/// The bytes of a piece of the table, filled up to whole sectors with [`UNALLOCATED`].
pub fn encode_entries(entries: &[u32]) -> Vec<u8> {
    let len = (entries.len() * ENTRY_BYTES).next_multiple_of(FOOTER_BYTES);
    let mut bytes = Vec::with_capacity(len);
    for entry in entries {
        bytes.extend_from_slice(&entry.to_be_bytes());
    }
    bytes.resize(len, 0xff);
    bytes
}

/// Length of the sector bitmap before a block of `block_bytes`: a bit a sector, in whole sectors.
pub fn bitmap_bytes(block_bytes: u32) -> u64 {
    (u64::from(block_bytes) / SECTOR_BYTES)
        .div_ceil(8)
        .next_multiple_of(SECTOR_BYTES)
}

/// Whether a bitmap has the bit of a block's `sector` set; the first is the byte's highest bit.
pub fn bit(bitmap: &[u8], sector: u64) -> bool {
    usize::try_from(sector / 8)
        .ok()
        .and_then(|index| bitmap.get(index))
        .is_some_and(|byte| byte & (0x80 >> (sector % 8)) != 0)
}

/// Sets the bits of a block's `sectors`.
pub fn set_bits(bitmap: &mut [u8], sectors: std::ops::Range<u64>) {
    for sector in sectors {
        let byte = usize::try_from(sector / 8).ok();
        if let Some(byte) = byte.and_then(|index| bitmap.get_mut(index)) {
            *byte |= 0x80 >> (sector % 8);
        }
    }
}

/// Bytes an entry of the block allocation table.
pub const ENTRY_BYTES: usize = 4;
/// Entries a sector of the table.
pub const ENTRIES_A_SECTOR: usize = FOOTER_BYTES / ENTRY_BYTES;

/// A table entry that names no block.
pub const UNALLOCATED: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::vhd::format::MAX_BLOCK_BYTES;

    #[test]
    fn a_bitmap_has_its_first_sector_in_the_highest_bit() {
        assert!(bit(&[0x80, 0x01], 0) && bit(&[0x80, 0x01], 15));
        assert!(!bit(&[0x80, 0x01], 7) && !bit(&[0x80, 0x01], 16));
        assert_eq!(bitmap_bytes(512), 512);
        assert_eq!(bitmap_bytes(2 << 20), 512);
        assert_eq!(bitmap_bytes(4 << 20), 1024);
        assert_eq!(bitmap_bytes(MAX_BLOCK_BYTES), 65536);
    }
}
