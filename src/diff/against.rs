//! Image against target manifest: the image is read once, the manifest stands for the other disk.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use super::compare::Content;
use super::known::Known;
use crate::error::Result;
use crate::image::Image;
use crate::manifest::{HashPass, HashedRun, Manifest, RangeSet, Sink, TargetManifest, Visit};
use crate::progress::Work;
use crate::units::BlockSize;

/// Finds what differs between an image and the disk that a target manifest stands for, and hands
/// each difference to `visit` with the bytes in hand; `sink` takes all hashes in order, so that
/// the image's own manifest comes out of the same pass.
///
/// The image's `[0, disk_len)` is compared in blocks of the manifest's size. Blocks with intents
/// count as different. Where the manifest's disk is shorter it counts as zeros, what it has beyond
/// the image is not looked at. Holes of the image are not read; a hole is a difference of zeros
/// where the manifest has data.
///
/// `visit` is called on the threads of `work`, in any order and several times at once, never
/// twice for one byte. Memory is a buffer for each thread. The caller begins the phase. Returns how
/// many bytes of the image were read.
///
/// # Errors
/// As [`HashPass::run`]; `Malformed` where the manifest is damaged; what `visit` returns.
pub fn against_manifest(
    image: &dyn Image,
    old: &TargetManifest,
    work: &Work,
    sink: &mut dyn Sink,
    visit: &(dyn Fn(ManifestDifference<'_>) -> Result<()> + Sync),
) -> Result<u64> {
    let in_doubt = old.intent_blocks(image.disk_len());
    against(image, old.manifest(), in_doubt, None, work, sink, visit)
}

/// [`against_manifest`], where only `within` these byte ranges can the disks differ: all else is
/// neither read nor told to `sink`.
///
/// # Errors
/// As [`against_manifest`].
pub(crate) fn against_within(
    image: &dyn Image,
    old: &TargetManifest,
    within: Vec<Range<u64>>,
    work: &Work,
    sink: &mut dyn Sink,
    visit: &(dyn Fn(ManifestDifference<'_>) -> Result<()> + Sync),
) -> Result<u64> {
    let in_doubt = old.intent_blocks(image.disk_len());
    let manifest = old.manifest();
    against(image, manifest, in_doubt, Some(within), work, sink, visit)
}

/// [`against_manifest`] with the blocks `in_doubt` beside the manifest, and `within` these byte
/// ranges where only they can differ: all else is neither read nor told to `sink`.
pub(crate) fn against(
    image: &dyn Image,
    old: &Manifest,
    in_doubt: RangeSet,
    within: Option<Vec<Range<u64>>>,
    work: &Work,
    sink: &mut dyn Sink,
    visit: &(dyn Fn(ManifestDifference<'_>) -> Result<()> + Sync),
) -> Result<u64> {
    let against = Against {
        old: Known::new(old),
        in_doubt,
        block_size: old.block_size(),
        disk_len: image.disk_len(),
        work,
        visit,
        read_bytes: AtomicU64::new(0),
    };
    let mut pass = HashPass::new(image, old.block_size(), work);
    if let Some(within) = within {
        pass = pass.within(within);
    }
    pass.run(&against, sink)?;
    Ok(against.read_bytes.into_inner())
}

/// One stretch of whole blocks in which an image differs from what a manifest says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ManifestDifference<'a> {
    /// First guest byte.
    pub offset: u64,
    /// What the image holds: zeros where whole blocks are zeros.
    pub new: Content<'a>,
}

struct Against<'a> {
    old: Known<'a>,
    in_doubt: RangeSet,
    block_size: BlockSize,
    disk_len: u64,
    work: &'a Work,
    visit: &'a (dyn Fn(ManifestDifference<'_>) -> Result<()> + Sync),
    read_bytes: AtomicU64,
}

impl Visit for Against<'_> {
    fn data(&self, run: &HashedRun<'_>) -> Result<()> {
        self.read_bytes
            .fetch_add(run.bytes.len() as u64, Ordering::Relaxed);
        let mut pending = Pending::default();
        for (block, new) in (run.first_block..).zip(run.hashes) {
            let only = block..block + 1;
            if self.old.hash(block)? != *new || self.in_doubt.touches(only.clone()) {
                pending.add(only, new.is_some(), |blocks, data| {
                    self.tell(blocks, data.then_some(run))
                })?;
            }
        }
        pending.finish(|blocks, data| self.tell(blocks, data.then_some(run)))
    }

    fn zeros(&self, blocks: Range<u64>) -> Result<()> {
        let tell = |blocks, _data| self.tell(blocks, None);
        let mut pending = Pending::default();
        let mut doubted_from = blocks.start;
        for group in self.old.manifest().groups(blocks.clone()) {
            // A hole may stand against very many blocks.
            self.work.cancel().check()?;
            for (block, _) in group?.entries().filter(|(block, _)| blocks.contains(block)) {
                for in_doubt in self.in_doubt.inside(doubted_from..block) {
                    pending.add(in_doubt, false, tell)?;
                }
                pending.add(block..block + 1, false, tell)?;
                doubted_from = block + 1;
            }
        }
        for in_doubt in self.in_doubt.inside(doubted_from..blocks.end) {
            pending.add(in_doubt, false, tell)?;
        }
        pending.finish(tell)
    }
}

impl Against<'_> {
    /// Tells of blocks, which lie in `run`; without one they are zeros.
    fn tell(&self, blocks: Range<u64>, run: Option<&HashedRun<'_>>) -> Result<()> {
        let offset = self.block_size.range(blocks.start, self.disk_len).start;
        let end = self.block_size.range(blocks.end - 1, self.disk_len).end;
        let new = match run {
            Some(run) => {
                let start = self.block_size.range(run.first_block, self.disk_len).start;
                // Inside the run's buffer.
                let range = (offset - start) as usize..(end - start) as usize;
                Content::Bytes(run.bytes.get(range).unwrap_or_default())
            }
            None => Content::Zeros(end - offset),
        };
        (self.visit)(ManifestDifference { offset, new })
    }
}

/// Blocks that differ, joined with the next ones while they are neighbours of one kind.
#[derive(Default)]
struct Pending(Option<(Range<u64>, bool)>);

impl Pending {
    fn add(
        &mut self,
        blocks: Range<u64>,
        data: bool,
        tell: impl Fn(Range<u64>, bool) -> Result<()>,
    ) -> Result<()> {
        match &mut self.0 {
            Some((pending, same)) if *same == data && pending.end == blocks.start => {
                pending.end = blocks.end;
                Ok(())
            }
            _ => match self.0.replace((blocks, data)) {
                Some((blocks, data)) => tell(blocks, data),
                None => Ok(()),
            },
        }
    }

    fn finish(self, tell: impl Fn(Range<u64>, bool) -> Result<()>) -> Result<()> {
        match self.0 {
            Some((blocks, data)) => tell(blocks, data),
            None => Ok(()),
        }
    }
}
