//! Controls VMs under QEMU: through its monitor (QMP), and the NBD exports of its snapshots.
//!
//! A VM is a directory, `DIRECTORY/VM`: QEMU's monitor listens at `qmp.sock` in it, and the files
//! `fenced`, `retired`, `token` and `tracking.json` say the rest. Whatever starts the VM must look
//! for `fenced` first. The operator's program starts its QEMU, with the guest not yet running.
//!
//! A guest that shuts down leaves its QEMU behind, which still has the bitmaps: they are read and
//! kept, the VM is fenced, and only then QEMU ends. From there on its disks are plain files. When
//! the VM is let go again, new bitmaps are there before the fence falls.

mod directory;
mod power;
mod tracking;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::{Call, Changes, DiskChanges, Facts, VmController, misdirected};
use crate::error::{Error, ErrorKind, Result};
use crate::failback::machine::{Action, Checkpoint, VmSeen};
use crate::image::nbd::{NbdExport, Ranges};
use crate::location::Location;
use crate::qemu::snapshot::{self, BITMAP, GRANULARITY, frozen};
use crate::qemu::{Monitor, Node, Power};
use directory::VmDirectory;
use tracking::{Record, Tracking, bitmap, named};

pub use crate::qemu::qmp;

/// A VM under QEMU.
#[derive(Debug, Clone)]
pub struct QemuController {
    facts: Facts,
    /// Identity and file of each disk.
    disks: Vec<(String, PathBuf)>,
    directory: VmDirectory,
    start: Vec<String>,
    time_limit: Duration,
}

impl QemuController {
    /// A VM whose directory lies in `directory`; `start` is the program that starts its QEMU.
    ///
    /// The program gets the VM's facts as the operator's other programs do, and the monitor's
    /// socket in `DISKDELTA_QMP`. It must start QEMU with `-S`, so that the guest does not run yet,
    /// and end. `time_limit` bounds it, and a guest's shutdown.
    pub fn new(facts: Facts, directory: &Path, start: Vec<String>, time_limit: Duration) -> Self {
        let disks = facts.disks.iter().map(|(identity, path)| {
            let path = PathBuf::from(path);
            (identity.clone(), path)
        });
        QemuController {
            disks: disks.collect(),
            directory: VmDirectory::new(directory.join(&facts.vm)),
            facts,
            start,
            time_limit,
        }
    }

