//! Reads structures, which a file must have whole.

use super::format::FILE_SIGNATURE;
use crate::error::{Error, Result};
use crate::storage::Storage;

/// Refuses a file that does not begin as a VHDX does.
///
/// # Errors
/// `Malformed`, `Io`.
pub(super) fn check_signature(storage: &dyn Storage) -> Result<()> {
    if *read_array(storage, 0, "signature")? == FILE_SIGNATURE {
        return Ok(());
    }
    Err(
        Error::malformed("this is not a VHDX: the file does not begin with `vhdxfile`")
            .in_field("signature")
            .at_offset(0),
    )
}

/// Reads a structure of `N` bytes; a file that ends before it breaks the format.
pub(super) fn read_array<const N: usize>(
    storage: &dyn Storage,
    offset: u64,
    field: &'static str,
) -> Result<Box<[u8; N]>> {
    let bytes = read_vec(storage, offset, N, field)?.into_boxed_slice();
    match <Box<[u8; N]>>::try_from(bytes) {
        Ok(array) => Ok(array),
        Err(_) => Err(too_short(offset, field)),
    }
}

/// Reads `len` bytes, which the caller has bounded.
pub(super) fn read_vec(
    storage: &dyn Storage,
    offset: u64,
    len: usize,
    field: &'static str,
) -> Result<Vec<u8>> {
    let end = offset.checked_add(len as u64);
    if end.is_none_or(|end| storage.len().is_ok_and(|there| end > there)) {
        return Err(too_short(offset, field));
    }
    let mut bytes = vec![0; len];
    storage.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

fn too_short(offset: u64, field: &'static str) -> Error {
    Error::malformed("the file ends before this structure does")
        .in_field(field)
        .at_offset(offset)
}
