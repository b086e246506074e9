//! What a plan says that a job will move, held against what it moves.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use serde_json::Value;

use crate::fake_vm::{DISK_BYTES, FakeVms, noise};
use crate::fixture::CommandFixture;

/// Many more blocks than are sampled.
const LEN: usize = 64 << 20;
/// How far a forecast may be from what is moved, where some percent of the disk differ.
const FACTOR: f64 = 1.5;

/// A fake_vms whose target holds `old`, and whose source what `change` has made of it.
fn fake_vms(mode: &str, change: &dyn Fn(&mut [u8])) -> FakeVms {
    let fake_vms = FakeVms::new(&["db1"]).with_job(&format!("mode = \"{mode}\""));
    let mut disk = noise(LEN, 1);
    fs::write(fake_vms.target("db1"), &disk).unwrap();
    change(&mut disk);
    fs::write(fake_vms.source("db1"), disk).unwrap();
    fake_vms
}

fn plan(fake_vms: &FakeVms) -> PathBuf {
    let plan = fake_vms.plan();
    let text = fs::read_to_string(&plan).unwrap();
    let (from, to) = (format!("bytes = {DISK_BYTES}"), format!("bytes = {LEN}"));
    fs::write(&plan, text.replace(&from, &to)).unwrap();
    plan
}

/// What is said of a mode.
fn foretold(fake_vms: &FakeVms, mode: &str) -> u64 {
    let shown = fake_vms.ok(&["plan", plan(fake_vms).to_str().unwrap()]);
    let modes = shown["vms"][0]["modes"].as_array().unwrap().iter();
    let told: Vec<&Value> = modes.filter(|it| it["mode"] == mode).collect();
    told[0]["moved_bytes"].as_u64().unwrap()
}

/// What the first copy moves.
fn moved(fake_vms: &FakeVms, mode: &str) -> u64 {
    let plan = plan(fake_vms);
    let mut runner = fake_vms.spawn(&["start", plan.to_str().unwrap(), "--yes"]);
    let phase = match mode {
        "full" => "commit-pending",
        _ => "ready-to-cutover",
    };
    let status = fake_vms.wait_for(&mut runner, 0, phase);
    let moved = &status["vms"][0]["last_pass"]["changed_bytes"];
    moved.as_u64().unwrap()
}

fn holds(what: &str, fake_vms: &FakeVms, mode: &str) {
    let (told, moved) = (foretold(fake_vms, mode), moved(fake_vms, mode));
    let ratio = told as f64 / moved as f64;
    println!("{what}, {mode}: {told} bytes foretold, {moved} moved, {ratio:.2}");
    assert!(
        (1.0 / FACTOR..FACTOR).contains(&ratio),
        "{what}, {mode}: {told} bytes foretold, {moved} moved"
    );
}

/// One page in ten, all over the disk.
fn pages(disk: &mut [u8]) {
    let rng = noise(LEN / 4096, 3);
    for (page, rng) in disk.chunks_mut(4096).zip(rng) {
        if rng < 26 {
            page[usize::from(rng)] ^= 1;
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
    holds("pages", &fake_vms("delta", &pages), "delta");
    holds("one stretch", &fake_vms("delta", &stretch), "delta");
    holds("stretches", &fake_vms("delta", &stretches), "delta");
}

#[test]
fn a_delta_across_a_line_moves_about_what_its_plan_says() {
    for change in [pages, stretch] {
        let mut fake_vms = fake_vms("delta", &change);
        fake_vms.remote = vec!["recovery"];
        fake_vms.shell("");
        holds("remote", &fake_vms, "delta");
    }
}

#[test]
fn a_full_copy_moves_about_what_its_plan_says_and_no_holes() {
    for mode in ["full", "full-first"] {
        let fake_vms = fake_vms(mode, &|_| {});
        let disk = fs::File::create(fake_vms.source("db1")).unwrap();
        disk.set_len(LEN as u64).unwrap();
        disk.write_all_at(&noise(24 << 20, 6), 8 << 20).unwrap();
        holds("half of it holes", &fake_vms, mode);
    }
}
