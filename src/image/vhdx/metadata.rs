//! The metadata items: what the disk is like.

use std::collections::HashMap;
use std::ops::Range;

use super::format::{
    BLOCK_BYTES, FILE_PARAMETERS, HAS_PARENT, ITEM_IS_REQUIRED, ITEM_IS_USER, ItemEntry,
    LEAVE_BLOCKS_ALLOCATED, LOGICAL_SECTOR_SIZE, MAX_DISK_BYTES, MAX_ITEM_BYTES, MAX_USER_ITEMS,
    PARENT_LOCATOR, PHYSICAL_SECTOR_SIZE, TABLE_BYTES, VIRTUAL_DISK_ID, VIRTUAL_DISK_SIZE,
    file_parameters, item_entries, item_guid, item_number,
};
use super::guid::Guid;
use super::locator::ParentLocator;
use super::structure::{read_array, read_vec};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::Limits;
use crate::storage::Storage;

/// What the metadata region says.
#[derive(Debug, Clone)]
pub(super) struct Metadata {
    /// Bytes a payload block: a power of two, 1 MiB to 256 MiB.
    pub block_bytes: u64,
    /// Whether blocks stay allocated when they become zeros.
    pub fixed: bool,
    /// Guest-visible length: more than 0, whole sectors.
    pub disk_bytes: u64,
    /// Where the guest-visible length is written, in the file.
    pub disk_bytes_at: u64,
    /// 512 or 4096.
    pub sector_bytes: u64,
    /// 512 or 4096.
    pub physical_sector_bytes: u64,
    /// The disk's own GUID.
    pub disk_id: Guid,
    /// How to find the parent, in a differencing image.
    pub parent: Option<ParentLocator>,
}

impl Metadata {
    /// Reads the items that the format knows and steps over others that are not required.
    ///
    /// # Errors
    /// `Malformed`, `Unsupported`, `LimitExceeded`, `Io`.
    pub(super) fn read(
        storage: &dyn Storage,
        region: &Range<u64>,
        limits: &Limits,
    ) -> Result<Self> {
        let items = Items::read(storage, region)?;
        let (block_bytes, flags) = file_parameters(&items.array(FILE_PARAMETERS)?.0);
        let block_bytes = u64::from(block_bytes);
        if !BLOCK_BYTES.contains(&block_bytes) || !block_bytes.is_power_of_two() {
            return Err(wrong(
                format!("a block of {block_bytes} bytes is not a power of two from 1M to 256M"),
                "block_size",
            ));
        }
        let sector_bytes = items.sector(LOGICAL_SECTOR_SIZE, "logical_sector_size")?;
        let physical_sector_bytes = items.sector(PHYSICAL_SECTOR_SIZE, "physical_sector_size")?;
        let (disk_bytes, disk_bytes_at) = items.array::<8>(VIRTUAL_DISK_SIZE)?;
        let disk_bytes = item_number(&*disk_bytes);
        check_disk_bytes(disk_bytes, sector_bytes, limits)?;
        let parent = match flags & HAS_PARENT {
            0 => None,
            _ => Some(ParentLocator::parse(&items.bytes(PARENT_LOCATOR)?)?),
        };
        Ok(Metadata {
            block_bytes,
            fixed: flags & LEAVE_BLOCKS_ALLOCATED != 0 && parent.is_none(),
            disk_bytes,
            disk_bytes_at,
            sector_bytes,
            physical_sector_bytes,
            disk_id: item_guid(&items.array(VIRTUAL_DISK_ID)?.0),
            parent,
        })
    }
}

/// Holds a disk's length against the format and the caller's limits.
///
/// # Errors
/// `Malformed`, `LimitExceeded`.
pub(super) fn check_disk_bytes(disk_bytes: u64, sector_bytes: u64, limits: &Limits) -> Result<()> {
    let field = "virtual_disk_size";
    if disk_bytes == 0 || disk_bytes > MAX_DISK_BYTES || !disk_bytes.is_multiple_of(sector_bytes) {
        return Err(wrong(
            format!("a disk of {disk_bytes} bytes is not 1 sector to 64T in whole sectors"),
            field,
        ));
    }
    if disk_bytes > limits.disk_bytes {
        return Err(Error::new(
            ErrorKind::LimitExceeded,
            format!(
                "the disk has {disk_bytes} bytes, the limit is {}",
                limits.disk_bytes
            ),
        )
        .in_field(field));
    }
    Ok(())
}

