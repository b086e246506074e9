//! The header of dynamic and differencing files, and what it says of a parent.

use crate::error::Result;

use super::{Fields, SECTOR_BYTES, VERSION, check, other_version, sealed, wrong};

/// The header of dynamic and differencing files (1024 bytes).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DynamicHeader {
    /// The next structure; unused.
    pub next_offset: u64,
    /// Where the block allocation table lies, in bytes.
    pub table_offset: u64,
    /// How many entries the table has room for.
    pub max_table_entries: u32,
    /// Guest bytes a block.
    pub block_bytes: u32,
    /// The parent's unique id.
    pub parent_id: [u8; 16],
    /// The parent's time of change; Windows writes 0.
    pub parent_timestamp: u32,
    /// Zero.
    pub reserved: u32,
    /// The parent's name, UTF-16 big-endian, padded with zeros.
    pub parent_name: [u8; 512],
    /// Where the parent's paths lie.
    pub locators: [Locator; 8],
    /// Zeros.
    pub reserved_end: [u8; 256],
}

/// Where one spelling of the parent's path lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Locator {
    /// Which spelling; four zeros where the slot is unused.
    pub platform: [u8; 4],
    /// Room for it: sectors in the specification, bytes in what Windows writes.
    pub space: u32,
    /// Its length in bytes.
    pub len: u32,
    /// Zero.
    pub reserved: u32,
    /// Its place in bytes.
    pub offset: u64,
}

impl DynamicHeader {
    /// Reads a header that lies at byte `at` of its file. With `lenient` a wrong checksum passes.
    ///
    /// # Errors
    /// `Malformed` for a wrong cookie, checksum or block size; `Unsupported` for another version.
    pub fn decode(bytes: &[u8; HEADER_BYTES], at: u64, lenient: bool) -> Result<DynamicHeader> {
        let mut fields = Fields { bytes, at: 0 };
        if fields.take() != *HEADER_COOKIE {
            return Err(wrong(
                "no dynamic header: the cookie is not `cxsparse`",
                "header cookie",
                at,
            ));
        }
        if !lenient {
            check(bytes, CHECKSUM, at)?;
        }
        let next_offset = fields.u64();
        let table_offset = fields.u64();
        let version = fields.u32();
        if version >> 16 != VERSION >> 16 {
            return Err(other_version(version, at + 24));
        }
        let max_table_entries = fields.u32();
        let block_bytes = fields.u32();
        if !block_bytes.is_power_of_two()
            || u64::from(block_bytes) < SECTOR_BYTES
            || block_bytes > MAX_BLOCK_BYTES
        {
            return Err(wrong(
                format!("a block of {block_bytes} bytes is not a power of two from 512 to 256M"),
                "block size",
                at + 32,
            ));
        }
        fields.u32(); // the checksum
        let mut header = DynamicHeader {
            next_offset,
            table_offset,
            max_table_entries,
            block_bytes,
            parent_id: fields.take(),
            parent_timestamp: fields.u32(),
            reserved: fields.u32(),
            parent_name: fields.take(),
            locators: [Locator::default(); 8],
            reserved_end: [0; 256],
        };
        for locator in &mut header.locators {
            *locator = Locator {
                platform: fields.take(),
                space: fields.u32(),
                len: fields.u32(),
                reserved: fields.u32(),
                offset: fields.u64(),
            };
        }
        header.reserved_end = fields.take();
        Ok(header)
    }

    /// The header's bytes, with their checksum.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend_from_slice(HEADER_COOKIE);
        bytes.extend_from_slice(&self.next_offset.to_be_bytes());
        bytes.extend_from_slice(&self.table_offset.to_be_bytes());
        bytes.extend_from_slice(&VERSION.to_be_bytes());
        bytes.extend_from_slice(&self.max_table_entries.to_be_bytes());
        bytes.extend_from_slice(&self.block_bytes.to_be_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.parent_id);
        bytes.extend_from_slice(&self.parent_timestamp.to_be_bytes());
        bytes.extend_from_slice(&self.reserved.to_be_bytes());
        bytes.extend_from_slice(&self.parent_name);
        for locator in &self.locators {
            bytes.extend_from_slice(&locator.platform);
            bytes.extend_from_slice(&locator.space.to_be_bytes());
            bytes.extend_from_slice(&locator.len.to_be_bytes());
            bytes.extend_from_slice(&locator.reserved.to_be_bytes());
            bytes.extend_from_slice(&locator.offset.to_be_bytes());
        }
        bytes.extend_from_slice(&self.reserved_end);
        sealed(&bytes, CHECKSUM)
    }
}

