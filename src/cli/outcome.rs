//! How a run ends: exit statuses and error texts.

use std::path::Path;
use std::process::ExitCode;

use crate::api::OpenTarget;
use crate::location::without_queries;
use crate::sync::HostTarget;
use crate::text::{escape, escape_path};
use crate::{Error, ErrorKind};
use serde::Serialize;

use super::advice;
use super::args::Common;
use super::context::to_json;
use super::print::{print_error_line, print_line};

/// The exit statuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done, or identical.
    Done = 0,
    /// The images differ.
    Differs = 1,
    /// An error.
    Error = 2,
    /// The target is incomplete until it is recovered.
    Recover = 3,
    /// Done, but for source ranges that could not be read.
    Gaps = 4,
    /// A request did not lead where it should: the job stands still, or went elsewhere.
    Stuck = 5,
    /// A replica is older than its plan allows.
    Overdue = 6,
}

/// An error, and what it means for the target.
pub(super) struct Failure {
    error: Error,
    marked: bool,
}

impl Failure {
    /// An error of a sync onto `target`.
    pub(super) fn of_sync(target: &OpenTarget, error: Error) -> Failure {
        Failure {
            error,
            marked: target.may_be_incomplete(),
        }
    }

    /// An error of work on `target`, which is asked whether it is incomplete now.
    pub(super) fn onto(target: &HostTarget) -> impl FnOnce(Error) -> Failure {
        move |error| Failure {
            error,
            // One that cannot be asked, as after a failed sync, may be incomplete.
            marked: !matches!(target.marker(), Ok(None)),
        }
    }

    /// Names the work that failed, see [`Error::during_work`].
    pub(super) fn during_work(mut self, work: &'static str) -> Failure {
        self.error = self.error.during_work(work);
        self
    }

    pub(super) fn error(&self) -> &Error {
        &self.error
    }

    fn exit(&self) -> Exit {
        if self.marked || self.error.kind() == ErrorKind::Incomplete {
            Exit::Recover
        } else {
            Exit::Error
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure {
            error,
            marked: false,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// How a verb ends.
pub(super) type Ended = Result<Exit, Failure>;

/// Says what is wrong with the command line: with one object where `--json` is among the words, and
/// in one line where a value is what is wrong.
///
/// `parsed` parses other words, and tells what is wrong with them.
pub(super) fn misused(
    error: &clap::Error,
    parsed: impl FnOnce(Vec<String>) -> Option<clap::Error>,
) -> ExitCode {
    if !error.use_stderr() {
        // What was asked for: help, or the version.
        error.exit();
    }
    let value = std::error::Error::source(error).and_then(|it| it.downcast_ref::<Error>());
    let shown = escaped(error, parsed);
    match value {
        Some(value) => complain(value),
        // Where standard error is closed there is nowhere to print it.
        None => drop(shown.print()),
    }
    let words = std::env::args_os().skip(1);
    let mut options = words.take_while(|word| word != "--");
    if options.any(|word| word == "--json") {
        let text = shown.to_string();
        let mut lines = text.lines();
        let first = lines.next().unwrap_or_default();
        let mut first = first.strip_prefix("error: ").unwrap_or(first).to_owned();
        if first.ends_with(':') {
            // What is missing is listed below.
            for line in lines.take_while(|line| line.starts_with("  ")) {
                first = format!("{first} {}", line.trim());
            }
        }
        print_object(&Object {
            status: Exit::Error as u8,
            error: Text {
                kind: ErrorKind::InvalidInput,
                message: value.map_or(first, advice::text),
                path: value.and_then(path_of),
                field: None,
                offset: None,
            },
        });
    }
    Exit::Error.into()
}

/// The same error with the words of the command line escaped and without secrets, where it is
/// still the same then.
fn escaped(
    error: &clap::Error,
    parsed: impl FnOnce(Vec<String>) -> Option<clap::Error>,
) -> clap::Error {
    let words = std::env::args_os().map(|word| without_queries(&escape_path(Path::new(&word))));
    match parsed(words.collect()) {
        Some(same) if same.kind() == error.kind() => same,
        // Escaping has made sense of it.
        _ => {
            let lines = without_queries(&error.to_string());
            let lines: Vec<_> = lines.lines().map(escape).collect();
            clap::Error::raw(error.kind(), lines.join("\n") + "\n")
        }
    }
}

/// The text on standard error has told of the error already, so that this may fail.
fn print_object(object: &Object) {
    let _ = to_json(object).and_then(|line| print_line(&line));
}

fn path_of(error: &Error) -> Option<String> {
    error.path().map(|path| path.display().to_string())
}

/// Prints an error on standard error; the exit status stays what it is where that is closed or
/// full.
fn complain(error: &Error) {
    print_error_line(&format!("diskdelta: {}", advice::text(error)));
}

/// Says what went wrong.
pub(super) fn fail(common: &Common, failure: &Failure) -> ExitCode {
    let exit = failure.exit();
    complain(&failure.error);
    if common.json {
        let error = &failure.error;
        print_object(&Object {
            status: exit as u8,
            error: Text {
                kind: error.kind(),
                message: advice::text(error),
                path: path_of(error),
                field: error.field(),
                offset: error.offset(),
            },
        });
    }
    exit.into()
}

#[derive(Serialize)]
struct Object {
    status: u8,
    error: Text,
}

#[derive(Serialize)]
struct Text {
    kind: ErrorKind,
    message: String,
    path: Option<String>,
    field: Option<&'static str>,
    offset: Option<u64>,
}
