//! A socket on which every answer has to be there in time.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::error::Error;
use crate::progress::CancelToken;

/// A Unix socket. Connecting, sending, and waiting for what answers the last message each end
/// after a time limit, and soon after a cancel. A peer that sends byte by byte gains nothing by it.
pub(crate) struct Line {
    stream: UnixStream,
    limit: Duration,
    cancel: CancelToken,
    asked: Instant,
}

impl Line {
    /// Connects. A listener whose queue is full is tried again until `limit` is up.
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
                    let stream = UnixStream::from(stream);
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

    pub(crate) fn over(
        stream: UnixStream,
        limit: Duration,
        cancel: &CancelToken,
    ) -> io::Result<Self> {
        Ok(Line {
            stream,
            limit,
            cancel: cancel.clone(),
            asked: Instant::now(),
        })
    }

    /// How long to wait before a cancel is looked for again.
    fn slice(&self) -> io::Result<Duration> {
        check(&self.cancel)?;
        let left = self.limit.saturating_sub(self.asked.elapsed());
        match left.is_zero() {
            true => Err(io::ErrorKind::TimedOut.into()),
            false => Ok(left.min(SLICE)),
        }
    }
}

impl Read for Line {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            self.stream.set_read_timeout(Some(self.slice()?))?;
            match self.stream.read(buf) {
                // What a socket's time limit is called here.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
        }
    }
}

impl Write for Line {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.asked = Instant::now();
        loop {
            self.stream.set_write_timeout(Some(self.slice()?))?;
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

const FULL_NAP: Duration = Duration::from_millis(20);
/// How soon a cancel is seen.
const SLICE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

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
