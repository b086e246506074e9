//! A stream on which every answer has to be there in time.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

#[cfg(unix)]
use rustix::io::Errno;
#[cfg(unix)]
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::stream::{Duplex, Secure, Socket};
use crate::error::{Error, Result};
use crate::progress::CancelToken;

/// A stream. Sending, and waiting for what answers the last message, each end after a time limit,
/// and soon after a cancel. A peer that sends byte by byte gains nothing by it.
pub(crate) struct Patient<S> {
    stream: S,
    limit: Duration,
    cancel: CancelToken,
    asked: Instant,
}

/// A socket that was connected within the time limit.
pub(crate) type Line = Patient<Socket>;

impl Line {
    /// Refuses a Unix socket.
    ///
    /// # Errors
    /// `Unsupported`.
    #[cfg(windows)]
    pub(crate) fn connect(_: &Path, _: Duration, _: &CancelToken) -> io::Result<Self> {
        let what = "Unix sockets are not supported on Windows";
        Err(io::Error::new(io::ErrorKind::Unsupported, what))
    }

    /// Connects to a Unix socket. A listener whose queue is full is tried again until `limit` is
    /// up.
    #[cfg(unix)]
    pub(crate) fn connect(
        socket: &Path,
        limit: Duration,
        cancel: &CancelToken,
    ) -> io::Result<Self> {
        let begin = Instant::now();
        let address = SocketAddrUnix::new(socket)?;
        loop {
            check(cancel)?;
            // A blocking connect waits for room in the listener's queue, for ever.
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let stream =
                rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            match rustix::net::connect(&stream, &address) {
                Ok(()) => {
                    let stream = std::os::unix::net::UnixStream::from(stream);
                    stream.set_nonblocking(false)?;
                    return Self::over(stream, limit, cancel);
                }
                Err(Errno::AGAIN) if begin.elapsed() < limit => {
                    let left = limit.saturating_sub(begin.elapsed());
                    std::thread::sleep(left.min(FULL_NAP));
                }
                Err(Errno::AGAIN) => {
                    let text = "too many wait for it already, and it takes none of them";
                    return Err(io::Error::new(io::ErrorKind::TimedOut, text));
                }
                Err(cause) => return Err(cause.into()),
            }
        }
    }

    /// Connects to a port of a host.
    ///
    /// # Errors
    /// Those of the system; what a cancel is.
    pub(super) fn connect_tcp(
        host: &str,
        port: u16,
        limit: Duration,
        cancel: &CancelToken,
    ) -> io::Result<Self> {
        check(cancel)?;
        let most = limit.min(CONNECT_LIMIT);
        Self::over(Socket::connect_tcp(host, port, most)?, limit, cancel)
    }

    pub(crate) fn over(
        stream: impl Into<Socket>,
        limit: Duration,
        cancel: &CancelToken,
    ) -> io::Result<Self> {
        let stream = stream.into();
        stream.set_slice(SLICE)?;
        Ok(Patient {
            stream,
            limit,
            cancel: cancel.clone(),
            asked: Instant::now(),
        })
    }

    /// Both directions of it.
    ///
    /// # Errors
    /// Those of the system.
    pub(super) fn duplex(self) -> io::Result<Patient<Duplex>> {
        Ok(Patient {
            stream: self.stream.duplex()?,
            limit: self.limit,
            cancel: self.cancel,
            asked: self.asked,
        })
    }

    /// Both directions of it, over TLS from now on.
    ///
    /// # Errors
    /// Those of the handshake; `Io`.
    pub(super) fn secured(self, host: &str, secure: &dyn Secure) -> Result<Patient<Duplex>> {
        let failed = |cause: io::Error| Error::io("begin TLS", cause);
        let stream: TcpStream = self.stream.into_tcp().map_err(failed)?;
        Ok(Patient {
            stream: secure.secure(stream, host, SLICE)?,
            limit: self.limit,
            cancel: self.cancel,
            asked: self.asked,
        })
    }
}

impl Patient<Duplex> {
    /// A stream for each direction.
    pub(super) fn split(self) -> Halves {
        let Duplex {
            reader,
            writer,
            guard,
        } = self.stream;
        let (limit, asked) = (self.limit, self.asked);
        let stop = self.cancel.child();
        Halves {
            reader: Patient {
                stream: reader,
                limit,
                cancel: stop.clone(),
                asked,
            },
            writer: Patient {
                stream: writer,
                limit,
                cancel: self.cancel,
                asked,
            },
            guard,
            stop,
        }
    }
}

