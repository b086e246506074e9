//! The command `failback` where disks are block devices: they have no name to take away, and are
//! held instead.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

#[path = "failback_devices/encrypted.rs"]
mod encrypted;
#[path = "failback_cli/fake_vm.rs"]
#[allow(dead_code)]
mod fake_vm;
#[path = "failback_cli/fixture.rs"]
#[allow(dead_code)]
mod fixture;
mod host;
#[path = "failback_devices/remote.rs"]
mod remote;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use fake_vm::{DISK_BYTES, FakeVms, noise, read};
use fixture::{CommandFixture, Runner};
use host::{LoopDevice, Mount, has_loop_devices, has_program, run};
use serde_json::{Value, json};

/// A fake_vms with the disk of one site on a loop device.
struct DeviceFixture {
    // In this order: processes end before the device goes.
    fake_vms: FakeVms,
    device: LoopDevice,
}

impl DeviceFixture {
    /// The device is `more` bytes longer than the disk; `None` where there are none.
    fn new(site: &str, more: u64) -> Option<Self> {
        if !has_loop_devices() {
            return None;
        }
        let fake_vms = FakeVms::new(&["db1"]).with_job("safety = \"in-place\"");
        let disk = fake_vms.site(site, "db1").join("disk.raw");
        let backing = disk.with_file_name("backing");
        fs::rename(&disk, &backing).unwrap();
        let file = OpenOptions::new().write(true).open(&backing).unwrap();
        file.set_len(DISK_BYTES as u64 + more).unwrap();
        file.write_all_at(&noise(more as usize, 9), DISK_BYTES as u64)
            .unwrap();
        let device = LoopDevice::attach(&backing);
        symlink(device.path(), &disk).unwrap();
        Some(DeviceFixture { fake_vms, device })
    }

    fn path(&self) -> &str {
        self.device.path().to_str().unwrap()
    }

    /// What `recover` says of the device; it is asked when nobody works on it.
    fn state(&self) -> String {
        let output = diskdelta(&["recover", self.path(), "--json"]);
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        said["outcome"].as_str().unwrap().to_owned()
    }

    /// A pass onto it is cancelled, which leaves it held and incomplete; what the next job's plan
    /// shows.
    fn is_cancelled(&self, mut runner: Runner) -> Value {
        let fake_vms = &self.fake_vms;
        fake_vms.ok(&["cancel", "shop"]);
        runner.end();
        let status = fake_vms.status();
        assert_eq!(status["vms"][0]["disposition"], "blocked_inconsistent");
        assert_eq!(self.state(), "rerun");
        self.is_refused();

        let plan = fake_vms.plan();
        let checked = fake_vms.ok(&["check", plan.to_str().unwrap()]);
        assert!(checked.to_string().contains("incomplete"), "{checked}");
        fake_vms.ok(&["plan", plan.to_str().unwrap()])
    }

    /// Nothing of ours takes the device for a disk.
    fn is_refused(&self) {
        for arguments in [
            &["info", self.path()][..],
            &["sync", self.path(), "/dev/null/nowhere.raw"],
            &["recover", self.path(), "--discard"],
        ] {
            let output = diskdelta(arguments);
            let complaint = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(3), "{arguments:?}: {complaint}");
            assert!(complaint.contains("held"), "{arguments:?}: {complaint}");
        }
    }

    fn is_marked(&self) -> bool {
        read(self.device.path()).starts_with(b"\0diskdelta mark1")
    }

    fn disk(&self) -> Vec<u8> {
        read(self.device.path())[..DISK_BYTES].to_vec()
    }

    fn sidecars(&self) -> Vec<PathBuf> {
        let output = diskdelta(&["recover", "--list", "--json", LOGS]);
        let listed: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let mine = |item: &&Value| item["target"] == self.path();
        let pending = listed["pending"].as_array().cloned().unwrap_or_default();
        pending
            .iter()
            .filter(mine)
            .map(|item| item["file"].as_str().unwrap().into())
            .collect()
    }
}

impl Drop for DeviceFixture {
    fn drop(&mut self) {
        // The device is gone after this.
        for sidecar in self.sidecars() {
            let _ = fs::remove_file(sidecar);
        }
    }
}

