//! Storage whose holes are read.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::{FileId, HostFile, HostHandle, Privacy, SourceStamp, Storage};
use crate::error::Result;

/// Another storage, with all of it shown as data: what the system calls a hole is read too.
pub(crate) struct Dense(Arc<dyn Storage>);

impl Dense {
    pub(crate) fn new(inner: Arc<dyn Storage>) -> Self {
        Dense(inner)
    }
}

impl Storage for Dense {
    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>> {
        let len = self.0.len()?;
        Ok((offset < len).then_some(offset..len))
    }

    fn host_fd(&self) -> Option<HostHandle<'_>> {
        self.0.host_fd()
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn len(&self) -> Result<u64> {
        self.0.len()
    }

    fn has_fixed_len(&self) -> bool {
        self.0.has_fixed_len()
    }

    fn sector_bytes(&self) -> Option<u64> {
        self.0.sector_bytes()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.0.read_exact_at(buf, offset)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.0.write_all_at(buf, offset)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.0.set_len(len)
    }

    fn sync(&self) -> Result<()> {
        self.0.sync()
    }

    fn punch_hole(&self, range: Range<u64>) -> Result<()> {
        self.0.punch_hole(range)
    }

    fn check_len(&self, len: u64) -> Result<()> {
        self.0.check_len(len)
    }

    fn reserve(&self, range: Range<u64>) -> Result<Vec<Range<u64>>> {
        self.0.reserve(range)
    }

    fn reserve_len(&self, len: u64) -> Result<Vec<Range<u64>>> {
        self.0.reserve_len(len)
    }

    fn give_back(&self, ranges: &[Range<u64>]) -> Result<()> {
        self.0.give_back(ranges)
    }

    fn mapped(&self) -> Option<&[u8]> {
        self.0.mapped()
    }

    fn file_id(&self) -> Result<Option<FileId>> {
        self.0.file_id()
    }

    fn privacy(&self) -> Result<Privacy> {
        self.0.privacy()
    }

    fn stamp(&self) -> Result<Option<SourceStamp>> {
        self.0.stamp()
    }

    fn host_file(&self) -> Result<Option<HostFile>> {
        self.0.host_file()
    }

    fn drop_cache(&self, range: Range<u64>) {
        self.0.drop_cache(range);
    }

    fn will_read(&self, range: Range<u64>) {
        self.0.will_read(range);
    }

    fn look_ahead_bytes(&self) -> u64 {
        self.0.look_ahead_bytes()
    }

    fn reads_from_memory(&self) -> bool {
        self.0.reads_from_memory()
    }
}
