//! Whole jobs of the command, on a guest that writes files all the time and acknowledges each.

use serde_json::Value;

use super::fixture::{CommandFixture, Runner};
use super::host::has_loop_devices;
use super::vm::VmFixture;

#[test]
fn a_guest_comes_home_while_it_writes_is_replicated_back_and_fails_over_again() {
    let Some(fixture) = VmFixture::new("disk.raw") else {
        return;
    };
    fixture.boot("recovery");
    fixture.wait_for_files("recovery", 3);
    let mut runner = fixture.start("recovery");
    let ready = fixture.wait_for(&mut runner, "ready-to-cutover");
    assert!(moved(&ready) > 0);
    assert!(fixture.runs("recovery") && !fixture.may_boot("primary"));
    fixture.wait_for_files("recovery", 5);
    home(&fixture, &mut runner, "recovery", "primary");
    assert!(!fixture.may_boot("recovery"), "the source is fenced");
    fixture.ok(&["commit", "home"]);
    runner.end();
    assert!(!fixture.log().contains("tracking_lost"));

    fixture.wait_for_files("primary", 2);
    let mut runner = fixture.spawn(&["reverse", "home", "--wait"]);
    runner.end();
    assert!(
        !fixture.disk("recovery").exists(),
        "a replica cannot be booted"
    );
    assert!(
        !fixture.log().contains("tracking_lost"),
        "only what was written was copied"
    );

    // The next failover, and home again.
    for (from, to) in [("primary", "recovery"), ("recovery", "primary")] {
        fixture.wait_for_files(from, 2);
        let mut runner = fixture.start(from);
        fixture.wait_for(&mut runner, "ready-to-cutover");
        home(&fixture, &mut runner, from, to);
        fixture.ok(&["commit", "home"]);
        runner.end();
        if !is_long() {
            // Once more is for those who have the time.
            return finish(&fixture, to);
        }
    }
    finish(&fixture, "primary");
}

#[test]
fn a_copy_of_the_guest_is_tested_while_it_runs_on_and_then_it_comes_home() {
    let Some(fixture) = VmFixture::new("disk.raw") else {
        return;
    };
    fixture.boot("recovery");
    fixture.wait_for_files("recovery", 3);
    let mut runner = fixture.start("recovery");
    fixture.wait_for(&mut runner, "ready-to-cutover");
    fixture.ok(&["test", "home", "--wait"]);
    // It boots from the copy, and writes to none of the disks.
    let found = fixture.wait_for_boot("primary", 1);
    assert!(found >= 3, "{found}");
    fixture.wait_for_files("primary", 2);
    fixture.wait_for_files("recovery", 2);
    assert!(fixture.runs("recovery") && !fixture.runs("primary"));
    assert!(!fixture.may_boot("primary") && !fixture.disk("primary").exists());
    fixture.ok(&["test", "home", "--end", "--wait"]);
    home(&fixture, &mut runner, "recovery", "primary");
    fixture.ok(&["commit", "home"]);
    runner.end();
    finish(&fixture, "primary");
}

#[test]
fn a_guest_comes_home_onto_a_block_device_and_boots_from_it() {
    if !has_loop_devices() {
        return;
    }
    let Some(fixture) = VmFixture::new("disk.raw") else {
        return;
    };
    let fixture = fixture.with_device();
    fixture.boot("recovery");
    fixture.wait_for_files("recovery", 3);
    let mut runner = fixture.start("recovery");
    fixture.wait_for(&mut runner, "ready-to-cutover");
    assert!(fixture.is_held() && !fixture.may_boot("primary"));
    fixture.wait_for_files("recovery", 3);
    home(&fixture, &mut runner, "recovery", "primary");
    assert!(!fixture.is_held());
    fixture.ok(&["commit", "home"]);
    runner.end();
    assert!(!fixture.log().contains("tracking_lost"));

    // Its writes are tracked there, too, and read from a snapshot of the device.
    fixture.wait_for_files("primary", 2);
    let mut runner = fixture.spawn(&["reverse", "home", "--wait"]);
    runner.end();
    assert!(!fixture.log().contains("tracking_lost"));
    if !is_long() {
        // The way there and back is for those who have the time.
        return finish(&fixture, "primary");
    }
    for (from, to) in [("primary", "recovery"), ("recovery", "primary")] {
        fixture.wait_for_files(from, 2);
        let mut runner = fixture.start(from);
        fixture.wait_for(&mut runner, "ready-to-cutover");
        home(&fixture, &mut runner, from, to);
        fixture.ok(&["commit", "home"]);
        runner.end();
    }
    finish(&fixture, "primary");
}

