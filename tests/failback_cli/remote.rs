//! Sources on another host, behind a script that stands in for ssh, or as an export.

use std::fs;
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::certificates::{Authority, Valid};
use crate::fake_vm::{DISK_BYTES, FakeVms, noise, read};
use crate::fixture::CommandFixture;
use crate::{left_out, through, which};

/// A fake_vms whose source's disk lies on another host.
fn remote_fake_vms() -> FakeVms {
    let mut fake_vms = FakeVms::new(&["db1"]);
    fake_vms.remote = vec!["recovery"];
    fake_vms.shell("");
    fake_vms
}

pub fn moved(status: &Value) -> u64 {
    let moved = &status["vms"][0]["last_pass"]["changed_bytes"];
    moved.as_u64().unwrap()
}

#[test]
fn a_disk_on_another_host_comes_home_as_a_delta_and_goes_back_from_there() {
    let mut fake_vms = remote_fake_vms().with_job("mode = \"delta\"");
    let mut runner = fake_vms.start();
    let status = fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    assert!((300_000..400_000).contains(&moved(&status)), "{status}");
    let sent = fake_vms.sent();
    assert!((300_000..500_000).contains(&sent), "{sent}");

    fake_vms.guest_writes("recovery", "db1", 70_000, &noise(10_000, 3));
    fake_vms.ok(&["complete", "shop"]);
    let status = fake_vms.wait_for(&mut runner, 0, "commit-pending");
    assert!((10_000..20_000).contains(&moved(&status)), "{status}");
    assert_eq!(status["vms"][0]["proven"], true);
    assert_eq!(read(fake_vms.source("db1")), read(fake_vms.target("db1")));
    // The proof has read all of it there, and brought its root.
    let sent = fake_vms.sent();
    assert!(sent < 30_000, "{sent}");
    let asked = fs::read_to_string(fake_vms.path("asked")).unwrap();
    let line = "-l me recovery.example diskdelta serve --stdio --timeout=15s";
    assert!(asked.lines().all(|asked| asked == line), "{asked}");

    fake_vms.ok(&["commit", "shop"]);
    runner.end();
    assert_eq!(fake_vms.phase(0), "committed");
    assert_eq!(fake_vms.status()["allowed"], serde_json::json!(["reverse"]));
    assert!(fake_vms.source("db1").exists() && !fake_vms.is("primary", "db1", "fenced"));

    // On that host the same disks are its own, and the primary's are remote.
    fake_vms.remote = vec!["primary"];
    fs::remove_file(fake_vms.site("recovery", "db1").join("gone")).unwrap();
    fake_vms.guest_writes("primary", "db1", 3 << 20, &noise(5_000, 5));
    let plan = fake_vms.plan_from("primary");
    let mut runner = fake_vms.spawn(&["start", plan.to_str().unwrap(), "--yes"]);
    let status = fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    assert!((5_000..13_000).contains(&moved(&status)), "{status}");
    fake_vms.ok(&["complete", "shop"]);
    fake_vms.wait_for(&mut runner, 0, "commit-pending");
    assert_eq!(read(fake_vms.source("db1")), read(fake_vms.target("db1")));
}

#[test]
fn a_disk_on_another_host_comes_home_whole_in_every_mode() {
    for job in [
        "mode = \"full\"",
        "mode = \"full-first\"",
        "mode = \"full\"\nsafety = \"in-place\"",
        "mode = \"delta\"\nsafety = \"in-place\"",
    ] {
        let fake_vms = remote_fake_vms().with_job(job);
        fake_vms.comes_home_whole(job, |runner| {
            fake_vms.wait_for(runner, 0, "ready-to-cutover");
        });
    }
}

#[test]
fn a_disk_of_another_format_is_made_here_of_one_on_another_host() {
    let mut fake_vms = remote_fake_vms().with_job("mode = \"full-first\"");
    fake_vms.makes_a_vhdx();
    let mut runner = fake_vms.start();
    fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    fake_vms.guest_writes("recovery", "db1", 0, &noise(4096, 9));
    fake_vms.ok(&["complete", "shop"]);
    let status = fake_vms.wait_for(&mut runner, 0, "commit-pending");
    assert_eq!(status["vms"][0]["proven"], true);
    fake_vms.holds_the_same();
}

