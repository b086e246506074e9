//! What is done to disks of this host, as the executor asks for it.

use super::disk_path::DiskPath;
use super::disk_state::{DiskState, combined, cut};
use super::open_disk::OpenDisk;
use super::{HostDisks, Prerequisite, open_to_write, pass, restore};
use crate::error::Result;
use crate::failback::disk_work::{CopyOrder, DiskWork, Finding, Roots};
use crate::failback::machine::{PassReport, Root, Side, Token};
use crate::failback::vm::DiskChanges;
use crate::progress::Work;

impl DiskWork for HostDisks {
    fn check(&self, token: Token, side: Side) -> Result<Vec<Finding>> {
        self.admit(side, token)?;
        let all = self.prerequisites(side);
        Ok(all.into_iter().filter_map(Prerequisite::finding).collect())
    }

    fn block(&self, token: Token, side: Side) -> Result<()> {
        self.admit(side, token)?;
        for (index, disk_path) in self.disk_paths(side).enumerate() {
            let disk_path = disk_path?;
            self.refuse_device(&disk_path)?;
            if let Some(path) = disk_path.path()? {
                // the process that runs from it has it open.
                let target = open_to_write(&path, disk_path.format)?;
                if disk_path.is_device {
                    target.hold(&Work::with_threads(1)?)?;
                }
            }
            if !disk_path.block()? {
                self.may_be_missing(side, index, &disk_path)?;
            }
        }
        Ok(())
    }

    fn unblock(&self, token: Token, side: Side) -> Result<()> {
        self.admit(side, token)?;
        for (index, disk_path) in self.disk_paths(side).enumerate() {
            let disk_path = disk_path?;
            let encrypted = self.encrypted(side, index)?;
            if let Some(encrypted) = &encrypted {
                let state = self.state(side, index)?;
                // A replica that this job has added nothing to stays what it is.
                if encrypted.exists()? && state.current()?.is_none() {
                    continue;
                }
                if encrypted.is_alone(&state)? {
                    return Err(encrypted.not_written_out());
                }
            }
            if let Some(path) = disk_path.path()? {
                let target = open_to_write(&path, disk_path.format)?;
                if disk_path.is_device {
                    target.release(&Work::with_threads(1)?)?;
                } else if let Some(mark) = target.mark()? {
                    return Err(mark.refusal().at_path(path));
                }
            }
            if let Some(encrypted) = encrypted {
                encrypted.give_up()?;
            }
            if !disk_path.unblock()? {
                self.may_be_missing(side, index, &disk_path)?;
            }
        }
        Ok(())
    }

    fn copy(&self, token: Token, order: &CopyOrder<'_>, work: &Work) -> Result<PassReport> {
        self.admit(order.to, token)?;
        self.admit(order.to.other(), token)?;
        pass::copy(self, order, work)
    }

    fn verify(&self, token: Token, side: Side, work: &Work) -> Result<Option<Roots>> {
        self.admit(side, token)?;
        let (mut found, mut expected) = (Vec::new(), Vec::new());
        for (index, disk) in self.disks.iter().enumerate() {
            let disk_path = self.disk_path(side, index)?;
            let state = self.state(side, index)?;
            found.push((
                disk.identity.clone(),
                self.found(side, index, &disk_path, &state, work)?,
            ));
            expected.push((disk.identity.clone(), state.known()?.root()));
        }
        let roots = Roots {
            found: combined(&found),
            expected: combined(&expected),
        };
        if roots.found == roots.expected {
            for index in 0..self.disks.len() {
                self.state(side, index)?.set_verified()?;
            }
        }
        Ok(Some(roots))
    }

    fn prove(&self, token: Token, side: Side, work: &Work) -> Result<Root> {
        self.admit(side, token)?;
        let mut roots = Vec::new();
        for (index, disk) in self.disks.iter().enumerate() {
            roots.push((disk.identity.clone(), self.root_of(side, index, work)?));
        }
        Ok(combined(&roots))
    }

    fn check_baseline(
        &self,
        token: Token,
        side: Side,
        expected: Root,
        work: &Work,
    ) -> Result<bool> {
        self.admit(side, token)?;
        let mut roots = Vec::new();
        for (index, disk) in self.disks.iter().enumerate() {
            let (source, image) = self.open_whole(side, index, work)?;
            let state = self.state(side, index)?;
            let manifest = state.rebuild(&*image, work, &|| source.check())?;
            state.set_verified()?;
            roots.push((disk.identity.clone(), manifest.root()));
        }
        Ok(combined(&roots) == expected)
    }

    fn restore(
        &self,
        token: Token,
        side: Side,
        written: Option<&[DiskChanges]>,
        work: &Work,
    ) -> Result<()> {
        self.admit(side, token)?;
        for index in 0..self.disks.len() {
            restore::restore(self, side, index, written, work)?;
        }
        Ok(())
    }
}

impl HostDisks {
    /// The root of what a disk holds.
    fn found(
        &self,
        side: Side,
        index: usize,
        disk_path: &DiskPath,
        state: &DiskState,
        work: &Work,
    ) -> Result<crate::manifest::Root> {
        if let Some(encrypted) = self.encrypted(side, index)?
            && encrypted.is_alone(state)?
        {
            return encrypted.verify(work)?.ok_or_else(|| disk_path.gone());
        }
        let open_disk = OpenDisk::open(disk_path, work)?;
        let len = state.known()?.disk_len();
        state.found(&*cut(open_disk.image().clone(), len), work)
    }
}
