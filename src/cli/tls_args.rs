//! How the other end of a connection over TLS is known.

#[cfg(feature = "tls")]
use std::path::PathBuf;

#[cfg(feature = "tls")]
use clap::builder::{OsStringValueParser, TypedValueParser};

use crate::remote::ConnectOptions;
#[cfg(feature = "tls")]
use crate::remote::tls::{DialOptions, Identity};
#[cfg(feature = "tls")]
use crate::{Error, ErrorKind};
use crate::{Location, Result};

#[cfg(feature = "tls")]
const REMOTE: &str = "Remote";

/// Certificates for services and for NBD servers over TLS.
#[derive(clap::Args, Default)]
pub(super) struct TlsArgs {
    #[cfg(feature = "tls")]
    /// Certificate of this end, for a service (diskdelta://) or an NBD server (nbds://)
    #[arg(
        long,
        hide_short_help = true, help_heading = REMOTE,
        value_name = "PEM",
        value_parser = here(),
        requires_all = ["tls_key", "tls_ca"]
    )]
    tls_cert: Option<PathBuf>,
    #[cfg(feature = "tls")]
    /// Key of this end's certificate
    #[arg(long, value_name = "PEM", value_parser = here(), requires = "tls_cert")]
    #[arg(hide_short_help = true, help_heading = REMOTE)]
    tls_key: Option<PathBuf>,
    #[cfg(feature = "tls")]
    /// Authorities that the other end's certificate must come from
    #[arg(long, value_name = "PEM", value_parser = here(), requires = "tls_cert")]
    #[arg(hide_short_help = true, help_heading = REMOTE)]
    tls_ca: Option<PathBuf>,
    #[cfg(feature = "tls")]
    /// Name in the other end's certificate, if it is not the host's
    #[arg(long, value_name = "NAME", requires = "tls_cert")]
    #[arg(hide_short_help = true, help_heading = REMOTE)]
    tls_name: Option<String>,
}

impl TlsArgs {
    /// `connect` with what is needed for these locations.
    ///
    /// # Errors
    /// `InvalidInput` where one of them needs a certificate of this end and none is given.
    pub(super) fn of<'l>(
        &self,
        connect: ConnectOptions,
        all: impl IntoIterator<Item = &'l Location>,
    ) -> Result<ConnectOptions> {
        #[cfg(feature = "tls")]
        let connect = {
            let is_needed = all.into_iter().any(Location::needs_certificate);
            connect.with_tls(self.dial(is_needed)?)
        };
        #[cfg(not(feature = "tls"))]
        let _ = all.into_iter();
        Ok(connect)
    }

    #[cfg(feature = "tls")]
    fn dial(&self, is_needed: bool) -> Result<Option<DialOptions>> {
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

/// Reads the path of a file of this host.
#[cfg(feature = "tls")]
fn here() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().try_map(Location::parse_here)
}
