//! The errors of ranges outside a byte store, and of a store that is lost.

use std::ops::Range;
use std::path::Path;

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
