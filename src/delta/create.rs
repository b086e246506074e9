//! Making a portable delta.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{DeltaWriter, Frame, Header, JobId, Old, Purpose, Trailer};
use crate::diff::{CompareOptions, Content, Known, ManifestDifference, against, compare};
use crate::error::{Error, ErrorKind, Result};
use crate::hash::Hash;
use crate::image::Image;
use crate::manifest::{Manifest, ManifestUpdater, ManifestWriter, RangeSet, reopen, root_of};
use crate::progress::{Phase, Work};
use crate::setters::setters;
use crate::storage::Storage;
use crate::units::{BlockSize, check_change_map};

/// What a delta leads away from.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub enum Base<'a> {
    /// An image that can be read: differences are told to 4 KiB.
    Image(&'a dyn Image),
    /// Only its manifest: differences are whole blocks of the manifest.
    Manifest(&'a Manifest),
}

opaque!(Base<'_>);

/// How a portable delta is made.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DeltaOptions {
    /// Blocks of the two roots; with a manifest as base, that manifest's.
    pub block_size: BlockSize,
    /// The zstd level for payloads that shrink by it; `None` stores all as it is.
    pub level: Option<i32>,
}

setters! {
    DeltaOptions:
    /// Replaces [`DeltaOptions::block_size`].
    with_block_size, block_size: BlockSize;
    /// Replaces [`DeltaOptions::level`].
    with_level, level: Option<i32>;
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
    let (base, block_size) = match base {
        Base::Image(image) => (image, options.block_size),
        Base::Manifest(manifest) => {
            let sink = ManifestWriter::root_only(source.disk_len(), manifest.block_size());
            return onward(manifest, source, None, storage, sink, options, work);
        }
    };
    let frames = Frames::create(storage, base.disk_len(), source, block_size, options)?;
    work.progress().begin(Phase::Hash, None);
    let roots = (
        root_of(base, block_size, work)?,
        root_of(source, block_size, work)?,
    );
    if roots.0 != roots.1 {
        let options = CompareOptions::default();
        compare(source, base, &options, work, &|difference| {
            let old = match difference.old {
                Content::Bytes(bytes) => Old::Hash(Hash::of(bytes)),
                Content::Zeros(_) => Old::Zeros,
            };
            frames.push(difference.offset, difference.new, old)
        })?;
    }
    frames.finish(roots.0, roots.1)
}

/// As [`create`]; of a base that is a manifest only where `changed` says that bytes can differ, and
/// the delta and its roots are as true as that is.
///
/// # Errors
/// As [`create`]; `InvalidInput` for a range in `changed` that ends before it begins, or behind the
/// end of `source`, and for an image as base: the roots need all of both.
pub fn create_within(
    base: Base<'_>,
    source: &dyn Image,
    changed: Option<Vec<Range<u64>>>,
    storage: Arc<dyn Storage>,
    options: &DeltaOptions,
    work: &Work,
) -> Result<Trailer> {
    match (base, changed) {
        (base, None) => create(base, source, storage, options, work),
        (Base::Manifest(manifest), changed) => {
            let sink = ManifestWriter::root_only(source.disk_len(), manifest.block_size());
            onward(manifest, source, changed, storage, sink, options, work)
        }
        (Base::Image(_), Some(_)) => {
            let what = "a change map is of no use where the base is an image, which is read whole";
            Err(Error::new(ErrorKind::InvalidInput, what).advise("name a manifest of the base"))
        }
    }
}

/// One link of a chain of deltas: writes the delta that leads from the disk that `base` describes
/// to `source`, and into `next` the manifest that the following link starts from, from one pass.
///
/// `changed` says which byte ranges can differ, where that is known; only they are read, and the
/// delta and its roots are as true as it is. The delta is durable when it returns, but for its
/// name; `next` is not.
///
/// # Errors
/// As [`create`]; `InvalidInput` for a range in `changed` that ends before it begins, or behind the
/// end of `source`.
pub fn create_link(
    base: &Manifest,
    source: &dyn Image,
    changed: Option<Vec<Range<u64>>>,
    storage: Arc<dyn Storage>,
    next: Arc<dyn Storage>,
    options: &DeltaOptions,
    work: &Work,
) -> Result<(Trailer, Manifest)> {
    let sink = ManifestWriter::create(next.clone(), source.disk_len(), base.block_size())?;
    let trailer = onward(base, source, changed, storage, sink, options, work)?;
    Ok((trailer, reopen(next)?))
}

fn onward(
    base: &Manifest,
    source: &dyn Image,
    changed: Option<Vec<Range<u64>>>,
    storage: Arc<dyn Storage>,
    sink: ManifestWriter,
    options: &DeltaOptions,
    work: &Work,
) -> Result<Trailer> {
    let disk_len = source.disk_len();
    check_change_map(changed.as_deref().unwrap_or_default(), disk_len)?;
    let frames = Frames::create(storage, base.disk_len(), source, base.block_size(), options)?;
    let pass = Against {
        base: Known::new(base),
        frames: &frames,
        disk_len,
    };
    let mut sink = ManifestUpdater::new(base, sink)?;
    let within = changed.map(|changed| changed.into_iter().chain(sink.unshared()).collect());
    let expected = within.is_none().then_some(disk_len);
    work.progress().begin(Phase::Hash, expected);
    let marked = RangeSet::default();
    against(source, base, marked, within, work, &mut sink, &|it| {
        pass.push(&it)
    })?;
    let root = sink.into_writer()?.finish()?;
    frames.finish(base.root(), root)
}

/// The file being written; frames are made outside its lock.
struct Frames {
    writer: Mutex<DeltaWriter>,
    level: Option<i32>,
}

impl Frames {
    fn create(
        storage: Arc<dyn Storage>,
        base_len: u64,
        source: &dyn Image,
        block_size: BlockSize,
        options: &DeltaOptions,
    ) -> Result<Self> {
        let header = Header {
            purpose: Purpose::Portable,
            job: JobId::random()?,
            base_len,
            result_len: source.disk_len(),
            block_size,
        };
        Ok(Frames {
            writer: Mutex::new(DeltaWriter::create(storage, header)?),
            level: options.level,
        })
    }

    fn finish(self, base: Hash, result: Hash) -> Result<Trailer> {
        let writer = self
            .writer
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        writer.finish(Some(base), Some(result))
    }

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
            Some(hash) if here == there => Old::Hash(hash),
            Some(_) => Old::Unknown,
        })
    }
}