#[test]
fn a_device_is_held_while_a_guest_is_given_back_and_after_it_was_undone() {
    if !has_loop_devices() {
        return;
    }
    let Some(fixture) = VmFixture::new("disk.raw") else {
        return;
    };
    let fixture = fixture.with_device().with_mode("full-first");
    fixture.boot("recovery");
    fixture.wait_for_files("recovery", 3);
    let mut runner = fixture.start_slowly("recovery");
    fixture.wait(&mut runner, "a copy", |vm| copies(vm, "initial-sync"));
    fixture.ok(&["cancel", "home"]);
    runner.end();
    assert!(fixture.is_held() && fixture.runs("recovery"));

    let mut runner = fixture.start("recovery");
    fixture.wait_for(&mut runner, "ready-to-cutover");
    home(&fixture, &mut runner, "recovery", "primary");
    let acknowledged = fixture.acknowledged("recovery");
    fixture.ok(&["undo", "home", "--accept-loss"]);
    runner.end();
    assert!(fixture.is_held() && !fixture.may_boot("primary"));
    assert_eq!(fixture.wait_for_boot("recovery", 2), acknowledged);
    finish(&fixture, "recovery");
}

#[test]
fn a_job_that_cannot_fence_its_target_is_given_up_or_tried_again() {
    let Some(fixture) = VmFixture::new("disk.raw") else {
        return;
    };
    fixture.boot("recovery");
    fixture.wait_for_files("recovery", 3);
    // Nothing can be written there.
    let in_the_way = fixture.site("primary").join("fenced.new");
    std::fs::create_dir(&in_the_way).unwrap();
    let before = std::fs::read(fixture.disk("primary")).unwrap();
    let stands = |vm: &Value| vm["phase"] == "prepared" && !vm["problem"].is_null();
    let mut runner = fixture.start("recovery");
    fixture.wait(&mut runner, "a fence that fails", stands);
    fixture.ok(&["cancel", "home"]);
    runner.end();
    let status = fixture.ok(&["status", "home"]);
    assert_eq!(status["vms"][0]["disposition"], "restored");
    assert!(fixture.runs("recovery"));
    assert!(std::fs::read(fixture.disk("primary")).unwrap() == before);

    let mut runner = fixture.start("recovery");
    fixture.wait(&mut runner, "a fence that fails", stands);
    std::fs::remove_dir(&in_the_way).unwrap();
    fixture.wait_for(&mut runner, "ready-to-cutover");
    home(&fixture, &mut runner, "recovery", "primary");

    // What does not run is not committed to.
    fixture.kill_vm("primary");
    fixture.ok(&["commit", "home"]);
    fixture.wait(&mut runner, "a look at the target", |vm| {
        vm["phase"] == "commit-pending" && !vm["problem"].is_null()
    });
    assert!(!fixture.site("recovery").join("retired").exists());
    fixture.boot("primary");
    fixture.wait_for_boot("primary", 2);
    fixture.ok(&["retry", "home"]);
    runner.end();
    assert!(fixture.site("recovery").join("retired").exists());
    finish(&fixture, "primary");
}

#[test]
fn a_cutover_that_is_asked_for_during_a_pass_is_made_after_it() {
    let Some(fixture) = VmFixture::new("disk.raw") else {
        return;
    };
    let fixture = fixture.with_mode("full-first");
    fixture.boot("recovery");
    fixture.wait_for_files("recovery", 3);
    let mut runner = fixture.start_slowly("recovery");
    fixture.wait(&mut runner, "a copy", |vm| copies(vm, "initial-sync"));
    fixture.ok(&["complete", "home"]);
    assert!(fixture.runs("recovery"), "it goes on until the pass ends");
    arrived(&fixture, &mut runner, "recovery", "primary", 1);
    fixture.ok(&["commit", "home"]);
    runner.end();
    finish(&fixture, "primary");
}

