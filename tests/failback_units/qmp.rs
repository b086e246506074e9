//! The client of QEMU's monitor, against servers that answer, lie, hang and leave.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use diskdelta::failback::vm::qemu::qmp::Qmp;
use diskdelta::{ErrorKind, Result};
use serde_json::{Value, json};

/// A QEMU that says these lines, whatever it hears, and then leaves or stays.
fn told(lines: &str, stays: bool) -> Result<Value> {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("qmp.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let lines = lines.to_owned();
    let says = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // A client that has heard enough may leave before the end.
        let _ = stream.write_all(lines.as_bytes());
        if !stays {
            stream.shutdown(std::net::Shutdown::Write).unwrap();
        }
        // Until the client leaves; what is not read would reset the line.
        let _ = stream.read_to_string(&mut String::new());
    });
    let limit = Duration::from_millis(if stays { 300 } else { 30_000 });
    let done = Qmp::connect(&socket, limit)
        .and_then(|qmp| qmp.unwrap().execute("query-status", json!({})));
    says.join().unwrap();
    done
}

const HELLO: &str = "{\"QMP\": {}}\n{\"return\": {}, \"id\": 1}\n";

#[test]
fn an_answer_is_found_among_events() {
    let event = "{\"event\": \"STOP\"}\n".repeat(3);
    let said = told(
        &format!("{HELLO}{event}{{\"return\": {{\"status\": \"running\"}}, \"id\": 2}}\n"),
        true,
    );
    assert_eq!(said.unwrap()["status"], "running");
}

#[test]
fn what_qemu_refuses_is_said_in_its_words() {
    let answer = "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}, \"id\": 2}\n";
    let error = told(&format!("{HELLO}{answer}"), true).unwrap_err();
    assert!(
        error.to_string().contains("refuses `query-status`: no"),
        "{error}"
    );
}

#[test]
fn nonsense_silence_and_an_early_end_are_told_apart() {
    for (said, stays, kind, text) in [
        ("", true, ErrorKind::Io, "does not answer in time"),
        (
            "{\"QMP\": {}}",
            true,
            ErrorKind::Io,
            "does not answer in time",
        ),
        (HELLO, false, ErrorKind::Io, "ended the connection"),
        ("220 smtp.example\n", true, ErrorKind::Malformed, "220 smtp"),
        (
            "{\"QMP\": 1}\n",
            true,
            ErrorKind::Malformed,
            "says something else",
        ),
        (
            "{\"QMP\": {}}\n{\"return\": {}, \"id\": 7}\n",
            true,
            ErrorKind::Malformed,
            "says something else",
        ),
    ] {
        let error = told(said, stays).unwrap_err();
        assert_eq!(error.kind(), kind, "{said}: {error}");
        assert!(error.to_string().contains(text), "{said}: {error}");
    }
    let nobody = Qmp::connect(Path::new("/no/such.sock"), Duration::from_secs(1));
    assert!(nobody.unwrap().is_none());
}

#[test]
fn a_qemu_that_goes_before_it_greets_is_not_there() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("qmp.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let goes = std::thread::spawn(move || drop(listener.accept().unwrap()));
    let found = Qmp::connect(&socket, Duration::from_secs(30)).unwrap();
    assert!(found.is_none());
    goes.join().unwrap();
}

#[test]
fn a_quit_is_done_when_the_line_ends_however_it_ends_and_not_before() {
    let answer = "{\"return\": {}, \"id\": 2}\n{\"event\": \"SHUTDOWN\"}\n";
    let refusal = "{\"error\": {\"desc\": \"no\"}, \"id\": 2}\n";
    for (said, end, text) in [
        (answer, End::Close, None),
        ("", End::Close, None),
        ("", End::Reset, None),
        (answer, End::Never, Some("does not answer in time")),
        (refusal, End::Never, Some("refuses `quit`: no")),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("qmp.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let says = std::thread::spawn(move || {
            let (mut theirs, _) = listener.accept().unwrap();
            theirs.write_all(HELLO.as_bytes()).unwrap();
            let mut heard = BufReader::with_capacity(1, theirs.try_clone().unwrap());
            heard.read_until(b'\n', &mut Vec::new()).unwrap();
            theirs.write_all(said.as_bytes()).unwrap();
            let heard = match end {
                End::Close => u64::MAX,
                // What was not read is why the other end sees a reset.
                End::Reset | End::Never => 1,
            };
            let mut heard = BufReader::with_capacity(1, (&theirs).take(heard));
            heard.read_until(b'\n', &mut Vec::new()).unwrap();
            matches!(end, End::Never).then_some(theirs)
        });
        let limit = Duration::from_millis(if text.is_some() { 300 } else { 30_000 });
        let qmp = Qmp::connect(&socket, limit).unwrap().unwrap();
        let done = qmp.quit().map_err(|e| e.to_string());
        match text {
            None => assert_eq!(done, Ok(()), "{said}"),
            Some(text) => assert!(done.unwrap_err().contains(text), "{said}"),
        }
        drop(says.join().unwrap());
    }
}

/// How the other end leaves.
#[derive(Clone, Copy)]
enum End {
    Close,
    Reset,
    Never,
}

#[test]
fn a_line_without_end_is_bounded() {
    let error = told(&"x".repeat(17 << 20), true).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
}
