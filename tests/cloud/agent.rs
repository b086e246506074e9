//! An agent that reads a disk at a web server for a client elsewhere.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::fixture::{COMMAND, Fixture, noise};
use crate::server::{File, Request, Response, SIGNATURE, Server};

const MIB: usize = 1 << 20;

/// A shell that starts the agent with these options, whatever it is asked for.
fn shell(fixture: &Fixture, options: &str) {
    let text = format!(
        "#!/bin/sh\nexec {COMMAND} serve --stdio {options} 2>>{}\n",
        fixture.path("agent.log").display()
    );
    fs::write(fixture.path("rsh"), text).unwrap();
    fs::set_permissions(fixture.path("rsh"), fs::Permissions::from_mode(0o700)).unwrap();
}

fn serving(bytes: Vec<u8>, change: fn(&Request, Response) -> Response) -> Server {
    let file = File::new(bytes);
    Server::start(move |request| change(request, file.answer(request)))
}

/// The disk's address, in a file.
fn address(fixture: &Fixture, server: &Server) {
    let address = server.at(&format!("/vhds/new.raw?sig={SIGNATURE}"));
    fs::write(fixture.path("new.url"), address).unwrap();
}

const SYNC: &str = "sync @new.url target.raw --via ssh://region --rsh ./rsh";

#[test]
fn an_agent_reads_the_disk_and_sends_what_differs() {
    let (fixture, new) = (Fixture::new(), noise(8 * MIB, 1));
    let server = serving(new.clone(), |_, answer| answer);
    address(&fixture, &server);
    let mut old = new.clone();
    old[MIB..MIB + 40_960].fill(3);
    fs::write(fixture.path("target.raw"), &old).unwrap();
    shell(
        &fixture,
        &format!("--allow-url {} --read-only", server.at("/vhds/")),
    );
    let (status, report) = fixture.json(SYNC);
    assert_eq!(status, 0, "{report}");
    assert!(fixture.bytes("target.raw") == new);
    assert_eq!(report["changed_bytes"], 40_960);
    assert!(
        report["received_bytes"].as_u64().unwrap() < 200_000,
        "{report}"
    );
    assert!(server.sent_bytes() >= 8 * MIB);
    let log = fs::read_to_string(fixture.path("agent.log")).unwrap_or_default();
    assert!(!log.contains(SIGNATURE), "{log}");
}

#[test]
fn an_agent_opens_what_it_may_and_nothing_that_this_redirects_to() {
    let fixture = Fixture::new();
    let server = serving(noise(MIB, 1), |_, answer| answer);
    let away = Server::start({
        let there = server.at(&format!("/vhds/new.raw?sig={SIGNATURE}"));
        move |_| Response::status(302).with("location", there.clone())
    });
    fixture.disk("target.raw", MIB / 4096, 5);
    let before = fixture.bytes("target.raw");
    for (at, options, part) in [
        (&server, String::new(), "opens no addresses"),
        (
            &server,
            format!("--allow-url {}", server.at("/other/")),
            "opens no such address",
        ),
        (
            &server,
            format!("--allow-url {}", away.at("/vhds/")),
            "opens no such address",
        ),
        (
            &away,
            format!("--allow-url {}", away.at("/vhds/")),
            "opens no such address",
        ),
    ] {
        address(&fixture, at);
        shell(&fixture, &options);
        let refused = fixture.run(SYNC);
        refused.fails(2, part);
        assert!(!format!("{refused:?}").contains(SIGNATURE), "{refused:?}");
    }
    // The metadata of the agent's own VM, by any name.
    for host in ["169.254.169.254", "[::ffff:169.254.169.254]"] {
        fs::write(fixture.path("new.url"), format!("http://{host}/vhds/x")).unwrap();
        shell(
            &fixture,
            &format!("--allow-http --allow-url http://{host}/"),
        );
        fixture.run(SYNC).fails(2, "opens no such address");
    }
    assert!(fixture.bytes("target.raw") == before && server.log().is_empty());
    let words = "sync target.raw other.raw --via ssh://region --rsh ./rsh";
    fixture
        .run(words)
        .fails(2, "--via goes with a source at a web server");
    fixture
        .run("sync @new.url target.raw --via ssh://region/x")
        .fails(2, "the address of an agent");
    let open = "serve --stdio --allow-url https://md-*";
    fixture.run(open).fails(2, "no beginning of addresses");
}
