//! A source that is not read here: it lies elsewhere, and something between finds what differs.

use std::ops::Range;
use std::sync::Arc;

use super::run::Source;
use crate::control::Work;
use crate::delta::Hash;
use crate::diff::{CompareOptions, CompareReport, Difference};
use crate::error::{Error, ErrorKind, Result};
use crate::image::{Image, ImageInfo};
use crate::units::Extent;

/// A source whose differences from a target come from elsewhere.
///
/// Lengths are those that the sync wants: the source's own, or more, with zeros behind its end.
pub trait FarSource: Send + Sync {
    /// What the image is.
    fn info(&self) -> ImageInfo;

    /// As [`compare`](crate::diff::compare) of the first `disk_len` bytes with `target`; returns
    /// once what was handed out, laid over the target, is known to make up the source.
    ///
    /// # Errors
    /// Those of [`compare`](crate::diff::compare); `VerifyFailed` where it does not make it up.
    fn compare(
        &self,
        target: &dyn Image,
        disk_len: u64,
        options: &CompareOptions,
        work: &Work,
        visit: &(dyn Fn(Difference<'_>) -> Result<()> + Sync),
    ) -> Result<CompareReport>;

    /// Says for each claim whether it is true of the source; a no may also be a wrong one.
    ///
    /// # Errors
    /// `Io`, `Unreadable`, `Cancelled`.
    fn confirm(&self, disk_len: u64, claims: &[Claim], work: &Work) -> Result<Vec<bool>>;

    /// Whether the source is what it was when it was opened.
    ///
    /// # Errors
    /// `SourceChanged`, `Io`.
    fn check(&self) -> Result<()>;
}

/// That these guest bytes have this BLAKE3.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Claim {
    /// The bytes; not empty.
    pub range: Range<u64>,
    /// Their hash.
    pub hash: Hash,
}

impl Source {
    /// A source that is not read here.
    pub fn far(far: Arc<dyn FarSource>) -> Self {
        let image = Arc::new(Unread(far.info()));
        let check = far.clone();
        let mut source = Source::new(image).with_check(Arc::new(move || check.check()));
        source.far = Some(far);
        source
    }
}

/// What is known of a far source without asking; nothing reads it.
struct Unread(ImageInfo);

impl Image for Unread {
    fn disk_len(&self) -> u64 {
        self.0.disk_bytes
    }

    fn read_exact_at(&self, _buf: &mut [u8], offset: u64) -> Result<()> {
        let what = "a source on another host cannot be read here";
        Err(Error::new(ErrorKind::Unsupported, what).at_offset(offset))
    }

    fn next_extent(&self, offset: u64) -> Result<Option<Extent>> {
        let end = self.disk_len();
        Ok((offset < end).then(|| Extent::data(offset..end)))
    }

    fn info(&self) -> ImageInfo {
        self.0.clone()
    }
}
