//! Exported disks and snapshots, behind a blob service of the tests' own.

use std::process::Command;

use diskdelta::image::ImageOptions;
use diskdelta::storage::{HttpOptions, SourceOptions};
use diskdelta::sync::{ChangedSince, History, WebSource};
use diskdelta::{CancelToken, WebAddress};

use crate::blob::{self, Blob, Service, refused};
use crate::fixture::{COMMAND, Fixture, Run, noise};
use crate::server::{Request, Response, Server};

pub const OLD: &str = "/md-old/abcd";
pub const NEW: &str = "/md-new/abcd";
pub const MIB: usize = 1 << 20;

/// A disk with data, holes, and data again.
pub fn disk(seed: u64) -> Vec<u8> {
    let mut bytes = noise(8 * MIB, seed);
    bytes[2 * MIB..6 * MIB].fill(0);
    bytes
}

/// The fixed VHD, or another format, that holds `bytes`.
fn image(bytes: &[u8], create: &str) -> Vec<u8> {
    let fixture = Fixture::new();
    std::fs::write(fixture.path("disk.raw"), bytes).unwrap();
    fixture.done(&format!(
        "sync disk.raw image.{create} --create {create} --target-format {}",
        &create[..3 + usize::from(create == "vhdx")]
    ));
    fixture.bytes(&format!("image.{create}"))
}

pub fn vhd(bytes: &[u8]) -> Vec<u8> {
    image(bytes, "vhd-fixed")
}

/// Two snapshots of one disk: the later has pages written, cleared and written again.
pub fn snapshots() -> (Vec<u8>, Vec<u8>, Service) {
    let old = disk(1);
    let mut new = old.clone();
    new[4096..8192].copy_from_slice(&noise(4096, 7));
    new[MIB..MIB + 512].fill(0);
    new[3 * MIB..3 * MIB + 1536].copy_from_slice(&noise(1536, 8));
    new[7 * MIB..7 * MIB + 65_536].fill(0);
    let service = Service::new([
        (OLD, Blob::new(vhd(&old), 1)),
        (NEW, Blob::new(vhd(&new), 2)),
    ]);
    (old, new, service)
}

pub fn serving(
    service: &Service,
    change: impl Fn(&Request, Response) -> Response + Send + Sync + 'static,
) -> Server {
    let service = service.clone();
    Server::start(move |request| change(request, service.answer(request)))
}

pub fn address(server: &Server, service: &Service, path: &str) -> String {
    server.at(&format!("{path}?{}", service.blobs[path].query))
}

/// Runs the command with `server` as the proxy to a host of exported disks.
pub fn run(fixture: &Fixture, server: &Server, service: &Service, words: &str) -> Run {
    let host = "http://md-x1.z22.blob.storage.azure.net";
    let of = |path| format!("{host}{path}?{}", service.blobs[path].query);
    std::fs::write(fixture.path("new.url"), of(NEW)).unwrap();
    std::fs::write(fixture.path("old.url"), of(OLD)).unwrap();
    let output = Command::new(COMMAND)
        .current_dir(fixture.path(""))
        .args(words.split_whitespace())
        .arg("--allow-http")
        .env("ALL_PROXY", server.at(""))
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let run = Run {
        status: output.status.code().unwrap_or(-1),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    };
    assert!(!format!("{run:?}").contains("S1G"), "{run:?}");
    run
}

#[test]
fn an_exported_snapshot_is_read_with_checksums_and_without_its_holes() {
    let (_, new, service) = snapshots();
    let server = serving(&service, |_, answer| answer);
    let fixture = Fixture::new();
    let done = run(&fixture, &server, &service, "sync @new.url disk.vhdx");
    assert_eq!(done.status, 0, "{done:?}");
    std::fs::write(fixture.path("new.raw"), &new).unwrap();
    fixture.done("diff disk.vhdx new.raw");
    // A new target is read back, and held against the hashes of what was fetched.
    assert!(
        server.sent_bytes() < 4 * MIB + 300_000,
        "{}",
        server.sent_bytes()
    );
    let log = server.log();
    let reads = log
        .iter()
        .filter(|it| it.headers.contains_key("x-ms-range-get-content-crc64"));
    assert!(reads.count() > 5);
    let info = run(&fixture, &server, &service, "info @new.url --json");
    assert!(info.stdout.contains("\"vhd\""), "{info:?}");
}

