//! Starts QEMU, shuts its guest down, ends it; and what becomes of bitmaps meanwhile.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;

use super::monitor::{Monitor, Node, Power};
use super::snapshot;
use super::tracking::{Record, Tracked};
use super::vm::{QemuVm, have};
use crate::error::{Error, ErrorKind, Result};
use crate::image::nbd::NbdExport;
use crate::location::NbdAddress;
use crate::program::Program;
use crate::storage::{SourceOptions, open_source};
use crate::vm::Call;

impl QemuVm {
    /// Starts QEMU; the guest does not run yet.
    pub(super) fn launch<'a>(&self, call: &Call<'a>) -> Result<Monitor<'a>> {
        self.launch_at(&self.directory.files.monitor(), false, call)
    }

    /// Boots the VM's blocked disks, which stay as they are, in a second QEMU without networks.
    pub(crate) fn start_test(&self, call: &Call<'_>) -> Result<()> {
        let socket = self.test_monitor();
        let mut monitor = match Monitor::connect(&socket, self.time_limit, call.cancel)? {
            Some(monitor) => monitor,
            None => self.launch_at(&socket, true, call)?,
        };
        match monitor.power()? {
            Power::Begun => monitor.run("cont", json!({})).map(drop),
            _ => Ok(()),
        }
    }

    /// Ends what [`start_test`](Self::start_test) has begun.
    pub(crate) fn stop_test(&self, call: &Call<'_>) -> Result<()> {
        match Monitor::connect(&self.test_monitor(), self.time_limit, call.cancel)? {
            Some(monitor) => monitor.quit(),
            None => Ok(()),
        }
    }

    fn test_monitor(&self) -> PathBuf {
        self.directory.path().join("test.sock")
    }

    fn launch_at<'a>(&self, socket: &Path, is_test: bool, call: &Call<'a>) -> Result<Monitor<'a>> {
        let launch = &self.launch;
        let program = Program::new(launch.program.clone())?
            .with_env("DISKDELTA_TOKEN", call.token.to_string())
            .with_env("DISKDELTA_QMP", socket);
        let program = match is_test {
            false => program.with_env("DISKDELTA_NETWORKS", &launch.networks),
            true => program.with_env("DISKDELTA_TEST_DISKS", &launch.test_disks),
        };
        let environment = launch.environment.iter();
        let program = environment.fold(program, |it, (name, value)| it.with_env(name, value));
        program.run(&[], self.time_limit, call.cancel)?;
        let Some(mut monitor) = Monitor::connect(socket, self.time_limit, call.cancel)? else {
            let text = format!("`{program}` has ended, and no QEMU listens");
            return Err(Error::new(ErrorKind::Io, text).at_path(socket));
        };
        match monitor.power()? {
            Power::Begun => Ok(monitor),
            _ => {
                let text = format!("`{program}` let the guest run at once");
                Err(Error::malformed(text).advise("start QEMU with -S"))
            }
        }
    }

    /// The VM's QEMU and what it does. One that an earlier command was about to end is ended.
    pub(super) fn live_monitor<'a>(&self, call: &Call<'a>) -> Result<Option<(Monitor<'a>, Power)>> {
        let Some(mut monitor) = self.connect(call)? else {
            return Ok(None);
        };
        let power = monitor.power()?;
        if power == Power::Off && self.directory.is_fenced()? {
            self.close(monitor, call)?;
            return Ok(None);
        }
        Ok(Some((monitor, power)))
    }

    /// Before a fence falls: what was tracked goes on in bitmaps of a QEMU that has not run yet.
    pub(super) fn open_again(&self, call: &Call<'_>) -> Result<()> {
        let mut tracking = self.directory.tracking()?;
        if tracking.checkpoints.is_empty() {
            return Ok(());
        }
        let (mut monitor, power) = match self.live_monitor(call)? {
            Some(there) => there,
            None => (self.launch(call)?, Power::Begun),
        };
        if power != Power::Begun {
            // It was never off, or was started in spite of the fence.
            tracking.checkpoints.retain(|it| it.record == Record::Live);
            return self.directory.keep(&tracking);
        }
        tracking.checkpoints.retain(|it| it.record != Record::Live);
        tracking.set(Record::Opening);
        self.directory.keep(&tracking)?;
        let nodes = monitor.nodes(&self.disks)?;
        self.add_bitmaps(&mut monitor, &nodes, &tracking)?;
        tracking.set(Record::Live);
        self.directory.keep(&tracking)
    }

    /// Ends a QEMU whose guest does not run. It is fenced before its QEMU lets the disks go, so
    /// that it cannot be started in between; what its bitmaps say is kept.
    pub(super) fn close(&self, mut monitor: Monitor<'_>, call: &Call<'_>) -> Result<()> {
        let held = self.directory.is_fenced()?;
        self.directory.fence()?;
        let mut tracking = self.directory.tracking()?;
        if !tracking.checkpoints.is_empty() {
            let begun = monitor.power()? == Power::Begun;
            let nodes = monitor.nodes(&self.disks)?;
            snapshot::release(&mut monitor, &self.directory.files, &nodes)?;
            tracking.checkpoints.retain(|it| match it.record {
                Record::Live => have(&nodes, &it.bitmap()),
                Record::Closed => held,
                Record::Opening => held && begun,
            });
            let live = |it: &&mut Tracked| it.record == Record::Live;
            for checkpoint in tracking.checkpoints.iter_mut().filter(live) {
                let name = checkpoint.bitmap();
                for ((identity, _), node) in self.disks.iter().zip(&nodes) {
                    let ranges = self.read_bitmap(&mut monitor, node, &name, call)?;
                    checkpoint.wrote(identity, &ranges);
                }
            }
            tracking.set(Record::Closed);
            self.directory.keep(&tracking)?;
        }
        monitor.quit()?;
        self.wait_until_free(call)?;
        self.directory.files.clear_scratch(self.disks.len())
    }

    /// What a bitmap says at last.
    fn read_bitmap(
        &self,
        monitor: &mut Monitor<'_>,
        node: &Node,
        name: &str,
        call: &Call<'_>,
    ) -> Result<Vec<Range<u64>>> {
        let arguments = json!({"node": node.name, "name": name});
        monitor.run("block-dirty-bitmap-disable", arguments)?;
        snapshot::serve(monitor, &self.directory.files)?;
        snapshot::add_export(monitor, LAST, &node.name, &[name.to_owned()])?;
        let address = NbdAddress::new(self.directory.files.exports(), LAST);
        let ranges = NbdExport::open_until(&address, Some(name), call.cancel)
            .and_then(|it| it.changed(call.cancel));
        snapshot::remove_export(monitor, LAST)?;
        ranges
    }

    /// Waits until QEMU has let the disks go.
    fn wait_until_free(&self, call: &Call<'_>) -> Result<()> {
        let begin = Instant::now();
        for (_, path) in &self.disks {
            loop {
                match open_source(path, &SourceOptions::default()) {
                    Err(error) if error.kind() == ErrorKind::InUse => {
                        if begin.elapsed() >= self.time_limit {
                            return Err(error);
                        }
                        call.cancel.check()?;
                        std::thread::sleep(NAP);
                    }
                    // Whether it can be read is for others to say.
                    _ => break,
                }
            }
        }
        Ok(())
    }

    /// Asks the guest to shut down, and waits for it.
    pub(super) fn power_down(&self, monitor: &mut Monitor<'_>) -> Result<()> {
        monitor.stay()?;
        monitor.run("system_powerdown", json!({}))?;
        let what = "the guest's shutdown";
        let waited = monitor.wait(what, self.time_limit, |it| Ok(it.power()? != Power::On));
        waited.map_err(|error| match error.kind() {
            ErrorKind::Io => error.advise(
                "the guest may ignore the power button: shut it down from inside, or abort",
            ),
            _ => error,
        })
    }
}

/// The export of a disk whose guest is off.
const LAST: &str = "diskdelta-last";
const NAP: Duration = Duration::from_millis(20);
