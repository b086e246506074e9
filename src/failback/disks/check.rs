//! What must hold of the disks before a job begins, and what each mode would cost.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

use super::disk_path::{DiskPath, FoundName};
use super::encrypted_disk::EncryptedDisk;
use super::findings::{List, Looked, Room, crowded};
use super::open_disk::OpenDisk;
use super::remote_disk::RemoteDisk;
use super::source_disk::SourceDisk;
use super::throughput_probe::ThroughputProbe;
use super::{HostDisks, open_to_write};
use crate::error::{Error, ErrorKind, Result};
use crate::failback::machine::{JobMode, Side};
use crate::progress::Work;
use crate::replica::ManifestImage;
use crate::storage::{Directory, HostDirectory};
use crate::sync::{FULL_FROM_PERCENT_VERIFIED, sample};
use crate::units::{BlockSize, PAGE_BYTES};

/// Something that was checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Prerequisite {
    /// What was checked, in a word or two.
    pub check: Cow<'static, str>,
    /// Of which disk.
    pub disk: String,
    /// What was found; where it does not hold, what is wrong.
    pub text: String,
    /// It holds.
    pub holds: bool,
    /// What the disk will take, where that was looked at on this host.
    #[serde(skip)]
    pub(in crate::failback) room: Option<Room>,
}

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

impl HostDisks {
    /// Looks at both sides' disks, one check after the other, and changes nothing. `side` is the
    /// one that will be written.
    pub fn prerequisites(&self, side: Side) -> Vec<Prerequisite> {
        let mut all = Vec::new();
        for (index, disk) in self.disks.iter().enumerate() {
            let mut list = List {
                disk: &disk.identity,
                all: &mut all,
            };
            let Some(source) = list.take("source readable", self.look(side.other(), index)) else {
                continue;
            };
            let source_bytes = source.disk_bytes;
            if let Some(bytes) = disk.bytes {
                list.size("source size", bytes, source_bytes);
            }
            let from = self.disk_path(side.other(), index);
            if from.is_ok_and(|from| self.refuse_device(&from).is_err()) {
                let text = "is a block device, which is written in place: after the commit `reverse` \
                            will be refused, unless the plan says `safety = \"in-place\"`";
                list.holds("source disk", text.to_owned());
            }
            let Some(disk_path) = list.take("target reachable", self.disk_path(side, index)) else {
                continue;
            };
            let Some(encrypted) = list.take("key", self.encrypted(side, index)) else {
                continue;
            };
            let held = encrypted.as_ref().map_or(Ok(None), EncryptedDisk::manifest);
            let Some(held) = list.take("replica", held) else {
                continue;
            };
            let room = encrypted.map(|encrypted| encrypted.free_bytes());
            if let (Some(room), true) = (room, self.replica_directory(side).is_some()) {
                let at = self.replica_directory(side).unwrap_or(Path::new("/"));
                list.room("replica directory", room, at, &source, held.is_some());
            }
            let may_be_longer = disk.may_be_longer();
            match held {
                Some(held) => {
                    list.size("replica size", source_bytes, held.disk_len());
                    if disk_path.is_device {
                        self.target_device(&mut list, &disk_path, &source, may_be_longer);
                    }
                }
                None => self.target(&mut list, &disk_path, &source, may_be_longer),
            }
        }
        let crowded = crowded(all.iter().filter_map(|it| it.room.as_ref()));
        all.extend(crowded.into_iter().map(|text| Prerequisite {
            check: "free space".into(),
            disk: "all".to_owned(),
            text,
            holds: false,
            room: None,
        }));
        all
    }

    /// Looks at a disk that is to be read, which its VM may be writing to.
    fn look(&self, side: Side, index: usize) -> Result<Looked> {
        let source_disk = self.source_disk(side, index, true, &Work::with_threads(1)?)?;
        if let SourceDisk::Remote(remote) = &source_disk {
            remote.close()?;
        }
        let allocated = source_disk.image().map(|image| image.allocated_bytes());
        Ok(Looked {
            disk_bytes: source_disk.disk_len(),
            allocated_bytes: allocated.transpose()?,
        })
    }