#[test]
fn a_line_that_is_cut_is_taken_up_where_it_was() {
    let mut fake_vms = remote_fake_vms().with_job("mode = \"delta\"");
    fake_vms.connect = "limit_rate = \"4M\"\n".to_owned();
    fs::write(fake_vms.source("db1"), noise(DISK_BYTES, 8)).unwrap();
    fake_vms.cuts_once(&redo_log(&fake_vms), 2 << 20);
    let mut runner = fake_vms.start();
    fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    let sent = fake_vms.sent();
    assert!(
        sent < DISK_BYTES as u64 + (3 << 19),
        "{sent} bytes were sent"
    );
    fake_vms.was_cut();
    fake_vms.ok(&["complete", "shop"]);
    fake_vms.wait_for(&mut runner, 0, "commit-pending");
    assert_eq!(read(fake_vms.source("db1")), read(fake_vms.target("db1")));
}

#[test]
fn an_executor_that_is_killed_while_it_pulls_is_taken_over() {
    let mut fake_vms = remote_fake_vms().with_job("mode = \"delta\"");
    fake_vms.connect = "limit_rate = \"4M\"\n".to_owned();
    fs::write(fake_vms.source("db1"), noise(DISK_BYTES, 8)).unwrap();
    let redo_log = redo_log(&fake_vms);
    let mut runner = fake_vms.start();
    fake_vms.wait(&mut runner, "half of it", |_| {
        fs::metadata(&redo_log).is_ok_and(|it| it.len() > 2 << 20)
    });
    runner.kill();
    fake_vms.sent();
    let mut runner = fake_vms.spawn(&["resume", "shop"]);
    fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    let sent = fake_vms.sent();
    assert!(sent < 7 << 19, "{sent} bytes were sent again");
    fake_vms.ok(&["complete", "shop"]);
    let status = fake_vms.wait_for(&mut runner, 0, "commit-pending");
    assert_eq!(status["vms"][0]["proven"], true);
    assert_eq!(read(fake_vms.source("db1")), read(fake_vms.target("db1")));
}

#[test]
fn the_proof_finds_one_wrong_byte_on_the_other_host() {
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
    let mut disk = fs::OpenOptions::new()
        .write(true)
        .open(fake_vms.source("db1"))
        .unwrap();
    disk.seek(SeekFrom::Start(3_333_333)).unwrap();
    disk.write_all(b"x").unwrap();
    drop(disk);
    fs::remove_file(&slow).unwrap();
    let status = fake_vms.wait(&mut runner, "the proof", |status| {
        let vm = &status["vms"][0];
        vm["phase"] == "commit-pending" && !vm["problem"].is_null()
    });
    let vm = &status["vms"][0];
    assert_eq!(
        (&vm["phase"], &vm["proven"]),
        (&"commit-pending".into(), &false.into())
    );
    assert!(vm["problem"].to_string().contains("proof"), "{status:#}");
    assert!(fake_vms.refused(&["commit", "shop"]).contains("not proven"));
    assert!(fake_vms.source("db1").exists() && !fake_vms.is("recovery", "db1", "gone"));
}

#[test]
fn what_the_target_wrote_is_taken_back_from_the_other_host() {
    let fake_vms = remote_fake_vms().with_job("keep_undo = true");
    let before = read(fake_vms.target("db1"));
    let mut runner = fake_vms.start();
    fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    fake_vms.ok(&["complete", "shop"]);
    fake_vms.wait_for(&mut runner, 0, "commit-pending");
    fake_vms.guest_writes("primary", "db1", (1 << 20) + 4_000, &noise(70_000, 7));
    fake_vms.ok(&["undo", "shop", "--accept-loss", "--restore"]);
    runner.end();
    assert_eq!(fake_vms.phase(0), "rolled-back");
    assert!(read(fake_vms.target("db1")) == before, "bit for bit");
    assert!(fake_vms.is("recovery", "db1", "running"));
}

