//! Peers that ask and never read the answers, and what an agent then takes of memory.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use diskdelta::RemoteAddress;
use diskdelta::remote::tls::{DialOptions, Identity, TlsLine};
use diskdelta::remote::{Claims, FrameEncoder, Hello, Message, Nodes, RemoteJob};

use crate::fixture::{Fixture, noise, write_at};
use crate::service::{Service, fixture};

/// What docs/reference/protocol.md promises of a line, and what the process takes without one.
const MOST_KIB: u64 = (24 + 36) << 10;

/// One message, again and again, behind a greeting and a job.
fn flood(mut to: impl Write + Send + 'static, path: &str, kind: u8, payload: &[u8]) -> Taken {
    let hello = Message::Hello(Hello {
        version_least: 1,
        version_most: 1,
        features: 63,
        random: [1; 32],
    });
    let job = Message::RemoteJob(Box::new(RemoteJob {
        path: path.as_bytes().to_vec(),
        format: None,
        target: None,
        live: false,
        marker_is_data: false,
        read_holes: false,
        address: None,
    }));
    let mut encoder = FrameEncoder::default();
    let mut bytes = Vec::new();
    for message in [hello, job] {
        let frame = message.encode();
        encoder
            .encode(frame.kind, &frame.payload, &mut bytes)
            .unwrap();
    }
    let taken = Arc::new(AtomicU64::new(0));
    let (counted, payload) = (taken.clone(), payload.to_vec());
    // What blocks ends with the process that does not read.
    std::thread::spawn(move || {
        while to.write_all(&bytes).is_ok() {
            counted.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            bytes.clear();
            for _ in 0..500 {
                encoder.encode(kind, &payload, &mut bytes).unwrap();
            }
        }
    });
    Taken(taken)
}

struct Taken(Arc<AtomicU64>);

impl Taken {
    /// Waits until nothing more is taken; returns how much was.
    fn all(&self) -> u64 {
        let mut before = u64::MAX;
        for _ in 0..30 {
            std::thread::sleep(Duration::from_millis(700));
            let now = self.0.load(Ordering::Relaxed);
            if now == before {
                return now;
            }
            before = now;
        }
        panic!("{before} bytes were taken, and it goes on");
    }
}

/// The most that a process has had in memory, in KiB.
fn peak(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let number = line.unwrap().split_whitespace().nth(1).unwrap();
    number.parse().unwrap()
}

fn nodes() -> Vec<u8> {
    let nodes = Nodes {
        level: 2,
        indices: vec![0],
    };
    Message::Nodes(nodes).encode().payload
}

fn claims() -> Vec<u8> {
    let claims = Claims {
        disk_len: 4 << 20,
        groups: vec![(std::iter::once(0..1).collect(), [0; 32])],
    };
    Message::Claims(claims).encode().payload
}

#[test]
fn an_agent_whose_answers_nobody_reads_takes_no_more_than_it_promises() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 1024, 1);
    // Its tree has a node with as many children as there can be.
    let wide = fs::File::create(fixture.path("wide.raw")).unwrap();
    wide.set_len(4 << 30).unwrap();
    for child in 0..256 {
        write_at(&fixture.path("wide.raw"), child << 24, &noise(4096, child));
    }
    fs::create_dir(fixture.path("cache")).unwrap();
    let cases: [(&str, u8, Vec<u8>, &[&str]); 3] = [
        ("checks", Message::Check.encode().kind, Vec::new(), &[]),
        ("claims", 18, claims(), &[]),
        ("nodes", 24, nodes(), &["--manifest-cache", "cache"]),
    ];
    for (name, kind, payload, options) in cases {
        let disk = match name {
            "nodes" => "wide.raw",
            _ => "new.raw",
        };
        if name == "nodes" {
            fill_cache(&fixture, disk);
        }
        let mut agent = Command::new(env!("CARGO_BIN_EXE_diskdelta"))
            .args(["serve", "--stdio", "--read-only", "--root", "."])
            .args(options)
            .current_dir(fixture.path(""))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let taken = flood(agent.stdin.take().unwrap(), disk, kind, &payload);
        let bytes = taken.all();
        if let Some(status) = agent.try_wait().unwrap() {
            panic!("{name}: it ended after {bytes} bytes: {status}");
        }
        let peak = peak(agent.id());
        agent.kill().unwrap();
        agent.wait().unwrap();
        assert!(bytes > 100_000, "{name}: {bytes} bytes were taken");
        assert!(peak < MOST_KIB, "{name}: {peak} KiB");
    }
}

/// Has an agent keep a manifest of the source.
fn fill_cache(fixture: &Fixture, disk: &str) {
    let agent = format!(
        "{} serve --stdio --manifest-cache cache",
        env!("CARGO_BIN_EXE_diskdelta")
    );
    let script = fixture.path("rsh");
    fs::write(&script, format!("#!/bin/sh\nexec {agent}\n")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&script, mode).unwrap();
    // A file that was just written is not trusted to stay as it is.
    std::thread::sleep(Duration::from_millis(2500));
    fixture.done(&format!("sync --rsh ./rsh ssh://h/~/{disk} copy.raw"));
    let count = fs::read_dir(fixture.path("cache")).unwrap().count();
    assert!(count > 0, "no manifest was kept");
}

#[test]
fn a_service_whose_answers_nobody_reads_takes_no_more_than_it_promises() {
    let fixture = fixture(1024);
    let service = Service::start(&fixture, "--read-only");
    let address = format!("diskdelta://{}/x", service.place);
    let place = RemoteAddress::parse(address).unwrap();
    let identity = Identity::new(
        fixture.path("alice.pem"),
        fixture.path("alice.key"),
        fixture.path("ca.pem"),
    );
    let before = peak(service.id());
    let mut line = TlsLine::dial(&place, &DialOptions::new(identity)).unwrap();
    let (_reader, writer) = line.streams().unwrap();
    let taken = flood(writer, "new.raw", Message::Check.encode().kind, &[]);
    let bytes = taken.all();
    let peak = peak(service.id());
    drop(service);
    assert!(bytes > 100_000, "{bytes} bytes were taken");
    assert!(peak - before < 24 << 10, "{before} to {peak} KiB");
}
