//! Names that Windows takes for something other than a file of that name.

use std::ffi::OsStr;

use crate::error::{Error, ErrorKind, Result};
use crate::path_bytes::bytes_of;

/// Refuses what is no plain file name: devices such as `NUL`, streams of files (`disk:stream`), and
/// what ends with a dot or space, which other programs leave out.
///
/// # Errors
/// `InvalidInput`.
pub(crate) fn refuse_odd_name(name: &OsStr) -> Result<()> {
    let bytes = bytes_of(name);
    let is_odd = |byte: &u8| *byte < 0x20 || b"<>:\"/\\|?*".contains(byte);
    let what = if bytes.is_empty() || bytes.iter().any(is_odd) {
        "this is no plain file name"
    } else if bytes.ends_with(b".") || bytes.ends_with(b" ") {
        "a file name of Windows does not end with a dot or space"
    } else if is_device(bytes) {
        "Windows takes this name for a device"
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::InvalidInput, what).at_path(name))
}

/// Whether a name without its extension is that of a device.
fn is_device(name: &[u8]) -> bool {
    let stem = name.split(|byte| *byte == b'.').next().unwrap_or_default();
    let stem = stem.trim_ascii_end().to_ascii_uppercase();
    match &stem[..] {
        b"CON" | b"PRN" | b"AUX" | b"NUL" | b"CONIN$" | b"CONOUT$" => true,
        [b'C', b'O', b'M', digit] | [b'L', b'P', b'T', digit] => digit.is_ascii_digit(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_means_something_else_is_refused() {
        for good in ["web.vhdx", ".web.vhdx.new", "com", "COM10", "nul2", "ü"] {
            refuse_odd_name(OsStr::new(good)).unwrap();
        }
        for odd in [
            "",
            ".",
            "..",
            "a/b",
            "a\\b",
            "disk:stream",
            "nul",
            "NUL.vhd",
            "com1",
            "lpt9.x",
            "aux .vhd",
            "end.",
            "end ",
            "a\0",
            "a*",
        ] {
            assert!(refuse_odd_name(OsStr::new(odd)).is_err(), "{odd}");
        }
    }
}