#[test]
fn what_keeps_a_remote_disk_from_being_read_is_said_before_anything_is_touched() {
    let failing = |fake_vms: &FakeVms, lost: &dyn Fn()| {
        let plan = fake_vms.plan();
        lost();
        let output = fake_vms.run(&["check", plan.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(2));
        let checked: Value = serde_json::from_slice(&output.stdout).unwrap();
        let failed = checked["checks"].as_array().unwrap().iter();
        let failed: Vec<_> = failed
            .filter(|check| check["holds"] == false)
            .map(|it| format!("{}: {}", it["check"].as_str().unwrap(), it["found"]))
            .collect();
        assert_eq!(failed.len(), 1, "{failed:?}");
        assert!(fake_vms.target("db1").exists() && !fake_vms.is("primary", "db1", "fenced"));
        failed[0].clone()
    };
    let fake_vms = remote_fake_vms();
    for (before, said) in [
        (
            "echo '@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @' >&2\n\
             echo 'Host key verification failed.' >&2\nexit 255",
            "Host key verification failed.",
        ),
        (
            "echo 'sh: 1: diskdelta: not found' >&2\nexit 127",
            "diskdelta: not found",
        ),
        ("echo 'Welcome to this host'", "Welcome to"),
    ] {
        fake_vms.shell(before);
        let failed = failing(&fake_vms, &|| {});
        assert!(
            failed.starts_with("source readable of disk db1-system"),
            "{failed}"
        );
        assert!(
            failed.contains(said) && failed.contains("ssh://me@recovery.example/"),
            "{failed}"
        );
    }
    fake_vms.shell("");
    let away = fake_vms.path("away");
    let failed = failing(&fake_vms, &|| {
        fs::rename(fake_vms.source("db1"), &away).unwrap()
    });
    assert!(
        failed.starts_with("source readable") && failed.contains("disk.raw"),
        "{failed}"
    );
    fs::rename(&away, fake_vms.source("db1")).unwrap();
    let file = fs::OpenOptions::new()
        .write(true)
        .open(fake_vms.source("db1"));
    file.unwrap().set_len(1 << 20).unwrap();
    let plan = fake_vms.plan();
    let output = fake_vms.run(&["check", plan.to_str().unwrap()]);
    let checked = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        checked.contains("1048576 bytes instead of 4194304"),
        "{checked}"
    );
    assert!(
        fake_vms
            .refused(&["start", plan.to_str().unwrap(), "--yes"])
            .contains("instead of")
    );
}

#[test]
fn a_host_that_says_nothing_is_given_up_in_time() {
    let fake_vms = remote_fake_vms();
    fake_vms.shell("exec sleep 60");
    let plan = fake_vms.plan();
    let text = fs::read_to_string(&plan).unwrap();
    fs::write(&plan, text.replace("timeout = \"15s\"", "timeout = \"1s\"")).unwrap();
    let output = fake_vms.run(&["check", plan.to_str().unwrap()]);
    let checked = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        checked.contains("said nothing for 1 s while its greeting was awaited"),
        "{checked}"
    );
}

#[test]
fn a_plan_is_shown_with_an_estimate_from_across_the_line() {
    let fake_vms = remote_fake_vms();
    let plan = fake_vms.plan();
    let shown = fake_vms.ok(&["plan", plan.to_str().unwrap()]);
    let disk = &shown["vms"][0]["disks"][0];
    assert_eq!(disk["full_bytes"], DISK_BYTES);
    let delta = disk["delta_bytes"].as_u64().unwrap();
    assert!((300_000..400_000).contains(&delta), "{shown:#}");
    assert!(disk["line_seconds"].as_f64().unwrap() > 0.0);
    assert_eq!(shown["vms"][0]["advice"], "delta");
    assert!(!fake_vms.is("primary", "db1", "fenced"));
}

#[test]
fn a_job_gets_no_disk_that_another_has_under_another_spelling() {
    let fake_vms = remote_fake_vms().with_job("mode = \"delta\"");
    let mut runner = fake_vms.start();
    fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    let plan = fake_vms.plan();
    let text = fs::read_to_string(&plan).unwrap();
    let text = text
        .replace("\"shop\"", "\"other\"")
        .replace("ssh://me@recovery.example", "ssh://you@Recovery.Example:22")
        .replace("primary/db1/disk.raw", "primary/db1/other.raw");
    fs::write(&plan, text).unwrap();
    let complaint = fake_vms.refused(&["start", plan.to_str().unwrap(), "--yes"]);
    assert!(
        complaint.contains("the job `shop`, which is not over, has ssh://"),
        "{complaint}"
    );
}

