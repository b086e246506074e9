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
    /// `Malformed` for what does not speak QMP; `Io`, also where another program has the monitor.
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
        Err(Error::malformed("QEMU sends events without end").at_path(&self.socket))
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
