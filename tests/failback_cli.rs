//! The command `failback` on real files: VMs are shell scripts, processes are killed, files moved.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

#[path = "remote/certificates.rs"]
#[allow(dead_code, reason = "some of it is for other tests")]
mod certificates;
#[path = "failback_cli/disk_agent.rs"]
mod disk_agent;
#[path = "failback_cli/encrypted.rs"]
mod encrypted;
#[path = "failback_cli/fake_vm.rs"]
mod fake_vm;
#[path = "failback_cli/fixture.rs"]
mod fixture;
#[path = "failback_cli/forecast.rs"]
mod forecast;
#[path = "failback_cli/libvirt.rs"]
mod libvirt;
#[path = "failback_cli/remote.rs"]
mod remote;
#[path = "failback_cli/remote_target.rs"]
mod remote_target;
#[path = "failback_cli/requests.rs"]
mod requests;
#[path = "failback_cli/schema.rs"]
mod schema;
#[path = "failback_cli/status.rs"]
mod status;
#[path = "failback_cli/test_failover.rs"]
mod test_failover;

use std::fs;

use fake_vm::{DISK_BYTES, FakeVms, noise, read};
use fixture::{CommandFixture, Runner};

#[test]
fn a_delta_job_goes_home_and_back_and_moves_only_what_changed() {
    let fake_vms = FakeVms::new(&["db1"]);
    let mut runner = fake_vms.start();
    let status = fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    assert_eq!(status["direction"], "recovery-to-primary");
    let cancel = serde_json::json!({"cancel": {"restore": false}});
    let test = serde_json::json!({"test": {"end": false}});
    assert_eq!(
        status["allowed"],
        serde_json::json!(["complete", cancel, test])
    );
    let moved = status["vms"][0]["last_pass"]["changed_bytes"]
        .as_u64()
        .unwrap();
    assert!((300_000..400_000).contains(&moved), "{moved}");
    assert!(!fake_vms.target("db1").exists() && fake_vms.blocked("db1").exists());
    assert!(fake_vms.is("primary", "db1", "fenced") && fake_vms.is("recovery", "db1", "running"));

    fake_vms.guest_writes("recovery", "db1", 70_000, &noise(10_000, 3));
    fake_vms.ok(&["complete", "shop"]);
    let status = fake_vms.wait_for(&mut runner, 0, "commit-pending");
    let moved = status["vms"][0]["last_pass"]["changed_bytes"]
        .as_u64()
        .unwrap();
    assert!((10_000..20_000).contains(&moved), "{moved}");
    assert_eq!(status["vms"][0]["proven"], true);
    assert_eq!(read(fake_vms.source("db1")), read(fake_vms.target("db1")));
    assert!(fake_vms.is("primary", "db1", "running") && !fake_vms.is("recovery", "db1", "running"));

    fake_vms.guest_writes("primary", "db1", 2 << 20, &noise(5_000, 4));
    fake_vms.ok(&["commit", "shop"]);
    runner.end();
    assert!(fake_vms.is("recovery", "db1", "gone"));
    assert_eq!(fake_vms.phase(0), "committed");

    let status = fake_vms.ok(&["reverse", "shop", "--wait"]);
    assert_eq!(status["vms"][0]["phase"], "protected");
    let moved = status["vms"][0]["last_pass"]["changed_bytes"]
        .as_u64()
        .unwrap();
    assert!((5_000..13_000).contains(&moved), "{moved}");
    assert!(
        !fake_vms.source("db1").exists(),
        "a replica cannot be booted"
    );
    let replica = fake_vms
        .site("recovery", "db1")
        .join("disk.raw.failback-shop.partial.raw");
    assert_eq!(read(replica), read(fake_vms.target("db1")));
}

#[test]
fn what_was_reversed_is_the_base_of_the_next_failover() {
    let fake_vms = FakeVms::new(&["db1"]);
    through(&fake_vms, &["complete", "commit"]);
    fake_vms.ok(&["reverse", "shop", "--wait"]);
    fake_vms.guest_writes("primary", "db1", 3 << 20, &noise(5_000, 5));
    // The retired VM is set up anew, switched off.
    fs::remove_file(fake_vms.site("recovery", "db1").join("gone")).unwrap();
    let plan = fake_vms.plan_from("primary");
    let mut runner = fake_vms.spawn(&["start", plan.to_str().unwrap(), "--yes"]);
    let status = fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    assert_eq!(status["direction"], "primary-to-recovery");
    let moved = status["vms"][0]["last_pass"]["changed_bytes"]
        .as_u64()
        .unwrap();
    assert!((5_000..13_000).contains(&moved), "{moved}");
    fake_vms.ok(&["complete", "shop"]);
    fake_vms.wait_for(&mut runner, 0, "commit-pending");
    assert_eq!(read(fake_vms.source("db1")), read(fake_vms.target("db1")));
    assert!(fake_vms.is("recovery", "db1", "running") && !fake_vms.is("primary", "db1", "running"));
}

