//! What a sync asks of its source, wherever that is.

use std::ops::Range;
use std::sync::Arc;

use crate::diff::{CompareOptions, CompareReport, Difference};
use crate::error::{Error, Result};
use crate::hash::Hash;
use crate::image::{Image, ImageInfo};
use crate::manifest::{Manifest, ManifestWriter, TargetManifest};
use crate::progress::Work;
use crate::sync::report::Traffic;
use crate::units::BlockSize;

/// Takes a difference.
pub(crate) type Visit<'a> = dyn Fn(Difference<'_>) -> Result<()> + Sync + 'a;

/// A disk that a sync reads: on this host, or at the other end of a connection.
///
/// Lengths are those that the sync wants: the disk's own, or more, with zeros behind its end.
pub trait SourceBackend: Send + Sync {
    /// What the image is.
    fn info(&self) -> ImageInfo;

    /// As [`compare`](crate::diff::compare) of the first `disk_len` bytes with `target`; returns
    /// once the differences, applied to the target, are known to make up the source.
    ///
    /// # Errors
    /// Those of [`compare`](crate::diff::compare); `VerifyFailed` where they do not.
    fn compare(
        &self,
        target: &dyn Image,
        disk_len: u64,
        options: &CompareOptions,
        work: &Work,
        visit: &Visit<'_>,
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
        visit: &Visit<'_>,
    ) -> Result<(CompareReport, Option<Hash>)>;

    /// Emits all of the first `disk_len` bytes, zeros too; nothing is compared, and what was
    /// there is not known, whatever a difference says of it. Also returns the root of the source,
    /// which what was emitted is known to have, in blocks of [`SourceBackend::block_size`], or
    /// else of `block_size`.
    ///
    /// # Errors
    /// Those of [`compare`](SourceBackend::compare).
    fn everything(
        &self,
        disk_len: u64,
        block_size: BlockSize,
        work: &Work,
        visit: &Visit<'_>,
    ) -> Result<(CompareReport, Hash)>;

    /// The root of all of the first `disk_len` bytes, which are read whatever manifests there are.
    ///
    /// # Errors
    /// `Unsupported` for blocks of another size than [`SourceBackend::block_size`]; `Unreadable`,
    /// `SourceChanged`, `Malformed`, `Io`, `Cancelled`.
    fn root(&self, disk_len: u64, block_size: BlockSize, work: &Work) -> Result<Hash>;

    /// For each claim whether it is true of the source; a no may also be a wrong one.
    ///
    /// # Errors
    /// `Io`, `Unreadable`, `Cancelled`.
    fn confirm(&self, disk_len: u64, claims: &[Claim], work: &Work) -> Result<Vec<bool>>;

    /// Whether the source is what it was when it was opened.
    ///
    /// # Errors
    /// `SourceChanged`, `Io`.
    fn check(&self) -> Result<()>;

    /// The image, where it can be read directly.
    fn image(&self) -> Option<&Arc<dyn Image>> {
        None
    }

    /// The only size of blocks of which it knows hashes; `None` for any.
    fn block_size(&self) -> Option<BlockSize> {
        None
    }

    /// Whether a change of the source is already the error of what failed because of it, and
    /// [`check`](SourceBackend::check) answers nothing more then.
    fn reports_changes(&self) -> bool {
        self.image().is_none()
    }

    /// Whether a manifest has stood for reading the source.
    fn trusts_manifests(&self) -> bool {
        false
    }

    /// Whether a sync that has just failed is worth another attempt, which compares with more care.
    fn compares_with_more_care(&self, _work: &Work) -> bool {
        false
    }

    /// Ends the work with the source: all is done. Returns what went over the connection, where
    /// there is one.
    ///
    /// # Errors
    /// Those of the connection.
    fn finish(&self) -> Result<Option<Traffic>> {
        Ok(None)
    }

    /// Ends the work with the source, which has failed. Returns the error, with what is known of
    /// its cause.
    fn fail(&self, error: Error) -> Error {
        error
    }
}

/// How what differs is to be found.
pub struct Search<'a> {
    /// The disk that the source is compared with.
    pub target: &'a dyn Image,
    /// The length that the source is seen with.
    pub disk_len: u64,
    /// Where to look.
    pub options: &'a CompareOptions,
    /// What stands for reading the target, except where it has intents.
    pub kept: Option<&'a TargetManifest>,
    /// What stands for reading the source, where the source itself has nothing that does.
    pub manifest: Option<&'a Manifest>,
    /// The manifest that was published with the source: only what differs by it is read, and each
    /// block must be as it states.
    pub published: Option<&'a Manifest>,
    /// Takes the manifest of what the target will hold.
    pub next: Option<ManifestWriter>,
    /// Whether the bytes of what differs are not wanted: nothing is emitted then, and what is
    /// counted rests on hashes that may be short.
    pub counts_only: bool,
    /// Whether all of both disks is read, and the manifests are checked.
    pub reads_all: bool,
    /// Whether the target stays as it is until all has been found.
    pub is_logged: bool,
}

opaque!(Search<'_>);

impl<'a> Search<'a> {
    /// A search of all of the first `disk_len` bytes, with no manifests.
    pub fn new(target: &'a dyn Image, disk_len: u64, options: &'a CompareOptions) -> Self {
        Search {
            target,
            disk_len,
            options,
            kept: None,
            manifest: None,
            published: None,
            next: None,
            counts_only: false,
            reads_all: false,
            is_logged: false,
        }
    }
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
