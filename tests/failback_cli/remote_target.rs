//! Disks that are written on another host, behind a script that stands in for ssh.

use std::cell::Cell;
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::process::Command;

use diskdelta::remote::{FrameEncoder, Hello, Message};
use serde_json::Value;

use crate::fake_vm::{DISK_BYTES, FakeVms, noise, read};
use crate::fixture::{CommandFixture, Runner};
use crate::remote::moved;
use crate::through;

/// A fake_vms whose target's disk lies on another host.
fn remote_fake_vms() -> FakeVms {
    let mut fake_vms = FakeVms::new(&["db1"]);
    fake_vms.remote = vec!["primary"];
    fake_vms.writer("");
    fake_vms
}

/// A pass of it takes seconds, and is cut once two MiB are logged.
fn slow_fake_vms(job: &str) -> FakeVms {
    let mut fake_vms = remote_fake_vms().with_job(job);
    fake_vms.connect = "limit_rate = \"4M\"\n".to_owned();
    fs::write(fake_vms.source("db1"), noise(DISK_BYTES, 8)).unwrap();
    fake_vms
}

/// What a pass of `shop` logs at the target's host: a delta, or the whole file.
fn logged(fake_vms: &FakeVms) -> u64 {
    let site = fake_vms.site("primary", "db1");
    let logs = fs::read_dir(site).unwrap().filter_map(|entry| {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let is_one = name.starts_with(".disk.raw.failback-shop.partial.raw.diskdelta-");
        // It may be gone already.
        is_one.then(|| entry.metadata().map_or(0, |it| it.len()))
    });
    logs.max().unwrap_or(0)
}

fn half_way(fake_vms: &FakeVms, runner: &mut Runner) {
    fake_vms.wait(runner, "half of it", |_| logged(fake_vms) > 2 << 20);
}

/// The agent that runs, or ran last.
fn agent(fake_vms: &FakeVms) -> String {
    let process = fs::read_to_string(fake_vms.path("agent")).unwrap();
    process.trim().to_owned()
}

fn is_bootable(fake_vms: &FakeVms) -> bool {
    fake_vms.target("db1").exists()
}

/// Waits for a phase; once the target was blocked it cannot be booted until then.
fn wait_blocked(fake_vms: &FakeVms, runner: &mut Runner, phase: &str) -> Value {
    let was_blocked = Cell::new(false);
    fake_vms.wait(runner, phase, |status| {
        let is_bootable = is_bootable(fake_vms);
        assert!(!(was_blocked.get() && is_bootable), "bootable: {status:#}");
        was_blocked.set(!is_bootable);
        let vm = &status["vms"][0];
        vm["phase"] == phase && vm["doing"].is_null()
    })
}

fn homecoming(fake_vms: &FakeVms, runner: &mut Runner) {
    fake_vms.ok(&["complete", "shop"]);
    let status = fake_vms.wait_for(runner, 0, "commit-pending");
    assert_eq!(status["vms"][0]["proven"], true, "{status:#}");
    assert!(read(fake_vms.source("db1")) == read(fake_vms.target("db1")));
    assert!(fake_vms.is("primary", "db1", "running") && !fake_vms.is("recovery", "db1", "running"));
}

fn failing(fake_vms: &FakeVms) -> Vec<String> {
    let plan = fake_vms.plan();
    let output = fake_vms.run(&["check", plan.to_str().unwrap()]);
    let checked: Value = serde_json::from_slice(&output.stdout).unwrap();
    let failed = checked["checks"].as_array().unwrap().iter();
    let failed: Vec<_> = failed
        .filter(|check| check["holds"] == false)
        .map(|it| format!("{}: {}", it["check"].as_str().unwrap(), it["found"]))
        .collect();
    let status = if failed.is_empty() { 0 } else { 2 };
    assert_eq!(output.status.code(), Some(status), "{failed:?}");
    failed
}

