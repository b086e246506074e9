//! The NBD client: against QEMU's servers, and against one that lies.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod malformed_server;
mod oracle;
