//! How another host is reached.

use std::path::{Path, PathBuf};
use std::time::Duration;

use diskdelta::remote::tls::{DialOptions, Identity, ServicePath, TlsLine};
use diskdelta::remote::{Dialled, LineOptions, Retry, Shell, ShellOptions, SshPath};
use diskdelta::{Error, ErrorKind, Work};

use super::args;
use super::context::Context;

/// How another host is reached.
#[derive(clap::Args)]
pub struct Reach {
    /// Reaches the other host with COMMAND, which is split at spaces, instead of ssh
    #[arg(long, value_name = "COMMAND", default_value = "ssh")]
    rsh: String,
    /// What to run there
    #[arg(long, value_name = "PROGRAM", default_value = "diskdelta")]
    remote_program: String,
    /// This end's certificate, for a service (diskdelta://)
    #[arg(long, value_name = "PEM", requires_all = ["tls_key", "tls_ca"])]
    tls_cert: Option<PathBuf>,
    /// The key of this end's certificate
    #[arg(long, value_name = "PEM", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// The authorities that the service's certificate must come from
    #[arg(long, value_name = "PEM", requires = "tls_cert")]
    tls_ca: Option<PathBuf>,
    /// The name that the service's certificate must be for, where it is not the host's
    #[arg(long, value_name = "NAME", requires = "tls_cert")]
    tls_name: Option<String>,
    /// Begins again so many times when the line breaks, after longer and longer pauses
    #[arg(long, value_name = "N", default_value_t = 0)]
    retry: u32,
    /// Gives the line up when the other end was silent for so long: 90s, 5m. Below 15s a service
    /// must be told the same
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = args::timeout)]
    timeout: Duration,
}

/// An image on another host.
pub enum Far {
    /// Behind a shell.
    Shell(SshPath),
    /// At a service.
    Service(ServicePath),
}

/// What carries a line; the line ends where it is dropped.
pub enum Carrier {
    Shell { _shell: Shell },
    Tls { _line: TlsLine },
}

impl Reach {
    pub fn retry(&self) -> Retry {
        Retry::new(self.retry)
    }

    fn shell(&self) -> ShellOptions {
        ShellOptions::default()
            .with_shell(&self.rsh)
            .with_program(&self.remote_program)
            .with_timeout((self.timeout != LineOptions::default().silence).then_some(self.timeout))
    }

    fn tls(&self) -> Result<DialOptions, Error> {
        let (Some(cert), Some(key), Some(ca)) = (&self.tls_cert, &self.tls_key, &self.tls_ca)
        else {
            let what = "a service takes only who has a certificate";
            return Err(Error::new(ErrorKind::InvalidInput, what)
                .advise("give --tls-cert, --tls-key and --tls-ca"));
        };
        let options = DialOptions::new(Identity::new(cert, key, ca));
        let patience = options.patience.min(self.timeout);
        Ok(options
            .with_patience(patience)
            .with_name(self.tls_name.clone()))
    }
}

impl Far {
    /// Reads what may be an address.
    ///
    /// # Errors
    /// `InvalidInput`, `Unsupported`.
    pub fn parse(path: &Path) -> Result<Option<Far>, Error> {
        if let Some(shell) = SshPath::parse(path)? {
            return Ok(Some(Far::Shell(shell)));
        }
        if let Some(service) = ServicePath::parse(path)? {
            return Ok(Some(Far::Service(service)));
        }
        if is_url(path) {
            let what = "no way to reach that is known";
            return Err(Error::new(ErrorKind::Unsupported, what)
                .at_path(path)
                .advise("write ssh://[user@]host[:port]/path or diskdelta://host[:port]/name"));
        }
        Ok(None)
    }

    /// The image's path there.
    pub fn path(&self) -> &[u8] {
        match self {
            Far::Shell(shell) => &shell.path,
            Far::Service(service) => &service.path,
        }
    }

    /// Reaches the agent there.
    ///
    /// # Errors
    /// Those of starting a shell, of dialling a service and of the agent.
    pub fn dial(
        &self,
        reach: &Reach,
        context: &Context,
        work: &Work,
    ) -> Result<(Dialled, Carrier), Error> {
        let line = |host: &str| {
            LineOptions::default()
                .with_silence(reach.timeout)
                .with_peer(Some(format!("the agent at {host}")))
                .with_limit_rate(context.common.limit_rate.unwrap_or(0))
        };
        match self {
            Far::Shell(place) => {
                let mut shell = place.start(&reach.shell())?;
                let (output, input) = shell.streams()?;
                let dialled = Dialled::new(output, input, &line(&place.host), work)?;
                Ok((dialled, Carrier::Shell { _shell: shell }))
            }
            Far::Service(place) => {
                let mut carrier = place.dial(&reach.tls()?)?;
                let (reader, writer) = carrier.streams()?;
                let dialled = Dialled::new(reader, writer, &line(&place.host), work)?;
                Ok((dialled, Carrier::Tls { _line: carrier }))
            }
        }
    }
}

/// The beginning of an address, and no file here.
fn is_url(path: &Path) -> bool {
    let text = path.to_string_lossy();
    text.split_once("://").is_some_and(|(scheme, _)| {
        !scheme.is_empty() && scheme.chars().all(|c| c.is_ascii_alphanumeric())
    }) && !path.exists()
}
