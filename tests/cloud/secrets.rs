//! A signature is seen by the server that it is for, and by nothing else.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::fixture::{COMMAND, Fixture, PAGE, noise, send, until};
use crate::server::{File, Response, SIGNATURE, Server};

/// Whether a file below `folder` holds the signature, and how many were looked at.
fn search(folder: &Path, found: &mut Vec<String>, count: &mut usize) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            search(&path, found, count);
            continue;
        }
        let Ok(bytes) = fs::read(&path) else { continue };
        *count += 1;
        let needle = SIGNATURE.as_bytes();
        if bytes.windows(needle.len()).any(|it| it == needle) {
            found.push(path.display().to_string());
        }
    }
}

#[test]
fn no_signature_is_printed_logged_or_seen_by_other_processes() {
    let file = File::new(noise(4000 * PAGE, 1));
    let server = Server::start(move |request| {
        let is_late = request.range().is_some_and(|(first, _)| first > 12 << 20);
        let delay = if is_late {
            Duration::from_secs(3)
        } else {
            Duration::ZERO
        };
        Response {
            delay,
            ..file.answer(request)
        }
    });
    let address = server.at(&format!("/new.raw?v=1&snapshot=2026-01-01&sig={SIGNATURE}"));
    let secrets = tempfile::tempdir().unwrap();
    let url = secrets.path().join("new.url");
    fs::write(&url, format!("{address}\n")).unwrap();
    let fixture = Fixture::new();
    for from in [format!("@{}", url.display()), "env:DISK_URL".to_owned()] {
        fixture.disk("target.raw", 4000, 2);
        let child = Command::new(COMMAND)
            .current_dir(fixture.path(""))
            .args([
                "sync",
                &from,
                "target.raw",
                "--json",
                "--target-manifest",
                "t.manifest",
            ])
            .env("DISK_URL", &address)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        until("a log", || {
            fixture
                .names()
                .iter()
                .any(|name| name.contains("diskdelta-log"))
        });
        let command_line = fs::read(format!("/proc/{}/cmdline", child.id())).unwrap();
        assert!(!String::from_utf8_lossy(&command_line).contains(SIGNATURE));
        let (mut found, mut count) = (Vec::new(), 0);
        search(&fixture.path(""), &mut found, &mut count);
        send(&child, "KILL");
        let output = child.wait_with_output().unwrap();
        assert!(!format!("{output:?}").contains(SIGNATURE));
        assert!(count >= 2 && found.is_empty(), "{found:?} of {count}");
        let run = Command::new(COMMAND)
            .current_dir(fixture.path(""))
            .args([
                "sync",
                &from,
                "target.raw",
                "--json",
                "--target-manifest",
                "t.manifest",
            ])
            .env("DISK_URL", &address)
            .output()
            .unwrap();
        assert!(run.status.success(), "{run:?}");
        assert!(!String::from_utf8_lossy(&run.stdout).contains(SIGNATURE));
        search(&fixture.path(""), &mut found, &mut count);
        assert!(found.is_empty(), "{found:?}");
    }
}

#[test]
fn no_error_repeats_a_signature() {
    let refusing = Server::start(|request| {
        Response::status(403).with("x-ms-error-code", format!("Bad{}", request.path.len()))
    });
    let good = refusing.at(&format!("/new.raw?sig={SIGNATURE}"));
    let fixture = Fixture::new();
    fixture.disk("a.raw", 20, 1);
    fs::write(fixture.path("bad.url"), format!("{good} {good}")).unwrap();
    fs::write(fixture.path("other.url"), good.replace("http:", "gopher:")).unwrap();
    let mut runs = 0;
    let bad = good.replace("127.0.0.1", "me@127.0.0.1");
    let plain = good.replace("127.0.0.1", "disk.invalid");
    let other = good.replace("http:", "gopher:");
    for from in [&good, &bad, &plain, &other, "@bad.url", "@other.url"] {
        for words in [
            format!("sync {from} made.raw"),
            format!("sync a.raw {from}"),
            format!("sync {from} {from} {from}"),
            format!("sync a.raw b.raw {from}"),
            format!("info {from}"),
            format!("info {from} --no-such-option={from}"),
            format!("verify a.raw {from}"),
            format!("diff {from} a.raw --source-format manifest"),
            format!("recover {from}"),
            from.to_string(),
        ] {
            for words in [words.clone(), format!("{words} --json")] {
                let run = fixture.run(&words);
                assert_ne!(run.status, 0, "{words}");
                assert!(!format!("{run:?}").contains(SIGNATURE), "{words}: {run:?}");
                runs += 1;
            }
        }
    }
    assert_eq!(runs, 120);
}
