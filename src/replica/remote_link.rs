//! A link from a disk that is read elsewhere.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use crate::delta::{DeltaOptions, DeltaWriter, Frame, Header, JobId, Old, Purpose, Trailer};
use crate::diff::{self, CompareOptions, Content, Difference};
use crate::error::Result;
use crate::image::{Image, ImageInfo};
use crate::manifest::{Manifest, ManifestWriter, RangeSet, TargetManifest, reopen};
use crate::progress::Work;
use crate::storage::Storage;
use crate::sync::{Search, SourceBackend};
use crate::units::{BlockSize, Extent, check_change_map};

/// Writes the delta that leads from the disk that `base` describes to the first `disk_len` bytes
/// of `source`, and into `next` the manifest of that. `changed` says which ranges can differ,
/// where that is known.
///
/// The manifest stands for the base: leaves that have its hashes do not come. Of the others the
/// source is held against zeros, so that its pages come, and what does not come of them is zero.
///
/// # Errors
/// Those of [`SourceBackend::find`]; `NoSpace`, `Io`.
pub(super) fn remote_link(
    base: &TargetManifest,
    source: &dyn SourceBackend,
    disk_len: u64,
    changed: Option<Vec<Range<u64>>>,
    sealing: Arc<dyn Storage>,
    next: &Arc<dyn Storage>,
    work: &Work,
) -> Result<(Trailer, Manifest)> {
    let kept = base;
    let base = kept.manifest();
    let header = Header {
        purpose: Purpose::Portable,
        job: JobId::random()?,
        base_len: base.disk_len(),
        result_len: disk_len,
        block_size: base.block_size(),
    };
    let level = DeltaOptions::default().level;
    let writer = Mutex::new(DeltaWriter::create(sealing, header)?);
    let came = Mutex::new(Vec::new());
    let push = |frame: &Frame<'_>| {
        let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.push(frame)
    };
    let take = |difference: Difference<'_>| {
        if let Content::Bytes(bytes) = difference.new {
            push(&Frame::data(difference.offset, bytes, Old::Unknown, level))?;
            let mut came = came.lock().unwrap_or_else(PoisonError::into_inner);
            came.push(difference.range());
        }
        Ok(())
    };
    // A manifest of another length stands for nothing, and neither do changes since.
    let fits = base.disk_len() == disk_len;
    check_change_map(changed.as_deref().unwrap_or_default(), disk_len)?;
    let blocks = changed.filter(|_| fits);
    let blocks = blocks.map(|ranges| blocks_of(ranges, base.block_size(), disk_len));
    let target = ManifestImage::of(base, disk_len)?;
    let options = CompareOptions::default().with_change_map(blocks);
    let writer_of_next = ManifestWriter::create(next.clone(), disk_len, base.block_size())?;
    source.find(
        Search {
            kept: Some(kept).filter(|_| fits),
            next: Some(writer_of_next),
            ..Search::new(&target, disk_len, &options)
        },
        work,
        &take,
    )?;
    source.check()?;
    let manifest = reopen(next.clone())?;
    let came = RangeSet::of(came.into_inner().unwrap_or_else(PoisonError::into_inner));
    for extent in diff::manifests(base, &manifest)? {
        let extent = extent?;
        let differs = extent.offset..extent.end().min(disk_len);
        for gap in gaps(&came, differs) {
            push(&Frame::zero(gap.start, gap.end - gap.start, Old::Unknown))?;
        }
    }
    let writer = writer.into_inner().unwrap_or_else(PoisonError::into_inner);
    let trailer = writer.finish(Some(base.root()), Some(manifest.root()))?;
    Ok((trailer, manifest))
}

/// The blocks in which ranges lie, or more where there are very many.
fn blocks_of(ranges: Vec<Range<u64>>, size: BlockSize, disk_len: u64) -> Vec<Range<u64>> {
    let blocks = RangeSet::of(ranges).rounded_to(size.bytes());
    let blocks = blocks.coarsened_to(RANGES_MOST);
    blocks.inside(0..disk_len).collect()
}

/// What of a range is not in the set.
fn gaps(set: &RangeSet, within: Range<u64>) -> Vec<Range<u64>> {
    let mut at = within.start;
    let mut gaps = Vec::new();
    for part in set.inside(within.clone()) {
        gaps.push(at..part.start);
        at = part.end;
    }
    gaps.push(at..within.end);
    gaps.retain(|gap| !gap.is_empty());
    gaps
}

/// A disk of which only the manifest is there: it has data where that has, and reads as zeros.
pub(crate) struct ManifestImage {
    disk_len: u64,
    data: RangeSet,
}

impl ManifestImage {
    /// The disk that `manifest` describes, seen with `disk_len` bytes.
    ///
    /// # Errors
    /// `Malformed`, `Io`.
    pub(crate) fn of(manifest: &Manifest, disk_len: u64) -> Result<Self> {
        let size = manifest.block_size();
        let mut data: Vec<Range<u64>> = Vec::new();
        for group in manifest.groups(0..size.count(manifest.disk_len())) {
            for (block, _) in group?.entries() {
                let range = size.range(block, disk_len);
                match data.last_mut().filter(|last| last.end == range.start) {
                    Some(last) => last.end = range.end,
                    None => data.push(range),
                }
            }
        }
        Ok(ManifestImage {
            disk_len,
            data: RangeSet::of(data),
        })
    }
}

impl Image for ManifestImage {
    fn disk_len(&self) -> u64 {
        self.disk_len
    }

    fn read_exact_at(&self, buf: &mut [u8], _offset: u64) -> Result<()> {
        buf.fill(0);
        Ok(())
    }

    fn next_extent(&self, offset: u64) -> Result<Option<Extent>> {
        if offset >= self.disk_len {
            return Ok(None);
        }
        let window = offset..self.disk_len;
        let data = self.data.inside(window.clone()).next();
        Ok(Some(Extent::first(window, data)))
    }

    fn info(&self) -> ImageInfo {
        ImageInfo::raw(self.disk_len)
    }
}

/// A quarter of what a comparison takes.
const RANGES_MOST: usize = 1 << 20;
