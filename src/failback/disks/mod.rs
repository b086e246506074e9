//! The disks of a VM, moved by the sync layer: what is written are files of this host, what is read
//! may lie elsewhere.
//!
//! While a disk is not what its VM may boot from, it stands under another name
//! (`NAME.failback-JOB.partial`, the extension kept). While bytes are being written it carries the
//! sync layer's mark as well. A block device has no name to take away: it is held, and carries the
//! mark all that time. All of this outlives every process.
//!
//! Executors of one job are kept apart by its [lock](super::lock): what one has begun ends with its
//! process, so an older token can only come from this process.

mod check;
mod far;
mod findings;
mod forecast;
mod ledger;
mod origin;
mod pace;
mod pass;
mod plain;
mod restore;
mod seat;
mod shown;
mod vault;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

pub use check::{Estimate, Prerequisite, Recommendation};
pub use forecast::Forecast;

use super::controller::{DiskChanges, too_late};
use super::disk_work::{CopyOrder, DiskWork, Finding, Roots};
use super::machine::{PassReport, Root, Side, Sides, Token};
use super::plan::{Address, Encryption, Plan, SiteName, Vm};
use crate::control::Work;
use crate::error::{Error, ErrorKind, Result};
use crate::image::{Format, Image, ImageOptions};
use crate::remote::Reach;
use crate::storage::SourceOptions;
use crate::sync::{HostSource, HostTarget, HostTargetOptions, Safety};
use ledger::{Ledger, combined, cut, padded};
use origin::Origin;
use seat::Seat;
use shown::Shown;
use vault::Vault;

/// The disks of one VM of a plan, at both sides.
pub struct HostDisks {
    job: String,
    vm: String,
    /// Where the ledgers lie.
    folder: PathBuf,
    disks: Vec<PlannedDisk>,
    create: bool,
    safety: Safety,
    encryption: Sides<Option<Encryption>>,
    /// How a side's disks on other hosts are reached.
    reach: Sides<Reach>,
    newest: Mutex<Sides<Token>>,
}

/// A disk, and where it lies at each side.
struct PlannedDisk {
    identity: String,
    bytes: Option<u64>,
    at: Sides<(Address, Format)>,
}

impl PlannedDisk {
    /// Whether a device may be longer than the disk on it: the plan says how long that is.
    fn may_be_longer(&self) -> bool {
        self.bytes.is_some()
    }
}

impl HostDisks {
    /// The disks of `vm`; `folder` is where the job keeps what it has to remember of them.
    pub fn new(plan: &Plan, vm: &Vm, folder: impl Into<PathBuf>) -> Self {
        let disks = vm.disks.iter().map(|disk| {
            let primary = (disk.primary.clone(), disk.primary_format);
            let recovery = (disk.recovery.clone(), disk.recovery_format);
            let (source, target) = match plan.active {
                SiteName::Primary => (primary, recovery),
                SiteName::Recovery => (recovery, primary),
            };
            PlannedDisk {
                identity: disk.identity.clone(),
                bytes: disk.bytes,
                at: Sides { source, target },
            }
        });
        HostDisks {
            job: plan.name.clone(),
            vm: vm.name.clone(),
            folder: folder.into(),
            disks: disks.collect(),
            create: vm.create,
            safety: plan.safety,
            encryption: Sides {
                source: plan.source_site().encryption.clone(),
                target: plan.target_site().encryption.clone(),
            },
            reach: Sides {
                source: far::reach(&plan.source_site().reach),
                target: far::reach(&plan.target_site().reach),
            },
            newest: Mutex::default(),
        }
    }

    /// Removes the ways back to what the target's disks held before: nobody goes back any more.
    ///
    /// # Errors
    /// `Io`.
    pub fn forget_ways_back(&self) -> Result<()> {
        for index in 0..self.disks.len() {
            restore::forget(&self.seat(Side::Target, index)?)?;
        }
        Ok(())
    }

    /// Whether a disk of this side is a block device that the plan does not let be written.
    pub fn has_unwritable_device(&self, side: Side) -> bool {
        let refused =
            |seat: Result<Seat>| seat.is_ok_and(|seat| self.refuse_device(&seat).is_err());
        self.seats(side).any(refused)
    }

    fn admit(&self, side: Side, token: Token) -> Result<()> {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = newest.of_mut(side);
        if token < *newest {
            return Err(too_late(token, *newest));
        }
        *newest = token;
        Ok(())
    }

