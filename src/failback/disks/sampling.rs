//! Estimates from samples of the disks.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::disk_path::{DiskPath, age};
use super::disk_state::nothing;
use super::encrypted_disk::EncryptedDisk;
use super::estimate::Estimate;
use super::host_disks::HostDisks;
use super::source_disk::SourceDisk;
use super::throughput_probe::ThroughputProbe;
use crate::diff::CompareOptions;
use crate::error::{ErrorKind, Result};
use crate::failback::machine::Side;
use crate::image::Image;
use crate::manifest::TargetManifest;
use crate::progress::Work;
use crate::replica::ManifestImage;
use crate::sync::{REMOTE_BLOCK_BYTES, Search, sample};
use crate::units::{BlockSize, PAGE_BYTES};

/// What a sample of a disk has found.
struct Sampled {
    /// What the source holds as data.
    data_bytes: u64,
    /// How many bytes the sample stands for.
    stands_for: u64,
    /// How much was looked at, and differs; `None` where there was nothing to compare with.
    changed: Option<(u64, u64)>,
    /// How many bytes were read, and for how long.
    read: (u64, f64),
    /// How many bytes came over the line, and for how long.
    moved: (u64, f64),
}

/// What a sample is compared with.
struct Before {
    /// What a replica holds.
    held: Option<TargetManifest>,
    /// The target's disk, where there is no replica.
    target: Option<SourceDisk>,
    /// How long ago it was written.
    since: Option<Duration>,
}

impl HostDisks {
    /// Estimates what a job would move, disk by disk. Reads a sample, and writes a small file
    /// without a name in the target's directory, to see how fast that is; changes nothing.
    ///
    /// # Errors
    /// `NotFound` for a missing source; those of the images; `Cancelled`.
    pub fn estimate(&self, work: &Work) -> Result<Vec<Estimate>> {
        let estimates = self.disks.iter().enumerate().map(|(index, disk)| {
            let source = self.source_disk(Side::Source, index, true, work)?;
            let target = self.disk_path(Side::Target, index)?;
            let before = Before::of(&target, self.encrypted(Side::Target, index)?)?;
            let sampled = match source.image() {
                Some(image) => sample_image(&**image, &before, work)?,
                None => sample_remote(&source, &before, work)?,
            };
            let data_bytes = sampled.data_bytes;
            let throughput = ThroughputProbe::at(&target, a_byte(sampled.read), work)?;
            let changed_bytes = sampled.changed.map(|it| share(it, sampled.stands_for));
            let changed_since = changed_bytes.zip(before.since);
            Ok(Estimate {
                disk: disk.identity.clone(),
                disk_bytes: source.disk_len(),
                data_bytes,
                changed_bytes,
                read_seconds: a_byte(sampled.read) * data_bytes as f64,
                line_seconds: a_byte(sampled.moved) * data_bytes as f64,
                write_seconds: throughput.write * data_bytes as f64,
                back_seconds: throughput.back * data_bytes as f64,
                written_per_second: changed_since
                    .map(|(bytes, since)| bytes as f64 / since.as_secs_f64().max(1.0)),
            })
        });
        estimates.collect()
    }
}

impl Before {
    fn of(disk_path: &DiskPath, encrypted: Option<EncryptedDisk>) -> Result<Self> {
        if let Some(encrypted) = encrypted
            && let Some(held) = encrypted.target_manifest()?
        {
            return Ok(Before {
                held: Some(held),
                target: None,
                since: encrypted.age(),
            });
        }
        let path = disk_path.path()?;
        let path = path.filter(|_| !SourceDisk::is_left_incomplete(disk_path));
        let target = path.as_ref().map(|_| SourceDisk::of_target(disk_path));
        Ok(Before {
            held: None,
            target: target.transpose()?,
            since: path.and_then(|path| age(&path)),
        })
    }
}

/// From a sample of the source's data.
fn sample_image(source: &dyn Image, before: &Before, work: &Work) -> Result<Sampled> {
    let data_bytes = source.allocated_bytes()?;
    let begun = Instant::now();
    let (changed, read) = match &before.held {
        Some(held) => {
            let (looked, changed) = EncryptedDisk::sample(source, held.manifest(), work)?;
            let read = looked * held.manifest().block_size().bytes();
            (Some((looked, changed)), read)
        }
        None => {
            let target = before.target.as_ref().map(|it| it.local()).transpose()?;
            // Without a target only to see how fast the source is read.
            let with = target.map_or(source, |target| &**target);
            let found = sample(source, with, BlockSize::default(), work)?;
            let changed = target.map(|_| (found.looked, found.changed));
            (changed, found.looked * 2 * PAGE_BYTES)
        }
    };
    Ok(Sampled {
        data_bytes,
        stands_for: data_bytes,
        changed,
        read: (read, begun.elapsed().as_secs_f64()),
        moved: (0, 0.0),
    })
}

/// From a sample of all of the disk: where its data is cannot be told from here.
fn sample_remote(source: &SourceDisk, before: &Before, work: &Work) -> Result<Sampled> {
    let disk_len = source.disk_len();
    let ranges = spread(disk_len);
    let looked = ranges.iter().map(|range| range.end - range.start).sum();
    let options = CompareOptions::default().with_change_map(Some(ranges));
    let nothing = nothing(disk_len)?;
    let held = before.held.as_ref();
    let image = held.map(|held| ManifestImage::of(held.manifest(), disk_len));
    let image = image.transpose()?;
    let target: Option<&dyn Image> = match (&image, &before.target) {
        (Some(image), _) => Some(image),
        (None, Some(target)) => Some(&**target.local()?),
        (None, None) => None,
    };
    source.ask(|source| {
        let begun = Instant::now();
        let search = Search {
            kept: held,
            counts_only: true,
            ..Search::new(target.unwrap_or(&*nothing), disk_len, &options)
        };
        let (counted, _) = source.find(search, work, &|_| Ok(()))?;
        let read = (looked, begun.elapsed().as_secs_f64());
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
        Ok(Sampled {
            data_bytes: share((looked, data), disk_len),
            stands_for: disk_len,
            changed: target.map(|_| (looked, counted.changed_bytes)),
            read,
            moved: (data, begun.elapsed().as_secs_f64()),
        })
    })
}

/// At most 256 blocks, spread evenly.
pub(super) fn spread(disk_len: u64) -> Vec<Range<u64>> {
    let step = disk_len
        .div_ceil(SAMPLES)
        .next_multiple_of(REMOTE_BLOCK_BYTES);
    let starts = (0..SAMPLES).map(|index| index.saturating_mul(step));
    starts
        .take_while(|start| *start < disk_len)
        .map(|start| start..(start + REMOTE_BLOCK_BYTES).min(disk_len))
        .collect()
}

fn a_byte((bytes, seconds): (u64, f64)) -> f64 {
    seconds / bytes.max(1) as f64
}

fn share((looked, changed): (u64, u64), of: u64) -> u64 {
    let part = u128::from(of) * u128::from(changed) / u128::from(looked.max(1));
    u64::try_from(part).unwrap_or(u64::MAX)
}

const SAMPLES: u64 = 256;

#[cfg(test)]
#[path = "../../../tests/inside/failback/sampling.rs"]
mod tests;
