//! A copy of the target's disks runs in isolation, while the source runs on.

use std::fs;

use serde_json::json;

use crate::fake_vm::{FakeVms, noise, read};
use crate::fixture::CommandFixture;

#[test]
fn a_test_boots_a_copy_changes_nothing_and_is_cleaned_up() {
    let fake_vms = FakeVms::new(&["db1"]).with_job("pass_interval = \"1s\"");
    let mut runner = fake_vms.start();
    fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    let status = fake_vms.ok(&["test", "shop", "--wait"]);
    assert_eq!(status["vms"][0]["phase"], "testing");
    assert_eq!(status["allowed"], json!([{"test": {"end": true}}]));
    let target = fake_vms.site("primary", "db1");
    assert!(target.join("test-disk").exists() && !target.join("boots").exists());
    assert!(fake_vms.is("primary", "db1", "fenced") && !fake_vms.is("primary", "db1", "running"));
    assert!(fake_vms.is("recovery", "db1", "running") && !fake_vms.target("db1").exists());

    // The test writes to its copy, the guest to its disk; no pass comes in between.
    fs::write(target.join("test-disk"), b"other").unwrap();
    let tested = read(fake_vms.blocked("db1"));
    fake_vms.guest_writes("recovery", "db1", 70_000, &noise(10_000, 3));
    std::thread::sleep(std::time::Duration::from_millis(1_500));
    assert!(read(fake_vms.blocked("db1")) == tested);
    let refused = fake_vms.refused(&["complete", "shop"]);
    assert!(refused.contains("`failback test --end shop`"), "{refused}");

    fake_vms.ok(&["test", "shop", "--end", "--wait"]);
    assert!(!target.join("test-disk").exists());
    fake_vms.ok(&["complete", "shop", "--wait"]);
    assert_eq!(read(fake_vms.source("db1")), read(fake_vms.target("db1")));
    let boots = fs::read_to_string(target.join("boots")).unwrap();
    assert_eq!(boots.lines().count(), 1, "{boots}");
    let log = fake_vms.ok(&["log", "shop"]).to_string();
    for said in ["\"start_test\"", "\"stop_test\"", "{\"end\":true}"] {
        assert!(log.contains(said), "{said}");
    }
}

#[test]
fn a_test_that_would_be_no_test_is_refused_or_ends_with_a_problem() {
    let fake_vms = FakeVms::new(&["db1"]).with_job("mode = \"full-first\"");
    let mut runner = fake_vms.start();
    fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    // A program that starts the VM itself.
    fs::write(fake_vms.site("primary", "db1").join("mistaken"), "").unwrap();
    fake_vms.ok(&["test", "shop"]);
    let status = fake_vms.wait(&mut runner, "the problem", |status| {
        !status["vms"][0]["problem"].is_null()
    });
    assert_eq!(status["vms"][0]["problem"], "target_runs");
    fs::remove_file(fake_vms.site("primary", "db1").join("running")).unwrap();
    fake_vms.ok(&["test", "shop", "--end", "--wait"]);

    let mut fake_vms = FakeVms::new(&["db1"]);
    let key = fake_vms.key();
    fake_vms.recovery = format!("[recovery.encryption]\nidentity = {key:?}\n");
    fs::rename(
        fake_vms.site("recovery", "db1").join("running"),
        fake_vms.site("primary", "db1").join("running"),
    )
    .unwrap();
    let plan = fake_vms.plan_from("primary");
    let mut runner = fake_vms.spawn(&["start", plan.to_str().unwrap(), "--yes"]);
    fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    let refused = fake_vms.refused(&["test", "shop"]);
    assert!(refused.contains("devices or encrypted"), "{refused}");
}
