//! Replicas that are kept encrypted: in a directory of their own, and of disks on another host.

use std::fs;

use serde_json::Value;

use crate::desk::{Desk, Runner};
use crate::rig::{DISK_BYTES, Rig, noise, read};

/// A rig whose VM runs at the primary site and is replicated to the recovery site, which encrypts.
fn rig(table: &str) -> Rig {
    let mut rig = Rig::new(&["db1"]);
    rig.recovery = format!("[recovery.encryption]\nidentity = {:?}\n{table}", rig.key());
    let (primary, recovery) = (rig.site("primary", "db1"), rig.site("recovery", "db1"));
    fs::rename(recovery.join("running"), primary.join("running")).unwrap();
    rig
}

fn remote_rig() -> Rig {
    let mut rig = rig("").with_job("mode = \"delta\"");
    rig.remote = vec!["primary"];
    rig.shell("");
    rig
}

fn start(rig: &Rig) -> Runner {
    let plan = rig.plan_from("primary");
    rig.spawn(&["start", plan.to_str().unwrap(), "--yes"])
}

fn moved(status: &Value) -> u64 {
    let moved = &status["vms"][0]["last_pass"]["changed_bytes"];
    moved.as_u64().unwrap()
}

/// Cuts over; the target, which is at the recovery site, has all.
fn arrives(rig: &Rig, runner: &mut Runner) {
    rig.ok(&["complete", "shop"]);
    let status = rig.wait_for(runner, 0, "commit-pending");
    assert_eq!(status["vms"][0]["proven"], true);
    assert!(read(rig.source("db1")) == read(rig.target("db1")));
    assert!(rig.is("recovery", "db1", "running") && !rig.is("primary", "db1", "running"));
}

/// The disk of nobody lies in a directory in the clear.
fn is_sealed(directory: &std::path::Path) {
    for entry in fs::read_dir(directory).unwrap() {
        let held = read(entry.unwrap().path());
        assert!(held.starts_with(b"age-encryption.org/v1\n"));
    }
}

#[test]
fn replicas_are_kept_in_the_directory_that_the_plan_names() {
    let mut rig = rig("");
    let directory = rig.path("replicas");
    rig.recovery += &format!("directory = {directory:?}\n");
    let plan = rig.plan_from("primary");
    let output = rig.run(&["check", plan.to_str().unwrap()]);
    let checked = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.code() == Some(2) && checked.contains("replica directory"),
        "{checked}"
    );
    fs::create_dir(&directory).unwrap();
    rig.ok(&["check", plan.to_str().unwrap()]);
    let mut runner = start(&rig);
    rig.wait_for(&mut runner, 0, "ready-to-cutover");
    let replica = directory.join("db1+db1-system.replica");
    is_sealed(&replica);
    let site = rig.site("recovery", "db1");
    let beside = fs::read_dir(site).unwrap().map(|it| it.unwrap());
    assert!(
        beside
            .map(|it| it.metadata().unwrap().len())
            .all(|len| len < DISK_BYTES as u64)
    );

    rig.guest_writes("primary", "db1", 70_000, &noise(9_000, 3));
    arrives(&rig, &mut runner);
    assert!(!replica.exists() && directory.exists());
}

#[test]
fn one_replica_is_not_written_by_two_jobs() {
    let mut rig = rig("").with_job("mode = \"delta\"");
    let directory = rig.path("replicas");
    fs::create_dir(&directory).unwrap();
    rig.recovery += &format!("directory = {directory:?}\n");
    let mut runner = start(&rig);
    rig.wait_for(&mut runner, 0, "ready-to-cutover");
    let plan = rig.plan_from("primary");
    let text = fs::read_to_string(&plan).unwrap();
    let text = text
        .replace("\"shop\"", "\"other\"")
        .replace("db1/disk.raw", "db1/other.raw");
    fs::write(&plan, text).unwrap();
    let complaint = rig.refused(&["start", plan.to_str().unwrap(), "--yes"]);
    assert!(complaint.contains("db1+db1-system.replica"), "{complaint}");
}

