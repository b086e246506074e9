//! Pipes of Windows, which cannot be waited for together with anything else.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Ends all pipes that were made with it when it is dropped. A call that waits for the program then
/// waits until the program has ended, and all that it has given its pipes to.
pub(in crate::remote) struct PipeEnd(Arc<AtomicBool>);

impl PipeEnd {
    pub(in crate::remote) fn new() -> io::Result<Self> {
        Ok(PipeEnd(Arc::default()))
    }
}

impl Drop for PipeEnd {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// One of the streams of a program. After its end no more is read than a pipe holds, and nothing is
/// written.
pub struct Pipe<T> {
    stream: T,
    is_over: Arc<AtomicBool>,
    /// How many bytes are read at most after the end.
    left: usize,
}

opaque!(Pipe<T>);

impl<T> Pipe<T> {
    pub(in crate::remote) fn new(stream: T, end: &PipeEnd) -> Self {
        Pipe {
            stream,
            is_over: end.0.clone(),
            left: PIPE_BYTES,
        }
    }
}

impl<T: Read> Read for Pipe<T> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if !self.is_over.load(Ordering::SeqCst) {
            return self.stream.read(buf);
        }
        let count = buf.len().min(self.left);
        let count = self.stream.read(&mut buf[..count])?;
        self.left -= count;
        Ok(count)
    }
}

impl<T: Write> Write for Pipe<T> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self.is_over.load(Ordering::SeqCst) {
            true => Err(io::ErrorKind::BrokenPipe.into()),
            false => self.stream.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// What is read after the end at most.
const PIPE_BYTES: usize = 64 << 10;
