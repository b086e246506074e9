//! The service behind the command, and syncs with it.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::certificates::{Authority, Valid};
use crate::fixture::{Fixture, PAGE, ended, left_out, noise, send, until, write_at};

const COMMAND: &str = env!("CARGO_BIN_EXE_diskdelta");
const PAPERS: &str = "--tls-cert alice.pem --tls-key alice.key --tls-ca ca.pem";

/// A directory with certificates, a disk and an old copy of it in `served`.
pub fn fixture(pages: usize) -> Fixture {
    let fixture = Fixture::new();
    let directory = fixture.path("");
    let authority = Authority::at(&fixture.path("ca.pem"));
    let hosts = ["localhost", "127.0.0.1", "10.77.0.1"];
    authority.sign(&directory, "server", &hosts, Valid::Now);
    authority.sign(&directory, "alice", &[], Valid::Now);
    std::fs::create_dir(fixture.path("served")).unwrap();
    fixture.disk("served/new.raw", pages, 1);
    fixture.disk("old.raw", pages, 1);
    for page in (0..pages).step_by(9) {
        write_at(
            &fixture.path("old.raw"),
            (page * PAGE) as u64,
            &noise(PAGE, page as u64 + 77),
        );
    }
    fixture
}

/// Waits until there is a redo log at `path` of more than `bytes` that is not `old`; returns it.
fn logged(path: &Path, old: u64, bytes: u64) -> u64 {
    let look = || {
        let facts = std::fs::metadata(path).ok()?;
        (facts.ino() != old && facts.len() > bytes).then(|| facts.ino())
    };
    until("a redo log", || look().is_some());
    look().unwrap_or(0)
}

/// A running service; killed when dropped.
pub struct Service {
    process: Option<Child>,
    pub place: String,
    said: Arc<Mutex<Vec<String>>>,
}

impl Service {
    pub fn start(fixture: &Fixture, options: &str) -> Service {
        Service::start_in(fixture, &[COMMAND], "127.0.0.1:0", options)
    }