#[test]
fn a_full_copy_to_a_new_vhd_boots_with_every_file() {
    let Some(fixture) = VmFixture::new("disk.vhd") else {
        return;
    };
    let fixture = fixture.without_target().with_mode("full");
    fixture.boot("recovery");
    fixture.wait_for_files("recovery", 3);
    // Nothing is copied before the source is off, so that there is nothing to wait for.
    let mut runner = fixture.start("recovery");
    arrived(&fixture, &mut runner, "recovery", "primary", 1);
    fixture.ok(&["commit", "home"]);
    runner.end();
    finish(&fixture, "primary");
}

#[test]
fn a_delta_to_a_vhdx_survives_its_executor_at_every_phase() {
    let Some(fixture) = VmFixture::new("disk.vhdx") else {
        return;
    };
    fixture.boot("recovery");
    fixture.wait_for_files("recovery", 3);
    let mut runner = fixture.start("recovery");
    let on = |phase: &'static str| move |vm: &Value| vm["phase"] == phase;
    fixture.wait(&mut runner, "the first pass", on("initial-sync"));
    runner.kill();
    let mut runner = fixture.spawn(&["resume", "home"]);
    fixture.wait_for(&mut runner, "ready-to-cutover");
    fixture.wait_for_files("recovery", 2);
    fixture.ok(&["complete", "home"]);
    let left = |phases: [&'static str; 2]| {
        move |vm: &Value| !phases.iter().any(|phase| vm["phase"] == *phase)
    };
    fixture.wait(
        &mut runner,
        "the shutdown",
        left(["ready-to-cutover", "initial-sync"]),
    );
    runner.kill();
    let mut runner = fixture.spawn(&["resume", "home"]);
    fixture.wait(&mut runner, "the start", |vm| {
        vm["phase"] == "activating" || vm["phase"] == "commit-pending"
    });
    runner.kill();
    let mut runner = fixture.spawn(&["resume", "home"]);
    fixture.wait_for(&mut runner, "commit-pending");
    all_files_are_there(&fixture, "recovery", "primary", 1);
    fixture.ok(&["commit", "home"]);
    runner.end();
    finish(&fixture, "primary");
}

#[test]
fn a_source_that_loses_its_bitmap_is_compared_and_that_is_on_record() {
    let Some(fixture) = VmFixture::new("disk.raw") else {
        return;
    };
    fixture.boot("recovery");
    fixture.wait_for_files("recovery", 3);
    let mut runner = fixture.start("recovery");
    fixture.wait_for(&mut runner, "ready-to-cutover");
    fixture.wait_for_files("recovery", 2);
    fixture.kill_vm("recovery");
    fixture.boot("recovery");
    let found = fixture.wait_for_boot("recovery", 2);
    assert!(found > 0, "the disk of a guest that was killed");
    fixture.wait_for_files("recovery", 2);
    home(&fixture, &mut runner, "recovery", "primary");
    assert!(fixture.log().contains("tracking_lost"));
    fixture.ok(&["commit", "home"]);
    runner.end();
    finish(&fixture, "primary");
}

#[test]
fn a_cancel_leaves_the_source_running_and_the_target_as_it_was() {
    let Some(fixture) = VmFixture::new("disk.raw") else {
        return;
    };
    let fixture = fixture.with_job("keep_undo = true");
    let before = std::fs::read(fixture.disk("primary")).unwrap();
    fixture.boot("recovery");
    fixture.wait_for_files("recovery", 3);
    let mut runner = fixture.start("recovery");
    fixture.wait_for(&mut runner, "ready-to-cutover");
    fixture.ok(&["cancel", "home", "--restore"]);
    runner.end();
    assert!(std::fs::read(fixture.disk("primary")).unwrap() == before);
    assert!(fixture.runs("recovery"));
    fixture.wait_for_files("recovery", 2);
    assert!(!fixture.site("recovery").join("scratch-0.qcow2").exists());
}

