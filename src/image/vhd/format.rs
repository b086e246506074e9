//! The structures of a VHD file as they lie on disk (Microsoft's VHD specification 1.0).
//!
//! All integers are big-endian; places in the file are counted in sectors of 512 bytes where the
//! text says so. Decoding takes bytes from anywhere and never panics; encoding what was decoded
//! gives the same bytes, but for a checksum that was wrong.

use crate::error::{Error, ErrorKind, Result};

/// The unit of places and lengths, in bytes.
pub const SECTOR_BYTES: u64 = 512;
/// Length of a footer, and of its copy at the head.
pub const FOOTER_BYTES: usize = 512;
/// Length of the header of dynamic and differencing files.
pub const HEADER_BYTES: usize = 1024;
/// The longest disk: beyond it an entry of the table could not name a block's place.
pub const MAX_DISK_BYTES: u64 = 2040 << 30;
/// The largest block that is read; the specification has 2 MiB and names no bound.
pub const MAX_BLOCK_BYTES: u32 = 256 << 20;
/// A table entry that names no block.
pub const UNALLOCATED: u32 = u32::MAX;
/// "No further structure", in fields that hold a place in the file.
pub const NOWHERE: u64 = u64::MAX;
/// Seconds from 1970 to 2000, where timestamps begin.
pub const EPOCH_SECONDS: u64 = 946_684_800;

/// The footer (512 bytes at the end of every VHD; a copy at the head of dynamic ones).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footer {
    /// Feature bits; bit 1 is always set.
    pub features: u32,
    /// Where the dynamic header lies, in bytes; [`NOWHERE`] in fixed files.
    pub data_offset: u64,
    /// Seconds since 2000.
    pub timestamp: u32,
    /// The program that made the file.
    pub creator: [u8; 4],
    /// That program's version, major and minor of 16 bits each.
    pub creator_version: u32,
    /// The system it ran on.
    pub creator_os: [u8; 4],
    /// The disk's length when it was made, in bytes.
    pub original_bytes: u64,
    /// The disk's length now, in bytes.
    pub current_bytes: u64,
    /// The same as cylinders, heads and sectors, rounded.
    pub geometry: Geometry,
    /// The kind of file.
    pub kind: DiskKind,
    /// The id by which children know this disk.
    pub unique_id: [u8; 16],
    /// 1 when a suspended machine is going to resume on this disk.
    pub saved_state: u8,
    /// Zeros, or what a vendor keeps there.
    pub reserved: [u8; 427],
}

/// What kind of file a footer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskKind {
    /// Data, then the footer.
    Fixed,
    /// Blocks found through a table.
    Dynamic,
    /// Blocks over a parent.
    Differencing,
}

/// Cylinders, heads and sectors a track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Cylinders.
    pub cylinders: u16,
    /// Heads.
    pub heads: u8,
    /// Sectors a track.
    pub sectors: u8,
}

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

impl Footer {
    /// Reads a footer that lies at byte `at` of its file. With `lenient` a wrong checksum passes.
    ///
    /// # Errors
    /// `Malformed` for a wrong cookie, checksum or kind; `Unsupported` for another version.
    pub fn decode(bytes: &[u8; FOOTER_BYTES], at: u64, lenient: bool) -> Result<Footer> {
        let mut fields = Fields { bytes, at: 0 };
        if fields.take() != *COOKIE {
            return Err(wrong(
                "no VHD footer: the cookie is not `conectix`",
                "cookie",
                at,
            ));
        }
        if !lenient {
            check(bytes, FOOTER_CHECKSUM, at)?;
        }
        let features = fields.u32();
        let version = fields.u32();
        if version >> 16 != VERSION >> 16 {
            return Err(other_version(version, at + 12));
        }
        let footer = Footer {
            features,
            data_offset: fields.u64(),
            timestamp: fields.u32(),
            creator: fields.take(),
            creator_version: fields.u32(),
            creator_os: fields.take(),
            original_bytes: fields.u64(),
            current_bytes: fields.u64(),
            geometry: Geometry {
                cylinders: u16::from_be_bytes(fields.take()),
                heads: fields.u8(),
                sectors: fields.u8(),
            },
            kind: DiskKind::decode(fields.u32(), at + 60)?,
            unique_id: {
                fields.u32(); // the checksum
                fields.take()
            },
            saved_state: fields.u8(),
            reserved: fields.take(),
        };
        Ok(footer)
    }

