//! Lines over TLS: to a service, and the service itself.
//!
//! TLS 1.3 alone, with certificates of both ends.

mod config;
mod connection_limit;
mod crowd;
mod dial;
mod error;
mod handshake;
mod identity;
mod purpose;
mod service;
mod stream;
mod subject;
#[cfg(feature = "nbd")]
mod upgrade;

pub use dial::DialOptions;
pub use identity::Identity;
pub use service::{Client, Service, ServiceEvent, ServiceOptions};
pub use stream::{TlsLine, TlsReader, TlsWriter};
