//! Reading by ranges from a web server.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::fixture::{COMMAND, Fixture, PAGE, ended, noise, send, until};
use crate::server::{File, Request, Response, SIGNATURE, Server};

const PATH: &str = "/disks/new.raw?v=1&sig=";

/// A server with one file, whose answers `change` may break.
fn serving(
    bytes: Vec<u8>,
    change: impl Fn(&Request, Response) -> Response + Send + Sync + 'static,
) -> Server {
    let file = File::new(bytes);
    Server::start(move |request| change(request, file.answer(request)))
}

fn address(server: &Server) -> String {
    server.at(&format!("{PATH}{SIGNATURE}"))
}

fn disk(pages: usize, seed: u64) -> Vec<u8> {
    noise(pages * PAGE, seed)
}

/// Syncs from `server` onto a disk that holds something else, and compares.
fn syncs(server: &Server, bytes: &[u8]) -> Fixture {
    let fixture = Fixture::new();
    fixture.disk("target.raw", bytes.len() / PAGE, 99);
    fixture.done(&format!("sync {} target.raw", address(server)));
    assert!(fixture.bytes("target.raw") == bytes);
    fixture
}

/// Syncs from `server`, which is refused with the target as it was.
fn fails(server: &Server, part: &str) {
    let fixture = Fixture::new();
    fixture.disk("target.raw", 700, 99);
    let before = fixture.bytes("target.raw");
    let run = fixture.run(&format!("sync {} target.raw", address(server)));
    run.fails(2, part);
    assert!(!format!("{run:?}").contains(SIGNATURE), "{run:?}");
    assert!(fixture.bytes("target.raw") == before);
}

#[test]
fn every_verb_that_reads_a_disk_reads_one_at_a_web_server() {
    let bytes = disk(300, 1);
    let server = serving(bytes.clone(), |_, answer| answer);
    let fixture = syncs(&server, &bytes);
    let from = address(&server);
    fixture.disk("old.raw", 300, 2);
    let (_, info) = fixture.json(&format!("info {from}"));
    assert_eq!(info["disk_bytes"], 300 * PAGE, "{info}");
    fixture.done(&format!("diff {from} target.raw"));
    fixture.done(&format!("manifest {from} -o new.manifest"));
    fixture.done(&format!("verify {from} new.manifest"));
    fixture.done(&format!("delta create old.raw {from} -o up.delta"));
    fixture.done("delta apply up.delta old.raw");
    fixture.done("diff old.raw target.raw");
    fixture.done(&format!("sync {from} made.vhdx --verify all"));
    fixture.done("diff made.vhdx target.raw");
    for request in server.log() {
        assert_eq!(request.method, "GET");
        assert!(request.range().is_some());
    }
    fixture
        .run(&format!("sync old.raw {from}"))
        .fails(2, "must be a page blob");
}

#[test]
fn images_of_all_formats_are_read_at_a_web_server() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 600, 1);
    for name in ["new.vhd", "new.vhdx", "fixed.vhd"] {
        let format = ["", "--create vhd-fixed"][usize::from(name == "fixed.vhd")];
        fixture.done(&format!("sync new.raw {name} {format}"));
        let server = serving(fixture.bytes(name), |_, answer| answer);
        let from = server.at(&format!("/{name}?sig={SIGNATURE}"));
        fixture.done(&format!("diff {from} new.raw"));
    }
}

#[test]
fn a_server_that_cannot_be_read_by_ranges_is_refused() {
    let new = || disk(700, 1);
    let plain = |change: fn(&Request, Response) -> Response| serving(new(), change);
    fails(
        &plain(|_, answer| Response {
            status: 200,
            ..answer
        }),
        "range",
    );
    fails(
        &plain(|_, answer| answer.without("content-range")),
        "Content-Range",
    );
    fails(
        &plain(|_, answer| answer.with("content-range", "bytes 0-0/*")),
        "length",
    );
    fails(
        &plain(|_, answer| answer.with("content-encoding", "gzip")),
        "Content-Encoding",
    );
    fails(&plain(|_, _| Response::status(404)), "404");
    fails(
        &plain(|_, _| Response::status(401)),
        "make a new one and run the same command again",
    );
    fails(
        &plain(|_, answer| answer.with("content-range", "bytes 5-5/2867200")),
        "other bytes",
    );
    let huge = serving(new(), |_, answer| {
        answer.with("content-range", "bytes 0-0/18446744073709551615")
    });
    fails(&huge, "");
}

