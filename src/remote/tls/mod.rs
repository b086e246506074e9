//! Lines over TLS: to a service, and the service itself.
//!
//! TLS 1.3 alone, with certificates of both ends.

pub(super) mod config;
pub(super) mod connection_limit;
pub(super) mod crowd;
mod dial;
pub(super) mod error;
pub(super) mod handshake;
pub(super) mod identity;
pub(super) mod purpose;
pub(super) mod stream;
pub(super) mod subject;
#[cfg(feature = "nbd")]
mod upgrade;

pub use super::service::{Client, Service, ServiceEvent, ServiceOptions};
pub use dial::DialOptions;
pub use identity::Identity;
pub use stream::{TlsLine, TlsReader, TlsWriter};