#[test]
fn a_replica_at_a_site_that_encrypts_is_readable_to_nobody_and_becomes_a_disk_again() {
    let job = "pass_interval = \"1s\"\nmax_replica_age = \"1h\"";
    let mut fake_vms = FakeVms::new(&["db1"]).with_job(job);
    fake_vms.recovery = format!("[recovery.encryption]\nidentity = {:?}\n", fake_vms.key());
    through(&fake_vms, &["complete", "commit"]);
    let mut runner = fake_vms.spawn(&["reverse", "shop"]);
    fake_vms.wait(&mut runner, "protection", |status| {
        status["vms"][0]["phase"] == "protected"
    });
    let secret = noise(5_000, 5);
    let passes = fake_vms.status()["vms"][0]["passes"].as_u64().unwrap();
    fake_vms.guest_writes("primary", "db1", 3 << 20, &secret);
    fake_vms.wait(&mut runner, "two more passes", |status| {
        status["vms"][0]["phase"] == "protected"
            && status["vms"][0]["passes"].as_u64().unwrap() >= passes + 2
    });
    runner.kill();
    let site = fake_vms.site("recovery", "db1");
    let files: Vec<_> = fs::read_dir(&site).unwrap().map(|it| it.unwrap()).collect();
    let plain = files
        .iter()
        .find(|it| it.metadata().unwrap().len() >= DISK_BYTES as u64);
    assert!(plain.is_none(), "{plain:?}");
    let links: Vec<_> = fs::read_dir(site.join("disk.raw.replica"))
        .unwrap()
        .map(|it| it.unwrap().path())
        .collect();
    assert!(links.len() >= 4, "{links:?}");
    let newest = links
        .iter()
        .filter(|link| link.to_string_lossy().contains("delta"))
        .max();
    shows_as_a_delta(&fake_vms, newest.unwrap());
    for link in &links {
        let held = read(link);
        assert!(held.starts_with(b"age-encryption.org/v1\n"), "{link:?}");
        assert!(!held.windows(64).any(|window| window == &secret[..64]));
    }

    // The next failover makes a disk of it.
    fs::remove_file(site.join("gone")).unwrap();
    let plan = fake_vms.plan_from("primary");
    let mut runner = fake_vms.spawn(&["start", plan.to_str().unwrap(), "--yes"]);
    let status = fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    let moved = status["vms"][0]["last_pass"]["changed_bytes"]
        .as_u64()
        .unwrap();
    assert!(moved <= 128 << 10, "{moved}");
    assert!(!fake_vms.source("db1").exists());
    fake_vms.guest_writes("primary", "db1", 1 << 20, &noise(3_000, 6));
    fake_vms.ok(&["complete", "shop"]);
    fake_vms.wait_for(&mut runner, 0, "commit-pending");
    assert_eq!(read(fake_vms.source("db1")), read(fake_vms.target("db1")));
    assert!(fake_vms.is("recovery", "db1", "running") && !site.join("disk.raw.replica").exists());
}

#[test]
fn an_encrypted_replica_needs_its_key_before_anything_begins() {
    let mut fake_vms = FakeVms::new(&["db1"]);
    let lost = fake_vms.key().with_file_name("lost.txt");
    fake_vms.recovery = format!("[recovery.encryption]\nidentity = {lost:?}\n");
    let plan = fake_vms.plan_from("primary");
    let output = fake_vms.run(&["check", plan.to_str().unwrap()]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        !output.status.success() && text.contains("lost.txt"),
        "{text}"
    );

    fake_vms.recovery = format!("[recovery.encryption]\nidentity = {:?}\n", fake_vms.key());
    through(&fake_vms, &["complete", "commit"]);
    fake_vms.ok(&["reverse", "shop", "--wait"]);
    fs::remove_file(fake_vms.site("recovery", "db1").join("gone")).unwrap();
    // Another key.
    fs::remove_file(fake_vms.key()).unwrap();
    fake_vms.key();
    let plan = fake_vms.plan_from("primary");
    let output = fake_vms.run(&["check", plan.to_str().unwrap()]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        !output.status.success() && text.contains("does not open"),
        "{text}"
    );
}