    fn target(
        &self,
        list: &mut List<'_>,
        disk_path: &DiskPath,
        source: &Looked,
        may_be_longer: bool,
    ) {
        let found_name = list.take("target name", disk_path.found_name());
        let path = match found_name {
            None => return,
            Some(FoundName::Missing) if self.create && !disk_path.is_device => {
                list.holds("target disk", "is missing, and will be made".to_owned());
                None
            }
            Some(FoundName::Missing) => {
                list.fails("target disk", "is missing, and may not be made".to_owned());
                return;
            }
            Some(FoundName::Own) => Some(disk_path.own.clone()),
            Some(FoundName::Blocked) => Some(disk_path.blocked.clone()),
            Some(FoundName::Left(path)) => {
                let text = format!("is taken over as it was left: {}", path.display());
                list.holds("target disk", text);
                Some(path)
            }
        };
        if disk_path.is_device {
            return self.target_device(list, disk_path, source, may_be_longer);
        }
        if path.is_some() {
            let Some(target) = list.take("target readable", target_image(disk_path)) else {
                return;
            };
            let target = target.image();
            // Formats that count in sectors round up.
            let rounded = source.disk_bytes.div_ceil(SECTOR) * SECTOR;
            match target.disk_len() == rounded {
                true => list.size("target size", rounded, target.disk_len()),
                false => list.size("target size", source.disk_bytes, target.disk_len()),
            }
        }
        let free =
            HostDirectory::open(disk_path.directory()).and_then(|directory| directory.free_bytes());
        list.room(
            "free space",
            free,
            disk_path.directory(),
            source,
            path.is_some(),
        );
        let at = path
            .iter()
            .map(PathBuf::as_path)
            .chain([disk_path.directory()]);
        for path in at {
            if let Err(error) = refuse_unwritable(path) {
                list.fails("target writable", error.to_string());
            }
        }
    }

    fn replica_directory(&self, side: Side) -> Option<&Path> {
        self.encryption.of(side).as_ref()?.directory.as_deref()
    }

    fn target_device(
        &self,
        list: &mut List<'_>,
        disk_path: &DiskPath,
        source: &Looked,
        may_be_longer: bool,
    ) {
        if list
            .take("in place", self.refuse_device(disk_path))
            .is_none()
        {
            return;
        }
        match target_image(disk_path) {
            // It is told by its marker, and the first pass compares all of it.
            Err(_) if is_left_incomplete(disk_path) => {
                let text = "is taken over as an earlier job left it, incomplete";
                list.holds("target disk", text.to_owned());
            }
            target => {
                let Some(target) = list.take("target readable", target) else {
                    return;
                };
                let (wanted, found) = (source.disk_bytes, target.image().disk_len());
                match found > wanted && may_be_longer {
                    true => list.holds(
                        "target size",
                        format!("{found} bytes, of which the disk takes {wanted}"),
                    ),
                    false => list.size("target size", wanted, found),
                }
            }
        }
    }

    /// Estimates what a job would move, disk by disk. Reads a sample, and writes a small file
    /// without a name in the target's directory, to see how fast that is; changes nothing.
    ///
    /// # Errors
    /// `NotFound` for a missing source; those of the images; `Cancelled`.
    pub fn estimate(&self, work: &Work) -> Result<Vec<Estimate>> {
        let estimates = self.disks.iter().enumerate().map(|(index, disk)| {
            let source_disk = self.source_disk(Side::Source, index, true, work)?;
            let disk_path = self.disk_path(Side::Target, index)?;
            let encrypted = self.encrypted(Side::Target, index)?;
            if let SourceDisk::Remote(remote) = &source_disk {
                return remote_estimate(
                    remote,
                    &disk.identity,
                    &disk_path,
                    encrypted.as_ref(),
                    work,
                );
            }
            let source = source_disk.local()?;
            let held = encrypted
                .as_ref()
                .map_or(Ok(None), EncryptedDisk::manifest)?;
            let data_bytes = source.allocated_bytes()?;
            let begin = Instant::now();
            let (looked, changed, since) = match (held, disk_path.path()?) {
                (Some(held), _) => {
                    let (looked, changed) = EncryptedDisk::sample(&**source, &held, work)?;
                    let since = encrypted.and_then(|encrypted| encrypted.age());
                    (
                        looked * held.block_size().bytes(),
                        Some((looked, changed)),
                        since,
                    )
                }
                (None, Some(path)) if !is_left_incomplete(&disk_path) => {
                    let target = target_image(&disk_path)?;
                    let target = target.image();
                    let found = sample(&**source, &**target, BlockSize::default(), work)?;
                    let (looked, changed) = (found.looked, found.changed);
                    (looked * 2 * PAGE_BYTES, Some((looked, changed)), age(&path))
                }
                // Only to see how fast it is read.
                (None, _) => {
                    let found = sample(&**source, &**source, BlockSize::default(), work)?;
                    (found.looked * 2 * PAGE_BYTES, None, None)
                }
            };
            let seconds = begin.elapsed().as_secs_f64();
            let changed_bytes = changed.map(|sampled| share(sampled, data_bytes));
            let read_seconds = seconds * data_bytes as f64 / looked.max(1) as f64;
            let throughput =
                ThroughputProbe::at(&disk_path, read_seconds / data_bytes.max(1) as f64, work)?;
            Ok(Estimate {
                disk: disk.identity.clone(),
                disk_bytes: source.disk_len(),
                data_bytes,
                changed_bytes,
                read_seconds,
                line_seconds: 0.0,
                write_seconds: throughput.write * data_bytes as f64,
                back_seconds: throughput.back * data_bytes as f64,
                written_per_second: rate(changed_bytes, since),
            })
        });
        estimates.collect()
    }
}

