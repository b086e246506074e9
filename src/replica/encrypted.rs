//! Age files as storage: written once from front to end, read anywhere.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::key::{Key, StreamReader, StreamWriter};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::{Storage, past_end, range_end};

/// What is written goes encrypted into empty storage. It takes bytes in their order only, and is
/// whole, durable and closed with its first `sync`.
pub(super) struct EncryptedFileWriter {
    path: PathBuf,
    file: Arc<dyn Storage>,
    state: Mutex<State>,
}

struct State {
    stream: Option<StreamWriter<Cursor>>,
    len: u64,
}

impl EncryptedFileWriter {
    /// Begins to write into `file`.
    pub(super) fn into(file: Arc<dyn Storage>, key: &Key) -> Result<Self> {
        let path = file.path().to_owned();
        let stream = key.seal(Cursor::at_start(file.clone()), &path)?;
        let state = State {
            stream: Some(stream),
            len: 0,
        };
        Ok(EncryptedFileWriter {
            path,
            file,
            state: Mutex::new(state),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unable(&self, what: &'static str) -> Error {
        Error::new(ErrorKind::Unsupported, what).at_path(&self.path)
    }
}

impl Storage for EncryptedFileWriter {
    fn path(&self) -> &Path {
        &self.path
    }

    fn len(&self) -> Result<u64> {
        Ok(self.state().len)
    }

    fn read_exact_at(&self, _buf: &mut [u8], _offset: u64) -> Result<()> {
        Err(self.unable("what is being encrypted cannot be read"))
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let mut state = self.state();
        let len = state.len;
        match &mut state.stream {
            _ if buf.is_empty() => return Ok(()),
            Some(stream) if offset == len => stream
                .write_all(buf)
                .map_err(|e| failed("write", e, &self.path))?,
            _ => return Err(self.unable("what is being encrypted can only be added to")),
        }
        state.len = range_end(&self.path, offset, buf.len())?;
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        match self.state().len == len {
            true => Ok(()),
            false => Err(self.unable("what is being encrypted can only be added to")),
        }
    }

    fn sync(&self) -> Result<()> {
        if let Some(stream) = self.state().stream.take() {
            stream
                .finish()
                .map_err(|e| failed("write", e, &self.path))?;
        }
        self.file.sync()
    }

    fn punch_hole(&self, _range: Range<u64>) -> Result<()> {
        Err(self.unable("what is being encrypted can only be added to"))
    }

    fn next_data(&self, _offset: u64) -> Result<Option<Range<u64>>> {
        Err(self.unable("what is being encrypted cannot be read"))
    }
}

/// An age file's contents, which only change where it is broken: each stretch of 64 KiB is
/// authenticated as it is read.
pub(super) struct EncryptedFile {
    path: PathBuf,
    len: u64,
    stream: Mutex<StreamReader<Cursor>>,
}

impl EncryptedFile {
    /// Opens the age file in `file`; its end is authenticated at once.
    ///
    /// # Errors
    /// `InvalidInput` where it was encrypted for another key; `Malformed`, `Io`.
    pub(super) fn open(file: Arc<dyn Storage>, key: &Key) -> Result<Self> {
        let path = file.path().to_owned();
        let mut stream = key.open(Cursor::at_start(file), &path)?;
        let len = stream
            .seek(SeekFrom::End(0))
            .map_err(|e| failed("read", e, &path))?;
        Ok(EncryptedFile {
            path,
            len,
            stream: Mutex::new(stream),
        })
    }

    fn closed(&self) -> Error {
        Error::new(ErrorKind::Unsupported, "an encrypted file is never changed").at_path(&self.path)
    }
}

impl Storage for EncryptedFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn len(&self) -> Result<u64> {
        Ok(self.len)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let end = range_end(&self.path, offset, buf.len())?;
        if end > self.len && !buf.is_empty() {
            return Err(past_end(&self.path, end, self.len));
        }
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        stream
            .seek(SeekFrom::Start(offset))
            .and_then(|_| stream.read_exact(buf))
            .map_err(|e| failed("read", e, &self.path).at_offset(offset))
    }

    fn write_all_at(&self, buf: &[u8], _offset: u64) -> Result<()> {
        match buf.is_empty() {
            true => Ok(()),
            false => Err(self.closed()),
        }
    }

    fn set_len(&self, _len: u64) -> Result<()> {
        Err(self.closed())
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn punch_hole(&self, _range: Range<u64>) -> Result<()> {
        Err(self.closed())
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>> {
        Ok((offset < self.len).then_some(offset..self.len))
    }
}

/// Storage as the stream that age wants.
struct Cursor {
    storage: Arc<dyn Storage>,
    at: u64,
}

impl Cursor {
    fn at_start(storage: Arc<dyn Storage>) -> Self {
        Cursor { storage, at: 0 }
    }
}

impl Read for Cursor {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = self.storage.len().map_err(io::Error::other)?;
        let left = usize::try_from(left.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let len = buf.len().min(left);
        self.storage
            .read_exact_at(&mut buf[..len], self.at)
            .map_err(io::Error::other)?;
        self.at += len as u64;
        Ok(len)
    }
}

impl Write for Cursor {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.storage
            .write_all_at(buf, self.at)
            .map_err(io::Error::other)?;
        self.at += buf.len() as u64;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Cursor {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self
                .storage
                .len()
                .map_err(io::Error::other)?
                .checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

/// What went wrong below comes through as it was said there; the rest is age's word that the file
/// is not what was encrypted.
fn failed(operation: &'static str, cause: io::Error, path: &Path) -> Error {
    match cause.downcast::<Error>() {
        Ok(error) => error,
        Err(cause) if operation == "write" => Error::io(operation, cause).at_path(path),
        Err(cause) => Error::new(ErrorKind::Malformed, "a damaged age file")
            .at_path(path)
            .caused_by(cause),
    }
}
