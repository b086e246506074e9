//! The disks of a VM, and where each of them is.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::agent::{AgentRequest, CallbackSource, Wanted};
use super::disk_path::DiskPath;
use super::disk_state::DiskState;
use super::encrypted_disk::EncryptedDisk;
use super::measure::Measure;
use super::source_disk::SourceDisk;
use crate::error::{Error, ErrorKind, Result};
use crate::failback::disk_work::DiskCommand;
use crate::failback::machine::{Side, Sides, Token};
use crate::failback::plan::{Encryption, Plan, Vm};
use crate::failback::vm::DiskChanges;
use crate::hash::Hash;
use crate::image::{Format, Image, Resized};
use crate::location::Location;
use crate::progress::Work;
use crate::remote::ConnectOptions;
use crate::sync::{Safety, unknown};
use crate::units::BlockSize;

/// The disks of one VM of a plan, at both sides.
pub struct HostDisks {
    pub(super) job: String,
    pub(super) vm: String,
    /// Where the disk states lie.
    pub(super) directory: PathBuf,
    pub(super) disks: Vec<PlannedDisk>,
    pub(super) create: bool,
    pub(super) safety: Safety,
    pub(super) encryption: Sides<Option<Encryption>>,
    /// How a side's disks on other hosts are reached.
    pub(super) connect: Sides<ConnectOptions>,
    /// Where other disks come from, if this is done for another host.
    pub(super) callback_source: Option<Arc<CallbackSource>>,
    pub(super) newest: Mutex<Sides<Token>>,
}

opaque!(HostDisks);

/// A disk, and where it lies at each side.
pub(super) struct PlannedDisk {
    pub(super) identity: String,
    pub(super) bytes: Option<u64>,
    pub(super) at: Sides<(Location, Format)>,
}

impl PlannedDisk {
    /// Whether a device may be longer than the disk on it: the plan says how long that is.
    pub(super) fn may_be_longer(&self) -> bool {
        self.bytes.is_some()
    }
}

impl HostDisks {
    /// The disks of `vm`; `directory` is where the job keeps what it has to remember of them.
    pub fn new(plan: &Plan, vm: &Vm, directory: impl Into<PathBuf>) -> Self {
        let disks = vm.disks.iter().map(|disk| PlannedDisk {
            identity: disk.identity.clone(),
            bytes: disk.bytes,
            at: Sides::of_each(|side| {
                let site = plan.site_at(side);
                (disk.at(site).clone(), disk.format_at(site))
            }),
        });
        let site = |side| plan.site(plan.site_at(side));
        HostDisks {
            job: plan.name.clone(),
            vm: vm.name.clone(),
            directory: directory.into(),
            disks: disks.collect(),
            create: vm.create,
            safety: plan.safety,
            encryption: Sides::of_each(|side| site(side).encryption.clone()),
            connect: Sides::of_each(|side| site(side).connect.connect_options()),
            callback_source: None,
            newest: Mutex::default(),
        }
    }

    /// The disks of this host that a request of another one names.
    pub(super) fn for_request(
        request: &AgentRequest,
        directory: &Path,
        callback_source: Arc<CallbackSource>,
    ) -> Self {
        let disks = request.disks.iter().map(|disk| {
            let other = Location::Path(disk.other.clone().unwrap_or_default());
            let at = Sides::of_each(|side| match side == request.side {
                true => (Location::Path(disk.path.clone()), disk.format),
                false => (other.clone(), disk.other_format),
            });
            PlannedDisk {
                identity: disk.identity.clone(),
                bytes: disk.bytes,
                at,
            }
        });
        HostDisks {
            job: request.job.clone(),
            vm: request.vm.clone(),
            directory: directory.to_owned(),
            disks: disks.collect(),
            create: request.create,
            safety: match request.in_place {
                true => Safety::InPlace,
                false => Safety::Atomic,
            },
            encryption: Sides::default(),
            connect: Sides::default(),
            callback_source: Some(callback_source),
            newest: Mutex::default(),
        }
    }