#[test]
fn a_deaf_guest_is_given_back_and_a_guest_that_came_home_can_be_undone() {
    let Some(fixture) = VmFixture::new("disk.raw") else {
        return;
    };
    let fixture = fixture.with_deaf_guest();
    fixture.boot("recovery");
    fixture.wait_for_files("recovery", 3);
    let plan = fixture.plan("recovery");
    let text = std::fs::read_to_string(&plan).unwrap();
    std::fs::write(&plan, text.replace("\"5m\"", "\"3s\"")).unwrap();
    let mut runner = fixture.spawn(&["start", plan.to_str().unwrap(), "--yes"]);
    fixture.wait_for(&mut runner, "ready-to-cutover");
    fixture.ok(&["complete", "home"]);
    fixture.wait(&mut runner, "the guest's silence", |vm| {
        vm["phase"] == "quiescing" && !vm["problem"].is_null()
    });
    fixture.ok(&["abort", "home"]);
    fixture.wait_for(&mut runner, "ready-to-cutover");
    assert!(fixture.runs("recovery"), "it ran all the time");
    fixture.wait_for_files("recovery", 2);
    assert!(fixture.log().contains("may ignore the power button"));

    // Its operator ends it, and starts it with ears.
    fixture.kill_vm("recovery");
    let fixture = fixture.with_hearing_guest();
    fixture.boot("recovery");
    fixture.wait_for_boot("recovery", 2);
    fixture.wait_for_files("recovery", 1);
    fixture.ok(&["complete", "home"]);
    fixture.wait_for(&mut runner, "commit-pending");
    all_files_are_there(&fixture, "recovery", "primary", 1);
    fixture.ok(&["undo", "home", "--accept-loss"]);
    runner.end();
    fixture.wait_for_boot("recovery", 3);
    fixture.wait_for_files("recovery", 2);
    assert!(fixture.runs("recovery") && !fixture.may_boot("primary"));
    assert_eq!(
        fixture.ok(&["status", "home"])["vms"][0]["phase"],
        "rolled-back"
    );
    finish(&fixture, "recovery");
}

#[test]
fn a_pass_that_is_cancelled_leaves_an_unbootable_target_that_the_next_job_takes_over() {
    let Some(fixture) = VmFixture::new("disk.raw") else {
        return;
    };
    let fixture = fixture.with_mode("full-first");
    fixture.boot("recovery");
    fixture.wait_for_files("recovery", 3);
    let mut runner = fixture.start_slowly("recovery");
    fixture.wait(&mut runner, "a copy", |vm| copies(vm, "initial-sync"));
    fixture.ok(&["cancel", "home"]);
    runner.end();
    let status = fixture.ok(&["status", "home"]);
    assert_eq!(status["vms"][0]["phase"], "cancelled");
    assert!(fixture.runs("recovery"));
    assert!(!fixture.disk("primary").exists() && !fixture.may_boot("primary"));
    assert!(!fixture.site("recovery").join("scratch-0.qcow2").exists());
    fixture.wait_for_files("recovery", 2);

    let mut runner = fixture.start("recovery");
    fixture.wait_for(&mut runner, "ready-to-cutover");
    home(&fixture, &mut runner, "recovery", "primary");
    fixture.ok(&["commit", "home"]);
    runner.end();
    finish(&fixture, "primary");
}

#[test]
fn a_final_copy_that_is_aborted_gives_the_source_back_with_all_it_wrote() {
    let Some(fixture) = VmFixture::new("disk.raw") else {
        return;
    };
    let fixture = fixture.with_mode("full");
    fixture.boot("recovery");
    fixture.wait_for_files("recovery", 3);
    let mut runner = fixture.start_slowly("recovery");
    fixture.wait(&mut runner, "a copy", |vm| copies(vm, "final-sync"));
    assert!(!fixture.runs("recovery") && !fixture.may_boot("recovery"));
    let acknowledged = fixture.acknowledged("recovery");
    fixture.ok(&["abort", "home"]);
    fixture.wait_for(&mut runner, "ready-to-cutover");
    let found = fixture.wait_for_boot("recovery", 2);
    assert_eq!(found, acknowledged);
    fixture.wait_for_files("recovery", 2);
    home(&fixture, &mut runner, "recovery", "primary");
    fixture.ok(&["commit", "home"]);
    runner.end();
    finish(&fixture, "primary");
}

