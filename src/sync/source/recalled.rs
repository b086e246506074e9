//! A distant source of which nothing is read twice.

use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};

use super::fetch_log::FetchLog;
use crate::error::Result;
use crate::image::{Image, ImageInfo};
use crate::manifest::RangeSet;
use crate::progress::Work;
use crate::storage::{HostFile, Storage};
use crate::units::Extent;

/// An image that is read from where its bytes are near: what was read of it, in this run or an
/// earlier one, is read from a disk of this host that holds it by now.
pub(in crate::sync) struct Recalled {
    image: Arc<dyn Image>,
    log: FetchLog,
    near: RwLock<Option<Near>>,
}

/// A disk that holds these ranges of the source.
#[derive(Clone)]
struct Near {
    disk: Arc<dyn Image>,
    ranges: Arc<RangeSet>,
}

impl Recalled {
    /// Nothing is near yet.
    pub(crate) fn new(image: Arc<dyn Image>, log: FetchLog) -> Self {
        Recalled {
            image,
            log,
            near: RwLock::default(),
        }
    }

    /// Finds out what `disk`, which must not change but to hold more of the source, holds of what
    /// was read; that is read there from now on. Returns how many bytes that is.
    ///
    /// # Errors
    /// `Io`, `Malformed`, `Cancelled`.
    pub(crate) fn recall(&self, disk: Arc<dyn Image>, work: &Work) -> Result<u64> {
        let ranges = Arc::new(self.log.held_by(&*disk, work)?);
        let bytes = ranges.as_slice().iter().map(|it| it.end - it.start).sum();
        self.set(Some(Near { disk, ranges }));
        Ok(bytes)
    }

    /// Which ranges of what was read `disk` holds, by the hashes. From now on all is read from
    /// afar: what `disk` is checked with must not come from itself.
    ///
    /// # Errors
    /// `Io`, `Malformed`, `Cancelled`.
    pub(crate) fn held_by(&self, disk: &dyn Image, work: &Work) -> Result<RangeSet> {
        self.set(None);
        self.log.held_by(disk, work)
    }

    fn set(&self, near: Option<Near>) {
        *self.near.write().unwrap_or_else(PoisonError::into_inner) = near;
    }

    fn near(&self) -> Option<Near> {
        self.near
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Reads a range that is not near.
    fn fetch(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        if buf.is_empty() {
            return Ok(());
        }
        self.image.read_exact_at(buf, offset)?;
        self.log.note(offset, buf);
        Ok(())
    }
}

impl Image for Recalled {
    fn disk_len(&self) -> u64 {
        self.image.disk_len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let Some(near) = self.near() else {
            return self.fetch(buf, offset);
        };
        let end = offset.saturating_add(buf.len() as u64);
        let (mut at, mut rest) = (offset, buf);
        for part in near.ranges.inside(offset..end) {
            let (gap, tail) = rest.split_at_mut(index(part.start - at));
            let (held, tail) = tail.split_at_mut(index(part.end - part.start));
            self.fetch(gap, at)?;
            crate::image::read_padded_at(&*near.disk, held, part.start)?;
            (at, rest) = (part.end, tail);
        }
        self.fetch(rest, at)
    }

    fn next_extent(&self, offset: u64) -> Result<Option<Extent>> {
        self.image.next_extent(offset)
    }

    fn info(&self) -> ImageInfo {
        self.image.info()
    }

    fn files(&self) -> Result<Vec<HostFile>> {
        self.image.files()
    }

    fn flat_storage(&self) -> Option<&dyn Storage> {
        self.image.flat_storage()
    }

    fn drop_cache(&self, range: Range<u64>) {
        self.image.drop_cache(range);
    }

    fn will_read(&self, range: Range<u64>) {
        let Some(near) = self.near() else {
            return self.image.will_read(range);
        };
        let mut at = range.start;
        for part in near.ranges.inside(range.clone()) {
            if at < part.start {
                self.image.will_read(at..part.start);
            }
            at = part.end;
        }
        if at < range.end {
            self.image.will_read(at..range.end);
        }
    }

    fn look_ahead_bytes(&self) -> u64 {
        self.image.look_ahead_bytes()
    }

    fn reads_from_memory(&self) -> bool {
        self.image.reads_from_memory()
    }
}

/// Offsets inside a buffer.
fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}
