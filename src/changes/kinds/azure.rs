//! Page lists of Azure page blobs.

use std::io::Read;

use crate::changes::regions::Regions;
use crate::error::{Error, Result};
use crate::page_list::{PageListItem, PageListReader};

/// Reads one or several page lists. Both kinds of ranges are changes: written, and cleared.
///
/// # Errors
/// `Malformed`, `Io`.
pub(in crate::changes) fn read(input: impl Read, disk_len: u64) -> Result<Regions> {
    let mut regions = Regions::with_footer(disk_len, VHD_FOOTER_BYTES);
    let mut lists = PageListReader::new(input);
    let mut has_more = false;
    while let Some(item) = lists.next_item()? {
        match item {
            PageListItem::Begin => has_more = false,
            PageListItem::NextMarker(_) => has_more = true,
            PageListItem::PageRange(range) | PageListItem::ClearRange(range) => {
                regions.add(range.start, range.end - range.start)?;
            }
        }
    }
    match has_more {
        true => Err(
            Error::malformed("a page list ends with a marker: its next part is missing")
                .in_field("NextMarker")
                .advise("append the parts that follow, each asked for with `marker=`"),
        ),
        false => Ok(regions),
    }
}

/// A fixed VHD ends with its footer, behind the disk.
const VHD_FOOTER_BYTES: u64 = 512;
