//! How another host is reached.

use super::ssh::{Shell, ShellOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::location::RemoteAddress;
use crate::progress::Work;
use crate::remote::session::client::Dialled;
#[cfg(feature = "tls")]
use crate::remote::tls::{DialOptions, TlsLine};
use crate::remote::wire::connection_options::LineOptions;
use crate::setters::setters;

/// How another host is reached, whatever way it is.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Reach {
    /// How an agent is started behind a shell.
    pub shell: ShellOptions,
    /// How a service is dialled; without it none is.
    #[cfg(feature = "tls")]
    pub tls: Option<DialOptions>,
    /// How the line is watched, and how fast it may be.
    pub line: LineOptions,
}

setters! {
    Reach:
    /// Replaces [`Reach::shell`].
    with_shell, shell: ShellOptions;
    /// Replaces [`Reach::line`].
    with_line, line: LineOptions;
}

#[cfg(feature = "tls")]
setters! {
    Reach:
    /// Replaces [`Reach::tls`].
    with_tls, tls: Option<DialOptions>;
}

/// What carries a line; the line ends where it is dropped.
pub struct Carrier(Kind);

enum Kind {
    Shell(Shell),
    #[cfg(feature = "tls")]
    Tls(#[expect(dead_code, reason = "holds the connection open")] TlsLine),
}

impl RemoteAddress {
    /// Reaches the agent there.
    ///
    /// # Errors
    /// Those of starting a shell, of dialling a service and of the agent.
    pub fn dial(&self, reach: &Reach, work: &Work) -> Result<(Dialled, Carrier)> {
        let peer = format!("the agent at {}", self.host());
        let line = reach.line.clone().or_peer(&peer);
        if self.is_service() {
            return self.dial_service(reach, &line, work);
        }
        let mut shell = Shell::start(self, &reach.shell)?;
        let (output, input) = shell.streams()?;
        let dialled = Dialled::new(output, input, &line, work);
        let dialled = dialled.map_err(|error| shell.explain(error))?;
        shell.greeted();
        Ok((dialled, Carrier(Kind::Shell(shell))))
    }

    #[cfg(feature = "tls")]
    fn dial_service(
        &self,
        reach: &Reach,
        line: &LineOptions,
        work: &Work,
    ) -> Result<(Dialled, Carrier)> {
        let options = reach.tls.as_ref().ok_or_else(|| {
            let what = "a service takes only who has a certificate";
            Error::new(ErrorKind::InvalidInput, what)
        })?;
        let mut tls = TlsLine::dial(self, options)?;
        let (reader, writer) = tls.streams()?;
        let dialled = Dialled::new(reader, writer, line, work)?;
        Ok((dialled, Carrier(Kind::Tls(tls))))
    }

    #[cfg(not(feature = "tls"))]
    fn dial_service(&self, _: &Reach, _: &LineOptions, _: &Work) -> Result<(Dialled, Carrier)> {
        let what = "this build cannot reach services (feature `tls`)";
        Err(Error::new(ErrorKind::Unsupported, what))
    }
}

impl Carrier {
    /// The error of a line that broke, with what the shell said of it where that was kept.
    pub fn explain(&mut self, error: Error) -> Error {
        match &mut self.0 {
            Kind::Shell(shell) => shell.explain(error),
            #[cfg(feature = "tls")]
            Kind::Tls(_) => error,
        }
    }
}
