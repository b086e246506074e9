//! Region table, metadata table, block table entry, parent locator.

use super::super::guid::Guid;
use super::{PAGE, array_at, checksum, guid_at, put, seal, u16_at, u32_at, u64_at, utf16_text};
use crate::error::{Error, Result};

/// Length of a region table, and of the metadata table.
pub(crate) const TABLE_BYTES: usize = 64 << 10;
/// Most entries of either table.
pub(crate) const MAX_TABLE_ENTRIES: u32 = 2047;
/// Most metadata entries that belong to users rather than to the format.
pub(crate) const MAX_USER_ITEMS: usize = 1024;
/// Longest metadata item.
pub(crate) const MAX_ITEM_BYTES: u64 = 1 << 20;
/// Most pairs in a parent locator; real ones have five.
pub(crate) const MAX_LOCATOR_PAIRS: u16 = 256;

/// The region that holds the block table.
pub(crate) const BAT_REGION: Guid = Guid::from_digits(0x2DC27766_F623_4200_9D64_115E9BFD4A08);
/// The region that holds the metadata.
pub(crate) const METADATA_REGION: Guid = Guid::from_digits(0x8B7CA206_4790_4B9A_B8FE_575F050F886E);

/// Block size and flags, 8 bytes (section 2.6.2.1).
pub(crate) const FILE_PARAMETERS: Guid = Guid::from_digits(0xCAA16737_FA36_4D43_B3B6_33F0AA44E76B);
/// Guest-visible length, 8 bytes (section 2.6.2.2).
pub(crate) const VIRTUAL_DISK_SIZE: Guid =
    Guid::from_digits(0x2FA54224_CD1B_4876_B211_5DBED83BF4B8);
/// The disk's own GUID (section 2.6.2.3).
pub(crate) const VIRTUAL_DISK_ID: Guid = Guid::from_digits(0xBECA12AB_B2E6_4523_93EF_C309E000C746);
/// 512 or 4096, 4 bytes (section 2.6.2.4).
pub(crate) const LOGICAL_SECTOR_SIZE: Guid =
    Guid::from_digits(0x8141BF1D_A96F_4709_BA47_F233A8FAAB5F);
/// 512 or 4096, 4 bytes (section 2.6.2.5).
pub(crate) const PHYSICAL_SECTOR_SIZE: Guid =
    Guid::from_digits(0xCDA348C7_445D_4471_9CC9_E9885251C556);
/// How to find the parent (section 2.6.2.6).
pub(crate) const PARENT_LOCATOR: Guid = Guid::from_digits(0xA8D35F2D_B30B_454D_ABF7_D3D84834AB0C);
/// The one kind of parent locator (section 2.6.2.6.2).
pub(crate) const VHDX_LOCATOR: Guid = Guid::from_digits(0xB04AEFB7_D19E_4A81_B789_25B8E9445913);

/// Bit of the file parameters: blocks stay allocated ("fixed").
pub(crate) const LEAVE_BLOCKS_ALLOCATED: u32 = 1;
/// Bit of the file parameters: a differencing image.
pub(crate) const HAS_PARENT: u32 = 2;

/// Bit of a metadata entry: belongs to a user, not to the format.
pub(crate) const ITEM_IS_USER: u32 = 1;
/// Bit of a metadata entry: describes the disk rather than the file.
pub(crate) const ITEM_IS_DISK: u32 = 2;
/// Bit of a metadata entry: who does not know it must not open the file.
pub(crate) const ITEM_IS_REQUIRED: u32 = 4;

/// One region (section 2.2.3.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RegionEntry {
    /// What the region is.
    pub id: Guid,
    /// First byte in the file.
    pub offset: u64,
    /// Length in bytes.
    pub len: u32,
    /// Whether who does not know it must not open the file.
    pub required: bool,
}

/// Whether a region table's signature and checksum hold; only then is the rest trusted.
pub(crate) fn region_table_holds(table: &[u8; TABLE_BYTES]) -> bool {
    table[..4] == *b"regi" && checksum(table) == u32_at(table, 4)
}

/// The entries of a region table that holds.
pub(crate) fn region_entries(table: &[u8; TABLE_BYTES]) -> Result<Vec<RegionEntry>> {
    let count = entry_count(u32_at(table, 8), "region_count")?;
    let entries = table[16..].chunks_exact(32).take(count);
    Ok(entries
        .map(|entry| RegionEntry {
            id: guid_at(entry, 0),
            offset: u64_at(entry, 16),
            len: u32_at(entry, 24),
            required: u32_at(entry, 28) & 1 != 0,
        })
        .collect())
}

