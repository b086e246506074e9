//! One sync, prepared and run.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::disk::Disk;
use super::sync_target::{SyncTarget, log_file};
use super::target::OpenTarget;
use crate::delta::Delta;
use crate::error::{Error, ErrorKind, Result};
use crate::image::{CreateFormat, Format};
use crate::limits::Limits;
use crate::location::{Location, WebAddress};
use crate::progress::Work;
use crate::remote::{Client, ConnectOptions};
use crate::storage::{Allocation, FileRef, HostFile};
use crate::sync::{
    self, BaseCheck, Cloning, HostTargetOptions, Mode, Safety, SyncOptions, SyncReport, Target,
    Verify,
};
use crate::target_state::TargetState;

/// A sync that is prepared: the disk or delta that it takes, the target, and how.
///
/// By default it finds out whether moving differences or everything is cheaper, never leaves the
/// target half done, and reads back what it wrote. When [`run`](Sync::run) returns `Ok`, the target
/// is durable.
///
/// # Examples
/// ```no_run
/// use diskdelta::{Disk, Work};
///
/// # fn main() -> diskdelta::Result<()> {
/// let work = Work::new()?;
/// let report = Disk::open("web.vhdx")?.sync_to("/dev/vg0/web").undo("web.undo").run(&work)?;
/// println!("{} bytes changed", report.changed_bytes);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing happens before `run`"]
pub struct Sync<'a> {
    origin: Origin<'a>,
    target: SyncTarget,
    options: SyncOptions,
    open: HostTargetOptions,
    undo: Option<PathBuf>,
    manifest: Option<PathBuf>,
    check: BaseCheck,
    connect: ConnectOptions,
    client: Option<Arc<Mutex<Option<Client>>>>,
}

