//! How what moves is found: by comparing, against a kept manifest, or not at all.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::iter::{ParallelBridge, ParallelIterator};

use super::kept::Keeper;
use crate::delta::Old;
use crate::diff::{self, CompareOptions, CompareReport, Content, Difference, against_manifest};
use crate::error::{Error, ErrorKind, Result};
use crate::hash::Hash;
use crate::image::{self, Image};
use crate::manifest::{
    HashPass, HashedRun, KeptManifest, Manifest, ManifestUpdater, ManifestWriter, RangeSet, Visit,
};
use crate::progress::Phase;
use crate::sync::endpoint::remote_source::{REMOTE_BLOCK_BYTES, Search};
use crate::sync::endpoint::source::Run;
use crate::sync::options::{Safety, Verify};
use crate::units::{BlockSize, Extent, ExtentKind, PAGE_BYTES};

/// What moves, piece by piece: the difference, and what is known of the bytes it replaces.
pub(in crate::sync) type Found<'a> =
    dyn Fn(&Difference<'_>, fn(&Difference<'_>) -> Old) -> Result<()> + Sync + 'a;

/// Hands out every difference between source and `old`; only in `ranges`, where they are given,
/// and in the change map, where there is one. `old` had `old_len` bytes before the sync.
///
/// # Errors
/// Those of [`compare`](crate::diff::compare), and those of `found`.
pub(in crate::sync) fn differences(
    run: &Run<'_>,
    old: &dyn Image,
    old_len: u64,
    ranges: Option<Vec<Range<u64>>>,
    found: &Found<'_>,
) -> Result<CompareReport> {
    let doubted = match doubts(run) {
        true => change_map(run, old_len),
        false => None,
    };
    let ranges = match doubted {
        Some(_) => ranges.map(|ranges| cut(ranges, run.source.disk_len())),
        None => narrowed(run, old_len, ranges),
    };
    let options = CompareOptions::default()
        .with_skip_unreadable(run.options.skip_unreadable)
        .with_change_map(ranges);
    let visit = |difference: Difference<'_>| {
        let map = doubted.as_ref();
        map.map_or(Ok(()), |map| refuse_missed(map, &difference.range()))?;
        found(&difference, old_bytes)
    };
    match &run.source.remote {
        None => run.compare(old, &options, run.work, &visit),
        Some(remote) => {
            let search = Search {
                target: old,
                disk_len: run.source.disk_len(),
                options: &options,
                kept: None,
                next: None,
                counts_only: run.options.dry_run,
                reads_all: doubts(run),
            };
            Ok(remote.find(search, run.work, &visit)?.0)
        }
    }
}

/// Whether what stands for reading is checked by reading.
fn doubts(run: &Run<'_>) -> bool {
    run.options.verify == Verify::All && !run.options.dry_run
}

/// Where to look: the part of `ranges` that the change map has, for a target that had `old_len`
/// bytes. Ranges that were coarsened may reach behind the end of the source.
pub(in crate::sync) fn narrowed(
    run: &Run<'_>,
    old_len: u64,
    ranges: Option<Vec<Range<u64>>>,
) -> Option<Vec<Range<u64>>> {
    match (change_map(run, old_len), ranges) {
        (Some(map), Some(ranges)) => {
            let parts = ranges.into_iter().flat_map(|range| map.inside(range));
            Some(parts.collect())
        }
        (Some(map), None) => Some(map.into_vec()),
        (None, ranges) => ranges.map(|ranges| cut(ranges, run.source.disk_len())),
    }
}

fn cut(ranges: Vec<Range<u64>>, len: u64) -> Vec<Range<u64>> {
    let inside = |range: Range<u64>| range.start.min(len)..range.end.min(len);
    ranges.into_iter().map(inside).collect()
}

/// The whole pages that the change map names. What only one of the two disks has is looked at
/// whatever the map says.
fn change_map(run: &Run<'_>, old_len: u64) -> Option<RangeSet> {
    let map = run.options.change_map.as_ref()?;
    let (one, other) = (run.source.disk_len(), old_len);
    let grown = (one != other).then(|| one.min(other)..one.max(other));
    let ranges: Vec<_> = map.iter().cloned().chain(grown).collect();
    let options = CompareOptions::default().with_change_map(Some(ranges));
    Some(RangeSet::of(options.windows(one)))
}

