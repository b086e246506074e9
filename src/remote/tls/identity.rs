//! Who an end is, and whom it trusts.

use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::error::{Error, ErrorKind, Result};
use crate::storage::read_private;

/// Who an end is, and whom it trusts: three PEM files, read when they are needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its certificate, and behind it those that lead to the authority, if any.
    pub cert: PathBuf,
    /// The key of the first certificate, without a passphrase; a file that only its owner can
    /// read.
    pub key: PathBuf,
    /// The authorities that the other end's certificate must come from.
    pub ca: PathBuf,
}

impl Identity {
    /// These three files.
    pub fn new(
        cert: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
        ca: impl Into<PathBuf>,
    ) -> Identity {
        Identity {
            cert: cert.into(),
            key: key.into(),
            ca: ca.into(),
        }
    }

    pub(in crate::remote) fn chain(&self) -> Result<Vec<CertificateDer<'static>>> {
        certificates(&self.cert)
    }

    pub(in crate::remote) fn secret(&self) -> Result<PrivateKeyDer<'static>> {
        let pem = read_private(&self.key)?;
        PrivateKeyDer::from_pem_slice(&pem).map_err(|cause| {
            let error = unreadable(&self.key, "private key", cause);
            match error.kind() {
                ErrorKind::Malformed => error.advise(
                    "it must be PEM, without a passphrase; `openssl pkey -in OLD -out NEW` takes \
                     one off",
                ),
                _ => error,
            }
        })
    }

    pub(in crate::remote) fn roots(&self) -> Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        for root in certificates(&self.ca)? {
            roots.add(root).map_err(|cause| {
                Error::malformed("holds a certificate that cannot be an authority's")
                    .at_path(&self.ca)
                    .caused_by(cause)
            })?;
        }
        Ok(roots)
    }

    /// What is wrong with certificate and key together.
    pub(in crate::remote) fn misfit(&self, cause: rustls::Error) -> Error {
        match cause {
            rustls::Error::InconsistentKeys(_) => {
                let text = format!(
                    "is not the key of the certificate in {}",
                    self.cert.display()
                );
                Error::new(ErrorKind::InvalidInput, text).at_path(&self.key)
            }
            rustls::Error::InvalidCertificate(_) => {
                Error::malformed("holds a certificate that cannot be read")
                    .at_path(&self.cert)
                    .caused_by(cause)
            }
            _ => Error::new(ErrorKind::Unsupported, "holds a key that cannot be used")
                .at_path(&self.key)
                .advise("use an ECDSA (P-256), Ed25519 or RSA (2048 bits or more) key")
                .caused_by(cause),
        }
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let failed = |cause| unreadable(path, "certificate", cause);
    let all: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(failed)?
        .collect::<Result<_, _>>()
        .map_err(failed)?;
    match all.is_empty() {
        true => Err(failed(pem::Error::NoItemsFound)),
        false => Ok(all),
    }
}

fn unreadable(path: &Path, what: &str, cause: pem::Error) -> Error {
    match cause {
        pem::Error::Io(cause) => Error::io("read", cause).at_path(path),
        pem::Error::NoItemsFound => {
            Error::malformed(format!("holds no {what} that can be read")).at_path(path)
        }
        other => Error::malformed(format!("holds a damaged {what}"))
            .at_path(path)
            .caused_by(other),
    }
}
