//! An NBD export as the source of a sync.

use std::fs;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use crate::fixture::{Fixture, left_out, until};

/// An NBD server that exports a raw disk of a fixture, read only.
struct Server(Child);

impl Server {
    /// `None` where there is no such program.
    fn start(fixture: &Fixture, disk: &str) -> Option<Server> {
        let socket = fixture.path("nbd.sock");
        let server = Command::new("qemu-nbd")
            .args(["-r", "-t", "-f", "raw", "-x", "disk", "-k"])
            .arg(&socket)
            .arg(fixture.path(disk))
            .stdout(Stdio::null())
            .spawn();
        let Ok(server) = server else {
            left_out("qemu-nbd is not here");
            return None;
        };
        let server = Server(server);
        until("the server", || UnixStream::connect(&socket).is_ok());
        Some(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn address(fixture: &Fixture) -> String {
    let socket = fixture.path("nbd.sock");
    format!("nbd+unix:///disk?socket={}", socket.display())
}

#[test]
fn an_export_is_the_source_of_a_sync_onto_files_of_all_kinds() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 700, 1);
    let Some(_server) = Server::start(&fixture, "new.raw") else {
        return;
    };
    let from = address(&fixture);
    fixture.disk("old.raw", 700, 2);
    for (target, words) in [
        ("made.vhdx", ""),
        ("made.vhd", ""),
        ("old.raw", "--safety in-place --verify all"),
        ("kept.raw", "--target-manifest kept.manifest"),
    ] {
        if target == "kept.raw" {
            fixture.disk(target, 700, 3);
        }
        let (status, report) = fixture.json(&format!("sync {from} {target} {words}"));
        assert_eq!(
            (status, &report["outcome"]),
            (0, &"synced".into()),
            "{target}"
        );
        fixture.done(&format!("diff new.raw {target}"));
        let (_, again) = fixture.json(&format!("sync {from} {target} {words}"));
        assert_ne!(again["outcome"], "synced", "{target}");
    }
}

#[test]
fn an_export_is_read_by_every_verb_that_reads_an_image() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 300, 1);
    fixture.disk("old.raw", 300, 2);
    let Some(_server) = Server::start(&fixture, "new.raw") else {
        return;
    };
    let export = address(&fixture);
    let (_, info) = fixture.json(&format!("info {export}"));
    assert_eq!(info["disk_bytes"], 300 << 12, "{info}");
    fixture.done(&format!("diff {export} new.raw"));
    fixture.done(&format!("manifest {export} -o new.manifest"));
    fixture.done("verify new.raw new.manifest");
    fixture.done(&format!("verify {export} new.manifest"));
    fixture.done(&format!("diff new.manifest {export}"));
    fixture.done(&format!("delta create old.raw {export} -o up.delta"));
    fixture.done(&format!("delta create {export} old.raw -o down.delta"));
    fixture.done("delta apply up.delta old.raw");
    fixture.done("diff old.raw new.raw");
}

#[test]
fn an_export_is_only_read_and_has_no_format() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 20, 1);
    let Some(_server) = Server::start(&fixture, "new.raw") else {
        return;
    };
    let export = address(&fixture);
    fixture
        .run(&format!("sync new.raw {export}"))
        .fails(2, "only read");
    fixture
        .run(&format!("sync {export} made.raw --source-format vhdx"))
        .fails(2, "no container");
    fixture
        .run(&format!("sync {export} made.raw --manifest-cache cache"))
        .fails(2, "NBD");
    let nowhere = export.replace("/disk?", "/other?");
    fixture
        .run(&format!("sync {nowhere} made.raw"))
        .fails(2, "nbd.sock");
    assert_eq!(fixture.names(), ["nbd.sock", "new.raw"]);
}

#[test]
fn an_export_that_an_unfinished_sync_left_incomplete_is_no_source() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 100, 1);
    fixture.disk("held.raw", 100, 2);
    fixture.done("sync new.raw held.raw --safety in-place --hold");
    let Some(_server) = Server::start(&fixture, "held.raw") else {
        return;
    };
    let export = address(&fixture);
    fixture
        .run(&format!("sync {export} made.vhdx"))
        .fails(3, "held");
    assert!(fs::metadata(fixture.path("made.vhdx")).is_err());
    fixture.done(&format!("sync {export} made.vhdx --marker-is-data"));
}
