//! An image of another length: with zeros behind its end, or without its end.

use std::ops::Range;
use std::sync::Arc;

use super::{Image, ImageInfo, Raw, read_padded_at};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::{HostFile, MemoryStorage};
use crate::units::Extent;

/// An image that is shown longer or shorter than it is.
pub(crate) struct Resized {
    image: Arc<dyn Image>,
    disk_len: u64,
}

impl Resized {
    /// The first `disk_len` bytes of `image`, with zeros behind it where it is shorter.
    pub(crate) fn new(image: Arc<dyn Image>, disk_len: u64) -> Self {
        Resized { image, disk_len }
    }

    /// `image`, with zeros behind it where it is shorter than `len`.
    pub(crate) fn at_least(image: Arc<dyn Image>, len: u64) -> Arc<dyn Image> {
        match image.disk_len() < len {
            true => Arc::new(Resized::new(image, len)),
            false => image,
        }
    }

    /// At most the first `len` bytes of `image`.
    #[cfg(feature = "failback")]
    pub(crate) fn at_most(image: Arc<dyn Image>, len: u64) -> Arc<dyn Image> {
        match image.disk_len() > len {
            true => Arc::new(Resized::new(image, len)),
            false => image,
        }
    }

    /// A disk of `len` zeros.
    ///
    /// # Errors
    /// None that is known.
    pub(crate) fn zeros(len: u64) -> Result<Arc<dyn Image>> {
        let none = Raw::open(Arc::new(MemoryStorage::new("nothing", Vec::new())))?;
        Ok(Self::at_least(Arc::new(none), len))
    }

    fn inside(&self, range: Range<u64>) -> Range<u64> {
        let end = self.image.disk_len().min(self.disk_len);
        range.start.min(end)..range.end.min(end)
    }
}

impl Image for Resized {
    fn disk_len(&self) -> u64 {
        self.disk_len
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let end = offset.checked_add(buf.len() as u64);
        if end.is_none_or(|end| end > self.disk_len) {
            let what = "a read past the end of the disk";
            return Err(Error::new(ErrorKind::Io, what).at_offset(offset));
        }
        read_padded_at(&*self.image, buf, offset)
    }

    fn next_extent(&self, offset: u64) -> Result<Option<Extent>> {
        if offset >= self.disk_len {
            return Ok(None);
        }
        match self.image.next_extent(offset)? {
            Some(mut extent) => {
                extent.len = extent.len.min(self.disk_len - offset);
                Ok(Some(extent))
            }
            None => Ok(Some(Extent::zero(offset..self.disk_len))),
        }
    }

    fn info(&self) -> ImageInfo {
        ImageInfo {
            disk_bytes: self.disk_len,
            ..self.image.info()
        }
    }

    fn files(&self) -> Result<Vec<HostFile>> {
        self.image.files()
    }

    fn drop_cache(&self, range: Range<u64>) {
        self.image.drop_cache(self.inside(range));
    }

    fn will_read(&self, range: Range<u64>) {
        self.image.will_read(self.inside(range));
    }

    fn look_ahead_bytes(&self) -> u64 {
        self.image.look_ahead_bytes()
    }

    fn reads_from_memory(&self) -> bool {
        self.image.reads_from_memory()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Raw;
    use crate::storage::MemoryStorage;

    #[test]
    fn zeros_follow_the_end_and_end_at_the_new_length() {
        let storage = MemoryStorage::new("disk", vec![7; 1001]);
        let image = Resized::new(Arc::new(Raw::open(Arc::new(storage)).unwrap()), 1024);
        let mut buf = [1; 1024];
        image.read_exact_at(&mut buf, 0).unwrap();
        assert!(buf[..1001].iter().all(|byte| *byte == 7));
        assert!(buf[1001..].iter().all(|byte| *byte == 0));
        image.read_exact_at(&mut buf[..24], 1000).unwrap();
        assert!(image.read_exact_at(&mut buf, 1).is_err());
        assert!(image.read_exact_at(&mut buf, u64::MAX).is_err());
        assert_eq!(image.next_extent(0).unwrap(), Some(Extent::data(0..1001)));
        let tail = Extent::zero(1001..1024);
        assert_eq!(image.next_extent(1001).unwrap(), Some(tail));
        assert_eq!(image.next_extent(1024).unwrap(), None);
        assert_eq!(image.info().disk_bytes, 1024);
    }

    #[test]
    fn nothing_is_shown_beyond_an_end_that_comes_early() {
        let storage = MemoryStorage::new("disk", vec![7; 1001]);
        let image = Resized::new(Arc::new(Raw::open(Arc::new(storage)).unwrap()), 600);
        let mut buf = [0; 600];
        image.read_exact_at(&mut buf, 0).unwrap();
        assert!(buf.iter().all(|byte| *byte == 7));
        assert!(image.read_exact_at(&mut buf, 1).is_err());
        assert_eq!(image.next_extent(0).unwrap(), Some(Extent::data(0..600)));
        assert_eq!(image.next_extent(600).unwrap(), None);
        assert_eq!(image.allocated_bytes().unwrap(), 600);
    }
}