#[test]
fn a_job_goes_home_onto_a_device_that_nobody_can_use_before_it_is_done() {
    let Some(site) = DeviceFixture::new("primary", 0) else {
        return;
    };
    let fake_vms = &site.fake_vms;
    let mut runner = fake_vms.start();
    let status = fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    let moved = &status["vms"][0]["last_pass"]["changed_bytes"];
    assert!(
        (300_000..400_000).contains(&moved.as_u64().unwrap()),
        "{moved}"
    );
    assert_eq!(site.state(), "held");
    site.is_refused();

    // Onto what is held, a pass moves only what changed since; under the marker, too.
    fake_vms.guest_writes("recovery", "db1", 70_000, &noise(10_000, 3));
    fake_vms.guest_writes("recovery", "db1", 2 << 20, &noise(4096, 4));
    fake_vms.ok(&["complete", "shop"]);
    let status = fake_vms.wait_for(&mut runner, 0, "commit-pending");
    let moved = &status["vms"][0]["last_pass"]["changed_bytes"];
    assert!(
        (14_000..30_000).contains(&moved.as_u64().unwrap()),
        "{moved}"
    );
    assert_eq!(status["vms"][0]["proven"], true);
    assert!(site.disk() == read(fake_vms.source("db1")));
    assert!(fake_vms.is("primary", "db1", "running") && !fake_vms.is("recovery", "db1", "running"));
    assert!(site.sidecars().is_empty());
    boots_from(fake_vms, "primary", &site.disk());

    fake_vms.guest_writes("primary", "db1", 1 << 20, &noise(5_000, 5));
    fake_vms.ok(&["commit", "shop"]);
    runner.end();
    let status = fake_vms.ok(&["reverse", "shop", "--wait"]);
    assert_eq!(status["vms"][0]["phase"], "protected");
    let replica = fake_vms
        .site("recovery", "db1")
        .join("disk.raw.failback-shop.partial.raw");
    assert!(read(replica) == site.disk());
}

#[test]
fn a_device_on_another_host_is_held_there_and_let_go_when_it_is_whole() {
    let Some(mut site) = DeviceFixture::new("primary", 0) else {
        return;
    };
    site.fake_vms.remote = vec!["primary"];
    let state = site.fake_vms.path("state");
    site.fake_vms.connect = format!("state = \"{}\"\n", state.display());
    site.fake_vms.writer("");
    let mut runner = half_way(&site);
    runner.kill();
    let mut runner = site.fake_vms.spawn(&["resume", "shop"]);
    let fake_vms = &site.fake_vms;
    fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    assert_eq!(site.state(), "held");
    site.is_refused();
    fake_vms.guest_writes("recovery", "db1", 70_000, &noise(10_000, 3));
    fake_vms.ok(&["complete", "shop"]);
    let status = fake_vms.wait_for(&mut runner, 0, "commit-pending");
    let moved = &status["vms"][0]["last_pass"]["changed_bytes"];
    assert!(
        (10_000..20_000).contains(&moved.as_u64().unwrap()),
        "{moved}"
    );
    assert_eq!(status["vms"][0]["proven"], true);
    assert!(site.disk() == read(fake_vms.source("db1")) && site.sidecars().is_empty());
    assert!(fake_vms.agent_token().exists());
    boots_from(fake_vms, "primary", &site.disk());
}

#[test]
fn a_replica_on_a_device_is_held_and_becomes_the_base_of_the_next_failover() {
    let Some(site) = DeviceFixture::new("recovery", 0) else {
        return;
    };
    let fake_vms = &site.fake_vms;
    let mut runner = fake_vms.start();
    fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    assert!(!site.is_marked(), "its VM runs");
    fake_vms.ok(&["complete", "shop"]);
    fake_vms.wait_for(&mut runner, 0, "commit-pending");
    fake_vms.guest_writes("primary", "db1", 1 << 20, &noise(5_000, 5));
    fake_vms.ok(&["commit", "shop"]);
    runner.end();
    assert!(!site.is_marked());
    let status = fake_vms.ok(&["reverse", "shop", "--wait"]);
    assert_eq!(status["vms"][0]["phase"], "protected");
    let moved = &status["vms"][0]["last_pass"]["changed_bytes"];
    assert!(
        (5_000..13_000).contains(&moved.as_u64().unwrap()),
        "{moved}"
    );
    assert_eq!(site.state(), "held");
    site.is_refused();

    fs::remove_file(fake_vms.site("recovery", "db1").join("gone")).unwrap();
    fake_vms.guest_writes("primary", "db1", 3 << 20, &noise(6_000, 6));
    let plan = fake_vms.plan_from("primary");
    let mut runner = fake_vms.spawn(&["start", plan.to_str().unwrap(), "--yes"]);
    let status = fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    let moved = &status["vms"][0]["last_pass"]["changed_bytes"];
    assert!(
        (6_000..13_000).contains(&moved.as_u64().unwrap()),
        "{moved}"
    );
    fake_vms.ok(&["complete", "shop"]);
    fake_vms.wait_for(&mut runner, 0, "commit-pending");
    assert!(site.disk() == read(fake_vms.target("db1")));
    boots_from(fake_vms, "recovery", &site.disk());
}