#[test]
fn a_change_in_mid_copy_is_an_error_and_leaves_the_target() {
    let from_the_sixth = |change: fn(Response) -> Response| {
        serving(disk(700, 1), move |request, answer| match request.number {
            0..6 => answer,
            _ => change(answer),
        })
    };
    fails(
        &from_the_sixth(|answer| answer.with("etag", "\"v2\"")),
        "changed meanwhile",
    );
    fails(
        &from_the_sixth(|answer| answer.without("etag")),
        "changed meanwhile",
    );
    fails(
        &from_the_sixth(|answer| answer.with("last-modified", "x")),
        "modified meanwhile",
    );
    fails(&from_the_sixth(|_| Response::status(412)), "412");
    fails(
        &from_the_sixth(|answer| {
            let range = answer
                .headers
                .iter()
                .find(|(name, _)| *name == "content-range");
            let range = range.unwrap().1.replace("/2867200", "/2867201");
            answer.with("content-range", range)
        }),
        "length changed",
    );
    fails(
        &from_the_sixth(|answer| Response {
            status: 200,
            ..answer
        }),
        "range",
    );
    fails(
        &from_the_sixth(|_| Response::status(302).with("location", "/x")),
        "redirects",
    );
}

#[test]
fn throttling_failures_and_cuts_are_waited_out() {
    let bytes = disk(700, 1);
    for fault in 0..6 {
        let server = serving(bytes.clone(), move |request, answer| {
            match (request.number % 3, fault) {
                (1, 0) => Response::status(503).with("retry-after", "0"),
                (1, 1) => Response::status(503),
                (1, 2) => Response::status(500),
                (1, 3) => Response::status(429),
                (1, 4) => Response {
                    cut_after: Some(answer.body.len() / 2),
                    ..answer
                },
                (1, 5) => Response {
                    stated_len: Some(answer.body.len() + 7),
                    ..answer
                },
                _ => answer,
            }
        });
        syncs(&server, &bytes);
    }
}

#[test]
fn a_server_that_cuts_every_answer_short_is_read_all_the_same() {
    let bytes = disk(700, 1);
    let server = serving(bytes.clone(), |_, answer| Response {
        cut_after: Some(answer.body.len().min(100_000)),
        ..answer
    });
    syncs(&server, &bytes);
    assert!(
        server.sent_bytes() < bytes.len() * 21 / 20 + 100_000,
        "{}",
        server.sent_bytes()
    );
}

#[test]
fn a_server_that_answers_less_than_it_was_asked_for_is_asked_again() {
    let bytes = disk(700, 1);
    let server = serving(bytes.clone(), |request, mut answer| {
        let (first, _) = request.range().unwrap();
        answer.body.truncate(50_000);
        let range = format!("bytes {first}-{}/2867200", first + answer.body.len() - 1);
        answer.with("content-range", range)
    });
    syncs(&server, &bytes);
}

#[test]
fn failures_without_end_are_an_error() {
    let server = serving(disk(700, 1), |request, answer| match request.number {
        0..4 => answer,
        _ => Response::status(500).with("retry-after", "0"),
    });
    let started = Instant::now();
    fails(&server, "500");
    assert!(started.elapsed() < Duration::from_secs(60));
}

