//! Nothing is fetched twice: not by a run after one that was killed, and not to read back.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use crate::fixture::{Fixture, PAGE, ended, noise, send, until};
use crate::server::{File, Response, SIGNATURE, Server};

const LEN: usize = 128 << 20;
/// What a run that is killed has fetched, or read, and not put anywhere: ranges ahead, units that
/// are compared, and buffers.
const UNDER_WAY: usize = 48 << 20;
/// How much of a run is fetched before it is killed, in percent.
const KILLED_AT: usize = 80;

/// A server that answers one request after the other, in their order and slower than they are
/// used, and no more once it has sent enough.
struct Slow {
    server: Server,
    enough: Arc<AtomicUsize>,
}

impl Slow {
    fn new(bytes: Vec<u8>) -> Slow {
        let file = File::new(bytes);
        // The number of the next request, and the bytes sent.
        let (state, turn) = (Mutex::new((0, 0)), Condvar::new());
        let enough = Arc::new(AtomicUsize::new(usize::MAX));
        let limit = enough.clone();
        let server = Server::start(move |request| {
            let state = state.lock().unwrap();
            let mut state = turn.wait_while(state, |it| it.0 != request.number).unwrap();
            state.0 += 1;
            turn.notify_all();
            let answer = file.answer(request);
            if state.1 >= limit.load(Ordering::SeqCst) {
                return Response {
                    cut_after: Some(0),
                    ..answer
                };
            }
            state.1 += answer.body.len();
            thread::sleep(Duration::from_millis(answer.body.len() as u64 >> 15));
            answer
        });
        Slow { server, enough }
    }

    fn address(&self) -> String {
        self.server.at(&format!("/new.raw?sig={SIGNATURE}"))
    }
}

fn disk() -> Vec<u8> {
    let mut bytes = noise(LEN, 1);
    bytes[LEN / 4..LEN / 2].fill(0);
    bytes
}

/// A target in which every eighth page differs, as a file of the fixture.
fn target(fixture: &Fixture, name: &str) {
    let mut bytes = disk();
    for page in (0..LEN / PAGE).step_by(8) {
        bytes[page * PAGE] ^= 1;
    }
    std::fs::write(fixture.path("old.raw"), bytes).unwrap();
    fixture.done(&format!("sync old.raw {name}"));
}

/// Waits until what was fetched ahead, at most 64 MiB, is used. A run that is killed before that
/// fetches it again.
fn settled(fixture: &Fixture) {
    let len = || {
        let names = fixture.names();
        let name = names.iter().find(|it| it.ends_with(".fetched"));
        name.and_then(|it| std::fs::metadata(fixture.path(it)).ok())
            .map(|it| it.len())
    };
    let mut before = None;
    loop {
        thread::sleep(Duration::from_millis(1500));
        let now = len();
        if now.is_some() && now == before {
            return;
        }
        before = now;
    }
}

/// Syncs by `words`, in one run and in two of which the first is killed; the two together fetch
/// hardly more than the one.
fn resumes(name: &str, words: &str, has_target: bool) {
    let bytes = disk();
    let begun = || {
        let fixture = Fixture::new();
        std::fs::write(fixture.path("new.raw"), &bytes).unwrap();
        if has_target {
            target(&fixture, name);
        }
        fixture
    };
    let command = |slow: &Slow| format!("sync {} {name} {words}", slow.address());
    let (fixture, slow) = (begun(), Slow::new(bytes.clone()));
    fixture.done(&command(&slow));
    fixture.done(&format!("diff {name} new.raw"));
    let whole = slow.server.sent_bytes();
    assert!(whole < LEN + LEN / 16, "{words}: {whole} bytes in one run");
    let (fixture, slow) = (begun(), Slow::new(bytes.clone()));
    slow.enough.store(whole * KILLED_AT / 100, Ordering::SeqCst);
    let child = fixture.start(&command(&slow));
    let enough = whole * KILLED_AT / 100;
    until("most of the answers", || slow.server.sent_bytes() >= enough);
    settled(&fixture);
    send(&child, "KILL");
    ended(child);
    slow.enough.store(usize::MAX, Ordering::SeqCst);
    fixture.done(&command(&slow));
    fixture.done(&format!("diff {name} new.raw --read-holes"));
    let both = slow.server.sent_bytes();
    assert!(
        both <= whole * 11 / 10 + UNDER_WAY,
        "{name} {words}, killed at {KILLED_AT} %: {both} bytes, not {whole}"
    );
    let left: Vec<String> = fixture.names();
    let is_left = |name: &&String| name.contains("diskdelta-");
    assert_eq!(left.iter().find(is_left), None);
}

