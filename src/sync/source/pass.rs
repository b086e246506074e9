//! One reading of the source, block by block.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::iter::{ParallelBridge, ParallelIterator};

use super::backend::Visit as VisitDifference;
use crate::advice::Advice;
use crate::diff::{CompareReport, Content, Difference, ManifestDiff};
use crate::error::{Error, ErrorKind, Result};
use crate::hash::Hash;
use crate::image::{self, Image};
use crate::manifest::{HashedRun, Manifest, Visit};
use crate::progress::Work;
use crate::units::{BlockSize, Extent, ExtentKind, PAGE_BYTES};

/// One reading of the source.
pub(in crate::sync) struct Pass<'a> {
    pub disk_len: u64,
    pub block_size: BlockSize,
    /// The target; `None` where everything moves.
    pub old: Option<&'a dyn Image>,
    visit: &'a VisitDifference<'a>,
    pub compared_bytes: AtomicU64,
    changed_bytes: AtomicU64,
    zeroed_bytes: AtomicU64,
}

impl<'a> Pass<'a> {
    /// A reading of `disk_len` bytes, to be compared with `old`, or emitted whole.
    pub(crate) fn new(
        disk_len: u64,
        block_size: BlockSize,
        old: Option<&'a dyn Image>,
        visit: &'a VisitDifference<'a>,
    ) -> Self {
        Pass {
            disk_len,
            block_size,
            old,
            visit,
            compared_bytes: AtomicU64::new(0),
            changed_bytes: AtomicU64::new(0),
            zeroed_bytes: AtomicU64::new(0),
        }
    }

    /// Reads only where two manifests differ.
    ///
    /// # Errors
    /// `SourceChanged` where `source` does not hold what its manifest says; `Unreadable`, `Io`,
    /// `Malformed`, `Cancelled`; those of the visitor.
    pub(crate) fn between(
        &self,
        source: &dyn Image,
        differing: ManifestDiff<'_>,
        theirs: &Manifest,
        work: &Work,
    ) -> Result<()> {
        let old = self.old;
        let step = self.block_size.bytes().max(REFINE_STEP_BYTES);
        let one = |extent: Result<Extent>| {
            let (Some(old), extent) = (old, extent?) else {
                return Ok(());
            };
            if extent.kind == ExtentKind::Zero {
                return self.clear(old, extent.offset..extent.end());
            }
            let mut at = extent.offset;
            while at < extent.end() {
                work.cancel().check()?;
                let mut bytes = vec![0; index(step.min(extent.end() - at))];
                source.read_exact_at(&mut bytes, at)?;
                self.check_blocks(theirs, at, &bytes)?;
                self.compared_bytes
                    .fetch_add(bytes.len() as u64, Ordering::Relaxed);
                self.refine(old, at, Content::Bytes(&bytes))?;
                at += bytes.len() as u64;
            }
            Ok(())
        };
        let pool = work.pool();
        pool.install(|| differing.par_bridge().try_for_each(one))
    }

    /// Holds what was read against the manifest that stands for the rest.
    fn check_blocks(&self, theirs: &Manifest, offset: u64, bytes: &[u8]) -> Result<()> {
        let first = offset / self.block_size.bytes();
        for (block, bytes) in (first..).zip(bytes.chunks(index(self.block_size.bytes()))) {
            let hash = (!crate::units::is_zero(bytes)).then(|| Hash::of(bytes));
            if theirs.hash(block)? != hash {
                return Err(source_manifest_is_wrong(block * self.block_size.bytes()));
            }
        }
        Ok(())
    }

    /// What was counted.
    pub(crate) fn report(&self) -> CompareReport {
        CompareReport {
            compared_bytes: self.compared_bytes.load(Ordering::Relaxed),
            changed_bytes: self.changed_bytes.load(Ordering::Relaxed),
            zeroed_bytes: self.zeroed_bytes.load(Ordering::Relaxed),
            ..CompareReport::default()
        }
    }

    fn emit(&self, offset: u64, new: Content<'_>, old: Option<&[u8]>) -> Result<()> {
        self.changed_bytes.fetch_add(new.len(), Ordering::Relaxed);
        if new.bytes().is_none() {
            self.zeroed_bytes.fetch_add(new.len(), Ordering::Relaxed);
        }
        let known = old.map(Content::Bytes);
        let difference = Difference {
            offset,
            new,
            old: known.unwrap_or(Content::Zeros(new.len())),
        };
        (self.visit)(difference)
    }

