//! Controls VMs under QEMU: through its monitor (QMP), and the NBD exports of its snapshots.
//!
//! A VM is a directory, `DIRECTORY/VM`: QEMU's monitor listens at `qmp.sock` in it, and the files
//! `fenced`, `retired`, `token` and `tracking.json` say the rest. Whatever starts the VM must look
//! for `fenced` first. The operator's program starts its QEMU, with the guest not yet running.
//!
//! A guest that shuts down leaves its QEMU behind, which still has the bitmaps: they are read and
//! kept, the VM is fenced, and only then QEMU ends. From there on its disks are plain files. When
//! the VM is let go again, new bitmaps are there before the fence falls.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::files::remove;
use super::monitor::{Monitor, Node, Power};
use super::snapshot::{self, BITMAP, GRANULARITY, frozen};
use super::tracking::{Record, Tracking, bitmap, named};
use super::vm_directory::{Admitted, VmDirectory};
use crate::error::{Error, ErrorKind, Result};
use crate::image::nbd::{NbdExport, Ranges};
use crate::location::Location;
use crate::vm::{Call, Changes, Checkpoint, DiskChanges, VmSeen};

/// How a VM's QEMU is started.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    /// Program and arguments.
    pub program: Vec<String>,
    /// What it gets in its environment.
    pub environment: Vec<(&'static str, String)>,
    /// The networks of the VM, for its environment, where this is no test.
    pub networks: String,
    /// The disks of a test, for its environment: where the VM knows each, and where it is.
    pub test_disks: String,
}

/// A VM under QEMU.
#[derive(Debug, Clone)]
pub(crate) struct QemuVm {
    /// Identity and file of each disk.
    pub(super) disks: Vec<(String, PathBuf)>,
    pub(super) directory: VmDirectory,
    pub(super) launch: Launch,
    pub(super) time_limit: Duration,
}

impl QemuVm {
    /// A VM whose directory is this.
    pub(crate) fn new(
        directory: PathBuf,
        disks: Vec<(String, PathBuf)>,
        launch: Launch,
        time_limit: Duration,
    ) -> Self {
        QemuVm {
            disks,
            directory: VmDirectory::new(directory),
            launch,
            time_limit,
        }
    }

    /// Lets a command in that does not come too late, and keeps others out until it is done.
    ///
    /// # Errors
    /// `InUse` for an older token than the newest, and while another command is carried out;
    /// `Malformed`, `Untrusted`, `Io` for what is kept of the VM.
    pub(crate) fn admit(&self, call: &Call<'_>) -> Result<Admitted> {
        self.directory.admit(call)
    }

    pub(super) fn connect<'a>(&self, call: &Call<'a>) -> Result<Option<Monitor<'a>>> {
        Monitor::connect(
            &self.directory.files.monitor(),
            self.time_limit,
            call.cancel,
        )
    }

    /// What it is now.
    pub(crate) fn seen(&self, call: &Call<'_>) -> Result<VmSeen> {
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
    pub(super) fn add_bitmaps(
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
    pub(crate) fn changes_at_rest(
        &self,
        call: &Call<'_>,
        since: Option<Checkpoint>,
    ) -> Result<Changes> {
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

    /// Where the snapshot's disks are read, and what was written to them up to it.
    pub(crate) fn changes_in_snapshot(
        &self,
        call: &Call<'_>,
        since: Option<Checkpoint>,
    ) -> Result<Changes> {
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

impl QemuVm {
    /// Makes it exist.
    pub(crate) fn create(&self) -> Result<()> {
        self.directory.create()
    }

    /// From now on it cannot be started.
    pub(crate) fn fence(&self, call: &Call<'_>) -> Result<()> {
        if let Some(mut monitor) = self.connect(call)?
            && monitor.power()? != Power::On
        {
            self.close(monitor, call)?;
        }
        self.directory.fence()
    }

    /// It may be started again.
    pub(crate) fn unfence(&self, call: &Call<'_>) -> Result<()> {
        if self.directory.is_fenced()? {
            self.open_again(call)?;
        }
        self.directory.unfence()
    }

    /// Lets the guest run.
    pub(crate) fn start(&self, call: &Call<'_>) -> Result<()> {
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

    /// Takes it out of service.
    pub(crate) fn retire(&self, call: &Call<'_>, discard_disks: bool) -> Result<()> {
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
                remove(path)?;
            }
        }
        Ok(())
    }

    /// Tracks writes from now on; `keep` stays answerable.
    pub(crate) fn arm_tracking(&self, call: &Call<'_>, keep: Option<Checkpoint>) -> Result<()> {
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

    /// Holds one moment of all its disks.
    pub(crate) fn snapshot(&self, call: &Call<'_>) -> Result<()> {
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

    /// Lets the snapshot go.
    pub(crate) fn release(&self, call: &Call<'_>) -> Result<()> {
        match self.connect(call)? {
            Some(mut monitor) => {
                let nodes = monitor.nodes(&self.disks)?;
                snapshot::release(&mut monitor, &self.directory.files, &nodes)?;
            }
            None => self.directory.files.clear_scratch(self.disks.len())?,
        }
        Ok(())
    }

    /// Shuts the guest down, and ends its QEMU.
    pub(crate) fn shut_down(&self, call: &Call<'_>) -> Result<()> {
        if let Some(mut monitor) = self.connect(call)? {
            if monitor.power()? == Power::On {
                self.power_down(&mut monitor)?;
            }
            self.close(monitor, call)?;
        }
        Ok(())
    }
}

/// Whether each disk has a bitmap of this name.
pub(super) fn have(nodes: &[Node], name: &str) -> bool {
    nodes.iter().all(|node| node.bitmaps.contains(name))
}

fn add_bitmap(node: &Node, name: &str) -> Value {
    let data = json!({"node": node.name, "name": name, "granularity": GRANULARITY});
    json!({"type": "block-dirty-bitmap-add", "data": data})
}