    fn connect<'a>(&self, call: &Call<'a>) -> Result<Option<Monitor<'a>>> {
        Monitor::connect(
            &self.directory.files.monitor(),
            self.time_limit,
            call.cancel,
        )
    }

    fn seen(&self, call: &Call<'_>) -> Result<VmSeen> {
        let running = match self.connect(call)? {
            Some(mut monitor) => monitor.power()? == Power::On,
            None => false,
        };
        Ok(VmSeen {
            exists: self.directory.exists()?,
            running,
            fenced: self.directory.is_fenced()?,
        })
    }

    /// Adds what bitmaps are missing, all in one moment.
    fn add_bitmaps(
        &self,
        monitor: &mut Monitor<'_>,
        nodes: &[Node],
        tracking: &Tracking,
    ) -> Result<()> {
        let names = tracking.checkpoints.iter().map(|it| it.bitmap());
        let missing = names.flat_map(|name| {
            let without = nodes.iter().filter(|it| !it.bitmaps.contains(&name));
            let adds = without.map(|node| add_bitmap(node, &name));
            adds.collect::<Vec<_>>()
        });
        monitor.at_once(missing.collect())?;
        monitor.stay()
    }

    /// Where the disks' own files are, and what was written to them up to the shutdown.
    fn changes_at_rest(&self, call: &Call<'_>, since: Option<Checkpoint>) -> Result<Changes> {
        if let Some(mut monitor) = self.connect(call)? {
            if monitor.power()? == Power::On {
                let text = "the VM runs, and should be off";
                return Err(Error::new(ErrorKind::InUse, text).at_path(self.directory.path()));
            }
            self.close(monitor, call)?;
        }
        let tracking = self.directory.tracking()?;
        let found = since.map(|since| tracking.get(since));
        let fenced = self.directory.is_fenced()?;
        let tracked = match found {
            None => None,
            Some(Some(found)) if found.record == Record::Closed && fenced => Some(found),
            Some(_) => return Ok(Changes::TrackingLost),
        };
        let disks = self.disks.iter().map(|(identity, path)| {
            Ok(DiskChanges {
                identity: identity.clone(),
                address: Location::parse_absolute(&path.to_string_lossy())?,
                changed: tracked.map(|it| it.written(identity).to_vec()),
            })
        });
        Ok(Changes::Tracked(disks.collect::<Result<_>>()?))
    }

    fn changes_in_snapshot(&self, call: &Call<'_>, since: Option<Checkpoint>) -> Result<Changes> {
        let Some(mut monitor) = self.connect(call)? else {
            return Ok(Changes::SnapshotLost);
        };
        let nodes = monitor.nodes(&self.disks)?;
        let Some(addresses) = snapshot::taken(&mut monitor, &self.directory.files, &nodes)? else {
            return Ok(Changes::SnapshotLost);
        };
        let tracking = self.directory.tracking()?;
        let held = monitor.power()? == Power::Begun && self.directory.is_fenced()?;
        drop(monitor);
        let name = since.map(|since| frozen(&bitmap(since.0)));
        let tracked = match since.map(|since| tracking.get(since)) {
            None => None,
            Some(Some(it)) if it.record == Record::Closed && held => Some(it),
            Some(Some(it))
                if it.record == Record::Live
                    && name.as_ref().is_some_and(|name| have(&nodes, name)) =>
            {
                Some(it)
            }
            Some(_) => return Ok(Changes::TrackingLost),
        };
        let disks = self
            .disks
            .iter()
            .zip(addresses)
            .map(|((identity, _), address)| {
                let changed = tracked.map(|it| -> Result<_> {
                    let before = it.written(identity);
                    if it.record == Record::Closed {
                        return Ok(before.to_vec());
                    }
                    let export = NbdExport::open_until(&address, name.as_deref(), call.cancel)?;
                    Ok(Ranges::joined(before, &export.changed(call.cancel)?))
                });
                Ok(DiskChanges {
                    identity: identity.clone(),
                    address: Location::Nbd(address.clone()),
                    changed: changed.transpose()?,
                })
            });
        Ok(Changes::Tracked(disks.collect::<Result<_>>()?))
    }
}

impl QemuController {
    fn start(&self, call: &Call<'_>) -> Result<()> {
        if self.directory.is_fenced()? || !self.directory.exists()? {
            return Ok(());
        }
        let mut monitor = match self.connect(call)? {
            Some(monitor) => monitor,
            None => self.launch(call)?,
        };
        if monitor.power()? == Power::Off {
            monitor.run("system_reset", json!({}))?;
        }
        monitor.run("cont", json!({}))?;
        monitor.wait(
            "running",
            self.time_limit,
            |it| Ok(it.power()? == Power::On),
        )?;
        Ok(())
    }

    fn retire(&self, call: &Call<'_>, discard_disks: bool) -> Result<()> {
        if let Some(mut monitor) = self.connect(call)? {
            if monitor.power()? == Power::On {
                let text = "the VM runs, and cannot be retired";
                return Err(Error::new(ErrorKind::InUse, text).at_path(self.directory.path()));
            }
            self.close(monitor, call)?;
        }
        if !self.directory.exists()? {
            return Ok(());
        }
        self.directory.retire()?;
        self.directory.keep(&Tracking::default())?;
        if discard_disks {
            let files = self.disks.iter().filter(|(_, path)| path.is_file());
            for (_, path) in files {
                crate::qemu::remove(path)?;
            }
        }
        Ok(())
    }

