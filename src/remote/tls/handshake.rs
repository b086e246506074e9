//! A handshake that ends in time.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use rustls::Connection;

use super::error::Peers;
use crate::error::{Error, ErrorKind, Result};

/// Shakes hands over `socket` within `patience` from `begun` on, however little the other end sends
/// at a time.
///
/// # Errors
/// `Untrusted` where one end does not take the other's certificate, `Unsupported` for another
/// protocol, `Malformed` for what is no TLS; `Io`, also where it took too long.
pub(in crate::remote) fn shake(
    connection: &mut Connection,
    socket: &TcpStream,
    (begun, patience): (Instant, Duration),
    peers: &Peers,
) -> Result<()> {
    let deadline = begun + patience;
    let late = || late(&peers.peer, patience);
    let failed = |cause: io::Error| match cause.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => late(),
        _ => {
            let text = format!("the line to {} broke during the handshake", peers.peer);
            Error::new(ErrorKind::Io, text).caused_by(cause)
        }
    };
    let left = || match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(late()),
        left => Ok(left),
    };
    loop {
        while connection.wants_write() {
            socket.set_write_timeout(Some(left()?)).map_err(failed)?;
            connection.write_tls(&mut &*socket).map_err(failed)?;
        }
        if !connection.is_handshaking() {
            break;
        }
        socket.set_read_timeout(Some(left()?)).map_err(failed)?;
        if connection.read_tls(&mut &*socket).map_err(failed)? == 0 {
            let text = format!("{} closed the line during the handshake", peers.peer);
            return Err(Error::new(ErrorKind::Io, text));
        }
        if let Err(error) = connection.process_new_packets() {
            say_why(connection, socket);
            return Err(peers.explain(error));
        }
    }
    socket.set_read_timeout(None).map_err(failed)?;
    socket.set_write_timeout(None).map_err(failed)
}

/// The error for one that took too long.
pub(in crate::remote) fn late(peer: &str, patience: Duration) -> Error {
    let seconds = patience.as_secs_f64();
    let text = format!("{peer} did not shake hands within {seconds} s");
    Error::new(ErrorKind::Io, text)
}

/// Sends the alert that tells the other end, and gives it a moment to take it: what it has sent
/// and was not read would make the system throw away what is on its way.
fn say_why(connection: &mut Connection, mut socket: &TcpStream) {
    while connection.wants_write() {
        if connection.write_tls(&mut socket).is_err() {
            return;
        }
    }
    let _ = socket.flush();
    let _ = socket.shutdown(Shutdown::Write);
    let deadline = Instant::now() + LAST_WORDS;
    let mut scrap = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || socket.set_read_timeout(Some(left)).is_err() {
            return;
        }
        match socket.read(&mut scrap) {
            Ok(count) if count > 0 => {}
            _ => return,
        }
    }
}

const LAST_WORDS: Duration = Duration::from_secs(1);
