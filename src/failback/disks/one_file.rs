//! Which files the disks of a plan are, whatever paths lead to them.

use std::path::PathBuf;

use super::disk_path::DiskPath;
use crate::error::{Error, ErrorKind, Result};
use crate::failback::plan::Plan;
use crate::image::Format;
use crate::storage::HostFile;

/// A disk of a plan at one site, as a file of this host.
#[derive(Debug)]
pub(in crate::failback) struct PlanFile {
    /// The VM, and the disk's identity.
    pub disk: String,
    /// As the plan names it.
    pub named: PathBuf,
    own: PathBuf,
    /// Where it is there.
    file: Option<HostFile>,
}

impl PlanFile {
    /// Whether both are one file.
    pub(crate) fn is(&self, other: &Self) -> bool {
        let files = self.file.as_ref().zip(other.file.as_ref());
        self.own == other.own || files.is_some_and(|(one, other)| one.is_same(other))
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
                all.push(PlanFile {
                    disk: format!("{} of {}", disk.identity, vm.name),
                    named: path.to_owned(),
                    file: HostFile::at(there.as_ref().unwrap_or(&disk_path.own)).ok(),
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
