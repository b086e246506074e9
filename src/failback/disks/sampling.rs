//! Estimates from samples of the disks.

use std::sync::Arc;

use super::disk_path::age;
use super::estimate::Estimate;
use super::host_disks::HostDisks;
use super::source_disk::SourceDisk;
use crate::error::Result;
use crate::failback::machine::Side;
use crate::image::Image;
use crate::progress::Work;
use crate::replica::ManifestImage;
use crate::sync::{SampleTarget, Sampled, Throughput};

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