#[test]
fn an_executor_killed_in_the_middle_of_a_pass_leaves_the_device_held_and_another_goes_on() {
    for mode in ["delta", "full-first"] {
        let Some(mut site) = DeviceFixture::new("primary", 0) else {
            return;
        };
        site.fake_vms.job += &format!("\nmode = \"{mode}\"");
        let fake_vms = &site.fake_vms;
        let mut runner = half_way(&site);
        runner.kill();
        assert_eq!(site.state(), "rerun", "{mode}");
        site.is_refused();
        let output = diskdelta(&["recover", site.path(), "--release"]);
        assert_eq!(output.status.code(), Some(3), "{mode}: not whole");

        let mut runner = fake_vms.spawn(&["resume", "shop"]);
        fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
        assert_eq!(site.state(), "held", "{mode}");
        fake_vms.guest_writes("recovery", "db1", 0, &noise(9_000, 7));
        fake_vms.ok(&["complete", "shop"]);
        let status = fake_vms.wait_for(&mut runner, 0, "commit-pending");
        assert_eq!(status["vms"][0]["proven"], true, "{mode}");
        assert!(site.disk() == read(fake_vms.source("db1")), "{mode}");
        boots_from(fake_vms, "primary", &site.disk());
    }
}

#[test]
fn a_cancelled_job_leaves_the_device_held_and_the_next_takes_it_over() {
    let Some(mut site) = DeviceFixture::new("primary", 0) else {
        return;
    };
    site.fake_vms.job += "\nmode = \"delta\"";
    let fake_vms = &site.fake_vms;
    let shown = site.is_cancelled(half_way(&site));
    assert!(shown.to_string().contains("full-first"), "{shown}");
    let mut runner = fake_vms.start();
    fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    fake_vms.ok(&["cancel", "shop"]);
    runner.end();
    assert_eq!(site.state(), "held");
    site.is_refused();

    let mut runner = fake_vms.start();
    let status = fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    let moved = &status["vms"][0]["last_pass"]["changed_bytes"];
    assert_eq!(*moved, 0, "it was all there");
    fake_vms.ok(&["complete", "shop"]);
    fake_vms.wait_for(&mut runner, 0, "commit-pending");
    assert!(site.disk() == read(fake_vms.source("db1")));
}

#[test]
fn a_job_cancelled_before_it_wrote_lets_the_device_go_as_it_was() {
    let Some(site) = DeviceFixture::new("primary", 0) else {
        return;
    };
    let fake_vms = &site.fake_vms;
    let before = site.disk();
    let slow = fake_vms.site("recovery", "db1").join("slow");
    fs::write(&slow, "1").unwrap();
    let mut runner = fake_vms.start();
    fake_vms.wait(&mut runner, "a hold", |_| site.is_marked());
    fake_vms.ok(&["cancel", "shop", "--restore"]);
    fs::remove_file(&slow).unwrap();
    runner.end();
    assert_eq!(fake_vms.status()["vms"][0]["disposition"], "restored");
    assert!(site.disk() == before && site.sidecars().is_empty());
    assert!(fake_vms.is("recovery", "db1", "running"));
}

#[test]
fn an_aborted_cutover_keeps_the_device_held_and_what_was_copied() {
    let Some(site) = DeviceFixture::new("primary", 0) else {
        return;
    };
    let fake_vms = &site.fake_vms;
    let mut runner = fake_vms.start();
    fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    fake_vms.aborts_the_cutover(&mut runner, "recovery", ["quiescing", "final-sync"]);
    fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    assert!(site.is_marked() && fake_vms.is("recovery", "db1", "running"));
    fake_vms.guest_writes("recovery", "db1", 500_000, &noise(9_000, 6));
    fake_vms.ok(&["complete", "shop"]);
    fake_vms.wait_for(&mut runner, 0, "commit-pending");
    assert!(site.disk() == read(fake_vms.source("db1")));
}