/// Whether the system lets this process write there: a read-only file system, an immutable
/// directory and permissions show here, before anything is begun.
fn refuse_unwritable(path: &Path) -> Result<()> {
    let allowed = rustix::fs::access(path, rustix::fs::Access::WRITE_OK);
    allowed.map_err(|e| Error::io("write to", e).at_path(path))
}

/// From a sample of all of the disk: where its data is cannot be told from here.
fn remote_estimate(
    remote: &RemoteDisk,
    identity: &str,
    disk_path: &DiskPath,
    encrypted: Option<&EncryptedDisk>,
    work: &Work,
) -> Result<Estimate> {
    let held = encrypted.map_or(Ok(None), EncryptedDisk::target_manifest)?;
    let (found, since) = match &held {
        Some(held) => {
            let unseen = ManifestImage::of(held.manifest(), remote.disk_len())?;
            let found = remote.sample(Some(&unseen), Some(held), work)?;
            (found, encrypted.and_then(EncryptedDisk::age))
        }
        None => {
            let path = disk_path.path()?.filter(|_| !is_left_incomplete(disk_path));
            let target = path.as_ref().map(|_| target_image(disk_path)).transpose()?;
            let found = remote.sample(target.as_ref().map(|it| &**it.image()), None, work)?;
            (found, path.and_then(|path| age(&path)))
        }
    };
    let disk_bytes = remote.disk_len();
    let data_bytes = share((found.looked, found.data), disk_bytes);
    let changed_bytes = found
        .changed
        .map(|changed| share((found.looked, changed), disk_bytes));
    let per = |seconds: f64, bytes: u64| seconds * data_bytes as f64 / bytes.max(1) as f64;
    let one = found.compare_seconds / found.looked.max(1) as f64;
    let throughput = ThroughputProbe::at(disk_path, one, work)?;
    Ok(Estimate {
        disk: identity.to_owned(),
        disk_bytes,
        data_bytes,
        changed_bytes,
        read_seconds: per(found.compare_seconds, found.looked),
        line_seconds: per(found.move_seconds, found.data),
        write_seconds: throughput.write * data_bytes as f64,
        back_seconds: throughput.back * data_bytes as f64,
        written_per_second: rate(changed_bytes, since),
    })
}

/// The target's disk, which nobody may be writing to.
fn target_image(disk_path: &DiskPath) -> Result<OpenDisk> {
    let opened = Work::with_threads(1).and_then(|work| OpenDisk::open(disk_path, &work));
    opened.map_err(|error| match error.kind() {
        ErrorKind::InUse => Error::new(ErrorKind::InUse, format!("{error}; is its VM off?")),
        _ => error,
    })
}

/// Whether it is a device that a job left held and incomplete.
fn is_left_incomplete(disk_path: &DiskPath) -> bool {
    let marked = |error: Error| error.kind() == ErrorKind::Incomplete;
    disk_path.is_device && target_image(disk_path).is_err_and(marked) && is_left(disk_path)
}

/// Whether a device is held, so that a job may go on with it whatever it holds.
fn is_left(disk_path: &DiskPath) -> bool {
    let target = open_to_write(&disk_path.own, disk_path.format);
    let marker = target.and_then(|target| target.marker());
    marker.is_ok_and(|marker| marker.is_some_and(|marker| marker.held))
}

/// How long ago a file was last written, where its clock makes sense.
pub(super) fn age(path: &Path) -> Option<Duration> {
    let written = std::fs::metadata(path).ok()?.modified().ok()?;
    SystemTime::now().duration_since(written).ok()
}

fn rate(changed_bytes: Option<u64>, since: Option<Duration>) -> Option<f64> {
    let (bytes, since) = changed_bytes.zip(since)?;
    Some(bytes as f64 / since.as_secs_f64().max(1.0))
}

fn share((looked, changed): (u64, u64), of: u64) -> u64 {
    let part = u128::from(of) * u128::from(changed) / u128::from(looked.max(1));
    u64::try_from(part).unwrap_or(u64::MAX)
}

const SECTOR: u64 = 512;