#[test]
fn older_services_are_spoken_to_in_their_version() {
    let (_, new, service) = snapshots();
    let fixture = Fixture::new();
    std::fs::write(fixture.path("new.raw"), &new).unwrap();
    for (versions, header) in [
        (
            vec!["2017-11-09", "2019-07-07"],
            "x-ms-range-get-content-crc64",
        ),
        (vec!["2017-11-09"], "x-ms-range-get-content-md5"),
    ] {
        let old = Service {
            versions,
            ..service.clone()
        };
        let server = serving(&old, |_, answer| answer);
        let same = run(&fixture, &server, &old, "diff @new.url new.raw");
        assert_eq!(same.status, 0, "{same:?}");
        assert!(
            server
                .log()
                .iter()
                .any(|it| it.headers.contains_key(header))
        );
    }
    let none = Service {
        versions: vec!["2016-05-31"],
        ..service
    };
    let server = serving(&none, |_, answer| answer);
    run(&fixture, &server, &none, "info @new.url").fails(2, "none of the versions");
}

#[test]
fn bytes_without_their_checksum_are_not_believed() {
    let (_, new, service) = snapshots();
    let spoil = |every: usize| {
        move |request: &Request, mut answer: Response| {
            if request.number % every == every - 1
                && answer.body.len() > 100
                && answer.status == 206
            {
                answer.body[50] ^= 1;
            }
            answer
        }
    };
    let fixture = Fixture::new();
    std::fs::write(fixture.path("new.raw"), &new).unwrap();
    fixture.disk("target.raw", 8 * MIB / 4096, 5);
    let before = fixture.bytes("target.raw");
    let server = serving(&service, spoil(1));
    let failed = run(&fixture, &server, &service, "sync @new.url target.raw");
    failed.fails(2, "checksum");
    assert!(fixture.bytes("target.raw") == before);
    let server = serving(&service, spoil(3));
    let done = run(&fixture, &server, &service, "sync @new.url target.raw");
    assert_eq!(done.status, 0, "{done:?}");
    assert!(fixture.bytes("target.raw") == new);
    let server = serving(&service, |_, answer| answer.without("x-ms-content-crc64"));
    let failed = run(&fixture, &server, &service, "sync @new.url target.raw");
    failed.fails(2, "leaves out the checksum");
}

#[test]
fn disks_of_4096_byte_sectors_are_vhdx_and_other_blobs_are_named() {
    let bytes = disk(3);
    for (blob, words, part) in [
        (image(&bytes, "vhdx"), "diff @new.url new.raw", None),
        (
            bytes.clone(),
            "diff @new.url new.raw",
            Some("no VHD and no VHDX"),
        ),
        (
            bytes.clone(),
            "diff @new.url new.raw --source-format raw",
            None,
        ),
    ] {
        let service = Service::new([(OLD, Blob::new(vhd(&bytes), 1)), (NEW, Blob::new(blob, 2))]);
        let server = serving(&service, |_, answer| answer);
        let fixture = Fixture::new();
        std::fs::write(fixture.path("new.raw"), &bytes).unwrap();
        let ended = run(&fixture, &server, &service, words);
        match part {
            Some(part) => ended.fails(2, part),
            None => assert_eq!(ended.status, 0, "{ended:?}"),
        }
    }
}

/// What changed from the older snapshot, as the library finds it out.
fn changed(server: &Server, service: &Service) -> ChangedSince {
    let parse = |path| WebAddress::parse(address(server, service, path)).unwrap();
    let (http, cancel) = (HttpOptions::default(), CancelToken::new());
    let (image, options) = (ImageOptions::default(), SourceOptions::default());
    let source = WebSource::open(&parse(NEW), &image, &options, &http, &cancel).unwrap();
    source.changed_since(&parse(OLD), None, &cancel).unwrap()
}

