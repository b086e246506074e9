//! How another host is reached.

use super::ssh::{Shell, ShellOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::location::RemoteAddress;
use crate::progress::Work;
use crate::remote::session::client::Client;
#[cfg(feature = "tls")]
use crate::remote::tls::{DialOptions, TlsLine};
use crate::remote::wire::connection_options::LineOptions;
use crate::setters::setters;

/// How another host is reached, whatever way it is.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ConnectOptions {
    /// How an agent is started behind a shell.
    pub shell: ShellOptions,
    /// How a service is dialled; without it none is.
    #[cfg(feature = "tls")]
    pub tls: Option<DialOptions>,
    /// How the line is watched, and how fast it may be.
    pub line: LineOptions,
}

setters! {
    ConnectOptions:
    /// Replaces [`ConnectOptions::shell`].
    with_shell, shell: ShellOptions;
    /// Replaces [`ConnectOptions::line`].
    with_line, line: LineOptions;
}

#[cfg(feature = "tls")]
setters! {
    ConnectOptions:
    /// Replaces [`ConnectOptions::tls`].
    with_tls, tls: Option<DialOptions>;
}

/// What carries a line; the line ends where it is dropped.
pub struct Connection(Kind);

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
    pub fn dial(&self, connect: &ConnectOptions, work: &Work) -> Result<(Client, Connection)> {
        let peer = format!("the agent at {}", self.host());
        let line = connect.line.clone().or_peer(&peer);
        if self.is_service() {
            return self.dial_service(connect, &line, work);
        }
        let mut shell = Shell::start(self, &connect.shell)?;
        let (output, input) = shell.streams()?;
        let client = Client::new(output, input, &line, work);
        let client = client.map_err(|error| shell.explain(error))?;
        shell.greeted();
        Ok((client, Connection(Kind::Shell(shell))))
    }

    #[cfg(feature = "tls")]
    fn dial_service(
        &self,
        connect: &ConnectOptions,
        line: &LineOptions,
        work: &Work,
    ) -> Result<(Client, Connection)> {
        let options = connect.tls.as_ref().ok_or_else(|| {
            let what = "a service takes only who has a certificate";
            Error::new(ErrorKind::InvalidInput, what)
        })?;
        let mut tls = TlsLine::dial(self, options)?;
        let (reader, writer) = tls.streams()?;
        let client = Client::new(reader, writer, line, work)?;
        Ok((client, Connection(Kind::Tls(tls))))
    }

    #[cfg(not(feature = "tls"))]
    fn dial_service(
        &self,
        _: &ConnectOptions,
        _: &LineOptions,
        _: &Work,
    ) -> Result<(Client, Connection)> {
        let what = "this build cannot reach services (feature `tls`)";
        Err(Error::new(ErrorKind::Unsupported, what))
    }
}

impl Connection {
    /// The error of a line that broke, with what the shell said of it where that was kept.
    pub fn explain(&mut self, error: Error) -> Error {
        match &mut self.0 {
            Kind::Shell(shell) => shell.explain(error),
            #[cfg(feature = "tls")]
            Kind::Tls(_) => error,
        }
    }
}