/// Decodes a path of a locator; `None` for spellings that are not text (or deprecated ones).
///
/// Windows' are UTF-16 little-endian (the name in the header is big-endian), the Mac's is a URL.
pub fn locator_text(platform: [u8; 4], payload: &[u8]) -> Option<String> {
    match &platform {
        b"W2ru" | b"W2ku" => Some(utf16(payload, u16::from_le_bytes)),
        b"MacX" => Some(until_nul(&String::from_utf8_lossy(payload)).to_owned()),
        _ => None,
    }
}

/// A relative path as the payload of a locator, and the locator of it at byte `offset`, with room
/// of whole sectors.
pub fn encode_relative(path: &str, offset: u64) -> (Locator, Vec<u8>) {
    let payload: Vec<u8> = path.encode_utf16().flat_map(u16::to_le_bytes).collect();
    // Paths are far shorter than 4 GiB.
    let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let locator = Locator {
        platform: *b"W2ru",
        space: len.next_multiple_of(SECTOR_BYTES as u32),
        len,
        reserved: 0,
        offset,
    };
    (locator, payload)
}

/// The parent's name as it stands in the header, cut to what fits.
pub fn encode_parent_name(name: &str) -> [u8; 512] {
    let mut bytes = [0; 512];
    let units = name.encode_utf16().flat_map(u16::to_be_bytes);
    // The last unit stays zero.
    for (to, byte) in bytes.iter_mut().take(510).zip(units) {
        *to = byte;
    }
    bytes
}

/// Decodes the parent's name as it stands in the header.
pub fn parent_name_text(name: &[u8; 512]) -> String {
    utf16(name, u16::from_be_bytes)
}

/// Length of the header of dynamic and differencing files.
pub const HEADER_BYTES: usize = 1024;
/// The largest block that is read; the specification has 2 MiB and names no bound.
pub const MAX_BLOCK_BYTES: u32 = 256 << 20;

/// How a dynamic header begins.
pub const HEADER_COOKIE: &[u8; 8] = b"cxsparse";
const CHECKSUM: usize = 36;

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> String {
    let units = bytes.as_chunks().0.iter().map(|pair| unit(*pair));
    let units: Vec<u16> = units.take_while(|unit| *unit != 0).collect();
    String::from_utf16_lossy(&units)
}

fn until_nul(text: &str) -> &str {
    text.split('\0').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn encoding_a_decoded_header_gives_the_same_bytes(
            bytes in proptest::collection::vec(any::<u8>(), HEADER_BYTES),
            shift in 9u32..29,
        ) {
            let mut bytes = bytes;
            bytes[24..28].copy_from_slice(&VERSION.to_be_bytes());
            bytes[32..36].copy_from_slice(&(1u32 << shift).to_be_bytes());
            let bytes = [HEADER_COOKIE, &bytes[8..]].concat();
            let bytes: [u8; HEADER_BYTES] = sealed(&bytes, CHECKSUM);
            let header = DynamicHeader::decode(&bytes, 0, false).unwrap();
            prop_assert_eq!(header.encode(), bytes);
        }
    }

    #[test]
    fn parent_names_are_read_in_both_byte_orders_up_to_the_first_nul() {
        let mut name = [0; 512];
        for (at, unit) in "ü😀.vhd".encode_utf16().enumerate() {
            name[2 * at..2 * at + 2].copy_from_slice(&unit.to_be_bytes());
        }
        assert_eq!(parent_name_text(&name), "ü😀.vhd");
        let path: Vec<u8> = r".\ü.vhd"
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        assert_eq!(locator_text(*b"W2ru", &path).unwrap(), r".\ü.vhd");
        assert_eq!(locator_text(*b"W2ru", &path[..3]).unwrap(), ".");
        assert_eq!(locator_text(*b"W2ku", &[0x3d, 0xd8]).unwrap(), "\u{fffd}");
        assert_eq!(
            locator_text(*b"MacX", b"file:///p.vhd\0x").unwrap(),
            "file:///p.vhd"
        );
        assert_eq!(locator_text(*b"Wi2r", b"p.vhd"), None);
    }
}
