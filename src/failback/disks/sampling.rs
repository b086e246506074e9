//! Estimates from samples of the disks.

use std::time::{Duration, Instant};

use super::disk_path::{DiskPath, age};
use super::encrypted_disk::EncryptedDisk;
use super::estimate::Estimate;
use super::host_disks::HostDisks;
use super::open_disk::OpenDisk;
use super::source_disk::SourceDisk;
use super::throughput_probe::ThroughputProbe;
use crate::error::Result;
use crate::failback::machine::Side;
use crate::image::Image;
use crate::progress::Work;
use crate::replica::ManifestImage;
use crate::sync::sample;
use crate::units::{BlockSize, PAGE_BYTES};

/// What a sample of a disk has found.
struct Sampled {
    data_bytes: u64,
    changed_bytes: Option<u64>,
    read_seconds: f64,
    line_seconds: f64,
    /// How long a byte takes to be looked at.
    byte_seconds: f64,
    /// How long ago the target was written.
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
            let encrypted = self.encrypted(Side::Target, index)?;
            let sampled = match source.image() {
                Some(image) => sample_image(&**image, &target, encrypted.as_ref(), work)?,
                None => sample_remote(&source, &target, encrypted.as_ref(), work)?,
            };
            let throughput = ThroughputProbe::at(&target, sampled.byte_seconds, work)?;
            let changed = sampled.changed_bytes.zip(sampled.since);
            Ok(Estimate {
                disk: disk.identity.clone(),
                disk_bytes: source.disk_len(),
                data_bytes: sampled.data_bytes,
                changed_bytes: sampled.changed_bytes,
                read_seconds: sampled.read_seconds,
                line_seconds: sampled.line_seconds,
                write_seconds: throughput.write * sampled.data_bytes as f64,
                back_seconds: throughput.back * sampled.data_bytes as f64,
                written_per_second: changed
                    .map(|(bytes, since)| bytes as f64 / since.as_secs_f64().max(1.0)),
            })
        });
        estimates.collect()
    }
}

/// From a sample of the source's data.
fn sample_image(
    source: &dyn Image,
    target: &DiskPath,
    encrypted: Option<&EncryptedDisk>,
    work: &Work,
) -> Result<Sampled> {
    let held = encrypted.map_or(Ok(None), EncryptedDisk::manifest)?;
    let data_bytes = source.allocated_bytes()?;
    let begin = Instant::now();
    let (looked, changed, since) = match (held, target.path()?) {
        (Some(held), _) => {
            let (looked, changed) = EncryptedDisk::sample(source, &held, work)?;
            let looked_bytes = looked * held.block_size().bytes();
            let since = encrypted.and_then(EncryptedDisk::age);
            (looked_bytes, Some((looked, changed)), since)
        }
        (None, Some(path)) if !OpenDisk::is_left_incomplete(target) => {
            let target = OpenDisk::of_target(target)?;
            let found = sample(source, &**target.image(), BlockSize::default(), work)?;
            let changed = Some((found.looked, found.changed));
            (found.looked * 2 * PAGE_BYTES, changed, age(&path))
        }
        // Only to see how fast it is read.
        (None, _) => {
            let found = sample(source, source, BlockSize::default(), work)?;
            (found.looked * 2 * PAGE_BYTES, None, None)
        }
    };
    let seconds = begin.elapsed().as_secs_f64();
    let read_seconds = seconds * data_bytes as f64 / looked.max(1) as f64;
    Ok(Sampled {
        data_bytes,
        changed_bytes: changed.map(|sampled| share(sampled, data_bytes)),
        read_seconds,
        line_seconds: 0.0,
        byte_seconds: read_seconds / data_bytes.max(1) as f64,
        since,
    })
}

/// From a sample of all of the disk: where its data is cannot be told from here.
fn sample_remote(
    source: &SourceDisk,
    target: &DiskPath,
    encrypted: Option<&EncryptedDisk>,
    work: &Work,
) -> Result<Sampled> {
    let held = encrypted.map_or(Ok(None), EncryptedDisk::target_manifest)?;
    let (found, since) = match &held {
        Some(held) => {
            let image = ManifestImage::of(held.manifest(), source.disk_len())?;
            let found = source.sample(Some(&image), Some(held), work)?;
            (found, encrypted.and_then(EncryptedDisk::age))
        }
        None => {
            let path = target.path()?;
            let path = path.filter(|_| !OpenDisk::is_left_incomplete(target));
            let target = path
                .as_ref()
                .map(|_| OpenDisk::of_target(target))
                .transpose()?;
            let found = source.sample(target.as_ref().map(|it| &**it.image()), None, work)?;
            (found, path.and_then(|path| age(&path)))
        }
    };
    let of = |sampled: u64| share((found.looked, sampled), source.disk_len());
    let data_bytes = of(found.data);
    let per = |seconds: f64, bytes: u64| seconds * data_bytes as f64 / bytes.max(1) as f64;
    Ok(Sampled {
        data_bytes,
        changed_bytes: found.changed.map(of),
        read_seconds: per(found.compare_seconds, found.looked),
        line_seconds: per(found.move_seconds, found.data),
        byte_seconds: found.compare_seconds / found.looked.max(1) as f64,
        since,
    })
}

fn share((looked, changed): (u64, u64), of: u64) -> u64 {
    let part = u128::from(of) * u128::from(changed) / u128::from(looked.max(1));
    u64::try_from(part).unwrap_or(u64::MAX)
}
