//! How disks on other hosts are reached.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::values::{Filled, HostPath, Patience, Size};
#[cfg(feature = "tls")]
use crate::remote::tls::{DialOptions, Identity};
use crate::remote::{ConnectOptions, LineOptions, ShellOptions};

/// How a site's disks are reached that lie on other hosts.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "ConnectFile")]
#[non_exhaustive]
pub struct SiteConnectOptions {
    /// The remote shell, split at spaces: a program and what comes before the host.
    pub rsh: String,
    /// The program to run there.
    pub remote_program: String,
    /// Who this end is for services, and whom it trusts.
    pub tls: Option<TlsFiles>,
    /// The name that a service's certificate must be for, where it is not the host's.
    pub tls_name: Option<String>,
    /// How long the other end may be silent.
    pub timeout: Duration,
    /// Where the host of disks that are written there keeps what a job has to remember of them;
    /// beside the first disk, unless said otherwise.
    pub state: Option<PathBuf>,
    /// What goes over one VM's line, in bytes a second each way; 0 is no limit.
    pub limit_rate: u64,
}

/// Certificate, key, and the authorities that are trusted: three PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsFiles {
    /// This end's certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The authorities that a service's certificate must come from.
    pub ca: PathBuf,
}

/// As a plan has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConnectFile {
    rsh: Option<Filled>,
    remote_program: Option<Filled>,
    tls_cert: Option<HostPath>,
    tls_key: Option<HostPath>,
    tls_ca: Option<HostPath>,
    tls_name: Option<Filled>,
    timeout: Option<Patience>,
    state: Option<HostPath>,
    limit_rate: Option<Size>,
}

impl TryFrom<ConnectFile> for SiteConnectOptions {
    type Error = &'static str;

    fn try_from(file: ConnectFile) -> Result<Self, Self::Error> {
        let tls = match (file.tls_cert, file.tls_key, file.tls_ca) {
            (None, None, None) => None,
            (Some(cert), Some(key), Some(ca)) => Some(TlsFiles {
                cert: cert.0,
                key: key.0,
                ca: ca.0,
            }),
            _ => return Err("`tls_cert`, `tls_key` and `tls_ca` go together"),
        };
        let default = Self::default();
        let program = file.remote_program.map(Into::into);
        Ok(SiteConnectOptions {
            rsh: file.rsh.map_or(default.rsh, Into::into),
            remote_program: program.unwrap_or(default.remote_program),
            tls,
            tls_name: file.tls_name.map(Into::into),
            timeout: file.timeout.map_or(default.timeout, Into::into),
            state: file.state.map(Into::into),
            limit_rate: file.limit_rate.map_or(0, Into::into),
        })
    }
}

impl Default for SiteConnectOptions {
    fn default() -> Self {
        SiteConnectOptions {
            // No password can be asked for.
            rsh: "ssh -oBatchMode=yes".to_owned(),
            remote_program: "diskdelta".to_owned(),
            tls: None,
            tls_name: None,
            timeout: TIMEOUT,
            state: None,
            limit_rate: 0,
        }
    }
}

impl SiteConnectOptions {
    /// How the site's hosts are reached.
    pub(in crate::failback) fn connect_options(&self) -> ConnectOptions {
        let line = LineOptions::default()
            .with_silence(self.timeout)
            .with_limit_rate(self.limit_rate);
        let shell = ShellOptions::default()
            .with_shell(&self.rsh)
            .with_program(&self.remote_program)
            .with_keeps_errors(true);
        let connect = ConnectOptions::default().with_shell(shell).with_line(line);
        #[cfg(feature = "tls")]
        let connect = connect.with_tls(self.tls.as_ref().map(|files| {
            let options = DialOptions::new(Identity::new(&files.cert, &files.key, &files.ca));
            options.with_name(self.tls_name.clone())
        }));
        connect
    }
}

const TIMEOUT: Duration = Duration::from_secs(60);
