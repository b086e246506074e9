//! A client of QEMU's monitor: one command at a time, each answered in time or not at all.

use std::io::{BufRead, BufReader, ErrorKind as Kind, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::error::{Error, ErrorKind, Result};
use crate::image::nbd::socket::{Line, cancelled};
use crate::progress::CancelToken;

/// A connection to a QEMU's monitor. QEMU speaks to one client at a time.
pub struct Qmp {
    line: BufReader<Line>,
    socket: PathBuf,
    sent: u64,
    /// The other end has closed the connection.
    has_ended: bool,
}

opaque!(Qmp);

impl Qmp {
    /// Connects to the QEMU behind a socket; `None` where none listens. Every answer must be there
    /// within `limit`. A QEMU that is about to end is waited for as long.
    ///
    /// # Errors
    /// `Malformed` for what does not speak QMP; `Io`, also where somebody else speaks to it now.
    pub fn connect(socket: &Path, limit: Duration) -> Result<Option<Self>> {
        Self::connect_until(socket, limit, &CancelToken::new())
    }

    /// As [`connect`](Self::connect). Connecting, and waiting for answers, end soon after a cancel.
    ///
    /// # Errors
    /// As [`connect`](Self::connect); `Cancelled`.
    pub fn connect_until(
        socket: &Path,
        limit: Duration,
        cancel: &CancelToken,
    ) -> Result<Option<Self>> {
        let begin = Instant::now();
        let failed = |cause| {
            let failed = |e| Error::io("connect to", e).at_path(socket);
            cancelled(cause).unwrap_or_else(|cause| match cause.kind() {
                Kind::TimedOut => failed(cause).advise("do other programs hold the monitor?"),
                _ => failed(cause),
            })
        };
        loop {
            let line = match Line::connect(socket, limit, cancel) {
                Err(e) if matches!(e.kind(), Kind::NotFound | Kind::ConnectionRefused) => {
                    return Ok(None);
                }
                line => line.map_err(failed)?,
            };
            let mut qmp = Qmp {
                line: BufReader::new(line),
                socket: socket.to_owned(),
                sent: 0,
                has_ended: false,
            };
            match qmp.greet() {
                Ok(()) => return Ok(Some(qmp)),
                Err(_) if qmp.has_ended && begin.elapsed() < limit => std::thread::sleep(NAP),
                Err(error) => return Err(error),
            }
        }
    }

    fn greet(&mut self) -> Result<()> {
        let greeting = self.hear().map_err(|error| match error.kind() {
            ErrorKind::Io => error.advise("does another program hold the monitor?"),
            _ => error,
        })?;
        if !greeting["QMP"].is_object() {
            return Err(self.nonsense(&greeting));
        }
        self.execute("qmp_capabilities", json!({})).map(drop)
    }

    /// Has a command done, and gives what it returns. Events that come meanwhile are passed
    /// over: what matters is asked for.
    ///
    /// # Errors
    /// `Io` where QEMU refuses, is gone, or does not answer in time; `Malformed` for nonsense.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        self.sent += 1;
        let message = json!({"execute": command, "arguments": arguments, "id": self.sent});
        let sent = self
            .line
            .get_mut()
            .write_all(format!("{message}\n").as_bytes());
        sent.map_err(|e| self.gone(e))?;
        for _ in 0..EVENTS_MAX {
            let mut said = self.hear()?;
            if said["event"].is_string() {
                continue;
            }
            if said["id"] != json!(self.sent) {
                return Err(self.nonsense(&said));
            }
            if let Some(why) = said["error"]["desc"].as_str() {
                let text = format!("QEMU refuses `{command}`: {why}");
                return Err(Error::new(ErrorKind::Io, text).at_path(&self.socket));
            }
            return match said.get_mut("return") {
                Some(value) => Ok(value.take()),
                None => Err(self.nonsense(&said)),
            };
        }
        Err(Error::malformed("QEMU tells of events without end").at_path(&self.socket))
    }

    /// Ends QEMU, and returns when it has closed the connection.
    ///
    /// # Errors
    /// As [`execute`](Self::execute), but that QEMU is gone before it has answered is none.
    pub fn quit(mut self) -> Result<()> {
        let mut said = self.execute("quit", json!({})).map(drop);
        while said.is_ok() {
            said = self.hear().map(drop);
        }
        if self.has_ended { Ok(()) } else { said }
    }

    /// The next object that QEMU says.
    fn hear(&mut self) -> Result<Value> {
        let mut text = Vec::new();
        let mut bounded = (&mut self.line).take(LINE_MAX);
        let read = bounded.read_until(b'\n', &mut text);
        read.map_err(|e| self.gone(e))?;
        if text.last() != Some(&b'\n') {
            if text.len() as u64 >= LINE_MAX {
                let what = "QEMU says too much at once";
                return Err(Error::new(ErrorKind::LimitExceeded, what).at_path(&self.socket));
            }
            return Err(self.gone(Kind::UnexpectedEof.into()));
        }
        serde_json::from_slice(&text).map_err(|e| {
            let said = Value::String(String::from_utf8_lossy(&text).trim().to_owned());
            self.nonsense(&said).caused_by(e)
        })
    }

    fn gone(&mut self, cause: std::io::Error) -> Error {
        let cause = match cancelled(cause) {
            Ok(error) => return error,
            Err(cause) => cause,
        };
        self.has_ended = cause.kind() != Kind::TimedOut;
        let what = match self.has_ended {
            false => "QEMU does not answer in time",
            true => "QEMU has ended the connection",
        };
        Error::new(ErrorKind::Io, what)
            .at_path(&self.socket)
            .caused_by(cause)
    }

    fn nonsense(&self, said: &Value) -> Error {
        let said: String = said.to_string().chars().take(200).collect();
        Error::malformed(format!("what should be QEMU says something else: {said}"))
            .at_path(&self.socket)
    }
}

const LINE_MAX: u64 = 16 << 20;
const EVENTS_MAX: usize = 100_000;
const NAP: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

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
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let says = std::thread::spawn(move || {
                theirs.write_all(said.as_bytes()).unwrap();
                let heard = match end {
                    End::Close => LINE_MAX,
                    // What was not read is why the other end sees a reset.
                    End::Reset | End::Never => 1,
                };
                let mut heard = BufReader::with_capacity(1, (&theirs).take(heard));
                heard.read_until(b'\n', &mut Vec::new()).unwrap();
                matches!(end, End::Never).then_some(theirs)
            });
            let limit = Duration::from_millis(if text.is_some() { 300 } else { 30_000 });
            let qmp = Qmp {
                line: BufReader::new(Line::over(ours, limit, &CancelToken::new()).unwrap()),
                socket: PathBuf::new(),
                sent: 1,
                has_ended: false,
            };
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
}
