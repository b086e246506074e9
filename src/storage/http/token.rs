//! A bearer token that a program gives.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use crate::program::Program;
use crate::progress::CancelToken;

/// Has a program make a token once the server asks for one. It is sent to the host that was named,
/// and to no host that this one redirects to.
pub(super) struct Token {
    program: Option<Program>,
    /// The beginning of addresses that it is for.
    origin: String,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    token: Option<String>,
    made: Option<Instant>,
}

impl Token {
    /// `command` is a program and its arguments.
    ///
    /// # Errors
    /// `InvalidInput` where it names no program.
    pub(super) fn new(command: Option<&[String]>, origin: String) -> Result<Self> {
        let program = command
            .map(|argv| Program::new(argv.to_vec()))
            .transpose()?;
        Ok(Token {
            program,
            origin: origin + "/",
            held: Mutex::default(),
        })
    }

    /// The token for requests to `url`, where there is one.
    pub(super) fn of(&self, url: &str) -> Option<String> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.token.clone().filter(|_| url.starts_with(&self.origin))
    }

    /// Makes another one than `refused`; false where there is no program, or where one that it has
    /// just made was refused.
    ///
    /// # Errors
    /// `Io`, `NotFound` where the program fails; `Malformed` for what is no token; `Cancelled`.
    pub(super) fn renew(&self, refused: Option<&str>, cancel: &CancelToken) -> Result<bool> {
        let Some(program) = &self.program else {
            return Ok(false);
        };
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.token.as_deref() != refused {
            return Ok(true);
        }
        if held.made.is_some_and(|made| made.elapsed() < SHORTEST_LIFE) {
            return Ok(false);
        }
        let spoken = program.run(&[], LONGEST_RUN, cancel)?;
        let token = String::from_utf8(spoken.output).unwrap_or_default();
        let token = token.trim();
        let is_sound = !token.is_empty()
            && token.len() <= TOKEN_BYTES
            && token.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_sound {
            let what = "the program for tokens does not print one";
            return Err(Error::new(ErrorKind::Malformed, what));
        }
        held.token = Some(token.to_owned());
        held.made = Some(Instant::now());
        Ok(true)
    }
}

const LONGEST_RUN: Duration = Duration::from_secs(60);
/// A token that is refused sooner is not made again.
const SHORTEST_LIFE: Duration = Duration::from_secs(30);
const TOKEN_BYTES: usize = 16 << 10;
