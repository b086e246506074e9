//! Images at services.

use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConnection;
use rustls::pki_types::ServerName;

use super::config::dialling;
use super::handshake::shake;
use super::identity::Identity;
use super::stream::TlsLine;
use super::trouble::Parties;
use crate::error::{Error, ErrorKind, Result};
use crate::setters::setters;

/// `diskdelta://host[:port]/name`
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServicePath {
    /// Where: a name or an address.
    pub host: String,
    /// The port; 8730 where none is written.
    pub port: u16,
    /// The image's path there.
    pub path: Vec<u8>,
}

/// How a service is dialled.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DialOptions {
    /// Who this end is, and whom it trusts.
    pub identity: Identity,
    /// The name that the service's certificate must be for, where it is not the host's.
    pub name: Option<String>,
    /// How long connecting may take, and how long the handshake.
    pub patience: Duration,
}

setters! {
    DialOptions:
    /// Replaces [`DialOptions::name`].
    with_name, name: Option<String>;
    /// Replaces [`DialOptions::patience`].
    with_patience, patience: Duration;
}

impl DialOptions {
    /// As this end, within 10 s.
    pub fn new(identity: Identity) -> DialOptions {
        DialOptions {
            identity,
            name: None,
            patience: Duration::from_secs(10),
        }
    }
}

impl ServicePath {
    /// The port of a service that says nothing else.
    pub const PORT: u16 = 8730;

    /// Reads a path that begins with `diskdelta://`; `None` for any other.
    ///
    /// # Errors
    /// `InvalidInput` for one without host or name.
    pub fn parse(text: &Path) -> Result<Option<ServicePath>> {
        let Some(rest) = text.as_os_str().as_bytes().strip_prefix(b"diskdelta://") else {
            return Ok(None);
        };
        let wrong = || {
            Error::new(ErrorKind::InvalidInput, "not an address of an image")
                .at_path(text)
                .advise("write diskdelta://host[:port]/name")
        };
        let slash = rest
            .iter()
            .position(|byte| *byte == b'/')
            .ok_or_else(wrong)?;
        let (place, path) = rest.split_at(slash);
        let place = str::from_utf8(place).map_err(|_| wrong())?;
        let (host, port) = split_port(place).ok_or_else(wrong)?;
        let odd = |c: char| c.is_whitespace() || c.is_control() || c == '@';
        if host.is_empty() || host.contains(odd) || path == b"/" {
            return Err(wrong());
        }
        Ok(Some(ServicePath {
            host: host.to_owned(),
            port: port.unwrap_or(Self::PORT),
            path: path.to_vec(),
        }))
    }

    /// Connects and shakes hands. That the service takes this end's certificate shows only with
    /// the first that it sends.
    ///
    /// # Errors
    /// Those of reading the identity's files; `InvalidInput` for a key that is not the
    /// certificate's, and for a name that no certificate can be for; `Untrusted` for a service
    /// whose certificate is no good; `Unsupported`, `Malformed` for something else than a service;
    /// `Io`.
    pub fn dial(&self, options: &DialOptions) -> Result<TlsLine> {
        let parties = Parties {
            peer: format!("the service at {}:{}", self.host, self.port),
            ours: options.identity.clone(),
        };
        let config = dialling(&options.identity)?;
        let name = options.name.as_ref().unwrap_or(&self.host);
        // An address may name an interface, of which a certificate knows nothing.
        let bare = name.split_once('%').map_or(name.as_str(), |it| it.0);
        let name = ServerName::try_from(bare.to_owned()).map_err(|cause| {
            let text = format!("`{bare}` is not a name that a certificate can be for");
            Error::new(ErrorKind::InvalidInput, text).caused_by(cause)
        })?;
        let connection = ClientConnection::new(Arc::new(config), name);
        let mut connection = connection.map_err(|cause| parties.explain(cause))?.into();
        let socket = self.connect(options.patience)?;
        let within = (Instant::now(), options.patience);
        shake(&mut connection, &socket, within, &parties)?;
        TlsLine::new(connection, socket, parties)
    }

    fn connect(&self, patience: Duration) -> Result<TcpStream> {
        let failed = |cause: std::io::Error| {
            let text = format!("cannot connect to {}:{}", self.host, self.port);
            Error::new(ErrorKind::Io, text).caused_by(cause)
        };
        let mut last = std::io::ErrorKind::AddrNotAvailable.into();
        let places = (self.host.as_str(), self.port).to_socket_addrs();
        for place in places.map_err(failed)? {
            match TcpStream::connect_timeout(&place, patience) {
                Ok(socket) => {
                    // Short messages are answered at once.
                    socket.set_nodelay(true).map_err(failed)?;
                    return Ok(socket);
                }
                Err(cause) => last = cause,
            }
        }
        Err(failed(last))
    }
}

/// A host, which has brackets around it where it has colons in it, and a port.
pub(super) fn split_port(place: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => match rest.split_once(']')? {
            (host, "") => (host, None),
            (host, port) => (host, Some(port.strip_prefix(':')?)),
        },
        None => match place.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        },
    };
    match port {
        Some(port) => Some((host, Some(port.parse().ok()?))),
        None => Some((host, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_odd_ones_refused() {
        let parse = |text: &str| ServicePath::parse(Path::new(text));
        let full = parse("diskdelta://host:77/web/a.vhd").unwrap().unwrap();
        assert_eq!((full.host.as_str(), full.port), ("host", 77));
        assert_eq!(full.path, b"/web/a.vhd");
        let short = parse("diskdelta://10.0.0.1/a").unwrap().unwrap();
        assert_eq!((short.host.as_str(), short.port), ("10.0.0.1", 8730));
        let six = parse("diskdelta://[fe80::1%eth0]:2/d").unwrap().unwrap();
        assert_eq!((six.host.as_str(), six.port), ("fe80::1%eth0", 2));
        assert_eq!(parse("/a/b").unwrap(), None);
        assert_eq!(parse("ssh://host/b").unwrap(), None);
        for wrong in [
            "diskdelta://",
            "diskdelta://host",
            "diskdelta://host/",
            "diskdelta:///name",
            "diskdelta://:8/name",
            "diskdelta://host:x/p",
            "diskdelta://host:70000/p",
            "diskdelta://fe80::1/p",
            "diskdelta://[::1/p",
            "diskdelta://a b/p",
            "diskdelta://me@host/p",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