#[test]
fn a_disk_on_another_host_is_brought_up_to_date_there_and_replicated_back_from_there() {
    let fake_vms = remote_fake_vms().with_job("mode = \"delta\"");
    assert_eq!(failing(&fake_vms), Vec::<String>::new());
    let mut runner = fake_vms.start();
    let status = wait_blocked(&fake_vms, &mut runner, "ready-to-cutover");
    assert!((300_000..400_000).contains(&moved(&status)), "{status}");
    assert!(fake_vms.blocked("db1").exists() && fake_vms.is("primary", "db1", "fenced"));

    fake_vms.guest_writes("recovery", "db1", 70_000, &noise(10_000, 3));
    homecoming(&fake_vms, &mut runner);
    let status = fake_vms.status();
    assert!((10_000..20_000).contains(&moved(&status)), "{status}");
    // What differs has gone there; little came back.
    let sent = fake_vms.sent();
    assert!(sent < 60_000, "{sent}");

    fake_vms.guest_writes("primary", "db1", 2 << 20, &noise(5_000, 4));
    fake_vms.ok(&["commit", "shop"]);
    runner.end();
    let status = fake_vms.ok(&["reverse", "shop", "--wait"]);
    assert_eq!(status["vms"][0]["phase"], "protected");
    assert!((5_000..13_000).contains(&moved(&status)), "{status}");
    let replica = fake_vms
        .site("recovery", "db1")
        .join("disk.raw.failback-shop.partial.raw");
    assert!(read(replica) == read(fake_vms.target("db1")));

    // The next failover, from that host.
    fake_vms.guest_writes("primary", "db1", 3 << 20, &noise(5_000, 5));
    fs::remove_file(fake_vms.site("recovery", "db1").join("gone")).unwrap();
    let plan = fake_vms.plan_from("primary");
    let mut runner = fake_vms.spawn(&["start", plan.to_str().unwrap(), "--yes"]);
    let status = fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    assert!((5_000..13_000).contains(&moved(&status)), "{status}");
    fake_vms.ok(&["complete", "shop"]);
    fake_vms.wait_for(&mut runner, 0, "commit-pending");
    assert!(read(fake_vms.source("db1")) == read(fake_vms.target("db1")));
}

#[test]
fn a_source_on_another_host_is_replicated_back_to_and_failed_over_to_again() {
    let mut fake_vms = FakeVms::new(&["db1"]).with_job("pass_interval = \"1s\"");
    fake_vms.remote = vec!["recovery"];
    fake_vms.writer("");
    let mut runner = fake_vms.start();
    fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    fake_vms.ok(&["complete", "shop"]);
    fake_vms.wait_for(&mut runner, 0, "commit-pending");
    fake_vms.guest_writes("primary", "db1", 2 << 20, &noise(5_000, 4));
    fake_vms.ok(&["commit", "shop"]);
    runner.end();
    fake_vms.sent();
    let mut runner = fake_vms.spawn(&["reverse", "shop"]);
    let status = fake_vms.wait(&mut runner, "protection", |status| {
        status["vms"][0]["phase"] == "protected"
    });
    assert!(moved(&status) < 13_000, "{status}");
    assert!(
        !fake_vms.source("db1").exists(),
        "a replica cannot be booted"
    );
    // Periodic passes go there, too.
    let passes = status["vms"][0]["passes"].as_u64().unwrap();
    fake_vms.guest_writes("primary", "db1", 1 << 20, &noise(6_000, 5));
    fake_vms.wait(&mut runner, "two more passes", |status| {
        let vm = &status["vms"][0];
        vm["phase"] == "protected" && vm["passes"].as_u64().unwrap() >= passes + 2
    });
    let replica = fake_vms
        .site("recovery", "db1")
        .join("disk.raw.failback-shop.partial.raw");
    assert!(read(&replica) == read(fake_vms.target("db1")));
    runner.kill();
    // Its disk was read there as a whole, and as a whole it did not come here.
    let sent = fake_vms.sent();
    assert!(sent < DISK_BYTES as u64 / 4, "{sent}");

    fs::remove_file(fake_vms.site("recovery", "db1").join("gone")).unwrap();
    fake_vms.guest_writes("primary", "db1", 3 << 20, &noise(7_000, 6));
    fake_vms.job.clear();
    let plan = fake_vms.plan_from("primary");
    let mut runner = fake_vms.spawn(&["start", plan.to_str().unwrap(), "--yes"]);
    let status = fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    assert!((7_000..16_000).contains(&moved(&status)), "{status}");
    fake_vms.ok(&["complete", "shop"]);
    let status = fake_vms.wait_for(&mut runner, 0, "commit-pending");
    assert_eq!(status["vms"][0]["proven"], true);
    assert!(read(fake_vms.source("db1")) == read(fake_vms.target("db1")));
    assert!(fake_vms.is("recovery", "db1", "running"));
}