    fn seats(&self, side: Side) -> impl Iterator<Item = Result<Seat>> + '_ {
        (0..self.disks.len()).map(move |index| self.seat(side, index))
    }

    fn seat(&self, side: Side, index: usize) -> Result<Seat> {
        let (address, format) = self.disks[index].at.of(side);
        let path = address.path().ok_or_else(|| {
            let text = "this disk can only be read from here, and nothing is done to it";
            Error::new(ErrorKind::Unsupported, text)
                .at_path(address.to_string())
                .advise("run the job on the host that has it")
        })?;
        Seat::new(path, *format, &self.job)
    }

    /// Opens a side's disk for reading, wherever it lies; `live` where its VM may write to it.
    fn origin(&self, side: Side, index: usize, live: bool, work: &Work) -> Result<Origin> {
        let (address, format) = self.disks[index].at.of(side);
        let address = match address {
            Address::Host(_) => Address::Host(self.seat(side, index)?.there()?),
            other => other.clone(),
        };
        Origin::open(&address, *format, self.reach.of(side), live, work)
    }

    /// Where the disk is kept while it is encrypted, at a side that does so.
    fn vault(&self, side: Side, index: usize) -> Result<Option<Vault>> {
        let Some(encryption) = self.encryption.of(side) else {
            return Ok(None);
        };
        let (seat, identity) = (self.seat(side, index)?, &self.disks[index].identity);
        Vault::of(seat, encryption, &self.vm, identity).map(Some)
    }

    fn ledger(&self, side: Side, index: usize) -> Result<Ledger> {
        Ledger::new(&self.folder, &self.vm, side, index)
    }

    /// Opens a side's disk for reading, as long as the other side's ledger says.
    fn open_whole(&self, side: Side, index: usize, work: &Work) -> Result<(Shown, Arc<dyn Image>)> {
        let shown = Shown::open(&self.seat(side, index)?, work)?;
        let other = self.ledger(side.other(), index)?.current()?;
        let len = other.map_or(0, |manifest| manifest.disk_len());
        let image = padded(shown.image().clone(), len);
        Ok((shown, image))
    }

    /// A device is written in place, for nothing could take the place of one.
    fn refuse_device(&self, seat: &Seat) -> Result<()> {
        if !seat.is_device || self.safety == Safety::InPlace {
            return Ok(());
        }
        let text = "a block device is written in place, under a mark that keeps VMs from it; \
                    there is no way back from that, so the plan has to ask for it";
        Err(Error::new(ErrorKind::Unsupported, text)
            .at_path(&seat.own)
            .advise(
                "write `safety = \"in-place\"`, without `keep_undo`, or keep the disk in a file",
            ))
    }

    /// The root of all that a side's disk holds, over the blocks and the length of what the other
    /// side should hold. It is read whole, where it lies.
    fn root_of(&self, side: Side, index: usize, work: &Work) -> Result<crate::manifest::Root> {
        let known = self.ledger(side.other(), index)?.known()?;
        let source = self.origin(side, index, false, work)?;
        if let Origin::Far(far) = &source {
            return far.root(known.disk_len(), known.block_size(), work);
        }
        let image = padded(source.local()?.clone(), known.disk_len());
        let root = crate::manifest::root_of(&*image, known.block_size(), work)?;
        source.check()?;
        Ok(root)
    }
}

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
                // Whoever runs from it has it open.
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

    /// A disk may be missing where the job makes it, and has not yet.
    fn may_be_missing(&self, side: Side, index: usize, seat: &Seat) -> Result<()> {
        if let Some(vault) = self.vault(side, index)?
            && vault.exists()?
        {
            return Ok(());
        }
        let made = self.ledger(side, index)?.current()?.is_some();
        match self.create_at(side) && !made && !seat.is_device {
            true => Ok(()),
            false => Err(seat.gone()),
        }
    }

    /// A baseline that was given up is made anew, too.
    fn create_at(&self, side: Side) -> bool {
        self.create || side == Side::Source
    }
}

fn open_to_read(path: &Path, format: Format, options: &SourceOptions) -> Result<HostSource> {
    HostSource::open(path, &ImageOptions::default().with_format(format), options)
}

fn open_to_write(path: &Path, format: Format) -> Result<HostTarget> {
    let image = ImageOptions::default().with_format(format);
    HostTarget::open(path, &HostTargetOptions::default().with_image(image))
}
