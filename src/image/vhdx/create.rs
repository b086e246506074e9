//! Making a new, empty file.

use super::format::{
    BAT_REGION, BLOCK_BYTES, BatEntry, BlockState, ENTRIES_PER_PAGE, FILE_PARAMETERS, HAS_PARENT,
    HEADER_OFFSETS, HEADER_VERSION, Header, ITEM_IS_DISK, ITEM_IS_REQUIRED, ItemEntry,
    LEAVE_BLOCKS_ALLOCATED, LOG_VERSION, LOGICAL_SECTOR_SIZE, MAX_DISK_BYTES, METADATA_REGION, MIB,
    PAGE, PARENT_LOCATOR, PHYSICAL_SECTOR_SIZE, REGION_TABLE_OFFSETS, RegionEntry, TABLE_BYTES,
    VIRTUAL_DISK_ID, VIRTUAL_DISK_SIZE, encode_identifier, encode_item_table, encode_region_table,
    set_bat_entry,
};
use super::geometry::{Geometry, Role};
use super::guid::Guid;
use super::image::Vhdx;
use super::locator::ParentLocator;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::Storage;

/// What a new VHDX is to be like.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NewDisk {
    /// Guest-visible length: whole logical sectors, 1 sector to 64 TiB.
    pub disk_bytes: u64,
    /// Whether all blocks are there from the start and stay.
    pub fixed: bool,
    /// Bytes a payload block: a power of two, 1 MiB to 256 MiB.
    pub block_bytes: u64,
    /// 512 or 4096.
    pub sector_bytes: u64,
    /// 512 or 4096.
    pub physical_sector_bytes: u64,
    /// The virtual disk's own GUID; a random one by default.
    pub disk_id: Option<Guid>,
    /// Where the parent of a differencing image is.
    pub parent: Option<ParentLocator>,
}

impl NewDisk {
    /// A dynamic disk: blocks of 32 MiB, logical sectors of 512 and physical ones of 4096 bytes.
    pub fn dynamic(disk_bytes: u64) -> Self {
        NewDisk {
            disk_bytes,
            fixed: false,
            block_bytes: 32 * MIB,
            sector_bytes: 512,
            physical_sector_bytes: 4096,
            disk_id: None,
            parent: None,
        }
    }

    /// A disk whose blocks, 2 MiB each, are all there. Whether they take space at once is the
    /// storage's matter: they are zeros that were never written.
    pub fn fixed(disk_bytes: u64) -> Self {
        NewDisk {
            fixed: true,
            block_bytes: 2 * MIB,
            ..Self::dynamic(disk_bytes)
        }
    }

    /// A differencing image over `parent`, whose path from the child's directory is
    /// `relative_path`. It stands for the parent's contents of this moment: the parent must not
    /// change any more.
    pub fn child_of(parent: &Vhdx, relative_path: &str) -> Self {
        NewDisk {
            block_bytes: 2 * MIB,
            sector_bytes: parent.sector_bytes(),
            physical_sector_bytes: parent.metadata.physical_sector_bytes,
            disk_id: Some(parent.disk_id()),
            parent: Some(ParentLocator::new(parent.data_write_guid(), relative_path)),
            ..Self::dynamic(parent.metadata.disk_bytes)
        }
    }

    /// Replaces [`NewDisk::block_bytes`].
    #[must_use]
    pub fn with_block_bytes(mut self, bytes: u64) -> Self {
        self.block_bytes = bytes;
        self
    }

    /// Replaces [`NewDisk::sector_bytes`]; physical sectors are never smaller.
    #[must_use]
    pub fn with_sector_bytes(mut self, bytes: u64) -> Self {
        self.sector_bytes = bytes;
        self.physical_sector_bytes = self.physical_sector_bytes.max(bytes);
        self
    }

    /// Replaces [`NewDisk::disk_id`].
    #[must_use]
    pub fn with_disk_id(mut self, id: Guid) -> Self {
        self.disk_id = Some(id);
        self
    }

    pub(in crate::image) fn check(&self) -> Result<()> {
        let wrong = |field, message: String| {
            Err(Error::new(ErrorKind::InvalidInput, message).in_field(field))
        };
        if !BLOCK_BYTES.contains(&self.block_bytes) || !self.block_bytes.is_power_of_two() {
            return wrong(
                "block_size",
                format!(
                    "a block of {} bytes is not a power of two from 1M to 256M",
                    self.block_bytes
                ),
            );
        }
        for (field, bytes) in [
            ("logical_sector_size", self.sector_bytes),
            ("physical_sector_size", self.physical_sector_bytes),
        ] {
            if !matches!(bytes, 512 | 4096) {
                return wrong(
                    field,
                    format!("a sector of {bytes} bytes is neither 512 nor 4096"),
                );
            }
        }
        if self.disk_bytes == 0
            || self.disk_bytes > MAX_DISK_BYTES
            || !self.disk_bytes.is_multiple_of(self.sector_bytes)
        {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "a VHDX of {} bytes is not 1 sector to 64T in whole sectors of {}",
                    self.disk_bytes, self.sector_bytes
                ),
            )
            .in_field("virtual_disk_size")
            .advise("use a raw disk"));
        }
        Ok(())
    }
}

/// Makes an empty VHDX in `storage`, which must be empty. Durable when it returns; until then the
/// file does not carry the signature by which a VHDX is known.
///
/// # Errors
/// `InvalidInput` for block and sector sizes outside the format, `Unsupported` for such a length;
/// `AlreadyExists` where the storage holds
/// something; `Io`, `NoSpace`.
pub fn create(storage: &dyn Storage, layout: &NewDisk) -> Result<()> {
    write_new(storage, layout).map_err(|e| e.at_path(storage.path()))
}

