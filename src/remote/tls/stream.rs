//! Both directions of a TLS connection, for a thread each.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustls::Connection;

use super::error::Peers;
use crate::error::{Error, ErrorKind, Result};

/// A line whose handshake is done; when dropped the other end has a moment to take what was sent,
/// and is cut off then.
pub struct TlsLine {
    socket: TcpStream,
    shared: Arc<Shared>,
    streams: Option<(TlsReader, TlsWriter)>,
}

opaque!(TlsLine);

/// What the other end sends.
pub struct TlsReader {
    socket: TcpStream,
    shared: Arc<Shared>,
    peers: Peers,
    raw: Vec<u8>,
    taken: usize,
    filled: usize,
}

opaque!(TlsReader);

/// What the other end is sent; dropping it signals the end.
pub struct TlsWriter {
    socket: TcpStream,
    shared: Arc<Shared>,
    raw: Vec<u8>,
}

opaque!(TlsWriter);

struct Shared {
    /// Held while bytes are sealed or opened, never while the socket is waited for. Only the
    /// writer takes sealed bytes out, so they go in the order in which they were sealed.
    connection: Mutex<Connection>,
    is_read: Mutex<bool>,
    bell: Condvar,
}

impl TlsLine {
    pub(in crate::remote) fn new(
        connection: Connection,
        socket: TcpStream,
        peers: Peers,
    ) -> Result<TlsLine> {
        let failed = |cause| Error::io("set up the line", cause);
        let shared = Arc::new(Shared {
            connection: Mutex::new(connection),
            is_read: Mutex::new(false),
            bell: Condvar::new(),
        });
        let reader = TlsReader {
            socket: socket.try_clone().map_err(failed)?,
            shared: shared.clone(),
            peers,
            raw: vec![0; RAW_BYTES],
            taken: 0,
            filled: 0,
        };
        let writer = TlsWriter {
            socket: socket.try_clone().map_err(failed)?,
            shared: shared.clone(),
            raw: Vec::new(),
        };
        Ok(TlsLine {
            socket,
            shared,
            streams: Some((reader, writer)),
        })
    }

    /// Both directions, once.
    ///
    /// # Errors
    /// `Io` the second time.
    pub fn streams(&mut self) -> Result<(TlsReader, TlsWriter)> {
        let used = || Error::new(ErrorKind::Io, "the line's streams are in use");
        self.streams.take().ok_or_else(used)
    }
}

impl Drop for TlsLine {
    fn drop(&mut self) {
        drop(self.streams.take());
        let begun = Instant::now();
        let mut is_read = self
            .shared
            .is_read
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        while !*is_read && begun.elapsed() < PATIENCE {
            let waited = self.shared.bell.wait_timeout(is_read, NAP);
            is_read = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        // Wakes threads that still read or write; one that is closed already says so, which
        // does not matter.
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

impl Read for TlsReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(count) = self.open(buf)? {
                return Ok(count);
            }
            (self.taken, self.filled) = (0, 0);
            self.filled = self.socket.read(&mut self.raw)?;
            if self.filled == 0 {
                // Cut off or closed in form: the protocol knows whether there was to be more.
                return Ok(0);
            }
        }
    }
}

impl TlsReader {
    /// Opens what has come; `None` where there is nothing whole.
    fn open(&mut self, buf: &mut [u8]) -> io::Result<Option<usize>> {
        let mut connection = self.shared.lock();
        loop {
            match connection.reader().read(buf) {
                Ok(count) => return Ok(Some(count)),
                Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => {}
                Err(cause) => return Err(cause),
            }
            let mut rest = self.raw.get(self.taken..self.filled).unwrap_or_default();
            if rest.is_empty() {
                return Ok(None);
            }
            self.taken += connection.read_tls(&mut rest)?;
            connection
                .process_new_packets()
                .map_err(|error| io::Error::other(self.peers.explain(error)))?;
        }
    }
}

impl Drop for TlsReader {
    fn drop(&mut self) {
        *self
            .shared
            .is_read
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.bell.notify_all();
    }
}

impl Write for TlsWriter {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let count = {
            let mut connection = self.shared.lock();
            let count = connection.writer().write(buf)?;
            take_sealed(&mut connection, &mut self.raw)?;
            count
        };
        self.send()?;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl TlsWriter {
    fn send(&mut self) -> io::Result<()> {
        let sent = self.socket.write_all(&self.raw);
        self.raw.clear();
        // What is lost cannot be sent again.
        sent.map_err(|cause| match cause.kind() {
            io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
            _ => cause,
        })
    }
}

impl Drop for TlsWriter {
    fn drop(&mut self) {
        {
            let mut connection = self.shared.lock();
            connection.send_close_notify();
            let _ = take_sealed(&mut connection, &mut self.raw);
        }
        // Where the line is down the other end cannot be reached.
        let _ = self.send();
        let _ = self.socket.shutdown(Shutdown::Write);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn take_sealed(connection: &mut Connection, out: &mut Vec<u8>) -> io::Result<()> {
    while connection.wants_write() {
        connection.write_tls(out)?;
    }
    Ok(())
}

const RAW_BYTES: usize = 128 << 10;
const PATIENCE: Duration = Duration::from_secs(2);
const NAP: Duration = Duration::from_millis(100);
