//! What requests do where a process runs the job, where none does, and where they are refused.

use std::fs;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::fake_vm::{FakeVms, read};
use crate::fixture::CommandFixture;

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn the_sequence_of_the_guide_pasted_into_a_shell_works_without_another_process() {
    let fake_vms = FakeVms::new(&["db1"]);
    let plan = fake_vms.plan();
    let start = fake_vms.run(&["start", plan.to_str().unwrap(), "--yes", "--wait"]);
    assert!(start.status.success(), "{}", told(&start));
    let complaint = told(&start);
    assert!(
        complaint.contains("no other process runs the job"),
        "{complaint}"
    );
    for (request, phase) in [
        ("complete", "commit-pending"),
        ("commit", "committed"),
        ("reverse", "protected"),
    ] {
        let output = fake_vms.run(&[request, "shop", "--wait"]);
        assert!(output.status.success(), "{request}: {}", told(&output));
        assert!(told(&output).contains("no other process runs the job"));
        assert_eq!(fake_vms.phase(0), phase);
    }
    let replica = "disk.raw.failback-shop.partial.raw";
    let replica = fake_vms.site("recovery", "db1").join(replica);
    assert_eq!(read(replica), read(fake_vms.target("db1")));
}

#[test]
fn a_process_for_all_jobs_does_what_is_queued_and_ends_when_it_is_told() {
    let fake_vms = FakeVms::new(&["db1"]);
    let plan = fake_vms.plan();
    let begun = fake_vms.ok(&["start", plan.to_str().unwrap(), "--yes", "--detach"]);
    assert_eq!(begun, json!({"job": "shop", "queued": "start"}));
    let mut all = fake_vms.spawn(&["run", "--all"]);
    fake_vms.wait_for(&mut all, 0, "ready-to-cutover");
    all.kill();
    let queued = fake_vms.ok(&["complete", "shop", "--detach"]);
    assert_eq!(queued["queued"], "complete");
    let waiting = &fake_vms.status()["queued"][0];
    assert_eq!(
        (&waiting["request"], &waiting["by"]),
        (&json!("complete"), &json!("operator"))
    );
    assert!(waiting["at_ms"].as_u64().unwrap() > 0);
    fake_vms.refused(&["commit", "shop", "--detach"]);

    let mut all = fake_vms.spawn(&["run", "--all"]);
    fake_vms.wait_for(&mut all, 0, "commit-pending");
    for (request, phase) in [("commit", "committed"), ("reverse", "protected")] {
        let output = fake_vms.run(&[request, "shop", "--wait", "--detach"]);
        assert!(output.status.success(), "{request}: {}", told(&output));
        assert_eq!(fake_vms.phase(0), phase);
    }
    assert!(all.ended().is_none());
    assert!(!fake_vms.status()["run_by"].is_null(), "protection goes on");
    all.interrupt();
    assert!(all.wait().success());
    assert!(fake_vms.status()["run_by"].is_null());
}

#[test]
fn a_request_that_is_waited_for_says_where_the_job_went_instead() {
    let fake_vms = FakeVms::new(&["db1"]).with_job("proof = \"before-activation\"");
    let mut runner = fake_vms.start();
    fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    let mut held = read(fake_vms.source("db1"));
    held[3 << 20] ^= 1;
    fs::write(fake_vms.source("db1"), held).unwrap();
    let output = fake_vms.run(&["complete", "shop", "--wait"]);
    assert_eq!(output.status.code(), Some(5), "{}", told(&output));
    assert!(
        told(&output).contains("the cutover failed"),
        "{}",
        told(&output)
    );
    let output = fake_vms.run(&["complete", "shop", "--wait"]);
    assert!(output.status.success(), "{}", told(&output));
    // The proof is made already; a commit waits for what it needs.
    let output = fake_vms.run(&["commit", "shop", "--wait"]);
    assert!(output.status.success(), "{}", told(&output));
    runner.end();
}

