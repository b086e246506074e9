//! A disk at a web server.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::read_ahead::{Fetch, ReadAhead};
use super::resource::Resource;
use crate::error::Result;
use crate::progress::CancelToken;
use crate::storage::SourceIdentity;
use crate::storage::read_only::ReadOnly;

/// Bytes at a web server or in an object store, which are only read: by ranges, several requests at
/// once. Length, `ETag` and `Last-Modified` of every answer are held against the first one's.
///
/// Ranges that are [announced](crate::storage::Storage::will_read) are fetched ahead, in memory of
/// at most 64 MiB.
pub struct HttpStorage {
    path: PathBuf,
    ahead: ReadAhead<Ranges>,
}

opaque!(HttpStorage);

/// Ranges of a resource.
pub(in crate::storage) struct Ranges(pub Arc<Resource>);

impl Fetch for Ranges {
    fn fetch(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.0.read(buf, offset)
    }
}

impl HttpStorage {
    pub(in crate::storage) fn new(resource: Resource, cancel: &CancelToken) -> Self {
        HttpStorage {
            path: PathBuf::from(resource.named().to_string()),
            ahead: ReadAhead::new(Ranges(Arc::new(resource)), cancel.clone()),
        }
    }

    fn resource(&self) -> &Resource {
        &self.ahead.inner().0
    }

    /// Asks the server whether it still has the bytes that were opened.
    ///
    /// # Errors
    /// `SourceChanged`; those of reading.
    pub fn check(&self) -> Result<()> {
        self.resource().confirm()
    }

    /// What tells these bytes from all others, where the server has a strong `ETag` for them.
    pub fn identity(&self) -> Option<SourceIdentity> {
        self.resource().source_identity()
    }

    /// Dangers that are no errors.
    pub fn warnings(&self) -> Vec<String> {
        match self.resource().identity().shows_changes() {
            true => Vec::new(),
            false => vec![format!(
                "{}: the server gives neither ETag nor Last-Modified: a change of the disk that \
                 keeps its length is not noticed",
                self.path.display()
            )],
        }
    }
}

impl ReadOnly for HttpStorage {
    const WHAT: &'static str = "a disk at a web server";

    fn name(&self) -> &Path {
        &self.path
    }

    fn byte_len(&self) -> u64 {
        self.resource().identity().len
    }

    fn read_inside(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.ahead.read(buf, offset)
    }

    fn ahead_bytes(&self) -> u64 {
        LOOK_AHEAD_BYTES
    }

    fn announce(&self, range: Range<u64>) {
        self.ahead.announce(range);
    }
}

/// Less than what is held at once, so that what was fetched is still there when it is read.
const LOOK_AHEAD_BYTES: u64 = 48 << 20;
