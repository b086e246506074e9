//! Lines that are full, and what a line leaves behind when it has ended.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use diskdelta::remote::{
    Client, ConnectOptions, FrameEncoder, Line, LineOptions, Message, ShellOptions, serve,
};
use diskdelta::sync::{SyncOptions, sync};
use diskdelta::{CancelToken, ErrorKind, RemoteAddress};

use crate::lines::{Fixture, open, work};

fn lines(options: &LineOptions) -> (Line, UnixStream) {
    let (here, there) = UnixStream::pair().unwrap();
    let line = Line::new(here.try_clone().unwrap(), here, options.clone()).unwrap();
    (line, there)
}

#[test]
fn a_sender_waits_for_an_end_that_does_not_read_and_gives_it_up() {
    let silence = Duration::from_millis(700);
    let (line, there) = lines(&LineOptions::default().with_silence(silence));
    let begun = Instant::now();
    let mut count = 0;
    // Messages without any payload: what they take in a queue counts all the same.
    let error = loop {
        match line.send(&Message::Check) {
            Ok(()) => count += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("took too little of"), "{error}");
    assert!(begun.elapsed() >= silence);
    // 4 MiB in the queue, and some in the socket.
    assert!((1000..100_000).contains(&count), "{count} messages");
    drop(there);
}

#[test]
fn a_sender_that_waits_goes_on_when_the_other_end_reads() {
    let (line, mut there) = lines(&LineOptions::default());
    let is_over = AtomicBool::new(false);
    let received = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(500));
            let mut buf = [0; 65_536];
            while let Ok(count @ 1..) = there.read(&mut buf) {
                received.fetch_add(count as u64, Ordering::Relaxed);
            }
            is_over.store(true, Ordering::Relaxed);
        });
        for _ in 0..100_000 {
            line.send(&Message::Check).unwrap();
        }
        line.finish();
    });
    // Heads of ten bytes, and the last one says that this was all.
    assert_eq!(received.into_inner(), 100_001 * 10);
    assert!(is_over.into_inner());
}

#[test]
fn what_nobody_takes_is_not_read_however_short_it_is() {
    for payload in [0, 1, 100_000] {
        let (line, mut there) = lines(&LineOptions::default());
        there
            .set_write_timeout(Some(Duration::from_millis(700)))
            .unwrap();
        let (mut encoder, mut sent, mut count) = (FrameEncoder::default(), 0, 0);
        loop {
            let mut bytes = Vec::new();
            // A kind that nobody knows, which is not looked at before it is taken.
            encoder.encode(99, &vec![7; payload], &mut bytes).unwrap();
            if there.write_all(&bytes).is_err() {
                break;
            }
            count += 1;
            sent += bytes.len();
        }
        let queued = count * (payload + 128);
        assert!(queued < 12 << 20, "{count} frames, {sent} bytes");
        assert_eq!(line.try_receive().unwrap().unwrap().kind, 99);
    }
}

#[test]
fn a_cancel_stops_a_sender_that_waits() {
    let (here, there) = UnixStream::pair().unwrap();
    let cancel = CancelToken::new();
    let agent = there.try_clone().unwrap();
    // Greets, and reads nothing from then on.
    let mut greeter = there.try_clone().unwrap();
    let mut hello = Vec::new();
    let frame = Message::Hello(diskdelta::remote::Hello {
        version_least: 1,
        version_most: 1,
        features: 0,
        random: [1; 32],
    })
    .encode();
    FrameEncoder::default()
        .encode(frame.kind, &frame.payload, &mut hello)
        .unwrap();
    greeter.write_all(&hello).unwrap();
    let line = Line::new(here.try_clone().unwrap(), here, LineOptions::default()).unwrap();
    let side = diskdelta::remote::Side::Client;
    let session = diskdelta::remote::Session::greet(line, side, &cancel).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(500));
            cancel.cancel();
        });
        let error = loop {
            if let Err(error) = session.line().send(&Message::Check) {
                break error;
            }
        };
        assert_eq!(error.kind(), ErrorKind::Cancelled);
    });
    drop((agent, there));
}

/// Runs the test of this name once more, in a process of its own.
pub fn alone(name: &str) -> bool {
    if std::env::var_os("DISKDELTA_ALONE").is_some() {
        return true;
    }
    let run = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env("DISKDELTA_ALONE", "1")
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&run.stdout).into_owned();
    let errors = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{printed}{errors}");
    assert!(printed.contains("1 passed"), "{printed}");
    false
}

/// How many threads and descriptors this process has.
fn held() -> (usize, usize) {
    let count = |path: &str| std::fs::read_dir(path).unwrap().count();
    (count("/proc/self/task"), count("/proc/self/fd"))
}

