//! Reading the header of a delta file.

use super::format::{HEADER_LEN, Header, Purpose};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::Limits;
use crate::storage::Storage;

/// Reads and checks the header of a file.
///
/// # Errors
/// `Malformed`, `Unsupported`, `LimitExceeded`, `Io`.
pub(super) fn read_header(storage: &dyn Storage, limits: &Limits) -> Result<Header> {
    let mut bytes = [0; HEADER_LEN];
    if storage.len()? < HEADER_LEN as u64 {
        return Err(Error::malformed("too short for a delta file").at_path(storage.path()));
    }
    storage.read_exact_at(&mut bytes, 0)?;
    let header = Header::decode(&bytes).map_err(|e| e.at_path(storage.path()))?;
    // Those of a sidecar are of the target's storage, which is not bounded by that of its disk.
    let is_of_disk = header.purpose != Purpose::Sidecar;
    if is_of_disk && header.base_len.max(header.result_len) > limits.disk_bytes {
        return Err(
            Error::new(ErrorKind::LimitExceeded, "the disk is longer than allowed")
                .in_field("result_len")
                .at_offset(40)
                .at_path(storage.path()),
        );
    }
    Ok(header)
}
