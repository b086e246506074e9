//! Agents behind a remote shell.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use super::pipe::{Pipe, PipeEnd};
use crate::advice::Advice;
use crate::error::{Error, ErrorKind, Result};
use crate::location::RemoteAddress;
use crate::path_bytes::{bytes_of, path_of};
use crate::text::escape_path;

/// How an agent is started.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ShellOptions {
    /// The remote shell, split at spaces: a program and what comes before the host.
    pub shell: String,
    /// The program to run there.
    pub program: String,
    /// Where the agent keeps its state, where that is not its default. An agent that is started
    /// with options of its host's choosing keeps to those.
    pub state_dir: Option<PathBuf>,
    /// Whether what the shell prints as errors is kept for `Shell::explain` alone, instead of
    /// also going where this process's errors go.
    pub keeps_errors: bool,
}

impl ShellOptions {
    /// Replaces [`ShellOptions::shell`].
    #[must_use]
    pub fn with_shell(mut self, shell: impl Into<String>) -> Self {
        self.shell = shell.into();
        self
    }

    /// Replaces [`ShellOptions::program`].
    #[must_use]
    pub fn with_program(mut self, program: impl Into<String>) -> Self {
        self.program = program.into();
        self
    }

    /// Replaces [`ShellOptions::state_dir`].
    #[must_use]
    pub fn with_state_dir(mut self, state_dir: Option<PathBuf>) -> Self {
        self.state_dir = state_dir;
        self
    }

    /// Replaces [`ShellOptions::keeps_errors`].
    #[must_use]
    pub fn with_keeps_errors(mut self, keeps: bool) -> Self {
        self.keeps_errors = keeps;
        self
    }
}

impl Default for ShellOptions {
    fn default() -> Self {
        ShellOptions {
            shell: "ssh".to_owned(),
            program: "diskdelta".to_owned(),
            state_dir: None,
            keeps_errors: false,
        }
    }
}

/// A running shell with an agent behind it; when dropped it has a moment to end, and is ended then.
/// So are its streams, also where a process that it started keeps their other ends open.
pub struct Shell {
    child: Child,
    /// Ends the streams.
    end: Option<PipeEnd>,
    /// The program to run there.
    program: String,
    /// Whether an agent has answered.
    greeted: bool,
    /// The last that it printed as errors.
    complaint: Option<Complaint>,
}

opaque!(Shell);

/// The last that a shell has printed as errors, and the thread that reads on.
struct Complaint {
    kept: Arc<Mutex<Vec<u8>>>,
    keeper: JoinHandle<()>,
}

