//! Devices that are written with what is read on another host, behind a script that stands in for
//! ssh.

use std::fs;

use crate::fake_vm::{DISK_BYTES, noise, read};
use crate::fixture::{CommandFixture, Runner};
use crate::{DeviceFixture, boots_from};

/// A site whose target is a device and whose source lies on another host.
fn site(job: &str) -> Option<DeviceFixture> {
    let mut site = DeviceFixture::new("primary", 0)?;
    site.fake_vms.job += job;
    site.fake_vms.remote = vec!["recovery"];
    site.fake_vms.shell("");
    Some(site)
}

/// A source that has nothing in common with its target, over a line that takes its time.
fn slow_site(mode: &str) -> Option<DeviceFixture> {
    let mut site = site(&format!("\nmode = \"{mode}\""))?;
    site.fake_vms.connect = "limit_rate = \"1M\"\n".to_owned();
    fs::write(site.fake_vms.source("db1"), noise(DISK_BYTES, 8)).unwrap();
    Some(site)
}

/// How much of what the marker does not cover the device holds as the source has it.
fn arrived(site: &DeviceFixture) -> u64 {
    let (device, source) = (site.disk(), read(site.fake_vms.source("db1")));
    let blocks = ((1 << 20)..DISK_BYTES - (1 << 20)).step_by(BLOCK);
    let same = |at: &usize| device[*at..*at + BLOCK] == source[*at..*at + BLOCK];
    blocks.filter(same).count() as u64 * BLOCK as u64
}

/// Starts a job and looks away in the middle of its first pass.
fn half_way(site: &DeviceFixture) -> Runner {
    let mut runner = site.fake_vms.start();
    site.fake_vms
        .wait(&mut runner, "some of it", |_| arrived(site) > 0);
    runner
}

/// What an interrupted pass has brought is not brought again.
fn brings_the_rest(site: &DeviceFixture, before: u64) {
    let rest = DISK_BYTES as u64 - before;
    let sent = site.fake_vms.sent();
    assert!(sent < rest + 100_000, "{sent} bytes of {rest} were sent");
}

/// Goes home from a first pass that is complete.
fn home(site: &DeviceFixture, runner: &mut Runner) {
    site.fake_vms.ok(&["complete", "shop"]);
    let status = site.fake_vms.wait_for(runner, 0, "commit-pending");
    assert_eq!(status["vms"][0]["proven"], true);
    assert!(site.disk() == read(site.fake_vms.source("db1")));
    assert!(site.sidecars().is_empty() && !site.is_marked());
    boots_from(&site.fake_vms, "primary", &site.disk());
}

#[test]
fn a_disk_on_another_host_comes_home_onto_a_device_as_a_delta() {
    let Some(site) = site("\nmode = \"delta\"") else {
        return;
    };
    let fake_vms = &site.fake_vms;
    let mut runner = fake_vms.start();
    let status = fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    let moved = &status["vms"][0]["last_pass"]["changed_bytes"];
    assert!(
        (300_000..400_000).contains(&moved.as_u64().unwrap()),
        "{moved}"
    );
    let sent = fake_vms.sent();
    assert!((300_000..500_000).contains(&sent), "{sent}");
    assert_eq!(site.state(), "held");
    site.is_refused();

    // Onto what is held only what changed comes over the line; under the marker, too.
    fake_vms.guest_writes("recovery", "db1", 70_000, &noise(10_000, 3));
    fake_vms.guest_writes("recovery", "db1", 2 << 20, &noise(4096, 4));
    home(&site, &mut runner);
    let sent = fake_vms.sent();
    assert!((14_000..40_000).contains(&sent), "{sent}");
}

#[test]
fn a_disk_on_another_host_comes_home_whole_onto_a_device() {
    for mode in ["full", "full-first"] {
        let Some(site) = site(&format!("\nmode = \"{mode}\"")) else {
            return;
        };
        let fake_vms = &site.fake_vms;
        let mut runner = fake_vms.start();
        if mode == "full-first" {
            fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
            assert_eq!(site.state(), "held", "{mode}");
            site.is_refused();
            fake_vms.guest_writes("recovery", "db1", 0, &noise(9_000, 7));
            home(&site, &mut runner);
            continue;
        }
        // Nothing is copied while the source runs, so nobody has to ask for the cutover.
        let status = fake_vms.wait_for(&mut runner, 0, "commit-pending");
        assert_eq!(status["vms"][0]["proven"], true);
        assert!(site.disk() == read(fake_vms.source("db1")) && !site.is_marked());
    }
}

#[test]
fn a_device_may_be_longer_than_the_disk_on_another_host() {
    let Some(mut site) = DeviceFixture::new("primary", 3 << 20) else {
        return;
    };
    site.fake_vms.remote = vec!["recovery"];
    site.fake_vms.shell("");
    let tail = || read(site.device.path())[DISK_BYTES..].to_vec();
    let before = tail();
    let mut runner = site.fake_vms.start();
    site.fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    let end = DISK_BYTES as u64;
    site.fake_vms
        .guest_writes("recovery", "db1", end - 5_000, &noise(5_000, 3));
    site.fake_vms.ok(&["complete", "shop"]);
    let status = site.fake_vms.wait_for(&mut runner, 0, "commit-pending");
    assert_eq!(status["vms"][0]["proven"], true);
    assert!(site.disk() == read(site.fake_vms.source("db1")));
    assert!(tail() == before, "what lies beyond the disk is nobody's");
}

#[test]
fn an_executor_killed_while_it_pulls_leaves_the_device_held_and_another_brings_the_rest() {
    for mode in ["delta", "full-first"] {
        let Some(site) = slow_site(mode) else {
            return;
        };
        let mut runner = half_way(&site);
        runner.kill();
        assert_eq!(site.state(), "rerun", "{mode}");
        site.is_refused();
        let before = arrived(&site);
        assert!(before < 2 << 20, "it was in the middle");
        site.fake_vms.sent();

        let mut runner = site.fake_vms.spawn(&["resume", "shop"]);
        site.fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
        assert_eq!(site.state(), "held", "{mode}");
        if mode == "delta" {
            brings_the_rest(&site, before);
        }
        site.fake_vms
            .guest_writes("recovery", "db1", 0, &noise(9_000, 7));
        home(&site, &mut runner);
    }
}

#[test]
fn a_line_that_is_cut_leaves_the_device_held_and_the_pass_goes_on_by_itself() {
    let Some(site) = slow_site("delta") else {
        return;
    };
    let fake_vms = &site.fake_vms;
    fake_vms.cuts_once(&fake_vms.path("sent"), 3 << 19);
    let mut runner = fake_vms.start();
    fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    let sent = fake_vms.sent();
    assert!(sent < DISK_BYTES as u64 * 3 / 2, "{sent} bytes were sent");
    fake_vms.was_cut();
    assert_eq!(site.state(), "held");
    home(&site, &mut runner);
}

#[test]
fn a_job_cancelled_while_it_pulls_leaves_the_device_held_and_the_next_takes_it_over() {
    let Some(site) = slow_site("delta") else {
        return;
    };
    let fake_vms = &site.fake_vms;
    let shown = site.is_cancelled(half_way(&site));
    assert!(shown["vms"][0]["disks"][0]["delta_bytes"].is_null());
    let before = arrived(&site);
    fake_vms.sent();
    let mut runner = fake_vms.start();
    fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    brings_the_rest(&site, before);
    home(&site, &mut runner);
}

/// What a line compares at least.
const BLOCK: usize = 64 << 10;