    fn arm_tracking(&self, call: &Call<'_>, keep: Option<Checkpoint>) -> Result<()> {
        let mut tracking = self.directory.tracking()?;
        tracking.retain(keep, call.token);
        let fenced = self.directory.is_fenced()?;
        let mut monitor = match self.live_monitor(call)? {
            None if !fenced => self.launch(call)?,
            Some((monitor, power)) if !fenced || power == Power::On => monitor,
            _ => {
                // Off, and held: no writes until it is let go, with bitmaps.
                tracking.checkpoints.retain(|it| it.record != Record::Live);
                tracking.add(call.token, Record::Closed);
                tracking.set(Record::Closed);
                self.directory.keep(&tracking)?;
                return Ok(());
            }
        };
        let nodes = monitor.nodes(&self.disks)?;
        tracking.checkpoints.retain(|it| {
            // Of this command's own token nothing is lost if it is begun once more.
            let whole = it.token == call.token || have(&nodes, &it.bitmap());
            it.record == Record::Live && whole
        });
        tracking.add(call.token, Record::Live);
        self.directory.keep(&tracking)?;
        self.add_bitmaps(&mut monitor, &nodes, &tracking)?;
        for node in &nodes {
            let known = |name: &str| tracking.checkpoints.iter().any(|it| it.bitmap() == name);
            let old = node.bitmaps.iter().filter(|it| it.starts_with(BITMAP));
            for name in old.filter(|name| !known(name)) {
                snapshot::remove_bitmap(&mut monitor, node, name)?;
            }
        }
        Ok(())
    }

    fn snapshot(&self, call: &Call<'_>) -> Result<()> {
        let mut monitor = match self.live_monitor(call)? {
            Some((monitor, _)) => monitor,
            // It is off. Its QEMU exports its disks none the less.
            None => self.launch(call)?,
        };
        let nodes = monitor.nodes(&self.disks)?;
        snapshot::take(
            &mut monitor,
            &self.directory.files,
            &nodes,
            &named(call.token),
        )?;
        Ok(())
    }

    fn release(&self, call: &Call<'_>) -> Result<()> {
        match self.connect(call)? {
            Some(mut monitor) => {
                let nodes = monitor.nodes(&self.disks)?;
                snapshot::release(&mut monitor, &self.directory.files, &nodes)?;
            }
            None => self.directory.files.clear_scratch(self.disks.len())?,
        }
        Ok(())
    }

    fn shut_down(&self, call: &Call<'_>) -> Result<()> {
        if let Some(mut monitor) = self.connect(call)? {
            if monitor.power()? == Power::On {
                self.power_down(&mut monitor)?;
            }
            self.close(monitor, call)?;
        }
        Ok(())
    }
}

impl VmController for QemuController {
    fn execute(&self, call: &Call<'_>, action: Action) -> Result<VmSeen> {
        let _admitted = self.directory.admit(call)?;
        match action {
            Action::Inspect => {}
            Action::Create => self.directory.create()?,
            Action::Fence => {
                if let Some(mut monitor) = self.connect(call)?
                    && monitor.power()? != Power::On
                {
                    self.close(monitor, call)?;
                }
                self.directory.fence()?;
            }
            Action::Unfence => {
                if self.directory.is_fenced()? {
                    self.open_again(call)?;
                }
                self.directory.unfence()?;
            }
            Action::Start => self.start(call)?,
            Action::ShutDown => self.shut_down(call)?,
            Action::Retire { discard_disks } => self.retire(call, discard_disks)?,
            Action::ArmTracking { keep } => self.arm_tracking(call, keep)?,
            Action::Snapshot => self.snapshot(call)?,
            Action::Release => self.release(call)?,
            Action::StartTest => self.start_test(call)?,
            Action::StopTest => self.stop_test(call)?,
            other => return Err(misdirected(other)),
        }
        self.seen(call)
    }

    fn changes_since(
        &self,
        call: &Call<'_>,
        since: Option<Checkpoint>,
        from_snapshot: bool,
    ) -> Result<Changes> {
        let _admitted = self.directory.admit(call)?;
        match from_snapshot {
            true => self.changes_in_snapshot(call, since),
            false => self.changes_at_rest(call, since),
        }
    }
}

/// Whether each disk has a bitmap of this name.
fn have(nodes: &[Node], name: &str) -> bool {
    nodes.iter().all(|node| node.bitmaps.contains(name))
}

fn add_bitmap(node: &Node, name: &str) -> Value {
    let data = json!({"node": node.name, "name": name, "granularity": GRANULARITY});
    json!({"type": "block-dirty-bitmap-add", "data": data})
}