#[test]
fn an_undo_after_activation_holds_the_device_again() {
    let Some(site) = DeviceFixture::new("primary", 0) else {
        return;
    };
    let fake_vms = &site.fake_vms;
    let mut runner = fake_vms.start();
    fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    fake_vms.ok(&["complete", "shop"]);
    fake_vms.wait_for(&mut runner, 0, "commit-pending");
    assert!(!site.is_marked());
    fake_vms.ok(&["undo", "shop", "--accept-loss"]);
    runner.end();
    assert_eq!(site.state(), "held");
    site.is_refused();
    assert!(fake_vms.is("recovery", "db1", "running") && !fake_vms.is("primary", "db1", "running"));
}

#[test]
fn a_device_may_be_longer_than_the_disk_where_the_plan_says_how_long_that_is() {
    let Some(site) = DeviceFixture::new("primary", 3 << 20) else {
        return;
    };
    let fake_vms = &site.fake_vms;
    let tail = || read(site.device.path())[DISK_BYTES..].to_vec();
    let before = tail();
    let mut runner = fake_vms.start();
    fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    fake_vms.guest_writes(
        "recovery",
        "db1",
        DISK_BYTES as u64 - 5_000,
        &noise(5_000, 3),
    );
    fake_vms.ok(&["complete", "shop"]);
    let status = fake_vms.wait_for(&mut runner, 0, "commit-pending");
    assert_eq!(status["vms"][0]["proven"], true);
    assert!(site.disk() == read(fake_vms.source("db1")));
    assert!(tail() == before, "what lies beyond the disk is nobody's");
}

#[test]
fn a_plan_that_asks_for_more_than_a_device_can_do_is_refused_before_anything_begins() {
    for job in ["", "safety = \"atomic\"", "keep_undo = true"] {
        let Some(mut site) = DeviceFixture::new("primary", 0) else {
            return;
        };
        site.fake_vms.job = job.to_owned();
        let before = site.disk();
        let plan = site.fake_vms.plan();
        let plan = plan.to_str().unwrap();
        let output = site.fake_vms.run(&["check", plan]);
        assert_eq!(output.status.code(), Some(2), "{job}");
        let checked: Value = serde_json::from_slice(&output.stdout).unwrap();
        let failed = failed(&checked);
        assert_eq!(failed, json!(["in place of disk db1-system"]), "{checked}");
        let complaint = site.fake_vms.refused(&["start", plan, "--yes"]);
        assert!(complaint.contains("safety = \"in-place\""), "{complaint}");
        assert!(site.disk() == before && !site.is_marked());
    }
    let Some(mut site) = DeviceFixture::new("recovery", 0) else {
        return;
    };
    let fake_vms = &mut site.fake_vms;
    fake_vms.recovery = format!("[recovery.encryption]\nidentity = {:?}\n", fake_vms.key());
    let plan = fake_vms.plan_from("primary");
    let output = fake_vms.run(&["check", plan.to_str().unwrap()]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("a block device has none"), "{text}");
}

#[test]
fn an_atomic_job_from_a_device_goes_home_and_says_from_the_first_that_reverse_is_refused() {
    let Some(mut site) = DeviceFixture::new("recovery", 0) else {
        return;
    };
    site.fake_vms.job = String::new();
    let fake_vms = &site.fake_vms;
    let plan = fake_vms.plan();
    let checked = fake_vms.ok(&["check", plan.to_str().unwrap()]).to_string();
    assert!(checked.contains("`reverse` will be refused"), "{checked}");
    let shown = fake_vms.ok(&["plan", plan.to_str().unwrap()]);
    let said = shown["vms"][0]["no_reverse"].as_str().unwrap();
    assert!(said.contains("safety = \"in-place\""), "{said}");

    let mut runner = fake_vms.start();
    fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    fake_vms.ok(&["complete", "shop"]);
    fake_vms.wait_for(&mut runner, 0, "commit-pending");
    fake_vms.guest_writes("primary", "db1", 1 << 20, &noise(5_000, 5));
    fake_vms.ok(&["commit", "shop"]);
    runner.end();
    assert_eq!(fake_vms.status()["allowed"], json!([]));
    let before = site.disk();
    let refused = fake_vms.refused(&["reverse", "shop"]);
    assert!(refused.contains(said), "{refused}");
    assert!(site.disk() == before && !site.is_marked());
    assert_eq!(fake_vms.phase(0), "committed");

    // The way that it names.
    fs::remove_file(fake_vms.site("recovery", "db1").join("gone")).unwrap();
    site.fake_vms.job = "safety = \"in-place\"".to_owned();
    let fake_vms = &site.fake_vms;
    let plan = fake_vms.plan_from("primary");
    let shown = fake_vms.ok(&["plan", plan.to_str().unwrap()]);
    assert!(shown["vms"][0]["no_reverse"].is_null());
    let mut runner = fake_vms.spawn(&["start", plan.to_str().unwrap(), "--yes"]);
    let status = fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    let moved = &status["vms"][0]["last_pass"]["changed_bytes"];
    assert!(
        (5_000..13_000).contains(&moved.as_u64().unwrap()),
        "{moved}"
    );
    fake_vms.ok(&["complete", "shop"]);
    fake_vms.wait_for(&mut runner, 0, "commit-pending");
    assert!(site.disk() == read(fake_vms.target("db1")));
}