    /// Whether a disk of this side is a block device that the plan does not let be written; on
    /// another host the path has to tell.
    pub fn has_unwritable_device(&self, side: Side) -> bool {
        let refused = |disk_path: Result<DiskPath>| {
            disk_path.is_ok_and(|disk_path| self.refuse_device(&disk_path).is_err())
        };
        let is_remote_device = |disk: &PlannedDisk| match &disk.at.of(side).0 {
            Location::Remote(remote) => remote.path().starts_with("/dev"),
            _ => false,
        };
        let mut disks = self.disks.iter();
        self.disk_paths(side).any(refused)
            || (self.safety != Safety::InPlace && disks.any(is_remote_device))
    }

    /// Whether a side's disks are plain files while they are blocked, which a test can boot from.
    pub fn can_be_tested(&self, side: Side) -> bool {
        let is_file = |disk: &PlannedDisk| match disk.at.of(side) {
            (Location::Path(path), format) => {
                DiskPath::new(path, *format, &self.job).is_ok_and(|disk_path| !disk_path.is_device)
            }
            (Location::Remote(remote), _) => !remote.path().starts_with("/dev"),
            _ => false,
        };
        self.encryption.of(side).is_none() && self.disks.iter().all(is_file)
    }

    pub(super) fn admit(&self, side: Side, token: Token) -> Result<()> {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        newest.of_mut(side).admit(token).map(drop)
    }

