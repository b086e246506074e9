//! The errors of ranges outside a byte store, and of a store that is lost.

use std::ops::Range;
use std::path::Path;

use super::Storage;
use crate::error::{Error, ErrorKind, Result};

/// The end of `[offset, offset + len)`, or the error that says a range runs over 2^64.
pub(crate) fn range_end(path: &Path, offset: u64, len: usize) -> Result<u64> {
    u64::try_from(len)
        .ok()
        .and_then(|len| offset.checked_add(len))
        .ok_or_else(|| {
            Error::new(ErrorKind::InvalidInput, "a range ends beyond 2^64")
                .at_path(path)
                .at_offset(offset)
        })
}

/// [`Storage::next_data`], which a caller's own store may answer with what is no stretch there.
///
/// # Errors
/// Those of the store; `Io` for an empty stretch, or one that begins before `offset`.
pub(crate) fn next_data(storage: &dyn Storage, offset: u64) -> Result<Option<Range<u64>>> {
    let found = storage.next_data(offset)?;
    match found {
        Some(data) if data.start < offset || data.is_empty() => {
            let what = format!(
                "the storage names data at {:#x} to {:#x} as the next",
                data.start, data.end
            );
            Err(Error::new(ErrorKind::Io, what)
                .during("look for data in")
                .at_path(storage.path())
                .at_offset(offset))
        }
        found => Ok(found),
    }
}

/// The error for a read that the store is too short for.
pub(crate) fn past_end(path: &Path, end: u64, len: u64) -> Error {
    Error::new(
        ErrorKind::Io,
        format!("only {len:#x} bytes are there, and {end:#x} are needed"),
    )
    .during("read")
    .at_path(path)
    .at_offset(len)
}

/// The error for a write or a hole that does not lie inside a store of `len` bytes.
pub(crate) fn outside(path: &Path, range: &Range<u64>, len: u64) -> Error {
    Error::new(
        ErrorKind::InvalidInput,
        format!(
            "the range {:#x}..{:#x} is not inside the {len:#x} bytes that are there",
            range.start, range.end
        ),
    )
    .at_path(path)
    .at_offset(range.start)
}

/// The error for a use after a failed sync.
pub(crate) fn poisoned(path: &Path) -> Error {
    Error::new(
        ErrorKind::Poisoned,
        "an earlier sync failed, so nothing is known of this file",
    )
    .at_path(path)
    .advise("open it again and recover")
}
