//! Lines on standard output and standard error.

#[cfg(feature = "failback")]
use std::io::IsTerminal;
use std::io::{ErrorKind, Write};

use crate::{Error, Result};

/// Prints on standard output; a reader who has gone away is no error.
///
/// # Errors
/// `Io`, `NoSpace`.
pub(super) fn print_line(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(cause) if cause.kind() != ErrorKind::BrokenPipe => {
            Err(Error::io("write to standard output", cause))
        }
        _ => Ok(()),
    }
}

/// Clears the terminal of standard output, if it is one, for what is shown again and again.
#[cfg(feature = "failback")]
pub(super) fn clear_screen() {
    let mut out = std::io::stdout().lock();
    if out.is_terminal() {
        let _ = out.write_all(b"\x1b[H\x1b[2J");
    }
}

/// Prints on standard error. Where that is closed or full there is nowhere to say so: the work
/// goes on, and the exit status tells how it ended.
pub(super) fn print_error_line(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
