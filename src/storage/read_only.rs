//! Byte stores that are only read.

use std::ops::Range;
use std::path::Path;

use super::{Storage, past_end, range_end};
use crate::error::{Error, ErrorKind, Result};

/// The reading half of a flat byte store whose length is known; it is a [`Storage`] that refuses
/// writes.
pub(crate) trait ReadOnly: Send + Sync {
    /// What it is, for the error of a write.
    const WHAT: &'static str;

    /// See [`Storage::path`].
    fn name(&self) -> &Path;

    /// Length in bytes.
    fn byte_len(&self) -> u64;

    /// Fills `buf`, which is not empty, from byte `offset` on; the range is inside the store.
    ///
    /// # Errors
    /// As [`Storage::read_exact_at`].
    fn read_inside(&self, buf: &mut [u8], offset: u64) -> Result<()>;

    /// As [`Storage::next_data`], for an `offset` inside the store.
    ///
    /// # Errors
    /// As [`Storage::next_data`].
    fn data_from(&self, offset: u64) -> Result<Option<Range<u64>>> {
        Ok(Some(offset..self.byte_len()))
    }

    /// See [`Storage::mapped`].
    fn memory(&self) -> Option<&[u8]> {
        None
    }

    /// See [`Storage::look_ahead_bytes`].
    fn ahead_bytes(&self) -> u64 {
        0
    }

    /// See [`Storage::will_read`]; the range ends inside the store.
    fn announce(&self, _range: Range<u64>) {}
}

fn refuse<R: ReadOnly>(store: &R) -> Error {
    let what = format!("{} is only read", R::WHAT);
    Error::new(ErrorKind::Unsupported, what).at_path(store.name())
}

impl<R: ReadOnly> Storage for R {
    fn path(&self) -> &Path {
        self.name()
    }

    fn len(&self) -> Result<u64> {
        Ok(self.byte_len())
    }

    fn has_fixed_len(&self) -> bool {
        true
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let end = range_end(self.name(), offset, buf.len())?;
        match (end <= self.byte_len(), buf.is_empty()) {
            (_, true) => Ok(()),
            (true, false) => self.read_inside(buf, offset),
            (false, false) => Err(past_end(self.name(), end, self.byte_len())),
        }
    }

    fn write_all_at(&self, _buf: &[u8], _offset: u64) -> Result<()> {
        Err(refuse(self))
    }

    fn set_len(&self, _len: u64) -> Result<()> {
        Err(refuse(self))
    }

    fn sync(&self) -> Result<()> {
        Err(refuse(self))
    }

    fn punch_hole(&self, _range: Range<u64>) -> Result<()> {
        Err(refuse(self))
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>> {
        match offset < self.byte_len() {
            true => self.data_from(offset),
            false => Ok(None),
        }
    }

    fn mapped(&self) -> Option<&[u8]> {
        self.memory()
    }

    fn look_ahead_bytes(&self) -> u64 {
        self.ahead_bytes()
    }

    fn will_read(&self, range: Range<u64>) {
        self.announce(range.start..range.end.min(self.byte_len()));
    }
}
