//! Only what changed since the snapshot that the target holds.

use diskdelta::peer::ConnectOptions;
use diskdelta::{Disk, Location, Verified, WebAddress, Work};

use crate::azure::{MIB, NEW, OLD, address, disk, run, serving, snapshots, vhd};
use crate::blob::{Blob, Service, refused};
use crate::fixture::{Fixture, Run};
use crate::server::{Request, Server};

const FIRST: &str = "sync @old.url disk.vhdx --target-manifest disk.manifest";
const SINCE: &str = "sync @new.url disk.vhdx --since @old.url --target-manifest disk.manifest";

/// A target that was made from the older snapshot, and is recorded to be.
fn made_from_old(service: &Service) -> Fixture {
    let server = serving(service, |_, answer| answer);
    let fixture = Fixture::new();
    let made = run(&fixture, &server, service, FIRST);
    assert_eq!(made.status, 0, "{made:?}");
    fixture
}

/// Whether the target holds `bytes`.
fn holds(fixture: &Fixture, bytes: &[u8]) {
    std::fs::write(fixture.path("wanted.raw"), bytes).unwrap();
    fixture.done("diff disk.vhdx wanted.raw --read-holes");
}

/// Syncs the newer snapshot, by comparing, for a reason with `part` in it.
fn compares(fixture: &Fixture, server: &Server, service: &Service, new: &[u8], part: &str) {
    let done = run(fixture, server, service, SINCE);
    assert_eq!(done.status, 0, "{done:?}");
    assert!(done.stdout.contains("were compared: "), "{done:?}");
    assert!(done.stdout.contains(part), "{part}: {done:?}");
    holds(fixture, new);
}

fn unchanged(done: &Run) {
    assert_eq!(done.status, 0, "{done:?}");
    assert!(done.stdout.contains("nothing written"), "{done:?}");
}

#[test]
fn only_what_changed_is_fetched_and_the_next_run_fetches_nothing() {
    let (_, new, service) = snapshots();
    let fixture = made_from_old(&service);
    let server = serving(&service, |_, answer| answer);
    let done = run(&fixture, &server, &service, SINCE);
    assert_eq!(done.status, 0, "{done:?}");
    for part in [
        "only what changed since https://md-x1",
        "4 ranges",
        "verified tracked",
    ] {
        let part = part.replace("https", "http");
        assert!(done.stdout.contains(&part), "{part}: {done:?}");
    }
    holds(&fixture, &new);
    // Four blocks of 64 KiB, what opening an image reads, and lists.
    assert!(server.sent_bytes() < 700_000, "{}", server.sent_bytes());
    server.reset();
    let again = run(&fixture, &server, &service, SINCE);
    unchanged(&again);
    assert!(again.stdout.contains("this very snapshot"), "{again:?}");
    assert!(server.sent_bytes() < 300_000, "{}", server.sent_bytes());
}

#[test]
fn what_is_not_recorded_is_compared_and_recorded() {
    let (_, new, service) = snapshots();
    let server = serving(&service, |_, answer| answer);
    let fixture = Fixture::new();
    let made = run(&fixture, &server, &service, "sync @old.url disk.vhdx");
    assert_eq!(made.status, 0, "{made:?}");
    compares(&fixture, &server, &service, &new, "no manifest was kept");
    let again = run(&fixture, &server, &service, SINCE);
    unchanged(&again);
    assert!(again.stdout.contains("this very snapshot"), "{again:?}");
    // A manifest that knows of no snapshot.
    std::fs::write(fixture.path("old.raw"), disk(1)).unwrap();
    std::fs::remove_file(fixture.path("disk.manifest")).unwrap();
    fixture.done("sync old.raw disk.vhdx --target-manifest disk.manifest");
    compares(&fixture, &server, &service, &new, "no snapshot is recorded");
}

#[test]
fn a_snapshot_that_the_target_does_not_hold_is_found_out() {
    let (_, new, service) = snapshots();
    // The target holds the snapshot of another disk.
    let other = Service::new([
        (OLD, Blob::new(vhd(&disk(9)), 1)),
        (NEW, Blob::new(vhd(&disk(10)), 3)),
    ]);
    let server = serving(&other, |_, answer| answer);
    let fixture = Fixture::new();
    let words = "sync @new.url disk.vhdx --target-manifest disk.manifest";
    assert_eq!(run(&fixture, &server, &other, words).status, 0);
    let server = serving(&service, |_, answer| answer);
    compares(
        &fixture,
        &server,
        &service,
        &new,
        "made from another snapshot",
    );
    // It holds the right one, and another program wrote to it since.
    let fixture = made_from_old(&service);
    let mut bytes = fixture.bytes("disk.vhdx");
    let at = bytes.len() - 4096;
    bytes[at] ^= 1;
    std::fs::write(fixture.path("disk.vhdx"), bytes).unwrap();
    compares(
        &fixture,
        &server,
        &service,
        &new,
        "changed after its manifest",
    );
    // The older one is refused, or is none.
    for (status, part) in [(403, "403"), (404, "404")] {
        let fixture = made_from_old(&service);
        let server = serving(&service, move |request, answer| {
            match request.path == OLD && request.method == "GET" {
                true => refused(status, "Gone"),
                false => answer,
            }
        });
        compares(&fixture, &server, &service, &new, part);
    }
}

