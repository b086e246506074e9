//! Replicas that are kept encrypted of disks that are block devices.

use std::fs;

use crate::desk::{Desk, Runner};
use crate::rig::{DISK_BYTES, noise, read};
use crate::{Site, boots_from};

/// A VM that runs at the primary site; the recovery site has its disk on a device, and encrypts.
fn site(more: u64) -> Option<Site> {
    let mut site = Site::new("recovery", more)?;
    let directory = site.rig.path("replicas");
    fs::create_dir(&directory).unwrap();
    let key = site.rig.key();
    site.rig.recovery =
        format!("[recovery.encryption]\nidentity = {key:?}\ndirectory = {directory:?}\n");
    let of = |name| site.rig.site(name, "db1").join("running");
    fs::rename(of("recovery"), of("primary")).unwrap();
    Some(site)
}

fn start(site: &Site) -> Runner {
    let plan = site.rig.plan_from("primary");
    let plan = plan.to_str().unwrap();
    site.rig.ok(&["check", plan]);
    site.rig.spawn(&["start", plan, "--yes"])
}

fn replica(site: &Site) -> std::path::PathBuf {
    site.rig.path("replicas").join("db1+db1-system.replica")
}

/// The device is held, and nothing of the disk is on it or in its sidecar.
fn is_empty(site: &Site) {
    assert_eq!(site.standing(), "held");
    site.is_refused();
    let middle = site.disk()[1 << 20..DISK_BYTES - (1 << 20)].to_vec();
    assert!(middle.iter().all(|byte| *byte == 0));
    let disk = read(site.rig.target("db1"));
    for sidecar in site.sidecars() {
        let held = read(sidecar);
        assert!(!held.windows(512).any(|window| window == &disk[..512]));
    }
    assert!(replica(site).exists());
}

fn arrives(site: &Site, runner: &mut Runner) {
    let rig = &site.rig;
    rig.ok(&["complete", "shop"]);
    let status = rig.wait_for(runner, 0, "commit-pending");
    assert_eq!(status["vms"][0]["proven"], true);
    assert!(site.disk() == read(rig.target("db1")) && !site.is_marked());
    assert!(!replica(site).exists() && site.sidecars().is_empty());
}

#[test]
fn a_replica_of_a_device_is_kept_in_a_directory_and_becomes_the_disk_again() {
    let Some(site) = site(0) else {
        return;
    };
    let rig = &site.rig;
    let mut runner = start(&site);
    let status = rig.wait_for(&mut runner, 0, "ready-to-cutover");
    // The disk of before became the first link.
    let moved = &status["vms"][0]["last_pass"]["changed_bytes"];
    assert!(moved.as_u64().unwrap() <= 400_000, "{moved}");
    is_empty(&site);
    rig.guest_writes("primary", "db1", 70_000, &noise(9_000, 3));
    arrives(&site, &mut runner);
    boots_from(rig, "recovery", &site.disk());
}

#[test]
fn a_device_that_was_written_out_is_emptied_again_where_the_cutover_is_aborted() {
    let Some(site) = site(3 << 20) else {
        return;
    };
    let rig = &site.rig;
    let tail = || read(site.device.path())[DISK_BYTES..].to_vec();
    let before = tail();
    let mut runner = start(&site);
    rig.wait_for(&mut runner, 0, "ready-to-cutover");
    rig.guest_writes("primary", "db1", 2 << 20, &vec![0; 100_000]);
    rig.aborts_the_cutover(&mut runner, "primary", ["final-sync", "verifying"]);
    rig.wait_for(&mut runner, 0, "ready-to-cutover");
    runner.kill();

    // Whoever takes it over knows no more than the journal.
    let mut runner = rig.spawn(&["resume", "shop"]);
    rig.wait_for(&mut runner, 0, "ready-to-cutover");
    rig.ok(&["cancel", "shop"]);
    runner.end();
    let mut runner = start(&site);
    rig.wait_for(&mut runner, 0, "ready-to-cutover");
    is_empty(&site);
    rig.guest_writes("primary", "db1", 0, &noise(5_000, 5));
    arrives(&site, &mut runner);
    assert!(tail() == before, "what lies beyond the disk is nobody's");
}

#[test]
fn a_job_onto_an_emptied_device_that_is_cancelled_before_it_wrote_leaves_the_replica() {
    let Some(site) = site(0) else {
        return;
    };
    let rig = &site.rig;
    let mut runner = start(&site);
    rig.wait_for(&mut runner, 0, "ready-to-cutover");
    rig.ok(&["cancel", "shop"]);
    runner.end();
    rig.cancels_at_the_beginning("primary", || start(&site));
    is_empty(&site);
    let mut runner = start(&site);
    let status = rig.wait_for(&mut runner, 0, "ready-to-cutover");
    assert_eq!(status["vms"][0]["last_pass"]["changed_bytes"], 0);
    arrives(&site, &mut runner);
}

#[test]
fn a_reversed_replica_on_a_device_is_encrypted_too() {
    let Some(mut site) = Site::new("recovery", 0) else {
        return;
    };
    let directory = site.rig.path("replicas");
    fs::create_dir(&directory).unwrap();
    let key = site.rig.key();
    site.rig.recovery =
        format!("[recovery.encryption]\nidentity = {key:?}\ndirectory = {directory:?}\n");
    let rig = &site.rig;
    let mut runner = rig.start();
    rig.wait_for(&mut runner, 0, "ready-to-cutover");
    rig.ok(&["complete", "shop"]);
    rig.wait_for(&mut runner, 0, "commit-pending");
    rig.guest_writes("primary", "db1", 1 << 20, &noise(5_000, 5));
    rig.ok(&["commit", "shop"]);
    runner.end();
    let status = rig.ok(&["reverse", "shop"]);
    assert_eq!(status["vms"][0]["phase"], "protected");
    let moved = &status["vms"][0]["last_pass"]["changed_bytes"];
    assert!(moved.as_u64().unwrap() <= 131_072, "{moved}");
    is_empty(&site);
    fs::remove_file(rig.site("recovery", "db1").join("gone")).unwrap();
    let mut runner = start(&site);
    rig.wait_for(&mut runner, 0, "ready-to-cutover");
    arrives(&site, &mut runner);
}

#[test]
fn an_executor_killed_while_it_writes_a_device_out_is_taken_over() {
    let Some(site) = site(0) else {
        return;
    };
    let rig = &site.rig;
    let plan = rig.plan_from("primary");
    let plan = plan.to_str().unwrap();
    let mut runner = rig.spawn(&["start", plan, "--yes", "--limit-rate", "1M"]);
    rig.wait_for(&mut runner, 0, "ready-to-cutover");
    rig.ok(&["complete", "shop"]);
    let middle = || site.disk()[1 << 20..3 << 20].iter().any(|byte| *byte != 0);
    rig.wait(&mut runner, "some of the disk", |_| middle());
    runner.kill();
    assert!(site.is_marked() && replica(&site).exists());
    let mut runner = rig.spawn(&["resume", "shop"]);
    let status = rig.wait_for(&mut runner, 0, "commit-pending");
    assert_eq!(status["vms"][0]["proven"], true);
    assert!(site.disk() == read(rig.target("db1")));
}
