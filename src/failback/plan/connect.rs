//! What a plan says of how disks on other hosts are reached.

use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;

use super::address::parse_path;
use super::file::{ConnectFile, SizeFile};
use super::validate::Check;
use crate::error::Result;
use crate::units::parse_size;

/// How a site's disks are reached that lie on other hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
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

impl Default for SiteConnectOptions {
    fn default() -> Self {
        SiteConnectOptions {
            // Nobody sits there to be asked for a password.
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

impl Check<'_> {
    pub(super) fn connect(
        &self,
        site: &str,
        file: Spanned<ConnectFile>,
    ) -> Result<SiteConnectOptions> {
        let at = file.span().start;
        let table = format!("{site}.connect");
        let ConnectFile {
            rsh,
            remote_program,
            tls_cert,
            tls_key,
            tls_ca,
            tls_name,
            timeout,
            state,
            limit_rate,
        } = file.into_inner();
        let default = SiteConnectOptions::default();
        let text = |name: &str, text: Option<Spanned<String>>| {
            let filled = |text| self.filled(&format!("{table}.{name}"), &text);
            text.map(filled).transpose()
        };
        let path = |name: &str, text: &Spanned<String>| {
            let wrong = |e: crate::Error| {
                self.wrong(&format!("{table}.{name}"), text.span().start, e.to_string())
            };
            parse_path(text.get_ref()).map_err(wrong)
        };
        let tls = match (&tls_cert, &tls_key, &tls_ca) {
            (None, None, None) => None,
            (Some(cert), Some(key), Some(ca)) => Some(TlsFiles {
                cert: path("tls_cert", cert)?,
                key: path("tls_key", key)?,
                ca: path("tls_ca", ca)?,
            }),
            _ => {
                let why = "`tls_cert`, `tls_key` and `tls_ca` go together";
                return Err(self.wrong(&table, at, why));
            }
        };
        let name_at = tls_name.as_ref().map_or(at, |name| name.span().start);
        if tls_name.is_some() && tls.is_none() {
            let why = "goes with `tls_cert`, `tls_key` and `tls_ca`";
            return Err(self.wrong(&format!("{table}.tls_name"), name_at, why));
        }
        let timeout_at = timeout.as_ref().map_or(at, |timeout| timeout.span().start);
        let key = format!("{table}.timeout");
        let timeout = self.duration(&key, timeout)?.unwrap_or(default.timeout);
        if timeout.is_zero() {
            return Err(self.wrong(&key, timeout_at, "no time at all is too little"));
        }
        Ok(SiteConnectOptions {
            rsh: text("rsh", rsh)?.unwrap_or(default.rsh),
            remote_program: text("remote_program", remote_program)?
                .unwrap_or(default.remote_program),
            tls,
            tls_name: text("tls_name", tls_name)?,
            timeout,
            state: state.map(|state| path("state", &state)).transpose()?,
            limit_rate: self.rate(&format!("{table}.limit_rate"), limit_rate)?,
        })
    }

    fn rate(&self, key: &str, rate: Option<Spanned<SizeFile>>) -> Result<u64> {
        let Some(rate) = rate else {
            return Ok(0);
        };
        let at = rate.span().start;
        match rate.into_inner() {
            SizeFile::Bytes(bytes) => Ok(bytes),
            SizeFile::Text(text) => {
                parse_size(&text).map_err(|e| self.wrong(key, at, e.to_string()))
            }
        }
    }
}

const TIMEOUT: Duration = Duration::from_secs(60);
