//! Replicas that are kept encrypted: in a directory of their own, and of disks on another host.

use std::fs;

use serde_json::Value;

use crate::fake_vm::{DISK_BYTES, FakeVms, noise, read};
use crate::fixture::{CommandFixture, Runner};

/// A fake_vms whose VM runs at the primary site and is replicated to the recovery site, which
/// encrypts.
fn fake_vms(table: &str) -> FakeVms {
    let mut fake_vms = FakeVms::new(&["db1"]);
    fake_vms.recovery = format!(
        "[recovery.encryption]\nidentity = {:?}\n{table}",
        fake_vms.key()
    );
    let (primary, recovery) = (
        fake_vms.site("primary", "db1"),
        fake_vms.site("recovery", "db1"),
    );
    fs::rename(recovery.join("running"), primary.join("running")).unwrap();
    fake_vms
}

fn remote_fake_vms() -> FakeVms {
    let mut fake_vms = fake_vms("").with_job("mode = \"delta\"");
    fake_vms.remote = vec!["primary"];
    fake_vms.shell("");
    fake_vms
}

fn start(fake_vms: &FakeVms) -> Runner {
    let plan = fake_vms.plan_from("primary");
    fake_vms.spawn(&["start", plan.to_str().unwrap(), "--yes"])
}

fn moved(status: &Value) -> u64 {
    let moved = &status["vms"][0]["last_pass"]["changed_bytes"];
    moved.as_u64().unwrap()
}

/// Cuts over; the target, which is at the recovery site, has all.
fn arrives(fake_vms: &FakeVms, runner: &mut Runner) {
    fake_vms.ok(&["complete", "shop"]);
    let status = fake_vms.wait_for(runner, 0, "commit-pending");
    assert_eq!(status["vms"][0]["proven"], true);
    assert!(read(fake_vms.source("db1")) == read(fake_vms.target("db1")));
    assert!(fake_vms.is("recovery", "db1", "running") && !fake_vms.is("primary", "db1", "running"));
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
    let mut fake_vms = fake_vms("");
    let directory = fake_vms.path("replicas");
    fake_vms.recovery += &format!("directory = {directory:?}\n");
    let plan = fake_vms.plan_from("primary");
    let output = fake_vms.run(&["check", plan.to_str().unwrap()]);
    let checked = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.code() == Some(2) && checked.contains("replica directory"),
        "{checked}"
    );
    fs::create_dir(&directory).unwrap();
    fake_vms.ok(&["check", plan.to_str().unwrap()]);
    let mut runner = start(&fake_vms);
    fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    let replica = directory.join("db1+db1-system.replica");
    is_sealed(&replica);
    let site = fake_vms.site("recovery", "db1");
    let beside = fs::read_dir(site).unwrap().map(|it| it.unwrap());
    assert!(
        beside
            .map(|it| it.metadata().unwrap().len())
            .all(|len| len < DISK_BYTES as u64)
    );

    fake_vms.guest_writes("primary", "db1", 70_000, &noise(9_000, 3));
    arrives(&fake_vms, &mut runner);
    assert!(!replica.exists() && directory.exists());
}

#[test]
fn one_replica_is_not_written_by_two_jobs() {
    let mut fake_vms = fake_vms("").with_job("mode = \"delta\"");
    let directory = fake_vms.path("replicas");
    fs::create_dir(&directory).unwrap();
    fake_vms.recovery += &format!("directory = {directory:?}\n");
    let mut runner = start(&fake_vms);
    fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    let plan = fake_vms.plan_from("primary");
    let text = fs::read_to_string(&plan).unwrap();
    let text = text
        .replace("\"shop\"", "\"other\"")
        .replace("db1/disk.raw", "db1/other.raw");
    fs::write(&plan, text).unwrap();
    let complaint = fake_vms.refused(&["start", plan.to_str().unwrap(), "--yes"]);
    assert!(complaint.contains("db1+db1-system.replica"), "{complaint}");
}

