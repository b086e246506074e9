//! Reading the tables of a dynamic file, and checking that no two things share bytes.

use std::ops::Range;

use crate::error::{Error, ErrorKind, Result};
use crate::image::ImageOptions;
use crate::storage::Storage;

use super::format::{
    DiskKind, DynamicHeader, ENTRY_BYTES, FOOTER_BYTES, HEADER_BYTES, SECTOR_BYTES, UNALLOCATED,
    bitmap_bytes, decode_entries,
};
use super::locate::Located;

/// The sizes that turn a table entry into places in the file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// Guest bytes a block.
    pub block_bytes: u64,
    /// Bytes of the bitmap before a block's payload.
    pub bitmap_bytes: u64,
}

impl Shape {
    /// Where the bitmap of the block that `entry` names lies.
    pub(super) fn bitmap_at(self, entry: u32) -> u64 {
        // At most 2^41: no sum with block lengths gets near 2^64.
        u64::from(entry) * SECTOR_BYTES
    }

    /// Where its payload lies.
    pub(super) fn payload_at(self, entry: u32) -> u64 {
        self.bitmap_at(entry) + self.bitmap_bytes
    }

    /// Where it ends.
    pub(super) fn end(self, entry: u32) -> u64 {
        self.payload_at(entry) + self.block_bytes
    }

    /// How many blocks a disk has.
    pub(super) fn count(self, disk_len: u64) -> u64 {
        disk_len.div_ceil(self.block_bytes)
    }
}

/// A dynamic file's header and table, checked.
pub(super) struct Table {
    pub header: DynamicHeader,
    pub shape: Shape,
    /// One entry for each block of the disk, not more.
    pub table: Vec<u32>,
}

/// Reads and checks header and table.
///
/// # Errors
/// `Malformed`, `Unsupported`, `LimitExceeded`, `Io`.
pub(super) fn read_layout(
    storage: &dyn Storage,
    located: &Located,
    options: &ImageOptions,
) -> Result<Table> {
    let at = located.footer.data_offset;
    let header_end = at
        .checked_add(HEADER_BYTES as u64)
        .filter(|end| at >= FOOTER_BYTES as u64 && *end <= located.data_end)
        .ok_or_else(|| {
            Error::malformed(format!(
                "the dynamic header at {at:#x} is not inside the file"
            ))
            .in_field("data offset")
            .at_offset(16)
        })?;
    let mut bytes = [0; HEADER_BYTES];
    storage.read_exact_at(&mut bytes, at)?;
    let header = DynamicHeader::decode(&bytes, at, options.lenient)?;
    let shape = Shape {
        block_bytes: u64::from(header.block_bytes),
        bitmap_bytes: bitmap_bytes(header.block_bytes),
    };
    let count = shape.count(located.disk_len);
    if count > u64::from(header.max_table_entries) {
        return Err(Error::malformed(format!(
            "the disk has {count} blocks, but the table only {} entries",
            header.max_table_entries
        ))
        .in_field("max table entries")
        .at_offset(at + 28));
    }
    let table_range = table_range(&header, count, located.data_end)?;
    check_table_limit(count, options)?;
    let table = read_table(storage, header.table_offset, count)?;
    let mut structures = vec![
        (0..FOOTER_BYTES as u64, "the footer's copy"),
        (at..header_end, "the dynamic header"),
        (table_range, "the table"),
    ];
    if located.footer.kind == DiskKind::Differencing {
        structures.extend(locators(&header, located.data_end).map(|it| (it, "a parent's path")));
    }
    check_overlaps(&header, shape, &table, structures, located.data_end)?;
    Ok(Table {
        header,
        shape,
        table,
    })
}

