//! Choosing between delta and full from a sample.

use std::ops::Range;

use crate::error::{ErrorKind, Result};
use crate::image::{self, Image};
use crate::progress::{Phase, Work};
use crate::sync::endpoint::source::SyncContext;
use crate::sync::options::{Cloning, Mode, Safety, Verify};
use crate::units::{BlockSize, ExtentKind, PAGE_BYTES};

/// Samples blocks on both sides and chooses; the text says why.
///
/// # Errors
/// `Io`, `Malformed`, `Cancelled`.
pub(in crate::sync) fn choose(
    context: &SyncContext<'_>,
    target: &dyn Image,
) -> Result<(Mode, String)> {
    if context.options.undo.is_some() {
        return Ok((Mode::Delta, "an undo file needs the old bytes".to_owned()));
    }
    if context.options.change_map.is_some() {
        return Ok((Mode::Delta, "changes were tracked".to_owned()));
    }
    let Some(source) = context.source.image() else {
        return Ok((Mode::Delta, "the source is on another host".to_owned()));
    };
    if context.source.is_distant() {
        let why = "the source is reached over a network";
        return Ok((Mode::Delta, why.to_owned()));
    }
    let Some(file_ref) = context.target.file_ref() else {
        let why = "a device cannot be replaced by a copy";
        return Ok((Mode::Delta, why.to_owned()));
    };
    let is_atomic = context.options.safety == Safety::Atomic;
    let wants_root = context.options.target_manifest.is_some();
    if is_atomic && context.options.verify != Verify::All && !wants_root {
        let disk_len = context.target_len(Some(target.disk_len()))?;
        if context.clonable_source(disk_len)?.is_some() {
            return Ok((Mode::Full, "the file system clones the source".to_owned()));
        }
    }
    let clones = context.options.cloning == Cloning::Auto && file_ref.directory().can_clone()?;
    // A delta reads both sides and, logged, writes what changed twice; a copy reads one side and
    // writes everything once, and reads all of it back where that is wanted. To a clone what
    // changed is written once.
    let limit = match (context.options.safety, context.options.verify) {
        (Safety::Atomic, _) if clones => FULL_FROM_PERCENT_CLONED,
        (Safety::Atomic, Verify::None) => FULL_FROM_PERCENT,
        (Safety::Atomic, _) => FULL_FROM_PERCENT_VERIFIED,
        _ => {
            let why = "in place, reading what is equal costs less than writing it";
            return Ok((Mode::Delta, why.to_owned()));
        }
    };
    let sample = sample(&**source, target, context.options.block_size, context.work)?;
    if sample.looked == 0 {
        return Ok((Mode::Delta, "the source holds no data".to_owned()));
    }
    let percent = sample.changed * 100 / sample.looked;
    let (mode, so) = if percent >= limit {
        (Mode::Full, "full")
    } else {
        (Mode::Delta, "delta")
    };
    let (changed, looked) = (sample.changed, sample.looked);
    Ok((
        mode,
        format!("{changed} of {looked} sampled pages differ: {so} is less work"),
    ))
}

/// Pages, which is what a delta moves: of scattered changes much fewer than blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sample {
    /// Pages of 4 KiB that were looked at.
    pub looked: u64,
    /// Those of them that differ.
    pub changed: u64,
}

/// Looks at blocks spread evenly over the source's data, at most 256, to tell how much differs.
///
/// # Errors
/// `Io`, `Malformed`, `Cancelled`.
pub fn sample(
    source: &dyn Image,
    target: &dyn Image,
    block: BlockSize,
    work: &Work,
) -> Result<Sample> {
    let mut sample = Sample {
        looked: 0,
        changed: 0,
    };
    for_sampled(source, block, work, &mut |range| {
        let len = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let (mut new, mut old) = (vec![0; len], vec![0; len]);
        match source.read_exact_at(&mut new, range.start) {
            Ok(()) => {
                image::read_padded_at(target, &mut old, range.start)?;
                let page = PAGE_BYTES as usize;
                for (new, old) in new.chunks(page).zip(old.chunks(page)) {
                    sample.looked += 1;
                    sample.changed += u64::from(new != old);
                }
                Ok(())
            }
            // The code that moves the bytes says where, or skips them.
            Err(error) if error.kind() == ErrorKind::Io => Ok(()),
            Err(error) => Err(error),
        }
    })?;
    Ok(sample)
}

/// Emits ranges spread evenly over the source's data: at most 256, each at most a block long.
///
/// # Errors
/// `Io`, `Malformed`, `Cancelled`; those of `visit`.
pub(in crate::sync) fn for_sampled(
    source: &dyn Image,
    block: BlockSize,
    work: &Work,
    visit: &mut dyn FnMut(Range<u64>) -> Result<()>,
) -> Result<()> {
    let disk_len = source.disk_len();
    work.progress().begin(Phase::Sample, None);
    let step = disk_len.div_ceil(SAMPLES).max(block.bytes());
    let mut at = 0;
    while at < disk_len {
        work.cancel().check()?;
        let Some(extent) = source.next_extent(at)? else {
            break;
        };
        if extent.kind == ExtentKind::Zero {
            // Onwards to the next data, on the grid of steps.
            at = extent.end().div_ceil(step) * step;
            continue;
        }
        visit(at..(at + block.bytes()).min(extent.end()))?;
        at += step;
    }
    Ok(())
}

const SAMPLES: u64 = 256;
/// Where the two meet for a local pair of files, without reading back and with it; see
/// docs/internals/benchmarks.md.
const FULL_FROM_PERCENT: u64 = 20;
pub(crate) const FULL_FROM_PERCENT_VERIFIED: u64 = 50;
const FULL_FROM_PERCENT_CLONED: u64 = 90;
