//! A client of QEMU's monitor: one command at a time, each answered in time or not at all.

use std::io::{BufRead, BufReader, ErrorKind as Kind, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::line::Line;
use crate::error::{Error, ErrorKind, Result};

/// A connection to a QEMU's monitor. QEMU speaks to one client at a time.
pub struct Qmp {
    line: BufReader<Line>,
    socket: PathBuf,
    sent: u64,
}

impl Qmp {
    /// Connects to the QEMU behind a socket; `None` where none listens. Every answer must be there
    /// within `limit`.
    ///
    /// # Errors
    /// `Malformed` for what does not speak QMP; `Io`, also where somebody else speaks to it now.
    pub fn connect(socket: &Path, limit: Duration) -> Result<Option<Self>> {
        let line = match Line::connect(socket, limit) {
            Err(e) if matches!(e.kind(), Kind::NotFound | Kind::ConnectionRefused) => {
                return Ok(None);
            }
            line => line.map_err(|e| Error::io("connect to", e).at_path(socket))?,
        };
        let mut qmp = Qmp {
            line: BufReader::new(line),
            socket: socket.to_owned(),
            sent: 0,
        };
        let greeting = qmp.hear().map_err(|error| match error.kind() {
            ErrorKind::Io => error.advise("does another program hold the monitor?"),
            _ => error,
        })?;
        if !greeting["QMP"].is_object() {
            return Err(qmp.nonsense(&greeting));
        }
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(Some(qmp))
    }

    /// Has a command carried out, and gives what it returns. Events that come meanwhile are passed
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

    fn gone(&self, cause: std::io::Error) -> Error {
        let what = match cause.kind() {
            Kind::TimedOut => "QEMU does not answer in time",
            _ => "QEMU has ended the connection",
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

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    /// A QEMU that says these lines, whatever it hears, and then leaves or stays.
    fn told(lines: &str, stays: bool) -> Result<Value> {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("qmp.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let lines = lines.to_owned();
        let says = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // A client that has heard enough may leave before the end.
            let _ = stream.write_all(lines.as_bytes());
            let mut heard = String::new();
            if stays {
                // Until the client leaves.
                let _ = stream.read_to_string(&mut heard);
            }
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
            ("", false, ErrorKind::Io, "ended the connection"),
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
    fn a_line_without_end_is_bounded() {
        let error = told(&"x".repeat(17 << 20), true).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LimitExceeded);
    }
}