#[test]
fn a_full_job_copies_only_when_the_source_is_off_and_does_not_read_the_target() {
    let fake_vms = FakeVms::new(&["db1"]).with_job("mode = \"full\"");
    let traced = which("strace");
    if !traced {
        left_out("strace");
    }
    let plan = fake_vms.plan();
    let trace = fake_vms.site("primary", "db1").join("trace");
    let start = fake_vms.command(&["start", plan.to_str().unwrap(), "--yes"]);
    let mut runner = match traced {
        false => fake_vms.start(),
        true => {
            let mut command = std::process::Command::new("strace");
            command
                .args([
                    // The command is this process's child, so that it ends where it is killed.
                    "-D",
                    "-f",
                    "-yy",
                    "-qq",
                    "-e",
                    "trace=read,pread64,preadv,preadv2,rename,renameat,renameat2",
                    "-o",
                ])
                .arg(&trace)
                .arg(start.get_program())
                .args(start.get_args());
            Runner::spawn(command)
        }
    };
    let status = fake_vms.wait_for(&mut runner, 0, "commit-pending");
    assert_eq!(status["vms"][0]["passes"], 1);
    assert_eq!(read(fake_vms.source("db1")), read(fake_vms.target("db1")));
    let calls = fs::read_to_string(fake_vms.site("recovery", "db1").join("calls")).unwrap();
    assert!(!calls.contains("snapshot"), "{calls}");
    if traced {
        // What a marked or foreign file is known by lies at its ends; its bytes are not asked for.
        let read_bytes = bytes_read_of_the_old(&trace);
        println!("{read_bytes} of {DISK_BYTES} bytes of the old target were read");
        assert!(read_bytes <= 128 << 10, "{read_bytes}");
    }
    drop(runner);
    assert!(fake_vms.status()["run_by"].is_null(), "no process is left");
}

#[test]
fn a_full_first_job_makes_the_disk_and_the_vm_at_another_place() {
    let mut fake_vms = FakeVms::new(&["db1"]).with_job("mode = \"full-first\"");
    fake_vms.makes_a_vhdx();
    let mut runner = fake_vms.start();
    fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    fake_vms.guest_writes("recovery", "db1", 0, &noise(4096, 9));
    fake_vms.ok(&["complete", "shop"]);
    let status = fake_vms.wait_for(&mut runner, 0, "commit-pending");
    assert_eq!(status["vms"][0]["proven"], true);
    assert!(fake_vms.is("primary", "db1", "running"));
    fake_vms.holds_the_same();
}

#[test]
fn a_cancelled_job_leaves_the_target_as_it_was_where_the_way_back_was_kept() {
    for mode in ["delta", "full-first"] {
        let job = format!("mode = \"{mode}\"\nkeep_undo = true");
        let fake_vms = FakeVms::new(&["db1"]).with_job(&job);
        let before = read(fake_vms.target("db1"));
        let mut runner = fake_vms.start();
        fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
        assert_ne!(read(fake_vms.blocked("db1")), before);
        fake_vms.ok(&["cancel", "shop", "--restore"]);
        runner.end();
        let status = fake_vms.status();
        assert_eq!(status["vms"][0]["phase"], "cancelled");
        assert_eq!(status["vms"][0]["disposition"], "restored");
        assert!(read(fake_vms.target("db1")) == before, "{mode}");
        let left = ["calls", "disk-name", "disk.raw", "fenced", "token"];
        assert_eq!(names(&fake_vms, "primary"), left, "and nothing else");
        assert!(fake_vms.is("recovery", "db1", "running"));
    }
}

#[test]
fn a_cancelled_job_without_a_way_back_leaves_the_target_unbootable_and_the_next_goes_on_from_it() {
    let fake_vms = FakeVms::new(&["db1"]);
    let mut runner = fake_vms.start();
    fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    assert!(
        fake_vms
            .refused(&["cancel", "shop", "--restore"])
            .contains("no undo file is kept")
    );
    fake_vms.ok(&["cancel", "shop"]);
    runner.end();
    let status = fake_vms.status();
    assert_eq!(status["vms"][0]["disposition"], "blocked_inconsistent");
    assert!(!fake_vms.target("db1").exists());
    assert!(fake_vms.is("recovery", "db1", "running") && !fake_vms.is("primary", "db1", "running"));

    let mut runner = fake_vms.start();
    let status = fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    assert_eq!(
        status["vms"][0]["last_pass"]["changed_bytes"], 0,
        "it was all there"
    );
    fake_vms.ok(&["complete", "shop"]);
    fake_vms.wait_for(&mut runner, 0, "commit-pending");
    assert_eq!(read(fake_vms.source("db1")), read(fake_vms.target("db1")));
}

