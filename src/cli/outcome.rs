//! How a run ends: exit statuses and error texts.

use std::process::ExitCode;

use diskdelta::sync::HostTarget;
use diskdelta::{Error, ErrorKind};
use serde::Serialize;

use super::args::Common;
use super::context::{print_line, to_json};

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
}

/// An error, and what it means for the target.
pub struct Failure {
    error: Error,
    marked: bool,
}

impl Failure {
    /// An error of work on `target`, which is asked whether it is incomplete now.
    pub fn onto(target: &HostTarget) -> impl FnOnce(Error) -> Failure {
        move |error| Failure {
            error,
            // One that cannot be asked, as after a failed sync, may be incomplete.
            marked: !matches!(target.mark(), Ok(None)),
        }
    }

    pub fn error(&self) -> &Error {
        &self.error
    }

    fn exit(&self) -> Exit {
        if self.marked || self.error.kind() == ErrorKind::Marked {
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

/// Says what went wrong.
pub fn fail(common: &Common, failure: &Failure) -> ExitCode {
    let exit = failure.exit();
    eprintln!("diskdelta: {}", failure.error);
    if common.json {
        let error = &failure.error;
        let object = Object {
            status: exit as u8,
            error: Text {
                kind: snake_case(&format!("{:?}", error.kind())),
                message: error.to_string(),
                path: error.path().map(|path| path.display().to_string()),
                field: error.field(),
                offset: error.offset(),
            },
        };
        // The text above has said it already.
        let _ = to_json(&object).and_then(|line| print_line(&line));
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
    kind: String,
    message: String,
    path: Option<String>,
    field: Option<&'static str>,
    offset: Option<u64>,
}

fn snake_case(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}