    pub(super) fn disk_paths(&self, side: Side) -> impl Iterator<Item = Result<DiskPath>> + '_ {
        (0..self.disks.len()).map(move |index| self.disk_path(side, index))
    }

    pub(super) fn disk_path(&self, side: Side, index: usize) -> Result<DiskPath> {
        let (address, format) = self.disks[index].at.of(side);
        let path = address.path().ok_or_else(|| {
            let text = "this disk can only be read from here, and nothing is done to it";
            Error::new(ErrorKind::Unsupported, text)
                .at_path(address.to_string())
                .advise("run the job on the host that has it")
        })?;
        DiskPath::new(path, *format, &self.job)
    }

    /// Opens a side's disk for reading, wherever it lies; `live` where its VM may write to it.
    pub(super) fn source_disk(
        &self,
        side: Side,
        index: usize,
        live: bool,
        work: &Work,
    ) -> Result<SourceDisk> {
        let (address, format) = self.disks[index].at.of(side);
        let address = match address {
            Location::Path(path) if !path.as_os_str().is_empty() => {
                Location::Path(self.disk_path(side, index)?.there()?)
            }
            other => other.clone(),
        };
        self.open((side, index), &address, *format, (live, false), work)
    }

    /// Opens what a pass reads of a disk.
    pub(super) fn open_for_pass(
        &self,
        command: &DiskCommand<'_>,
        index: usize,
        from: &DiskChanges,
        work: &Work,
    ) -> Result<SourceDisk> {
        let other = command.side.other();
        let format = self.disks[index].at.of(other).1;
        self.open((other, index), &from.address, format, (false, true), work)
    }

    /// Opens what is read of a side; `live` where its VM may write to it, `of_pass` where it is
    /// what a pass reads.
    fn open(
        &self,
        (side, disk): (Side, usize),
        at: &Location,
        format: Format,
        (live, of_pass): (bool, bool),
        work: &Work,
    ) -> Result<SourceDisk> {
        match (at.path(), &self.callback_source) {
            // The client answers for what has no path here.
            (Some(path), Some(callback_source)) if path.as_os_str().is_empty() => {
                let wanted = Wanted {
                    disk,
                    of_pass,
                    live,
                };
                callback_source.open(wanted, work).map(SourceDisk::from)
            }
            _ => SourceDisk::open(at, format, self.connect.of(side), live, work),
        }
    }

    /// Where the disk is kept while it is encrypted, at a side that does so.
    pub(super) fn encrypted(&self, side: Side, index: usize) -> Result<Option<EncryptedDisk>> {
        let Some(encryption) = self.encryption.of(side) else {
            return Ok(None);
        };
        let (disk_path, identity) = (self.disk_path(side, index)?, &self.disks[index].identity);
        EncryptedDisk::of(disk_path, encryption, &self.vm, identity).map(Some)
    }

    pub(super) fn state(&self, side: Side, index: usize) -> Result<DiskState> {
        DiskState::new(&self.directory, &self.vm, side, index)
    }

    /// How much each disk of a side should hold; `None` before the first pass onto it is complete.
    pub(super) fn measures(&self, side: Side) -> Result<Vec<Option<Measure>>> {
        let measures = (0..self.disks.len()).map(|index| {
            let manifest = self.state(side, index)?.current()?;
            Ok(manifest.map(|manifest| Measure {
                disk_len: manifest.disk_len(),
                block_bytes: manifest.block_size().bytes(),
            }))
        });
        measures.collect()
    }

    /// Opens a side's disk for reading, as long as the other side's should be.
    pub(super) fn open_whole(
        &self,
        side: Side,
        index: usize,
        other: Option<Measure>,
        work: &Work,
    ) -> Result<(SourceDisk, Arc<dyn Image>)> {
        let disk = SourceDisk::at_rest(&self.disk_path(side, index)?, work)?;
        let len = other.map_or(0, |other| other.disk_len);
        refuse_padding(len, disk.disk_len())?;
        let image = Resized::at_least(disk.local()?.clone(), len);
        Ok((disk, image))
    }

    /// A device is written in place, for nothing could take the place of one.
    pub(super) fn refuse_device(&self, disk_path: &DiskPath) -> Result<()> {
        if !disk_path.is_device || self.safety == Safety::InPlace {
            return Ok(());
        }
        let text = "a block device is written in place, under a marker that keeps VMs from it; \
                    there is no way back from that, so the plan has to ask for it";
        Err(Error::new(ErrorKind::Unsupported, text)
            .at_path(&disk_path.own)
            .advise(
                "write `safety = \"in-place\"`, without `keep_undo`, or keep the disk in a file",
            ))
    }

    /// The root of all that a side's disk holds, over the blocks and the length of what the other
    /// side should hold. It is read whole, where it lies.
    pub(super) fn root_of(
        &self,
        side: Side,
        index: usize,
        other: Option<Measure>,
        work: &Work,
    ) -> Result<Hash> {
        let known = other.ok_or_else(unknown)?;
        let block_size = BlockSize::new(known.block_bytes)?;
        let source = self.source_disk(side, index, false, work)?;
        if source.image().is_some() {
            refuse_padding(known.disk_len, source.disk_len())?;
        }
        source.root(known.disk_len, block_size, work)
    }
}

impl HostDisks {
    /// A disk may be missing where the job makes it, and has not yet.
    pub(super) fn may_be_missing(
        &self,
        side: Side,
        index: usize,
        disk_path: &DiskPath,
    ) -> Result<()> {
        if let Some(encrypted) = self.encrypted(side, index)?
            && encrypted.exists()?
        {
            return Ok(());
        }
        let made = self.state(side, index)?.current()?.is_some();
        match self.create_at(side) && !made && !disk_path.is_device {
            true => Ok(()),
            false => Err(disk_path.gone()),
        }
    }

    /// A baseline that was given up is made anew, too.
    fn create_at(&self, side: Side) -> bool {
        self.create || side == Side::Source
    }
}

/// Formats round a disk's length up, but not by much.
fn refuse_padding(wanted: u64, found: u64) -> Result<()> {
    match wanted.saturating_sub(found) > PADDING_MOST {
        true => Err(Error::malformed(format!(
            "the disk has {found} bytes, and {wanted} are asked for"
        ))),
        false => Ok(()),
    }
}

const PADDING_MOST: u64 = 1 << 30;