#[test]
fn a_job_that_is_cancelled_before_it_wrote_leaves_a_replica_as_it_was() {
    let rig = rig("");
    let mut runner = start(&rig);
    rig.wait_for(&mut runner, 0, "ready-to-cutover");
    rig.ok(&["cancel", "shop"]);
    runner.end();
    let replica = rig.site("recovery", "db1").join("disk.raw.replica");
    let files = || fs::read_dir(&replica).unwrap().count();
    let before = files();
    assert!(before > 0);

    rig.cancels_at_the_beginning("primary", || start(&rig));
    assert_eq!(files(), before);

    let mut runner = start(&rig);
    let status = rig.wait_for(&mut runner, 0, "ready-to-cutover");
    assert_eq!(moved(&status), 0, "it was all there");
    arrives(&rig, &mut runner);
}

#[test]
fn a_disk_on_another_host_is_replicated_encrypted_and_only_what_differs_comes() {
    let rig = remote_rig();
    let plan = rig.plan_from("primary");
    rig.ok(&["check", plan.to_str().unwrap()]);
    let mut runner = start(&rig);
    rig.wait_for(&mut runner, 0, "ready-to-cutover");
    let sent = rig.sent();
    assert!((300_000..500_000).contains(&sent), "{sent}");
    let replica = rig.site("recovery", "db1").join("disk.raw.replica");
    is_sealed(&replica);
    assert!(!rig.source("db1").exists(), "there is no other disk");

    // Bytes, and zeros where bytes were.
    rig.guest_writes("primary", "db1", 70_000, &noise(9_000, 3));
    rig.guest_writes("primary", "db1", 2 << 20, &vec![0; 70_000]);
    rig.ok(&["complete", "shop"]);
    let status = rig.wait_for(&mut runner, 0, "commit-pending");
    assert_eq!(status["vms"][0]["proven"], true);
    assert!(moved(&status) <= 4 * 65_536, "{status:#}");
    // Its blocks, and the root that is the proof.
    let sent = rig.sent();
    assert!((9_000..200_000).contains(&sent), "{sent}");
    assert!(read(rig.source("db1")) == read(rig.target("db1")));
    assert!(!replica.exists());
}

#[test]
fn a_replica_of_a_disk_on_another_host_is_the_base_of_the_next_job() {
    let rig = remote_rig().with_job("mode = \"full-first\"");
    let mut runner = start(&rig);
    rig.wait_for(&mut runner, 0, "ready-to-cutover");
    let sent = rig.sent();
    assert!(sent > DISK_BYTES as u64, "everything: {sent}");
    rig.ok(&["cancel", "shop"]);
    runner.end();

    let rig = rig.with_job("mode = \"delta\"");
    rig.guest_writes("primary", "db1", 1 << 20, &noise(5_000, 6));
    let plan = rig.plan_from("primary");
    let shown = rig.ok(&["plan", plan.to_str().unwrap()]);
    let delta = shown["vms"][0]["disks"][0]["delta_bytes"].as_u64().unwrap();
    assert!((5_000..=131_072).contains(&delta), "{shown:#}");
    rig.sent();
    let mut runner = start(&rig);
    let status = rig.wait_for(&mut runner, 0, "ready-to-cutover");
    assert!((5_000..=131_072).contains(&moved(&status)), "{status:#}");
    let sent = rig.sent();
    assert!((5_000..150_000).contains(&sent), "{sent}");
    rig.guest_writes("primary", "db1", 3 << 20, &noise(5_000, 7));
    arrives(&rig, &mut runner);
}

#[test]
fn a_replica_whose_line_was_cut_holds_what_it_held_and_the_pass_is_made_again() {
    let mut rig = remote_rig().with_job("mode = \"full-first\"");
    rig.connect = "limit_rate = \"4M\"\n".to_owned();
    rig.cuts_once(&rig.path("sent"), 3 << 19);
    let mut runner = start(&rig);
    rig.wait_for(&mut runner, 0, "ready-to-cutover");
    rig.was_cut();
    is_sealed(&rig.site("recovery", "db1").join("disk.raw.replica"));
    arrives(&rig, &mut runner);
}