#[test]
fn an_export_is_read_and_proven_as_the_source_wherever_the_target_is() {
    if !which("qemu-nbd") {
        return left_out("qemu-nbd");
    }
    for remote in [vec![], vec!["primary"]] {
        let mut fake_vms = FakeVms::new(&["db1"]);
        fake_vms.remote = remote;
        fake_vms.writer("");
        export_goes_home(fake_vms);
    }
}

fn export_goes_home(mut fake_vms: FakeVms) {
    let socket = fake_vms.path("nbd.sock");
    fake_vms.export = Some(format!("nbd+unix:///db1?socket={}", socket.display()));
    fs::write(
        fake_vms.site("recovery", "db1").join("address"),
        fake_vms.export.as_ref().unwrap(),
    )
    .unwrap();
    let mut server = Command::new("qemu-nbd");
    server
        .args(["-r", "-t", "-f", "raw", "-e", "8", "-x", "db1", "-k"])
        .arg(&socket);
    server.arg(fake_vms.source("db1")).stdout(Stdio::null());
    let _server = Server(server.spawn().unwrap());
    let begin = std::time::Instant::now();
    while std::os::unix::net::UnixStream::connect(&socket).is_err() {
        assert!(begin.elapsed().as_secs() < 60, "no server");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let plan = fake_vms.plan();
    let shown = fake_vms.ok(&["plan", plan.to_str().unwrap()]);
    assert_eq!(shown["vms"][0]["disks"][0]["full_bytes"], DISK_BYTES);
    through(&fake_vms, &["complete", "commit"]);
    assert_eq!(read(fake_vms.source("db1")), read(fake_vms.target("db1")));
    let refused = fake_vms.refused(&["reverse", "shop"]);
    assert!(refused.contains("can only be read"), "{refused}");
}

#[test]
fn a_service_takes_who_has_a_certificate_and_is_asked_for_its_own() {
    let mut fake_vms = FakeVms::new(&["db1"]);
    let papers = fake_vms.path("");
    let authority = Authority::at(&papers.join("ca.pem"));
    authority.sign(&papers, "server", &["127.0.0.1"], Valid::Now);
    authority.sign(&papers, "home", &[], Valid::Now);
    let mut service = Command::new(env!("CARGO_BIN_EXE_diskdelta"));
    service
        .args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--read-only",
            "--root",
            "recovery",
        ])
        .args([
            "--cert",
            "server.pem",
            "--key",
            "server.key",
            "--client-ca",
            "ca.pem",
        ])
        .current_dir(&papers)
        .stderr(Stdio::piped());
    let mut service = Server(service.spawn().unwrap());
    let mut lines = BufReader::new(service.0.stderr.take().unwrap()).lines();
    let place = lines
        .by_ref()
        .map(Result::unwrap)
        .find_map(|line| Some(line.split_once("listening at ")?.1.to_owned()));
    std::thread::spawn(move || lines.count());
    let address = format!("diskdelta://{}/db1/disk.raw", place.unwrap());
    fs::write(fake_vms.site("recovery", "db1").join("address"), &address).unwrap();
    fake_vms.export = Some(address);
    fake_vms.recovery = format!(
        "[recovery.connect]\ntls_cert = \"{directory}home.pem\"\ntls_key = \"{directory}home.key\"\n\
         tls_ca = \"{directory}ca.pem\"\n",
        directory = papers.display()
    );
    let named = fake_vms.recovery.clone() + "tls_name = \"elsewhere\"\n";
    let right = std::mem::replace(&mut fake_vms.recovery, named);
    let output = fake_vms.run(&["check", fake_vms.plan().to_str().unwrap()]);
    let checked = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.code() == Some(2) && checked.contains("elsewhere"),
        "{checked}"
    );
    fake_vms.recovery = right;
    through(&fake_vms, &["complete", "commit"]);
    assert_eq!(read(fake_vms.source("db1")), read(fake_vms.target("db1")));
}

/// A server of exports, ended with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a pass of `shop` logs.
fn redo_log(fake_vms: &FakeVms) -> std::path::PathBuf {
    fake_vms
        .site("primary", "db1")
        .join(".disk.raw.failback-shop.partial.raw.diskdelta-log")
}
