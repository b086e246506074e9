//! What a sample says of two disks, and how fast it was read.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::estimate::{for_sampled, sample};
use crate::diff::CompareOptions;
use crate::error::{ErrorKind, Result};
use crate::hash::Hash;
use crate::image::{Image, Resized};
use crate::manifest::{Manifest, TargetManifest};
use crate::progress::Work;
use crate::sync::source::backend::{REMOTE_BLOCK_BYTES, Search, SourceBackend};
use crate::units::{BlockSize, PAGE_BYTES, is_zero};

/// What a sample of a disk has found.
pub(crate) struct Sampled {
    /// What the source holds as data.
    pub data_bytes: u64,
    /// What of it would change, where there was something to compare with.
    pub changed_bytes: Option<u64>,
    /// How long reading a byte takes, in seconds.
    pub read: f64,
    /// How long bringing a byte over the line takes, in seconds.
    pub moved: f64,
}

/// What a sample is compared with.
pub(crate) struct Target<'a> {
    /// What stands for reading it.
    pub held: Option<&'a TargetManifest>,
    /// The disk, or one made of what is held.
    pub image: Option<&'a Arc<dyn Image>>,
}

impl Sampled {
    /// A sample of the data of an image that can be read directly.
    ///
    /// # Errors
    /// Those of the images; `Cancelled`.
    pub(crate) fn of_image(source: &dyn Image, target: &Target<'_>, work: &Work) -> Result<Self> {
        let data_bytes = source.allocated_bytes()?;
        let begun = Instant::now();
        let (changed, read) = match (target.held, target.image) {
            (Some(held), _) => {
                let (looked, changed) = sample_held(source, held.manifest(), work)?;
                let read = looked * held.manifest().block_size().bytes();
                (Some((looked, changed)), read)
            }
            (None, image) => {
                // Without a target only to see how fast the source is read.
                let with = image.map_or(source, |image| &**image);
                let found = sample(source, with, BlockSize::default(), work)?;
                let changed = image.map(|_| (found.looked, found.changed));
                (changed, found.looked * 2 * PAGE_BYTES)
            }
        };
        Ok(Sampled {
            data_bytes,
            changed_bytes: changed.map(|it| share(it, data_bytes)),
            read: a_byte(read, begun),
            moved: 0.0,
        })
    }

    /// A sample of all of a disk at the other end of a connection: where its data is, is not known
    /// here.
    ///
    /// # Errors
    /// Those of the connection; `Cancelled`.
    pub(crate) fn of_remote(
        source: &dyn SourceBackend,
        disk_len: u64,
        target: &Target<'_>,
        work: &Work,
    ) -> Result<Self> {
        let ranges = spread(disk_len);
        let looked = ranges.iter().map(|range| range.end - range.start).sum();
        let options = CompareOptions::default().with_change_map(Some(ranges));
        let nothing = Resized::zeros(disk_len)?;
        let begun = Instant::now();
        let search = Search {
            kept: target.held,
            counts_only: true,
            ..Search::new(&**target.image.unwrap_or(&nothing), disk_len, &options)
        };
        let (counted, _) = source.find(search, work, &|_| Ok(()))?;
        let read = a_byte(looked, begun);
        let begun = Instant::now();
        let data = AtomicU64::new(0);
        let moved = source.compare(&*nothing, disk_len, &options, work, &|difference| {
            data.fetch_add(difference.new.len(), Ordering::Relaxed);
            Ok(())
        });
        match moved {
            // Its VM has written there meanwhile.
            Err(error) if error.kind() == ErrorKind::VerifyFailed => {}
            moved => drop(moved?),
        }
        let data = data.into_inner();
        let changed = target.image.map(|_| (looked, counted.changed_bytes));
        Ok(Sampled {
            data_bytes: share((looked, data), disk_len),
            changed_bytes: changed.map(|it| share(it, disk_len)),
            read,
            moved: a_byte(data, begun),
        })
    }
}

/// How many of the blocks that a sample looked at differ from what is held: looked at, and
/// different.
fn sample_held(source: &dyn Image, held: &Manifest, work: &Work) -> Result<(u64, u64)> {
    let size = held.block_size();
    let (mut looked, mut differ) = (0, 0);
    for_sampled(source, size, work, &mut |sampled| {
        let block = sampled.start / size.bytes();
        let range = size.range(block, source.disk_len());
        let len = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let mut bytes = vec![0; len];
        source.read_exact_at(&mut bytes, range.start)?;
        let now = (!is_zero(&bytes)).then(|| Hash::of(&bytes));
        looked += 1;
        differ += u64::from(held.hash(block)? != now);
        Ok(())
    })?;
    Ok((looked, differ))
}

/// At most 256 blocks, spread evenly.
fn spread(disk_len: u64) -> Vec<Range<u64>> {
    let step = disk_len
        .div_ceil(SAMPLES)
        .next_multiple_of(REMOTE_BLOCK_BYTES);
    let starts = (0..SAMPLES).map(|index| index.saturating_mul(step));
    starts
        .take_while(|start| *start < disk_len)
        .map(|start| start..(start + REMOTE_BLOCK_BYTES).min(disk_len))
        .collect()
}

fn a_byte(bytes: u64, since: Instant) -> f64 {
    since.elapsed().as_secs_f64() / bytes.max(1) as f64
}

fn share((looked, changed): (u64, u64), of: u64) -> u64 {
    let part = u128::from(of) * u128::from(changed) / u128::from(looked.max(1));
    u64::try_from(part).unwrap_or(u64::MAX)
}

const SAMPLES: u64 = 256;

#[cfg(test)]
#[path = "../../../tests/inside/sync/sampled.rs"]
mod tests;
