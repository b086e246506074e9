//! What both ends have in common: version, ciphers, protocol.

use std::sync::Arc;

use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};

use super::identity::Identity;
use super::purpose::{DialsOnly, ServesOnly};
use crate::error::{Error, ErrorKind, Result};

/// The name of the protocol within TLS (ALPN).
pub(in crate::remote) const PROTOCOL: &[u8] = b"diskdelta/1";

/// How the client shakes hands: only with a service whose certificate is meant for one.
///
/// # Errors
/// Those of reading `identity`; `InvalidInput` for a key that is not the certificate's.
pub(in crate::remote) fn dialling(identity: &Identity) -> Result<ClientConfig> {
    let roots = Arc::new(identity.roots()?);
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider())
        .build()
        .map_err(|cause| no_authority(identity, cause))?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(broken)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(ServesOnly(verifier)))
        .with_client_auth_cert(identity.chain()?, identity.secret()?)
        .map_err(|cause| identity.misfit(cause))?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// How a service shakes hands: who shows no certificate of its authorities that is meant for a
/// client is refused.
///
/// # Errors
/// As [`dialling`].
pub(in crate::remote) fn serving(identity: &Identity) -> Result<ServerConfig> {
    let roots = Arc::new(identity.roots()?);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
        .build()
        .map_err(|cause| no_authority(identity, cause))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(broken)?
        .with_client_cert_verifier(Arc::new(DialsOnly(verifier)))
        .with_single_cert(identity.chain()?, identity.secret()?)
        .map_err(|cause| identity.misfit(cause))?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    // Every session shows its certificates; none lives on in a ticket.
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// The SHA-256 of a certificate, in hex, as `openssl x509 -fingerprint -sha256` tells it.
pub(in crate::remote) fn fingerprint(der: &[u8]) -> String {
    let sha256 = ring::cipher_suite::TLS13_AES_128_GCM_SHA256
        .tls13()
        .map(|suite| suite.common.hash_provider.hash(der));
    let bytes = sha256.as_ref().map_or(&[][..], AsRef::as_ref);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn no_authority(identity: &Identity, cause: VerifierBuilderError) -> Error {
    Error::malformed("holds no authority")
        .at_path(&identity.ca)
        .caused_by(cause)
}

fn broken(cause: rustls::Error) -> Error {
    Error::new(ErrorKind::Unsupported, "TLS 1.3 cannot be set up").caused_by(cause)
}