    fn start_in(fixture: &Fixture, before: &[&str], listen: &str, options: &str) -> Service {
        let (program, words) = before.split_first().unwrap();
        let mut process = Command::new(program)
            .args(words)
            .args([
                "serve",
                "--listen",
                listen,
                "--cert",
                "server.pem",
                "--key",
                "server.key",
            ])
            .args(["--client-ca", "ca.pem"])
            .args(match options.contains("--root") {
                true => &[][..],
                false => &["--root", "served"],
            })
            .args(options.split_whitespace())
            .current_dir(fixture.path(""))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = Arc::new(Mutex::new(Vec::new()));
        let (lines, listed) = (process.stderr.take().unwrap(), said.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(lines).lines() {
                listed.lock().unwrap().push(line.unwrap());
            }
        });
        let mut service = Service {
            process: Some(process),
            place: String::new(),
            said,
        };
        let line = service.says("listening at ");
        service.place = line.rsplit(' ').next().unwrap().to_owned();
        service
    }

    /// Waits for a line with `part` in it.
    fn says(&self, part: &str) -> String {
        let find = || {
            let said = self.said.lock().unwrap();
            said.iter().find(|line| line.contains(part)).cloned()
        };
        until(&format!("{part} in {:?}", self.said), || find().is_some());
        find().unwrap()
    }

    pub fn id(&self) -> u32 {
        self.process.as_ref().unwrap().id()
    }

    fn signal(&self, name: &str) {
        send(self.process.as_ref().unwrap(), name);
    }

    /// Waits for its end.
    fn status(&mut self) -> Option<i32> {
        let mut process = self.process.take().unwrap();
        process.wait().unwrap().code()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

#[test]
fn a_service_is_synced_with_both_ways_and_says_who_did_what() {
    let fixture = fixture(2000);
    std::fs::copy(fixture.path("old.raw"), fixture.path("served/second.raw")).unwrap();
    let mut service = Service::start(&fixture, "");
    let place = service.place.clone();
    let (status, report) = fixture.json(&format!(
        "sync diskdelta://{place}/new.raw old.raw {PAPERS}"
    ));
    assert_eq!(status, 0, "{report}");
    assert_eq!(report["changed_bytes"], 223 * PAGE);
    assert!(fixture.bytes("old.raw") == fixture.bytes("served/new.raw"));
    let received = report["received_bytes"].as_u64().unwrap();
    assert!(received > 223 * PAGE as u64 && received < 223 * PAGE as u64 + 50_000);
    fixture.done(&format!(
        "sync old.raw diskdelta://{place}/second.raw {PAPERS}"
    ));
    assert!(fixture.bytes("served/second.raw") == fixture.bytes("old.raw"));
    fixture.done(&format!(
        "sync old.raw diskdelta://{place}/made.vhdx {PAPERS}"
    ));
    fixture.done("diff old.raw served/made.vhdx");
    let line = service.says("reads /new.raw");
    assert!(
        line.starts_with("diskdelta: session 1: alice at 127.0.0.1:"),
        "{line}"
    );
    assert!(line.contains(" (sha256 "), "{line}");
    service.says("writes /second.raw");
    service.says("session 3: alice");
    service.says(" done (");
    fixture
        .run(&format!(
            "sync diskdelta://{place}/../ca.pem old.raw {PAPERS}"
        ))
        .fails(2, "is outside of what this agent serves");
    service.signal("TERM");
    assert_eq!(service.status(), Some(0));
    fixture
        .run(&format!(
            "sync diskdelta://{place}/new.raw old.raw {PAPERS}"
        ))
        .fails(2, "cannot connect to");
}

#[test]
fn a_certificate_that_is_too_old_or_too_new_is_refused_in_one_line() {
    let fixture = fixture(10);
    let directory = fixture.path("");
    let authority = Authority::at(&fixture.path("ca.pem"));
    authority.sign(&directory, "server", &["127.0.0.1"], Valid::Now);
    authority.sign(&directory, "bob", &[], Valid::Once);
    authority.sign(&directory, "carol", &[], Valid::Later);
    let before = fixture.bytes("old.raw");
    let service = Service::start(&fixture, "");
    for (name, there) in [("bob", "expired"), ("carol", "is not valid yet")] {
        let papers = PAPERS.replace("alice", name);
        let words = format!(
            "sync diskdelta://{}/new.raw old.raw {papers}",
            service.place
        );
        let run = fixture.run(&words);
        run.fails(
            2,
            &format!("refuses {name}.pem: by its clock it has expired"),
        );
        service.says(there);
    }
    assert!(fixture.bytes("old.raw") == before);
}

#[test]
fn what_is_missing_or_wrong_is_said_before_anything_is_connected_or_served() {
    let fixture = fixture(10);
    fixture
        .run("sync diskdelta://localhost/new.raw old.raw")
        .fails(2, "give --tls-cert, --tls-key and --tls-ca");
    fixture
        .run("sync diskdelta://localhost old.raw")
        .fails(2, "write diskdelta://host[:port]/name");
    let wrong = "--tls-cert alice.pem --tls-key server.key --tls-ca ca.pem";
    fixture
        .run(&format!(
            "sync diskdelta://localhost/new.raw old.raw {wrong}"
        ))
        .fails(
            2,
            "server.key: is not the key of the certificate in alice.pem",
        );
    let named = format!("sync diskdelta://localhost/new.raw old.raw {PAPERS}");
    fixture
        .run(&format!("{named} --tls-name a..b"))
        .fails(2, "`a..b` is not a name that a certificate can be for");
    let listen = "serve --listen 127.0.0.1:0 --cert server.pem --client-ca ca.pem";
    fixture
        .run(&format!("{listen} --key none.key --root served"))
        .fails(2, "cannot read none.key: ");
    let unconfined = fixture.run(&format!("{listen} --key server.key"));
    assert_eq!(unconfined.status, 2);
    assert!(unconfined.stderr.contains("--root <DIR>"), "{unconfined:?}");
    let inside = "--key server.key --root served --state-dir served/state";
    fixture
        .run(&format!("{listen} {inside}"))
        .fails(2, "lies in the directory that is served");
    fixture
        .run("serve --stdio --root served --state-dir served/state")
        .fails(2, "lies in the directory that is served");
    for words in [
        "serve",
        "serve --listen 127.0.0.1:0",
        "serve --listen 127.0.0.1:0 --cert server.pem --key server.key",
        "serve --stdio --listen 127.0.0.1:0 --cert server.pem --key server.key --client-ca ca.pem",
        "serve --stdio --cert server.pem",
        "serve --stdio --timeout 0s",
    ] {
        assert_eq!(fixture.run(words).status, 2, "{words}");
    }
}

/// Makes a source and a target, of which the one that is not here is served.
fn two_disks(fixture: &Fixture, pushes: bool) -> (&'static str, &'static str) {
    let (new, old) = match pushes {
        true => ("new.raw", "served/old.raw"),
        false => ("served/new.raw", "old.raw"),
    };
    fixture.disk(new, 6000, 1);
    fixture.disk(old, 6000, 2);
    (new, old)
}

#[test]
fn a_service_that_is_killed_leaves_the_target_old_and_retry_goes_on_with_the_next_one() {
    for pushes in [false, true] {
        let fixture = fixture(10);
        let (new, old) = two_disks(&fixture, pushes);
        let before = fixture.bytes(old);
        let mut service = Service::start(&fixture, "");
        let place = service.place.clone();
        let words = match pushes {
            true => format!("sync new.raw diskdelta://{place}/old.raw {PAPERS}"),
            false => format!("sync diskdelta://{place}/new.raw old.raw {PAPERS}"),
        };
        let redo_log = fixture.path(&match pushes {
            true => "served/.old.raw.diskdelta-log".to_owned(),
            false => ".old.raw.diskdelta-log".to_owned(),
        });
        let slow = fixture.start(&format!("{words} --limit-rate 3M"));
        let first = logged(&redo_log, 0, 4 << 20);
        service.signal("KILL");
        let run = ended(slow);
        assert_eq!(run.status, 2, "{run:?}");
        assert!(fixture.bytes(old) == before);
        service.status();
        // The next one at the same place is killed too, and one more takes its place.
        let mut second = Service::start_in(&fixture, &[COMMAND], &place, "");
        let slow = fixture.start(&format!("{words} --limit-rate 3M --retry 20 --json"));
        logged(&redo_log, first, 14 << 20);
        second.signal("KILL");
        second.status();
        assert!(fixture.bytes(old) == before);
        let third = Service::start_in(&fixture, &[COMMAND], &place, "");
        let run = ended(slow);
        assert_eq!(run.status, 0, "{run:?}");
        let report: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
        let resumed = report["resumed_bytes"].as_u64().unwrap();
        assert!(resumed > 10 << 20, "{report}");
        third.says("session 1: alice");
        assert!(fixture.bytes(old) == fixture.bytes(new));
    }
}

#[test]
fn a_service_of_the_whole_host_says_so() {
    let fixture = fixture(10);
    let all = Service::start(&fixture, "--root /");
    all.says("may write every file of this host");
}

#[test]
fn certificates_made_as_the_documentation_says_are_taken() {
    let text = include_str!("../../docs/guide/service.md");
    let (_, steps) = text.split_once("## Make the certificates").unwrap();
    let (_, steps) = steps.split_once("```console elsewhere\n").unwrap();
    let (steps, _) = steps.split_once("```").unwrap();
    let steps: String = steps
        .lines()
        .map(|line| line.strip_prefix("$ ").unwrap_or(line).to_owned() + "\n")
        .collect();
    let fixture = Fixture::new();
    let made = Command::new("sh")
        .args(["-e", "-c", &steps])
        .current_dir(fixture.path(""))
        .output()
        .unwrap();
    if !Command::new("openssl")
        .arg("version")
        .output()
        .is_ok_and(|it| it.status.success())
    {
        left_out("no openssl is here");
        return;
    }
    assert!(made.status.success(), "{made:?}");
    std::fs::create_dir(fixture.path("served")).unwrap();
    fixture.disk("served/new.raw", 100, 1);
    std::fs::copy(fixture.path("clients-ca.pem"), fixture.path("ca.pem")).unwrap();
    let service = Service::start(&fixture, "--read-only");
    let papers = PAPERS.replace("ca.pem", "services-ca.pem");
    let words = format!(
        "sync diskdelta://{}/new.raw made.raw {papers}",
        service.place
    );
    fixture
        .run(&words)
        .fails(2, "is not for 127.0.0.1, but for backup.example");
    fixture.done(&format!("{words} --tls-name backup.example"));
    assert!(fixture.bytes("made.raw") == fixture.bytes("served/new.raw"));
}

/// Two network namespaces with a link between them; gone when dropped.
struct Link {
    here: String,
    there: String,
}

impl Link {
    /// `None`, loudly, where such cannot be made.
    fn new() -> Option<Link> {
        let id = std::process::id();
        let link = Link {
            here: format!("ddh{id}"),
            there: format!("ddt{id}"),
        };
        let (here, there) = (&link.here, &link.there);
        let steps = [
            format!("netns add {here}"),
            format!("netns add {there}"),
            format!("link add {here} netns {here} type veth peer name {there} netns {there}"),
            format!("-n {here} addr add 10.77.0.2/24 dev {here}"),
            format!("-n {there} addr add 10.77.0.1/24 dev {there}"),
            format!("-n {here} link set {here} up"),
            format!("-n {there} link set {there} up"),
        ];
        for step in steps {
            if !ip(&step) {
                left_out(&format!("`ip {step}` fails; it needs root and iproute2"));
                return None;
            }
        }
        Some(link)
    }

    fn set(&self, state: &str) {
        let (here, there) = (&self.here, &self.there);
        assert!(ip(&format!("-n {there} link set {there} {state}")));
        assert!(ip(&format!("-n {here} link set {here} {state}")));
    }

    fn run(namespace: &str) -> [&str; 5] {
        ["ip", "netns", "exec", namespace, COMMAND]
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        ip(&format!("netns del {}", self.here));
        ip(&format!("netns del {}", self.there));
    }
}

fn ip(words: &str) -> bool {
    let output = Command::new("ip").args(words.split_whitespace()).output();
    output.is_ok_and(|it| it.status.success())
}

#[test]
fn a_link_that_goes_down_is_named_within_the_timeout_and_taken_up_when_it_is_back() {
    let Some(link) = Link::new() else {
        return;
    };
    for pushes in [false, true] {
        link.set("up");
        let fixture = fixture(10);
        let (new, old) = two_disks(&fixture, pushes);
        let before = fixture.bytes(old);
        let there = Link::run(&link.there);
        let service = Service::start_in(&fixture, &there, "10.77.0.1", "--timeout 3s");
        assert_eq!(service.place, "10.77.0.1:8730");
        let ends = match pushes {
            true => ["new.raw", "diskdelta://10.77.0.1/old.raw"],
            false => ["diskdelta://10.77.0.1/new.raw", "old.raw"],
        };
        let words = format!("{PAPERS} --limit-rate 3M --timeout 3s --json --retry");
        let start = |retry: &str| {
            Command::new("ip")
                .args(&Link::run(&link.here)[1..])
                .arg("sync")
                .args(ends)
                .args(words.split_whitespace())
                .arg(retry)
                .current_dir(fixture.path(""))
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        };
        let redo_log = fixture.path(match pushes {
            true => "served/.old.raw.diskdelta-log",
            false => ".old.raw.diskdelta-log",
        });
        let run = start("0");
        let first = logged(&redo_log, 0, 4 << 20);
        link.set("down");
        let run = ended(run);
        assert_eq!(run.status, 2, "{run:?}");
        let text = "the agent at 10.77.0.1 said nothing for 3 s while its ";
        assert!(run.stderr.contains(text), "{run:?}");
        assert!(fixture.bytes(old) == before);
        service.says("said nothing for 3 s while its ");
        link.set("up");
        let run = start("30");
        logged(&redo_log, first, 14 << 20);
        link.set("down");
        // Longer than the timeout and the first pauses.
        std::thread::sleep(Duration::from_secs(6));
        assert!(fixture.bytes(old) == before);
        link.set("up");
        let run = ended(run);
        assert_eq!(run.status, 0, "{run:?}");
        let report: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
        let resumed = report["resumed_bytes"].as_u64().unwrap();
        assert!(resumed > 10 << 20, "{report}");
        // The one that was given up, the one that broke, and the one that was done.
        service.says("session 3: alice");
        assert!(fixture.bytes(old) == fixture.bytes(new));
    }
}
