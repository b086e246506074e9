//! Making a portable delta.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{DeltaWriter, Frame, Header, JobId, Old, Purpose, Trailer};
use crate::control::{Phase, Work};
use crate::diff::{CompareOptions, Content, Known, ManifestDifference, against, compare};
use crate::error::Result;
use crate::image::Image;
use crate::manifest::{Manifest, ManifestWriter, RangeSet, root_of};
use crate::storage::Storage;
use crate::units::BlockSize;

/// What a delta leads away from.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub enum Base<'a> {
    /// An image that can be read: differences are told to 4 KiB.
    Image(&'a dyn Image),
    /// Only its manifest: differences are whole blocks of the manifest.
    Manifest(&'a Manifest),
}

/// How a portable delta is made.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DeltaOptions {
    /// Blocks of the two roots; with a manifest as base, that manifest's.
    pub block_size: BlockSize,
    /// The zstd level for payloads that shrink by it; `None` stores all as it is.
    pub level: Option<i32>,
}

impl DeltaOptions {
    /// Replaces [`DeltaOptions::block_size`].
    #[must_use]
    pub fn with_block_size(mut self, block_size: BlockSize) -> Self {
        self.block_size = block_size;
        self
    }

    /// Replaces [`DeltaOptions::level`].
    #[must_use]
    pub fn with_level(mut self, level: Option<i32>) -> Self {
        self.level = level;
        self
    }
}

impl Default for DeltaOptions {
    fn default() -> Self {
        DeltaOptions {
            block_size: BlockSize::default(),
            level: Some(3),
        }
    }
}

/// Writes the delta that leads from `base` to `source` into empty storage, with the roots of
/// both. Durable when it returns, but for the file's name.
///
/// # Errors
/// `AlreadyExists` for storage that is not empty; `Unreadable`, `Malformed`, `Io`, `NoSpace`,
/// `Cancelled`.
pub fn create(
    base: Base<'_>,
    source: &dyn Image,
    storage: Arc<dyn Storage>,
    options: &DeltaOptions,
    work: &Work,
) -> Result<Trailer> {
    let (base_len, block_size) = match base {
        Base::Image(image) => (image.disk_len(), options.block_size),
        Base::Manifest(manifest) => (manifest.disk_len(), manifest.block_size()),
    };
    let header = Header {
        purpose: Purpose::Portable,
        job: JobId::random()?,
        base_len,
        result_len: source.disk_len(),
        block_size,
    };
    let frames = Frames {
        writer: Mutex::new(DeltaWriter::create(storage, header)?),
        level: options.level,
    };
    let (base_root, result_root) = match base {
        Base::Image(image) => {
            work.progress().begin(Phase::Hash, None);
            let roots = (
                root_of(image, block_size, work)?,
                root_of(source, block_size, work)?,
            );
            if roots.0 != roots.1 {
                compare(
                    source,
                    image,
                    &CompareOptions::default(),
                    work,
                    &|difference| {
                        let old = match difference.old {
                            Content::Bytes(bytes) => Old::Hash(blake3::hash(bytes).into()),
                            Content::Zeros(_) => Old::Zeros,
                        };
                        frames.push(difference.offset, difference.new, old)
                    },
                )?;
            }
            roots
        }
        Base::Manifest(manifest) => {
            work.progress().begin(Phase::Hash, Some(source.disk_len()));
            let pass = Against {
                base: Known::new(manifest),
                frames: &frames,
                disk_len: source.disk_len(),
            };
            let mut sink = ManifestWriter::root_only(source.disk_len(), block_size);
            let marked = RangeSet::default();
            against(source, manifest, marked, work, &mut sink, &|difference| {
                pass.push(&difference)
            })?;
            (manifest.root(), sink.finish()?)
        }
    };
    let writer = frames
        .writer
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    writer.finish(Some(*base_root.as_bytes()), Some(*result_root.as_bytes()))
}

/// The file being written; frames are made outside its lock.
struct Frames {
    writer: Mutex<DeltaWriter>,
    level: Option<i32>,
}

impl Frames {
    fn push(&self, offset: u64, new: Content<'_>, old: Old) -> Result<()> {
        let frame = match new {
            Content::Bytes(bytes) => Frame::data(offset, bytes, old, self.level),
            Content::Zeros(len) => Frame::zero(offset, len, old),
        };
        self.lock().push(&frame)
    }

    fn lock(&self) -> MutexGuard<'_, DeltaWriter> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes frames of what differs from a manifest: one for each block, whose old hash is known.
struct Against<'a> {
    base: Known<'a>,
    frames: &'a Frames,
    disk_len: u64,
}

impl Against<'_> {
    fn push(&self, difference: &ManifestDifference<'_>) -> Result<()> {
        let size = self.base.manifest().block_size();
        let end = difference.offset + difference.new.len();
        for block in difference.offset / size.bytes()..size.count(end) {
            let range = size.range(block, self.disk_len);
            let new = match difference.new {
                Content::Bytes(bytes) => {
                    // Inside the difference, which is in memory.
                    let start = (range.start - difference.offset) as usize;
                    let end = (range.end - difference.offset) as usize;
                    Content::Bytes(bytes.get(start..end).unwrap_or_default())
                }
                Content::Zeros(_) => Content::Zeros(range.end - range.start),
            };
            self.frames.push(range.start, new, self.old(block)?)?;
        }
        Ok(())
    }

    /// The bytes of a block on the longer of the two disks count, so a block that is short on
    /// one side only has old bytes that no hash tells.
    fn old(&self, block: u64) -> Result<Old> {
        let manifest = self.base.manifest();
        let here = manifest.block_size().range(block, self.disk_len);
        let there = manifest.block_size().range(block, manifest.disk_len());
        Ok(match self.base.hash(block)? {
            None => Old::Zeros,
            Some(hash) if here == there => Old::Hash(hash.into()),
            Some(_) => Old::Unknown,
        })
    }
}