/// # Errors
/// `VerifyFailed` for a difference that a change map does not name.
fn refuse_missed(map: &RangeSet, difference: &Range<u64>) -> Result<()> {
    let mut at = difference.start;
    for part in map.inside(difference.clone()) {
        if part.start > at {
            break;
        }
        at = part.end;
    }
    if at >= difference.end {
        return Ok(());
    }
    let what = "source and target differ where the change map names no change";
    Err(Error::new(ErrorKind::VerifyFailed, what)
        .at_offset(at)
        .advise("the target is untouched; sync again without a change map"))
}

/// Hands out everything the source holds, zeros too; no target is looked at. Also returns the
/// root of what was read, where it is known in blocks as the options want them.
///
/// # Errors
/// `Unreadable`, `Io`, `Malformed`, `Cancelled`, and those of `found`.
pub(in crate::sync) fn everything(
    run: &Run<'_>,
    found: &Found<'_>,
) -> Result<(CompareReport, Option<Hash>)> {
    if let Some(remote) = &run.source.remote {
        let visit = |difference: Difference<'_>| found(&difference, unknown);
        let (report, root) = remote.everything(run.source.disk_len(), run.work, &visit)?;
        let is_wanted = run.options.block_size.bytes() == REMOTE_BLOCK_BYTES;
        return Ok((report, is_wanted.then(|| root)));
    }
    let source = &*run.source.image;
    let pass = Pass::new(run, run.options.block_size, None, found);
    run.work
        .progress()
        .begin(Phase::Copy, Some(source.disk_len()));
    let mut sink = ManifestWriter::root_only(source.disk_len(), run.options.block_size);
    HashPass::new(source, run.options.block_size, run.work).run(&pass, &mut sink)?;
    Ok((pass.report(), Some(sink.finish()?)))
}

/// Hands out what differs between the source and what a kept manifest says of `old`; the
/// target is read only where they differ. The source's manifest goes to the keeper.
///
/// # Errors
/// As [`everything`].
pub(in crate::sync) fn against_kept(
    run: &Run<'_>,
    old: &dyn Image,
    keeper: &Keeper,
    found: &Found<'_>,
) -> Result<(CompareReport, Hash)> {
    if let Some(remote) = &run.source.remote {
        let search = Search {
            target: old,
            disk_len: run.source.disk_len(),
            options: &CompareOptions::default(),
            kept: keeper.believed(old.disk_len()).filter(|_| !doubts(run)),
            next: Some(keeper.writer(run.source.disk_len())?),
            counts_only: false,
            reads_all: doubts(run),
        };
        // In place, what was written hides what the manifest was wrong about.
        let doubted = keeper
            .believed(old.disk_len())
            .filter(|_| doubts(run) && run.options.safety == Safety::Atomic)
            .map(|kept| {
                (
                    diff::Known::new(kept.manifest()),
                    kept.marked_blocks(old.disk_len()),
                )
            });
        let visit = |difference: Difference<'_>| {
            if let Some((kept, marked)) = &doubted {
                check_target(kept, marked, old, &difference.range())?;
            }
            found(&difference, old_bytes)
        };
        let (report, root) = remote.find(search, run.work, &visit)?;
        let root = root.ok_or_else(|| Error::malformed("no manifest came of a comparison"))?;
        return Ok((report, root));
    }
    let source = &*run.source.image;
    let pass = Pass::new(run, keeper.block_size(), Some(old), found);
    run.work
        .progress()
        .begin(Phase::Hash, Some(source.disk_len()));
    let mut sink = keeper.writer(source.disk_len())?;
    let theirs = run.source.manifest.as_ref().filter(|theirs| {
        theirs.disk_len() == source.disk_len() && theirs.block_size() == keeper.block_size()
    });
    match keeper.believed(old.disk_len()) {
        Some(kept) if doubts(run) => {
            let refuse: &Found<'_> = &|difference, _| Err(manifest_is_wrong(difference.offset));
            let doubted = Doubted {
                pass: &pass,
                equal: Pass::new(run, keeper.block_size(), Some(old), refuse),
                kept: diff::Known::new(kept.manifest()),
                marked: kept.marked_blocks(source.disk_len()),
                theirs: theirs.map(diff::Known::new),
            };
            HashPass::new(source, keeper.block_size(), run.work).run(&doubted, &mut sink)?;
        }
        Some(kept) if let Some(theirs) = theirs => {
            pass.between(run, kept, theirs)?;
            sink = ManifestUpdater::new(theirs, sink)?.into_writer()?;
        }
        Some(kept) => {
            let read = against_manifest(source, kept, run.work, &mut sink, &|difference| {
                let (offset, new) = (difference.offset, difference.new);
                match new {
                    Content::Bytes(_) => pass.refine(old, offset, new),
                    Content::Zeros(len) => pass.clear(old, offset..offset + len),
                }
            })?;
            pass.compared_bytes.fetch_add(read, Ordering::Relaxed);
        }
        None => HashPass::new(source, keeper.block_size(), run.work).run(&pass, &mut sink)?,
    }
    Ok((pass.report(), sink.finish()?))
}

