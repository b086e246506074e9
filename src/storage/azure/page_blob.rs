//! One page blob.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use super::lists::{List, Lister};
use super::version::agree;
use crate::error::{Error, ErrorKind, Result};
use crate::progress::CancelToken;
use crate::storage::http::{Ranges, ReadAhead, Resource};
use crate::storage::read_only::ReadOnly;

/// A page blob, which is only read. Every range is checked against the service's checksum, and
/// what was never written is known from the list of its page ranges.
pub struct PageBlob {
    path: PathBuf,
    ahead: ReadAhead<Ranges>,
    is_paged: bool,
    /// `None` where the service cannot list them.
    allocated: OnceLock<Option<Vec<Range<u64>>>>,
}

opaque!(PageBlob);

impl PageBlob {
    /// Finds out what the service understands.
    ///
    /// # Errors
    /// `Unsupported` where it takes no version that is known here; those of reading.
    pub(in crate::storage) fn new(mut blob: Resource, cancel: &CancelToken) -> Result<Self> {
        let version = agree(&mut blob)?;
        Ok(PageBlob {
            path: PathBuf::from(blob.named().to_string()),
            is_paged: version.is_paged,
            ahead: ReadAhead::new(Ranges(Arc::new(blob)), cancel.clone()),
            allocated: OnceLock::new(),
        })
    }

    pub(in crate::storage) fn blob(&self) -> &Resource {
        &self.ahead.inner().0
    }

    pub(super) fn lister(&self) -> Lister<'_> {
        Lister {
            blob: self.blob(),
            is_paged: self.is_paged,
        }
    }

    /// Asks the service whether the blob is still the one that was opened.
    ///
    /// # Errors
    /// `SourceChanged`; those of reading.
    pub fn check(&self) -> Result<()> {
        self.blob().confirm()
    }
}

impl ReadOnly for PageBlob {
    const WHAT: &'static str = "a page blob that is a source";

    fn name(&self) -> &Path {
        &self.path
    }

    fn byte_len(&self) -> u64 {
        self.blob().identity().len
    }

    fn read_inside(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.ahead.read(buf, offset)
    }

    /// Page ranges; all is data where the service cannot list them.
    fn data_from(&self, offset: u64) -> Result<Option<Range<u64>>> {
        if self.allocated.get().is_none() {
            let listed = match self.lister().list(&List::Allocated) {
                Ok(listed) => Some(listed),
                Err(error) if is_of_blob(&error) => return Err(error),
                Err(_) => None,
            };
            let _ = self.allocated.set(listed);
        }
        let Some(Some(allocated)) = self.allocated.get() else {
            return Ok(Some(offset..self.byte_len()));
        };
        let next = allocated.partition_point(|range| range.end <= offset);
        let next = allocated.get(next);
        Ok(next.map(|range| range.start.max(offset)..range.end))
    }

    fn ahead_bytes(&self) -> u64 {
        LOOK_AHEAD_BYTES
    }

    fn announce(&self, range: Range<u64>) {
        self.ahead.announce(range);
    }
}

/// Whether it is an error of the blob or of the work, and not of one list.
pub(super) fn is_of_blob(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Cancelled | ErrorKind::SourceChanged
    )
}

const LOOK_AHEAD_BYTES: u64 = 48 << 20;