#[derive(Debug, Clone, Copy)]
enum Origin<'a> {
    Disk(&'a Disk),
    Delta(&'a Delta),
}

impl<'a> Sync<'a> {
    fn from_disk(disk: &'a Disk, target: SyncTarget) -> Self {
        Self::new(Origin::Disk(disk), target)
    }

    fn from_delta(delta: &'a Delta, target: SyncTarget) -> Self {
        Self::new(Origin::Delta(delta), target)
    }

    fn new(origin: Origin<'a>, target: SyncTarget) -> Self {
        Sync {
            origin,
            target,
            options: SyncOptions::default(),
            open: HostTargetOptions::default(),
            undo: None,
            manifest: None,
            check: BaseCheck::default(),
            connect: ConnectOptions::default(),
            client: None,
        }
    }

    /// How changes are found [`Mode::Auto`].
    pub fn mode(mut self, mode: Mode) -> Self {
        self.options.mode = mode;
        self
    }

    /// What holds while the sync is under way [`Safety::Atomic`].
    pub fn safety(mut self, safety: Safety) -> Self {
        self.options.safety = safety;
        self
    }

    /// What is read back [`Verify::Written`].
    pub fn verify(mut self, verify: Verify) -> Self {
        self.options.verify = verify;
        self
    }

    /// Whether files are cloned [`Cloning::Auto`].
    pub fn cloning(mut self, cloning: Cloning) -> Self {
        self.options.cloning = cloning;
        self
    }

    /// Looks for changes only in these ranges of the disk, as a change tracker knows them (and
    /// `ChangeMap` reads them); all else is neither read nor moved. The report then names
    /// [`Verified::Tracked`](sync::Verified) as its evidence. A range that ends before it begins
    /// is an error of kind `InvalidInput`.
    ///
    /// With a [target manifest](Sync::target_manifest) a later sync finds what the tracker left
    /// out. The ranges are used then only if the manifest describes the target as it is now; else
    /// the disks are compared, and a note of the report tells why.
    pub fn only(mut self, ranges: impl IntoIterator<Item = Range<u64>>) -> Self {
        self.options.change_map = Some(ranges.into_iter().collect());
        self
    }

    /// Looks only for what changed since `older`, an earlier snapshot of the disk, of which the
    /// target holds the bytes. Used where the [target manifest](Sync::target_manifest) records that
    /// the target was made from `older` and is as that sync left it; else the disks are compared, a
    /// note of the report tells why, and which snapshot the target holds is recorded.
    pub fn since(mut self, older: WebAddress) -> Self {
        self.options.since = Some(older);
        self
    }

    /// Uses the ranges of [`only`](Sync::only), or what changed [`since`](Sync::since), with a
    /// target manifest although it is not known whether the target is as the last sync left it. A
    /// device is such a target.
    pub fn trust_target(mut self) -> Self {
        self.options.trust_target = true;
        self
    }

    /// Writes what the target held before into a new file, for [`undo`](crate::undo). Refused for a
    /// target on another host.
    pub fn undo(mut self, file: impl Into<PathBuf>) -> Self {
        self.undo = Some(file.into());
        self
    }

    /// Keeps a manifest of the target in this file; from the second sync on it stands for reading
    /// the target.
    pub fn target_manifest(mut self, file: impl Into<PathBuf>) -> Self {
        self.manifest = Some(file.into());
        self
    }

    /// Has the agent that `client` is connected to, over a transport of the caller's own, write the
    /// target, which is named by its path there. The connection does one sync.
    pub fn over(mut self, client: Client) -> Self {
        self.client = Some(Arc::new(Mutex::new(Some(client))));
        self
    }

    /// How a target on another host is reached, and how often a sync is begun again whose
    /// connection broke.
    pub fn connect(mut self, connect: ConnectOptions) -> Self {
        self.connect = connect;
        self
    }

    /// Reads the target as this format, whatever its name.
    pub fn format(mut self, format: Format) -> Self {
        self.open.image.format = Some(format);
        self
    }

    /// Creates the target, which must not exist, in this format.
    pub fn create(mut self, format: CreateFormat) -> Self {
        self.open.create = Some(format);
        self
    }

    /// Writes the redo log in this directory, instead of next to the target; the directory is made
    /// where it is missing. Refused for a target on another host.
    pub fn log_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.open.log_dir = Some(directory.into());
        self
    }

    /// How zeros are stored.
    pub fn allocation(mut self, allocation: Allocation) -> Self {
        self.open.open.allocation = allocation;
        self
    }

    /// Bounds what the target's file may state.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.open.image.limits = limits;
        self
    }

    /// Lets the target become shorter.
    pub fn allow_shrink(mut self) -> Self {
        self.options.allow_shrink = true;
        self
    }

    /// Accepts a device that is larger than the disk; what it has beyond is left alone.
    pub fn allow_larger(mut self) -> Self {
        self.options.allow_larger = true;
        self
    }

    /// Passes over ranges of the source that cannot be read; the report lists them.
    pub fn skip_unreadable(mut self) -> Self {
        self.options.skip_unreadable = true;
        self
    }

    /// Lets a full copy take the place of a file that has further names (hard links), which keep
    /// the old bytes.
    pub fn part_links(mut self) -> Self {
        self.open.parts_links = true;
        self
    }

    /// Recognises the base of a delta by the ranges that the delta changes, without reading the
    /// rest of the target.
    pub fn check_touched(mut self) -> Self {
        self.check = BaseCheck::Touched;
        self
    }

    /// Finds out what the sync would do, and changes nothing.
    pub fn dry_run(mut self) -> Self {
        (self.options.dry_run, self.open.dry_run) = (true, true);
        self
    }

    /// Runs the sync. The target is durable when this returns `Ok`; after an error,
    /// [`Error::target_state`] tells what became of it. After an interruption of any kind the same
    /// sync, run again, goes on where it was.
    ///
    /// # Errors
    /// `InUse` for a target that another program uses, or that is one of the files that are read;
    /// `InvalidInput` for lengths or options that do not fit together; `Incomplete` for a target
    /// that waits for [`recover`](crate::recover); `BaseMismatch` for a delta that
    /// was made from another disk; `NoSpace`, `Unreadable`, `SourceChanged`, `TargetChanged`,
    /// `VerifyFailed`, `Malformed`, `NotFound`, `Io`, `Cancelled`.
    pub fn run(mut self, work: &Work) -> Result<SyncReport> {
        self.prepare().map_err(untouched)?;
        let mut report = self
            .attempt(work)
            .map_err(|error| error.during_work("sync"))?;
        if let Origin::Disk(disk) = self.origin {
            report.notes.splice(0..0, disk.warnings());
        }
        Ok(report)
    }

    fn attempt(&self, work: &Work) -> Result<SyncReport> {
        match &self.target {
            SyncTarget::Path(path) => self.run_at(&Location::Path(path.clone()), work),
            SyncTarget::Location(location @ Location::Remote(_)) => {
                let retry = &self.connect.retry;
                retry.run(work, |error: &Error| error, || self.run_at(location, work))
            }
            SyncTarget::Location(location) => self.run_at(location, work),
            SyncTarget::Storage {
                storage,
                format,
                log,
            } => {
                let format = self.open.image.format.unwrap_or(*format);
                let log = log_file(log).map_err(untouched)?;
                let target = Target::device(storage.clone(), format, log);
                self.run_onto(&target.with_image_options(self.open.image.clone()), work)
            }
        }
    }

    fn run_at(&self, location: &Location, work: &Work) -> Result<SyncReport> {
        let opened = match (&self.client, location) {
            (None, _) => OpenTarget::open(location, &self.open, &self.connect, work),
            (Some(client), Location::Path(path)) => {
                let client = client.lock().unwrap_or_else(PoisonError::into_inner).take();
                OpenTarget::over(client, path, &self.open)
            }
            (Some(_), other) => {
                let what = "a target of an agent is named by its path there";
                Err(Error::new(ErrorKind::InvalidInput, what).at_path(other.to_string()))
            }
        };
        let mut target = opened.map_err(untouched)?;
        let mut report = match (self.origin, target.host()) {
            (_, Some(target)) => self.run_onto(target.target(), work),
            (Origin::Disk(disk), None) => {
                target.sync_from(disk.source(), None, &self.options, work)
            }
            (Origin::Delta(_), None) => {
                let what = "a delta file is applied on the host of its target";
                Err(untouched(Error::new(ErrorKind::Unsupported, what)))
            }
        }?;
        report.notes.splice(0..0, target.warnings().iter().cloned());
        Ok(report)
    }

    fn run_onto(&self, target: &Target, work: &Work) -> Result<SyncReport> {
        match self.origin {
            Origin::Disk(disk) => sync::sync(disk.source(), target, &self.options, work),
            Origin::Delta(delta) => {
                sync::apply_delta_with(delta, target, self.check, &self.options, work)
            }
        }
    }

    /// Names the further files and what is read, and refuses what makes no sense.
    fn prepare(&mut self) -> Result<()> {
        let write = |path: &PathBuf| FileRef::to_write(path);
        self.options.undo = self.undo.as_ref().map(write).transpose()?;
        self.options.target_manifest = self.manifest.as_ref().map(write).transpose()?;
        self.open.target_manifest = self.manifest.clone();
        self.open.open.sources = self.sources()?;
        self.take_changes()?;
        self.refuse_unused()
    }

    /// Takes what the tracker at the source knows, which the address of the disk names.
    fn take_changes(&mut self) -> Result<()> {
        let Origin::Disk(disk) = self.origin else {
            return Ok(());
        };
        let Some(changes) = disk.source().changes() else {
            return Ok(());
        };
        let is_remote = matches!(self.target, SyncTarget::Location(Location::Remote(_)));
        let is_checked = self.manifest.is_some() || self.options.trust_target || is_remote;
        let what = match (&self.options.change_map, is_checked) {
            (Some(_), _) => "a change map and the bitmap of the source are two change maps",
            (None, false) => "nothing would find later what the bitmap of the source leaves out",
            (None, true) => {
                self.options.change_map = Some(changes.to_vec());
                return Ok(());
            }
        };
        let error = Error::new(ErrorKind::InvalidInput, what);
        Err(error.advise("keep a target manifest, or trust the target"))
    }

    /// The files that are read, none of which may be the target.
    fn sources(&self) -> Result<Vec<HostFile>> {
        match self.origin {
            Origin::Disk(disk) => disk.source().files(),
            Origin::Delta(delta) => Ok(delta.storage().host_file()?.into_iter().collect()),
        }
    }

    /// Refuses a choice that has no meaning for the delta or the target, rather than pass over it.
    fn refuse_unused(&self) -> Result<()> {
        let (options, open) = (&self.options, &self.open);
        let for_disks = [
            (options.mode != Mode::Auto, "mode"),
            (options.safety != Safety::Atomic, "safety"),
            (options.cloning != Cloning::Auto, "cloning"),
            (options.change_map.is_some(), "only"),
            (options.since.is_some(), "since"),
            (self.manifest.is_some(), "target_manifest"),
            (open.create.is_some(), "create"),
            (options.skip_unreadable, "skip_unreadable"),
            (options.dry_run, "dry_run"),
        ];
        let for_files = [
            (open.create.is_some(), "create"),
            (open.log_dir.is_some(), "log_dir"),
            (open.open.allocation != Allocation::default(), "allocation"),
            (open.parts_links, "part_links"),
            (self.client.is_some(), "over"),
        ];
        if let Origin::Delta(_) = self.origin {
            refuse_set(&for_disks, "a delta file is applied as a whole, atomically")?;
        }
        if let SyncTarget::Location(Location::Remote(_)) = self.target {
            let of_this_host = [(options.since.is_some(), "since")];
            refuse_set(&of_this_host, "the target is on another host")?;
        }
        if let SyncTarget::Storage { .. } = self.target {
            let what = "a storage of the caller's own is written where it is, as it is";
            refuse_set(&for_files, what)?;
        }
        Ok(())
    }
}

/// Refuses the first of `choices` that was made.
fn refuse_set(choices: &[(bool, &'static str)], what: &'static str) -> Result<()> {
    match choices.iter().find(|(is_set, _)| *is_set) {
        None => Ok(()),
        Some((_, field)) => Err(Error::new(ErrorKind::InvalidInput, what).in_field(field)),
    }
}

impl Disk {
    /// Prepares to make `target` hold what this disk holds. Nothing happens before
    /// [`Sync::run`].
    pub fn sync_to(&self, target: impl Into<SyncTarget>) -> Sync<'_> {
        Sync::from_disk(self, target.into())
    }
}

impl Delta {
    /// Prepares to make `target`, which holds what this delta leads away from, hold what it leads
    /// to. Nothing happens before [`Sync::run`].
    pub fn apply_to(&self, target: impl Into<SyncTarget>) -> Sync<'_> {
        Sync::from_delta(self, target.into())
    }
}

fn untouched(error: Error) -> Error {
    error.leaving(TargetState::Untouched)
}
