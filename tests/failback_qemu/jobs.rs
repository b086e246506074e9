//! Whole jobs of the command, on a guest that writes files all the time and acknowledges each.

use serde_json::Value;

use super::desk::{Desk, Runner};
use super::host::has_loop_devices;
use super::lab::Lab;

#[test]
fn a_guest_comes_home_while_it_writes_is_replicated_back_and_fails_over_again() {
    let Some(lab) = Lab::new("disk.raw") else {
        return;
    };
    lab.boot("recovery");
    lab.wait_for_files("recovery", 3);
    let mut runner = lab.start("recovery");
    let ready = lab.wait_for(&mut runner, "ready-to-cutover");
    assert!(moved(&ready) > 0);
    assert!(lab.runs("recovery") && !lab.may_boot("primary"));
    lab.wait_for_files("recovery", 5);
    home(&lab, &mut runner, "recovery", "primary");
    assert!(!lab.may_boot("recovery"), "the source is fenced");
    lab.ok(&["commit", "home"]);
    runner.end();
    assert!(!lab.log().contains("tracking_lost"));

    lab.wait_for_files("primary", 2);
    let mut runner = lab.spawn(&["reverse", "home"]);
    runner.end();
    assert!(!lab.disk("recovery").exists(), "a replica cannot be booted");
    assert!(
        !lab.log().contains("tracking_lost"),
        "only what was written was copied"
    );

    // The next failover, and home again.
    for (from, to) in [("primary", "recovery"), ("recovery", "primary")] {
        lab.wait_for_files(from, 2);
        let mut runner = lab.start(from);
        lab.wait_for(&mut runner, "ready-to-cutover");
        home(&lab, &mut runner, from, to);
        lab.ok(&["commit", "home"]);
        runner.end();
        if !is_long() {
            // Once more is for those who have the time.
            return finish(&lab, to);
        }
    }
    finish(&lab, "primary");
}

#[test]
fn a_guest_comes_home_onto_a_block_device_and_boots_from_it() {
    if !has_loop_devices() {
        return;
    }
    let Some(lab) = Lab::new("disk.raw") else {
        return;
    };
    let lab = lab.with_device();
    lab.boot("recovery");
    lab.wait_for_files("recovery", 3);
    let mut runner = lab.start("recovery");
    lab.wait_for(&mut runner, "ready-to-cutover");
    assert!(lab.is_held() && !lab.may_boot("primary"));
    lab.wait_for_files("recovery", 3);
    home(&lab, &mut runner, "recovery", "primary");
    assert!(!lab.is_held());
    lab.ok(&["commit", "home"]);
    runner.end();
    assert!(!lab.log().contains("tracking_lost"));

    // Its writes are tracked there, too, and read from a snapshot of the device.
    lab.wait_for_files("primary", 2);
    let mut runner = lab.spawn(&["reverse", "home"]);
    runner.end();
    assert!(!lab.log().contains("tracking_lost"));
    if !is_long() {
        // The way there and back is for those who have the time.
        return finish(&lab, "primary");
    }
    for (from, to) in [("primary", "recovery"), ("recovery", "primary")] {
        lab.wait_for_files(from, 2);
        let mut runner = lab.start(from);
        lab.wait_for(&mut runner, "ready-to-cutover");
        home(&lab, &mut runner, from, to);
        lab.ok(&["commit", "home"]);
        runner.end();
    }
    finish(&lab, "primary");
}

