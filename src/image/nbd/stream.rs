//! The bytes between a client and a server: sockets, and both directions for a thread each.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
#[cfg(unix)]
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::error::Result;

/// A connected socket.
pub(crate) enum Socket {
    #[cfg(unix)]
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Socket {
    /// Connects to a port of a host, within `limit` for each of its addresses.
    ///
    /// # Errors
    /// That of the last address.
    pub(super) fn connect_tcp(host: &str, port: u16, limit: Duration) -> io::Result<Self> {
        let mut last = io::ErrorKind::AddrNotAvailable.into();
        for address in (host, port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, limit) {
                Ok(stream) => {
                    // Requests are short, and each is waited for.
                    stream.set_nodelay(true)?;
                    return Ok(Socket::Tcp(stream));
                }
                Err(cause) => last = cause,
            }
        }
        Err(last)
    }

    /// Has every call that waits longer than `slice` fail, with `WouldBlock`.
    ///
    /// # Errors
    /// Those of the system.
    pub(super) fn set_slice(&self, slice: Duration) -> io::Result<()> {
        match self {
            #[cfg(unix)]
            Socket::Unix(stream) => {
                stream.set_read_timeout(Some(slice))?;
                stream.set_write_timeout(Some(slice))
            }
            Socket::Tcp(stream) => {
                stream.set_read_timeout(Some(slice))?;
                stream.set_write_timeout(Some(slice))
            }
        }
    }

    fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            #[cfg(unix)]
            Socket::Unix(stream) => Socket::Unix(stream.try_clone()?),
            Socket::Tcp(stream) => Socket::Tcp(stream.try_clone()?),
        })
    }

    /// The TCP socket.
    ///
    /// # Errors
    /// `Unsupported` for a Unix socket.
    pub(super) fn into_tcp(self) -> io::Result<TcpStream> {
        match self {
            Socket::Tcp(stream) => Ok(stream),
            #[cfg(unix)]
            Socket::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Both directions.
    ///
    /// # Errors
    /// Those of the system.
    pub(super) fn duplex(self) -> io::Result<Duplex> {
        Ok(Duplex {
            reader: Box::new(self.try_clone()?),
            writer: Box::new(self),
            guard: None,
        })
    }
}

impl Read for Socket {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            #[cfg(unix)]
            Socket::Unix(stream) => stream.read(buf),
            Socket::Tcp(stream) => stream.read(buf).map_err(of_slice),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            #[cfg(unix)]
            Socket::Unix(stream) => stream.write(buf),
            Socket::Tcp(stream) => stream.write(buf).map_err(of_slice),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            #[cfg(unix)]
            Socket::Unix(stream) => stream.flush(),
            Socket::Tcp(stream) => stream.flush(),
        }
    }
}

#[cfg(unix)]
impl From<UnixStream> for Socket {
    fn from(stream: UnixStream) -> Self {
        Socket::Unix(stream)
    }
}

/// The end of a slice of time has two kinds, one on Unix and one on Windows.
fn of_slice(cause: io::Error) -> io::Error {
    match cause.kind() {
        io::ErrorKind::TimedOut if cfg!(windows) => io::ErrorKind::WouldBlock.into(),
        _ => cause,
    }
}

/// Both directions of a connection. The reader fails with `WouldBlock` now and then where nothing
/// comes, so that a cancel is seen.
pub(crate) struct Duplex {
    pub reader: Box<dyn Read + Send>,
    pub writer: Box<dyn Write + Send>,
    /// What must live as long as the two.
    pub guard: Option<Box<dyn Send + Sync>>,
}

opaque!(Duplex);

impl Read for Duplex {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buf)
    }
}

impl Write for Duplex {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.writer.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// Puts TLS over a connection that NBD has begun in the clear.
pub(crate) trait Secure: Send + Sync {
    /// Shakes hands with `host`; each read then waits no longer than `slice`.
    ///
    /// # Errors
    /// `Untrusted` for a server whose certificate is no good; `Io`, `Malformed`, `Unsupported`.
    fn secure(&self, socket: TcpStream, host: &str, slice: Duration) -> Result<Duplex>;
}
