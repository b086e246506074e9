//! What both ends have in common: version, ciphers, protocol.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};

use super::identity::Identity;
use crate::error::{Error, ErrorKind, Result};

/// The name of the protocol within TLS (ALPN).
pub(super) const PROTOCOL: &[u8] = b"diskdelta/1";

/// How the end that dials shakes hands.
///
/// # Errors
/// Those of reading `identity`; `InvalidInput` for a key that is not the certificate's.
pub(super) fn dialling(identity: &Identity) -> Result<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(broken)?
        .with_root_certificates(identity.roots()?)
        .with_client_auth_cert(identity.chain()?, identity.secret()?)
        .map_err(|cause| identity.misfit(cause))?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// How a service shakes hands: who shows no certificate of its authorities is refused.
///
/// # Errors
/// As [`dialling`].
pub(super) fn serving(identity: &Identity) -> Result<ServerConfig> {
    let roots = Arc::new(identity.roots()?);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
        .build()
        .map_err(|cause| {
            Error::malformed("holds no authority")
                .at_path(&identity.ca)
                .caused_by(cause)
        })?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(broken)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(identity.chain()?, identity.secret()?)
        .map_err(|cause| identity.misfit(cause))?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    // Every session shows its certificates; none lives on in a ticket.
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// The SHA-256 of a certificate, in hex, as `openssl x509 -fingerprint -sha256` tells it.
pub(super) fn fingerprint(der: &[u8]) -> String {
    let sha256 = ring::cipher_suite::TLS13_AES_128_GCM_SHA256
        .tls13()
        .map(|suite| suite.common.hash_provider.hash(der));
    let bytes = sha256.as_ref().map_or(&[][..], AsRef::as_ref);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn broken(cause: rustls::Error) -> Error {
    Error::new(ErrorKind::Unsupported, "TLS 1.3 cannot be set up").caused_by(cause)
}
