//! Runs a program of the operator's: with a time limit, and with bounds on what it says.

use std::ffi::OsString;
use std::fmt;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::control::CancelToken;
use crate::error::{Error, ErrorKind, Result};

/// A program with its arguments and its environment.
#[derive(Debug, Clone)]
pub(super) struct Program {
    argv: Vec<String>,
    env: Vec<(&'static str, OsString)>,
}

/// What a program said before it ended well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spoken {
    /// All of its standard output.
    pub output: Vec<u8>,
}

impl Program {
    /// A program and its arguments.
    ///
    /// # Errors
    /// `InvalidInput` without a program.
    pub fn new(argv: Vec<String>) -> Result<Self> {
        if argv.first().is_none_or(String::is_empty) {
            return Err(Error::new(ErrorKind::InvalidInput, "no program is named"));
        }
        Ok(Program {
            argv,
            env: Vec::new(),
        })
    }

    /// Adds to its environment.
    #[must_use]
    pub fn with_env(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.env.push((name, value.into()));
        self
    }

    /// Runs it in a process group of its own, which is killed when its time is up.
    ///
    /// # Errors
    /// `NotFound`, `Io` when it cannot be started, fails, or takes longer than `limit`;
    /// `LimitExceeded` when it prints more than 16 MiB; `Cancelled`. The last that it wrote to
    /// standard error is in the text.
    pub fn run(&self, input: &[u8], limit: Duration, cancel: &CancelToken) -> Result<Spoken> {
        cancel.check()?;
        let mut child = self.start()?;
        let output = Kept::of(child.stdout.take(), OUTPUT_MAX, Keep::First);
        let complaint = Kept::of(child.stderr.take(), COMPLAINT_MAX, Keep::Last);
        let ended = self.feed(&mut child, input);
        let ended = ended.and_then(|()| self.wait(&mut child, limit, cancel));
        if ended.is_err() {
            kill(&mut child);
        }
        let (output, all) = output.finish();
        let complaint = complaint.finish().0;
        let complaint = String::from_utf8_lossy(&complaint);
        let status = ended.map_err(|error| explain(error, &complaint))?;
        if !status.success() {
            let error = Error::new(ErrorKind::Io, format!("`{self}` failed, {status}"));
            return Err(explain(error, &complaint));
        }
        if !all {
            let text = format!("`{self}` printed more than {OUTPUT_MAX} bytes");
            return Err(Error::new(ErrorKind::LimitExceeded, text));
        }
        Ok(Spoken { output })
    }

    fn start(&self) -> Result<Child> {
        let mut command = Command::new(&self.argv[0]);
        command
            .args(&self.argv[1..])
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        command
            .spawn()
            .map_err(|e| Error::io("start program", e).at_path(&self.argv[0]))
    }

    /// Gives it its input. A program that does not care to read is no error.
    fn feed(&self, child: &mut Child, input: &[u8]) -> Result<()> {
        let Some(mut stdin) = child.stdin.take() else {
            return Ok(());
        };
        let input = input.to_vec();
        // In a thread: a program that never reads must not hold up the time limit.
        std::thread::spawn(move || stdin.write_all(&input));
        Ok(())
    }

    fn wait(&self, child: &mut Child, limit: Duration, cancel: &CancelToken) -> Result<ExitStatus> {
        let begin = Instant::now();
        let mut nap = Duration::from_millis(1);
        loop {
            let ended = child.try_wait();
            let ended =
                ended.map_err(|e| Error::io("wait for program", e).at_path(&self.argv[0]))?;
            if let Some(status) = ended {
                return Ok(status);
            }
            cancel.check()?;
            if begin.elapsed() >= limit {
                let text = format!("`{self}` took longer than {limit:?} and was killed");
                return Err(Error::new(ErrorKind::Io, text));
            }
            std::thread::sleep(nap);
            nap = (nap * 2).min(Duration::from_millis(50));
        }
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.argv.join(" "))
    }
}

/// Which end of too long a text is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keep {
    First,
    Last,
}

/// What a pipe brought, up to a bound; the rest is read and dropped, so that the writer goes on.
struct Kept {
    text: Arc<Mutex<(Vec<u8>, bool)>>,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Kept {
    fn of(pipe: Option<impl Read + Send + 'static>, max: usize, keep: Keep) -> Self {
        let text = Arc::new(Mutex::new((Vec::new(), true)));
        let shared = text.clone();
        let reader = pipe.map(|mut pipe| {
            std::thread::spawn(move || {
                let mut chunk = [0; 8192];
                while let Ok(len @ 1..) = pipe.read(&mut chunk) {
                    let mut text = shared.lock().unwrap_or_else(PoisonError::into_inner);
                    text.0.extend_from_slice(&chunk[..len]);
                    let over = text.0.len().saturating_sub(max);
                    text.1 &= over == 0;
                    match keep {
                        Keep::First => text.0.truncate(max),
                        Keep::Last => drop(text.0.drain(..over)),
                    }
                }
            })
        });
        Kept { text, reader }
    }

    /// What was kept, and whether that is all. A child of the program that lives on, such as a VM,
    /// may hold the pipe open; it is not waited for.
    fn finish(self) -> (Vec<u8>, bool) {
        let begin = Instant::now();
        let done = |kept: &Kept| {
            kept.reader
                .as_ref()
                .is_none_or(|reader| reader.is_finished())
        };
        while !done(&self) && begin.elapsed() < Duration::from_secs(1) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        text.clone()
    }
}

/// Kills a program and all that it started and that stayed in its group.
fn kill(child: &mut Child) {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let Some(group) = group {
        // It may have ended by itself meanwhile.
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.wait();
}

fn explain(error: Error, complaint: &str) -> Error {
    match complaint.trim() {
        "" => error,
        said => Error::new(error.kind(), format!("{error}; it said: {said}")),
    }
}

const OUTPUT_MAX: usize = 16 << 20;
const COMPLAINT_MAX: usize = 4 << 10;