#[test]
fn a_device_is_held_while_a_guest_is_given_back_and_after_it_was_undone() {
    if !has_loop_devices() {
        return;
    }
    let Some(lab) = Lab::new("disk.raw") else {
        return;
    };
    let lab = lab.with_device().with_mode("full-first");
    lab.boot("recovery");
    lab.wait_for_files("recovery", 3);
    let mut runner = lab.start_slowly("recovery");
    lab.wait(&mut runner, "a copy", |vm| copies(vm, "initial-sync"));
    lab.ok(&["cancel", "home"]);
    runner.end();
    assert!(lab.is_held() && lab.runs("recovery"));

    let mut runner = lab.start("recovery");
    lab.wait_for(&mut runner, "ready-to-cutover");
    home(&lab, &mut runner, "recovery", "primary");
    let acknowledged = lab.acknowledged("recovery");
    lab.ok(&["undo", "home", "--accept-loss"]);
    runner.end();
    assert!(lab.is_held() && !lab.may_boot("primary"));
    assert_eq!(lab.wait_for_boot("recovery", 2), acknowledged);
    finish(&lab, "recovery");
}

#[test]
fn a_job_that_cannot_fence_its_target_is_given_up_or_tried_again() {
    let Some(lab) = Lab::new("disk.raw") else {
        return;
    };
    lab.boot("recovery");
    lab.wait_for_files("recovery", 3);
    // Nothing can be written there.
    let in_the_way = lab.site("primary").join("fenced.new");
    std::fs::create_dir(&in_the_way).unwrap();
    let before = std::fs::read(lab.disk("primary")).unwrap();
    let stands = |vm: &Value| vm["phase"] == "prepared" && !vm["problem"].is_null();
    let mut runner = lab.start("recovery");
    lab.wait(&mut runner, "a fence that fails", stands);
    lab.ok(&["cancel", "home"]);
    runner.end();
    let status = lab.ok(&["status", "home"]);
    assert_eq!(status["vms"][0]["disposition"], "restored");
    assert!(lab.runs("recovery"));
    assert!(std::fs::read(lab.disk("primary")).unwrap() == before);

    let mut runner = lab.start("recovery");
    lab.wait(&mut runner, "a fence that fails", stands);
    std::fs::remove_dir(&in_the_way).unwrap();
    lab.wait_for(&mut runner, "ready-to-cutover");
    home(&lab, &mut runner, "recovery", "primary");

    // What does not run is not committed to.
    lab.kill_vm("primary");
    lab.ok(&["commit", "home"]);
    lab.wait(&mut runner, "a look at the target", |vm| {
        vm["phase"] == "commit-pending" && !vm["problem"].is_null()
    });
    assert!(!lab.site("recovery").join("retired").exists());
    lab.boot("primary");
    lab.wait_for_boot("primary", 2);
    lab.ok(&["retry", "home"]);
    runner.end();
    assert!(lab.site("recovery").join("retired").exists());
    finish(&lab, "primary");
}

#[test]
fn a_cutover_that_is_asked_for_during_a_pass_is_made_after_it() {
    let Some(lab) = Lab::new("disk.raw") else {
        return;
    };
    let lab = lab.with_mode("full-first");
    lab.boot("recovery");
    lab.wait_for_files("recovery", 3);
    let mut runner = lab.start_slowly("recovery");
    lab.wait(&mut runner, "a copy", |vm| copies(vm, "initial-sync"));
    lab.ok(&["complete", "home"]);
    assert!(lab.runs("recovery"), "it goes on until the pass ends");
    arrived(&lab, &mut runner, "recovery", "primary", 1);
    lab.ok(&["commit", "home"]);
    runner.end();
    finish(&lab, "primary");
}

#[test]
fn a_full_copy_to_a_new_vhd_boots_with_every_file() {
    let Some(lab) = Lab::new("disk.vhd") else {
        return;
    };
    let lab = lab.without_target().with_mode("full");
    lab.boot("recovery");
    lab.wait_for_files("recovery", 3);
    // Nothing is copied before the source is off, so that there is nothing to wait for.
    let mut runner = lab.start("recovery");
    arrived(&lab, &mut runner, "recovery", "primary", 1);
    lab.ok(&["commit", "home"]);
    runner.end();
    finish(&lab, "primary");
}

