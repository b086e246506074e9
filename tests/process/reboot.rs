//! Marked devices after a restart: under other numbers, moved, copied; and the unit that recovers
//! at boot.

use std::fs;
use std::process::Command;
use std::sync::Arc;

use diskdelta::image::ImageOptions;
use diskdelta::storage::SourceOptions;
use diskdelta::sync::{HostSource, HostTarget, HostTargetOptions, Mode, SyncOptions, sync};
use diskdelta::{CancelToken, ErrorKind, Phase, Progress, Work};

use crate::host::{LoopDevice, has_loop_devices, has_program, run};
use crate::lab::Lab;

/// Asks to stop at once as soon as the target is being written.
struct StopApplying(CancelToken);

impl Progress for StopApplying {
    fn begin(&self, phase: Phase, _total_bytes: Option<u64>) {
        if phase == Phase::Apply {
            self.0.cancel();
            self.0.cancel();
        }
    }

    fn advance(&self, _bytes: u64) {}
}

/// A device that an atomic sync left marked, its redo log in the lab's `logs`.
struct Marked {
    lab: Lab,
    device: LoopDevice,
}

impl Marked {
    fn new() -> Option<Marked> {
        if !has_loop_devices() {
            return None;
        }
        let lab = Lab::new();
        let new = lab.disk("new.raw", 900, 1);
        let device = LoopDevice::attach(&lab.disk("under.raw", 900, 2));
        let options = HostTargetOptions::default().with_log_dir(Some(lab.path("logs")));
        let source =
            HostSource::open(new, &ImageOptions::default(), &SourceOptions::default()).unwrap();
        let target = HostTarget::open(device.path(), &options).unwrap();
        let cancel = CancelToken::new();
        let work = Work::with_threads(1)
            .unwrap()
            .with_cancel(cancel.clone())
            .with_progress(Arc::new(StopApplying(cancel)));
        let options = SyncOptions::default().with_mode(Mode::Delta);
        let error = sync(&source.source(), target.target(), &options, &work).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
        drop((source, target));
        Some(Marked { lab, device })
    }

    /// Gives the device's number to another file and its file another number, as a restart may.
    fn reboot(&self, file: &str) -> Renumbered {
        let first = self.device.path().to_str().unwrap();
        run("losetup", &["-d", first]);
        self.lab.disk("stranger.raw", 900, 3);
        let stranger = self.lab.path("stranger.raw");
        run("losetup", &[first, stranger.to_str().unwrap()]);
        let number: u32 = first.trim_start_matches("/dev/loop").parse().unwrap();
        let path = format!("/dev/loop{}", number + 40);
        let file = self.lab.path(file);
        run("losetup", &[&path, file.to_str().unwrap()]);
        Renumbered { path }
    }
}

/// The device under its other number.
struct Renumbered {
    path: String,
}

impl Renumbered {
    fn bytes(&self) -> Vec<u8> {
        fs::read(&self.path).unwrap()
    }
}

impl Drop for Renumbered {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["-d", &self.path]).status();
    }
}

#[test]
fn a_devices_redo_log_is_found_after_it_was_renumbered() {
    let Some(marked) = Marked::new() else { return };
    let device = marked.reboot("under.raw");
    let lab = &marked.lab;
    let refused = lab.run(&format!("info {}", device.path));
    refused.fails(3, "incomplete");
    lab.run(&format!("sync new.raw {} --log-dir logs", device.path))
        .fails(3, "diskdelta recover");
    lab.done(&format!("recover {} --log-dir logs", device.path));
    assert!(device.bytes() == lab.bytes("new.raw"));
    assert_eq!(fs::read_dir(lab.path("logs")).unwrap().count(), 0);
    assert!(lab.bytes("stranger.raw") == crate::lab::noise(900 * 4096, 3));
}

#[test]
fn a_renumbered_device_is_listed_and_recovered_at_boot() {
    let Some(marked) = Marked::new() else { return };
    let device = marked.reboot("under.raw");
    let lab = &marked.lab;
    let (_, listed) = lab.json("recover --list logs");
    assert_eq!(listed["pending"][0]["kind"], "redo_log", "{listed}");
    assert_eq!(listed["pending"][0]["state"], "marked", "{listed}");
    assert_eq!(
        listed["pending"][0]["target"],
        device.path.as_str(),
        "{listed}"
    );
    let (status, recovered) = lab.json("recover --all logs");
    assert_eq!(status, 0, "{recovered}");
    assert_eq!(recovered["recovered"][0]["outcome"], "new", "{recovered}");
    assert!(device.bytes() == lab.bytes("new.raw"));
    assert!(lab.bytes("stranger.raw") == crate::lab::noise(900 * 4096, 3));
}

#[test]
fn a_device_whose_file_was_moved_is_finished_through_its_mark() {
    let Some(marked) = Marked::new() else { return };
    let lab = &marked.lab;
    fs::rename(lab.path("under.raw"), lab.path("moved.raw")).unwrap();
    let device = marked.reboot("moved.raw");
    // The marker names the redo log's directory too; it is data, and is not followed.
    lab.run(&format!("recover {}", device.path))
        .fails(3, "bring the log back");
    lab.done(&format!("recover {} --log-dir logs", device.path));
    assert!(device.bytes() == lab.bytes("new.raw"));
}

#[test]
fn a_copy_of_a_marked_device_is_recognised() {
    let Some(marked) = Marked::new() else { return };
    let lab = &marked.lab;
    fs::write(
        lab.path("copy.raw"),
        fs::read(marked.device.path()).unwrap(),
    )
    .unwrap();
    lab.run("info copy.raw").fails(3, "incomplete");
    for verb in ["recover copy.raw", "sync new.raw copy.raw"] {
        lab.run(&format!("{verb} --log-dir logs"))
            .fails(3, "--trust-log");
        let log = fs::read_dir(lab.path("logs")).unwrap().next().unwrap();
        lab.run(&format!(
            "{verb} --trust-log {}",
            log.unwrap().path().display()
        ))
        .fails(3, "this is a copy of");
    }
    let path = marked.device.path().display();
    lab.done(&format!("recover {path} --log-dir logs"));
    assert!(fs::read(marked.device.path()).unwrap() == lab.bytes("new.raw"));
    lab.run("recover copy.raw").fails(3, "bring the log back");
}

#[test]
fn the_unit_that_recovers_at_boot_is_well_formed_and_its_command_works() {
    let unit = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/contrib/diskdelta-recover.service"
    );
    let text = fs::read_to_string(unit).unwrap();
    let command = text
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart=/usr/bin/diskdelta "))
        .unwrap();
    if let Some(marked) = Marked::new() {
        let lab = &marked.lab;
        let here = command.replace("/var/lib/diskdelta", "logs");
        lab.done(&here);
        assert!(fs::read(marked.device.path()).unwrap() == lab.bytes("new.raw"));
    }
    if !has_program("systemd-analyze") {
        return;
    }
    // Where the command lies on this machine.
    let lab = Lab::new();
    let text = text.replace("/usr/bin/diskdelta", env!("CARGO_BIN_EXE_diskdelta"));
    let copy = lab.path("diskdelta-recover.service");
    fs::write(&copy, text).unwrap();
    let output = Command::new("systemd-analyze")
        .args(["verify", "--man=no", "--recursive-errors=no"])
        .arg(&copy)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("diskdelta-recover"), "{said}");
}