#[test]
fn a_refusal_says_what_goes_on_who_asked_for_it_and_what_may_be_asked() {
    let fake_vms = FakeVms::new(&["db1"]);
    let mut runner = fake_vms.start();
    fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    fs::write(fake_vms.site("recovery", "db1").join("slow"), "1").unwrap();
    fake_vms.ok(&["complete", "shop"]);
    for request in ["cancel", "complete"] {
        let refused = fake_vms.refused(&[request, "shop"]);
        for part in [
            "the source is being shut down",
            "operator asked complete 0.",
            "you may ask: `failback abort shop`",
        ] {
            assert!(refused.contains(part), "{part}: {refused}");
        }
    }
}

#[test]
fn a_retry_takes_a_job_up_that_was_mended_and_the_job_goes_on() {
    let fake_vms = FakeVms::new(&["db1"]);
    let running = fake_vms.site("primary", "db1").join("running");
    fs::write(&running, "").unwrap();
    let plan = fake_vms.plan();
    let refused = fake_vms.refused(&["start", plan.to_str().unwrap(), "--yes"]);
    assert!(refused.contains("failback retry shop"), "{refused}");
    fs::remove_file(&running).unwrap();
    let mut runner = fake_vms.spawn(&["retry", "shop"]);
    fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
}

#[test]
fn who_asks_is_known_also_where_no_variable_says_it() {
    let fake_vms = FakeVms::new(&["db1"]);
    let mut runner = fake_vms.start();
    fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    let command = fake_vms.command(&["complete", "shop"]);
    let args = command
        .get_args()
        .filter(|arg| *arg != "--by" && *arg != "operator");
    let output = Command::new(command.get_program())
        .args(args)
        .env_clear()
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", told(&output));
    let id = Command::new("id").arg("-un").output().unwrap();
    let name = String::from_utf8(id.stdout).unwrap();
    let asked = fake_vms.status()["last_request"]["by"].clone();
    assert_eq!(asked, name.trim());
    let nameless = fake_vms.command(&["check", "plan"]).arg("--by=").output();
    assert_eq!(nameless.unwrap().status.code(), Some(2));
}

#[test]
fn a_replica_that_is_older_than_allowed_is_warned_of() {
    let job = "protection_interval = \"1h\"\nmax_replica_age = \"2s\"";
    let fake_vms = FakeVms::new(&["db1"]).with_job(job);
    let plan = fake_vms.plan();
    fake_vms.run(&["start", plan.to_str().unwrap(), "--yes", "--wait"]);
    for request in ["complete", "commit", "reverse"] {
        fake_vms.run(&[request, "shop", "--wait"]);
    }
    let begin = Instant::now();
    loop {
        let output = fake_vms.run(&["status", "shop"]);
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(status["vms"][0]["phase"], "protected");
        if status["vms"][0]["is_overdue"] == true {
            assert_eq!(output.status.code(), Some(6));
            break;
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "{status:#}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn some_vms_of_a_plan_are_chosen_and_unknown_ones_are_refused_with_the_list() {
    let fake_vms = FakeVms::new(&["db1", "web1"]);
    let plan = fake_vms.plan();
    let plan = plan.to_str().unwrap();
    let refused = fake_vms.refused(&["start", plan, "--vm", "web2", "--yes"]);
    assert!(refused.contains("`web2`; it has db1, web1"), "{refused}");
    let shown = fake_vms.ok(&["plan", plan, "--vm", "web1"]);
    assert_eq!(shown["vms"].as_array().unwrap().len(), 1);

    fake_vms.ok(&["start", plan, "--vm", "web1", "--yes", "--wait"]);
    fake_vms.ok(&["complete", "shop", "--wait"]);
    fake_vms.ok(&["commit", "shop", "--wait"]);
    let status = fake_vms.status();
    assert_eq!(status["vms"].as_array().unwrap().len(), 1);
    assert_eq!(status["vms"][0]["vm"], "web1");
    assert!(fake_vms.is("primary", "web1", "running"));
    assert!(fake_vms.is("recovery", "db1", "running") && !fake_vms.blocked("db1").exists());

    // The job of the first one may still be reversed.
    let other = ["start", plan, "--vm", "db1", "--yes", "--wait"];
    let refused = fake_vms.refused(&other);
    assert!(refused.contains("web1, which is committed"), "{refused}");
    fake_vms.ok(&[&other[..], &["--job", "shop-db"]].concat());
    assert_eq!(fake_vms.ok(&["status", "shop-db"])["vms"][0]["vm"], "db1");
    assert_eq!(fake_vms.phase(0), "committed");
}