#[test]
fn disks_of_both_sides_on_one_other_host_do_not_come_here() {
    let mut fake_vms = remote_fake_vms().with_job("mode = \"delta\"");
    fake_vms.remote = vec!["primary", "recovery"];
    let mut runner = fake_vms.start();
    let status = wait_blocked(&fake_vms, &mut runner, "ready-to-cutover");
    assert!((300_000..400_000).contains(&moved(&status)), "{status}");
    fake_vms.guest_writes("recovery", "db1", 70_000, &noise(10_000, 3));
    homecoming(&fake_vms, &mut runner);
    fake_vms.guest_writes("primary", "db1", 2 << 20, &noise(5_000, 4));
    fake_vms.ok(&["commit", "shop"]);
    runner.end();
    let status = fake_vms.ok(&["reverse", "shop", "--wait"]);
    assert_eq!(status["vms"][0]["phase"], "protected");
    let replica = fake_vms
        .site("recovery", "db1")
        .join("disk.raw.failback-shop.partial.raw");
    assert!(read(replica) == read(fake_vms.target("db1")));
    let sent = fake_vms.sent();
    assert!(sent < 100_000, "{sent}");
}

#[test]
fn a_disk_on_another_host_is_written_whole_in_every_mode() {
    for job in [
        "mode = \"full\"",
        "mode = \"full-first\"",
        "mode = \"full\"\nsafety = \"in-place\"",
        "mode = \"delta\"\nsafety = \"in-place\"",
        "mode = \"delta\"\nproof = \"before-activation\"",
    ] {
        let fake_vms = remote_fake_vms().with_job(job);
        fake_vms.comes_home_whole(job, |runner| {
            wait_blocked(&fake_vms, runner, "ready-to-cutover");
        });
    }
}

#[test]
fn a_disk_of_another_format_is_made_on_another_host() {
    let mut fake_vms = remote_fake_vms().with_job("mode = \"full-first\"");
    fake_vms.makes_a_vhdx();
    let mut runner = fake_vms.start();
    wait_blocked(&fake_vms, &mut runner, "ready-to-cutover");
    fake_vms.guest_writes("recovery", "db1", 0, &noise(4096, 9));
    fake_vms.ok(&["complete", "shop"]);
    let status = fake_vms.wait_for(&mut runner, 0, "commit-pending");
    assert_eq!(status["vms"][0]["proven"], true);
    fake_vms.holds_the_same();
}

#[test]
fn a_line_that_is_cut_while_a_disk_is_written_there_leaves_it_unbootable_and_is_taken_up() {
    for mode in ["delta", "full-first"] {
        let fake_vms = slow_fake_vms(&format!("mode = \"{mode}\""));
        let mut runner = fake_vms.start();
        half_way(&fake_vms, &mut runner);
        let killed = Command::new("kill")
            .args(["-9", &agent(&fake_vms)])
            .status();
        assert!(killed.unwrap().success());
        wait_blocked(&fake_vms, &mut runner, "ready-to-cutover");
        let log = fake_vms.ok(&["log", "shop"]).to_string();
        assert!(log.contains("closed the connection"), "{log}");
        assert!(log.contains("ssh://me@primary.example"), "{log}");
        homecoming(&fake_vms, &mut runner);
    }
}

#[test]
fn an_executor_that_is_killed_while_a_disk_is_written_elsewhere_is_taken_over() {
    for mode in ["delta", "full-first"] {
        let fake_vms = slow_fake_vms(&format!("mode = \"{mode}\""));
        let mut runner = fake_vms.start();
        half_way(&fake_vms, &mut runner);
        runner.kill();
        assert!(!is_bootable(&fake_vms));
        let mut runner = fake_vms.spawn(&["resume", "shop"]);
        wait_blocked(&fake_vms, &mut runner, "ready-to-cutover");
        homecoming(&fake_vms, &mut runner);
    }
}