/// Waits until there are no more than `before`.
fn falls_to(before: (usize, usize)) {
    let begun = Instant::now();
    while held() > before {
        let held = held();
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "{before:?} threads and descriptors before, {held:?} after"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn twenty_syncs_over_cloned_sockets_leave_no_thread_and_no_descriptor() {
    if !alone("ended::twenty_syncs_over_cloned_sockets_leave_no_thread_and_no_descriptor") {
        return;
    }
    let fixture = Fixture::new();
    fixture.disk("new.raw", 50, 1);
    let sync = |round: u64| {
        let (here, there) = UnixStream::pair().unwrap();
        let options = fixture.serve();
        let agent =
            std::thread::spawn(move || serve(there.try_clone().unwrap(), there, &options, &work()));
        let line = LineOptions::default();
        let client = Client::new(here.try_clone().unwrap(), here, &line, &work()).unwrap();
        fixture.disk("old.raw", 50, round + 2);
        let target = fixture.target("old.raw");
        let source = open(client, "new.raw").unwrap();
        let synced = sync(&source, target.target(), &SyncOptions::default(), &work());
        synced.unwrap();
        drop(agent.join().unwrap().unwrap());
    };
    sync(0);
    let before = held();
    (1..21).for_each(sync);
    falls_to(before);
}

/// Cannot be shut down from outside.
struct Wrapped(UnixStream);

impl Read for Wrapped {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buf)
    }
}

#[test]
fn two_lines_in_one_process_end_each_other_whatever_carries_them() {
    if !alone("ended::two_lines_in_one_process_end_each_other_whatever_carries_them") {
        return;
    }
    let before = held();
    for is_finished in [true, false] {
        let (here, there) = UnixStream::pair().unwrap();
        let open = |stream: UnixStream| {
            let reader = Wrapped(stream.try_clone().unwrap());
            Line::new(reader, stream, LineOptions::default()).unwrap()
        };
        let (one, other) = (open(here), open(there));
        one.send(&Message::Check).unwrap();
        let come = other.receive("a check", &CancelToken::new()).unwrap();
        assert_eq!(come, Message::Check);
        match is_finished {
            true => [one, other].into_iter().for_each(Line::finish),
            false => drop((one, other)),
        }
    }
    falls_to(before);
}

#[test]
fn a_socket_whose_other_end_never_closes_is_cut_off() {
    if !alone("ended::a_socket_whose_other_end_never_closes_is_cut_off") {
        return;
    }
    let (here, there) = UnixStream::pair().unwrap();
    let before = held();
    let silence = Duration::from_millis(300);
    let options = LineOptions::default().with_silence(silence);
    let line = Client::new(here.try_clone().unwrap(), here, &options, &work());
    drop(line.map(drop).unwrap_err());
    falls_to((before.0, before.1 - 1));
    drop(there);
}

/// A program that stands in for ssh.
fn script(fixture: &Fixture, name: &str, text: &str) -> ConnectOptions {
    let path = fixture.path(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    let shell = ShellOptions::default()
        .with_shell(path.to_str().unwrap())
        .with_keeps_errors(true);
    ConnectOptions::default()
        .with_shell(shell)
        .with_line(LineOptions::default().with_silence(Duration::from_millis(500)))
}

#[test]
fn a_shell_that_leaves_a_process_with_its_streams_behind_leaves_nothing_here() {
    if !alone("ended::a_shell_that_leaves_a_process_with_its_streams_behind_leaves_nothing_here") {
        return;
    }
    let fixture = Fixture::new();
    let place = RemoteAddress::parse("ssh://host/a").unwrap();
    let dial = &|name: &str, text: &str, part: &str| {
        let begun = Instant::now();
        let connect = script(&fixture, name, text);
        let error = connect.connect(&place, &work()).err().unwrap();
        assert!(error.to_string().contains(part), "{text}: {error}");
        assert!(begun.elapsed() < Duration::from_secs(20), "{text}");
    };
    dial("first", "exit 1", "status 1");
    let before = held();
    // As ssh does that stays for later connections, with standard error or with all.
    let ways = [
        (
            "sleep 30 >/dev/null </dev/null & echo refused >&2; exit 255",
            "could not reach the host; the remote shell said: refused",
        ),
        ("sleep 30 & exit 255", "could not reach the host"),
        ("yes >&2 & exec sleep 30", "for 0.5 s"),
        (
            "trap '' TERM HUP PIPE; while :; do sleep 1; done",
            "for 0.5 s",
        ),
    ];
    std::thread::scope(|scope| {
        for (number, (text, part)) in ways.into_iter().enumerate() {
            scope.spawn(move || dial(&format!("shell{number}"), text, part));
        }
    });
    falls_to(before);
    // Nor a child, whether it runs or waits to be reaped.
    for task in fs::read_dir("/proc/self/task").unwrap() {
        match fs::read_to_string(task.unwrap().path().join("children")) {
            Ok(children) => assert_eq!(children, ""),
            // A thread that has ended since the list was read: what it started is another's now.
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound),
        }
    }
}
