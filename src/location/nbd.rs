//! The address of an NBD export.

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

    /// Reads an address.
    ///
    /// # Errors
    /// `InvalidInput` for another scheme; without a socket, or with one that is no absolute path;
    /// for an export's name of more than 4096 bytes; for a `%` without two hex digits.
    pub fn parse(text: impl AsRef<Path>) -> Result<Self> {
        let text = text.as_ref();
        text.to_str().and_then(Self::parts).ok_or_else(|| {
            Error::new(ErrorKind::InvalidInput, "not an address of an NBD export")
                .at_path(text)
                .advise("write nbd+unix:///EXPORT?socket=PATH")
        })
    }

    fn parts(text: &str) -> Option<Self> {
        let (export, socket) = text.strip_prefix(SCHEME)?.split_once("?socket=")?;
        let (export, socket) = (decoded(export)?, decoded(socket)?);
        let fits = export.len() <= NAME_MAX && Path::new(&socket).is_absolute();
        fits.then(|| NbdAddress::new(socket, export))
    }

    /// The same text for two spellings of one address.
    pub fn place(&self) -> String {
        let socket: PathBuf = self.socket.components().collect();
        NbdAddress::new(socket, &self.export).to_string()
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
pub(crate) const NAME_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_back_as_it_was_written() {
        for (socket, export) in [("/run/a.sock", "disk"), ("/run/b c%", ""), ("/x", "ä?&/ 1")] {
            let address = NbdAddress::new(socket, export);
            let read = NbdAddress::parse(address.to_string()).unwrap();
            assert_eq!(read, address);
        }
    }

    #[test]
    fn what_is_no_address_of_nbd_is_refused() {
        for wrong in [
            "/vm/a.raw",
            "nbd://host/x",
            "nbd+unix:///a",
            "nbd+unix:///a?socket=",
            "nbd+unix:///a?socket=run/x",
            "nbd+unix:///%4?socket=/x",
            "nbd+unix:///%ff?socket=/x",
        ] {
            assert!(NbdAddress::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn two_spellings_of_an_address_are_one_place() {
        let place = |text: &str| NbdAddress::parse(text).unwrap().place();
        assert_eq!(
            place("nbd+unix:///db1.vhd?socket=/run/nbd.sock"),
            place("nbd+unix:///db1.vhd?socket=/run/./nbd.sock")
        );
    }
}
