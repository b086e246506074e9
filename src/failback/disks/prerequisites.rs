//! What must hold of the disks before a job begins.

use std::path::{Path, PathBuf};

use super::disk_path::{DiskPath, FoundName};
use super::encrypted_disk::EncryptedDisk;
use super::findings::{List, Looked, Prerequisite, crowded};
use super::host_disks::HostDisks;
use super::source_disk::SourceDisk;
use crate::error::{Error, Result};
use crate::failback::machine::Side;
use crate::progress::Work;
use crate::storage::{Directory, HostDirectory};

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
            // A source may have grown since the first pass: the target grows with it.
            let known = self.state(side, index).and_then(|state| state.current());
            let is_begun = matches!(known, Ok(Some(_)));
            if let Some(bytes) = disk.bytes.filter(|_| !is_begun) {
                list.size("source size", bytes, source_bytes);
            }
            let from = self.disk_path(side.other(), index);
            if from.is_ok_and(|from| self.refuse_device(&from).is_err()) {
                let text = "is a block device, which is written in place: after the commit \
                            `reverse` will be refused, unless the plan says `safety = \"in-place\"`";
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
                // What a pass was made onto is not made anew.
                None if is_begun && matches!(disk_path.found_name(), Ok(FoundName::Missing)) => {
                    list.fails("target disk", disk_path.gone().to_string());
                }
                Some(held) => {
                    let len = held.disk_len();
                    let grows = is_begun && len < source_bytes;
                    list.size(
                        "replica size",
                        source_bytes,
                        if grows { source_bytes } else { len },
                    );
                    if disk_path.is_device {
                        self.target_device(&mut list, &disk_path, &source, may_be_longer);
                    }
                }
                None => self.target(&mut list, &disk_path, &source, may_be_longer),
            }
        }
        let crowded = crowded(all.iter().filter_map(|it| it.room.as_ref()));
        let crowded = crowded.into_iter();
        all.extend(crowded.map(|text| Prerequisite::failed("free space", "all", text)));
        all
    }

    /// Looks at a disk that is to be read, which its VM may be writing to.
    fn look(&self, side: Side, index: usize) -> Result<Looked> {
        let source_disk = self.source_disk(side, index, true, &Work::with_threads(1)?)?;
        if source_disk.image().is_none() {
            source_disk.ask(|_| Ok(()))?;
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
        let path = match &found_name {
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
                Some(path.clone())
            }
        };
        if disk_path.is_device {
            return self.target_device(list, disk_path, source, may_be_longer);
        }
        if path.is_some() {
            let Some(target) = list.take("target readable", SourceDisk::of_target(disk_path))
            else {
                return;
            };
            let found = target.disk_len();
            // Formats that count in sectors round up.
            let rounded = source.disk_bytes.div_ceil(SECTOR) * SECTOR;
            let grows = found_name == Some(FoundName::Blocked) && found < rounded;
            match grows || found == rounded {
                true if grows => list.holds("target size", format!("grows to {rounded} bytes")),
                true => list.size("target size", rounded, found),
                false => list.size("target size", source.disk_bytes, found),
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
        match SourceDisk::of_target(disk_path) {
            // Its marker shows it, and the first pass compares all of it.
            Err(_) if SourceDisk::is_left_incomplete(disk_path) => {
                let text = "is taken over as an earlier job left it, incomplete";
                list.holds("target disk", text.to_owned());
            }
            target => {
                let Some(target) = list.take("target readable", target) else {
                    return;
                };
                let (wanted, found) = (source.disk_bytes, target.disk_len());
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
}

/// Whether the system lets this process write there: a read-only file system, an immutable
/// directory and permissions show here, before anything is begun.
fn refuse_unwritable(path: &Path) -> Result<()> {
    let allowed = rustix::fs::access(path, rustix::fs::Access::WRITE_OK);
    allowed.map_err(|e| Error::io("write to", e).at_path(path))
}

const SECTOR: u64 = 512;