#[test]
fn a_disk_agent_that_does_not_see_its_executor_die_makes_way_for_the_next_one() {
    let fake_vms = slow_fake_vms("mode = \"delta\"");
    // The line stays open on that side, both ways, as when a host or a route is lost.
    let command = env!("CARGO_BIN_EXE_diskdelta");
    fake_vms.rsh(&format!(
        "(cat; sleep 50) | sh -c 'echo $$ > {}; exec {command} serve --stdio --state-dir {}' |\n\
         tee --output-error=warn {}\n",
        fake_vms.path("agent").display(),
        fake_vms.agent_state().display(),
        fake_vms.path("sent").display()
    ));
    let mut runner = fake_vms.start();
    half_way(&fake_vms, &mut runner);
    let old = agent(&fake_vms);
    runner.kill();
    let runs = || Path::new("/proc").join(&old).join("exe").exists();
    assert!(runs(), "it has not seen that anybody died");
    fake_vms.writer("");
    let mut runner = fake_vms.spawn(&["resume", "shop"]);
    wait_blocked(&fake_vms, &mut runner, "ready-to-cutover");
    assert!(!runs(), "two at a time");
    // It went at once, not when it had heard nothing for long enough.
    let log = fake_vms.ok(&["log", "shop"]).to_string();
    assert!(!log.contains("has not ended yet"), "{log}");
    homecoming(&fake_vms, &mut runner);
}

#[test]
fn a_late_command_is_refused_where_the_disk_lies() {
    let fake_vms = remote_fake_vms().with_job("mode = \"delta\"");
    let mut runner = fake_vms.start();
    wait_blocked(&fake_vms, &mut runner, "ready-to-cutover");
    // Another executor was there; this one has not heard of it.
    let seen: Value = serde_json::from_slice(&read(fake_vms.agent_token())).unwrap();
    let mut newer = seen.clone();
    newer["newest"]["epoch"] = 99.into();
    fs::write(fake_vms.agent_token(), newer.to_string()).unwrap();
    let before = read(fake_vms.blocked("db1"));
    fake_vms.guest_writes("recovery", "db1", 70_000, &noise(10_000, 3));
    fake_vms.ok(&["complete", "shop"]);
    let status = fake_vms.wait(&mut runner, "a problem", |status| {
        !status["vms"][0]["problem"].is_null()
    });
    let detail = status["vms"][0]["detail"].as_str().unwrap();
    assert!(
        detail.contains("comes too late: 99.") && detail.contains("ssh://me@primary.example"),
        "{detail}"
    );
    assert!(read(fake_vms.blocked("db1")) == before && !is_bootable(&fake_vms));
    assert!(fake_vms.is("recovery", "db1", "running") || fake_vms.is("recovery", "db1", "fenced"));
    fs::write(fake_vms.agent_token(), seen.to_string()).unwrap();
    let _ = fake_vms.run(&["retry", "shop"]);
    fake_vms.wait_for(&mut runner, 0, "commit-pending");
    assert!(read(fake_vms.source("db1")) == read(fake_vms.target("db1")));
}

#[test]
fn a_cancelled_job_restores_the_disk_on_the_other_host_or_leaves_it_to_the_next() {
    for mode in ["delta", "full-first"] {
        let fake_vms = remote_fake_vms().with_job(&format!("mode = \"{mode}\"\nkeep_undo = true"));
        let before = read(fake_vms.target("db1"));
        let mut runner = fake_vms.start();
        wait_blocked(&fake_vms, &mut runner, "ready-to-cutover");
        assert!(read(fake_vms.blocked("db1")) != before);
        fake_vms.ok(&["cancel", "shop", "--restore"]);
        runner.end();
        assert_eq!(fake_vms.status()["vms"][0]["disposition"], "restored");
        assert!(read(fake_vms.target("db1")) == before, "{mode}");
        let left = fs::read_dir(fake_vms.site("primary", "db1")).unwrap();
        let left = left.map(|it| it.unwrap().file_name().into_string().unwrap());
        let left: Vec<_> = left.filter(|name| name.contains("failback-shop")).collect();
        assert!(left.is_empty(), "{left:?}");
    }
    let fake_vms = remote_fake_vms();
    let mut runner = fake_vms.start();
    wait_blocked(&fake_vms, &mut runner, "ready-to-cutover");
    fake_vms.ok(&["cancel", "shop"]);
    runner.end();
    assert!(!is_bootable(&fake_vms));
    let mut runner = fake_vms.start();
    let status = wait_blocked(&fake_vms, &mut runner, "ready-to-cutover");
    assert_eq!(moved(&status), 0, "it was all there");
    homecoming(&fake_vms, &mut runner);
}