#[test]
fn a_delta_after_a_kill_fetches_what_is_missing() {
    resumes("t.raw", "--mode delta", true);
    resumes("t.vhdx", "--clone never", true);
}

#[test]
fn a_delta_with_a_target_manifest_goes_on_too() {
    resumes("t.raw", "--target-manifest t.manifest", true);
}

#[test]
fn a_copy_after_a_kill_fetches_what_is_missing() {
    resumes("t.raw", "", false);
    resumes("t.raw", "--target-manifest t.manifest", false);
    resumes("t.raw", "--mode full", true);
}

#[test]
fn a_sync_in_place_after_a_kill_fetches_what_is_missing() {
    resumes("t.raw", "--safety in-place", true);
    resumes("t.vhdx", "--safety in-place", true);
}

#[test]
fn reading_everything_back_fetches_nothing_twice() {
    for words in [
        "--verify all",
        "--safety in-place --verify all",
        "--mode full --verify all",
    ] {
        let (fixture, slow) = (Fixture::new(), Slow::new(disk()));
        target(&fixture, "t.raw");
        fixture.done(&format!("sync {} t.raw {words}", slow.address()));
        let sent = slow.server.sent_bytes();
        assert!(sent < LEN + LEN / 16, "{words}: {sent} bytes");
    }
}

#[test]
fn what_another_program_wrote_meanwhile_is_fetched_again() {
    let bytes = disk();
    let (fixture, slow) = (Fixture::new(), Slow::new(bytes.clone()));
    target(&fixture, "t.raw");
    slow.enough.store(LEN / 2, Ordering::SeqCst);
    let words = format!("sync {} t.raw --mode delta", slow.address());
    let child = fixture.start(&words);
    until("half of it", || slow.server.sent_bytes() >= LEN / 2);
    thread::sleep(Duration::from_millis(1000));
    send(&child, "KILL");
    ended(child);
    slow.enough.store(usize::MAX, Ordering::SeqCst);
    let mut now = fixture.bytes("t.raw");
    now[100_000..2_000_000].fill(9);
    std::fs::write(fixture.path("t.raw"), now).unwrap();
    fixture.done(&words);
    assert!(fixture.bytes("t.raw") == bytes);
    // Another state of the source: nothing that was fetched of the old one is of use.
    let (fixture, slow) = (Fixture::new(), Slow::new(bytes.clone()));
    target(&fixture, "t.raw");
    slow.enough.store(LEN / 2, Ordering::SeqCst);
    let child = fixture.start(&format!("sync {} t.raw", slow.address()));
    until("half of it", || slow.server.sent_bytes() >= LEN / 2);
    thread::sleep(Duration::from_millis(1000));
    send(&child, "KILL");
    ended(child);
    let other = noise(LEN, 5);
    let mut file = File::new(other.clone());
    file.etag = "\"v2\"".to_owned();
    let server = Server::start(move |request| file.answer(request));
    fixture.done(&format!(
        "sync {}/new.raw?sig={SIGNATURE} t.raw",
        server.at("")
    ));
    assert!(fixture.bytes("t.raw") == other);
}
