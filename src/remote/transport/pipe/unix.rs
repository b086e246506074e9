//! Pipes that are waited for with `poll`.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

/// Ends all pipes that were made with it when it is dropped.
pub(in crate::remote) struct PipeEnd {
    watched: Arc<PipeReader>,
    /// Closed when this is dropped, which wakes all that poll `watched`.
    _open: PipeWriter,
}

impl PipeEnd {
    pub(in crate::remote) fn new() -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        Ok(PipeEnd {
            watched: Arc::new(reader),
            _open: writer,
        })
    }
}

/// One of the streams of a program. After its end no more is read than a pipe holds, and nothing is
/// written.
pub struct Pipe<T> {
    stream: T,
    end: Arc<PipeReader>,
    /// How many bytes are read at most after the end.
    left: usize,
}

opaque!(Pipe<T>);

impl<T: AsFd> Pipe<T> {
    pub(in crate::remote) fn new(stream: T, end: &PipeEnd) -> Self {
        Pipe {
            stream,
            end: end.watched.clone(),
            left: PIPE_BYTES,
        }
    }

    /// Waits until the stream can be used without waiting, or ends; says which of the two it is.
    fn wait(&self, events: PollFlags) -> io::Result<(bool, bool)> {
        let mut polled = [
            PollFd::new(&self.stream, events),
            PollFd::new(&self.end, PollFlags::empty()),
        ];
        loop {
            match poll(&mut polled, None) {
                Ok(_) => {
                    let [stream, end] = polled.map(|it| !it.revents().is_empty());
                    return Ok((stream, end));
                }
                Err(Errno::INTR) => {}
                Err(cause) => return Err(cause.into()),
            }
        }
    }
}

impl<T: AsFd + Read> Read for Pipe<T> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let (is_ready, is_over) = self.wait(PollFlags::IN)?;
        if !is_over {
            return self.stream.read(buf);
        }
        let count = buf.len().min(self.left);
        match buf.get_mut(..count) {
            Some(buf) if is_ready && count > 0 => {
                let count = self.stream.read(buf)?;
                self.left -= count;
                Ok(count)
            }
            _ => Ok(0),
        }
    }
}

impl<T: AsFd + Write> Write for Pipe<T> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let (_, is_over) = self.wait(PollFlags::OUT)?;
        if is_over {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        // A pipe that takes something takes that much without waiting.
        let count = buf.len().min(ATOMIC_BYTES);
        self.stream.write(buf.get(..count).unwrap_or_default())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// What a pipe holds, as long as its size was not changed.
const PIPE_BYTES: usize = 64 << 10;
/// `PIPE_BUF` of Linux.
const ATOMIC_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_pipe_that_others_hold_open_ends_when_it_is_to() {
        let end = PipeEnd::new().unwrap();
        let (reader, mut theirs) = io::pipe().unwrap();
        let (full, writer) = io::pipe().unwrap();
        let (mut reader, mut writer) = (Pipe::new(reader, &end), Pipe::new(writer, &end));
        theirs.write_all(b"first").unwrap();
        let mut buf = [0; 9];
        assert_eq!(reader.read(&mut buf).unwrap(), 5);
        theirs.write_all(b"last").unwrap();
        let reads = thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            text
        });
        let writes = thread::spawn(move || {
            let mut count = 0;
            loop {
                match writer.write(&[7; 10_000]) {
                    Ok(written) => count += written,
                    Err(error) => return (count, error.kind()),
                }
            }
        });
        thread::sleep(Duration::from_millis(100));
        assert!(!reads.is_finished() && !writes.is_finished());
        drop(end);
        assert_eq!(reads.join().unwrap(), "last");
        let (count, kind) = writes.join().unwrap();
        assert!(count >= 4096);
        assert_eq!(kind, io::ErrorKind::BrokenPipe);
        drop((theirs, full));
    }

    #[test]
    fn one_that_never_stops_writing_is_not_read_without_end() {
        let end = PipeEnd::new().unwrap();
        let (reader, mut theirs) = io::pipe().unwrap();
        let mut reader = Pipe::new(reader, &end);
        let writes = thread::spawn(move || while theirs.write_all(&[7; 4096]).is_ok() {});
        drop(end);
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        assert!(bytes.len() <= PIPE_BYTES);
        drop(reader);
        writes.join().unwrap();
    }
}
