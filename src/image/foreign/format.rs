//! What this crate itself looks at in headers of qcow2 and of sparse VMDK files.

/// The fields of a qcow2 header that imago does not hold against the file (big-endian).
#[derive(Debug, Clone, Copy)]
pub(super) struct Qcow2Header {
    /// Bytes a cluster are 2 to the power of this.
    pub cluster_bits: u32,
    /// Guest-visible length.
    pub disk_bytes: u64,
    /// 0 where nothing is encrypted.
    pub encryption: u32,
    /// Entries of the first table.
    pub l1_count: u32,
    /// Where the first table lies.
    pub l1_offset: u64,
    pub version: u32,
    /// What a reader has to know of; none in version 2.
    pub features: u64,
}

impl Qcow2Header {
    /// The header in the first bytes of a file; `None` without the signature.
    pub(super) fn decode(bytes: &[u8; QCOW2_HEADER_BYTES]) -> Option<Self> {
        let word = |at| u32::from_be_bytes(array(bytes, at));
        bytes.starts_with(b"QFI\xfb").then(|| Qcow2Header {
            cluster_bits: word(20),
            disk_bytes: u64::from_be_bytes(array(bytes, 24)),
            encryption: word(32),
            l1_count: word(36),
            l1_offset: u64::from_be_bytes(array(bytes, 40)),
            version: word(4),
            features: match word(4) {
                0..=2 => 0,
                _ => u64::from_be_bytes(array(bytes, 72)),
            },
        })
    }
}

/// The places of second tables that a piece of the first table names.
pub(super) fn l2_offsets(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    let entries = bytes.as_chunks::<8>().0.iter();
    entries.map(|entry| u64::from_be_bytes(*entry) & L2_OFFSET_BITS)
}

/// The header of a sparse VMDK extent (little-endian).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SparseHeader {
    pub version: u32,
    pub flags: u32,
    /// All of these count sectors.
    pub capacity: u64,
    pub grain: u64,
    /// Where the descriptor lies; 0 in an extent that another file describes.
    pub descriptor: u64,
    pub descriptor_len: u64,
    pub entries_a_table: u32,
    pub directory: u64,
    pub compression: u16,
}

impl SparseHeader {
    /// The header in a sector; `None` without the signature.
    pub(super) fn decode(bytes: &[u8; SECTOR]) -> Option<Self> {
        let long = |at| u64::from_le_bytes(array(bytes, at));
        bytes.starts_with(SPARSE_SIGNATURE).then(|| SparseHeader {
            version: u32::from_le_bytes(array(bytes, 4)),
            flags: u32::from_le_bytes(array(bytes, 8)),
            capacity: long(12),
            grain: long(20),
            descriptor: long(28),
            descriptor_len: long(36),
            entries_a_table: u32::from_le_bytes(array(bytes, 44)),
            directory: long(56),
            compression: u16::from_le_bytes(array(bytes, 77)),
        })
    }
}

/// Entries of a grain directory or table.
pub(super) fn sparse_entries(bytes: &[u8]) -> impl Iterator<Item = u32> + '_ {
    let entries = bytes.as_chunks::<4>().0.iter();
    entries.map(|entry| u32::from_le_bytes(*entry))
}

/// The first guest sector and the packed length that stand before a packed grain.
pub(super) fn grain_marker(bytes: &[u8; GRAIN_MARKER_BYTES]) -> (u64, u32) {
    (
        u64::from_le_bytes(array(bytes, 0)),
        u32::from_le_bytes(array(bytes, 8)),
    )
}

/// As much of a qcow2 header as is looked at.
pub(super) const QCOW2_HEADER_BYTES: usize = 80;
/// The unit of places in a VMDK.
pub(super) const SECTOR: usize = 512;
/// Before a packed grain.
pub(super) const GRAIN_MARKER_BYTES: usize = 12;
/// How a sparse VMDK extent begins.
pub(super) const SPARSE_SIGNATURE: &[u8; 4] = b"KDMV";
/// How a seSparse extent of ESXi begins.
pub(super) const SESPARSE_SIGNATURE: &[u8; 8] = b"\xbe\xba\xfe\xca\0\0\0\0";
/// A table entry 1 means a grain of zeros.
pub(super) const HAS_ZERO_GRAINS: u32 = 1 << 2;
/// Grains are packed, each behind a marker.
pub(super) const IS_PACKED: u32 = 1 << 16;
/// The directory is where the footer says, in the last but one sector of the file.
pub(super) const DIRECTORY_IN_FOOTER: u64 = u64::MAX;
/// How far the footer lies before the end of the file.
pub(super) const FOOTER_BACK: u64 = 1024;
/// Packed by deflate.
pub(super) const DEFLATE: u16 = 1;

const L2_OFFSET_BITS: u64 = 0x00ff_ffff_ffff_fe00;

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    // The structures' lengths cover all of their fields.
    if let Some(from) = bytes.get(at..at + N) {
        array.copy_from_slice(from);
    }
    array
}
