//! A socket on which every answer has to be there in time.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// A Unix socket; what is read must be there within a time from what was written last. A peer that
/// sends byte by byte gains nothing by it.
pub(super) struct Line {
    stream: UnixStream,
    limit: Duration,
    asked: Instant,
}

impl Line {
    /// Connects; what is sent is not waited for longer than `limit` either.
    pub(super) fn connect(socket: &Path, limit: Duration) -> io::Result<Self> {
        Self::over(UnixStream::connect(socket)?, limit)
    }

    pub(super) fn over(stream: UnixStream, limit: Duration) -> io::Result<Self> {
        stream.set_write_timeout(Some(limit))?;
        let asked = Instant::now();
        Ok(Line {
            stream,
            limit,
            asked,
        })
    }
}

impl Read for Line {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = self.limit.saturating_sub(self.asked.elapsed());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        match self.stream.read(buf) {
            // What a socket's time limit is called here.
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Err(io::ErrorKind::TimedOut.into()),
            read => read,
        }
    }
}

impl Write for Line {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.asked = Instant::now();
        self.stream.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_says_a_little_now_and_then_is_not_waited_for_without_end() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut line = Line::over(ours, Duration::from_millis(200)).unwrap();
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
}