#[test]
fn a_request_is_heeded_before_the_first_pass_while_verifying_and_while_the_target_does_not_start() {
    let Some(fixture) = VmFixture::new("disk.raw") else {
        return;
    };
    let fixture = fixture.with_mode("full");
    fixture.boot("recovery");
    fixture.wait_for_files("recovery", 3);
    // Somebody runs the target: nothing is begun.
    fixture.boot("primary");
    let mut runner = fixture.start("recovery");
    fixture.wait(&mut runner, "a look at the target", |vm| {
        vm["phase"] == "planned" && !vm["problem"].is_null()
    });
    fixture.ok(&["cancel", "home"]);
    assert!(!runner.wait().success(), "it could not begin");
    assert!(fixture.runs("recovery") && fixture.runs("primary"));
    fixture.kill_vm("primary");

    let mut runner = fixture.start_slowly("recovery");
    fixture.wait(&mut runner, "the copy being read back", |vm| {
        vm["phase"] == "verifying" && !vm["doing"].is_null()
    });
    let acknowledged = fixture.acknowledged("recovery");
    fixture.ok(&["abort", "home"]);
    fixture.wait_for(&mut runner, "ready-to-cutover");
    assert_eq!(fixture.wait_for_boot("recovery", 2), acknowledged);
    assert!(!fixture.may_boot("primary"));
    fixture.wait_for_files("recovery", 2);

    // The decision is made, and its host cannot start it.
    let conf = fixture.site("primary").join("vm.conf");
    std::fs::rename(&conf, conf.with_extension("away")).unwrap();
    fixture.ok(&["complete", "home"]);
    fixture.wait(&mut runner, "a start that fails", |vm| {
        vm["phase"] == "activating" && !vm["problem"].is_null()
    });
    assert!(!fixture.runs("recovery") && !fixture.may_boot("recovery"));
    let acknowledged = fixture.acknowledged("recovery");
    fixture.ok(&["undo", "home", "--accept-loss"]);
    std::fs::rename(conf.with_extension("away"), &conf).unwrap();
    runner.end();
    assert_eq!(fixture.wait_for_boot("recovery", 3), acknowledged);
    assert!(!fixture.may_boot("primary"));
    finish(&fixture, "recovery");
}

#[test]
fn every_mode_brings_a_guest_home_in_every_format() {
    if !is_long() {
        return eprintln!("LEFT OUT: every mode in every format; DISKDELTA_LONG=1 asks for it");
    }
    for disk in ["disk.raw", "disk.vhd", "disk.vhdx"] {
        for mode in ["delta", "full", "full-first"] {
            let Some(fixture) = VmFixture::new(disk) else {
                return;
            };
            let fixture = fixture.with_mode(mode);
            fixture.boot("recovery");
            fixture.wait_for_files("recovery", 3);
            let mut runner = fixture.start("recovery");
            if mode == "full" {
                arrived(&fixture, &mut runner, "recovery", "primary", 1);
            } else {
                fixture.wait_for(&mut runner, "ready-to-cutover");
                fixture.wait_for_files("recovery", 3);
                home(&fixture, &mut runner, "recovery", "primary");
            }
            fixture.ok(&["commit", "home"]);
            runner.end();
            finish(&fixture, "primary");
        }
    }
}

/// Asks for the cutover, and sees to it that the guest boots at the target with all its files.
fn home(fixture: &VmFixture, runner: &mut Runner, from: &str, to: &str) {
    let boots = fixture.boots(to) + 1;
    fixture.ok(&["complete", "home"]);
    arrived(fixture, runner, from, to, boots);
}

/// Waits until the guest runs at the target, and is proven.
fn arrived(fixture: &VmFixture, runner: &mut Runner, from: &str, to: &str, boots: usize) {
    let status = fixture.wait_for(runner, "commit-pending");
    assert_eq!(status["proven"], true);
    all_files_are_there(fixture, from, to, boots);
    assert!(fixture.runs(to) && !fixture.runs(from));
}

fn all_files_are_there(fixture: &VmFixture, from: &str, to: &str, boots: usize) {
    let acknowledged = fixture.acknowledged(from);
    let found = fixture.wait_for_boot(to, boots);
    assert!(found >= acknowledged, "{found} of {acknowledged} files");
}

/// Shuts the guest down; its disk is in order.
fn finish(fixture: &VmFixture, site: &str) {
    fixture.wait_for_files(site, 1);
    fixture.shut_down(site);
    fixture.check_files(site);
}

/// Whether it copies now, in this phase.
fn copies(vm: &Value, phase: &str) -> bool {
    let doing = vm["doing"].as_str().unwrap_or_default();
    vm["phase"] == phase && doing.contains("copy")
}

fn moved(vm: &Value) -> u64 {
    vm["last_pass"]["changed_bytes"].as_u64().unwrap_or(0)
}

fn is_long() -> bool {
    std::env::var_os("DISKDELTA_LONG").is_some_and(|it| it == "1")
}
