//! Where the regions of a file lie.

use std::ops::Range;

use super::format::{
    BAT_REGION, METADATA_REGION, MIB, REGION_TABLE_OFFSETS, RegionEntry, region_entries,
    region_table_holds,
};
use super::structure::read_array;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::Storage;

/// The regions, checked: whole MiB, behind the first MiB, each once.
#[derive(Debug, Clone)]
pub(super) struct Regions {
    /// The block table.
    pub bat: Range<u64>,
    /// The metadata.
    pub metadata: Range<u64>,
    /// All regions, known and unknown.
    pub all: Vec<Range<u64>>,
    /// Whether one of the two region tables is not valid.
    pub damaged: bool,
}

impl Regions {
    /// Reads the first region table that holds.
    ///
    /// # Errors
    /// `Malformed`; `Unsupported` for an unknown region that is marked as required; `Io`.
    pub(super) fn read(storage: &dyn Storage) -> Result<Self> {
        let mut sound = None;
        let mut damaged = false;
        for offset in REGION_TABLE_OFFSETS {
            let table = read_array(storage, offset, "region_table")?;
            if !region_table_holds(&table) {
                damaged = true;
            } else if sound.is_none() {
                let entries = region_entries(&table).map_err(|e| e.at_offset(offset))?;
                sound = Some((entries, offset));
            }
        }
        let Some((entries, offset)) = sound else {
            return Err(
                Error::malformed("neither of the two region tables is valid")
                    .in_field("region_table")
                    .at_offset(REGION_TABLE_OFFSETS[0]),
            );
        };
        Self::check(&entries, damaged).map_err(|e| e.at_offset(offset))
    }

    fn check(entries: &[RegionEntry], damaged: bool) -> Result<Self> {
        let mut bat = None;
        let mut metadata = None;
        let mut all: Vec<Range<u64>> = Vec::with_capacity(entries.len());
        let mut ids = std::collections::HashSet::with_capacity(entries.len());
        for entry in entries {
            let range = whole_mib(entry)?;
            if !ids.insert(entry.id) {
                return Err(wrong(format!("region {} comes twice", entry.id)));
            }
            match entry.id {
                BAT_REGION => bat = Some(range.clone()),
                METADATA_REGION => metadata = Some(range.clone()),
                unknown if entry.required => {
                    return Err(Error::new(
                        ErrorKind::Unsupported,
                        format!("region {unknown} is required but not known"),
                    )
                    .in_field("region_table"));
                }
                _ => {}
            }
            all.push(range);
        }
        match (bat, metadata) {
            (Some(bat), Some(metadata)) => Ok(Regions {
                bat,
                metadata,
                all,
                damaged,
            }),
            (None, _) => Err(wrong("there is no block table region")),
            (_, None) => Err(wrong("there is no metadata region")),
        }
    }
}

/// Refuses ranges that overlap.
///
/// # Errors
/// `Malformed`.
pub(super) fn check_disjoint(ranges: &[Range<u64>]) -> Result<()> {
    let mut sorted: Vec<&Range<u64>> = ranges.iter().filter(|range| !range.is_empty()).collect();
    sorted.sort_by_key(|range| range.start);
    for pair in sorted.windows(2) {
        if let [before, after] = pair
            && after.start < before.end
        {
            return Err(
                wrong("two regions, or a region and the log, overlap").at_offset(after.start)
            );
        }
    }
    Ok(())
}

fn whole_mib(entry: &RegionEntry) -> Result<Range<u64>> {
    let len = u64::from(entry.len);
    let end = entry.offset.checked_add(len);
    match end {
        Some(end)
            if entry.offset >= MIB
                && entry.offset.is_multiple_of(MIB)
                && len.is_multiple_of(MIB) =>
        {
            Ok(entry.offset..end)
        }
        _ => Err(wrong(format!(
            "region {} is not on whole MiB behind the first: {:#x} bytes at {:#x}",
            entry.id, len, entry.offset
        ))),
    }
}

fn wrong(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::malformed(message).in_field("region_table")
}
