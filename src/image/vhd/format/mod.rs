//! The structures of a VHD file as they lie on disk (Microsoft's VHD specification 1.0).
//!
//! All integers are big-endian; places in the file are counted in sectors of 512 bytes where the
//! text says so. Decoding takes bytes from anywhere and never panics; encoding what was decoded
//! gives the same bytes, but for a checksum that was wrong.

mod footer;
mod header;
mod table;

use crate::error::{Error, ErrorKind, Result};

pub use footer::{DiskKind, FOOTER_BYTES, Footer, Geometry, NOWHERE};
pub use header::{
    DynamicHeader, HEADER_BYTES, HEADER_COOKIE, Locator, MAX_BLOCK_BYTES, encode_parent_name,
    encode_relative, locator_text, parent_name_text,
};
pub use table::{
    ENTRIES_A_SECTOR, ENTRY_BYTES, UNALLOCATED, bit, bitmap_bytes, decode_entries, encode_entries,
    set_bits,
};

/// The unit of places and lengths, in bytes.
pub const SECTOR_BYTES: u64 = 512;
/// The longest dynamic disk: beyond it an entry of the table could not name a block's place. QEMU
/// opens no longer VHD of any kind.
pub const MAX_DYNAMIC_BYTES: u64 = 2040 << 30;
/// The longest fixed disk, which has no table. Azure takes and gives fixed ones up to 32 TiB.
pub const MAX_FIXED_BYTES: u64 = 64 << 40;
/// Seconds from 1970 to 2000, where timestamps begin.
pub const EPOCH_SECONDS: u64 = 946_684_800;

const VERSION: u32 = 0x0001_0000;

/// Takes fields off the front of a structure whose length its type states.
struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut field = [0; N];
        // The structures' lengths cover all of their fields; anything missing reads as zeros.
        if let Some(from) = self.bytes.get(self.at..self.at + N) {
            field.copy_from_slice(from);
        }
        self.at += N;
        field
    }

    fn u8(&mut self) -> u8 {
        u8::from_be_bytes(self.take())
    }

    fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.take())
    }

    fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.take())
    }
}

/// The complement of the sum of all bytes, the checksum's own four counted as zeros.
fn checksum(bytes: &[u8], field: usize) -> u32 {
    let sum = |part: &[u8]| part.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    // No structure is long enough for the sum to wrap.
    !(sum(bytes) - sum(&bytes[field..field + 4]))
}

fn check(bytes: &[u8], field: usize, at: u64) -> Result<()> {
    let mut stored = Fields { bytes, at: field };
    if stored.u32() == checksum(bytes, field) {
        return Ok(());
    }
    Err(
        wrong("the checksum is wrong", "checksum", at + field as u64).advise(
            "restore the file from a copy, or read it leniently if it is known to be right",
        ),
    )
}

fn sealed<const N: usize>(bytes: &[u8], field: usize) -> [u8; N] {
    let mut sealed = [0; N];
    sealed.copy_from_slice(bytes);
    let sum = checksum(&sealed, field);
    sealed[field..field + 4].copy_from_slice(&sum.to_be_bytes());
    sealed
}

fn wrong(
    message: impl Into<std::borrow::Cow<'static, str>>,
    field: &'static str,
    at: u64,
) -> Error {
    Error::malformed(message).in_field(field).at_offset(at)
}

fn other_version(version: u32, at: u64) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!(
            "version {}.{} of the format",
            version >> 16,
            version & 0xffff
        ),
    )
    .in_field("version")
    .at_offset(at)
}