/// The region table to write; `entries` are few.
pub(crate) fn encode_region_table(entries: &[RegionEntry]) -> Vec<u8> {
    let mut table = vec![0; TABLE_BYTES];
    table[..4].copy_from_slice(b"regi");
    put(&mut table, 8, &(entries.len() as u32).to_le_bytes());
    for (entry, to) in entries.iter().zip(table[16..].chunks_exact_mut(32)) {
        put(to, 0, &entry.id.to_disk());
        put(to, 16, &entry.offset.to_le_bytes());
        put(to, 24, &entry.len.to_le_bytes());
        put(to, 28, &u32::from(entry.required).to_le_bytes());
    }
    seal(&mut table);
    table
}

/// One metadata item (section 2.6.1.2). The table carries no checksum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ItemEntry {
    /// What the item is.
    pub id: Guid,
    /// First byte, from the start of the region.
    pub offset: u32,
    /// Length in bytes.
    pub len: u32,
    /// `ITEM_IS_*` bits.
    pub flags: u32,
}

/// The entries of the metadata table.
pub(crate) fn item_entries(table: &[u8; TABLE_BYTES]) -> Result<Vec<ItemEntry>> {
    if table[..8] != *b"metadata" {
        return Err(Error::malformed("the metadata table has no signature").in_field("metadata"));
    }
    let count = entry_count(u32::from(u16_at(table, 10)), "metadata_count")?;
    let entries = table[32..].chunks_exact(32).take(count);
    Ok(entries
        .map(|entry| ItemEntry {
            id: guid_at(entry, 0),
            offset: u32_at(entry, 16),
            len: u32_at(entry, 20),
            flags: u32_at(entry, 24),
        })
        .collect())
}

/// The metadata table to write; `entries` are few.
pub(crate) fn encode_item_table(entries: &[ItemEntry]) -> Vec<u8> {
    let mut table = vec![0; TABLE_BYTES];
    table[..8].copy_from_slice(b"metadata");
    put(&mut table, 10, &(entries.len() as u16).to_le_bytes());
    for (entry, to) in entries.iter().zip(table[32..].chunks_exact_mut(32)) {
        put(to, 0, &entry.id.to_disk());
        put(to, 16, &entry.offset.to_le_bytes());
        put(to, 20, &entry.len.to_le_bytes());
        put(to, 24, &entry.flags.to_le_bytes());
    }
    table
}

/// What the block table says of a block's contents (section 2.5.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BlockState {
    /// Nothing here: the parent's bytes, or zeros without a parent.
    Absent,
    /// Undefined; read as zeros.
    Undefined,
    /// Zeros.
    Zero,
    /// Trimmed; read as zeros.
    Unmapped,
    /// All bytes are here. Also a sector bitmap block that is there.
    Present,
    /// Some sectors are here, the others are the parent's.
    Partial,
}

/// An entry of the block table (section 2.5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatEntry(pub u64);

impl BatEntry {
    /// Nothing here.
    pub(crate) const ABSENT: BatEntry = BatEntry(0);
    /// Zeros. The offset is 0 because Hyper-V refuses zero blocks that have one.
    pub(crate) const ZERO: BatEntry = BatEntry(2);

    /// A block whose bytes begin at `offset` of the file, a multiple of 1 MiB.
    pub(crate) fn at(state: BlockState, offset: u64) -> Self {
        let bits = match state {
            BlockState::Absent => 0,
            BlockState::Undefined => 1,
            BlockState::Zero => 2,
            BlockState::Unmapped => 3,
            BlockState::Present => 6,
            BlockState::Partial => 7,
        };
        BatEntry(offset | bits)
    }

    /// The state; `None` for the two values that mean nothing.
    pub(crate) fn state(self) -> Option<BlockState> {
        match self.0 & 7 {
            0 => Some(BlockState::Absent),
            1 => Some(BlockState::Undefined),
            2 => Some(BlockState::Zero),
            3 => Some(BlockState::Unmapped),
            6 => Some(BlockState::Present),
            7 => Some(BlockState::Partial),
            _ => None,
        }
    }

    /// First byte in the file; trusted only for blocks that are there.
    pub(crate) fn offset(self) -> u64 {
        self.0 & !0xF_FFFF
    }

    /// Whether the bits that must be zero are.
    pub(crate) fn reserved_is_zero(self) -> bool {
        self.0 & 0xF_FFF8 == 0
    }
}

/// Entries a page of the block table.
pub(crate) const ENTRIES_PER_PAGE: u64 = PAGE / 8;

/// Entry `index` (below [`ENTRIES_PER_PAGE`], higher ones wrap) of a page of the block table.
pub(crate) fn bat_entry(page: &super::Page, index: u64) -> BatEntry {
    BatEntry(u64_at(page, (index % ENTRIES_PER_PAGE) as usize * 8))
}

/// Sets entry `index` of a page of the block table.
pub(crate) fn set_bat_entry(page: &mut super::Page, index: u64, entry: BatEntry) {
    put(
        page,
        (index % ENTRIES_PER_PAGE) as usize * 8,
        &entry.0.to_le_bytes(),
    );
}