#[test]
fn redirects_are_followed_once_and_take_no_secret_along() {
    let bytes = disk(700, 1);
    let other = serving(bytes.clone(), |_, answer| answer);
    let to = format!("http://localhost:{}/x.raw?sig={SIGNATURE}", other.port());
    let server = Server::start(move |_| Response::status(302).with("location", to.clone()));
    let from = server.at("/latest?token=T0KEN");
    let fixture = Fixture::new();
    fixture.done(&format!("sync {from} made.raw"));
    assert!(fixture.bytes("made.raw") == bytes);
    assert_eq!(server.log().len(), 1);
    assert!(other.log().iter().all(|it| !it.query.contains("T0KEN")));

    let endless = Server::start(|_| Response::status(307).with("location", "/again"));
    fails(&endless, "redirects more than");
    let out = Server::start(|_| Response::status(302).with("location", "https://127.0.0.1/x"));
    fails(&out, "another scheme");
    let open = Server::start(|_| Response::status(302).with("location", "http://h.invalid/x"));
    fails(&open, "not be encrypted");
}

#[test]
fn connections_without_encryption_go_to_this_host_alone() {
    let fixture = Fixture::new();
    let run = fixture.run("info http://disk.invalid/a.raw");
    run.fails(2, "https://");
    let run = fixture.run("info http://disk.invalid/a.raw --allow-http");
    run.fails(2, "disk.invalid");
}

#[test]
fn an_address_that_expires_in_mid_copy_is_replaced_and_the_same_command_goes_on() {
    let bytes = disk(4000, 1);
    let server = serving(bytes.clone(), |request, answer| {
        let is_old = request.query.contains("v=1");
        match is_old && request.range().unwrap().0 > 8 << 20 {
            true => Response::status(403).with("x-ms-error-code", "AuthenticationFailed"),
            false => answer,
        }
    });
    let fixture = Fixture::new();
    fixture.disk("target.raw", 4000, 99);
    std::fs::write(fixture.path("new.url"), address(&server)).unwrap();
    let run = fixture.run("sync @new.url target.raw");
    run.fails(2, "403 AuthenticationFailed");
    assert!(run.stderr.contains("goes on where"), "{run:?}");
    let renewed = address(&server).replace("v=1", "v=2");
    std::fs::write(fixture.path("new.url"), renewed).unwrap();
    fixture.done("sync @new.url target.raw");
    assert!(fixture.bytes("target.raw") == bytes);
}

#[test]
fn requests_are_under_way_together_and_fetch_no_more_than_is_needed() {
    let bytes = disk(16_384, 1);
    let server = serving(bytes.clone(), |_, answer| Response {
        delay: Duration::from_millis(30),
        ..answer
    });
    let fixture = syncs(&server, &bytes);
    assert!(server.most_under_way() >= 12, "{}", server.most_under_way());
    assert!(
        server.sent_bytes() <= bytes.len() * 102 / 100,
        "{}",
        server.sent_bytes()
    );
    server.reset();
    fixture.done(&format!("manifest {} -o new.manifest", address(&server)));
    assert!(server.most_under_way() >= 12, "{}", server.most_under_way());
    assert!(
        server.sent_bytes() <= bytes.len() * 102 / 100,
        "{}",
        server.sent_bytes()
    );
}

#[test]
fn a_cancel_interrupts_requests_that_nothing_answers() {
    let silent = Arc::new(std::sync::Barrier::new(1));
    let server = serving(disk(700, 1), move |request, answer| {
        if request.number > 3 {
            std::thread::sleep(Duration::from_secs(30));
            silent.wait();
        }
        answer
    });
    let fixture = Fixture::new();
    fixture.disk("target.raw", 700, 2);
    let child = fixture.start(&format!("sync {} target.raw", address(&server)));
    until("requests", || server.log().len() > 4);
    let started = Instant::now();
    send(&child, "INT");
    let run = ended(child);
    assert!(started.elapsed() < Duration::from_secs(5), "{run:?}");
    run.fails(2, "cancelled");
}

