//! What carries a line.

use super::ssh::Shell;
use crate::error::Error;
#[cfg(feature = "tls")]
use crate::remote::tls::TlsLine;

/// What carries a line; the line ends where it is dropped.
pub(crate) struct Connection(pub(in crate::remote) Kind);

pub(in crate::remote) enum Kind {
    Shell(Shell),
    #[cfg(feature = "tls")]
    Tls(#[expect(dead_code, reason = "holds the connection open")] TlsLine),
}

impl Connection {
    /// The error of a line that broke, with what the shell said of it where that was kept.
    pub(crate) fn explain(&mut self, error: Error) -> Error {
        match &mut self.0 {
            Kind::Shell(shell) => shell.explain(error),
            #[cfg(feature = "tls")]
            Kind::Tls(_) => error,
        }
    }
}