#[test]
fn an_aborted_cutover_starts_the_source_again_and_keeps_what_was_copied() {
    let fake_vms = FakeVms::new(&["db1"]);
    let mut runner = fake_vms.start();
    fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    fs::write(fake_vms.site("recovery", "db1").join("slow"), "0.3").unwrap();
    fake_vms.ok(&["complete", "shop"]);
    fake_vms.wait(&mut runner, "the cutover", |status| {
        let phase = &status["vms"][0]["phase"];
        phase == "quiescing" || phase == "final-sync"
    });
    fake_vms.ok(&["abort", "shop"]);
    fs::remove_file(fake_vms.site("recovery", "db1").join("slow")).unwrap();
    fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    assert!(fake_vms.is("recovery", "db1", "running") && !fake_vms.is("recovery", "db1", "fenced"));
    // Tracked again, so nothing written now is missed.
    fake_vms.guest_writes("recovery", "db1", 500_000, &noise(9_000, 6));
    fake_vms.ok(&["complete", "shop"]);
    let status = fake_vms.wait_for(&mut runner, 0, "commit-pending");
    let moved = status["vms"][0]["last_pass"]["changed_bytes"]
        .as_u64()
        .unwrap();
    assert!(moved < 20_000, "{moved}");
    assert_eq!(read(fake_vms.source("db1")), read(fake_vms.target("db1")));
}

#[test]
fn an_undo_needs_the_loss_accepted_and_brings_both_sides_back() {
    for (job, restore) in [("keep_undo = true", true), ("", false)] {
        let fake_vms = FakeVms::new(&["db1"]).with_job(job);
        let before = read(fake_vms.target("db1"));
        let mut runner = fake_vms.start();
        fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
        fake_vms.guest_writes("recovery", "db1", 1 << 20, &noise(9_000, 6));
        fake_vms.ok(&["complete", "shop"]);
        fake_vms.wait_for(&mut runner, 0, "commit-pending");
        let source = read(fake_vms.source("db1"));
        fake_vms.guest_writes("primary", "db1", (1 << 20) + 4_000, &noise(70_000, 7));
        assert!(
            fake_vms
                .refused(&["undo", "shop"])
                .contains("not acknowledged")
        );
        let mut undo = vec!["undo", "shop", "--accept-loss"];
        undo.extend(restore.then_some("--restore"));
        fake_vms.ok(&undo);
        runner.end();
        assert_eq!(fake_vms.phase(0), "rolled-back");
        assert!(
            fake_vms.is("recovery", "db1", "running") && !fake_vms.is("primary", "db1", "running")
        );
        assert!(
            read(fake_vms.source("db1")) == source,
            "the source lost nothing"
        );
        match restore {
            true => assert!(read(fake_vms.target("db1")) == before, "bit for bit"),
            false => assert!(!fake_vms.target("db1").exists(), "it cannot be booted"),
        }
    }
}