/// A connection, for a thread that reads and others that write.
pub(super) struct Halves {
    pub reader: Patient<Box<dyn Read + Send>>,
    pub writer: Patient<Box<dyn Write + Send>>,
    /// What must live as long as the two.
    pub guard: Option<Box<dyn Send + Sync>>,
    /// Ends what the reader waits for.
    pub stop: CancelToken,
}

impl<S> Patient<S> {
    /// Has the time limit count from `asked` on.
    pub(super) fn begin_at(&mut self, asked: Instant) {
        self.asked = asked;
    }

    /// Whether there is time left.
    fn check_time(&self) -> io::Result<()> {
        check(&self.cancel)?;
        match self.asked.elapsed() < self.limit {
            true => Ok(()),
            false => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

impl<S: Read> Read for Patient<S> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            self.check_time()?;
            match self.stream.read(buf) {
                // The end of a slice of time.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
        }
    }
}

impl<S: Write> Write for Patient<S> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.asked = Instant::now();
        loop {
            self.check_time()?;
            match self.stream.write(buf) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                written => return written,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// The cancel that ended a call on a line, or what else did.
///
/// # Errors
/// What was no cancel.
pub(crate) fn cancelled(cause: io::Error) -> Result<Error, io::Error> {
    cause.downcast::<Error>()
}

fn check(cancel: &CancelToken) -> io::Result<()> {
    cancel.check().map_err(io::Error::other)
}

/// How long one address of a host is tried.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
#[cfg(unix)]
const FULL_NAP: Duration = Duration::from_millis(20);
/// How soon a cancel is seen.
const SLICE: Duration = Duration::from_millis(100);

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn a_peer_that_says_a_little_now_and_then_is_not_waited_for_without_end() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut line = Line::over(ours, Duration::from_millis(200), &CancelToken::new()).unwrap();
        let trickle = std::thread::spawn(move || {
            while theirs.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let mut buf = [0; 1 << 20];
        let error = line.read_exact(&mut buf).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(line);
        trickle.join().unwrap();
    }

    #[test]
    fn a_listener_that_takes_nobody_does_not_hold_a_connect_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let (socket, _listener, _waiting) = full(directory.path());
        let limit = Duration::from_millis(200);
        let error = Line::connect(&socket, limit, &CancelToken::new())
            .err()
            .unwrap();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
    }

    #[test]
    fn a_connect_that_waits_for_its_turn_gets_it() {
        let directory = tempfile::tempdir().unwrap();
        let (socket, listener, waiting) = full(directory.path());
        let takes = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            let all = (0..=waiting.len()).map(|_| listener.accept().unwrap());
            all.collect::<Vec<_>>()
        });
        let limit = Duration::from_secs(60);
        assert!(Line::connect(&socket, limit, &CancelToken::new()).is_ok());
        takes.join().unwrap();
    }

    #[test]
    fn a_connect_a_read_and_a_write_end_when_they_are_cancelled() {
        let directory = tempfile::tempdir().unwrap();
        let (socket, _listener, _waiting) = full(directory.path());
        let limit = Duration::from_secs(3600);
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let line = |cancel: &CancelToken| Line::over(ours.try_clone().unwrap(), limit, cancel);
        let waits: [&Waits<'_>; 3] = [
            &|cancel| Line::connect(&socket, limit, cancel).map(drop),
            &|cancel| line(cancel)?.read_exact(&mut [0]),
            &|cancel| line(cancel)?.write_all(&vec![0; 64 << 20]),
        ];
        for wait in waits {
            let cancel = CancelToken::new();
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    std::thread::sleep(Duration::from_millis(50));
                    cancel.cancel();
                });
                let error = cancelled(wait(&cancel).unwrap_err()).unwrap();
                assert_eq!(error.kind(), crate::ErrorKind::Cancelled);
            });
        }
    }

    type Waits<'a> = dyn Fn(&CancelToken) -> io::Result<()> + 'a;

    /// A listener that accepts no connection, with as many waiting as its queue holds.
    fn full(directory: &Path) -> (std::path::PathBuf, UnixListener, Vec<Line>) {
        let socket = directory.join("full.sock");
        let address = SocketAddrUnix::new(&socket).unwrap();
        let listener = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        rustix::net::bind(&listener, &address).unwrap();
        rustix::net::listen(&listener, 1).unwrap();
        let waiting =
            (0..16).map_while(|_| Line::connect(&socket, Duration::ZERO, &CancelToken::new()).ok());
        let waiting: Vec<_> = waiting.collect();
        assert!(waiting.len() < 16);
        (socket, listener.into(), waiting)
    }
}