/// The table of items, checked: each inside the region, behind the table, apart from the others.
struct Items<'a> {
    storage: &'a dyn Storage,
    region: Range<u64>,
    known: HashMap<Guid, ItemEntry>,
}

impl<'a> Items<'a> {
    fn read(storage: &'a dyn Storage, region: &Range<u64>) -> Result<Self> {
        let table = read_array(storage, region.start, "metadata")?;
        let entries = item_entries(&table).map_err(|e| e.at_offset(region.start))?;
        let user = |entry: &&ItemEntry| entry.flags & ITEM_IS_USER != 0;
        if entries.iter().filter(user).count() > MAX_USER_ITEMS {
            return Err(wrong(
                "more than 1024 items belong to users",
                "metadata_count",
            ));
        }
        check_places(&entries, region.end - region.start)?;
        let mut ids = std::collections::HashSet::with_capacity(entries.len());
        let mut known = HashMap::new();
        for entry in entries {
            let is_user = entry.flags & ITEM_IS_USER != 0;
            if !ids.insert((entry.id, is_user)) {
                return Err(wrong(format!("item {} comes twice", entry.id), "metadata"));
            }
            if !is_user && KNOWN.contains(&entry.id) {
                known.insert(entry.id, entry);
            } else if entry.flags & ITEM_IS_REQUIRED != 0 {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    format!("metadata item {} is required but not known", entry.id),
                )
                .in_field("metadata"));
            }
        }
        Ok(Items {
            storage,
            region: region.clone(),
            known,
        })
    }

    /// The item's bytes and where they lie in the file.
    fn array<const N: usize>(&self, id: Guid) -> Result<(Box<[u8; N]>, u64)> {
        let entry = self.entry(id)?;
        if entry.len as usize != N {
            return Err(wrong(
                format!("item {id} has {} bytes, not {N}", entry.len),
                "metadata",
            ));
        }
        // The item was checked to lie inside the region.
        let offset = self.region.start + u64::from(entry.offset);
        Ok((read_array(self.storage, offset, "metadata")?, offset))
    }

    fn bytes(&self, id: Guid) -> Result<Vec<u8>> {
        let entry = self.entry(id)?;
        let offset = self.region.start + u64::from(entry.offset);
        // At most `MAX_ITEM_BYTES`.
        read_vec(self.storage, offset, entry.len as usize, "metadata")
    }

    fn sector(&self, id: Guid, field: &'static str) -> Result<u64> {
        match item_number(&self.array::<4>(id)?.0[..]) {
            size @ (512 | 4096) => Ok(size),
            size => Err(wrong(
                format!("a sector of {size} bytes is neither 512 nor 4096"),
                field,
            )),
        }
    }

    fn entry(&self, id: Guid) -> Result<&ItemEntry> {
        self.known
            .get(&id)
            .ok_or_else(|| wrong(format!("metadata item {id} is missing"), "metadata"))
    }
}

const KNOWN: [Guid; 6] = [
    FILE_PARAMETERS,
    VIRTUAL_DISK_SIZE,
    VIRTUAL_DISK_ID,
    LOGICAL_SECTOR_SIZE,
    PHYSICAL_SECTOR_SIZE,
    PARENT_LOCATOR,
];

fn check_places(entries: &[ItemEntry], region_len: u64) -> Result<()> {
    let mut places: Vec<Range<u64>> = Vec::with_capacity(entries.len());
    for entry in entries {
        let (offset, len) = (u64::from(entry.offset), u64::from(entry.len));
        if len == 0 && offset == 0 {
            continue;
        }
        if len == 0
            || len > MAX_ITEM_BYTES
            || offset < TABLE_BYTES as u64
            || offset + len > region_len
        {
            return Err(wrong(
                format!("item {} is outside its region", entry.id),
                "metadata",
            )
            .at_offset(offset));
        }
        places.push(offset..offset + len);
    }
    places.sort_by_key(|place| place.start);
    for pair in places.windows(2) {
        if let [before, after] = pair
            && after.start < before.end
        {
            return Err(wrong("two metadata items overlap", "metadata").at_offset(after.start));
        }
    }
    Ok(())
}

fn wrong(message: impl Into<std::borrow::Cow<'static, str>>, field: &'static str) -> Error {
    Error::malformed(message).in_field(field)
}
