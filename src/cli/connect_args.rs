//! How another host is reached.

use std::time::Duration;

use crate::remote::{ConnectOptions, LineOptions, Retry, ShellOptions};
use crate::{Error, Location, RemoteAddress};

use super::args;
use super::context::Context;
use super::tls_args::TlsArgs;

const REMOTE: &str = "Remote";

/// How another host is reached.
#[derive(clap::Args)]
pub(super) struct ConnectArgs {
    /// Remote shell, split at spaces
    #[arg(long, hide_short_help = true, help_heading = REMOTE, value_name = "COMMAND", default_value = "ssh")]
    rsh: String,
    /// Program to run on the other host
    #[arg(long, hide_short_help = true, help_heading = REMOTE, value_name = "PROGRAM", default_value = "diskdelta")]
    remote_program: String,
    #[command(flatten)]
    tls: TlsArgs,
    /// Have the agent at ADDRESS (ssh://host, diskdelta://host) read a source at a web server
    ///
    /// It must be run with serve --allow-url. Hashes are made there, and what differs is sent.
    #[arg(long, hide_short_help = true, help_heading = REMOTE, value_name = "ADDRESS", value_parser = RemoteAddress::parse_agent)]
    via: Option<RemoteAddress>,
    /// Start again up to N times when the connection breaks, after growing pauses
    #[arg(long, help_heading = REMOTE, value_name = "N", default_value_t = 0)]
    retry: u32,
    /// Give up after this much silence (90s, 5m); below 15s give a service the same
    #[arg(long, hide_short_help = true, help_heading = REMOTE, value_name = "TIME", default_value = "60s", value_parser = args::timeout)]
    timeout: Duration,
}

impl ConnectArgs {
    /// The agent that reads sources at web servers.
    pub(super) fn via(&self) -> Option<&RemoteAddress> {
        self.via.as_ref()
    }

    /// How the hosts of these locations are reached.
    ///
    /// # Errors
    /// `InvalidInput` for a service without a certificate.
    pub(super) fn options(
        &self,
        all: [&Location; 2],
        context: &Context,
    ) -> Result<ConnectOptions, Error> {
        let hosts = all.into_iter().filter_map(|location| match location {
            Location::Remote(address) => Some(address),
            Location::Web(_) => self.via.as_ref(),
            _ => None,
        });
        let shell = ShellOptions::default()
            .with_shell(&self.rsh)
            .with_program(&self.remote_program);
        let line = LineOptions::default()
            .with_silence(self.timeout)
            .with_limit_rate(context.common.limit_rate.unwrap_or(0));
        let agent = self.via.clone().map(Location::Remote);
        let reached = match &agent {
            Some(agent) => [agent, all[1]],
            None => all,
        };
        let connect = self.tls.of(context.common.connect(), reached)?;
        Ok(connect
            .with_shell(shell)
            .with_via(self.via.clone())
            .with_line(line)
            // What is done on this host alone has no connection that could break.
            .with_retry(Retry::new(hosts.clone().next().map_or(0, |_| self.retry))))
    }
}
