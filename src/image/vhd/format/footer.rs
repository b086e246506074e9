//! The footer at the end of every VHD, and its copy at the head of dynamic ones.

use crate::error::Result;
use crate::image::Layout;

use super::{
    Fields, MAX_DYNAMIC_BYTES, MAX_FIXED_BYTES, SECTOR_BYTES, VERSION, check, other_version,
    sealed, wrong,
};

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
            check(bytes, CHECKSUM, at)?;
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
        sealed(&bytes, CHECKSUM)
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

    /// The longest disk of such a file.
    pub fn max_disk_bytes(self) -> u64 {
        match self {
            DiskKind::Fixed => MAX_FIXED_BYTES,
            DiskKind::Dynamic | DiskKind::Differencing => MAX_DYNAMIC_BYTES,
        }
    }

    /// How such a disk stores its bytes.
    pub fn layout(self) -> Layout {
        match self {
            DiskKind::Fixed => Layout::Fixed,
            DiskKind::Dynamic => Layout::Dynamic,
            DiskKind::Differencing => Layout::Differencing,
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

/// Length of a footer, and of its copy at the head.
pub const FOOTER_BYTES: usize = 512;
/// "No further structure", in fields that hold a place in the file.
pub const NOWHERE: u64 = u64::MAX;

const COOKIE: &[u8; 8] = b"conectix";
const CHECKSUM: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::ErrorKind;
    use crate::image::vhd::format::{MAX_DYNAMIC_BYTES, MAX_FIXED_BYTES};

    fn sealed_footer(bytes: &[u8]) -> [u8; FOOTER_BYTES] {
        sealed(&[COOKIE, &bytes[8..]].concat(), CHECKSUM)
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
            let bytes: [u8; FOOTER_BYTES] = sealed_footer(&bytes);
            let footer = Footer::decode(&bytes, 0, false).unwrap();
            prop_assert_eq!(footer.encode(), bytes);
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
        for len in [MAX_DYNAMIC_BYTES, MAX_FIXED_BYTES] {
            assert!(Geometry::for_disk(len).is_saturated());
        }
    }

    #[test]
    fn one_wrong_byte_is_found_and_named_with_its_place() {
        let bytes: [u8; FOOTER_BYTES] = sealed_footer(&[0; FOOTER_BYTES]);
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
}
