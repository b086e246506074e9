//! Texts that come from outside, made fit for a terminal and for the log of a service.
//!
//! File names, guests, images, peers and logs can hold any bytes. What moves a cursor, starts a new
//! line or turns the direction of writing is shown by its code, so that a text is what it seems to
//! be and stays on its line.

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::path::Path;

use crate::path_bytes::bytes_of;

/// Whether a character must not reach a terminal as it is: controls (C0, delete, C1), separators of
/// lines and paragraphs, marks that turn the direction of writing, and tags that show nothing.
pub fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2066}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// `text` with every [unsafe](is_unsafe) character as `\n`, `\t`, `\r`, `\x1b` or `\u{202e}`. A
/// text that was escaped stays as it is.
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut out = Escaper(String::with_capacity(text.len() + 8));
    // A string takes everything.
    let _ = out.write_str(text);
    Cow::Owned(out.0)
}

/// A path, [escaped](escape); bytes that are no UTF-8 are shown as `\xff`.
pub fn escape_path(path: &Path) -> String {
    EscapedPath(path).to_string()
}

/// Shows a path as [`escape_path`] does.
pub struct EscapedPath<'a>(pub &'a Path);

opaque!(EscapedPath<'_>);

/// The path as users write it: on Windows without the prefix of paths that may be long.
fn plain(path: &[u8]) -> &[u8] {
    match path.strip_prefix(br"\\?\") {
        Some(rest @ [_, b':', ..]) if cfg!(windows) => rest,
        _ => path,
    }
}

impl fmt::Display for EscapedPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in plain(bytes_of(self.0)).utf8_chunks() {
            f.write_str(&escape(chunk.valid()))?;
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// Escapes all that is written through it.
pub(crate) struct Escaper<W>(pub W);

impl<W: Write> Write for Escaper<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.find(is_unsafe) {
            let (clean, tail) = rest.split_at(at);
            self.0.write_str(clean)?;
            let mut tail = tail.chars();
            match tail.next() {
                Some('\n') => self.0.write_str("\\n")?,
                Some('\r') => self.0.write_str("\\r")?,
                Some('\t') => self.0.write_str("\\t")?,
                Some(c) if c.is_ascii() => write!(self.0, "\\x{:02x}", u32::from(c))?,
                Some(c) => write!(self.0, "\\u{{{:x}}}", u32::from(c))?,
                None => {}
            }
            rest = tail.as_str();
        }
        self.0.write_str(rest)
    }
}

/// A line of JSON with every [unsafe](is_unsafe) character inside its strings as `\u202e`, which is
/// the same JSON.
pub fn escape_json(json: &str) -> Cow<'_, str> {
    if !json.contains(is_unsafe) {
        return Cow::Borrowed(json);
    }
    let mut out = String::with_capacity(json.len() + 8);
    for c in json.chars() {
        if is_unsafe(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // A string takes everything.
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use crate::path_bytes::path_of;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_shown_by_its_code() {
        for (text, shown) in [
            (
                "plain text, ümlauts and 日本",
                "plain text, ümlauts and 日本",
            ),
            ("a\nb\tc\rd", "a\\nb\\tc\\rd"),
            ("\u{1b}[2J\u{7}\u{0}", "\\x1b[2J\\x07\\x00"),
            ("\u{9b}31m\u{7f}", "\\u{9b}31m\\x7f"),
            ("a\u{202e}txt.exe\u{2066}", "a\\u{202e}txt.exe\\u{2066}"),
            ("back\\slash", "back\\slash"),
        ] {
            assert_eq!(escape(text), shown);
        }
        let path = path_of(b"a\xff\x1b/\xc3(");
        match cfg!(windows) {
            true => assert_eq!(escape_path(&path), "a\\x00\\x1b/\\x00("),
            false => assert_eq!(escape_path(&path), "a\\xff\\x1b/\\xc3("),
        }
    }

    proptest! {
        #[test]
        fn nothing_unsafe_is_left_and_escaping_again_changes_nothing(text in any::<String>()) {
            let once = escape(&text).into_owned();
            prop_assert!(!once.contains(is_unsafe));
            prop_assert_eq!(escape(&once), once.clone());
        }

        #[cfg(feature = "cli")]
        #[test]
        fn escaped_json_is_the_same_json(text in any::<String>()) {
            let json = serde_json::to_string(&text).unwrap();
            let escaped = escape_json(&json);
            prop_assert!(!escaped.contains(is_unsafe));
            prop_assert_eq!(serde_json::from_str::<String>(&escaped).unwrap(), text);
        }
    }
}