impl Shell {
    /// Starts an agent at `at`, which takes this end's silence for `timeout`, where that is not
    /// what it does anyway.
    ///
    /// # Errors
    /// `NotFound` for a missing shell; `Io`.
    pub fn start(
        at: &RemoteAddress,
        options: &ShellOptions,
        timeout: Option<Duration>,
    ) -> Result<Shell> {
        let mut words = options.shell.split_whitespace().map(OsString::from);
        let program = words.next().unwrap_or_else(|| "ssh".into());
        let mut command = Command::new(&program);
        command.args(words);
        if let Some(port) = at.port() {
            command.arg("-p").arg(port.to_string());
        }
        if let Some(user) = at.user() {
            command.arg("-l").arg(user);
        }
        command.arg(at.host()).arg(&options.program);
        command.args(["serve", "--stdio"]);
        if let Some(timeout) = timeout {
            command.arg(format!("--timeout={}s", timeout.as_secs().max(1)));
        }
        if let Some(directory) = &options.state_dir {
            command.arg(state_option(directory)?);
        }
        let failed = |cause| Error::io("make a pipe for the remote shell", cause);
        let end = PipeEnd::new().map_err(failed)?;
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|cause| {
                Error::io("start the remote shell", cause)
                    .at_path(&program)
                    .advise("install it")
                    .or_advise(Advice::RemoteShell)
            })?;
        let complaint = child.stderr.take().map(|errors| {
            let errors = Pipe::new(errors, &end);
            let kept = Arc::new(Mutex::new(Vec::new()));
            let keeps = kept.clone();
            let shows = !options.keeps_errors;
            let keep = move || keep_last(errors, &keeps, shows);
            let keeper = Builder::new().name("shell errors".to_owned()).spawn(keep);
            keeper.map(|keeper| Complaint { kept, keeper })
        });
        let mut shell = Shell {
            child,
            end: Some(end),
            program: options.program.clone(),
            greeted: false,
            complaint: None,
        };
        // Where there is no thread for it, dropping the shell ends it.
        let failed = |cause| Error::io("start a thread for the remote shell", cause);
        shell.complaint = complaint.transpose().map_err(failed)?;
        Ok(shell)
    }

    /// Both directions, once.
    ///
    /// # Errors
    /// `Io` the second time.
    pub fn streams(&mut self) -> Result<(Pipe<ChildStdout>, Pipe<ChildStdin>)> {
        let streams = (self.child.stdout.take(), self.child.stdin.take());
        match (streams, &self.end) {
            ((Some(output), Some(input)), Some(end)) => {
                Ok((Pipe::new(output, end), Pipe::new(input, end)))
            }
            _ => Err(Error::new(ErrorKind::Io, "the shell's streams are in use")),
        }
    }

    /// Notes that an agent has answered: errors from then on are those of a line that was lost.
    pub fn greeted(&mut self) {
        self.greeted = true;
    }

    /// The error of a line that broke, with what shows why: the status that the shell ended with,
    /// and the last that it printed. Whether the host was not found, its key is another one, or
    /// nothing is installed there. Takes two seconds at most.
    pub fn explain(&mut self, error: Error) -> Error {
        if error.kind() != ErrorKind::Io {
            return error;
        }
        let status = self.status();
        // Once an agent has answered, the same command may well go on where it stopped.
        let first = !self.greeted;
        let cause = match status {
            Some(NOT_FOUND) if first => vec![
                format!("`{}` was not found there: install it", self.program).into(),
                Advice::RemoteProgram,
            ],
            Some(SSH_FAILED) if first => vec!["the remote shell could not reach the host".into()],
            Some(status @ 1..) => {
                vec![format!("the remote shell ended with status {status}").into()]
            }
            _ => Vec::new(),
        };
        let is_final = first && matches!(status, Some(NOT_FOUND | SSH_FAILED));
        let before = error.advice().iter().filter(|_| !is_final).cloned();
        let said = self.said().map(Advice::from);
        let advice = cause.into_iter().chain(before).chain(said).collect();
        error.advise_all(advice)
    }

    /// The status that it ended with, where it ends now.
    fn status(&mut self) -> Option<i32> {
        let mut status = None;
        waits(LAST_WORDS, || {
            status = self.child.try_wait().ok().flatten();
            status.is_some()
        });
        status?.code()
    }

    /// The last that it printed as errors.
    fn said(&self) -> Option<String> {
        let complaint = self.complaint.as_ref()?;
        // What ends it is printed before it ends.
        waits(LAST_WORDS, || complaint.keeper.is_finished());
        let kept = complaint.kept.lock();
        let kept = kept.unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&kept);
        // Nothing in it steers a terminal.
        let lines = text.lines().map(|line| line.replace(char::is_control, " "));
        let lines = lines.filter(|line| !line.trim().is_empty());
        let lines: Vec<_> = lines.collect();
        let last = lines.get(lines.len().saturating_sub(LINES)..)?;
        (!last.is_empty()).then(|| format!("the remote shell said: {}", last.join("; ")))
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        if !waits(PATIENCE, || !matches!(self.child.try_wait(), Ok(None))) {
            // Nothing more can be done about one that does not end.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        self.end = None;
        if let Some(complaint) = &self.complaint {
            // It ends by itself, but where standard error takes nothing.
            waits(LAST_WORDS, || complaint.keeper.is_finished());
        }
    }
}

/// The option that names the agent's directory for its state. The shell there splits words and
/// takes other characters for more than they are.
fn state_option(directory: &Path) -> Result<OsString> {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-+@%:,=".contains(byte);
    let bytes = bytes_of(directory);
    if !directory.is_absolute() || !bytes.iter().all(is_plain) {
        let what =
            "a directory at another host is an absolute path of letters, digits and `/._-+@%:,=`";
        return Err(Error::new(ErrorKind::InvalidInput, what).at_path(directory));
    }
    let mut option = OsString::from("--state-dir=");
    option.push(directory);
    Ok(option)
}

/// Waits until it `is` so, but no longer than that; says whether it is.
fn waits(patience: Duration, mut is: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < patience {
        if is() {
            return true;
        }
        std::thread::sleep(NAP);
    }
    false
}

/// Keeps the last of what comes, until it ends, and shows it where it `shows` it.
fn keep_last(mut from: impl Read, kept: &Mutex<Vec<u8>>, shows: bool) {
    let mut buf = [0; COMPLAINT_BYTES];
    loop {
        match from.read(&mut buf) {
            Ok(count @ 1..) => {
                if shows {
                    show(buf.get(..count).unwrap_or_default());
                }
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.extend_from_slice(buf.get(..count).unwrap_or_default());
                let excess = kept.len().saturating_sub(COMPLAINT_BYTES);
                kept.drain(..excess);
            }
            Err(cause) if cause.kind() == std::io::ErrorKind::Interrupted => {}
            _ => return,
        }
    }
}

/// Prints what a remote shell printed as errors, escaped line by line.
fn show(bytes: &[u8]) {
    let mut out = String::new();
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let (line, end) = match line.strip_suffix(b"\n") {
            Some(line) => (line.strip_suffix(b"\r").unwrap_or(line), "\n"),
            None => (line, ""),
        };
        out += &escape_path(&path_of(line));
        out += end;
    }
    // Where standard error is closed there is nowhere to show it.
    let _ = std::io::stderr().write_all(out.as_bytes());
}

/// What shells end with where there is no such program.
const NOT_FOUND: i32 = 127;
/// What ssh ends with where it is ssh that failed.
const SSH_FAILED: i32 = 255;
const COMPLAINT_BYTES: usize = 4 << 10;
/// How many lines of a complaint are worth telling.
const LINES: usize = 3;
const LAST_WORDS: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(5);
const NAP: Duration = Duration::from_millis(5);