    /// The footer's bytes, with their checksum.
    pub fn encode(&self) -> [u8; FOOTER_BYTES] {
        let mut bytes = Vec::with_capacity(FOOTER_BYTES);
        bytes.extend_from_slice(COOKIE);
        bytes.extend_from_slice(&self.features.to_be_bytes());
        bytes.extend_from_slice(&VERSION.to_be_bytes());
        bytes.extend_from_slice(&self.data_offset.to_be_bytes());
        bytes.extend_from_slice(&self.timestamp.to_be_bytes());
        bytes.extend_from_slice(&self.creator);
        bytes.extend_from_slice(&self.creator_version.to_be_bytes());
        bytes.extend_from_slice(&self.creator_os);
        bytes.extend_from_slice(&self.original_bytes.to_be_bytes());
        bytes.extend_from_slice(&self.current_bytes.to_be_bytes());
        bytes.extend_from_slice(&self.geometry.cylinders.to_be_bytes());
        bytes.extend_from_slice(&[self.geometry.heads, self.geometry.sectors]);
        bytes.extend_from_slice(&self.kind.code().to_be_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.unique_id);
        bytes.push(self.saved_state);
        bytes.extend_from_slice(&self.reserved);
        sealed(&bytes, FOOTER_CHECKSUM)
    }
}

impl DiskKind {
    fn decode(code: u32, at: u64) -> Result<Self> {
        match code {
            2 => Ok(DiskKind::Fixed),
            3 => Ok(DiskKind::Dynamic),
            4 => Ok(DiskKind::Differencing),
            _ => Err(wrong(
                format!("there is no disk type {code}"),
                "disk type",
                at,
            )),
        }
    }

    fn code(self) -> u32 {
        match self {
            DiskKind::Fixed => 2,
            DiskKind::Dynamic => 3,
            DiskKind::Differencing => 4,
        }
    }

    /// `fixed`, `dynamic` or `differencing`.
    pub fn name(self) -> &'static str {
        match self {
            DiskKind::Fixed => "fixed",
            DiskKind::Dynamic => "dynamic",
            DiskKind::Differencing => "differencing",
        }
    }
}

impl Geometry {
    /// The geometry that the specification's appendix computes for a disk; it covers at most the
    /// whole disk, often a little less.
    pub fn for_disk(disk_bytes: u64) -> Geometry {
        let total = (disk_bytes / SECTOR_BYTES).min(65535 * 16 * 255);
        let (sectors, heads, tracks);
        if total >= 65535 * 16 * 63 {
            (sectors, heads, tracks) = (255, 16, total / 255);
        } else {
            let few = (total / 17).div_ceil(1024).max(4);
            if few <= 16 && total / 17 < few * 1024 {
                (sectors, heads, tracks) = (17, few, total / 17);
            } else if total / 31 < 16 * 1024 {
                (sectors, heads, tracks) = (31, 16, total / 31);
            } else {
                (sectors, heads, tracks) = (63, 16, total / 63);
            }
        }
        // At most 65535 cylinders by the bound on `total`, and at most 16 heads.
        Geometry {
            cylinders: (tracks / heads) as u16,
            heads: heads as u8,
            sectors,
        }
    }

    /// The length of a disk of this geometry.
    pub fn disk_bytes(self) -> u64 {
        u64::from(self.cylinders) * u64::from(self.heads) * u64::from(self.sectors) * SECTOR_BYTES
    }