/// Whether every byte in which the disks differ is in `ranges`; also how many bytes those are.
fn covers(ranges: &[std::ops::Range<u64>], old: &[u8], new: &[u8]) -> (bool, u64) {
    let is_in = |at: u64| ranges.iter().any(|range| range.contains(&at));
    let pages = (0..old.len()).step_by(blob::PAGE);
    let all = pages.clone().all(|at| {
        let page = at..at + blob::PAGE;
        old[page.clone()] == new[page] || is_in(at as u64)
    });
    (
        all,
        ranges.iter().map(|range| range.end - range.start).sum(),
    )
}

#[test]
fn changes_between_snapshots_are_the_diff_and_what_one_list_has_alone() {
    let (old, new, service) = snapshots();
    let small = |service: &Service| Service {
        page_entries: 1,
        ..service.clone()
    };
    let slow = |service: &Service| Service {
        most_entries: 3,
        ..service.clone()
    };
    let unpaged = |service: &Service| Service {
        versions: vec!["2019-07-07"],
        ..service.clone()
    };
    for service in [
        service.clone(),
        small(&service),
        slow(&service),
        unpaged(&service),
    ] {
        let server = serving(&service, |_, answer| answer);
        let ChangedSince::Known(ranges) = changed(&server, &service) else {
            panic!()
        };
        let (all, bytes) = covers(&ranges, &old, &new);
        assert!(all && bytes == 4096 + 512 + 1536 + 65_536, "{ranges:?}");
    }
}

#[test]
fn a_diff_that_cannot_be_believed_never_leaves_a_change_out() {
    let (old, new, service) = snapshots();
    // As Azurite does: the whole list, without what was cleared.
    let ignoring = {
        let service = service.clone();
        Server::start(move |request| {
            let mut request = request.clone();
            request.headers.remove("x-ms-previous-snapshot-url");
            service.answer(&request)
        })
    };
    let ChangedSince::Known(ranges) = changed(&ignoring, &service) else {
        panic!()
    };
    assert!(covers(&ranges, &old, &new).0, "{ranges:?}");
    let is_diff = |request: &Request| request.headers.contains_key("x-ms-previous-snapshot-url");
    for status in [400, 403, 404, 409, 500] {
        let server = serving(&service, move |request, answer| match is_diff(request) {
            true => refused(status, "Broken"),
            false => answer,
        });
        let ChangedSince::Unknown(why) = changed(&server, &service) else {
            panic!()
        };
        assert!(why.contains(&status.to_string()), "{why}");
    }
    for body in [
        "",
        "<PageList>",
        "<PageList><PageRange><Start>5</Start><End>1</End></PageRange></PageList>",
        "<PageList><PageRange><Start>0</Start><End>99999999999</End></PageRange></PageList>",
        "<PageList><NextMarker>same</NextMarker></PageList>",
        "<html></html>",
    ] {
        let server = serving(&service, move |request, answer| match is_diff(request) {
            true => Response {
                body: body.into(),
                ..answer
            },
            false => answer,
        });
        assert!(
            matches!(changed(&server, &service), ChangedSince::Unknown(_)),
            "{body}"
        );
    }
    // Lists in any order, with overlaps.
    let server = serving(&service, move |request, answer| match is_diff(request) {
        true => {
            let text = String::from_utf8(answer.body.clone()).unwrap();
            let (head, list) = text.split_once("<PageList>").unwrap();
            let mut parts: Vec<&str> = list.split_inclusive("Range>").collect();
            let tail = parts.pop().unwrap();
            let ranges: Vec<String> = parts.chunks(2).map(|pair| pair.concat()).rev().collect();
            let body = format!("{head}<PageList>{0}{0}{tail}", ranges.concat());
            Response {
                body: body.into_bytes(),
                ..answer
            }
        }
        false => answer,
    });
    let ChangedSince::Known(ranges) = changed(&server, &service) else {
        panic!()
    };
    assert!(covers(&ranges, &old, &new).0, "{ranges:?}");
}

