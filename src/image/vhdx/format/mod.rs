//! Structures and constants of VHDX as they lie on disk ([MS-VHDX] section 2). Nothing else in
//! this crate knows offsets inside them.

mod log;
mod tables;

use super::guid::Guid;

pub(super) use log::*;
pub(super) use tables::*;

/// The unit of the file's layout: regions, log and blocks lie at multiples of it.
pub(super) const MIB: u64 = 1 << 20;

/// The unit of the log, and of tables in memory.
pub(super) const PAGE: u64 = 4096;

/// A page's bytes.
pub(super) type Page = [u8; 4096];

/// The file begins with this (section 2.2.1).
pub(super) const FILE_SIGNATURE: [u8; 8] = *b"vhdxfile";
/// Where the creator's name begins, and its length in bytes.
pub(super) const CREATOR: (u64, usize) = (8, 512);
/// Where the two headers lie.
pub(super) const HEADER_OFFSETS: [u64; 2] = [64 << 10, 128 << 10];
/// Where the two region tables lie.
pub(super) const REGION_TABLE_OFFSETS: [u64; 2] = [192 << 10, 256 << 10];
/// First byte that a log may change: what lies before is identifier and headers.
pub(super) const FIRST_LOGGED: u64 = REGION_TABLE_OFFSETS[0];
/// No file of ours, and none that we write, is longer: 64 TiB and its tables fit twice.
pub(super) const MAX_FILE_BYTES: u64 = 128 << 40;
/// Longest virtual disk (section 2.6.2.2).
pub(super) const MAX_DISK_BYTES: u64 = 64 << 40;
/// Smallest and largest payload block (section 2.6.2.1).
pub(super) const BLOCK_BYTES: std::ops::RangeInclusive<u64> = MIB..=256 * MIB;
/// How many sectors one sector bitmap block covers (section 2.5).
pub(super) const BITMAP_SECTORS: u64 = 1 << 23;
/// Length of a sector bitmap block.
pub(super) const BITMAP_BYTES: u64 = MIB;
/// The one version of headers (section 2.2.2).
pub(super) const HEADER_VERSION: u16 = 1;
/// The one version of the log (section 2.2.2).
pub(super) const LOG_VERSION: u16 = 0;

/// A header (section 2.2.2). Trusted only when its checksum holds and it is the current one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    /// Of two headers the greater is current.
    pub sequence: u64,
    /// New at the first change after each open.
    pub file_write: Guid,
    /// New before the first change of guest-visible data; what a child knows its parent by.
    pub data_write: Guid,
    /// Entries of the log that carry it count; nil when the log is empty.
    pub log: Guid,
    /// Must be [`LOG_VERSION`] where the log is not empty.
    pub log_version: u16,
    /// Must be [`HEADER_VERSION`].
    pub version: u16,
    /// Length of the log in bytes.
    pub log_len: u32,
    /// First byte of the log.
    pub log_offset: u64,
}

impl Header {
    /// The header in `page`; `None` unless signature and checksum hold.
    pub(super) fn decode(page: &Page) -> Option<Self> {
        if page[..4] != *HEADER_SIGNATURE || checksum(page) != u32_at(page, 4) {
            return None;
        }
        Some(Header {
            sequence: u64_at(page, 8),
            file_write: guid_at(page, 16),
            data_write: guid_at(page, 32),
            log: guid_at(page, 48),
            log_version: u16_at(page, 64),
            version: u16_at(page, 66),
            log_len: u32_at(page, 68),
            log_offset: u64_at(page, 72),
        })
    }

    /// The page to write.
    pub(super) fn encode(&self) -> Box<Page> {
        let mut page = Box::new([0; 4096]);
        page[..4].copy_from_slice(HEADER_SIGNATURE);
        put(&mut *page, 8, &self.sequence.to_le_bytes());
        put(&mut *page, 16, &self.file_write.to_disk());
        put(&mut *page, 32, &self.data_write.to_disk());
        put(&mut *page, 48, &self.log.to_disk());
        put(&mut *page, 64, &self.log_version.to_le_bytes());
        put(&mut *page, 66, &self.version.to_le_bytes());
        put(&mut *page, 68, &self.log_len.to_le_bytes());
        put(&mut *page, 72, &self.log_offset.to_le_bytes());
        seal(&mut *page);
        page
    }
}

/// The file type identifier with `creator` in it, cut to what fits (section 2.2.1).
pub(super) fn encode_identifier(creator: &str) -> Box<Page> {
    let mut page = Box::new([0; 4096]);
    page[..8].copy_from_slice(&FILE_SIGNATURE);
    let (start, len) = CREATOR;
    let name = creator.encode_utf16().flat_map(u16::to_le_bytes);
    for (to, byte) in page.iter_mut().skip(start as usize).take(len).zip(name) {
        *to = byte;
    }
    page
}

/// Text of UTF-16LE bytes up to the first NUL; anything undecodable shows as such.
pub(super) fn utf16_text(bytes: &[u8]) -> String {
    let units = bytes
        .chunks_exact(2)
        .map(|pair| u16_at(pair, 0))
        .take_while(|unit| *unit != 0);
    char::decode_utf16(units)
        .map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect()
}

/// CRC-32C of a structure whose checksum field (bytes 4 to 8) counts as zeros.
pub(super) fn checksum(bytes: &[u8]) -> u32 {
    let sum = crc32c::crc32c(&bytes[..4]);
    let sum = crc32c::crc32c_append(sum, &[0; 4]);
    crc32c::crc32c_append(sum, &bytes[8..])
}

/// Puts the checksum into bytes 4 to 8.
pub(super) fn seal(bytes: &mut [u8]) {
    let sum = checksum(bytes);
    put(bytes, 4, &sum.to_le_bytes());
}

const HEADER_SIGNATURE: &[u8; 4] = b"head";

// Fields lie at constant offsets inside structures of constant length, so these cannot run over.

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array_at(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

fn guid_at(bytes: &[u8], at: usize) -> Guid {
    Guid::from_disk(array_at(bytes, at))
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_castagnoli_not_ieee() {
        assert_eq!(crc32c::crc32c(b"123456789"), 0xE306_9283);
    }

    #[test]
    fn a_header_survives_the_disk_and_a_flipped_bit_does_not() {
        let header = Header {
            sequence: 7,
            file_write: Guid::random().unwrap(),
            data_write: Guid::random().unwrap(),
            log: Guid::NIL,
            log_version: 0,
            version: 1,
            log_len: 1 << 20,
            log_offset: 1 << 20,
        };
        let mut page = header.encode();
        assert_eq!(Header::decode(&page), Some(header));
        page[4000] ^= 1;
        assert_eq!(Header::decode(&page), None);
    }
}
