//! Names and paths as bytes, as formats, addresses and the protocol hold them: UTF-8 where a name
//! is Unicode, and on every system what `OsStr::as_encoded_bytes` gives.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// The bytes of a name or path.
pub(crate) fn bytes_of<T: AsRef<OsStr> + ?Sized>(name: &T) -> &[u8] {
    name.as_ref().as_encoded_bytes()
}

/// The path that has these bytes.
pub(crate) fn path_of(bytes: &[u8]) -> Cow<'_, Path> {
    match name_of(bytes) {
        Cow::Borrowed(name) => Cow::Borrowed(Path::new(name)),
        Cow::Owned(name) => Cow::Owned(PathBuf::from(name)),
    }
}

/// The name that has these bytes.
#[cfg(unix)]
pub(crate) fn name_of(bytes: &[u8]) -> Cow<'_, OsStr> {
    Cow::Borrowed(std::os::unix::ffi::OsStrExt::from_bytes(bytes))
}

/// The name that has these bytes. A name of Windows is UTF-16 in which halves of pairs may stand
/// alone; those have three bytes each here (WTF-8). Other bytes are in no name of Windows: they
/// become a NUL, with which no file can be opened or made.
#[cfg(windows)]
pub(crate) fn name_of(bytes: &[u8]) -> Cow<'_, OsStr> {
    use std::os::windows::ffi::OsStringExt;
    if let Ok(text) = str::from_utf8(bytes) {
        return Cow::Borrowed(OsStr::new(text));
    }
    let mut units = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let valid = rest.utf8_chunks().next().map_or("", |chunk| chunk.valid());
        units.extend(valid.encode_utf16());
        rest = &rest[valid.len()..];
        let (unit, len) = match rest {
            [0xed, second @ 0xa0..=0xbf, third @ 0x80..=0xbf, ..] => {
                let low = (u16::from(*second) & 0x3f) << 6 | (u16::from(*third) & 0x3f);
                (0xd000 | low, 3)
            }
            [] => break,
            _ => (0, 1),
        };
        units.push(unit);
        rest = &rest[len..];
    }
    Cow::Owned(std::ffi::OsString::from_wide(&units))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_bytes_has_these_bytes() {
        for text in ["", "a/b.vhd", "\u{fc}\u{1f600}"] {
            assert_eq!(path_of(text.as_bytes()), Path::new(text));
            assert_eq!(bytes_of(Path::new(text)), text.as_bytes());
        }
    }

    #[cfg(unix)]
    #[test]
    fn bytes_that_are_no_text_stay() {
        let bytes = b"\xff\xed\xa0\x80";
        assert_eq!(bytes_of(&*path_of(bytes)), bytes);
    }

    #[cfg(windows)]
    #[test]
    fn half_pairs_stay_and_other_bytes_name_no_file() {
        let half = b"a\xed\xa0\x80b";
        assert_eq!(bytes_of(&*path_of(half)), half);
        assert_eq!(bytes_of(&*path_of(b"a\xff")), b"a\0");
    }
}