#[test]
fn a_killed_executor_is_taken_over_and_nothing_is_lost_or_done_twice() {
    // At each verb of either site, while it is being carried out.
    let places = [
        ("primary", "fence", false),
        ("recovery", "arm-tracking", false),
        ("recovery", "snapshot", false),
        ("recovery", "changes-since", false),
        ("recovery", "shut-down", true),
        ("recovery", "fence", true),
        ("primary", "arm-tracking", true),
        ("primary", "unfence", true),
        ("primary", "start", true),
    ];
    for (site, verb, after_complete) in places {
        let fake_vms = FakeVms::new(&["db1"]);
        let stop = fake_vms.site(site, "db1").join("slow");
        let calls = fake_vms.site(site, "db1").join("calls");
        let mut runner = match after_complete {
            false => {
                fs::write(&stop, "0.2").unwrap();
                fake_vms.start()
            }
            true => {
                let mut runner = fake_vms.start();
                fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
                fake_vms.guest_writes("recovery", "db1", 90_000, &noise(8_000, 8));
                fs::write(&stop, "0.2").unwrap();
                fake_vms.ok(&["complete", "shop"]);
                runner
            }
        };
        let line = format!("{verb} ");
        while !fs::read_to_string(&calls)
            .unwrap_or_default()
            .lines()
            .any(|call| call.starts_with(&line))
        {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        runner.kill();
        fs::remove_file(&stop).unwrap();
        let runs = |site| fake_vms.is(site, "db1", "running");
        assert!(!(runs("primary") && runs("recovery")), "{verb}");

        let mut runner = fake_vms.spawn(&["resume", "shop"]);
        if !after_complete {
            fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
            fake_vms.ok(&["complete", "shop"]);
        }
        let status = fake_vms.wait_for(&mut runner, 0, "commit-pending");
        assert_eq!(status["vms"][0]["proven"], true, "{verb}");
        assert!(
            read(fake_vms.source("db1")) == read(fake_vms.target("db1")),
            "{verb}"
        );
        assert!(runs("primary") && !runs("recovery"), "{verb}");
    }
}

#[test]
fn a_target_that_was_moved_away_while_inconsistent_is_asked_for_and_nothing_is_guessed() {
    let fake_vms = FakeVms::new(&["db1"]);
    let mut runner = fake_vms.start();
    fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    let elsewhere = fake_vms.site("primary", "db1").join("elsewhere");
    fs::rename(fake_vms.blocked("db1"), &elsewhere).unwrap();
    fake_vms.ok(&["complete", "shop"]);
    let status = fake_vms.wait(&mut runner, "a problem", |status| {
        !status["vms"][0]["problem"].is_null()
    });
    let detail = status["vms"][0]["detail"].as_str().unwrap();
    assert!(detail.contains("move it back to"), "{detail}");
    assert!(!fake_vms.target("db1").exists() && !fake_vms.blocked("db1").exists());
    fs::rename(&elsewhere, fake_vms.blocked("db1")).unwrap();
    let _ = fake_vms.run(&["retry", "shop"]);
    fake_vms.wait_for(&mut runner, 0, "commit-pending");
    assert_eq!(read(fake_vms.source("db1")), read(fake_vms.target("db1")));
}

#[test]
fn groups_wait_for_each_other_and_stop_and_start_in_order() {
    let fake_vms = FakeVms::new(&["db1", "web1"]);
    let slow = fake_vms.site("recovery", "web1").join("broken");
    let mut runner = fake_vms.start();
    fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    fake_vms.wait_for(&mut runner, 1, "ready-to-cutover");
    fs::write(&slow, "").unwrap();
    fake_vms.ok(&["complete", "shop"]);
    fake_vms.wait(&mut runner, "a problem", |status| {
        !status["vms"][1]["problem"].is_null()
    });
    assert!(
        fake_vms.is("recovery", "db1", "running"),
        "it waits for the other"
    );
    fs::remove_file(&slow).unwrap();
    fake_vms.wait_for(&mut runner, 0, "commit-pending");
    fake_vms.wait_for(&mut runner, 1, "commit-pending");
    for vm in ["db1", "web1"] {
        assert_eq!(read(fake_vms.source(vm)), read(fake_vms.target(vm)));
    }
    fake_vms.ok(&["commit", "shop"]);
    runner.end();
    assert!(fake_vms.is("recovery", "db1", "gone") && fake_vms.is("recovery", "web1", "gone"));
}

/// The marker that a sync sets on its target, for the third sector, as a guest may write it.
fn guests_marker() -> Vec<u8> {
    let mut out = vec![0; 512];
    out[..16].copy_from_slice(b"\0diskdelta mark1");
    out[16..32].copy_from_slice(&[b'J'; 16]);
    out[32] = 1;
    out[40..48].copy_from_slice(&(DISK_BYTES as u64).to_le_bytes());
    out[48..56].copy_from_slice(&GUESTS_AT.to_le_bytes());
    let crc = crc32fast::hash(&out[..508]);
    out[508..].copy_from_slice(&crc.to_le_bytes());
    out
}

const GUESTS_AT: u64 = 1024;

#[test]
fn a_guest_that_writes_a_marker_stops_its_own_vm_only_and_for_as_long_as_it_is_there() {
    let fake_vms = FakeVms::new(&["db1", "web1"]);
    let slow = fake_vms.site("recovery", "db1").join("slow");
    fs::write(&slow, "0.5").unwrap();
    let mut runner = fake_vms.start();
    fake_vms.wait(&mut runner, "the beginning", |status| {
        status["vms"][0]["phase"] == "initial-sync"
    });
    fake_vms.guest_writes("recovery", "db1", GUESTS_AT, &guests_marker());
    fs::remove_file(&slow).unwrap();
    fake_vms.wait_for(&mut runner, 1, "ready-to-cutover");
    let status = fake_vms.wait(&mut runner, "a problem", |status| {
        !status["vms"][0]["problem"].is_null() || status["vms"][0]["phase"] == "ready-to-cutover"
    });
    if status["vms"][0]["problem"].is_null() {
        // The first pass was quicker: the next one finds it.
        fake_vms.ok(&["complete", "shop"]);
        fake_vms.wait(&mut runner, "a problem", |status| {
            !status["vms"][0]["problem"].is_null()
        });
    }
    let status = fake_vms.status();
    assert_eq!(status["vms"][0]["problem"], "marked", "{status:#}");
    let log = fake_vms.ok(&["log", "shop"]).to_string();
    assert!(log.contains("marker"), "{log}");
    assert!(fake_vms.is("recovery", "db1", "running"), "{status:#}");
    fake_vms.guest_writes("recovery", "db1", GUESTS_AT, &[7; 512]);
    fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    fake_vms.ok(&["complete", "shop"]);
    for (index, vm) in ["db1", "web1"].into_iter().enumerate() {
        fake_vms.wait_for(&mut runner, index, "commit-pending");
        assert_eq!(read(fake_vms.source(vm)), read(fake_vms.target(vm)));
    }
    fake_vms.ok(&["commit", "shop"]);
    runner.end();
}

#[test]
fn a_target_whose_guest_wrote_a_marker_before_stops_its_own_vm_only_and_has_a_way_on() {
    let fake_vms = FakeVms::new(&["db1", "web1"]);
    let target = fake_vms.target("db1");
    let plant = |path: &std::path::Path| {
        let mut old = read(path);
        let at = usize::try_from(GUESTS_AT).unwrap();
        old[at..at + 512].copy_from_slice(&guests_marker());
        fs::write(path, &old).unwrap();
        old
    };
    let recover = |path: &std::path::Path, words: &[&str]| {
        for _ in 0..50 {
            let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_diskdelta"));
            let output = command
                .arg("recover")
                .arg(path)
                .args(words)
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            // The job looks again now and then.
            if !said.contains("open for writing") && !said.contains("in use") {
                return (output.status.success(), said);
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        panic!("{path:?} is in use all the time");
    };
    let gives_up = |path: &std::path::Path| {
        let (_, said) = recover(path, &[]);
        assert!(said.contains("--forget"), "{said}");
        let (is_done, said) = recover(path, &["--forget", "--zero-guarded"]);
        assert!(is_done, "{said}");
    };

    // Found before the job begins, which then touches nothing.
    let old = plant(&target);
    assert!(!fake_vms.start().wait().success());
    assert!(read(&target) == old, "it was touched");
    gives_up(&target);

    // Found by a pass.
    let slow = fake_vms.site("recovery", "db1").join("slow");
    fs::write(&slow, "0.5").unwrap();
    let mut runner = fake_vms.start();
    fake_vms.wait(&mut runner, "the beginning", |_| {
        fake_vms.blocked("db1").exists()
    });
    let old = plant(&fake_vms.blocked("db1"));
    fs::remove_file(&slow).unwrap();
    fake_vms.wait_for(&mut runner, 1, "ready-to-cutover");
    let status = fake_vms.wait(&mut runner, "a problem", |status| {
        !status["vms"][0]["problem"].is_null()
    });
    assert_eq!(status["vms"][0]["problem"], "marked", "{status:#}");
    assert!(read(fake_vms.blocked("db1")) == old, "it was touched");
    gives_up(&fake_vms.blocked("db1"));
    fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    fake_vms.ok(&["complete", "shop"]);
    for (index, vm) in ["db1", "web1"].into_iter().enumerate() {
        fake_vms.wait_for(&mut runner, index, "commit-pending");
        assert_eq!(read(fake_vms.source(vm)), read(fake_vms.target(vm)));
    }
    fake_vms.ok(&["commit", "shop"]);
    runner.end();
}

#[test]
fn prerequisites_are_reported_one_by_one_and_nothing_is_touched() {
    let fake_vms = FakeVms::new(&["db1"]);
    let plan = fake_vms.plan();
    let plan = plan.to_str().unwrap();
    let checked = fake_vms.ok(&["check", plan]);
    assert_eq!(checked["holds"], true);
    fs::write(fake_vms.site("primary", "db1").join("running"), "").unwrap();
    let target = fs::OpenOptions::new()
        .write(true)
        .open(fake_vms.target("db1"))
        .unwrap();
    target.set_len(1 << 20).unwrap();
    let output = fake_vms.run(&["check", plan]);
    assert_eq!(output.status.code(), Some(2));
    let checked: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let failed: Vec<_> = checked["checks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|check| check["holds"] == false)
        .map(|check| check["check"].as_str().unwrap())
        .collect();
    assert_eq!(failed, ["target VM", "target size of disk db1-system"]);
    fs::remove_file(fake_vms.site("primary", "db1").join("running")).unwrap();
    let complaint = fake_vms.refused(&["start", plan, "--yes"]);
    assert!(
        complaint.contains("1048576 bytes instead of 4194304"),
        "{complaint}"
    );
    assert!(fake_vms.target("db1").exists() && !fake_vms.is("primary", "db1", "fenced"));
    // Mended, it goes on.
    target.set_len(DISK_BYTES as u64).unwrap();
    drop(target);
    let mut runner = fake_vms.spawn(&["resume", "shop"]);
    fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    // Until it is committed or given up, no other job gets these disks.
    let output = fake_vms.run(&["check", plan]);
    let checked: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(checked["checks"][0]["check"], "earlier job");
    assert_eq!(checked["checks"][0]["holds"], false);
}

#[test]
fn a_job_that_cannot_begin_can_be_given_up() {
    let fake_vms = FakeVms::new(&["db1"]);
    fs::write(fake_vms.site("primary", "db1").join("running"), "").unwrap();
    let plan = fake_vms.plan();
    let complaint = fake_vms.refused(&["start", plan.to_str().unwrap(), "--yes"]);
    assert!(complaint.contains("the target VM runs"), "{complaint}");
    let complaint = fake_vms.refused(&["resume", "shop"]);
    assert!(complaint.contains("the target VM runs"), "{complaint}");
    fake_vms.ok(&["cancel", "shop"]);
    assert_eq!(fake_vms.status()["vms"][0]["phase"], "cancelled");
    assert!(fake_vms.target("db1").exists());
}

#[test]
fn a_plan_is_shown_and_nothing_begins_without_a_yes() {
    let fake_vms = FakeVms::new(&["db1"]);
    let plan = fake_vms.plan();
    let shown = fake_vms.ok(&["plan", plan.to_str().unwrap()]);
    assert_eq!(shown["direction"], "recovery-to-primary");
    let disk = &shown["vms"][0]["disks"][0];
    assert_eq!(disk["full_bytes"], DISK_BYTES);
    assert!(disk["delta_bytes"].as_u64().unwrap() < DISK_BYTES as u64 / 4);
    assert_eq!(shown["vms"][0]["advice"], "delta");
    let modes: Vec<_> = shown["vms"][0]["modes"]
        .as_array()
        .unwrap()
        .iter()
        .collect();
    let named: Vec<_> = modes
        .iter()
        .map(|mode| mode["mode"].as_str().unwrap())
        .collect();
    assert_eq!(named, ["delta", "full", "full-first"]);
    assert_eq!(modes[0]["moved_bytes"], disk["delta_bytes"]);
    assert!(
        modes
            .iter()
            .all(|mode| mode["downtime_seconds"].as_f64().unwrap() > 0.0)
    );
    fake_vms.refused(&["start", plan.to_str().unwrap()]);
    assert!(
        fake_vms
            .refused(&["status", "shop"])
            .contains("there is no job `shop`")
    );
    assert!(!fake_vms.is("primary", "db1", "fenced"));
}

#[test]
fn two_jobs_do_not_get_one_disk_and_two_processes_not_one_job() {
    let fake_vms = FakeVms::new(&["db1"]);
    let mut runner = fake_vms.start();
    fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    assert!(
        fake_vms
            .refused(&["resume", "shop"])
            .contains("another process runs this job")
    );
    let plan = fake_vms.plan();
    let text = fs::read_to_string(&plan).unwrap();
    assert!(
        fake_vms
            .refused(&["start", plan.to_str().unwrap(), "--yes"])
            .contains("is not over")
    );
    fs::write(&plan, text.replace("\"shop\"", "\"other\"")).unwrap();
    let complaint = fake_vms.refused(&["start", plan.to_str().unwrap(), "--yes"]);
    assert!(
        complaint.contains("the job `shop`, which is not over, has"),
        "{complaint}"
    );
    assert!(runner.ended().is_none());
}

#[test]
fn of_two_processes_that_begin_jobs_with_one_disk_at_once_one_does() {
    for round in 0..3 {
        let fake_vms = FakeVms::new(&["db1"]);
        let text = fs::read_to_string(fake_vms.plan()).unwrap();
        let mut runners: Vec<_> = ["one", "two", "three"]
            .into_iter()
            .map(|job| {
                let plan = fake_vms.path(&format!("{job}.toml"));
                fs::write(&plan, text.replace("\"shop\"", &format!("{job:?}"))).unwrap();
                fake_vms.spawn(&["start", plan.to_str().unwrap(), "--yes"])
            })
            .collect();
        // Those that are refused end; the one that was begun waits for its cutover.
        let mut running: Vec<usize> = (0..3).collect();
        while running.len() > 1 {
            running.retain(|index| match runners[*index].ended() {
                Some(status) => {
                    assert!(!status.success(), "{round}: {status}");
                    false
                }
                None => true,
            });
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let jobs = fake_vms.ok(&["status"]);
        assert!(runners[running[0]].ended().is_none(), "{jobs}");
        assert_eq!(jobs["jobs"].as_array().unwrap().len(), 1, "{jobs}");
    }
}

#[test]
fn a_job_that_waits_does_next_to_nothing_and_still_answers_at_once() {
    let fake_vms = FakeVms::new(&["db1", "db2"]).with_job("pass_interval = \"1h\"");
    let mut runner = fake_vms.start();
    fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    fake_vms.wait_for(&mut runner, 1, "ready-to-cutover");
    let begin = std::time::Instant::now();
    let before = runner.waits();
    std::thread::sleep(std::time::Duration::from_secs(4));
    let waits = runner.waits() - before;
    // Each look every 20 ms would be 50 a second for the runner and each VM.
    let most = 15 * begin.elapsed().as_secs();
    assert!(waits < most, "woken {waits} times, {most} are the most");
    fake_vms.ok(&["cancel", "shop"]);
    runner.end();
    assert_eq!(fake_vms.phase(0), "cancelled");
}

#[test]
fn log_and_explain_say_what_happened_and_what_is_missing() {
    let fake_vms = FakeVms::new(&["db1"]);
    let mut runner = fake_vms.start();
    fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    let explained = fake_vms.ok(&["explain", "shop"]);
    let missing = &explained["vms"][0]["conditions"][0];
    assert_eq!(missing["condition"], "complete is asked");
    assert_eq!(missing["holds"], false);
    let log = fake_vms.ok(&["log", "shop"]);
    let lines = log["lines"].as_array().unwrap();
    assert_eq!(lines[0]["record"], "job");
    assert!(
        lines
            .iter()
            .any(|line| line["event"]["asked"]["by"] == "operator")
    );
    assert!(
        fake_vms
            .refused(&["commit", "shop"])
            .contains("not possible in phase ready-to-cutover")
    );
    let text = fake_vms.command(&["status", "shop"]);
    let args: Vec<_> = text.get_args().filter(|arg| *arg != "--json").collect();
    let mut text = std::process::Command::new(text.get_program());
    let text = String::from_utf8(text.args(args).output().unwrap().stdout).unwrap();
    for part in [
        "the source runs, the target is close to it",
        "waits until: complete is asked",
        "you may now: complete, cancel",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

/// A job that is started, and asked for all of these in turn.
fn through(fake_vms: &FakeVms, requests: &[&str]) {
    let mut runner = fake_vms.start();
    for request in requests {
        fake_vms.wait(&mut runner, request, |status| {
            let allowed = status["allowed"].as_array();
            let idle = status["vms"][0]["doing"].is_null();
            idle && allowed.is_some_and(|allowed| allowed.iter().any(|it| it == request))
        });
        fake_vms.ok(&[request, "shop"]);
    }
    runner.end();
}

fn names(fake_vms: &FakeVms, site: &str) -> Vec<String> {
    let listed = fs::read_dir(fake_vms.site(site, "db1")).unwrap();
    let mut names: Vec<_> = listed
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Anybody with the key and the program `age` gets at a link, and it is a delta like any other.
fn shows_as_a_delta(fake_vms: &FakeVms, link: &std::path::Path) {
    if !which("age") {
        return left_out("age");
    }
    let opened = fake_vms.key().with_file_name("opened.delta");
    let mut age = std::process::Command::new("age");
    let age = age
        .arg("--decrypt")
        .arg("-i")
        .arg(fake_vms.key())
        .arg("-o")
        .arg(&opened)
        .arg(link);
    assert!(age.status().unwrap().success());
    let mut show = std::process::Command::new(env!("CARGO_BIN_EXE_diskdelta"));
    assert!(
        show.args(["delta", "show"])
            .arg(&opened)
            .status()
            .unwrap()
            .success()
    );
}

fn which(program: &str) -> bool {
    let found = std::process::Command::new("which").arg(program).output();
    found.is_ok_and(|found| found.status.success())
}

fn left_out(program: &str) {
    eprintln!("LEFT OUT: {program} is not there, and what it would show is not shown");
    let required = std::env::var_os("DISKDELTA_REQUIRE_ORACLES").is_some_and(|it| it == "1");
    assert!(!required, "{program} is missing");
}

/// How many bytes of the target were read before another file took its place.
fn bytes_read_of_the_old(trace: &std::path::Path) -> u64 {
    let text = fs::read_to_string(trace).unwrap();
    let calls = text.lines();
    let before = calls.take_while(|call| !call.contains("diskdelta-new\", "));
    let reads = before.filter(|call| call.contains("disk.raw") && call.contains("primary/db1"));
    reads
        .filter_map(|call| call.rsplit(" = ").next()?.trim().parse::<u64>().ok())
        .sum()
}
