//! Runs a program of the operator's: with a time limit, and with bounds on what it says.

use std::ffi::OsString;
use std::fmt;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::error::{Error, ErrorKind, Result};
use crate::progress::CancelToken;

/// A program with its arguments and its environment.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    argv: Vec<String>,
    env: Vec<(&'static str, OsString)>,
}

/// What a program said before it ended well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spoken {
    /// All of its standard output.
    pub output: Vec<u8>,
}

impl Program {
    /// A program and its arguments.
    ///
    /// # Errors
    /// `InvalidInput` without a program.
    pub(crate) fn new(argv: Vec<String>) -> Result<Self> {
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
    #[cfg(any(feature = "failback", feature = "qemu"))]
    pub(crate) fn with_env(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.env.push((name, value.into()));
        self
    }

    /// Runs it in a process group of its own, which is killed when its time is up.
    ///
    /// # Errors
    /// `NotFound`, `Io` when it cannot be started, fails, or takes longer than `limit`;
    /// `LimitExceeded` when it prints more than 16 MiB; `Cancelled`. The last that it wrote to
    /// standard error is in the text.
    pub(crate) fn run(
        &self,
        input: &[u8],
        limit: Duration,
        cancel: &CancelToken,
    ) -> Result<Spoken> {
        cancel.check()?;
        let mut child = self.start()?;
        let mut pipes = Pipes::of(&mut child, input);
        let ended = self.wait(&mut child, &mut pipes, limit, cancel);
        if ended.is_err() {
            kill(&mut child);
        }
        pipes.finish();
        let complaint = String::from_utf8_lossy(&pipes.complaint.bytes);
        let status = ended.map_err(|error| explain(error, &complaint))?;
        if !status.success() {
            let error = Error::new(ErrorKind::Io, format!("`{self}` failed, {status}"));
            return Err(explain(error, &complaint));
        }
        if !pipes.output.is_all {
            let text = format!("`{self}` printed more than {OUTPUT_MAX} bytes");
            return Err(Error::new(ErrorKind::LimitExceeded, text));
        }
        Ok(Spoken {
            output: pipes.output.bytes,
        })
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

    fn wait(
        &self,
        child: &mut Child,
        pipes: &mut Pipes,
        limit: Duration,
        cancel: &CancelToken,
    ) -> Result<ExitStatus> {
        let begin = Instant::now();
        let failed = |e| Error::io("wait for program", e).at_path(&self.argv[0]);
        let mut nap = Duration::from_millis(1);
        loop {
            if let Some(status) = child.try_wait().map_err(failed)? {
                return Ok(status);
            }
            cancel.check()?;
            if begin.elapsed() >= limit {
                let text = format!("`{self}` took longer than {limit:?} and was killed");
                return Err(Error::new(ErrorKind::Io, text));
            }
            if pipes.transfer(nap) {
                nap = Duration::from_millis(1);
            } else {
                nap = (nap * 2).min(Duration::from_millis(50));
            }
        }
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.argv.join(" "))
    }
}

/// What goes to a program, and what comes from it, transferred by the thread that waits for it.
///
/// A process that the program leaves behind may hold its ends open; ours are closed all the same,
/// and it gets an error, or SIGPIPE, when it writes to them.
struct Pipes {
    input: Option<(ChildStdin, Vec<u8>)>,
    stdout: Option<ChildStdout>,
    output: Kept,
    stderr: Option<ChildStderr>,
    complaint: Kept,
}

impl Pipes {
    fn of(child: &mut Child, input: &[u8]) -> Self {
        let pipes = Pipes {
            input: child.stdin.take().map(|pipe| (pipe, input.to_vec())),
            stdout: child.stdout.take(),
            output: Kept::new(OUTPUT_MAX, Keep::First),
            stderr: child.stderr.take(),
            complaint: Kept::new(COMPLAINT_MAX, Keep::Last),
        };
        // Our ends only: the program's are what it finds them to be.
        let ends = [
            pipes.input.as_ref().map(|(pipe, _)| pipe.as_fd()),
            pipes.stdout.as_ref().map(AsFd::as_fd),
            pipes.stderr.as_ref().map(AsFd::as_fd),
        ];
        for end in ends.into_iter().flatten() {
            // One that cannot be set is waited for by `poll` all the same.
            let _ = rustix::io::ioctl_fionbio(end, true);
        }
        pipes
    }

    /// Transfers what can be transferred, and waits for at most `at_most` where that is nothing.
    /// Whether anything moved.
    fn transfer(&mut self, at_most: Duration) -> bool {
        let (none, mut fds) = (Timespec::default(), Vec::new());
        if let Some((pipe, _)) = &self.input {
            fds.push(PollFd::new(pipe, PollFlags::OUT));
        }
        if let Some(pipe) = &self.stdout {
            fds.push(PollFd::new(pipe, PollFlags::IN));
        }
        if let Some(pipe) = &self.stderr {
            fds.push(PollFd::new(pipe, PollFlags::IN));
        }
        let wait = Timespec::try_from(at_most).unwrap_or(none);
        let ready = rustix::event::poll(&mut fds, Some(&wait));
        if !ready.is_ok_and(|ready| ready > 0) {
            return false;
        }
        self.feed() | self.output.read(&mut self.stdout) | self.complaint.read(&mut self.stderr)
    }

    /// Gives the program its input. One that does not care to read is no error.
    fn feed(&mut self) -> bool {
        let Some((pipe, left)) = &mut self.input else {
            return false;
        };
        let written = match pipe.write(left) {
            Err(e) if is_for_later(&e) => return false,
            Err(_) => left.len(),
            Ok(written) => written,
        };
        left.drain(..written);
        if left.is_empty() {
            self.input = None;
        }
        true
    }

    /// Takes what is still on its way. A process that the program left behind is waited for a
    /// little, and no longer.
    fn finish(&mut self) {
        self.input = None;
        let begin = Instant::now();
        while (self.stdout.is_some() || self.stderr.is_some()) && begin.elapsed() < LEFT_LIMIT {
            self.transfer(Duration::from_millis(20));
        }
        (self.stdout, self.stderr) = (None, None);
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
    bytes: Vec<u8>,
    is_all: bool,
    max: usize,
    keep: Keep,
}

impl Kept {
    fn new(max: usize, keep: Keep) -> Self {
        Kept {
            bytes: Vec::new(),
            is_all: true,
            max,
            keep,
        }
    }

    /// Reads once; a pipe that has ended is closed.
    fn read(&mut self, from: &mut Option<impl Read>) -> bool {
        let Some(pipe) = from else {
            return false;
        };
        let mut chunk = [0; 8192];
        let len = match pipe.read(&mut chunk) {
            Err(e) if is_for_later(&e) => return false,
            Err(_) | Ok(0) => {
                *from = None;
                return true;
            }
            Ok(len) => len,
        };
        self.bytes.extend_from_slice(&chunk[..len]);
        let over = self.bytes.len().saturating_sub(self.max);
        self.is_all &= over == 0;
        match self.keep {
            Keep::First => self.bytes.truncate(self.max),
            Keep::Last => drop(self.bytes.drain(..over)),
        }
        true
    }
}

fn is_for_later(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{Interrupted, WouldBlock};
    matches!(error.kind(), Interrupted | WouldBlock)
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

/// How long what still holds the program's output is read on, once the program has ended.
const LEFT_LIMIT: Duration = Duration::from_secs(1);
const OUTPUT_MAX: usize = 16 << 20;
const COMPLAINT_MAX: usize = 4 << 10;
