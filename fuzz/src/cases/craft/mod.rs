//! Images made by hand, valid at first, then changed field by field with their checksums mended.

pub mod delta;
pub mod vhd;
pub mod vhdx;
pub mod vhdx_log;

use super::store::Bytes;

/// A field: where it lies, how many bytes it has.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    pub at: u64,
    pub width: usize,
}

impl Field {
    pub const fn new(at: u64, width: usize) -> Self {
        Field { at, width }
    }
}

/// Bytes that show which sector of which image they belong to, none of them zero.
pub fn sector_bytes(image: u8, sector: u64) -> [u8; 512] {
    let mut bytes = [0; 512];
    for (index, byte) in (0u64..).zip(&mut bytes) {
        let mixed = (index + sector * 7) % 251 + u64::from(image) * 17;
        *byte = (mixed % 255) as u8 + 1;
    }
    bytes
}

/// Fills sectors of a block's payload: the first ones, the last ones, some between; the others
/// stay zeros, so that large blocks cost little. `has` says which sectors may be filled at all.
pub fn fill_block(
    file: &mut Bytes,
    payload: u64,
    sectors: u64,
    image: u8,
    first: u64,
    has: impl Fn(u64) -> bool,
) {
    let some = (0..sectors.min(20)).chain((20..sectors).step_by((sectors as usize / 5).max(1)));
    let last = sectors.saturating_sub(2)..sectors;
    for sector in some.chain(last).filter(|sector| has(*sector)) {
        file.put(payload + sector * 512, &sector_bytes(image, first + sector));
    }
}