#[test]
fn a_delta_to_a_vhdx_survives_its_executor_at_every_phase() {
    let Some(lab) = Lab::new("disk.vhdx") else {
        return;
    };
    lab.boot("recovery");
    lab.wait_for_files("recovery", 3);
    let mut runner = lab.start("recovery");
    let on = |phase: &'static str| move |vm: &Value| vm["phase"] == phase;
    lab.wait(&mut runner, "the first pass", on("initial-sync"));
    runner.kill();
    let mut runner = lab.spawn(&["resume", "home"]);
    lab.wait_for(&mut runner, "ready-to-cutover");
    lab.wait_for_files("recovery", 2);
    lab.ok(&["complete", "home"]);
    let left = |phases: [&'static str; 2]| {
        move |vm: &Value| !phases.iter().any(|phase| vm["phase"] == *phase)
    };
    lab.wait(
        &mut runner,
        "the shutdown",
        left(["ready-to-cutover", "initial-sync"]),
    );
    runner.kill();
    let mut runner = lab.spawn(&["resume", "home"]);
    lab.wait(&mut runner, "the start", |vm| {
        vm["phase"] == "activating" || vm["phase"] == "commit-pending"
    });
    runner.kill();
    let mut runner = lab.spawn(&["resume", "home"]);
    lab.wait_for(&mut runner, "commit-pending");
    all_files_are_there(&lab, "recovery", "primary", 1);
    lab.ok(&["commit", "home"]);
    runner.end();
    finish(&lab, "primary");
}

#[test]
fn a_source_that_loses_its_bitmap_is_compared_and_that_is_on_record() {
    let Some(lab) = Lab::new("disk.raw") else {
        return;
    };
    lab.boot("recovery");
    lab.wait_for_files("recovery", 3);
    let mut runner = lab.start("recovery");
    lab.wait_for(&mut runner, "ready-to-cutover");
    lab.wait_for_files("recovery", 2);
    lab.kill_vm("recovery");
    lab.boot("recovery");
    let found = lab.wait_for_boot("recovery", 2);
    assert!(found > 0, "the disk of a guest that was killed");
    lab.wait_for_files("recovery", 2);
    home(&lab, &mut runner, "recovery", "primary");
    assert!(lab.log().contains("tracking_lost"));
    lab.ok(&["commit", "home"]);
    runner.end();
    finish(&lab, "primary");
}

#[test]
fn a_cancel_leaves_the_source_running_and_the_target_as_it_was() {
    let Some(lab) = Lab::new("disk.raw") else {
        return;
    };
    let lab = lab.with_job("keep_undo = true");
    let before = std::fs::read(lab.disk("primary")).unwrap();
    lab.boot("recovery");
    lab.wait_for_files("recovery", 3);
    let mut runner = lab.start("recovery");
    lab.wait_for(&mut runner, "ready-to-cutover");
    lab.ok(&["cancel", "home", "--restore"]);
    runner.end();
    assert!(std::fs::read(lab.disk("primary")).unwrap() == before);
    assert!(lab.runs("recovery"));
    lab.wait_for_files("recovery", 2);
    assert!(!lab.site("recovery").join("scratch-0.qcow2").exists());
}

