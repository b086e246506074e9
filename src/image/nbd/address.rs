//! Where an export is.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};

/// An export of an NBD server behind a Unix socket: `nbd+unix:///EXPORT?socket=PATH`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NbdAddress {
    socket: PathBuf,
    export: String,
}

impl NbdAddress {
    /// An export by its name, which may be empty, and the socket of its server.
    pub fn new(socket: impl Into<PathBuf>, export: impl Into<String>) -> Self {
        NbdAddress {
            socket: socket.into(),
            export: export.into(),
        }
    }

    /// Reads an address; `None` where the text is none of NBD.
    ///
    /// # Errors
    /// `InvalidInput` without a socket, or with one that is no absolute path; for an export's name
    /// of more than 4096 bytes; for a `%` without two hex digits.
    pub fn parse(text: &str) -> Option<Result<Self>> {
        let rest = text.strip_prefix(SCHEME)?;
        Some(Self::parts(rest).ok_or_else(|| {
            let said = format!("`{text}` is not nbd+unix:///EXPORT?socket=PATH");
            Error::new(ErrorKind::InvalidInput, said)
        }))
    }

    fn parts(rest: &str) -> Option<Self> {
        let (export, socket) = rest.split_once("?socket=")?;
        let (export, socket) = (decoded(export)?, decoded(socket)?);
        let fits = export.len() <= NAME_MAX && Path::new(&socket).is_absolute();
        fits.then(|| NbdAddress::new(socket, export))
    }

    /// The server's socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The export's name.
    pub fn export(&self) -> &str {
        &self.export
    }
}

impl fmt::Display for NbdAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let socket = self.socket.to_string_lossy();
        write!(
            f,
            "{SCHEME}{}?socket={}",
            encoded(&self.export),
            encoded(&socket)
        )
    }
}

fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'/' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let high = char::from(rest.next()?).to_digit(16)?;
                let low = char::from(rest.next()?).to_digit(16)?;
                u8::try_from(high << 4 | low).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

const SCHEME: &str = "nbd+unix:///";
/// The protocol's bound on names.
pub(super) const NAME_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_back_as_it_was_written() {
        for (socket, export) in [("/run/a.sock", "disk"), ("/run/b c%", ""), ("/x", "ä?&/ 1")] {
            let address = NbdAddress::new(socket, export);
            let read = NbdAddress::parse(&address.to_string()).unwrap().unwrap();
            assert_eq!(read, address);
        }
    }

    #[test]
    fn what_is_no_address_of_nbd_is_told_from_a_wrong_one() {
        assert!(NbdAddress::parse("/vm/a.raw").is_none());
        assert!(NbdAddress::parse("nbd://host/x").is_none());
        for wrong in [
            "nbd+unix:///a",
            "nbd+unix:///a?socket=",
            "nbd+unix:///a?socket=run/x",
            "nbd+unix:///%4?socket=/x",
            "nbd+unix:///%ff?socket=/x",
        ] {
            assert!(NbdAddress::parse(wrong).unwrap().is_err(), "{wrong}");
        }
    }
}