    /// Whether it says no more than "at least 127.5 GiB".
    pub fn is_saturated(self) -> bool {
        (self.cylinders, self.heads, self.sectors) == (65535, 16, 255)
    }
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
            check(bytes, HEADER_CHECKSUM, at)?;
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
        sealed(&bytes, HEADER_CHECKSUM)
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

/// Decodes the parent's name as it stands in the header.
pub fn parent_name_text(name: &[u8; 512]) -> String {
    utf16(name, u16::from_be_bytes)
}

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

/// Bytes an entry of the block allocation table.
pub const ENTRY_BYTES: usize = 4;
/// Entries a sector of the table.
pub const ENTRIES_A_SECTOR: usize = FOOTER_BYTES / ENTRY_BYTES;

const COOKIE: &[u8; 8] = b"conectix";
const HEADER_COOKIE: &[u8; 8] = b"cxsparse";
const VERSION: u32 = 0x0001_0000;
const FOOTER_CHECKSUM: usize = 64;
const HEADER_CHECKSUM: usize = 36;

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

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> String {
    let units = bytes.as_chunks().0.iter().map(|pair| unit(*pair));
    let units: Vec<u16> = units.take_while(|unit| *unit != 0).collect();
    String::from_utf16_lossy(&units)
}

fn until_nul(text: &str) -> &str {
    text.split('\0').next().unwrap_or_default()
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sealed_bytes<const N: usize>(bytes: &[u8], cookie: &[u8; 8], field: usize) -> [u8; N] {
        let mut bytes = bytes.to_vec();
        bytes[..8].copy_from_slice(cookie);
        sealed(&bytes, field)
    }

    proptest! {
        #[test]
        fn encoding_a_decoded_footer_gives_the_same_bytes(
            bytes in proptest::collection::vec(any::<u8>(), FOOTER_BYTES),
            kind in 2u8..5,
        ) {
            let mut bytes = bytes;
            bytes[12..16].copy_from_slice(&VERSION.to_be_bytes());
            bytes[60..64].copy_from_slice(&[0, 0, 0, kind]);
            let bytes: [u8; FOOTER_BYTES] = sealed_bytes(&bytes, COOKIE, FOOTER_CHECKSUM);
            let footer = Footer::decode(&bytes, 0, false).unwrap();
            prop_assert_eq!(footer.encode(), bytes);
        }

        #[test]
        fn encoding_a_decoded_header_gives_the_same_bytes(
            bytes in proptest::collection::vec(any::<u8>(), HEADER_BYTES),
            shift in 9u32..29,
        ) {
            let mut bytes = bytes;
            bytes[24..28].copy_from_slice(&VERSION.to_be_bytes());
            bytes[32..36].copy_from_slice(&(1u32 << shift).to_be_bytes());
            let bytes: [u8; HEADER_BYTES] = sealed_bytes(&bytes, HEADER_COOKIE, HEADER_CHECKSUM);
            let header = DynamicHeader::decode(&bytes, 0, false).unwrap();
            prop_assert_eq!(header.encode(), bytes);
        }

        #[test]
        fn a_geometry_never_covers_more_than_the_disk(sectors in 0u64..0x1_0000_0000) {
            let geometry = Geometry::for_disk(sectors * SECTOR_BYTES);
            prop_assert!(geometry.disk_bytes() <= sectors * SECTOR_BYTES);
            prop_assert!(geometry.heads <= 16);
        }
    }

    #[test]
    fn geometries_are_those_that_windows_and_qemu_write() {
        let chs = |g: Geometry| (g.cylinders, g.heads, g.sectors);
        assert_eq!(chs(Geometry::for_disk(4 << 20)), (120, 4, 17));
        assert_eq!(chs(Geometry::for_disk(10 << 20)), (301, 4, 17));
        assert_eq!(chs(Geometry::for_disk(512 << 20)), (1040, 16, 63));
        assert_eq!(chs(Geometry::for_disk(4_212_736)), (121, 4, 17));
        assert!(Geometry::for_disk(MAX_DISK_BYTES).is_saturated());
    }

    #[test]
    fn one_wrong_byte_is_found_and_named_with_its_place() {
        let bytes: [u8; FOOTER_BYTES] = sealed_bytes(&[0; FOOTER_BYTES], COOKIE, FOOTER_CHECKSUM);
        let error = Footer::decode(&bytes, 0x1000, false).unwrap_err();
        assert_eq!(
            (error.kind(), error.offset()),
            (ErrorKind::Unsupported, Some(0x100c))
        );
        let mut torn = bytes;
        torn[100] ^= 1;
        let error = Footer::decode(&torn, 0x1000, false).unwrap_err();
        assert_eq!(
            (error.field(), error.offset()),
            (Some("checksum"), Some(0x1040))
        );
        torn[0] = b'C';
        let error = Footer::decode(&torn, 0x1000, false).unwrap_err();
        assert_eq!(
            (error.field(), error.offset()),
            (Some("cookie"), Some(0x1000))
        );
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
