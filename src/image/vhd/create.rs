//! New VHD files.

use std::time::SystemTime;

use crate::error::{Error, ErrorKind, Result};
use crate::limits::Limits;
use crate::random::random;
use crate::storage::Storage;

use super::format::{
    DiskKind, DynamicHeader, ENTRY_BYTES, EPOCH_SECONDS, FOOTER_BYTES, Footer, Geometry,
    HEADER_BYTES, Locator, NOWHERE, SECTOR_BYTES,
};
use super::resize::{check_disk_len, check_len};
use super::size_policy::CREATOR;
use super::space::tail_behind;

/// Makes empty storage a fixed VHD of zeros. Nothing is durable until `sync`.
///
/// # Errors
/// `Unsupported` for a length that a VHD cannot have; `Io`, `NoSpace`.
pub(in crate::image) fn create_fixed(storage: &dyn Storage, disk_len: u64) -> Result<()> {
    check_len(storage, DiskKind::Fixed, disk_len)?;
    let footer = new_footer(DiskKind::Fixed, disk_len)?;
    storage.set_len(disk_len + FOOTER_BYTES as u64)?;
    storage.write_all_at(&footer.encode(), disk_len)
}

/// Makes empty storage a dynamic VHD without blocks. Nothing is durable until `sync`.
///
/// # Errors
/// `Unsupported` for a length that a VHD cannot have; `InvalidInput` for a block size that it
/// cannot have; `LimitExceeded` for a table that would not be read again; `Io`, `NoSpace`.
pub(in crate::image) fn create_dynamic(
    storage: &dyn Storage,
    disk_len: u64,
    block_bytes: u64,
) -> Result<()> {
    let named = |e: Error| e.at_path(storage.path());
    let Table {
        block_bytes,
        entries,
        bytes: table_bytes,
    } = check_dynamic(disk_len, block_bytes).map_err(named)?;
    let header = DynamicHeader {
        next_offset: NOWHERE,
        table_offset: TABLE_OFFSET,
        // At most 2^32 by the bound on the table.
        max_table_entries: entries as u32,
        block_bytes,
        parent_id: [0; 16],
        parent_timestamp: 0,
        reserved: 0,
        parent_name: [0; 512],
        locators: [Locator::default(); 8],
        reserved_end: [0; 256],
    };
    let footer = new_footer(DiskKind::Dynamic, disk_len)?.encode();
    storage.write_all_at(&footer, 0)?;
    storage.write_all_at(&header.encode(), FOOTER_BYTES as u64)?;
    let table_end = TABLE_OFFSET + table_bytes;
    let piece = vec![0xff; WRITE_BYTES];
    let mut at = TABLE_OFFSET;
    while at < table_end {
        let len = (table_end - at).min(WRITE_BYTES as u64);
        // At most WRITE_BYTES.
        storage.write_all_at(&piece[..len as usize], at)?;
        at += len;
    }
    storage.write_all_at(&footer, tail_behind(table_end))
}

/// Refuses a fixed VHD that cannot be; nothing is made.
///
/// # Errors
/// As [`create_fixed`].
pub(in crate::image) fn check_fixed(disk_len: u64) -> Result<()> {
    check_disk_len(DiskKind::Fixed, disk_len)
}

/// The table of a new dynamic VHD.
pub(in crate::image) struct Table {
    block_bytes: u32,
    entries: u64,
    bytes: u64,
}

/// Refuses a dynamic VHD that cannot be; nothing is made.
///
/// # Errors
/// As [`create_dynamic`].
pub(in crate::image) fn check_dynamic(disk_len: u64, block_bytes: u64) -> Result<Table> {
    check_disk_len(DiskKind::Dynamic, disk_len)?;
    let block_bytes = u32::try_from(block_bytes)
        .ok()
        .filter(|it| it.is_power_of_two() && BLOCK_BYTES.contains(it))
        .ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidInput,
                format!("a VHD block of {block_bytes} bytes is not a power of two from 4K to 2M"),
            )
            .in_field("block_size")
        })?;
    // A disk without bytes still has a table.
    let entries = disk_len.div_ceil(u64::from(block_bytes)).max(1);
    let bytes = (entries * ENTRY_BYTES as u64).next_multiple_of(SECTOR_BYTES);
    if bytes > Limits::default().table_bytes {
        return Err(Error::new(
            ErrorKind::LimitExceeded,
            format!("{entries} blocks are too many for one table"),
        )
        .advise("use larger blocks"));
    }
    Ok(Table {
        block_bytes,
        entries,
        bytes,
    })
}

/// A footer with an id of its own.
///
/// # Errors
/// `Io` where there are no random bytes.
pub(super) fn new_footer(kind: DiskKind, disk_len: u64) -> Result<Footer> {
    let unique_id = random()?;
    let now = SystemTime::UNIX_EPOCH
        .elapsed()
        .map_or(0, |it| it.as_secs());
    Ok(Footer {
        features: 2,
        data_offset: match kind {
            DiskKind::Fixed => NOWHERE,
            DiskKind::Dynamic | DiskKind::Differencing => FOOTER_BYTES as u64,
        },
        timestamp: u32::try_from(now.saturating_sub(EPOCH_SECONDS)).unwrap_or(u32::MAX),
        creator: CREATOR,
        creator_version: 0x0001_0000,
        creator_os: *b"Wi2k",
        original_bytes: disk_len,
        current_bytes: disk_len,
        geometry: Geometry::for_disk(disk_len),
        kind,
        unique_id,
        saved_state: 0,
        reserved: [0; 427],
    })
}

/// Where the table lies in files made by this crate, as in most others.
pub(super) const TABLE_OFFSET: u64 = (FOOTER_BYTES + HEADER_BYTES) as u64;
/// What other software reads without complaint.
const BLOCK_BYTES: std::ops::RangeInclusive<u32> = 4096..=2 << 20;
const WRITE_BYTES: usize = 1 << 20;
