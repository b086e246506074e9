//! Replicas that are kept encrypted of disks that are block devices.

use std::fs;

use crate::fake_vm::{DISK_BYTES, noise, read};
use crate::fixture::{CommandFixture, Runner};
use crate::{DeviceFixture, boots_from};

/// A VM that runs at the primary site; the recovery site has its disk on a device, and encrypts.
fn site(more: u64) -> Option<DeviceFixture> {
    let mut site = DeviceFixture::new("recovery", more)?;
    let directory = site.fake_vms.path("replicas");
    fs::create_dir(&directory).unwrap();
    let key = site.fake_vms.key();
    site.fake_vms.recovery =
        format!("[recovery.encryption]\nidentity = {key:?}\ndirectory = {directory:?}\n");
    let of = |name| site.fake_vms.site(name, "db1").join("running");
    fs::rename(of("recovery"), of("primary")).unwrap();
    Some(site)
}

fn start(site: &DeviceFixture) -> Runner {
    let plan = site.fake_vms.plan_from("primary");
    let plan = plan.to_str().unwrap();
    site.fake_vms.ok(&["check", plan]);
    site.fake_vms.spawn(&["start", plan, "--yes"])
}

fn replica(site: &DeviceFixture) -> std::path::PathBuf {
    site.fake_vms
        .path("replicas")
        .join("db1+db1-system.replica")
}

/// The device is held, and nothing of the disk is on it or in its sidecar.
fn is_empty(site: &DeviceFixture) {
    assert_eq!(site.state(), "held");
    site.is_refused();
    let middle = site.disk()[1 << 20..DISK_BYTES - (1 << 20)].to_vec();
    assert!(middle.iter().all(|byte| *byte == 0));
    let disk = read(site.fake_vms.target("db1"));
    for sidecar in site.sidecars() {
        let held = read(sidecar);
        assert!(!held.windows(512).any(|window| window == &disk[..512]));
    }
    assert!(replica(site).exists());
}

fn arrives(site: &DeviceFixture, runner: &mut Runner) {
    let fake_vms = &site.fake_vms;
    fake_vms.ok(&["complete", "shop"]);
    let status = fake_vms.wait_for(runner, 0, "commit-pending");
    assert_eq!(status["vms"][0]["proven"], true);
    assert!(site.disk() == read(fake_vms.target("db1")) && !site.is_marked());
    assert!(!replica(site).exists() && site.sidecars().is_empty());
}

#[test]
fn a_replica_of_a_device_is_kept_in_a_directory_and_becomes_the_disk_again() {
    let Some(site) = site(0) else {
        return;
    };
    let fake_vms = &site.fake_vms;
    let mut runner = start(&site);
    let status = fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    // The disk of before became the first link.
    let moved = &status["vms"][0]["last_pass"]["changed_bytes"];
    assert!(moved.as_u64().unwrap() <= 400_000, "{moved}");
    is_empty(&site);
    fake_vms.guest_writes("primary", "db1", 70_000, &noise(9_000, 3));
    arrives(&site, &mut runner);
    boots_from(fake_vms, "recovery", &site.disk());
}

#[test]
fn a_device_that_was_written_out_is_emptied_again_where_the_cutover_is_aborted() {
    let Some(site) = site(3 << 20) else {
        return;
    };
    let fake_vms = &site.fake_vms;
    let tail = || read(site.device.path())[DISK_BYTES..].to_vec();
    let before = tail();
    let mut runner = start(&site);
    fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    fake_vms.guest_writes("primary", "db1", 2 << 20, &vec![0; 100_000]);
    fake_vms.aborts_the_cutover(&mut runner, "primary", ["final-sync", "verifying"]);
    fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    runner.kill();

    // Whoever takes it over knows no more than the journal.
    let mut runner = fake_vms.spawn(&["resume", "shop"]);
    fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    fake_vms.ok(&["cancel", "shop"]);
    runner.end();
    let mut runner = start(&site);
    fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    is_empty(&site);
    fake_vms.guest_writes("primary", "db1", 0, &noise(5_000, 5));
    arrives(&site, &mut runner);
    assert!(tail() == before, "what lies beyond the disk is nobody's");
}

#[test]
fn a_job_onto_an_emptied_device_that_is_cancelled_before_it_wrote_leaves_the_replica() {
    let Some(site) = site(0) else {
        return;
    };
    let fake_vms = &site.fake_vms;
    let mut runner = start(&site);
    fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    fake_vms.ok(&["cancel", "shop"]);
    runner.end();
    fake_vms.cancels_at_the_beginning("primary", || start(&site));
    is_empty(&site);
    let mut runner = start(&site);
    let status = fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    assert_eq!(status["vms"][0]["last_pass"]["changed_bytes"], 0);
    arrives(&site, &mut runner);
}

#[test]
fn a_reversed_replica_on_a_device_is_encrypted_too() {
    let Some(mut site) = DeviceFixture::new("recovery", 0) else {
        return;
    };
    let directory = site.fake_vms.path("replicas");
    fs::create_dir(&directory).unwrap();
    let key = site.fake_vms.key();
    site.fake_vms.recovery =
        format!("[recovery.encryption]\nidentity = {key:?}\ndirectory = {directory:?}\n");
    let fake_vms = &site.fake_vms;
    let mut runner = fake_vms.start();
    fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    fake_vms.ok(&["complete", "shop"]);
    fake_vms.wait_for(&mut runner, 0, "commit-pending");
    fake_vms.guest_writes("primary", "db1", 1 << 20, &noise(5_000, 5));
    fake_vms.ok(&["commit", "shop"]);
    runner.end();
    let status = fake_vms.ok(&["reverse", "shop", "--wait"]);
    assert_eq!(status["vms"][0]["phase"], "protected");
    let moved = &status["vms"][0]["last_pass"]["changed_bytes"];
    assert!(moved.as_u64().unwrap() <= 131_072, "{moved}");
    is_empty(&site);
    fs::remove_file(fake_vms.site("recovery", "db1").join("gone")).unwrap();
    let mut runner = start(&site);
    fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    arrives(&site, &mut runner);
}

#[test]
fn an_executor_killed_while_it_writes_a_device_out_is_taken_over() {
    let Some(site) = site(0) else {
        return;
    };
    let fake_vms = &site.fake_vms;
    let plan = fake_vms.plan_from("primary");
    let plan = plan.to_str().unwrap();
    let mut runner = fake_vms.spawn(&["start", plan, "--yes", "--limit-rate", "1M"]);
    fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    fake_vms.ok(&["complete", "shop"]);
    let middle = || site.disk()[1 << 20..3 << 20].iter().any(|byte| *byte != 0);
    fake_vms.wait(&mut runner, "some of the disk", |_| middle());
    runner.kill();
    assert!(site.is_marked() && replica(&site).exists());
    let mut runner = fake_vms.spawn(&["resume", "shop"]);
    let status = fake_vms.wait_for(&mut runner, 0, "commit-pending");
    assert_eq!(status["vms"][0]["proven"], true);
    assert!(site.disk() == read(fake_vms.target("db1")));
}