#[test]
fn a_held_device_is_found_by_no_mount_and_no_probe_until_it_is_activated() {
    let tools = ["mkfs.ext4", "blkid", "mount"];
    if !tools.iter().all(|tool| has_program(tool)) {
        return;
    }
    let Some(site) = DeviceFixture::new("primary", 0) else {
        return;
    };
    let fake_vms = &site.fake_vms;
    let directory = fake_vms.site("recovery", "db1").join("files");
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("order"), "42").unwrap();
    let (source, files) = (fake_vms.source("db1"), directory.to_str().unwrap());
    let made = ["-q", "-F", "-d", files, source.to_str().unwrap()];
    run("mkfs.ext4", &made);
    let older = ["-q", "-F", site.path()];
    run("mkfs.ext4", &older);
    assert!(is_known(site.device.path()));

    let mut runner = fake_vms.start();
    fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    assert!(!is_known(site.device.path()));
    let point = fake_vms.site("primary", "db1").join("mounted");
    fs::create_dir(&point).unwrap();
    let mount = Command::new("mount")
        .args(["-t", "ext4", "-o", "ro", site.path()])
        .arg(&point)
        .output()
        .unwrap();
    assert!(!mount.status.success());

    fake_vms.ok(&["complete", "shop"]);
    fake_vms.wait_for(&mut runner, 0, "commit-pending");
    assert!(is_known(site.device.path()));
    let mount = Mount::new(&["-o", "ro", site.path()], &point);
    assert_eq!(fs::read_to_string(point.join("order")).unwrap(), "42");
    drop(mount);
}

/// Starts a job and stops looking when its first pass has changed something; its runner is in the
/// middle of it.
fn half_way(site: &DeviceFixture) -> Runner {
    let plan = site.fake_vms.plan();
    let middle = || read(site.device.path())[1 << 20..3 << 20].to_vec();
    let before = middle();
    let arguments = [
        "start",
        plan.to_str().unwrap(),
        "--yes",
        "--limit-rate",
        "128K",
    ];
    let mut runner = site.fake_vms.spawn(&arguments);
    site.fake_vms
        .wait(&mut runner, "a change", |_| middle() != before);
    runner
}

/// The VM of a site was last started from a disk of these bytes.
fn boots_from(fake_vms: &FakeVms, site: &str, disk: &[u8]) {
    let boots = fs::read_to_string(fake_vms.site(site, "db1").join("boots")).unwrap();
    let file = fake_vms.site(site, "db1").join("expected");
    fs::write(&file, disk).unwrap();
    let sum = run("sha256sum", &[file.to_str().unwrap()]);
    let sum = sum.split(' ').next().unwrap();
    assert!(boots.lines().last().unwrap().starts_with(sum));
}

fn is_known(device: &Path) -> bool {
    let probed = Command::new("blkid").arg("-p").arg(device).output();
    probed.unwrap().status.success()
}

fn failed(checked: &Value) -> Value {
    let checks = checked["checks"].as_array().unwrap().iter();
    let failed = checks.filter(|check| check["holds"] == false);
    failed.map(|check| check["check"].clone()).collect()
}

fn diskdelta(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_diskdelta"));
    command.args(arguments).output().unwrap()
}

/// Where the sidecars of devices lie.
const LOGS: &str = "/var/lib/diskdelta";
