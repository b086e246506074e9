//! Which files the disks of a plan are, whatever paths lead to them.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;

use super::disk_path::DiskPath;
use crate::error::{Error, ErrorKind, Result};
use crate::failback::plan::Plan;
use crate::image::Format;

/// A disk of a plan at one site, as a file of this host.
#[derive(Debug)]
pub(in crate::failback) struct PlanFile {
    /// The VM, and the disk's identity.
    pub disk: String,
    /// As the plan names it.
    pub named: PathBuf,
    own: PathBuf,
    /// Device and inode, or the number of a block device; where it is there.
    id: Option<(u64, u64)>,
}

impl PlanFile {
    /// Whether both are one file.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.own == other.own || (self.id.is_some() && self.id == other.id)
    }
}

/// The disks of a plan that are files or devices of this host. One whose directory cannot be looked
/// at is left out: other checks find that.
pub(in crate::failback) fn files(plan: &Plan) -> Vec<PlanFile> {
    let mut all = Vec::new();
    for vm in plan.vms() {
        for disk in &vm.disks {
            for address in [&disk.primary, &disk.recovery] {
                let Some(path) = address.path() else {
                    continue;
                };
                let Ok(disk_path) = DiskPath::new(path, Format::of(address), &plan.name) else {
                    continue;
                };
                // Where it has several names, that is found elsewhere.
                let there = disk_path.path().ok().flatten();
                let facts = std::fs::metadata(there.as_ref().unwrap_or(&disk_path.own)).ok();
                all.push(PlanFile {
                    disk: format!("{} of {}", disk.identity, vm.name),
                    named: path.to_owned(),
                    id: facts.map(|facts| match facts.file_type().is_block_device() {
                        true => (u64::MAX, facts.rdev()),
                        false => (facts.dev(), facts.ino()),
                    }),
                    own: disk_path.own,
                });
            }
        }
    }
    all
}

/// Refuses a plan of which two disks are one file.
///
/// # Errors
/// `InvalidInput`, naming both.
pub(in crate::failback) fn refuse_one_file(plan: &Plan) -> Result<()> {
    let all = files(plan);
    for (index, one) in all.iter().enumerate() {
        if let Some(other) = all[..index].iter().find(|other| other.is(one)) {
            let text = format!(
                "two disks of the plan are one file: {} ({}) and {} ({})",
                other.named.display(),
                other.disk,
                one.named.display(),
                one.disk
            );
            return Err(Error::new(ErrorKind::InvalidInput, text)
                .advise("give each disk a file of its own, at each site"));
        }
    }
    Ok(())
}