    /// Reads the target where a block differs and emits the pages that really do.
    pub(crate) fn refine(&self, old: &dyn Image, offset: u64, new: Content<'_>) -> Result<()> {
        let mut at = 0;
        while at < new.len() {
            let len = (new.len() - at).min(REFINE_STEP_BYTES);
            let mut there = vec![0; index(len)];
            image::read_padded_at(old, &mut there, offset + at)?;
            let now = new.bytes().map(|bytes| &bytes[index(at)..index(at + len)]);
            self.pages(offset + at, now, &there)?;
            at += len;
        }
        Ok(())
    }

    /// Emits what the target holds of a range that is zero in the source.
    pub(crate) fn clear(&self, old: &dyn Image, range: Range<u64>) -> Result<()> {
        let mut at = range.start;
        while at < range.end {
            let Some(extent) = old.next_extent(at)? else {
                break;
            };
            let end = extent.end().min(range.end);
            if extent.kind == ExtentKind::Data {
                self.compared_bytes.fetch_add(end - at, Ordering::Relaxed);
                self.refine(old, at, Content::Zeros(end - at))?;
            }
            at = end;
        }
        Ok(())
    }

    /// Neighbouring pages that differ and are alike go out together.
    fn pages(&self, offset: u64, new: Option<&[u8]>, old: &[u8]) -> Result<()> {
        let page = index(PAGE_BYTES);
        let kind = |start: usize| {
            let range = start..(start + page).min(old.len());
            let there = &old[range.clone()];
            match new.map(|new| &new[range]) {
                Some(now) if now == there => None,
                Some(now) if !crate::units::is_zero(now) => Some(ExtentKind::Data),
                None if crate::units::is_zero(there) => None,
                _ => Some(ExtentKind::Zero),
            }
        };
        let mut start = 0;
        while start < old.len() {
            let this = kind(start);
            let mut end = start + page;
            while end < old.len() && kind(end) == this {
                end += page;
            }
            let range = start..end.min(old.len());
            let there = Some(&old[range.clone()]);
            match (this, new) {
                (None, _) => {}
                (Some(ExtentKind::Data), Some(new)) => {
                    self.emit(offset + start as u64, Content::Bytes(&new[range]), there)?;
                }
                (Some(_), _) => {
                    self.emit(
                        offset + start as u64,
                        Content::Zeros(range.len() as u64),
                        there,
                    )?;
                }
            }
            start = end;
        }
        Ok(())
    }
}

impl Visit for Pass<'_> {
    fn data(&self, context: &HashedRun<'_>) -> Result<()> {
        let offset = context.first_block * context.block_size.bytes();
        self.compared_bytes
            .fetch_add(context.bytes.len() as u64, Ordering::Relaxed);
        if let Some(old) = self.old {
            return self.refine(old, offset, Content::Bytes(context.bytes));
        }
        // Blocks of one kind go out together.
        let mut start = 0;
        for alike in context
            .hashes
            .chunk_by(|one, other| one.is_some() == other.is_some())
        {
            let len = index(context.block_size.bytes()) * alike.len();
            let bytes = &context.bytes[start..(start + len).min(context.bytes.len())];
            let new = match alike.first() {
                Some(Some(_)) => Content::Bytes(bytes),
                _ => Content::Zeros(bytes.len() as u64),
            };
            self.emit(offset + start as u64, new, None)?;
            start += len;
        }
        Ok(())
    }

    fn zeros(&self, blocks: Range<u64>) -> Result<()> {
        let size = self.block_size.bytes();
        let end = blocks.end.saturating_mul(size).min(self.disk_len);
        let range = blocks.start * size..end;
        match self.old {
            None => self.emit(range.start, Content::Zeros(range.end - range.start), None),
            Some(old) => self.clear(old, range),
        }
    }
}

/// The error of a source that does not hold, at `offset`, what its manifest says.
pub(in crate::sync) fn source_manifest_is_wrong(offset: u64) -> Error {
    let what = "the source does not hold what its manifest says";
    Error::new(ErrorKind::SourceChanged, what)
        .at_offset(offset)
        .advise(Advice::WithoutManifestCache)
}

const REFINE_STEP_BYTES: u64 = 1 << 20;

/// Offsets inside buffers in memory.
fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}