#[test]
fn an_undo_takes_back_on_the_other_host_what_its_vm_wrote() {
    let fake_vms = remote_fake_vms().with_job("keep_undo = true");
    let before = read(fake_vms.target("db1"));
    let mut runner = fake_vms.start();
    fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    fake_vms.guest_writes("recovery", "db1", 1 << 20, &noise(9_000, 6));
    homecoming(&fake_vms, &mut runner);
    fake_vms.guest_writes("primary", "db1", (1 << 20) + 4_000, &noise(70_000, 7));
    fake_vms.ok(&["undo", "shop", "--accept-loss", "--restore"]);
    runner.end();
    assert_eq!(fake_vms.phase(0), "rolled-back");
    assert!(read(fake_vms.target("db1")) == before, "bit for bit");
    assert!(fake_vms.is("recovery", "db1", "running"));
}

#[test]
fn a_snapshot_that_cannot_be_read_here_is_named_as_it_is_here() {
    let fake_vms = remote_fake_vms();
    let address = fake_vms.site("recovery", "db1").join("address");
    fs::write(&address, "/no/such/snapshot.raw").unwrap();
    let mut runner = fake_vms.start();
    let status = fake_vms.wait(&mut runner, "a problem", |status| {
        !status["vms"][0]["problem"].is_null()
    });
    let detail = status["vms"][0]["detail"].as_str().unwrap();
    assert!(
        detail.starts_with("cannot resolve /no/such/snapshot.raw"),
        "{detail}"
    );
    assert!(!is_bootable(&fake_vms));
    fs::remove_file(address).unwrap();
    wait_blocked(&fake_vms, &mut runner, "ready-to-cutover");
    homecoming(&fake_vms, &mut runner);
}

#[test]
fn the_vms_of_a_group_are_written_on_another_host_at_the_same_time() {
    let mut fake_vms = FakeVms::new(&["db1", "web1"]);
    fake_vms.remote = vec!["primary"];
    fake_vms.writer("");
    let mut runner = fake_vms.start();
    fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    fake_vms.wait_for(&mut runner, 1, "ready-to-cutover");
    fake_vms.ok(&["complete", "shop"]);
    fake_vms.wait_for(&mut runner, 0, "commit-pending");
    fake_vms.wait_for(&mut runner, 1, "commit-pending");
    for vm in ["db1", "web1"] {
        assert!(
            read(fake_vms.source(vm)) == read(fake_vms.target(vm)),
            "{vm}"
        );
    }
    fake_vms.ok(&["commit", "shop"]);
    runner.end();
    assert!(fake_vms.is("recovery", "db1", "gone") && fake_vms.is("recovery", "web1", "gone"));
}