/// One reading of the source.
struct Pass<'a> {
    disk_len: u64,
    block_size: BlockSize,
    /// The target; `None` where everything moves.
    old: Option<&'a dyn Image>,
    found: &'a Found<'a>,
    compared_bytes: AtomicU64,
    changed_bytes: AtomicU64,
    zeroed_bytes: AtomicU64,
}

impl<'a> Pass<'a> {
    fn new(
        run: &Run<'_>,
        block_size: BlockSize,
        old: Option<&'a dyn Image>,
        found: &'a Found<'a>,
    ) -> Self {
        Pass {
            disk_len: run.source.disk_len(),
            block_size,
            old,
            found,
            compared_bytes: AtomicU64::new(0),
            changed_bytes: AtomicU64::new(0),
            zeroed_bytes: AtomicU64::new(0),
        }
    }

    /// Reads only where two manifests differ.
    fn between(&self, run: &Run<'_>, kept: &KeptManifest, theirs: &Manifest) -> Result<()> {
        let (source, old) = (&*run.source.image, self.old);
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
                run.work.cancel().check()?;
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
        let differing = diff::kept_manifest(kept, theirs)?;
        let pool = run.work.pool();
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

    fn report(&self) -> CompareReport {
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
        let describe = if old.is_some() { old_bytes } else { unknown };
        (self.found)(&difference, describe)
    }

    /// Reads the target where a block differs and hands out the pages that really do.
    fn refine(&self, old: &dyn Image, offset: u64, new: Content<'_>) -> Result<()> {
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

    /// Hands out what the target holds of a range that is zero in the source.
    fn clear(&self, old: &dyn Image, range: Range<u64>) -> Result<()> {
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
    fn data(&self, run: &HashedRun<'_>) -> Result<()> {
        let offset = run.first_block * run.block_size.bytes();
        self.compared_bytes
            .fetch_add(run.bytes.len() as u64, Ordering::Relaxed);
        if let Some(old) = self.old {
            return self.refine(old, offset, Content::Bytes(run.bytes));
        }
        // Blocks of one kind go out together.
        let mut start = 0;
        for alike in run
            .hashes
            .chunk_by(|one, other| one.is_some() == other.is_some())
        {
            let len = index(run.block_size.bytes()) * alike.len();
            let bytes = &run.bytes[start..(start + len).min(run.bytes.len())];
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

/// One reading of source and target that believes no manifest: blocks that manifests take for equal
/// are compared, and must be.
struct Doubted<'a> {
    /// Takes blocks that differ by the manifest.
    pass: &'a Pass<'a>,
    /// Takes the others, and fails where they differ after all.
    equal: Pass<'a>,
    kept: diff::Known<'a>,
    /// Blocks about which the manifest is not believed anyway.
    marked: RangeSet,
    /// What would have stood for reading the source.
    theirs: Option<diff::Known<'a>>,
}

impl Doubted<'_> {
    fn is_sure(&self, block: u64, hash: Option<Hash>) -> Result<bool> {
        Ok(self.kept.hash(block)? == hash && !self.marked.touches(block..block + 1))
    }

    fn clear(&self, pass: &Pass<'_>, blocks: Range<u64>) -> Result<()> {
        match blocks.is_empty() {
            true => Ok(()),
            false => pass.zeros(blocks),
        }
    }

    /// Clears blocks that are zeros by the manifest, but for the marked ones.
    fn clear_sure(&self, blocks: Range<u64>) -> Result<()> {
        let mut at = blocks.start;
        for marked in self.marked.inside(blocks.clone()) {
            self.clear(&self.equal, at..marked.start)?;
            at = marked.end;
            self.clear(self.pass, marked)?;
        }
        self.clear(&self.equal, at..blocks.end)
    }
}

impl Visit for Doubted<'_> {
    fn data(&self, run: &HashedRun<'_>) -> Result<()> {
        let size = run.block_size.bytes();
        let Some(old) = self.pass.old else {
            return Ok(());
        };
        self.pass
            .compared_bytes
            .fetch_add(run.bytes.len() as u64, Ordering::Relaxed);
        for (block, bytes, hash) in run.blocks() {
            let offset = block * size;
            if let Some(theirs) = &self.theirs
                && theirs.hash(block)? != hash
            {
                return Err(source_manifest_is_wrong(offset));
            }
            let pass = match self.is_sure(block, hash)? {
                true => &self.equal,
                false => self.pass,
            };
            pass.refine(old, offset, Content::Bytes(bytes))?;
        }
        Ok(())
    }

    fn zeros(&self, blocks: Range<u64>) -> Result<()> {
        let theirs = self.theirs.iter();
        for group in theirs.flat_map(|it| it.manifest().groups(blocks.clone())) {
            if let Some((block, _)) = group?.entries().find(|(block, _)| blocks.contains(block)) {
                return Err(source_manifest_is_wrong(
                    block * self.pass.block_size.bytes(),
                ));
            }
        }
        let mut at = blocks.start;
        for group in self.kept.manifest().groups(blocks.clone()) {
            for (block, _) in group?.entries().filter(|(block, _)| blocks.contains(block)) {
                self.clear_sure(at..block)?;
                self.clear(self.pass, block..block + 1)?;
                at = block + 1;
            }
        }
        self.clear_sure(at..blocks.end)
    }
}

/// Holds the blocks of the target that `range` touches against its kept manifest.
fn check_target(
    kept: &diff::Known<'_>,
    marked: &RangeSet,
    old: &dyn Image,
    range: &Range<u64>,
) -> Result<()> {
    let (size, disk_len) = (kept.manifest().block_size(), old.disk_len());
    for block in range.start / size.bytes()..range.end.div_ceil(size.bytes()) {
        let inside = size.range(block, disk_len);
        if inside.is_empty() || marked.touches(block..block + 1) {
            continue;
        }
        let mut bytes = vec![0; index(inside.end - inside.start)];
        old.read_exact_at(&mut bytes, inside.start)?;
        let hash = (!crate::units::is_zero(&bytes)).then(|| Hash::of(&bytes));
        if kept.hash(block)? != hash {
            return Err(manifest_is_wrong(inside.start));
        }
    }
    Ok(())
}

fn manifest_is_wrong(offset: u64) -> Error {
    let what = "the target does not hold what its kept manifest says";
    Error::new(ErrorKind::VerifyFailed, what)
        .at_offset(offset)
        .advise("the target is untouched; sync again without that manifest, which makes it anew")
}

fn source_manifest_is_wrong(offset: u64) -> Error {
    let what = "the source does not hold what its kept manifest says";
    Error::new(ErrorKind::SourceChanged, what)
        .at_offset(offset)
        .advise("run it again without --manifest-cache")
}

fn old_bytes(difference: &Difference<'_>) -> Old {
    match difference.old {
        Content::Bytes(bytes) => Old::Hash(Hash::of(bytes)),
        Content::Zeros(_) => Old::Zeros,
    }
}

fn unknown(_difference: &Difference<'_>) -> Old {
    Old::Unknown
}

const REFINE_STEP_BYTES: u64 = 1 << 20;

/// Offsets inside buffers in memory.
fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}
