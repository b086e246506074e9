//! How another host is reached.

#[cfg(feature = "tls")]
use std::path::PathBuf;
use std::time::Duration;

#[cfg(feature = "tls")]
use crate::ErrorKind;
#[cfg(feature = "tls")]
use crate::remote::tls::{DialOptions, Identity};
use crate::remote::{ConnectOptions, LineOptions, Retry, ShellOptions};
use crate::{Error, Location};

use super::args;
use super::context::Context;

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
    #[cfg(feature = "tls")]
    /// Certificate of this end, for a service (diskdelta://)
    #[arg(
        long,
        hide_short_help = true, help_heading = REMOTE,
        value_name = "PEM",
        value_parser = args::here(),
        requires_all = ["tls_key", "tls_ca"]
    )]
    tls_cert: Option<PathBuf>,
    #[cfg(feature = "tls")]
    /// Key of this end's certificate
    #[arg(long, value_name = "PEM", value_parser = args::here(), requires = "tls_cert")]
    #[arg(hide_short_help = true, help_heading = REMOTE)]
    tls_key: Option<PathBuf>,
    #[cfg(feature = "tls")]
    /// Authorities that the service's certificate must come from
    #[arg(long, value_name = "PEM", value_parser = args::here(), requires = "tls_cert")]
    #[arg(hide_short_help = true, help_heading = REMOTE)]
    tls_ca: Option<PathBuf>,
    #[cfg(feature = "tls")]
    /// Name in the service's certificate, if it is not the host's
    #[arg(long, value_name = "NAME", requires = "tls_cert")]
    #[arg(hide_short_help = true, help_heading = REMOTE)]
    tls_name: Option<String>,
    /// Start again up to N times when the connection breaks, after growing pauses
    #[arg(long, help_heading = REMOTE, value_name = "N", default_value_t = 0)]
    retry: u32,
    /// Give up after this much silence (90s, 5m); below 15s give a service the same
    #[arg(long, hide_short_help = true, help_heading = REMOTE, value_name = "TIME", default_value = "60s", value_parser = args::timeout)]
    timeout: Duration,
}

impl ConnectArgs {
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
            _ => None,
        });
        let shell = ShellOptions::default()
            .with_shell(&self.rsh)
            .with_program(&self.remote_program);
        let line = LineOptions::default()
            .with_silence(self.timeout)
            .with_limit_rate(context.common.limit_rate.unwrap_or(0));
        let connect = context.common.connect();
        #[cfg(feature = "tls")]
        let connect = connect.with_tls(self.tls(all.into_iter().any(Location::needs_certificate))?);
        Ok(connect
            .with_shell(shell)
            .with_line(line)
            // What is done on this host alone has no connection that could break.
            .with_retry(Retry::new(hosts.clone().next().map_or(0, |_| self.retry))))
    }

    #[cfg(feature = "tls")]
    fn tls(&self, is_needed: bool) -> Result<Option<DialOptions>, Error> {
        match (&self.tls_cert, &self.tls_key, &self.tls_ca) {
            (Some(cert), Some(key), Some(ca)) => {
                let options = DialOptions::new(Identity::new(cert, key, ca));
                Ok(Some(options.with_name(self.tls_name.clone())))
            }
            _ if is_needed => {
                let what = "a service, and an NBD server over TLS, need a certificate of this end";
                Err(Error::new(ErrorKind::InvalidInput, what)
                    .advise("give --tls-cert, --tls-key and --tls-ca"))
            }
            _ => Ok(None),
        }
    }
}
