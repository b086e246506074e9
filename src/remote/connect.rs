//! How another host is reached.

use super::session::client::Client;
#[cfg(feature = "tls")]
use super::tls::{DialOptions, TlsLine};
use super::transport::connection::{Connection, Kind};
use super::transport::retry::Retry;
use super::transport::ssh::{Shell, ShellOptions};
use super::wire::connection_options::LineOptions;
use crate::error::{Error, ErrorKind, Result};
use crate::location::RemoteAddress;
use crate::progress::Work;
use crate::setters::setters;
#[cfg(feature = "http")]
use crate::storage::HttpOptions;

/// How other hosts are reached, whatever the way.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ConnectOptions {
    /// How an agent is started behind a shell.
    pub shell: ShellOptions,
    /// How a service is connected to; without it none is.
    #[cfg(feature = "tls")]
    pub tls: Option<DialOptions>,
    /// How web servers are reached.
    #[cfg(feature = "http")]
    pub http: HttpOptions,
    /// The agent that opens addresses of web servers in place of this host; its path means nothing.
    pub via: Option<RemoteAddress>,
    /// How the line is watched, and how fast it may be.
    pub line: LineOptions,
    /// How often a sync is begun again whose connection broke.
    pub retry: Retry,
}

setters! {
    ConnectOptions:
    /// Replaces [`ConnectOptions::shell`].
    with_shell, shell: ShellOptions;
    /// Replaces [`ConnectOptions::via`].
    with_via, via: Option<RemoteAddress>;
    /// Replaces [`ConnectOptions::line`].
    with_line, line: LineOptions;
    /// Replaces [`ConnectOptions::retry`].
    with_retry, retry: Retry;
}

#[cfg(feature = "http")]
setters! {
    ConnectOptions:
    /// Replaces [`ConnectOptions::http`].
    with_http, http: HttpOptions;
}

#[cfg(feature = "tls")]
setters! {
    ConnectOptions:
    /// Replaces [`ConnectOptions::tls`].
    with_tls, tls: Option<DialOptions>;
}

impl ConnectOptions {
    /// Connects to the agent that has the image at `at`, once.
    ///
    /// # Errors
    /// Those of starting a shell, of dialling a service and of the agent; `InvalidInput` for a
    /// service without a certificate; `Unsupported` for a service in a build without TLS.
    pub fn connect(&self, at: &RemoteAddress, work: &Work) -> Result<Client> {
        let peer = format!("the agent at {}", at.host());
        let line = self.line.clone().or_peer(&peer);
        let line = match work.is_unlimited() {
            true => line.with_limit_rate(0),
            false => line,
        };
        if at.is_service() {
            return self.dial(at, &line, work);
        }
        // An agent that is started without it waits as long as this end does by default.
        let silence = line.silence;
        let timeout = (silence != LineOptions::default().silence).then_some(silence);
        let mut shell = Shell::start(at, &self.shell, timeout)?;
        let (output, input) = shell.streams()?;
        let client = Client::new(output, input, &line, work);
        let client = client.map_err(|error| shell.explain(error))?;
        shell.greeted();
        Ok(client.over(Connection(Kind::Shell(shell))))
    }

    #[cfg(feature = "tls")]
    fn dial(&self, at: &RemoteAddress, line: &LineOptions, work: &Work) -> Result<Client> {
        let options = self.tls.as_ref().ok_or_else(|| {
            let what = "a service takes only who has a certificate";
            Error::new(ErrorKind::InvalidInput, what)
        })?;
        let patience = options.patience.min(line.silence);
        let mut tls = TlsLine::dial(at, &options.clone().with_patience(patience))?;
        let (reader, writer) = tls.streams()?;
        let client = Client::new(reader, writer, line, work)?;
        Ok(client.over(Connection(Kind::Tls(tls))))
    }

    #[cfg(not(feature = "tls"))]
    fn dial(&self, _: &RemoteAddress, _: &LineOptions, _: &Work) -> Result<Client> {
        let what = "this build cannot reach services (feature `tls`)";
        Err(Error::new(ErrorKind::Unsupported, what))
    }
}