#[test]
fn a_list_that_cannot_be_had_or_believed_never_leaves_a_change_out() {
    let (_, new, service) = snapshots();
    let is_diff = |request: &Request| request.headers.contains_key("x-ms-previous-snapshot-url");
    let fixture = made_from_old(&service);
    let server = serving(&service, move |request, answer| match is_diff(request) {
        true => refused(409, "PreviousSnapshotOperationNotSupported"),
        false => answer,
    });
    compares(&fixture, &server, &service, &new, "409");
    // As Azurite does: the whole list, without what was cleared.
    let fixture = made_from_old(&service);
    let ignoring = {
        let service = service.clone();
        Server::start(move |request| {
            let mut request = request.clone();
            request.headers.remove("x-ms-previous-snapshot-url");
            service.answer(&request)
        })
    };
    let done = run(&fixture, &ignoring, &service, SINCE);
    assert_eq!(done.status, 0, "{done:?}");
    holds(&fixture, &new);
    // A disk that was made larger.
    let larger = [new.clone(), vec![7; MIB]].concat();
    let grown = Service::new([
        (OLD, service.blobs[OLD].clone()),
        (NEW, Blob::new(vhd(&larger), 2)),
    ]);
    let fixture = made_from_old(&service);
    let server = serving(&grown, |_, answer| answer);
    compares(&fixture, &server, &grown, &larger, "another length");
}

#[test]
fn an_address_that_expires_in_mid_copy_is_replaced_and_the_run_goes_on() {
    let (_, new, service) = snapshots();
    let fixture = made_from_old(&service);
    let before = fixture.bytes("disk.vhdx");
    let reads = std::sync::atomic::AtomicUsize::new(0);
    let server = serving(&service, move |request, answer| {
        let is_read = request.path == NEW && answer.body.len() > 10_000;
        let count = &reads;
        match is_read && count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) > 0 {
            true => refused(403, "AuthenticationFailed"),
            false => answer,
        }
    });
    let failed = run(&fixture, &server, &service, SINCE);
    failed.fails(2, "make a new one and run the same command again");
    assert!(fixture.bytes("disk.vhdx") == before);
    let mut renewed = service.clone();
    for path in [OLD, NEW] {
        let blob = renewed.blobs.get_mut(path).unwrap();
        blob.query = blob.query.replace("S1G", "S1Gnew");
    }
    let server = serving(&renewed, |_, answer| answer);
    let done = run(&fixture, &server, &renewed, SINCE);
    assert_eq!(done.status, 0, "{done:?}");
    assert!(done.stdout.contains("only what changed since"), "{done:?}");
    holds(&fixture, &new);
}

#[test]
fn a_snapshot_is_believed_only_where_something_would_show_an_omission() {
    let (_, new, service) = snapshots();
    let server = serving(&service, |_, answer| answer);
    let fixture = Fixture::new();
    std::fs::write(fixture.path("disk.raw"), disk(1)).unwrap();
    for (words, part) in [
        (
            "sync @new.url disk.raw --since @old.url",
            "nothing would find later",
        ),
        (
            "sync @new.url disk.raw --since disk.raw --trust-target",
            "web server",
        ),
        (
            "sync @new.url disk.raw --since @old.url --trust-target --mode full",
            "full copy",
        ),
        (
            "sync @new.url ssh://h/x --since @old.url",
            "--since does not go",
        ),
    ] {
        run(&fixture, &server, &service, words).fails(2, part);
    }
    let words = "sync @new.url disk.raw --since @old.url --trust-target";
    let done = run(&fixture, &server, &service, words);
    assert_eq!(done.status, 0, "{done:?}");
    assert!(done.stdout.contains("only what changed since"), "{done:?}");
    assert!(fixture.bytes("disk.raw") == new);
    // A file has no snapshots: it is compared.
    let words = "sync disk.raw other.raw --since @old.url --target-manifest m";
    std::fs::write(fixture.path("other.raw"), disk(1)).unwrap();
    fixture.done("sync disk.raw other.raw --target-manifest m");
    let done = run(&fixture, &server, &service, words);
    assert!(
        done.stdout.contains("knows no earlier snapshots"),
        "{done:?}"
    );
}

#[test]
fn the_library_takes_an_older_snapshot_too() {
    let (_, new, service) = snapshots();
    let server = serving(&service, |_, answer| answer);
    let fixture = Fixture::new();
    let (work, connect) = (Work::new().unwrap(), ConnectOptions::default());
    let at = |path| WebAddress::parse(address(&server, &service, path)).unwrap();
    let open = |path| Disk::connect(&Location::Web(at(path)), &connect, &work).unwrap();
    let (target, manifest) = (fixture.path("disk.vhdx"), fixture.path("disk.manifest"));
    let sync = |disk: &Disk, older: Option<WebAddress>| {
        let sync = disk.sync_to(&target).target_manifest(&manifest);
        older
            .map_or(sync.clone(), |older| sync.since(older))
            .run(&work)
            .unwrap()
    };
    sync(&open(OLD), None);
    let report = sync(&open(NEW), Some(at(OLD)));
    assert_eq!(report.verified, Verified::Tracked, "{report:?}");
    assert!(report.changed_bytes < 100_000, "{report:?}");
    holds(&fixture, &new);
}