/// The pairs of a parent locator (section 2.6.2.6).
///
/// # Errors
/// `Malformed` for a locator of another kind, for pairs outside the item, for empty or
/// half-character strings and for a key that comes twice.
pub(crate) fn locator_pairs(item: &[u8]) -> Result<Vec<(String, String)>> {
    let wrong = |what: &'static str| Error::malformed(what).in_field("parent_locator");
    let Some((header, pairs)) = item.split_at_checked(20) else {
        return Err(wrong("the parent locator is too short"));
    };
    if guid_at(header, 0) != VHDX_LOCATOR {
        return Err(wrong("the parent locator is not of the VHDX kind"));
    }
    let count = u16_at(header, 18);
    if count > MAX_LOCATOR_PAIRS || pairs.len() / 12 < usize::from(count) {
        return Err(wrong("the parent locator counts more pairs than it holds"));
    }
    let text = |offset: u32, len: u16| {
        let start = usize::try_from(offset).ok()?;
        let bytes = item.get(start..start.checked_add(usize::from(len))?)?;
        (!bytes.is_empty() && bytes.len() % 2 == 0).then(|| utf16_text(bytes))
    };
    let mut found: Vec<(String, String)> = Vec::with_capacity(usize::from(count));
    for pair in pairs.chunks_exact(12).take(usize::from(count)) {
        let key = text(u32_at(pair, 0), u16_at(pair, 8));
        let value = text(u32_at(pair, 4), u16_at(pair, 10));
        let (Some(key), Some(value)) = (key, value) else {
            return Err(wrong("a pair of the parent locator is not inside it"));
        };
        if found.iter().any(|(other, _)| *other == key) {
            return Err(wrong("a key of the parent locator comes twice"));
        }
        found.push((key, value));
    }
    Ok(found)
}

/// The parent locator to write; `None` when the pairs are too many or too long.
pub(crate) fn encode_locator(pairs: &[(&str, &str)]) -> Option<Vec<u8>> {
    let mut item = VHDX_LOCATOR.to_disk().to_vec();
    item.extend_from_slice(&[0; 2]);
    item.extend_from_slice(&u16::try_from(pairs.len()).ok()?.to_le_bytes());
    let mut strings: Vec<u8> = Vec::new();
    let strings_at = item.len() + pairs.len() * 12;
    for (key, value) in pairs {
        let key: Vec<u8> = key.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let value: Vec<u8> = value.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let key_at = strings_at + strings.len();
        let value_at = key_at + key.len();
        item.extend_from_slice(&u32::try_from(key_at).ok()?.to_le_bytes());
        item.extend_from_slice(&u32::try_from(value_at).ok()?.to_le_bytes());
        item.extend_from_slice(&u16::try_from(key.len()).ok()?.to_le_bytes());
        item.extend_from_slice(&u16::try_from(value.len()).ok()?.to_le_bytes());
        strings.extend_from_slice(&key);
        strings.extend_from_slice(&value);
    }
    item.extend_from_slice(&strings);
    Some(item)
}

/// Little-endian number in the first `N` bytes of an item whose length was checked.
pub(crate) fn item_number(item: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    for (to, from) in bytes.iter_mut().zip(item) {
        *to = *from;
    }
    u64::from_le_bytes(bytes)
}

/// Block size and flags of the file parameters, whose length was checked.
pub(crate) fn file_parameters(item: &[u8; 8]) -> (u32, u32) {
    (u32_at(item, 0), u32_at(item, 4))
}

/// The GUID in an item whose length was checked.
pub(crate) fn item_guid(item: &[u8; 16]) -> Guid {
    Guid::from_disk(array_at(item, 0))
}

fn entry_count(count: u32, field: &'static str) -> Result<usize> {
    if count > MAX_TABLE_ENTRIES {
        return Err(Error::malformed(format!("{count} entries, at most 2047 fit")).in_field(field));
    }
    Ok(count as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locator_survives_the_disk() {
        let pairs = [
            ("parent_linkage", "{0e382594}"),
            ("relative_path", ".\\p.vhdx"),
        ];
        let item = encode_locator(&pairs).unwrap();
        let found = locator_pairs(&item).unwrap();
        let pairs: Vec<_> = pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        assert_eq!(found, pairs);
    }

    #[test]
    fn a_hostile_locator_is_refused() {
        let good = encode_locator(&[("a", "b"), ("c", "d")]).unwrap();
        let broken = |at: usize, byte: u8| {
            let mut item = good.clone();
            item[at] = byte;
            locator_pairs(&item).is_err()
        };
        assert!(locator_pairs(&good).is_ok());
        assert!(locator_pairs(&good[..19]).is_err(), "too short");
        assert!(broken(0, 0), "of another kind");
        assert!(broken(18, 255), "more pairs than fit");
        assert!(broken(19, 255), "more pairs than are allowed");
        assert!(broken(23, 255), "a key beyond the item");
        assert!(broken(28, 0), "an empty key");
        assert!(broken(28, 1), "half a character");
        assert!(broken(20, good[32]), "a key that comes twice");
    }
}
