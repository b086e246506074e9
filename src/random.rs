//! Random bytes of the system.

use crate::error::{Error, ErrorKind, Result};

/// Random bytes, for ids and keys.
///
/// # Errors
/// `Io` when the system gives none.
pub(crate) fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    match getrandom::fill(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(cause) => Err(
            Error::new(ErrorKind::Io, "cannot get random bytes from the system").caused_by(cause),
        ),
    }
}
