//! What is done to disks of this host, as the executor asks for it.

use super::ledger::{Ledger, combined, cut};
use super::seat::Seat;
use super::shown::Shown;
use super::{HostDisks, Prerequisite, open_to_write, pass, restore};
use crate::control::Work;
use crate::error::Result;
use crate::failback::disk_work::{CopyOrder, DiskWork, Finding, Roots};
use crate::failback::machine::{PassReport, Root, Side, Token};
use crate::failback::vm::DiskChanges;

impl DiskWork for HostDisks {
    fn check(&self, token: Token, side: Side) -> Result<Vec<Finding>> {
        self.admit(side, token)?;
        let all = self.prerequisites(side);
        Ok(all.into_iter().filter_map(Prerequisite::finding).collect())
    }

    fn block(&self, token: Token, side: Side) -> Result<()> {
        self.admit(side, token)?;
        for (index, seat) in self.seats(side).enumerate() {
            let seat = seat?;
            self.refuse_device(&seat)?;
            if let Some(path) = seat.path()? {
                // the process that runs from it has it open.
                let target = open_to_write(&path, seat.format)?;
                if seat.is_device {
                    target.hold(&Work::new(1)?)?;
                }
            }
            if !seat.block()? {
                self.may_be_missing(side, index, &seat)?;
            }
        }
        Ok(())
    }

    fn unblock(&self, token: Token, side: Side) -> Result<()> {
        self.admit(side, token)?;
        for (index, seat) in self.seats(side).enumerate() {
            let seat = seat?;
            let vault = self.vault(side, index)?;
            if let Some(vault) = &vault {
                let ledger = self.ledger(side, index)?;
                // A replica that this job has added nothing to stays what it is.
                if vault.exists()? && ledger.current()?.is_none() {
                    continue;
                }
                if vault.is_alone(&ledger)? {
                    return Err(vault.not_written_out());
                }
            }
            if let Some(path) = seat.path()? {
                let target = open_to_write(&path, seat.format)?;
                if seat.is_device {
                    target.release(&Work::new(1)?)?;
                } else if let Some(mark) = target.mark()? {
                    return Err(mark.refusal().at_path(path));
                }
            }
            if let Some(vault) = vault {
                vault.give_up()?;
            }
            if !seat.unblock()? {
                self.may_be_missing(side, index, &seat)?;
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
            let seat = self.seat(side, index)?;
            let ledger = self.ledger(side, index)?;
            found.push((
                disk.identity.clone(),
                self.found(side, index, &seat, &ledger, work)?,
            ));
            expected.push((disk.identity.clone(), ledger.known()?.root()));
        }
        let roots = Roots {
            found: combined(&found),
            expected: combined(&expected),
        };
        if roots.found == roots.expected {
            for index in 0..self.disks.len() {
                self.ledger(side, index)?.set_verified()?;
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
            let ledger = self.ledger(side, index)?;
            let manifest = ledger.rebuild(&*image, work, &|| source.check())?;
            ledger.set_verified()?;
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
        seat: &Seat,
        ledger: &Ledger,
        work: &Work,
    ) -> Result<crate::manifest::Root> {
        if let Some(vault) = self.vault(side, index)?
            && vault.is_alone(ledger)?
        {
            return vault.verify(work)?.ok_or_else(|| seat.gone());
        }
        let shown = Shown::open(seat, work)?;
        let len = ledger.known()?.disk_len();
        ledger.found(&*cut(shown.image().clone(), len), work)
    }
}
