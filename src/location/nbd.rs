//! The address of an NBD export.

use std::fmt;
use std::path::{Path, PathBuf};

use super::remote::{bracketed, plain_host, split_port};
use crate::error::{Error, ErrorKind, Result};

/// An export of an NBD server: `nbd+unix:///EXPORT?socket=PATH` behind a Unix socket,
/// `nbd://host[:port]/EXPORT`, or `nbds://host[:port]/EXPORT` over TLS. `bitmap=NAME` in the query
/// names a dirty bitmap of the export.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NbdAddress {
    server: NbdServer,
    export: String,
    bitmap: Option<String>,
}

/// Where an NBD server listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum NbdServer {
    /// A Unix socket.
    Unix(PathBuf),
    /// A port of a host.
    Tcp {
        host: String,
        port: u16,
        /// Whether TLS is begun before an export is named.
        tls: bool,
    },
}

impl NbdAddress {
    /// The port of a server whose address has none.
    pub const PORT: u16 = 10809;

    /// An export by its name, which may be empty, and the Unix socket of its server.
    pub fn new(socket: impl Into<PathBuf>, export: impl Into<String>) -> Self {
        NbdAddress {
            server: NbdServer::Unix(socket.into()),
            export: export.into(),
            bitmap: None,
        }
    }

    /// Reads an address.
    ///
    /// # Errors
    /// `InvalidInput` for another scheme; without a host, or a socket with an absolute path; for an
    /// unknown or repeated part of the query; for a name of more than 4096 bytes; for a `%` without
    /// two hex digits.
    pub fn parse(text: impl AsRef<Path>) -> Result<Self> {
        let text = text.as_ref();
        text.to_str().and_then(Self::parts).ok_or_else(|| {
            Error::new(ErrorKind::InvalidInput, "not an address of an NBD export")
                .at_path(text)
                .advise(
                    "write nbd+unix:///EXPORT?socket=PATH, nbd://host[:port]/EXPORT or \
                     nbds://host[:port]/EXPORT; a dirty bitmap is named by bitmap=NAME",
                )
        })
    }

    fn parts(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, export) = rest.split_once('/').unwrap_or((rest, ""));
        let (mut socket, mut bitmap) = (None, None);
        for part in query.split('&').filter(|_| !query.is_empty()) {
            let slot = match part.split_once('=')? {
                ("socket", path) => (&mut socket, path),
                ("bitmap", name) if !name.is_empty() => (&mut bitmap, name),
                _ => return None,
            };
            if slot.0.replace(decoded(slot.1)?).is_some() {
                return None;
            }
        }
        let server = match (scheme, socket) {
            ("nbd+unix", Some(socket)) if authority.is_empty() => Path::new(&socket)
                .is_absolute()
                .then(|| NbdServer::Unix(socket.into()))?,
            ("nbd" | "nbds", None) => {
                let (host, port) = split_port(authority)?;
                let is_odd = |c: char| c.is_whitespace() || c.is_control() || c == '@';
                if host.is_empty() || host.contains(is_odd) {
                    return None;
                }
                NbdServer::Tcp {
                    host: host.to_owned(),
                    port: port.unwrap_or(Self::PORT),
                    tls: scheme == "nbds",
                }
            }
            _ => return None,
        };
        let export = decoded(export)?;
        let names = [Some(&export), bitmap.as_ref()];
        let fits = names
            .into_iter()
            .flatten()
            .all(|name| name.len() <= NAME_MAX);
        fits.then_some(NbdAddress {
            server,
            export,
            bitmap,
        })
    }

    /// The same text for two spellings of one address.
    pub fn place(&self) -> String {
        let server = match &self.server {
            NbdServer::Unix(socket) => NbdServer::Unix(socket.components().collect()),
            NbdServer::Tcp { host, port, tls } => NbdServer::Tcp {
                host: plain_host(host),
                port: *port,
                tls: *tls,
            },
        };
        NbdAddress {
            server,
            export: self.export.clone(),
            bitmap: None,
        }
        .to_string()
    }

    /// Where the server listens.
    #[cfg(feature = "nbd")]
    pub(crate) fn server(&self) -> &NbdServer {
        &self.server
    }

    /// Whether it is reached over TLS.
    pub fn is_secure(&self) -> bool {
        matches!(self.server, NbdServer::Tcp { tls: true, .. })
    }

    /// The export's name.
    pub fn export(&self) -> &str {
        &self.export
    }

    /// The dirty bitmap that tells what changed.
    pub fn bitmap(&self) -> Option<&str> {
        self.bitmap.as_deref()
    }
}

impl fmt::Display for NbdAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let export = encoded(&self.export);
        let mut query = Vec::new();
        match &self.server {
            NbdServer::Unix(socket) => {
                write!(f, "nbd+unix:///{export}")?;
                query.push(format!("socket={}", encoded(&socket.to_string_lossy())));
            }
            NbdServer::Tcp { host, port, tls } => {
                f.write_str(if *tls { "nbds://" } else { "nbd://" })?;
                f.write_str(&bracketed(host))?;
                if *port != Self::PORT {
                    write!(f, ":{port}")?;
                }
                write!(f, "/{export}")?;
            }
        }
        query.extend(
            self.bitmap
                .iter()
                .map(|name| format!("bitmap={}", encoded(name))),
        );
        match query.is_empty() {
            true => Ok(()),
            false => write!(f, "?{}", query.join("&")),
        }
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
    fn servers_listen_on_ports_too_and_bitmaps_are_named_in_the_query() {
        for (text, shown) in [
            ("nbd://h", "nbd://h/"),
            ("nbd://h/a%20b?bitmap=c%26d", "nbd://h/a%20b?bitmap=c%26d"),
            ("nbds://[::1]:10809/x", "nbds://[::1]/x"),
            ("nbds://h:1/x/y", "nbds://h:1/x/y"),
            (
                "nbd+unix:///a?bitmap=b&socket=/s",
                "nbd+unix:///a?socket=/s&bitmap=b",
            ),
        ] {
            let address = NbdAddress::parse(text).unwrap();
            assert_eq!(address.to_string(), shown);
            assert_eq!(NbdAddress::parse(shown).unwrap(), address);
        }
        let address = NbdAddress::parse("nbds://h/x?bitmap=b").unwrap();
        assert!(address.is_secure() && address.bitmap() == Some("b"));
        let place = |text: &str| NbdAddress::parse(text).unwrap().place();
        assert_eq!(place("nbd://HOST:10809/x?bitmap=b"), place("nbd://host/x"));
    }

    #[test]
    fn what_is_no_address_of_nbd_is_refused() {
        for wrong in [
            "/vm/a.raw",
            "nbd:///x",
            "nbd://h:x/y",
            "nbd://a@h/y",
            "nbd://h/y?socket=/s",
            "nbd://h/y?bitmap=",
            "nbd://h/y?bitmap=a&bitmap=b",
            "nbd://h/y?x=a",
            "nbd+unix://h/a?socket=/s",
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
