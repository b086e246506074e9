//! Marked devices after a restart: under other numbers, moved, copied; and the unit that recovers
//! at boot.

use std::fs;
use std::process::Command;
use std::sync::Arc;

use diskdelta::image::ImageOptions;
use diskdelta::storage::SourceOptions;
use diskdelta::sync::{HostSource, HostTarget, HostTargetOptions, Mode, SyncOptions, sync};
use diskdelta::{CancelToken, ErrorKind, Phase, Progress, Work};

use crate::fixture::Fixture;
use crate::host::{LoopDevice, has_loop_devices, has_program, run};

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

/// A device that an atomic sync left marked, its redo log in the fixture's `logs`.
struct Marked {
    fixture: Fixture,
    device: LoopDevice,
}

impl Marked {
    fn new() -> Option<Marked> {
        if !has_loop_devices() {
            return None;
        }
        let fixture = Fixture::new();
        let new = fixture.disk("new.raw", 900, 1);
        let device = LoopDevice::attach(&fixture.disk("under.raw", 900, 2));
        let options = HostTargetOptions::default().with_log_dir(Some(fixture.path("logs")));
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
        Some(Marked { fixture, device })
    }

    /// Gives the device's number to another file and its file another number, as a restart may.
    fn reboot(&self, file: &str) -> Renumbered {
        let first = self.device.path().to_str().unwrap();
        run("losetup", &["-d", first]);
        self.fixture.disk("stranger.raw", 900, 3);
        let stranger = self.fixture.path("stranger.raw");
        run("losetup", &[first, stranger.to_str().unwrap()]);
        let number: u32 = first.trim_start_matches("/dev/loop").parse().unwrap();
        let path = format!("/dev/loop{}", number + 40);
        let file = self.fixture.path(file);
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
    let fixture = &marked.fixture;
    let refused = fixture.run(&format!("info {}", device.path));
    refused.fails(3, "incomplete");
    fixture
        .run(&format!("sync new.raw {} --log-dir logs", device.path))
        .fails(3, "diskdelta recover");
    fixture.done(&format!("recover {} --log-dir logs", device.path));
    assert!(device.bytes() == fixture.bytes("new.raw"));
    assert_eq!(fs::read_dir(fixture.path("logs")).unwrap().count(), 0);
    assert!(fixture.bytes("stranger.raw") == crate::fixture::noise(900 * 4096, 3));
}

#[test]
fn a_renumbered_device_is_listed_and_recovered_at_boot() {
    let Some(marked) = Marked::new() else { return };
    let device = marked.reboot("under.raw");
    let fixture = &marked.fixture;
    let (_, listed) = fixture.json("recover --list logs");
    assert_eq!(listed["pending"][0]["kind"], "redo_log", "{listed}");
    assert_eq!(listed["pending"][0]["state"], "marked", "{listed}");
    assert_eq!(
        listed["pending"][0]["target"],
        device.path.as_str(),
        "{listed}"
    );
    let (status, recovered) = fixture.json("recover --all logs");
    assert_eq!(status, 0, "{recovered}");
    assert_eq!(recovered["recovered"][0]["outcome"], "new", "{recovered}");
    assert!(device.bytes() == fixture.bytes("new.raw"));
    assert!(fixture.bytes("stranger.raw") == crate::fixture::noise(900 * 4096, 3));
}

#[test]
fn a_device_whose_file_was_moved_is_finished_through_its_marker() {
    let Some(marked) = Marked::new() else { return };
    let fixture = &marked.fixture;
    fs::rename(fixture.path("under.raw"), fixture.path("moved.raw")).unwrap();
    let device = marked.reboot("moved.raw");
    // The marker names the redo log's directory too; it is data, and is not followed.
    fixture
        .run(&format!("recover {}", device.path))
        .fails(3, "bring the log back");
    fixture.done(&format!("recover {} --log-dir logs", device.path));
    assert!(device.bytes() == fixture.bytes("new.raw"));
}

#[test]
fn a_copy_of_a_marked_device_is_recognised() {
    let Some(marked) = Marked::new() else { return };
    let fixture = &marked.fixture;
    fs::write(
        fixture.path("copy.raw"),
        fs::read(marked.device.path()).unwrap(),
    )
    .unwrap();
    fixture.run("info copy.raw").fails(3, "incomplete");
    for verb in ["recover copy.raw", "sync new.raw copy.raw"] {
        fixture
            .run(&format!("{verb} --log-dir logs"))
            .fails(3, "--trust-log");
        let log = fs::read_dir(fixture.path("logs")).unwrap().next().unwrap();
        fixture
            .run(&format!(
                "{verb} --trust-log {}",
                log.unwrap().path().display()
            ))
            .fails(3, "this is a copy of");
    }
    let path = marked.device.path().display();
    fixture.done(&format!("recover {path} --log-dir logs"));
    assert!(fs::read(marked.device.path()).unwrap() == fixture.bytes("new.raw"));
    fixture
        .run("recover copy.raw")
        .fails(3, "bring the log back");
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
        let fixture = &marked.fixture;
        let here = command.replace("/var/lib/diskdelta", "logs");
        fixture.done(&here);
        assert!(fs::read(marked.device.path()).unwrap() == fixture.bytes("new.raw"));
    }
    if !has_program("systemd-analyze") {
        return;
    }
    // Where the command lies on this machine.
    let fixture = Fixture::new();
    let text = text.replace("/usr/bin/diskdelta", env!("CARGO_BIN_EXE_diskdelta"));
    let copy = fixture.path("diskdelta-recover.service");
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