const LOG_AT: u64 = MIB;
const LOG_BYTES: u32 = 1 << 20;
const METADATA_AT: u64 = 2 * MIB;
const METADATA_BYTES: u32 = 1 << 20;
const BAT_AT: u64 = 3 * MIB;
const CREATOR: &str = concat!("diskdelta ", env!("CARGO_PKG_VERSION"));

fn write_new(storage: &dyn Storage, layout: &NewDisk) -> Result<()> {
    layout.check()?;
    if !storage.is_empty()? {
        return Err(Error::new(
            ErrorKind::AlreadyExists,
            "the new file is not empty",
        ));
    }
    let mut geometry = Geometry {
        block_bytes: layout.block_bytes,
        sector_bytes: layout.sector_bytes,
        bat: BAT_AT..BAT_AT,
        differencing: layout.parent.is_some(),
    };
    // At most 2^26 entries and a few more: 513 MiB.
    let table_bytes = geometry.entry_count(layout.disk_bytes) * 8;
    geometry.bat.end += table_bytes.next_multiple_of(MIB);
    let blocks = match layout.fixed {
        true => geometry.block_count(layout.disk_bytes),
        false => 0,
    };
    storage.set_len(geometry.bat.end + blocks * layout.block_bytes)?;
    write_headers(storage)?;
    write_regions(storage, &geometry)?;
    write_metadata(storage, layout)?;
    if layout.fixed {
        write_full_table(storage, &geometry, layout.disk_bytes)?;
    }
    storage.sync()?;
    storage.write_all_at(&*encode_identifier(CREATOR), 0)?;
    storage.sync()
}

fn write_headers(storage: &dyn Storage) -> Result<()> {
    let mut header = Header {
        sequence: 0,
        file_write: Guid::random()?,
        data_write: Guid::random()?,
        log: Guid::NIL,
        log_version: LOG_VERSION,
        version: HEADER_VERSION,
        log_len: LOG_BYTES,
        log_offset: LOG_AT,
    };
    for offset in HEADER_OFFSETS {
        header.sequence += 1;
        storage.write_all_at(&*header.encode(), offset)?;
    }
    Ok(())
}

fn write_regions(storage: &dyn Storage, geometry: &Geometry) -> Result<()> {
    let table = encode_region_table(&[
        RegionEntry {
            id: BAT_REGION,
            offset: geometry.bat.start,
            // At most 513 MiB.
            len: (geometry.bat.end - geometry.bat.start) as u32,
            required: true,
        },
        RegionEntry {
            id: METADATA_REGION,
            offset: METADATA_AT,
            len: METADATA_BYTES,
            required: true,
        },
    ]);
    for offset in REGION_TABLE_OFFSETS {
        storage.write_all_at(&table, offset)?;
    }
    Ok(())
}

fn write_metadata(storage: &dyn Storage, layout: &NewDisk) -> Result<()> {
    let mut flags = 0;
    if layout.fixed {
        flags |= LEAVE_BLOCKS_ALLOCATED;
    }
    if layout.parent.is_some() {
        flags |= HAS_PARENT;
    }
    // At most 256 MiB.
    let mut parameters = (layout.block_bytes as u32).to_le_bytes().to_vec();
    parameters.extend_from_slice(&flags.to_le_bytes());
    let disk_id = match layout.disk_id {
        Some(id) => id,
        None => Guid::random()?,
    };
    let sector = |bytes: u64| (bytes as u32).to_le_bytes().to_vec();
    let disk = ITEM_IS_DISK | ITEM_IS_REQUIRED;
    let mut items = vec![
        (FILE_PARAMETERS, ITEM_IS_REQUIRED, parameters),
        (
            VIRTUAL_DISK_SIZE,
            disk,
            layout.disk_bytes.to_le_bytes().to_vec(),
        ),
        (LOGICAL_SECTOR_SIZE, disk, sector(layout.sector_bytes)),
        (
            PHYSICAL_SECTOR_SIZE,
            disk,
            sector(layout.physical_sector_bytes),
        ),
        (VIRTUAL_DISK_ID, disk, disk_id.to_disk().to_vec()),
    ];
    if let Some(parent) = &layout.parent {
        items.push((PARENT_LOCATOR, ITEM_IS_REQUIRED, parent.encode()?));
    }
    let mut table = Vec::with_capacity(items.len());
    let mut bytes = Vec::new();
    for (id, flags, item) in items {
        table.push(ItemEntry {
            id,
            // The longest item, a locator, has less than 1 MiB.
            offset: (TABLE_BYTES + bytes.len()) as u32,
            len: item.len() as u32,
            flags,
        });
        bytes.extend_from_slice(&item);
    }
    if TABLE_BYTES + bytes.len() > METADATA_BYTES as usize {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            "the parent's paths do not fit the metadata",
        ));
    }
    storage.write_all_at(&encode_item_table(&table), METADATA_AT)?;
    storage.write_all_at(&bytes, METADATA_AT + TABLE_BYTES as u64)
}

/// Writes a block table in which the blocks lie one after the other behind it.
fn write_full_table(storage: &dyn Storage, geometry: &Geometry, disk_bytes: u64) -> Result<()> {
    let count = geometry.entry_count(disk_bytes);
    let mut first = 0;
    while first < count {
        let mut page = [0; PAGE as usize];
        for index in first..count.min(first + ENTRIES_PER_PAGE) {
            if let Role::Payload(block) = geometry.role(index) {
                let at = geometry.bat.end + block * geometry.block_bytes;
                set_bat_entry(&mut page, index, BatEntry::at(BlockState::Present, at));
            }
        }
        storage.write_all_at(&page, geometry.entry_page(first))?;
        first += ENTRIES_PER_PAGE;
    }
    Ok(())
}