#[test]
fn a_proxy_from_the_environment_is_asked_for_the_host_and_never_sees_the_address() {
    let proxy = Server::start(|_| Response::status(502));
    let run = |from: &str| {
        let output = Command::new(COMMAND)
            .args(["info", from])
            .env("HTTPS_PROXY", proxy.at(""))
            .output()
            .unwrap();
        String::from_utf8(output.stderr).unwrap()
    };
    let text = run("https://disk.invalid/a.raw?sig=SeCrEt");
    assert!(text.contains("proxy") && !text.contains("SeCrEt"), "{text}");
    let log = proxy.log();
    assert_eq!(
        (log[0].method.as_str(), log[0].path.as_str()),
        ("CONNECT", "disk.invalid:443")
    );
    assert!(!format!("{log:?}").contains("SeCrEt"));
    let count = log.len();
    let server = serving(disk(7, 1), |_, answer| answer);
    assert!(run(&address(&server)).is_empty());
    assert_eq!(proxy.log().len(), count);
}

#[test]
fn a_token_is_made_where_the_server_asks_for_one_and_goes_to_no_other_host() {
    let bytes = disk(700, 1);
    let guarded = serving(bytes.clone(), |request, answer| {
        let token = request.headers.get("authorization");
        match token.is_some_and(|token| token == "Bearer T0KEN") {
            true => answer,
            false => Response::status(401).with("www-authenticate", "Bearer"),
        }
    });
    let fixture = Fixture::new();
    let from = address(&guarded);
    let run = fixture.run(&format!("sync {from} made.raw"));
    run.fails(2, "401");
    std::fs::write(
        fixture.path("token"),
        "#!/bin/sh\necho run >> runs\necho T0KEN\n",
    )
    .unwrap();
    let token = "--token-command sh";
    let words = format!("sync {from} made.raw {token}");
    let mut words: Vec<&str> = words.split(' ').collect();
    *words.last_mut().unwrap() = "sh token";
    let run = |words: &[&str]| {
        let folder = fixture.path("");
        Command::new(COMMAND)
            .current_dir(folder)
            .args(words)
            .output()
            .unwrap()
    };
    let done = run(&words);
    assert!(done.status.success(), "{done:?}");
    assert!(fixture.bytes("made.raw") == bytes && fixture.bytes("runs") == b"run\n");
    // The host that it redirects to asks too, and is not answered.
    let to = format!("http://localhost:{}{PATH}{SIGNATURE}", guarded.port());
    let first = Server::start(move |_| Response::status(302).with("location", to.clone()));
    let from = address(&first);
    words[1] = &from;
    guarded.reset();
    let failed = run(&words);
    assert_eq!(failed.status.code(), Some(2), "{failed:?}");
    assert!(
        guarded
            .log()
            .iter()
            .all(|it| !it.headers.contains_key("authorization"))
    );
    words[4] = "false";
    let refused = run(&words);
    assert!(!format!("{refused:?}").contains("T0KEN"));
}

#[test]
fn a_published_manifest_is_read_where_it_is() {
    let fixture = Fixture::new();
    fixture.disk("web.raw", 4000, 1);
    fixture.done("manifest web.raw -o web.manifest --block-size 4K");
    let bytes = fixture.bytes("web.manifest");
    let server = serving(bytes.clone(), |_, answer| answer);
    let from = server.at(&format!("/web.manifest?sig={SIGNATURE}"));
    fixture.done(&format!("verify web.raw {from}"));
    fixture.done(&format!("diff {from} web.raw"));
    fixture.done(&format!("diff {from} web.raw --source-format manifest"));
    let mut spoilt = bytes;
    let middle = spoilt.len() / 2;
    spoilt[middle] ^= 1;
    let server = serving(spoilt, |_, answer| answer);
    let from = server.at(&format!("/web.manifest?sig={SIGNATURE}"));
    let run = fixture.run(&format!("verify web.raw {from}"));
    assert_eq!(run.status, 2, "{run:?}");
    assert!(!format!("{run:?}").contains(SIGNATURE));
}