#[test]
fn a_job_that_is_cancelled_before_it_wrote_leaves_a_replica_as_it_was() {
    let fake_vms = fake_vms("");
    let mut runner = start(&fake_vms);
    fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    fake_vms.ok(&["cancel", "shop"]);
    runner.end();
    let replica = fake_vms.site("recovery", "db1").join("disk.raw.replica");
    let files = || fs::read_dir(&replica).unwrap().count();
    let before = files();
    assert!(before > 0);

    fake_vms.cancels_at_the_beginning("primary", || start(&fake_vms));
    assert_eq!(files(), before);

    let mut runner = start(&fake_vms);
    let status = fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    assert_eq!(moved(&status), 0, "it was all there");
    arrives(&fake_vms, &mut runner);
}

#[test]
fn a_disk_on_another_host_is_replicated_encrypted_and_only_what_differs_comes() {
    let fake_vms = remote_fake_vms();
    let plan = fake_vms.plan_from("primary");
    fake_vms.ok(&["check", plan.to_str().unwrap()]);
    let mut runner = start(&fake_vms);
    fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    let sent = fake_vms.sent();
    assert!((300_000..500_000).contains(&sent), "{sent}");
    let replica = fake_vms.site("recovery", "db1").join("disk.raw.replica");
    is_sealed(&replica);
    assert!(!fake_vms.source("db1").exists(), "there is no other disk");

    // Bytes, and zeros where bytes were.
    fake_vms.guest_writes("primary", "db1", 70_000, &noise(9_000, 3));
    fake_vms.guest_writes("primary", "db1", 2 << 20, &vec![0; 70_000]);
    fake_vms.ok(&["complete", "shop"]);
    let status = fake_vms.wait_for(&mut runner, 0, "commit-pending");
    assert_eq!(status["vms"][0]["proven"], true);
    assert!(moved(&status) <= 4 * 65_536, "{status:#}");
    // Its blocks, and the root that is the proof.
    let sent = fake_vms.sent();
    assert!((9_000..200_000).contains(&sent), "{sent}");
    assert!(read(fake_vms.source("db1")) == read(fake_vms.target("db1")));
    assert!(!replica.exists());
}

#[test]
fn a_replica_of_a_disk_on_another_host_is_the_base_of_the_next_job() {
    let fake_vms = remote_fake_vms().with_job("mode = \"full-first\"");
    let mut runner = start(&fake_vms);
    fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    let sent = fake_vms.sent();
    assert!(sent > DISK_BYTES as u64, "everything: {sent}");
    fake_vms.ok(&["cancel", "shop"]);
    runner.end();

    let fake_vms = fake_vms.with_job("mode = \"delta\"");
    fake_vms.guest_writes("primary", "db1", 1 << 20, &noise(5_000, 6));
    let plan = fake_vms.plan_from("primary");
    let shown = fake_vms.ok(&["plan", plan.to_str().unwrap()]);
    let delta = shown["vms"][0]["disks"][0]["delta_bytes"].as_u64().unwrap();
    assert!((5_000..=131_072).contains(&delta), "{shown:#}");
    fake_vms.sent();
    let mut runner = start(&fake_vms);
    let status = fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    assert!((5_000..=131_072).contains(&moved(&status)), "{status:#}");
    let sent = fake_vms.sent();
    assert!((5_000..150_000).contains(&sent), "{sent}");
    fake_vms.guest_writes("primary", "db1", 3 << 20, &noise(5_000, 7));
    arrives(&fake_vms, &mut runner);
}

#[test]
fn a_replica_whose_line_was_cut_holds_what_it_held_and_the_pass_is_made_again() {
    let mut fake_vms = remote_fake_vms().with_job("mode = \"full-first\"");
    fake_vms.connect = "limit_rate = \"4M\"\n".to_owned();
    fake_vms.cuts_once(&fake_vms.path("sent"), 3 << 19);
    let mut runner = start(&fake_vms);
    fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    fake_vms.was_cut();
    is_sealed(&fake_vms.site("recovery", "db1").join("disk.raw.replica"));
    arrives(&fake_vms, &mut runner);
}
