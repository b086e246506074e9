//! A source that is not read here: it lies elsewhere, and something between finds what differs.

use std::ops::Range;
use std::sync::Arc;

use super::source::Source;
use crate::diff::{CompareOptions, CompareReport, Difference};
use crate::error::{Error, ErrorKind, Result};
use crate::hash::Hash;
use crate::image::{Image, ImageInfo};
use crate::manifest::{KeptManifest, ManifestWriter};
use crate::progress::Work;
use crate::units::Extent;

/// A source whose differences from a target come from elsewhere.
///
/// Lengths are those that the sync wants: the source's own, or more, with zeros behind its end.
pub trait SourceBackend: Send + Sync {
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

    /// As [`compare`](SourceBackend::compare), to find what moves: manifests may stand for reading
    /// either disk. Also returns the root of what the search's writer took.
    ///
    /// # Errors
    /// Those of [`compare`](SourceBackend::compare) and of the writer.
    fn find(
        &self,
        search: Search<'_>,
        work: &Work,
        visit: &(dyn Fn(Difference<'_>) -> Result<()> + Sync),
    ) -> Result<(CompareReport, Option<Hash>)>;

    /// Hands out all of the first `disk_len` bytes, zeros too; nothing is compared, and what was
    /// there is not known, whatever a difference says of it. Also returns the root of the source in
    /// blocks of [`REMOTE_BLOCK_BYTES`], which what was handed out is known to have.
    ///
    /// # Errors
    /// Those of [`compare`](SourceBackend::compare).
    fn everything(
        &self,
        disk_len: u64,
        work: &Work,
        visit: &(dyn Fn(Difference<'_>) -> Result<()> + Sync),
    ) -> Result<(CompareReport, Hash)>;

    /// Whether a manifest has stood for reading the source.
    fn believes_manifests(&self) -> bool;

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

/// How what differs is to be found.
pub struct Search<'a> {
    /// The disk that the source is compared with.
    pub target: &'a dyn Image,
    /// The length that the source is seen with.
    pub disk_len: u64,
    /// Where to look.
    pub options: &'a CompareOptions,
    /// What stands for reading the target, except where it is marked.
    pub kept: Option<&'a KeptManifest>,
    /// Takes the manifest of what the target will hold, in blocks of [`REMOTE_BLOCK_BYTES`].
    pub next: Option<ManifestWriter>,
    /// Whether the bytes of what differs are not wanted: nothing is handed out then, and what is
    /// counted rests on hashes that may be short.
    pub counts_only: bool,
    /// Whether all of both disks is read, whatever manifests stand for them.
    pub reads_all: bool,
}

/// Bytes a block of the only manifests that can stand in for a disk on another host.
pub const REMOTE_BLOCK_BYTES: u64 = 64 << 10;

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
    pub fn remote(remote: Arc<dyn SourceBackend>) -> Self {
        let image = Arc::new(Unread(remote.info()));
        let check = remote.clone();
        let mut source = Source::new(image).with_check(Arc::new(move || check.check()));
        source.remote = Some(remote);
        source
    }
}

/// What is known of a remote source without asking; nothing reads it.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Raw;
    use crate::storage::MemoryStorage;

    #[test]
    fn what_lies_elsewhere_counts_as_data_and_cannot_be_read_here() {
        let storage = Arc::new(MemoryStorage::new("remote", vec![0; 9000]));
        let unread = Unread(Raw::open(storage).unwrap().info());
        let error = unread.read_exact_at(&mut [0; 10], 100).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        for (offset, extent) in [
            (0, Some(Extent::data(0..9000))),
            (8999, Some(Extent::data(8999..9000))),
            (9000, None),
            (9001, None),
        ] {
            assert_eq!(unread.next_extent(offset).unwrap(), extent);
        }
    }
}
