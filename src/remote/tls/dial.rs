//! Dialling a service.

use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection};

use super::config::dialling;
use super::error::Peers;
use super::handshake::shake;
use super::identity::Identity;
use super::stream::TlsLine;
use crate::error::{Error, ErrorKind, Result};
use crate::location::RemoteAddress;
use crate::setters::setters;

/// How a service is connected to.
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

impl TlsLine {
    /// Connects and shakes hands. That the service takes this end's certificate shows only with
    /// the first that it sends.
    ///
    /// # Errors
    /// Those of reading the identity's files; `InvalidInput` for a key that is not the
    /// certificate's, and for a name that no certificate can be for; `Untrusted` for a service
    /// whose certificate is no good; `Unsupported`, `Malformed` for something other than a service;
    /// `Io`.
    pub fn dial(at: &RemoteAddress, options: &DialOptions) -> Result<TlsLine> {
        let (host, port) = (at.host(), at.port().unwrap_or(RemoteAddress::SERVICE_PORT));
        let peer = format!("the service at {host}:{port}");
        let config = dialling(&options.identity)?;
        let (mut connection, peers) = client(config, host, peer, options)?;
        let socket = connect(host, port, options.patience)?;
        let within = (Instant::now(), options.patience);
        shake(&mut connection, &socket, within, &peers)?;
        peers.check_protocol(connection.alpn_protocol())?;
        TlsLine::new(connection, socket, peers)
    }

    /// Goes on over TLS on a connection to `host` that another protocol has begun.
    ///
    /// # Errors
    /// As [`dial`](TlsLine::dial).
    #[cfg(feature = "nbd")]
    pub(super) fn over(socket: TcpStream, host: &str, options: &DialOptions) -> Result<TlsLine> {
        let mut config = dialling(&options.identity)?;
        config.alpn_protocols.clear();
        let peer = format!("the server at {host}");
        let (mut connection, peers) = client(config, host, peer, options)?;
        let within = (Instant::now(), options.patience);
        shake(&mut connection, &socket, within, &peers)?;
        TlsLine::new(connection, socket, peers)
    }
}

/// The client's end of a connection to `host`, before the handshake.
fn client(
    config: ClientConfig,
    host: &str,
    peer: String,
    options: &DialOptions,
) -> Result<(Connection, Peers)> {
    let ours = options.identity.clone();
    let peers = Peers { peer, ours };
    let name = options.name.as_deref().unwrap_or(host);
    // An address may name an interface, of which a certificate knows nothing.
    let bare = name.split_once('%').map_or(name, |it| it.0);
    let name = ServerName::try_from(bare.to_owned()).map_err(|cause| {
        let text = format!("`{bare}` is not a name that a certificate can be for");
        Error::new(ErrorKind::InvalidInput, text).caused_by(cause)
    })?;
    let connection = ClientConnection::new(Arc::new(config), name);
    let connection = connection.map_err(|cause| peers.explain(cause))?;
    Ok((connection.into(), peers))
}

fn connect(host: &str, port: u16, patience: Duration) -> Result<TcpStream> {
    let failed = |cause: std::io::Error| {
        let text = format!("cannot connect to {host}:{port}");
        Error::new(ErrorKind::Io, text).caused_by(cause)
    };
    let mut last = std::io::ErrorKind::AddrNotAvailable.into();
    let addresses = (host, port).to_socket_addrs();
    for address in addresses.map_err(failed)? {
        match TcpStream::connect_timeout(&address, patience) {
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