#[test]
fn a_deaf_guest_is_given_back_and_a_guest_that_came_home_can_be_undone() {
    let Some(lab) = Lab::new("disk.raw") else {
        return;
    };
    let lab = lab.with_deaf_guest();
    lab.boot("recovery");
    lab.wait_for_files("recovery", 3);
    let plan = lab.plan("recovery");
    let text = std::fs::read_to_string(&plan).unwrap();
    std::fs::write(&plan, text.replace("\"5m\"", "\"3s\"")).unwrap();
    let mut runner = lab.spawn(&["start", plan.to_str().unwrap(), "--yes"]);
    lab.wait_for(&mut runner, "ready-to-cutover");
    lab.ok(&["complete", "home"]);
    lab.wait(&mut runner, "the guest's silence", |vm| {
        vm["phase"] == "quiescing" && !vm["problem"].is_null()
    });
    lab.ok(&["abort", "home"]);
    lab.wait_for(&mut runner, "ready-to-cutover");
    assert!(lab.runs("recovery"), "it ran all the time");
    lab.wait_for_files("recovery", 2);
    assert!(lab.log().contains("may ignore the power button"));

    // Its operator ends it, and starts it with ears.
    lab.kill_vm("recovery");
    let lab = lab.with_hearing_guest();
    lab.boot("recovery");
    lab.wait_for_boot("recovery", 2);
    lab.wait_for_files("recovery", 1);
    lab.ok(&["complete", "home"]);
    lab.wait_for(&mut runner, "commit-pending");
    all_files_are_there(&lab, "recovery", "primary", 1);
    lab.ok(&["undo", "home", "--accept-loss"]);
    runner.end();
    lab.wait_for_boot("recovery", 3);
    lab.wait_for_files("recovery", 2);
    assert!(lab.runs("recovery") && !lab.may_boot("primary"));
    assert_eq!(
        lab.ok(&["status", "home"])["vms"][0]["phase"],
        "rolled-back"
    );
    finish(&lab, "recovery");
}

#[test]
fn a_pass_that_is_cancelled_leaves_an_unbootable_target_that_the_next_job_takes_over() {
    let Some(lab) = Lab::new("disk.raw") else {
        return;
    };
    let lab = lab.with_mode("full-first");
    lab.boot("recovery");
    lab.wait_for_files("recovery", 3);
    let mut runner = lab.start_slowly("recovery");
    lab.wait(&mut runner, "a copy", |vm| copies(vm, "initial-sync"));
    lab.ok(&["cancel", "home"]);
    runner.end();
    let status = lab.ok(&["status", "home"]);
    assert_eq!(status["vms"][0]["phase"], "cancelled");
    assert!(lab.runs("recovery"));
    assert!(!lab.disk("primary").exists() && !lab.may_boot("primary"));
    assert!(!lab.site("recovery").join("scratch-0.qcow2").exists());
    lab.wait_for_files("recovery", 2);

    let mut runner = lab.start("recovery");
    lab.wait_for(&mut runner, "ready-to-cutover");
    home(&lab, &mut runner, "recovery", "primary");
    lab.ok(&["commit", "home"]);
    runner.end();
    finish(&lab, "primary");
}

#[test]
fn a_final_copy_that_is_aborted_gives_the_source_back_with_all_it_wrote() {
    let Some(lab) = Lab::new("disk.raw") else {
        return;
    };
    let lab = lab.with_mode("full");
    lab.boot("recovery");
    lab.wait_for_files("recovery", 3);
    let mut runner = lab.start_slowly("recovery");
    lab.wait(&mut runner, "a copy", |vm| copies(vm, "final-sync"));
    assert!(!lab.runs("recovery") && !lab.may_boot("recovery"));
    let acknowledged = lab.acknowledged("recovery");
    lab.ok(&["abort", "home"]);
    lab.wait_for(&mut runner, "ready-to-cutover");
    let found = lab.wait_for_boot("recovery", 2);
    assert_eq!(found, acknowledged);
    lab.wait_for_files("recovery", 2);
    home(&lab, &mut runner, "recovery", "primary");
    lab.ok(&["commit", "home"]);
    runner.end();
    finish(&lab, "primary");
}