#[test]
fn what_cannot_be_compared_is_no_map_of_changes() {
    let bytes = disk(3);
    let why = |old: Vec<u8>, new: Vec<u8>, made: usize| {
        let service = Service::new([(OLD, Blob::new(old, made)), (NEW, Blob::new(new, 2))]);
        let server = serving(&service, |_, answer| answer);
        match changed(&server, &service) {
            ChangedSince::Unknown(why) => why,
            other => panic!("{other:?}"),
        }
    };
    assert!(why(vhd(&bytes[MIB..]), vhd(&bytes), 1).contains("another length"));
    assert!(why(vhd(&bytes), vhd(&bytes), 3).contains("409 PreviousSnapshotCannotBeNewer"));
    let vhdx = image(&bytes, "vhdx");
    assert!(why(vhdx.clone(), vhdx, 1).contains("not those of the disk"));
}

#[test]
fn snapshots_of_a_storage_account_are_told_by_their_time() {
    let (old, new, service) = snapshots();
    let blobs = [OLD, NEW].map(|path| service.blobs[path].clone());
    // One path, two snapshots: the handler chooses by the query.
    let both = move |request: &Request| {
        let blob = blobs
            .iter()
            .find(|blob| request.query.starts_with(&blob.query));
        let mut one = Service::new([("/c/disk.vhd", blob.unwrap_or(&blobs[0]).clone())]);
        let older = Blob {
            query: blobs[0].query.clone(),
            ..blobs[0].clone()
        };
        one.blobs.insert("older".to_owned(), older);
        one
    };
    let queries = [OLD, NEW].map(|path| service.blobs[path].query.clone());
    let since = |server: &Server| {
        let at =
            |query: &String| WebAddress::parse(server.at(&format!("/c/disk.vhd?{query}"))).unwrap();
        let (http, cancel) = (HttpOptions::default(), CancelToken::new());
        let (image, options) = (ImageOptions::default(), SourceOptions::default());
        let source = WebSource::open(&at(&queries[1]), &image, &options, &http, &cancel).unwrap();
        source
            .changed_since(&at(&queries[0]), None, &cancel)
            .unwrap()
    };
    let answer = both.clone();
    let server = Server::start(move |request| answer(request).answer(request));
    let ChangedSince::Known(ranges) = since(&server) else {
        panic!()
    };
    assert!(covers(&ranges, &old, &new).0);
    let ignoring = Server::start(move |request| {
        let mut plain = request.clone();
        if let Some(at) = plain.query.find("&prevsnapshot=") {
            let end = plain.query[at + 1..]
                .find('&')
                .map_or(plain.query.len(), |end| at + 1 + end);
            plain.query.replace_range(at..end, "");
        }
        both(&plain).answer(&plain)
    });
    let ChangedSince::Unknown(why) = since(&ignoring) else {
        panic!()
    };
    assert!(why.contains("ignores which snapshot"), "{why}");
}

#[test]
fn the_probe_for_the_real_service_shows_what_it_answers_and_no_address() {
    let (_, _, service) = snapshots();
    let server = serving(&service, |_, answer| answer);
    let fixture = Fixture::new();
    for (name, path) in [("new.url", NEW), ("old.url", OLD)] {
        let address = format!("\"{}\"\n", address(&server, &service, path));
        std::fs::write(fixture.path(name), address).unwrap();
    }
    let probe = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/azure/probe.sh");
    let output = Command::new(probe)
        .args(["new.url", "old.url"])
        .current_dir(fixture.path(""))
        .output()
        .unwrap();
    let text = format!("{output:?}");
    assert!(output.status.success() && !text.contains("S1G"), "{text}");
    for part in [
        "x-ms-content-crc64",
        "content-md5",
        "<PageRange>",
        "ClearRange",
        "412",
        "416",
        "404",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(server.log().len(), 12);
}