#[test]
fn a_commit_forgets_the_ways_back_on_the_other_host() {
    let fake_vms = remote_fake_vms().with_job("mode = \"full-first\"\nkeep_undo = true");
    through(&fake_vms, &["complete", "commit"]);
    let left = fs::read_dir(fake_vms.site("primary", "db1")).unwrap();
    let left = left.map(|it| it.unwrap().file_name().into_string().unwrap());
    let left: Vec<_> = left.filter(|name| name.contains("failback-shop")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn an_aborted_cutover_goes_on_with_the_disk_on_the_other_host() {
    let fake_vms = remote_fake_vms();
    let mut runner = fake_vms.start();
    wait_blocked(&fake_vms, &mut runner, "ready-to-cutover");
    fake_vms.aborts_the_cutover(&mut runner, "recovery", ["quiescing", "final-sync"]);
    wait_blocked(&fake_vms, &mut runner, "ready-to-cutover");
    assert!(fake_vms.is("recovery", "db1", "running") && !fake_vms.is("recovery", "db1", "fenced"));
    fake_vms.guest_writes("recovery", "db1", 500_000, &noise(9_000, 6));
    homecoming(&fake_vms, &mut runner);
}

#[test]
fn the_proof_finds_one_byte_that_the_target_elsewhere_does_not_have() {
    let fake_vms = remote_fake_vms();
    let mut runner = fake_vms.start();
    fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    // Time between the final copy and the proof.
    let slow = fake_vms.site("primary", "db1").join("slow");
    fs::write(&slow, "0.5").unwrap();
    fake_vms.ok(&["complete", "shop"]);
    fake_vms.wait(&mut runner, "the activation", |status| {
        status["vms"][0]["phase"] == "activating"
    });
    let disk = fs::OpenOptions::new()
        .write(true)
        .open(fake_vms.source("db1"));
    let mut disk = disk.unwrap();
    disk.seek(SeekFrom::Start(3_333_333)).unwrap();
    disk.write_all(b"x").unwrap();
    drop(disk);
    fs::remove_file(&slow).unwrap();
    let status = fake_vms.wait(&mut runner, "the proof", |status| {
        let vm = &status["vms"][0];
        vm["phase"] == "commit-pending" && !vm["problem"].is_null()
    });
    assert!(status["vms"][0]["problem"].to_string().contains("proof"));
    assert!(fake_vms.refused(&["commit", "shop"]).contains("not proven"));
}

#[test]
fn a_copy_that_another_wrote_to_is_not_activated() {
    let fake_vms = remote_fake_vms().with_job("mode = \"delta\"");
    let mut runner = fake_vms.start();
    wait_blocked(&fake_vms, &mut runner, "ready-to-cutover");
    fake_vms.guest_writes("recovery", "db1", 70_000, &noise(10_000, 3));
    let slow = fake_vms.site("recovery", "db1").join("slow");
    fs::write(&slow, "0.3").unwrap();
    fake_vms.ok(&["complete", "shop"]);
    // Behind the job's back, where the final copy looks.
    let disk = fs::OpenOptions::new()
        .write(true)
        .open(fake_vms.blocked("db1"));
    let mut disk = disk.unwrap();
    disk.seek(SeekFrom::Start(66_000)).unwrap();
    disk.write_all(b"behind its back").unwrap();
    drop(disk);
    fs::remove_file(slow).unwrap();
    fake_vms.wait_for(&mut runner, 0, "commit-pending");
    assert!(read(fake_vms.source("db1")) == read(fake_vms.target("db1")));
}

#[test]
fn what_keeps_a_remote_disk_from_being_written_is_said_before_anything_is_touched() {
    let fake_vms = remote_fake_vms();
    for (before, said) in [
        (
            "echo 'Host key verification failed.' >&2\nexit 255",
            "Host key verification",
        ),
        (
            "echo 'sh: 1: diskdelta: not found' >&2\nexit 127",
            "diskdelta: not found",
        ),
        ("echo 'Welcome to this host'", "Welcome to"),
    ] {
        fake_vms.writer(before);
        let failed = failing(&fake_vms);
        let start = "target host of disk ssh://me@primary.example";
        assert_eq!(failed.len(), 1, "{failed:?}");
        assert!(
            failed[0].starts_with(start) && failed[0].contains(said),
            "{failed:?}"
        );
        let plan = fake_vms.plan();
        let refused = fake_vms.refused(&["start", plan.to_str().unwrap(), "--yes"]);
        assert!(refused.contains(said), "{refused}");
        assert!(is_bootable(&fake_vms) && !fake_vms.is("primary", "db1", "fenced"));
    }
    for (options, said) in [
        ("--read-only", "this agent only reads"),
        (
            "--root /var/empty-of-all",
            "cannot open the root of this agent",
        ),
    ] {
        fake_vms.agent("", options);
        let failed = failing(&fake_vms);
        assert!(failed.len() == 1 && failed[0].contains(said), "{failed:?}");
    }
    fake_vms.agent(
        "",
        &format!("--root {}", fake_vms.path("recovery").display()),
    );
    let failed = failing(&fake_vms).concat();
    assert!(!failed.is_empty(), "it lies outside");
    fake_vms.agent(
        "",
        &format!("--root {}", fake_vms.path("primary").display()),
    );
    assert_eq!(failing(&fake_vms), Vec::<String>::new());

    fake_vms.writer("");
    let away = fake_vms.path("away");
    fs::rename(fake_vms.target("db1"), &away).unwrap();
    let failed = failing(&fake_vms).concat();
    assert!(
        failed.contains("is missing, and may not be made"),
        "{failed}"
    );
    fs::rename(&away, fake_vms.target("db1")).unwrap();
    let file = fs::OpenOptions::new()
        .write(true)
        .open(fake_vms.target("db1"));
    file.unwrap().set_len(1 << 20).unwrap();
    let failed = failing(&fake_vms).concat();
    assert!(
        failed.contains("1048576 bytes instead of 4194304"),
        "{failed}"
    );
    let file = fs::OpenOptions::new()
        .write(true)
        .open(fake_vms.target("db1"));
    file.unwrap().set_len(DISK_BYTES as u64).unwrap();
    fs::rename(fake_vms.source("db1"), &away).unwrap();
    let failed = failing(&fake_vms).concat();
    assert!(
        failed.contains("source readable") && failed.contains("disk.raw"),
        "{failed}"
    );
}

#[test]
fn a_host_of_an_older_version_and_one_that_speaks_nonsense_are_told_apart() {
    let fake_vms = remote_fake_vms();
    let speaks = |messages: &[Message]| {
        let mut encoder = FrameEncoder::default();
        let mut bytes = Vec::new();
        for message in messages {
            let frame = message.encode();
            encoder
                .encode(frame.kind, &frame.payload, &mut bytes)
                .unwrap();
        }
        fs::write(fake_vms.path("speech"), bytes).unwrap();
        let speech = fake_vms.path("speech");
        fake_vms.rsh(&format!("cat {}; exec cat > /dev/null\n", speech.display()));
        failing(&fake_vms).concat()
    };
    let hello = |features| {
        Message::Hello(Hello {
            version_least: 1,
            version_most: 1,
            features,
            random: [7; 32],
        })
    };
    let old = speaks(&[hello(31)]);
    assert!(
        old.contains("can only copy") && old.contains("same version"),
        "{old}"
    );
    let told = |text: &str| Message::Told(text.as_bytes().to_vec());
    for nonsense in [
        "\"done\"",
        "{",
        "\"format_everything\"",
        "{\"wanted\":{\"disk\":7,\"of_pass\":true,\"live\":true}}",
        "{\"verified\":null}",
        "[[[[",
    ] {
        let mut messages = vec![hello(63)];
        // One that asks on and on is not answered on and on.
        messages.extend((0..20).map(|_| told(nonsense)));
        let found = speaks(&messages);
        assert!(found.starts_with("target host"), "{nonsense}: {found}");
    }
    let lies = "{\"looked\":[{\"check\":\"\\u001b[2Jtarget\",\"disk\":\"x\",\"text\":\"\\n\",\
                \"holds\":false}]}";
    let found = speaks(&[hello(63), told(lies)]);
    assert!(
        !found.contains('\u{1b}') && found.contains("target"),
        "{found}"
    );
}

#[test]
fn a_plan_for_another_host_is_shown_with_an_estimate_of_what_would_move() {
    let fake_vms = remote_fake_vms();
    let plan = fake_vms.plan();
    let shown = fake_vms.ok(&["plan", plan.to_str().unwrap()]);
    let disk = &shown["vms"][0]["disks"][0];
    assert_eq!(disk["full_bytes"], DISK_BYTES);
    let delta = disk["delta_bytes"].as_u64().unwrap();
    assert!((300_000..400_000).contains(&delta), "{shown:#}");
    assert!(disk["line_seconds"].as_f64().unwrap() > 0.0);
    assert_eq!(shown["vms"][0]["advice"], "delta");
    assert!(!fake_vms.agent_state().exists() && !fake_vms.is("primary", "db1", "fenced"));
}

#[test]
fn the_plan_says_where_an_agent_that_it_starts_keeps_its_state() {
    let mut fake_vms = remote_fake_vms();
    fake_vms.connect = "state = \"/srv/state\"\n".to_owned();
    let mut runner = fake_vms.start();
    wait_blocked(&fake_vms, &mut runner, "ready-to-cutover");
    let asked = fs::read_to_string(fake_vms.path("asked")).unwrap();
    assert!(asked.contains(" --state-dir=/srv/state"), "{asked}");
    // One whose options its own host has chosen keeps to those.
    assert!(fake_vms.agent_token().exists() && !Path::new("/srv/state").exists());
    homecoming(&fake_vms, &mut runner);
}

#[test]
fn nothing_is_kept_where_a_client_could_write_it() {
    let fake_vms = remote_fake_vms();
    let mut runner = fake_vms.start();
    wait_blocked(&fake_vms, &mut runner, "ready-to-cutover");
    let left = fs::read_dir(fake_vms.site("primary", "db1")).unwrap();
    let left = left.map(|it| it.unwrap().file_name().into_string().unwrap());
    let left: Vec<_> = left.filter(|name| name.starts_with('.')).collect();
    assert!(left.is_empty(), "{left:?}");
    homecoming(&fake_vms, &mut runner);
}