#[test]
fn a_request_is_heeded_before_the_first_pass_while_verifying_and_while_the_target_does_not_start() {
    let Some(lab) = Lab::new("disk.raw") else {
        return;
    };
    let lab = lab.with_mode("full");
    lab.boot("recovery");
    lab.wait_for_files("recovery", 3);
    // Somebody runs the target: nothing is begun.
    lab.boot("primary");
    let mut runner = lab.start("recovery");
    lab.wait(&mut runner, "a look at the target", |vm| {
        vm["phase"] == "planned" && !vm["problem"].is_null()
    });
    lab.ok(&["cancel", "home"]);
    assert!(!runner.wait().success(), "it could not begin");
    assert!(lab.runs("recovery") && lab.runs("primary"));
    lab.kill_vm("primary");

    let mut runner = lab.start_slowly("recovery");
    lab.wait(&mut runner, "the copy being read back", |vm| {
        vm["phase"] == "verifying" && !vm["doing"].is_null()
    });
    let acknowledged = lab.acknowledged("recovery");
    lab.ok(&["abort", "home"]);
    lab.wait_for(&mut runner, "ready-to-cutover");
    assert_eq!(lab.wait_for_boot("recovery", 2), acknowledged);
    assert!(!lab.may_boot("primary"));
    lab.wait_for_files("recovery", 2);

    // The decision is made, and its host cannot start it.
    let conf = lab.site("primary").join("vm.conf");
    std::fs::rename(&conf, conf.with_extension("away")).unwrap();
    lab.ok(&["complete", "home"]);
    lab.wait(&mut runner, "a start that fails", |vm| {
        vm["phase"] == "activating" && !vm["problem"].is_null()
    });
    assert!(!lab.runs("recovery") && !lab.may_boot("recovery"));
    let acknowledged = lab.acknowledged("recovery");
    lab.ok(&["undo", "home", "--accept-loss"]);
    std::fs::rename(conf.with_extension("away"), &conf).unwrap();
    runner.end();
    assert_eq!(lab.wait_for_boot("recovery", 3), acknowledged);
    assert!(!lab.may_boot("primary"));
    finish(&lab, "recovery");
}

#[test]
fn every_mode_brings_a_guest_home_in_every_format() {
    if !is_long() {
        return eprintln!("LEFT OUT: every mode in every format; DISKDELTA_LONG=1 asks for it");
    }
    for disk in ["disk.raw", "disk.vhd", "disk.vhdx"] {
        for mode in ["delta", "full", "full-first"] {
            let Some(lab) = Lab::new(disk) else { return };
            let lab = lab.with_mode(mode);
            lab.boot("recovery");
            lab.wait_for_files("recovery", 3);
            let mut runner = lab.start("recovery");
            if mode == "full" {
                arrived(&lab, &mut runner, "recovery", "primary", 1);
            } else {
                lab.wait_for(&mut runner, "ready-to-cutover");
                lab.wait_for_files("recovery", 3);
                home(&lab, &mut runner, "recovery", "primary");
            }
            lab.ok(&["commit", "home"]);
            runner.end();
            finish(&lab, "primary");
        }
    }
}

/// Asks for the cutover, and sees to it that the guest boots at the target with all its files.
fn home(lab: &Lab, runner: &mut Runner, from: &str, to: &str) {
    let boots = lab.boots(to) + 1;
    lab.ok(&["complete", "home"]);
    arrived(lab, runner, from, to, boots);
}

/// Waits until the guest runs at the target, and is proven.
fn arrived(lab: &Lab, runner: &mut Runner, from: &str, to: &str, boots: usize) {
    let status = lab.wait_for(runner, "commit-pending");
    assert_eq!(status["proven"], true);
    all_files_are_there(lab, from, to, boots);
    assert!(lab.runs(to) && !lab.runs(from));
}

fn all_files_are_there(lab: &Lab, from: &str, to: &str, boots: usize) {
    let acknowledged = lab.acknowledged(from);
    let found = lab.wait_for_boot(to, boots);
    assert!(found >= acknowledged, "{found} of {acknowledged} files");
}

/// Shuts the guest down; its disk is in order.
fn finish(lab: &Lab, site: &str) {
    lab.wait_for_files(site, 1);
    lab.shut_down(site);
    lab.check_files(site);
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
