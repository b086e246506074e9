//! What a plan says that a job will move, held against what it moves.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use serde_json::Value;

use crate::desk::Desk;
use crate::rig::{DISK_BYTES, Rig, noise};

/// Many more blocks than are sampled.
const LEN: usize = 64 << 20;
/// How far a forecast may be from what is moved, where some percent of the disk differ.
const FACTOR: f64 = 1.5;

/// A rig whose target holds `old`, and whose source what `change` has made of it.
fn rig(mode: &str, change: &dyn Fn(&mut [u8])) -> Rig {
    let rig = Rig::new(&["db1"]).with_job(&format!("mode = \"{mode}\""));
    let mut disk = noise(LEN, 1);
    fs::write(rig.target("db1"), &disk).unwrap();
    change(&mut disk);
    fs::write(rig.source("db1"), disk).unwrap();
    rig
}

fn plan(rig: &Rig) -> PathBuf {
    let plan = rig.plan();
    let text = fs::read_to_string(&plan).unwrap();
    let (from, to) = (format!("bytes = {DISK_BYTES}"), format!("bytes = {LEN}"));
    fs::write(&plan, text.replace(&from, &to)).unwrap();
    plan
}

/// What is said of a mode.
fn foretold(rig: &Rig, mode: &str) -> u64 {
    let shown = rig.ok(&["plan", plan(rig).to_str().unwrap()]);
    let modes = shown["vms"][0]["modes"].as_array().unwrap().iter();
    let told: Vec<&Value> = modes.filter(|it| it["mode"] == mode).collect();
    told[0]["moved_bytes"].as_u64().unwrap()
}

/// What the first copy moves.
fn moved(rig: &Rig, mode: &str) -> u64 {
    let plan = plan(rig);
    let mut runner = rig.spawn(&["start", plan.to_str().unwrap(), "--yes"]);
    let phase = match mode {
        "full" => "commit-pending",
        _ => "ready-to-cutover",
    };
    let status = rig.wait_for(&mut runner, 0, phase);
    let moved = &status["vms"][0]["last_pass"]["changed_bytes"];
    moved.as_u64().unwrap()
}

fn holds(what: &str, rig: &Rig, mode: &str) {
    let (told, moved) = (foretold(rig, mode), moved(rig, mode));
    let ratio = told as f64 / moved as f64;
    println!("{what}, {mode}: {told} bytes foretold, {moved} moved, {ratio:.2}");
    assert!(
        (1.0 / FACTOR..FACTOR).contains(&ratio),
        "{what}, {mode}: {told} bytes foretold, {moved} moved"
    );
}

/// One page in ten, all over the disk.
fn pages(disk: &mut [u8]) {
    let dice = noise(LEN / 4096, 3);
    for (page, dice) in disk.chunks_mut(4096).zip(dice) {
        if dice < 26 {
            page[usize::from(dice)] ^= 1;
        }
    }
}

/// An eighth of the disk, in one stretch.
fn stretch(disk: &mut [u8]) {
    disk[20 << 20..28 << 20].copy_from_slice(&noise(8 << 20, 4));
}

/// Some stretches of a MiB.
fn stretches(disk: &mut [u8]) {
    for start in [1, 9, 22, 35, 41, 58] {
        disk[start << 20..(start + 1) << 20].copy_from_slice(&noise(1 << 20, 5));
    }
}

#[test]
fn a_delta_moves_about_what_its_plan_says() {
    holds("pages", &rig("delta", &pages), "delta");
    holds("one stretch", &rig("delta", &stretch), "delta");
    holds("stretches", &rig("delta", &stretches), "delta");
}

#[test]
fn a_delta_across_a_line_moves_about_what_its_plan_says() {
    for change in [pages, stretch] {
        let mut rig = rig("delta", &change);
        rig.remote = vec!["recovery"];
        rig.shell("");
        holds("remote", &rig, "delta");
    }
}

#[test]
fn a_full_copy_moves_about_what_its_plan_says_and_no_holes() {
    for mode in ["full", "full-first"] {
        let rig = rig(mode, &|_| {});
        let disk = fs::File::create(rig.source("db1")).unwrap();
        disk.set_len(LEN as u64).unwrap();
        disk.write_all_at(&noise(24 << 20, 6), 8 << 20).unwrap();
        holds("half of it holes", &rig, mode);
    }
}