/// The place of the table's first `count` entries, in whole sectors.
///
/// # Errors
/// `Malformed` where it is not inside the file or not on a sector.
pub(super) fn table_range(header: &DynamicHeader, count: u64, data_end: u64) -> Result<Range<u64>> {
    let at = header.table_offset;
    // `count` is at most 2^32.
    let len = (count * ENTRY_BYTES as u64).next_multiple_of(SECTOR_BYTES);
    at.checked_add(len)
        .filter(|end| at.is_multiple_of(SECTOR_BYTES) && *end <= data_end)
        .map(|end| at..end)
        .ok_or_else(|| {
            Error::malformed(format!(
                "a table of {len:#x} bytes at {at:#x} is not inside the file"
            ))
            .in_field("table offset")
            .at_offset(at)
        })
}

/// Reads `count` entries from byte `at` on.
///
/// # Errors
/// `Io`.
pub(super) fn read_table(storage: &dyn Storage, at: u64, count: u64) -> Result<Vec<u32>> {
    let mut table = Vec::new();
    let mut at = at;
    let mut left = count * ENTRY_BYTES as u64;
    while left > 0 {
        let len = left.min(READ_BYTES);
        // At most READ_BYTES.
        let mut bytes = vec![0; len as usize];
        storage.read_exact_at(&mut bytes, at)?;
        table.extend(decode_entries(&bytes));
        at += len;
        left -= len;
    }
    Ok(table)
}

/// # Errors
/// `LimitExceeded` where a table of `count` entries takes too much memory.
pub(super) fn check_table_limit(count: u64, options: &ImageOptions) -> Result<()> {
    if count * ENTRY_BYTES as u64 <= options.limits.table_bytes {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::LimitExceeded,
        format!("a table of {count} entries exceeds the limit on tables"),
    )
    .in_field("block size")
    .advise("convert the image to blocks of 2M"))
}

/// Payloads of parent locators that lie inside the file; the others are only wrong hints.
pub(super) fn locators(
    header: &DynamicHeader,
    data_end: u64,
) -> impl Iterator<Item = Range<u64>> + '_ {
    header.locators.iter().filter_map(move |locator| {
        let end = locator.offset.checked_add(u64::from(locator.len))?;
        let used = locator.platform != [0; 4] && locator.len > 0;
        (used && end <= data_end).then_some(locator.offset..end)
    })
}

fn check_overlaps(
    header: &DynamicHeader,
    shape: Shape,
    table: &[u32],
    mut structures: Vec<(Range<u64>, &'static str)>,
    data_end: u64,
) -> Result<()> {
    structures.sort_by_key(|(range, _)| range.start);
    for pair in structures.windows(2) {
        if let [(first, a), (second, b)] = pair
            && second.start < first.end
        {
            return Err(Error::malformed(format!("{a} and {b} overlap")).at_offset(second.start));
        }
    }
    let bad = |entry: u32, with: &str| {
        let index = table.iter().position(|it| *it == entry).unwrap_or(0);
        Error::malformed(format!(
            "block {index} at {:#x} {with}",
            shape.bitmap_at(entry)
        ))
        .in_field("table entry")
        .at_offset(header.table_offset + (index * ENTRY_BYTES) as u64)
    };
    let mut blocks: Vec<u32> = table
        .iter()
        .copied()
        .filter(|it| *it != UNALLOCATED)
        .collect();
    blocks.sort_unstable();
    if let Some(last) = blocks.last()
        && shape.end(*last) > data_end
    {
        return Err(bad(*last, "ends beyond the end of the file"));
    }
    for pair in blocks.windows(2) {
        if let [first, second] = pair
            && shape.bitmap_at(*second) < shape.end(*first)
        {
            return Err(bad(*second, "overlaps another block"));
        }
    }
    for (range, name) in &structures {
        let next = blocks.partition_point(|entry| shape.end(*entry) <= range.start);
        if let Some(entry) = blocks.get(next)
            && shape.bitmap_at(*entry) < range.end
        {
            return Err(bad(*entry, &format!("overlaps {name}")));
        }
    }
    Ok(())
}

/// How much of the table is read at a time.
const READ_BYTES: u64 = 1 << 20;
