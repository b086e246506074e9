//! What a job would move for each disk, and the mode that follows from that.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::disk_path::age;
use super::host_disks::HostDisks;
use super::source_disk::SourceDisk;
use crate::error::Result;
use crate::failback::machine::{JobMode, Side};
use crate::image::Image;
use crate::progress::Work;
use crate::replica::ManifestImage;
use crate::sync::{FULL_FROM_PERCENT_VERIFIED, SampleTarget, Sampled, Throughput};

/// What a job would move for one disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Estimate {
    /// Which disk.
    pub disk: String,
    /// Length of the source's disk.
    pub disk_bytes: u64,
    /// Bytes that the source holds: what a full copy moves.
    pub data_bytes: u64,
    /// Bytes that a delta would move, as a sample says; `None` where the target is missing.
    pub changed_bytes: Option<u64>,
    /// How long reading all of the source takes at the speed of the sample.
    pub read_seconds: f64,
    /// How long bringing all of that over the line takes, at the speed at which the sample came; 0
    /// where the source is read on this host.
    pub line_seconds: f64,
    /// How long writing as much takes at the target, durably, at the speed of a small file there.
    pub write_seconds: f64,
    /// How long reading it back from the medium takes, at the same speed.
    pub back_seconds: f64,
    /// Bytes that the source's VM changed a second, on the average since the target was last
    /// written; `None` where that is not known.
    pub written_per_second: Option<f64>,
}

impl HostDisks {
    /// Estimates what a job would move, disk by disk. Reads a sample, and writes a small file
    /// without a name in the target's directory, to see how fast that is; changes nothing.
    ///
    /// # Errors
    /// `NotFound` for a missing source; those of the images; `Cancelled`.
    pub fn estimate(&self, work: &Work) -> Result<Vec<Estimate>> {
        (0..self.disks.len())
            .map(|index| self.estimate_disk(index, work))
            .collect()
    }

    fn estimate_disk(&self, index: usize, work: &Work) -> Result<Estimate> {
        let source = self.source_disk(Side::Source, index, true, work)?;
        let disk_path = self.disk_path(Side::Target, index)?;
        let encrypted = self.encrypted(Side::Target, index)?;
        let held = encrypted.as_ref().map(|it| it.target_manifest());
        let held = held.transpose()?.flatten();
        let disk;
        let (image, since): (Option<Arc<dyn Image>>, _) = match &held {
            Some(held) => {
                let image = ManifestImage::of(held.manifest(), source.disk_len())?;
                (Some(Arc::new(image)), encrypted.and_then(|it| it.age()))
            }
            None => {
                let path = disk_path.path()?;
                let path = path.filter(|_| !SourceDisk::is_left_incomplete(&disk_path));
                let target = path.as_ref().map(|_| SourceDisk::of_target(&disk_path));
                disk = target.transpose()?;
                let image = disk.as_ref().map(|disk| disk.local()).transpose()?;
                (image.cloned(), path.and_then(|path| age(&path)))
            }
        };
        let target = SampleTarget {
            held: held.as_ref(),
            image: image.as_ref(),
        };
        let disk_len = source.disk_len();
        let sampled = match source.image() {
            Some(image) => Sampled::of_image(&**image, &target, work)?,
            None => source.ask(|source| Sampled::of_remote(source, disk_len, &target, work))?,
        };
        let throughput = Throughput::at(disk_path.medium(), sampled.read, work)?;
        let data_bytes = sampled.data_bytes;
        let for_all = |seconds: f64| seconds * data_bytes as f64;
        let changed_since = sampled.changed_bytes.zip(since);
        Ok(Estimate {
            disk: self.disks[index].identity.clone(),
            disk_bytes: disk_len,
            data_bytes,
            changed_bytes: sampled.changed_bytes,
            read_seconds: for_all(sampled.read),
            line_seconds: for_all(sampled.moved),
            write_seconds: for_all(throughput.write),
            back_seconds: for_all(throughput.back),
            written_per_second: changed_since
                .map(|(bytes, since)| bytes as f64 / since.as_secs_f64().max(1.0)),
        })
    }
}

/// The mode that costs least, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recommendation {
    /// The mode.
    pub mode: JobMode,
    /// Why.
    pub reason: String,
}

impl Recommendation {
    /// Chooses from the estimates of all disks of a VM.
    pub fn of(estimates: &[Estimate]) -> Self {
        let data: u64 = estimates.iter().map(|disk| disk.data_bytes).sum();
        let missing = estimates.iter().any(|disk| disk.changed_bytes.is_none());
        let changed: u64 = estimates.iter().filter_map(|disk| disk.changed_bytes).sum();
        let percent = changed.saturating_mul(100).checked_div(data).unwrap_or(0);
        if missing {
            return Recommendation {
                mode: JobMode::FullFirst,
                reason: "a target disk is missing or incomplete, so everything moves; while the \
                         source runs"
                    .to_owned(),
            };
        }
        let (mode, so) = match percent {
            0..FULL_FROM_PERCENT_VERIFIED => (JobMode::Delta, "a delta moves least"),
            _ => (
                JobMode::FullFirst,
                "a full copy is less work than comparing",
            ),
        };
        Recommendation {
            mode,
            reason: format!("about {percent} % of what was sampled differs: {so}"),
        }
    }
}
