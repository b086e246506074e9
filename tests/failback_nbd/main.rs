//! The NBD client: against QEMU's servers, and against one that lies.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod answers;
#[cfg(feature = "tls")]
#[path = "../remote/certificates.rs"]
#[allow(dead_code, reason = "others use the rest of it")]
mod certificates;
mod malformed_server;
mod nbdkit;
mod oracle;
